"""What `knnkit doctor` says of a bare board is what provisioning will say."""

from __future__ import annotations

import dataclasses

import pytest
from test_plan import BARE

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
