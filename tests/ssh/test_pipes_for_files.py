"""A named pipe, or /dev/null, in the place of a file of SSH: an answer at once, never a wait."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from knnkit.errors import HostKeyError, KnnkitError
from knnkit.transport import foreign_config
from knnkit.transport.address import Address
from knnkit.transport.ssh import config, config_file, keys, known_hosts


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    before = time.monotonic()
    yield path
    assert time.monotonic() - before < 5.0


def read(config: Path) -> str:
    """Returns the host that the reader of ssh_config finds where there is no OpenSSH."""
    return config_file.lookup("board", port=None, user=None, config=str(config)).host


def test_known_hosts(pipe: Path) -> None:
    with pytest.raises(HostKeyError, match="not an ordinary file"):
        known_hosts.load([str(pipe)])
    with pytest.raises(HostKeyError, match="not an ordinary file"):
        known_hosts.enrol(pipe, "board", 22, known_hosts.HostKey("ssh-ed25519", b"x"))
    assert known_hosts.load([os.devnull]).lines == ()


def test_ssh_config(pipe: Path) -> None:
    with pytest.raises(KnnkitError):
        config.resolve(Address("board", config=str(pipe)))
    with pytest.raises(OSError, match="not an ordinary file"):
        read(pipe)
    assert read(Path(os.devnull)) == "board"
    assert not foreign_config.is_agreed(pipe)


def test_a_key(pipe: Path, tmp_path: Path) -> None:
    with pytest.raises(keys.NoKey):
        keys.load(pipe, agent="")


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("Host board\nHostName board-1.example\n")
    (tmp_path / "link").symlink_to("real")
    assert read(tmp_path / "link") == "board-1.example"
