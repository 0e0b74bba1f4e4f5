"""Files of sounds, pictures and arrays as JSON lines.

`classify` reads these lines on a board, and `knnkit classify` sends them to a board. Does not decode sounds.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from device_agent.shared.embedding import picture
from device_agent.shared.embedding.decode import FILE_KEY, KEY, MAX_BYTES, PCM_KEY
from device_agent.shared.protocol.errors import BadInput, DeviceUnfit
from device_agent.shared.safe_files import read_small

#: Most pixels of a picture that is sent as an array.
MOST_SENT = 4 * 1024 * 1024
PCM_SUFFIXES = (".pcm", ".raw", ".s16")
SUFFIXES = (".wav", ".png", ".jpg", ".jpeg", *PCM_SUFFIXES)
#: Files of a folder: what a model can take.
IN_FOLDERS = (*SUFFIXES, ".npy")


def is_raw(path: str | Path) -> bool:
    """Whether a path is a folder, or has the suffix of a sound or picture."""
    return Path(path).suffix.lower() in SUFFIXES or Path(path).is_dir()


def files_of(path: Path) -> list[Path]:
    """Returns the file, or the files under a folder in order of their names, without hidden ones (`._clip.wav`).

    Raises:
        BadInput: the folder has no file that a model could take.
    """
    if not path.is_dir():
        return [path]
    there = (each for each in path.rglob("*") if each.suffix.lower() in IN_FOLDERS and each.is_file())
    found = sorted(each for each in there if "/." not in f"/{each.relative_to(path)}")
    if not found:
        raise BadInput(f"{path}: the folder has no {', '.join(IN_FOLDERS)} file", reason="no-rows")
    return found


def read_file(path: Path) -> bytes:
    """Returns the bytes of one file.

    Raises:
        BadInput: the file cannot be read, or is too large.
    """
    try:
        data = read_small(path, MAX_BYTES, follow=True)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}", reason="no-input") from None
    if len(data) > MAX_BYTES:
        raise BadInput(f"{path}: the file has more than {MAX_BYTES:,} bytes")
    return data


def lines_of(path: Path, *, decode: bool = False) -> Iterator[tuple[str, bytes]]:
    """Yields the name of each file, relative to the folder, and its JSON line.

    With `decode`, pictures of up to `MOST_SENT` pixels are sent as arrays, so that the board needs no Pillow for them.

    Raises:
        BadInput: a file cannot be read or decoded; the message names it.
    """
    for file in files_of(path):
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        key = PCM_KEY if file.suffix.lower() in PCM_SUFFIXES else KEY
        name = name.encode("utf-8", "replace").decode()
        data = read_file(file)
        if decode:
            try:
                data = _as_pixels(data)
            except BadInput as error:
                raise BadInput(f"{file}: {error}", hint=error.hint) from None
        also = f', "{FILE_KEY}": {json.dumps(name)}' if path.is_dir() else ""
        yield name, b'{"%s": "%s"%s}\n' % (key.encode(), base64.b64encode(data), also.encode())


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
