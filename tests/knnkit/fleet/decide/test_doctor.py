"""What `knnkit doctor` says of a bare board is what provisioning will say."""

from __future__ import annotations

import dataclasses

import pytest
from test_plan import BARE, NEW, running

from knnkit.fleet.decide.doctor import findings_of
from knnkit.fleet.targets import Target
from knnkit.provision import requirements


@pytest.mark.parametrize(
    ("python", "runtime"),
    [((3, 11, 2), requirements.TFLITE), ((3, 13, 5), requirements.LITERT), (None, requirements.TFLITE)],
)
def test_the_doctor_asks_for_the_room_that_provisioning_asks_for(
    python: tuple[int, int, int] | None, runtime: str
) -> None:
    need = requirements.ROOM[runtime] + requirements.SPARE
    for free, short in ((need - 1, True), (need, False)):
        facts = dataclasses.replace(BARE, python=python, disk_free_bytes=free)
        said = [found.message for found in findings_of(Target("pi@board", None), facts) if found.name == "disk"]
        assert bool(said) == short
        assert all(f"needs {need >> 20}" in each for each in said)


def test_the_doctor_proposes_no_provisioning_for_a_key_that_the_device_revoked() -> None:
    """As after `knnkit trust --rotate`, if deploy.yaml still names the old key."""
    old, new = NEW.signed_by, "sha256:" + "cd" * 32
    for revoked, proposed in (((old,), "`signing: {key: NEW.pem}` in deploy.yaml"), ((), "`knnkit provision --target")):
        facts = running(NEW.ref, trusted=(new,), revoked=revoked)
        (project,) = [f for f in findings_of(Target("pi", None), facts, {old}) if f.name == "project"]
        assert project.mend.startswith(proposed)
        assert old in project.message
