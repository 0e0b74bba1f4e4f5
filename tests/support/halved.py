"""A file that triggers an action when half of it has been sent."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO


class Halved(io.BytesIO):
    """A file that calls `then` when it is read beyond its middle."""

    def __init__(self, file: BinaryIO, then: Callable[[], object]) -> None:
        super().__init__(file.read())
        self._middle, self._then = len(self.getbuffer()) // 2, then

    def read(self, size: int | None = -1) -> bytes:
        before = self.tell()
        if before < self._middle:
            return super().read(self._middle - before)
        if before == self._middle:
            self._then()
        return super().read(size)
