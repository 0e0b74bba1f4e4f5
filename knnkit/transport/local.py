"""Transport to this machine, used as a device.

`--target local` means this machine: the "embedded device". Protocol and directories are those of a board, and the agent
is a process of its own. Commands run in the home directory, as after an SSH login. Opens no connection.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, BinaryIO

from knnkit.errors import DeviceFailed, KnnkitError
from knnkit.transport.base import MAX_COMPLAINT, MAX_OUTPUT, Completed, no_end
from knnkit.transport.buffers import Appending, Capped, Ends

_CHUNK = 256 * 1024
#: Seconds that a child has to end after SIGTERM.
_GRACE = 5.0
#: Seconds for output that may still come after the child ended (a grandchild can hold the stream open).
_LINGER = 1.0


class LocalTransport(Appending):
    """A Transport (knnkit.transport.base) to this machine."""

    def __init__(self, name: str = "local") -> None:
        self.name = name

    def run(
        self, argv: Sequence[str], *, timeout: float, input: bytes = b"", max_output: int = MAX_OUTPUT
    ) -> Completed:
        """Runs a command on this machine, and waits for its end at most `timeout` seconds."""
        process = _Process(self.name, argv)
        out = Capped(max_output, strict=True)
        process.feed(lambda stdin: stdin.write(input))
        process.drain(out.write)
        return out.answer(process.wait(timeout, lambda: 0.0), self.name)

    def pipe(self, argv: Sequence[str], source: BinaryIO, sink: BinaryIO, *, idle: float | None) -> Completed:
        """Runs a command on this machine between two open files; kills it after `idle` seconds without a byte."""
        process = _Process(self.name, argv)
        ends = Ends(source, sink)
        moved = time.monotonic()

        def pour(stdin: IO[bytes]) -> None:
            nonlocal moved
            while chunk := ends.read(_CHUNK):
                stdin.write(chunk)
                stdin.flush()
                moved = time.monotonic()

        def take(chunk: bytes) -> None:
            nonlocal moved
            moved = time.monotonic()
            ends.write(chunk)

        process.feed(pour)
        process.drain(take)
        completed = process.wait(idle, lambda: moved)
        ends.check()
        return completed

    def close(self) -> None:
        """Does nothing: there is no connection to close."""


class _Process:
    """A child process in a new session, with one thread for each of its streams."""

    def __init__(self, name: str, argv: Sequence[str]) -> None:
        self._name, self._argv, self._started = name, tuple(argv), time.monotonic()
        self._threads: list[threading.Thread] = []
        self._broken: list[BaseException] = []
        self._ended = threading.Event()
        self._complaint = Capped(MAX_COMPLAINT)
        if shutil.which(argv[0]) is None:
            raise DeviceFailed(f"{name}: {argv[0]}: there is no such command", reason="no-such-command")
        if not (home := Path.home()).is_dir():
            said = f"{name}: the home directory {home} does not exist"
            raise DeviceFailed(said, reason="no-home", hint="set HOME to a folder that exists")
        self._child = subprocess.Popen(
            self._argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=home,
            start_new_session=True,
        )
        self._read(self._child.stderr, self._complaint.write)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, number)

    def stop(self) -> None:
        """Ends the child with SIGTERM, so that it can clean up; with SIGKILL if it is still there after `_GRACE`."""
        self.kill(signal.SIGTERM)
        try:
            self._child.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self.kill()

    def feed(self, pour: Callable[[IO[bytes]], object]) -> None:
        stdin = self._child.stdin
        assert stdin is not None

        def work() -> None:
            with contextlib.suppress(BrokenPipeError, ValueError):
                try:
                    pour(stdin)
                finally:
                    stdin.close()

        threading.Thread(target=work, daemon=True).start()  # not joined: its source may never end

    def drain(self, take: Callable[[bytes], None]) -> None:
        self._read(self._child.stdout, take)

    def _read(self, stream: IO[bytes] | None, take: Callable[[bytes], None]) -> None:
        assert stream is not None

        def work() -> None:
            poller = select.poll()
            poller.register(stream.fileno(), select.POLLIN)
            try:
                while True:
                    ended = self._ended.is_set()  # asked first: then the child has written everything
                    if poller.poll(_LINGER * 1000):
                        if not (chunk := os.read(stream.fileno(), _CHUNK)):
                            break
                        take(chunk)
                    elif ended:
                        break
            except (OSError, ValueError, Capped.Full, KnnkitError) as error:
                self._broken.append(error)
                self.stop()
            finally:
                stream.close()

        self._threads.append(threading.Thread(target=work, daemon=True))
        self._threads[-1].start()

    def wait(self, limit: float | None, moved: Callable[[], float]) -> Completed:
        """Waits until the child and its output end; kills it after `limit` seconds without a byte sent or received.

        With the limit None, it never does.

        `moved` returns the time when a byte was last sent or received (`time.monotonic()`). If it always returns 0.0,
        the limit counts from the start of the child.
        """

        def remaining(grace: float = 0.0) -> float | None:
            if limit is None:
                return None
            seconds = max(self._started, moved()) + limit + grace - time.monotonic()
            if seconds > 0:
                return seconds
            self.kill()
            self._child.wait()
            raise no_end(self._name, Path(self._argv[0]).name, limit)

        while self._child.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(remaining())
        self._ended.set()
        for thread in self._threads:
            while thread.is_alive():  # for as long as the reader of the answers takes
                thread.join(remaining(2 * _LINGER))
        if self._broken and isinstance(self._broken[0], BrokenPipeError | KnnkitError):
            raise self._broken[0]
        seconds = time.monotonic() - self._started
        return Completed(self._argv, self._child.returncode, b"", bytes(self._complaint.data), seconds)
