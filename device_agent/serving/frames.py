"""Splits a stream of raw inputs into frames (length, file).

A frame is the length of one file (4 bytes, big-endian), then the file (WAV, PNG, JPEG, NPY). Has the interface of
`tabular.inputs.Lines`: each whole frame becomes one JSON line. No I/O.
"""

from __future__ import annotations

import base64

from device_agent.shared.embedding.decode import KEY, MAX_BYTES
from device_agent.shared.protocol.errors import BadInput

_HEAD = 4
_HINT = "a frame is a length in 4 bytes, big-endian, then the bytes of one file"


class Frames:
    """Collects bytes of a stream and splits them into whole frames."""

    def __init__(self) -> None:
        self._rest, self._count = bytearray(), 0

    def feed(self, data: bytes) -> bytes:
        """Adds the bytes of a read; returns a JSON line for each frame that is now complete."""
        self._rest += data
        lines, place = [], 0
        while (size := self._size_at(place)) is not None and size <= MAX_BYTES:
            end = place + _HEAD + size
            if end > len(self._rest):
                break
            content = base64.b64encode(memoryview(self._rest)[place + _HEAD : end])
            lines.append(b'{"%s": "%s"}\n' % (KEY.encode(), content))
            place = end
        del self._rest[:place]
        self._count += len(lines)
        return b"".join(lines)

    def cut_overlong(self) -> bool:
        """Checks the length of the next frame; always returns False, because frames are never shortened.

        Raises:
            BadInput: the frame is too long. It is not possible to find the frame after it.
        """
        size = self._size_at(0)
        if size is not None and size > MAX_BYTES:
            said = f"frame {self._count + 1}: its length is {size:,} bytes; at most {MAX_BYTES:,} are allowed"
            raise BadInput(said, hint=_HINT)
        return False

    @property
    def left(self) -> bytes:
        """The bytes of a frame that is not complete yet; b"" if there is none."""
        return bytes(self._rest)

    def finish(self) -> bytes:
        """Checks that no incomplete frame is left; returns b"".

        Raises:
            BadInput: the stream ended within a frame.
        """
        if self._rest:
            size = self._size_at(0)
            have = "in its length" if size is None else f"after {len(self._rest) - _HEAD:,} of its {size:,} bytes"
            raise BadInput(f"frame {self._count + 1}: the stream ended {have}", hint=_HINT)
        return b""

    def _size_at(self, place: int) -> int | None:
        head = self._rest[place : place + _HEAD]
        return int.from_bytes(head, "big") if len(head) == _HEAD else None
