"""Files of sounds, pictures and arrays as JSON lines.

`knnkit classify` sends these lines to boards. Does not decode sounds.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from device_agent.shared.embedding import picture
from device_agent.shared.embedding.decode import FILE_KEY, KEY, PCM_KEY
from device_agent.shared.embedding.files import files_of, is_pcm, name_in, read_file
from device_agent.shared.protocol.errors import BadInput, DeviceUnfit, named
from knnkit.errors import DataError

#: Most pixels of a picture that is sent as an array.
MOST_SENT = 4 * 1024 * 1024


def lines_of(path: Path, others: list[str] | None = None) -> Iterator[tuple[str, bytes]]:
    """Yields the name and the JSON line of each file in the folder `path`, or of the file `path`.

    A name is relative to the folder. Files of other kinds are left out; their names are added to `others`. Pictures of
    up to `MOST_SENT` pixels are sent as arrays, so that the board needs no Pillow for them.

    Raises:
        DataError: a file cannot be read or decoded; the message names it.
    """
    try:
        for file in files_of(path, others):
            with named(file):
                data = _as_pixels(read_file(file))
            name, key = name_in(path, file), PCM_KEY if is_pcm(file) else KEY
            also = f', "{FILE_KEY}": {json.dumps(name)}' if path != file else ""
            yield name, b'{"%s": "%s"%s}\n' % (key.encode(), base64.b64encode(data), also.encode())
    except BadInput as error:
        raise DataError(str(error), hint=error.hint) from None


def _as_pixels(data: bytes) -> bytes:
    """Returns a picture as an NPY array of the pixels that a device would decode; other files unchanged."""
    if not data.startswith(picture.MAGIC):
        return data
    try:
        pixels = picture.read_file(data)
    except DeviceUnfit:  # no Pillow here: the device may have it
        return data
    if pixels.shape[0] * pixels.shape[1] > MOST_SENT:
        return data
    buffer = io.BytesIO()
    np.save(buffer, pixels, allow_pickle=False)
    return buffer.getvalue()
