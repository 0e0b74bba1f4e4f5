"""What lies in a file's place is never waited for or followed; no file is written that cannot be read again."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.device import ROOT, Device
from support.releases import Releases

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import DeviceUnfit
from device_agent.shared.safe_files import NotOrdinary, WholeFile, open_ordinary, read_small, whole_file
from device_agent.store import trust_dir
from device_agent.store.json_file import JsonFile
from device_agent.store.trust_dir import DeviceTrust

SECONDS = 30.0


def bind(path: Path) -> None:
    os.chdir(path.parent)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(path.name)


STRANGE: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a directory": Path.mkdir,
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to a pipe": lambda path: (os.mkfifo(path.parent / "end"), path.symlink_to("end"))[1],
    "a link to a file": lambda path: ((path.parent / "own").write_text("own"), path.symlink_to("own"))[1],
    "a socket": bind,
}
#: Every file of a device that is not part of a release.
FILES = (
    constants.LOCK_FILE, constants.STATE_FILE, constants.HISTORY_FILE, constants.CLASS_FILE, constants.STARTS_FILE,
    constants.COUNTS_FILE, constants.RING_FILE, constants.SEARCHES_FILE,
    f"{constants.TRUST_DIR}/{trust_dir.DEVICE_FILE}", f"{constants.TRUST_DIR}/another.pem",
)  # fmt: skip
strange = pytest.mark.parametrize("what", STRANGE)


@strange
@pytest.mark.parametrize("file", FILES)
def test_no_command_of_the_agent_waits_for_what_lies_in_a_files_place(
    file: str, what: str, device: Device, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(device.root)
    path = device.root / file
    STRANGE[what](path)
    for command in (["status"], ["stage", str(releases["iris"])], ["classify"]):
        subprocess.run(
            device.argv(*command), env=device.env(), capture_output=True, timeout=SECONDS, stdin=subprocess.DEVNULL
        )
    own = path.parent / "own"
    assert not own.exists() or own.read_text() == "own", "a link was followed"


@strange
def test_what_is_not_a_file_is_not_opened(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "known_hosts"
    STRANGE[what](path)
    assert not can_open(path, follow=False)
    assert can_open(path, follow=True) == (what == "a link to a file")
    if what == "a link to a file":
        assert read_small(path, 10, follow=True) == b"own"


def can_open(path: Path, *, follow: bool) -> bool:
    try:
        open_ordinary(path, follow=follow).close()
    except OSError:
        return False
    return True


def test_a_thing_in_a_files_place_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotOrdinary, match="pipe is not an ordinary file") as caught:
        open_ordinary(tmp_path / "pipe", follow=True)
    assert caught.value.strerror == "pipe is not an ordinary file"


# --- files that appear whole ------------------------------------------------------------------------------------------
def prepared(folder: Path) -> Path:
    """Somebody's file, to which every name leads that could be guessed."""
    own = folder / "own"
    own.write_text("own")
    for name in ("out.part", ".out.part", "out.tmp", ".out.tmp", "out~", "out.html.part", "out.json.part"):
        (folder / name).symlink_to(own)
    return own


def test_a_name_that_somebody_prepared_is_not_written_through(tmp_path: Path) -> None:
    own = prepared(tmp_path)
    before = set(tmp_path.iterdir())
    with whole_file(tmp_path / "out") as file:
        file.write(b"new")
    assert (tmp_path / "out").read_bytes() == b"new"
    assert own.read_text() == "own"
    assert set(tmp_path.iterdir()) - before == {tmp_path / "out"}


def test_answers_are_not_written_through_a_name_that_somebody_prepared(device: Device, releases: Releases) -> None:
    device.install(releases["iris"])
    own = prepared(device.root.parent)
    out = device.root.parent / "out"
    assert device.run("classify", "--output", out, input="5.1,3.5,1.4,0.2\n").code == 0
    assert (out.read_text().strip(), own.read_text()) == ("setosa", "own")


def test_two_that_write_one_file_publish_one_of_the_two(tmp_path: Path) -> None:
    first, second = WholeFile(tmp_path / "out"), WholeFile(tmp_path / "out")
    os.write(first.descriptor, b"the first")
    os.write(second.descriptor, b"half of")
    first.publish()
    assert (tmp_path / "out").read_bytes() == b"the first"
    second.abandon()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_block_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("before")
    with contextlib.suppress(ZeroDivisionError), whole_file(tmp_path / "out") as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out", "before")]


def test_a_new_file_has_the_rights_that_the_umask_leaves(tmp_path: Path) -> None:
    code = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); os.umask(0o027)\n"
        "from pathlib import Path; from device_agent.shared.safe_files import whole_file\n"
        f"with whole_file(Path({str(tmp_path / 'out')!r})) as file: file.write(b'x')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=SECONDS)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640


def test_a_longest_name_has_room_for_its_unfinished_copy(tmp_path: Path) -> None:
    with whole_file(tmp_path / ("n" * 255)) as file:
        file.write(b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["n" * 255]


# --- documents with a limit -------------------------------------------------------------------------------------------
def test_what_was_written_can_be_read_and_what_cannot_be_read_is_not_written(tmp_path: Path) -> None:
    """At every length around the limit."""
    for length in range(1, 200):
        document, device = JsonFile(tmp_path / f"{length}.json", DeviceTrust, 200), DeviceTrust("x" * length)
        with contextlib.suppress(DeviceUnfit):
            document.write(device)
            assert document.read() == device
    written = len(list(tmp_path.iterdir()))
    assert 50 < written < 150
    with pytest.raises(
        DeviceUnfit, match="is full: the document would have 201 bytes; its reader accepts at most 200"
    ) as caught:
        JsonFile(tmp_path / "full.json", DeviceTrust, 200).write(DeviceTrust("x" * (written + 1)))
    assert (caught.value.reason, "knnkit provision --remove" in caught.value.hint) == ("document-full", True)
    assert len(list(tmp_path.iterdir())) == written


@pytest.mark.parametrize("name", ["missing/file.csv", "file.csv/inside.csv"])
def test_a_file_that_cannot_be_made_is_named_as_the_user_names_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "file.csv").touch()
    path = tmp_path / name
    with pytest.raises(OSError, match=re.escape(f"'{path}'")), whole_file(path):
        pass


def test_a_full_device_is_named() -> None:
    with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"), whole_file(Path("/dev/full")) as file:
        file.write(b"x")
