"""What a command said is all taken, whenever its end arrives: a channel of paramiko's, without a server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from knnkit.transport.ssh.channel import drain


class Channel:
    """One on which everything arrives at once, right after somebody has looked whether the command ended."""

    def __init__(self, end: int) -> None:
        self._end, self._output = end, b""
        self.closed = self.eof_received = False
        self.exit_status = -1

    def exit_status_ready(self) -> bool:
        before = self.closed
        if not before:
            self._output, self.closed, self.eof_received, self.exit_status = b"answer", True, True, 0
        return before

    def recv_ready(self) -> bool:
        return bool(self._output)

    def recv(self, size: int) -> bytes:
        said, self._output = self._output, b""
        return said

    def recv_stderr_ready(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._end

    @property
    def status_event(self) -> Any:
        return self

    def wait(self, seconds: float) -> None:
        pass


@pytest.fixture
def end() -> Iterator[int]:
    """Readable, as the pipe of a channel that was closed."""
    readable, writable = os.pipe()
    os.close(writable)
    yield readable
    os.close(readable)


def test_an_answer_that_arrives_with_the_end_between_two_looks_is_taken(end: int) -> None:
    said: list[bytes] = []
    channel: Any = Channel(end)
    assert drain(channel, said.append, said.append, lambda: None) == 0
    assert said == [b"answer"]
