"""Converts pictures to the numbers that a stage takes.

Imports Pillow only to decode a file; arrays need only NumPy. Shrinking averages pixels. Untrusted bytes: the size in
the file's header is checked before the file is decoded. No I/O.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.errors import BadInput, DeviceUnfit
from device_agent.shared.protocol.input_info import Image

Float32 = NDArray[np.float32]

MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_NO_PILLOW = (
    "`knnkit deploy` installs Pillow if the board has a wheel, else: sudo apt install python3-pil; or give arrays (NPY)"
)
#: Most pixels of a picture: 32 megapixels take 96 MB once decoded.
MAX_PIXELS = 32 * 1024 * 1024
#: Rows of pixels that become float32 at a time.
_ROWS = 128
#: Shares of red, green and blue in grey (ITU-R BT.601).
_GREY = (0.299, 0.587, 0.114)


def read_file(data: bytes) -> NDArray[np.uint8]:
    """Returns the (h, w, 1 or 3) uint8 pixels of a PNG or JPEG file, rotated as its EXIF states, without alpha.

    Raises:
        BadInput: the file is damaged, or has too many pixels.
        DeviceUnfit: Pillow is not installed.
    """
    try:
        from PIL import Image as Pillow
        from PIL import ImageOps
    except ImportError:
        said = "decoding PNG and JPEG needs Pillow, which this Python does not have"
        raise DeviceUnfit(said, reason="no-pillow", hint=_NO_PILLOW) from None
    try:
        with Pillow.open(io.BytesIO(data), formats=("PNG", "JPEG")) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise BadInput(f"the picture has {opened.width:,} x {opened.height:,} pixels; at most {MAX_PIXELS:,}")
            turned = ImageOps.exif_transpose(opened) or opened
            grey = turned.mode in ("1", "L", "LA", "I", "I;16")
            found = np.array(turned.convert("L" if grey else "RGB"))
            return found[:, :, np.newaxis] if grey else found
    except BadInput:
        raise
    except Exception as error:  # Pillow's plugins raise nearly anything for a broken file
        raise BadInput(f"the picture is damaged: {str(error)[:200] or type(error).__name__}") from None


def prepare(pixels: NDArray[Any], image: Image) -> Float32:
    """Returns the (h, w, channels) float32 input of the first stage for (h, w) or (h, w, c) pixels (0 to 255).

    Raises:
        BadInput: the array is not a picture, or needs resizing and `resize` is none.
    """
    if pixels.ndim == 1 and pixels.size == image.size[0] * image.size[1] * image.channels:  # a row of a table
        pixels = pixels.reshape(*image.size, image.channels)
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    if pixels.ndim != 3 or not pixels.size or pixels.shape[2] not in (1, 2, 3, 4):
        raise BadInput(f"a picture must be an array (height, width, channels); this has the shape {pixels.shape}")
    if pixels.shape[:2] != image.size and image.resize == "none":
        raise BadInput(f"the picture has {pixels.shape[:2]} pixels, but the model takes {image.size}")
    fits = pixels.shape[:2] == image.size
    sized = pixels.astype(np.float32) if fits else _resized(pixels, image.size, image.resize == "nearest")
    found = _with_channels(sized, image.channels)
    mean, std = (np.array(values, np.float32) for values in (image.mean, image.std))
    return np.asarray((found - mean) / std, np.float32)


def _resized(pixels: NDArray[Any], size: tuple[int, ...], nearest: bool) -> Float32:
    """Returns (h, w, c) pixels at another size; converts few rows at a time to float32, which saves memory."""
    height, width, channels = pixels.shape
    down, across = (_weights(old, new, nearest) for old, new in zip((height, width), size))
    rows = np.zeros((size[0], width * channels), np.float32)
    for start in range(0, height, _ROWS):
        block = pixels[start : start + _ROWS].reshape(-1, width * channels).astype(np.float32)
        rows += down[:, start : start + _ROWS] @ block
    return np.asarray(np.einsum("wx,hxc->hwc", across, rows.reshape(size[0], width, channels), optimize=True))


def _with_channels(pixels: Float32, channels: int) -> Float32:
    colours = pixels[:, :, :3] if pixels.shape[2] >= 3 else pixels[:, :, :1]  # without alpha
    if colours.shape[2] == channels:
        return colours
    if channels == 1:
        return np.asarray((colours * np.array(_GREY, np.float32)).sum(axis=2, keepdims=True), np.float32)
    return np.repeat(colours, channels, axis=2)


def _weights(old: int, new: int, nearest: bool) -> Float32:
    """Returns the (new, old) weight of each old pixel in each new one: bilinear, with a wider kernel to shrink."""
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    if nearest:
        chosen = np.clip(np.rint(centre), 0, old - 1)[:, None]
        return np.asarray(np.arange(old) == chosen, np.float32)
    width = max(1.0, old / new)
    found = np.maximum(0.0, 1.0 - np.abs(np.arange(old) - centre[:, None]) / width)
    return np.asarray(found / found.sum(axis=1, keepdims=True), np.float32)
