"""`--output` to what is no ordinary file: written to, never replaced. Root would otherwise lose its /dev/null.

And to a file that cannot take its place in the end: nothing is left behind, and the reason is the disk's.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

from device_agent.serving.outputs import Sink


def read_in_background(path: Path) -> tuple[threading.Thread, list[bytes]]:
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reader.start()
    return reader, got


@pytest.mark.parametrize("dtype", [None, np.dtype("<i4")])
def test_a_named_pipe_gets_the_answers_and_stays_a_pipe(tmp_path: Path, dtype: np.dtype[np.int32] | None) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader, got = read_in_background(pipe)
    sink = Sink(str(pipe), dtype)
    sink.write(b"\0" * 128 + np.arange(3, dtype="<i4").tobytes() if dtype else b"setosa\n")
    sink.finish(3)
    reader.join(30)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [entry.name for entry in tmp_path.iterdir()] == ["pipe"]
    assert np.load(io.BytesIO(got[0])).tolist() == [0, 1, 2] if dtype else got == [b"setosa\n"]


def test_a_run_that_is_given_up_leaves_a_pipe_as_it_was(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader, got = read_in_background(pipe)
    Sink(str(pipe)).abandon()
    reader.join(30)
    assert got == [b""]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_file_that_cannot_take_its_place_leaves_nothing_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, target: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(target))

    monkeypatch.setattr(Path, "replace", fail)
    sink = Sink(str(tmp_path / "answers.csv"))
    sink.write(b"setosa\n")
    with pytest.raises(OSError, match="Input/output error"):
        sink.finish(1)
    with (tmp_path / "another").open("w") as other:  # gets the number that the answers had
        sink.abandon()
        other.write("still open")
    assert [entry.name for entry in tmp_path.iterdir()] == ["another"]
    assert (tmp_path / "another").read_text() == "still open"
