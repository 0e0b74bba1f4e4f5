"""A running `classify --stream` for tests."""

from __future__ import annotations

import os
import select
import subprocess
from typing import Any

from support.device import Device

WAIT = 60.0


class Stream:
    """A running `classify --stream` with a pipe on each side."""

    def __init__(self, device: Device, *arguments: str, **more: Any) -> None:
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
        self.process = device.popen("classify", "--stream", *arguments, **streams)
        self._buffer = b""

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()
        self.process.wait(WAIT)

    def send(self, data: str | bytes) -> None:
        assert self.process.stdin
        os.write(self.process.stdin.fileno(), data.encode() if isinstance(data, str) else data)

    def line(self) -> str:
        """Returns the next answer; fails if none comes."""
        assert self.process.stdout
        descriptor = self.process.stdout.fileno()
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([descriptor], [], [], WAIT)
            assert ready, "no answer came"
            data = os.read(descriptor, 65536)
            assert data, "the stream ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def ask(self, line: str) -> str:
        self.send(line + "\n")
        return self.line()

    def finish(self, code: int = 0) -> tuple[str, str]:
        """Ends the input; returns the rest of the output, and the text on stderr."""
        out, err = self.process.communicate(timeout=WAIT)
        assert self.process.returncode == code, err.decode()
        return (self._buffer + out).decode(), err.decode()
