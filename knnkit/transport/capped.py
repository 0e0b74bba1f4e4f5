"""A buffer that a hostile device cannot fill beyond its limit. No I/O."""

from __future__ import annotations


class Capped:
    """Keeps the first `limit` bytes.

    With `strict`, one byte more raises `Full`; without, the rest is dropped.
    """

    class Full(Exception):
        """More was said than is accepted."""

    def __init__(self, limit: int, *, strict: bool = False) -> None:
        self.data = bytearray()
        self.full = False
        self._limit = limit
        self._strict = strict

    def write(self, chunk: bytes) -> None:
        """Adds `chunk`.

        Raises:
            Full: it does not fit, and the buffer is strict.
        """
        room = self._limit - len(self.data)
        self.data += chunk[:room]
        if len(chunk) > room:
            self.full = True
            if self._strict:
                raise Capped.Full
