"""Converts pictures to the numbers that a stage takes.

Imports Pillow only to decode a file; arrays need only NumPy. Shrinking averages pixels. Untrusted bytes: the size in
the file's header is checked before the file is decoded. No I/O.
"""

from __future__ import annotations

import functools
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
_SMALLER = "`magick FILE -resize 4000x4000 FILE.png`, or another program that makes it smaller"
#: Most pixels of a picture: 32 megapixels take 96 MB once decoded.
MAX_PIXELS = 32 * 1024 * 1024
#: New rows of pixels that one matrix product makes of the old ones around them.
_TOGETHER = 4
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
                said = f"the picture has {opened.width:,} x {opened.height:,} pixels; at most {MAX_PIXELS:,}"
                raise BadInput(said, hint=_SMALLER)
            turned = ImageOps.exif_transpose(opened) or opened
            if turned.mode == "P" and "transparency" in turned.info:  # else Pillow warns, and computes the same colours
                turned = turned.convert("RGBA")
            grey = turned.mode in ("1", "L", "LA", "I", "I;16")
            if grey and turned.mode.startswith("I"):  # 16 bits; Pillow's versions differ in how they convert them
                found = (np.asarray(turned) >> 8).astype(np.uint8)
            else:
                found = np.array(turned.convert("L" if grey else "RGB"))
            return found[:, :, np.newaxis] if grey else found
    except BadInput:
        raise
    except Pillow.DecompressionBombError:
        raise BadInput(f"the picture has too many pixels; at most {MAX_PIXELS:,} are allowed", hint=_SMALLER) from None
    except Exception as error:  # Pillow's plugins raise nearly anything for a broken file
        said = (
            str(error).partition(" <")[0][:200] or type(error).__name__
        )  # without Pillow's `<_io.BytesIO object at ...>`
        raise BadInput(f"the picture is damaged: {said}", hint="copy the file again") from None


def prepare(pixels: NDArray[Any], image: Image) -> Float32:
    """Returns the (h, w, channels) float32 input of the first stage for (h, w), (h, w, c) or flat pixels.

    Raises:
        BadInput: the array is not a picture; its pixels have another scale than `std` implies; or `image.resize` is
            "none", and the picture has another size.
    """
    if pixels.ndim == 1 and pixels.size == image.size[0] * image.size[1] * image.channels:  # a row of a table
        pixels = pixels.reshape(*image.size, image.channels)
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    if pixels.ndim != 3 or not pixels.size or pixels.shape[2] not in (1, 2, 3, 4):
        said = f"a picture must be an array (height, width, channels); this has the shape {pixels.shape}"
        raise BadInput(said, hint=_one_picture(pixels))
    if pixels.shape[:2] != image.size and image.resize == "none":
        said = f"the picture has {pixels.shape[:2]} pixels, but the model takes {image.size}"
        raise BadInput(
            said, hint="give a picture of this size, or `resize: bilinear` in input: {image: ...} of deploy.yaml"
        )
    _require_scale(pixels, max(image.std))
    fits = pixels.shape[:2] == image.size
    sized = pixels.astype(np.float32) if fits else _resized(pixels, image.size, image.resize == "nearest")
    found = _with_channels(sized, image.channels)
    mean, std = (np.array(values, np.float32) for values in (image.mean, image.std))
    return np.asarray((found - mean) / std, np.float32)


def shrunk(pixels: NDArray[Any], image: Image) -> NDArray[Any]:
    """Returns pixels of which `prepare` makes the same numbers: resized if that takes fewer bytes, else unchanged."""
    if pixels.ndim not in (2, 3) or pixels.shape[:2] == image.size or image.resize == "none":
        return pixels
    wide = pixels.reshape(*pixels.shape[:2], -1)
    found = _with_channels(_resized(wide, image.size, image.resize == "nearest"), image.channels)
    dark = max(image.std) > 1.0 >= found.max()  # `_require_scale` would take it for fractions up to 1
    return pixels if dark or found.nbytes >= pixels.nbytes else found


def _require_scale(pixels: NDArray[Any], std: float) -> None:
    """Raises BadInput for fractions up to 1 if `std` is above 1, and for pixels above 2 if `std` is below 1."""
    peak = max(float(pixels.max()), -float(pixels.min()))  # without a copy of the pixels
    if std > 1.0 >= peak and pixels.dtype.kind == "f" and bool((pixels != np.rint(pixels)).any()):
        said = f"pixels must be from 0 to 255; the largest here is {peak:g}"
        hint = "multiply them by 255, or take them as they are: image: {normalise: {std: 1}} in deploy.yaml"
        raise BadInput(said, hint=hint)
    if std < 1.0 and peak > 2.0:
        said = f"pixels must be from 0 to 1, because `std` is {std:g}; the largest here is {peak:g}"
        raise BadInput(said, hint="divide them by 255, or multiply `mean` and `std` in deploy.yaml by 255")


def _one_picture(pixels: NDArray[Any]) -> str:
    """Returns how to make a picture of an array whose channels come first, or of a batch; "" for other shapes."""
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4):
        return "pixels.transpose(1, 2, 0), since channels come last"
    return "one picture at a time: pixels[0]" if pixels.ndim == 4 and len(pixels) else ""


def _resized(pixels: NDArray[Any], size: tuple[int, ...], nearest: bool) -> Float32:
    """Returns (h, w, c) pixels resized to `size`, (height, width); converts few rows at a time, to save memory."""
    height, width, channels = pixels.shape
    rows = _scaled(pixels.reshape(height, width * channels), size[0], nearest).reshape(size[0], width, channels)
    columns = _scaled(rows.swapaxes(0, 1).reshape(width, size[0] * channels), size[1], nearest)
    return columns.reshape(size[1], size[0], channels).swapaxes(0, 1)


def _scaled(table: NDArray[Any], new: int, nearest: bool) -> Float32:
    """Resizes an (old, n) array to (new, n): a new row is the nearest old one, or (not `nearest`) a weighted mean."""
    found = np.empty((new, table.shape[1]), np.float32)
    for place, (start, weights) in zip(range(0, new, _TOGETHER), _weights(len(table), new, nearest)):
        near = table[start : start + weights.shape[1]].astype(np.float32)
        np.matmul(weights, near, out=found[place : place + _TOGETHER])
    return found


def _with_channels(pixels: Float32, channels: int) -> Float32:
    colours = pixels[:, :, :3] if pixels.shape[2] >= 3 else pixels[:, :, :1]  # without alpha
    if colours.shape[2] == channels:
        return colours
    if channels == 1:
        return np.asarray((colours * np.array(_GREY, np.float32)).sum(axis=2, keepdims=True), np.float32)
    return np.repeat(colours, channels, axis=2)


@functools.lru_cache(maxsize=8)
def _weights(old: int, new: int, nearest: bool) -> list[tuple[int, Float32]]:
    """Returns the weights that resize a line of `old` pixels to `new` pixels.

    The list has an entry for each `_TOGETHER` new pixels: the index of the first old pixel to use, and an array
    (new pixels, old pixels) of weights, whose rows sum to 1. With `nearest`, each new pixel is one old pixel. Otherwise
    the weights are bilinear; if the line shrinks, they reach `old / new` pixels to the left and to the right.
    """
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    width, found = max(1.0, old / new), []
    for first in range(0, new, _TOGETHER):
        centre = centres[first : first + _TOGETHER, None]
        start, end = max(0, int(centre[0, 0] - width)), min(old, int(centre[-1, 0] + width) + 2)
        places = np.arange(start, end)
        if nearest:
            shares = (places == np.clip(np.rint(centre), 0, old - 1)).astype(np.float64)
        else:
            shares = np.maximum(0.0, 1.0 - np.abs(places - centre) / width)
        found.append((start, np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)))
    return found
