"""A release is sent into a folder of its own connection; what another has left there is taken up, and nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from knnkit.errors import DeviceFailed
from knnkit.fleet.device.probe import Facts, probe
from knnkit.fleet.jobs.upload_dir import claim
from knnkit.transport.base import Completed
from knnkit.transport.local import LocalTransport
from knnkit.transport.ssh.connection import SshTransport

if TYPE_CHECKING:
    from conftest import Dial

DIGEST = "ab" * 32
MINUTE = 60.0
#: No process has it: more than a kernel gives out.
GONE = 2**22 + 1


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    return tmp_path / "root" / "incoming"


class Sender:
    """A connection that sends."""

    def __init__(self, dial: Dial, incoming: Path, token: str) -> None:
        self.transport: SshTransport = dial()
        self.facts: Facts = probe(self.transport, str(incoming.parent), timeout=20.0)
        self.token = token

    def claim(self) -> Path:
        return Path(claim(self.transport, self.facts, DIGEST, self.token, timeout=20.0))


def put(place: Path, *names: str, age: float = 0.0) -> Path:
    """Writes files into a place that was made a minute ago, as if nothing had come into them for so many seconds."""
    place.mkdir(parents=True, exist_ok=True)
    for name in names:
        (place / name).write_text(name)
        os.utime(place / name, (time.time() - age,) * 2)
    os.utime(place, (time.time() - MINUTE,) * 2)
    return place


def held(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()}


def test_two_that_send_at_once_have_a_folder_each_for_its_owner_alone(dial: Dial, incoming: Path) -> None:
    ann, ben = Sender(dial, incoming, "aaaaaaaa"), Sender(dial, incoming, "bbbbbbbb")
    one = put(ann.claim(), "model.tflite.part")
    other = ben.claim()
    assert one != other
    assert (held(one), held(other)) == ({"model.tflite.part"}, set())
    assert [path.stat().st_mode & 0o777 for path in (incoming, one, other)] == [0o700] * 3


def test_a_folder_into_which_nothing_has_been_sent_yet_is_its_owners(dial: Dial, incoming: Path) -> None:
    ann, ben = Sender(dial, incoming, "aaaaaaaa"), Sender(dial, incoming, "bbbbbbbb")
    one, other = ann.claim(), ben.claim()
    assert one != other
    assert sorted(incoming.iterdir()) == sorted([one, other])


def test_what_was_taken_up_a_moment_ago_is_its_takers(dial: Dial, incoming: Path) -> None:
    """Nothing in it is new until the rest is sent."""
    ann, ben = Sender(dial, incoming, "aaaaaaaa"), Sender(dial, incoming, "bbbbbbbb")
    put(incoming / DIGEST, "model.tflite.part", age=MINUTE)
    taken = ann.claim()
    assert held(ben.claim()) == set()
    assert held(taken) == {"model.tflite.part"}


def test_a_folder_that_is_taken_up_is_not_as_old_as_when_it_was_left(dial: Dial, incoming: Path) -> None:
    place = put(incoming / DIGEST, "model.tflite.part", age=MINUTE)
    os.utime(place, (time.time() - MINUTE,) * 2)
    assert time.time() - Sender(dial, incoming, "aaaaaaaa").claim().stat().st_mtime < MINUTE / 2


def test_what_a_connection_that_is_gone_has_left_is_taken_up_at_once(dial: Dial, incoming: Path) -> None:
    ann, ben = Sender(dial, incoming, "aaaaaaaa"), Sender(dial, incoming, "bbbbbbbb")
    left = put(ann.claim(), "golden.npz.part", "model.tflite.part")
    ann.transport.close()
    process = Path("/proc", left.name.partition(".")[2].partition("-")[0])
    give_up = time.monotonic() + 60.0
    while process.exists():
        assert time.monotonic() < give_up
        time.sleep(0.02)
    assert held(ben.claim()) == {"golden.npz.part", "model.tflite.part"}
    assert not left.exists()


def test_what_a_silent_connection_has_left_is_taken_up_after_a_while(dial: Dial, incoming: Path) -> None:
    """The line broke without a word: for the server it is still there."""
    ann, ben = Sender(dial, incoming, "aaaaaaaa"), Sender(dial, incoming, "bbbbbbbb")
    left = put(ann.claim(), "golden.npz.part", "model.tflite.part", age=MINUTE)
    assert held(ben.claim()) == {"golden.npz.part", "model.tflite.part"}
    assert not left.exists()


def test_a_folder_that_a_silent_connection_has_left_empty_is_taken_up_as_well(dial: Dial, incoming: Path) -> None:
    ann, ben = Sender(dial, incoming, "aaaaaaaa"), Sender(dial, incoming, "bbbbbbbb")
    left, taken = put(ann.claim()), ben.claim()
    assert list(incoming.iterdir()) == [taken]
    assert taken != left


@pytest.mark.parametrize("names", [("golden.npz", "model.tflite"), ("golden.npz.part", "model.tflite")])
def test_what_the_agent_is_at_work_on_is_left_alone(dial: Dial, incoming: Path, names: tuple[str, ...]) -> None:
    """It gives the parts their names, and then may read a large model for longer than a while."""
    ann, ben = Sender(dial, incoming, "aaaaaaaa"), Sender(dial, incoming, "bbbbbbbb")
    place = put(ann.claim(), *names, age=MINUTE)
    assert held(ben.claim()) == set()
    assert held(place) == set(names)


def test_a_signature_is_sent_anew_since_another_may_have_sent_another(dial: Dial, incoming: Path) -> None:
    ann, ben = Sender(dial, incoming, "aaaaaaaa"), Sender(dial, incoming, "bbbbbbbb")
    put(ann.claim(), "golden.npz.part", "model.sig.part", age=MINUTE)
    assert held(ben.claim()) == {"golden.npz.part"}


@pytest.mark.parametrize(
    ("name", "age", "taken"),
    [("model.tflite.part", MINUTE, True), ("model.tflite.part", 0.0, False), ("model.tflite", MINUTE, False)],
)
def test_a_folder_that_says_not_who_sends_is_taken_up_if_it_is_left(
    dial: Dial, incoming: Path, name: str, age: float, taken: bool
) -> None:
    """A host of before sends into it, or somebody with tools of his own."""
    place = put(incoming / DIGEST, name, age=age)
    assert held(Sender(dial, incoming, "aaaaaaaa").claim()) == ({name} if taken else set())
    assert place.exists() is not taken


def test_a_link_and_another_releases_folder_are_nobodys(dial: Dial, incoming: Path, tmp_path: Path) -> None:
    elsewhere = put(tmp_path / "elsewhere", "model.tflite.part", age=MINUTE)
    other = put(incoming / f"{'cd' * 32}.1-cccccccc", "model.tflite.part", age=MINUTE)
    (incoming / DIGEST).symlink_to(elsewhere)
    os.utime(incoming / DIGEST, (time.time() - MINUTE,) * 2, follow_symlinks=False)
    place = Sender(dial, incoming, "aaaaaaaa").claim()
    assert (held(place), place.is_symlink()) == (set(), False)
    assert held(elsewhere) == held(other) == {"model.tflite.part"}


def test_a_file_in_the_way_of_a_folder_is_none(dial: Dial, incoming: Path) -> None:
    put(incoming, DIGEST, age=MINUTE)
    assert held(Sender(dial, incoming, "aaaaaaaa").claim()) == set()
    assert (incoming / DIGEST).read_text() == DIGEST


def test_of_two_folders_that_were_left_one_is_taken_up(dial: Dial, incoming: Path) -> None:
    for token in ("aaaaaaaa", "bbbbbbbb"):
        put(incoming / f"{DIGEST}.1-{token}", f"{token}.part", age=MINUTE)
    place = Sender(dial, incoming, "cccccccc").claim()
    assert len(held(place)) == 1
    assert len(list(incoming.iterdir())) == 2


def test_no_signature_is_taken_up_whatever_it_is_called(dial: Dial, incoming: Path) -> None:
    ann, ben = Sender(dial, incoming, "aaaaaaaa"), Sender(dial, incoming, "bbbbbbbb")
    left = put(ann.claim(), "model.sig", "model.sig.part", "golden.npz")
    gone = left.rename(incoming / f"{DIGEST}.{GONE}-aaaaaaaa")
    assert held(ben.claim()) == {"golden.npz"}
    assert not gone.exists()


@pytest.mark.parametrize(
    "said", ["", "/etc", "INCOMING/DIGEST.x-aaaaaaaa", "INCOMING/DIGEST.1-bbbbbbbb", "..\nINCOMING"]
)
def test_a_device_that_names_another_place_is_not_believed(incoming: Path, said: str) -> None:
    told = said.replace("INCOMING", str(incoming)).replace("DIGEST", DIGEST)
    facts = probe(LocalTransport(), str(incoming.parent), timeout=20.0)
    with pytest.raises(DeviceFailed, match="cannot make a folder"):
        claim(Liar("board", told), facts, DIGEST, "aaaaaaaa", timeout=20.0)


class Liar(LocalTransport):
    """Answers as it likes."""

    def __init__(self, name: str, said: str) -> None:
        super().__init__(name)
        self._said = said

    def run(self, argv: Sequence[str], **named: Any) -> Completed:
        return Completed(tuple(argv), 0, self._said.encode(), b"", 0.0)


def test_a_device_that_cannot_make_a_folder_says_so(dial: Dial, incoming: Path) -> None:
    incoming.parent.mkdir()
    incoming.write_bytes(b"")
    with pytest.raises(DeviceFailed, match=f"cannot make a folder in {incoming}: .*exists") as caught:
        Sender(dial, incoming, "aaaaaaaa").claim()
    assert caught.value.reason == "cannot-write"
