"""What lies under ROOT and is not essential stops nothing, and is kept; what is essential fails closed, with a step."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.device import Device
from support.releases import Releases

from device_agent import cli
from device_agent.shared.protocol import constants, documents, json_codec
from device_agent.shared.protocol.errors import DeviceUnfit, Locked
from device_agent.store import history, lock
from device_agent.store.store import Store

EVENT = documents.HistoryEntry(1000, "activated", None, None, "", "me", 1)


def as_directory(path: Path) -> None:
    path.mkdir()
    (path / "kept").write_text("kept")


def as_link(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_text("kept")
    path.symlink_to(elsewhere)


def as_pipe(path: Path) -> None:
    os.mkfifo(path)


def as_terabyte(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


BROKEN: dict[str, Callable[[Path], None]] = {
    "directory": as_directory, "link": as_link, "pipe": as_pipe, "terabyte": as_terabyte,
}  # fmt: skip


def events(store: Store) -> list[tuple[str, int | None]]:
    return [(entry.what, entry.serial) for entry in history.read(store.history_file)]


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_history_is_set_aside_and_the_command_goes_on(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    BROKEN[how](store.history_file)
    with store.changing("me", "a test"):
        store.note(store.load(), "staged", None, "", "me")
    assert events(store) == [("staged", None)]
    kept = tmp_path / "history.jsonl.bad"
    assert os.path.lexists(kept)
    assert kept.is_symlink() or not kept.is_dir() or (kept / "kept").read_text() == "kept"
    assert f"{store.history_file}: " in capsys.readouterr().err
    assert [text for text in store.warnings() if "history.jsonl.bad" in text]


def test_a_history_that_breaks_again_and_again_is_kept_each_time(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for _ in range(3):
        as_directory(store.history_file)
        with store.changing("me", "a test"):
            store.note(store.load(), "staged", None, "", "me")
        store.history_file.unlink()
    assert sorted(path.name for path in tmp_path.glob("*.bad*")) == [
        "history.jsonl.bad", "history.jsonl.bad-2", "history.jsonl.bad-3",
    ]  # fmt: skip


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EPERM])
def test_a_history_of_somebody_else_or_on_a_bad_block_is_set_aside(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, opened, kept = Store(tmp_path), os.open, tmp_path / "history.jsonl.bad"
    store.history_file.write_text("somebody else's\n")

    def refuse(path: object, *rest: int, **more: int) -> int:
        if path == store.history_file and store.history_file.exists() and not kept.exists():
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    with store.changing("me", "a test"):
        store.note(store.load(), "staged", None, "", "me")
    assert events(store) == [("staged", None)]
    assert kept.read_text() == "somebody else's\n"


@pytest.mark.parametrize(
    "rubbish", [b"\xff\x00" * 700_000, b"{}\n" * 400_000, b"x" * 1_500_000 + b"\n", b"half a line"]
)
def test_rubbish_in_the_history_hides_nothing_that_is_added(rubbish: bytes, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(rubbish)
    for _ in range(2):
        history.record(path, EVENT)
    assert [entry.serial for entry in history.read(path)] == [1]


def test_a_step_is_found_however_many_lines_were_added_since(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history.record(path, EVENT)
    for number in range(300):
        history.add(path, documents.HistoryEntry(number, "rejected", None, None, "x" * 300, "me"))
    history.record(path, EVENT)
    assert [entry.serial for entry in history.read(path) if entry.serial] == [1]


def test_a_state_that_starts_anew_has_its_steps_recorded(tmp_path: Path) -> None:
    """As the hint for a damaged state says: the file is moved away, and serial numbers begin at 1 again."""
    path, steps = tmp_path / "history.jsonl", [(1, "activated"), (2, "confirmed")]
    for when in (1000, 1000, 2000):  # also within one second
        for serial, what in steps:
            event = dataclasses.replace(EVENT, serial=serial, what=what, at=when)
            history.record(path, event)
            history.add(path, documents.HistoryEntry(when, "staged", None, None, '"serial":7', "me"))
            history.record(path, event)
    found = [(entry.serial, entry.what) for entry in history.read(path) if entry.serial]
    assert found == steps * 3


def test_an_activation_goes_through_whatever_lies_where_nothing_essential_is(
    device: Device, releases: Releases
) -> None:
    old = device.install(releases["iris"])
    (device.root / constants.HISTORY_FILE).unlink()
    for name in (constants.HISTORY_FILE, ".history.jsonl.tmp", ".state.json.tmp", ".current.tmp"):
        as_directory(device.root / name)
    (device.root / constants.CURRENT_LINK).unlink()
    shutil.copytree(device.root / constants.RELEASES_DIR / old, device.root / constants.CURRENT_LINK)
    (device.root / constants.LOCK_FILE).unlink()
    (device.root / constants.LOCK_FILE).symlink_to("/nowhere/at/all")
    (device.root / constants.CLASS_FILE).mkdir()
    new = device.install(releases["iris-next"])
    status = device.ask("status")
    assert status["answering"] == new
    assert (device.root / constants.CURRENT_LINK).readlink().name == new
    warnings = "\n".join(status["warnings"])
    for name in ("history.jsonl", "current", "lock"):
        assert f"holds the damaged file {name}.bad: inspect and remove it" in warnings
    assert "class-damaged" in warnings
    assert status["device_class"] == "any"
    assert [entry["what"] for entry in device.ask("history")["entries"]] == [
        "confirmed",
        "staged",
        "activated",
        "confirmed",
    ]


@pytest.mark.parametrize("content", [b"Greenhouse 7\n", b"\xff\xfe", b"\n", b"x" * 5_000_000])
def test_a_damaged_device_class_is_a_warning_and_fits_no_release_of_a_class(content: bytes, tmp_path: Path) -> None:
    (tmp_path / constants.CLASS_FILE).write_bytes(content)
    store = Store(tmp_path)
    assert store.device_class() == "any"
    assert "class-damaged" in store.warnings()[0]


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_state_stops_every_change_and_says_what_to_do(
    how: str, tmp_path: Path, releases: Releases, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / constants.STATE_FILE
    BROKEN[how](file)
    (tmp_path / constants.RELEASES_DIR / ("a" * 64)).mkdir(parents=True)
    for command in (["stage", str(releases["iris"])], ["activate", "a" * 64], ["rollback"], ["prune"], ["classify"]):
        assert cli.main(["--root", str(tmp_path), *command, "--json"]) == constants.EXIT_FAILED
        problem = json.loads(capsys.readouterr().out)
        assert problem["reason"] == "state-damaged"
        assert problem["hint"].endswith(f"mv {file} {file}.bad")
    assert cli.main(["--root", str(tmp_path), "status", "--json"]) == 0
    assert "state-damaged" in json.loads(capsys.readouterr().out)["warnings"][0]
    assert os.path.lexists(file), "nobody but a person moves it"


def test_a_lock_record_of_rubbish_is_told_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock.held(path, "me", "a test"):
        for since in (2**62, -(2**62)):
            path.write_bytes(json_codec.dump_file(documents.LockHolder("ann", "a deployment", since, 7)))
            with pytest.raises(Locked, match="held by ann"), lock.held(path, "you", "another", wait=0.0):
                pass
        path.write_bytes(os.urandom(5000))
        with pytest.raises(Locked, match="another process"), lock.held(path, "you", "another", wait=0.0):
            pass


def test_a_history_that_cannot_be_read_is_told_with_the_next_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_directory(tmp_path / constants.HISTORY_FILE)
    assert cli.main(["--root", str(tmp_path), "history", "--json"]) == constants.EXIT_FAILED
    problem = json.loads(capsys.readouterr().out)
    assert problem["reason"] == "history-broken"
    assert "device_agent prune" in problem["hint"]
    assert cli.main(["--root", str(tmp_path), "prune", "--json"]) == constants.EXIT_OK
    assert cli.main(["--root", str(tmp_path), "history", "--json"]) == constants.EXIT_OK


def test_a_state_whose_text_is_damaged_is_not_guessed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.changing("me", "a test"):
        store.commit(dataclasses.replace(store.load(), floor=7))
    good = store.state_file.read_bytes()
    for damaged in (good[:-20], good.replace(b"7", b"7.5"), good * 2, b"", b"\0" * len(good), good + b" " * 70_000):
        store.state_file.write_bytes(damaged)
        with pytest.raises(DeviceUnfit, match="is damaged"):
            store.load()


def test_what_was_set_aside_does_not_keep_a_board_from_being_cleared(tmp_path: Path) -> None:
    from device_agent.bootstrap.remove import remove

    root = tmp_path / "root"
    store = Store(root)
    for path in (store.history_file, store.lock_file):
        path.parent.mkdir(exist_ok=True)
        as_directory(path)
    with store.changing("me", "a test"):
        store.note(store.load(), "staged", None, "", "me")
    known = ["trust", "releases", "incoming", "history.jsonl", "lock"]
    assert remove({"root": str(root), "known": known}) == {"removed": True}
    assert list(tmp_path.iterdir()) == []
