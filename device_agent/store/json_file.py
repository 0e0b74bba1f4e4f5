"""A small JSON file that the device reads and rewrites.

Preserves unknown keys, which newer versions wrote. Never writes a file that would be too large to read again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Generic, TypeVar

from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.errors import DeviceUnfit
from device_agent.shared.safe_files import read_small
from device_agent.shared.trust.reasons import START_ANEW
from device_agent.system import durable

T = TypeVar("T")


class JsonFile(Generic[T]):
    """A JSON file that holds one record of the class `kind`, with at most `limit` bytes."""

    def __init__(self, path: Path, kind: type[T], limit: int) -> None:
        self.path, self._kind, self._limit = path, kind, limit

    def read(self) -> T:
        """Returns the record in the file.

        Raises:
            DeviceUnfit: a newer version wrote the file, and this version would misread it.
            MalformedDocument: the file is malformed or too large.
            NotOrdinary: the path does not name an ordinary file.
            OSError: the file cannot be read.
        """
        try:
            return json_codec.loads(self._kind, read_small(self.path, self._limit), limit=self._limit, extra="keep")
        except json_codec.NewerDocument as error:
            hint = "knnkit provision --target HOST, with the newer knnkit that wrote the file"
            raise DeviceUnfit(f"{self.path}: {error}", reason="newer-document", hint=hint) from None

    def encode(self, value: T) -> bytes:
        """Returns the bytes that `write` would write for `value`.

        Raises:
            DeviceUnfit: the bytes would exceed the limit for reading.
        """
        try:
            return json_codec.dump_file(value, limit=self._limit)
        except json_codec.TooLarge as error:
            raise DeviceUnfit(f"{self.path} is full: {error}", reason="document-full", hint=START_ANEW) from None

    def write(self, value: T) -> None:
        """Replaces the content of the file by `value`, durably.

        Raises:
            DeviceUnfit: the file would exceed the limit for reading; nothing was written.
        """
        durable.write_atomic(self.path, self.encode(value))
