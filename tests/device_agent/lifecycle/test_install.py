"""install: what stage and activate do, in one process; each of them refuses as it does alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from support.device import ROOT, Device
from support.releases import Releases

from device_agent.lifecycle import stage
from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.model_info import Gates
from device_agent.shared.protocol.reports import Installed
from device_agent.shared.trust.reasons import Reason
from device_agent.store.store import Store


def upload(device: Device, release: Path, suffix: str = constants.PART_SUFFIX, sender: str = "") -> Path:
    """Lays a release where a host sends it, each file under the name that it has on its way."""
    digest = device.ask("verify", release)["release"]["digest"]
    place = device.root / constants.INCOMING_DIR / f"{digest}{sender}"
    place.mkdir(mode=0o700, parents=True)
    for file in release.iterdir():
        shutil.copy(file, place / f"{file.name}{suffix}")
    return place


@pytest.mark.parametrize("suffix", [constants.PART_SUFFIX, ""], ids=["parts", "whole names"])
def test_an_upload_is_staged_tried_and_waits_for_its_confirmation(
    device: Device, releases: Releases, suffix: str
) -> None:
    place = upload(device, releases["iris"], suffix)
    found = json_codec.from_plain(Installed, device.ask("install", place, "--nonce", "n-1", "--deadline", "600"))
    assert found.staged is not None
    assert (found.staged.release.digest, found.staged.already) == (place.name, False)
    assert (found.activated.already, found.activated.seconds_left) == (False, 600)
    assert found.activated.certificate.nonce == "n-1"
    assert found.stage_seconds > 0.0
    assert not place.exists()
    status = device.ask("status")
    assert (status["answering"], status["committed"]) == (place.name, None)
    assert [entry["what"] for entry in device.ask("history")["entries"]] == ["staged", "activated"]
    device.ask("confirm", place.name)


def test_what_an_interrupted_install_had_staged_is_only_tried(device: Device, releases: Releases) -> None:
    place = upload(device, releases["iris"])
    first = device.ask("install", place, "--deadline", "500")
    again = json_codec.from_plain(Installed, device.ask("install", place, "--deadline", "900"))
    assert again.staged is None
    assert (again.activated.seconds_left or 0.0) < first["activated"]["seconds_left"]
    device.ask("confirm", place.name)
    assert device.ask("install", place)["activated"]["already"] is True


def test_each_sender_has_a_place_and_once_the_release_is_there_none_is_left(device: Device, releases: Releases) -> None:
    ann, ben = (upload(device, releases["iris"], sender=f".{number}-0a1b2c3d") for number in (1, 2))
    other = upload(device, releases["iris-next"], sender=".1-0a1b2c3d")
    staged = device.ask("install", ann)["staged"]["release"]["digest"]
    assert staged == ann.name.partition(".")[0]
    assert [path.name for path in other.parent.iterdir()] == [other.name]
    again = json_codec.from_plain(Installed, device.ask("install", ben))  # it was on its way, and is there
    assert (again.staged, again.activated.release.digest) == (None, staged)


@pytest.mark.parametrize("command", ["stage", "install"])
@pytest.mark.parametrize("is_here", [True, False])
def test_an_upload_that_is_locked_out_stays_for_its_sender_unless_the_release_is_here(
    device: Device, releases: Releases, command: str, is_here: bool
) -> None:
    if is_here:
        device.stage(releases["iris"])
    place = upload(device, releases["iris"], sender=".1-0a1b2c3d")
    with Store(device.root).changing("ben", "a test"):
        device.ask(command, place, code=constants.EXIT_LOCKED)
    assert place.exists() is not is_here
    device.ask("install", place)


def test_an_upload_that_is_refused_stays_for_its_sender_unless_the_release_is_here(
    device: Device, releases: Releases
) -> None:
    place = upload(device, releases["iris"])
    (place / f"model.tflite{constants.PART_SUFFIX}").unlink()
    assert device.ask("install", place, code=constants.EXIT_REFUSED)["reason"] == Reason.FILE_MISSING.value
    assert place.exists()
    device.stage(releases["iris"])
    place = upload(device, releases["iris"], sender=".1-0a1b2c3d")
    (place / f"model.tflite{constants.PART_SUFFIX}").unlink()
    assert device.ask("install", place, code=constants.EXIT_REFUSED)["reason"] == Reason.FILE_MISSING.value
    assert not place.exists()


WEEKS = 14 * 24 * 3600


@pytest.mark.parametrize("resumed", [True, False])
def test_an_old_upload_goes_unless_it_is_being_sent_again(device: Device, releases: Releases, resumed: bool) -> None:
    """A file that grows does not show in the time of its folder."""
    old = upload(device, releases["iris-next"], sender=".1-0a1b2c3d")
    for path in (*sorted(old.iterdir()), old):
        os.utime(path, (time.time() - WEEKS,) * 2)
    if resumed:
        with (old / "model.tflite.part").open("ab") as file:
            file.write(b"more")
    device.ask("install", upload(device, releases["iris"]))
    assert old.exists() is resumed


def test_an_upload_that_its_sender_renames_meanwhile_spoils_nothing(
    device: Device, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = device.stage(releases["iris"])
    store = Store(device.root)
    monkeypatch.setattr(Path, "iterdir", lambda self: iter([self / "renamed"]))
    assert stage.prune(store, store.load(), keep=digest) == []


def test_a_place_that_names_another_release_than_it_holds_is_refused(device: Device, releases: Releases) -> None:
    place = upload(device, releases["iris"])
    wrong = place.rename(place.with_name(f"{'0' * 64}.1-0a1b2c3d"))
    assert device.ask("install", wrong, code=constants.EXIT_REFUSED)["reason"] == Reason.OTHER_RELEASE.value


def test_a_release_from_elsewhere_is_copied_and_tried(device: Device, releases: Releases) -> None:
    found = device.ask("install", releases["iris"])
    assert device.answering() == found["staged"]["release"]["digest"]
    assert device.ask("install", releases["iris"])["staged"]["already"] is True


def test_a_release_that_fails_its_check_stays_staged_and_the_one_before_it_answers(
    device: Device, releases: Releases, tmp_path: Path
) -> None:
    old = device.install(releases["iris"])
    bad = releases.variant("iris-next", tmp_path / "bad", gates=Gates(accuracy=1.0))
    place = upload(device, bad)
    problem = device.ask("install", place, code=constants.EXIT_REFUSED)
    assert problem["reason"] == "gate-failed"
    assert problem["certificate"]["release"] == place.name
    assert device.answering() == old
    assert place.name in device.ask("status")["staged"]


def test_a_release_that_no_trusted_key_signed_is_neither_staged_nor_run(device: Device, releases: Releases) -> None:
    old = device.install(releases["iris"])
    place = upload(device, releases["iris-next"])
    key = next((device.root / constants.TRUST_DIR).iterdir())
    key.unlink()
    problem = device.ask("install", place, code=constants.EXIT_REFUSED)
    assert (problem["reason"], problem["certificate"]) == (Reason.NO_TRUSTED_KEYS.value, None)
    status = device.ask("status")
    assert (status["answering"], status["staged"]) == (old, [old])


def test_a_part_with_other_bytes_than_were_signed_is_refused(device: Device, releases: Releases) -> None:
    place = upload(device, releases["iris"])
    part = place / f"{constants.MODEL_FILE}{constants.PART_SUFFIX}"
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    assert device.ask("install", place, code=constants.EXIT_REFUSED)["reason"] == Reason.FILE_CHANGED.value
    assert device.ask("status")["staged"] == []


def test_a_part_that_is_a_link_is_not_taken(device: Device, releases: Releases) -> None:
    place = upload(device, releases["iris"])
    part = place / f"{constants.MODEL_FILE}{constants.PART_SUFFIX}"
    part.unlink()
    part.symlink_to(releases["iris"] / constants.MODEL_FILE)
    assert device.ask("install", place, code=constants.EXIT_REFUSED)["reason"] == Reason.FILE_UNLISTED.value


def test_a_device_that_somebody_else_holds_is_left_alone(device: Device, releases: Releases) -> None:
    place = upload(device, releases["iris"])
    device.ask("activate", device.stage(releases["iris-next"]), "--holder", "ann@laptop")
    problem = device.ask("install", place, "--holder", "bob@laptop", code=constants.EXIT_LOCKED)
    assert "ann@laptop" in problem["message"]
    device.ask("rollback", "--holder", "ann@laptop", code=constants.EXIT_FAILED)  # there was no release before
    device.ask("install", place, "--holder", "bob@laptop")


def test_in_words_it_says_what_both_did(device: Device, releases: Releases) -> None:
    said = device.run("install", releases["iris"], "--deadline", "30")
    assert said.out.splitlines()[0].endswith(": staged")
    assert "the release answers, and the device reverts in 30 s unless you confirm" in said.out


#: Runs the agent, and prints the path of each file that its own process opened, not a child of it.
_WATCHED = """
import json, os, sys
opened, own = [], os.getpid()
sys.addaudithook(lambda event, a: opened.append(str(a[0])) if event == "open" and os.getpid() == own else None)
from device_agent import cli
assert cli.main(sys.argv[1:]) == 0
print(json.dumps(opened), file=sys.stderr)
"""


def opened_by(device: Device, *words: str | Path) -> Counter[str]:
    """Returns how often a command opened each file under ROOT that says what is trusted and what is committed."""
    argv = [sys.executable, "-c", _WATCHED, "--root", str(device.root), *map(str, words)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    inside = (path.removeprefix(f"{device.root}/") for path in json.loads(done.stderr.splitlines()[-1]))
    return Counter(path for path in inside if path == constants.STATE_FILE or path.startswith(constants.TRUST_DIR))


@pytest.mark.parametrize("times", ["once", "again", "another"])
def test_state_and_trusted_keys_are_read_once(device: Device, releases: Releases, times: str) -> None:
    """Under one lock nobody changes them: what was read is handed on."""
    if times != "once":
        device.install(releases["iris"])
    place = upload(device, releases["iris-next" if times == "another" else "iris"])
    found = opened_by(device, "install", place)
    assert set(found.values()) == {1}, found
    assert any(path.endswith(".pem") for path in found)
    assert set(opened_by(device, "status").values()) == {1}
