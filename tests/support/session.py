"""What a session of tests takes and leaves: less processor time, which is recorded, and no process.

A device's watchdog outlives the command that activated a release, by design, until the deadline. It ends within a
second where nothing is pending any more, so the end of a session removes the state of its device.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_agent.shared.protocol import constants

WAIT = 20.0


def pytest_collection_finish() -> None:
    """Keeps what is loaded by now out of garbage collections: one takes a quarter of each build with TensorFlow."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def processor_time(record_testsuite_property: Callable[[str, object], None]) -> Iterator[None]:
    """Records the seconds of processor time that the session and its children took in the results."""
    yield
    record_testsuite_property("processor", f"{sum(os.times()[:4]):.1f}")


@pytest.fixture(scope="session", autouse=True)
def nothing_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fails if a process that was started in a temporary folder of this session is alive at its end."""
    folder = tmp_path_factory.getbasetemp()
    yield
    give_up = time.monotonic() + WAIT
    while left := find(folder):
        for words in left.values():
            switch_off(words)
        if time.monotonic() > give_up:
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            pytest.fail("left alive:\n" + "\n".join(" ".join(words) for words in left.values()))
        time.sleep(0.1)


def find(folder: Path) -> dict[int, list[str]]:
    """Returns the processes whose command or working directory names a path in `folder`, with their commands."""
    found = {}
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if f"{folder}/" in "\0".join([*words, str((process / "cwd").readlink())]):
                found[int(process.name)] = words
    found.pop(os.getpid(), None)
    return found


def switch_off(words: list[str]) -> None:
    """Removes the state of the device that a command names: its watchdog has nothing to revert any more."""
    if "--root" in words[:-1]:
        with contextlib.suppress(OSError):
            Path(words[words.index("--root") + 1], constants.STATE_FILE).unlink()
