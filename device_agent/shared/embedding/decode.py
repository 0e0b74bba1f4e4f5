"""Decodes the bytes of one raw input.

Knows NPY, WAV, PNG and JPEG by their first bytes. Untrusted bytes: sizes are checked before anything is unpacked, and
nothing is unpickled. No I/O.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.embedding import audio, picture
from device_agent.shared.embedding.stage import MAX_NUMBERS
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.input_info import Input
from device_agent.shared.tabular.inputs import BROKEN, NPY_MAGIC, read_npy_header

#: Most bytes of one input, and of a line that holds one in base64.
MAX_BYTES = 64 * 1024 * 1024
MAX_LINE = MAX_BYTES * 4 // 3 + 4096
#: First bytes of sounds (MP3, OGG, FLAC) and pictures (GIF, BMP, TIFF) that are not read, and a beginning of text.
_SOUNDS, _PICTURES = (b"ID3", b"\xff\xfb", b"OggS", b"fLaC"), (b"GIF8", b"BM", b"II*\0", b"MM\0*")
_TEXT = re.compile(rb"[\t\r\n -~]{16}")
#: Hints for sounds and pictures of other kinds.
TO_WAV = "ffmpeg -i FILE -c:a pcm_s16le FILE.wav makes WAV of most sounds"
TO_PNG = "`magick FILE FILE.png`, or another program that saves PNG"
#: Key of an object in JSON lines that holds the input.
KEY = "input"
#: Key of the file's name.
FILE_KEY = "file"
#: Key of raw PCM: 16 bits, little-endian, one channel, at the model's rate.
PCM_KEY = "pcm"


def decode(data: bytes, input: Input, pcm: bool = False) -> NDArray[Any]:
    """Returns the array in the bytes of one file.

    With `pcm`, the bytes are raw PCM if the model takes sounds, unless they begin as a WAV file does. Otherwise, the
    first bytes tell the format.

    Raises:
        BadInput: the model does not take such a file, or the file is damaged or too large.
    """
    if len(data) > MAX_BYTES:
        raise BadInput(f"the input has {len(data):,} bytes; at most {MAX_BYTES:,} are allowed")
    if not data:
        raise BadInput("the input is empty")
    if pcm and input.audio is not None and not audio.is_wav(data):
        return audio.read_pcm(data)
    if data.startswith(NPY_MAGIC):
        return _read_npy(data)
    if input.audio is not None and audio.is_wav(data):
        return audio.read_wav(data, input.audio)
    if input.image is not None and data.startswith(picture.MAGIC):
        return picture.read_file(data)
    kind, wanted, suffix, hint = _kind(data), "an array", "npy", ""
    if input.audio is not None:
        wanted, suffix, hint = "a sound", "wav", TO_WAV
    elif input.image is not None:
        wanted, suffix, hint = "a picture", "png", TO_PNG
    if kind in ("", wanted):
        kind = "none of these"
    else:  # no program makes one of the other
        hint = f"give {wanted}, such as a.{suffix}"
    raise BadInput(f"the model takes {takes(input)}; this input is {kind}", hint=hint)


def _kind(data: bytes) -> str:
    """Returns what a file that the model cannot read is, by its first bytes; "" if that is unknown."""
    if audio.is_wav(data) or data.startswith(_SOUNDS):
        return "a sound"
    if data.startswith((*picture.MAGIC, *_PICTURES)) or data[8:12] == b"WEBP":
        return "a picture"
    return "text, such as a table" if _TEXT.match(data) else ""


def takes(input: Input) -> str:
    """Describes the raw inputs that a model takes, for messages."""
    if input.audio is not None:
        return "sounds (WAV, raw PCM, or NPY of samples)"
    return "arrays (NPY, or numbers)" if input.image is None else "pictures (PNG, JPEG, or NPY of pixels)"


def is_one(input: Input, shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape in an NPY file is one input; else, each entry of its first axis is one.

    Raises:
        BadInput: the array has the channels of one sound: at most `audio.MAX_CHANNELS`, and fewer than samples.
    """
    if input.audio is not None and len(shape) == 2 and shape[1] <= min(audio.MAX_CHANNELS, shape[0] - 1):
        said = f"an array of the shape {shape} would be {shape[0]:,} sounds of {shape[1]} samples"
        raise BadInput(said, hint=audio.one_channel(shape))
    image = input.image
    if image is None and input.audio is None and len(shape) > 1:
        stage = input.stages[0]
        width, size = math.prod(shape[1:]), math.prod(stage.shape)
        return width * (shape[0] if stage.frames is None else stage.frames) == size
    if image is None or len(shape) not in (2, 3):
        return len(shape) == 1
    if len(shape) == 2:  # a grey picture, or rows of pixels
        return shape[1] != math.prod(image.size) * image.channels
    return shape[2] in (1, 3, 4) and shape[1:] != tuple(image.size)


def from_json(value: Any, input: Input, pcm: bool = False) -> NDArray[Any]:
    """Returns the array of a JSON value: a list of numbers, nested or not, or a file in base64.

    With `pcm`, the value must be base64: of raw PCM, if the model takes sounds.

    Raises:
        BadInput: the value is neither a list of numbers nor base64, or the file cannot be decoded.
    """
    if pcm or isinstance(value, str):
        return decode(_from_base64(value), input, pcm)
    if not isinstance(value, list):
        raise BadInput(f"expected numbers or base64, found {json.dumps(value)[:40]}")
    try:
        raw = np.array(value, np.object_)  # else each cell would take as much memory as the longest text
        if not {*map(type, raw.flat)} <= {int, float, bool}:  # NumPy would read text by rules of its own
            raise ValueError
        found = raw.astype(np.float64)
    except (ValueError, TypeError, OverflowError):
        raise BadInput("the array holds something that is not a number, or its rows have different lengths") from None
    with np.errstate(over="ignore"):
        return found.astype(np.float32) if np.isfinite(found).all() else found


def _from_base64(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        hint = "write the content of the file in base64; --input FILE reads a file by its name"
        raise BadInput(f"the text is not base64: {error}", hint=hint) from None


def to_json(values: NDArray[Any]) -> str:
    """Returns a JSON line with the array `values` as an NPY file in base64, which `from_json` can read."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(values), allow_pickle=False)
    return json.dumps({KEY: base64.b64encode(buffer.getvalue()).decode()})


def _read_npy(data: bytes) -> NDArray[Any]:
    stream = io.BytesIO(data)
    try:
        shape, _, dtype = read_npy_header(stream)
        size = math.prod(shape)
        if dtype.kind not in "fiub":
            said = f"an NPY input of type {str(dtype)[:40]} is not supported"
            raise BadInput(said, hint="save an array of integers, floats or truth values")
        if size > MAX_NUMBERS:
            raise BadInput(f"the NPY input has more than {MAX_NUMBERS:,} numbers, the most that are read")
        if size * dtype.itemsize > len(data):
            raise ValueError(f"it has {len(data):,} bytes, fewer than an array of shape {shape} needs")
        stream.seek(0)
        return np.asarray(np.load(stream, allow_pickle=False))
    except BROKEN as error:
        raise BadInput(f"the NPY input is damaged: {str(error)[:200]}") from None
