"""Features of windows of samples: the float64 definition.

`knnkit.model.tflite.own_stages` writes a graph that computes the same in float32. Its features differ from these by
at most `bound`. No I/O.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
#: A feature's name, and the number of its bands (`spectrum`).
Feature = tuple[str, int]

SPECTRUM = "spectrum"
_UNIT = 2.0**-24


def compute(windows: Float64, features: Sequence[Feature]) -> Float64:
    """Returns the (n, f) features of (n, rows, columns) windows, ordered by feature, column, frequency band."""
    parts = [_one(windows, name, bands).reshape(len(windows), -1) for name, bands in features]
    return np.concatenate(parts, axis=1)


def names(columns: Sequence[str], features: Sequence[Feature]) -> tuple[str, ...]:
    """Returns the names of the features of each sensor column, as `compute` orders them."""
    return tuple(
        f"{column} {name}{f' {band + 1}' if name == SPECTRUM else ''}"
        for name, bands in features
        for column in columns
        for band in range(max(1, bands))
    )


def bound(windows: Float64) -> Float64:
    """Returns (n,) bounds: how far a float32 feature of each of n windows may be from that of `compute`.

    With u = 2^-24, a sum of m terms, in any order, is off by at most (m - 1) u times the sum of their absolute values
    (Higham 2002, 4.2), and a deviation from the mean of r samples by (r + 2) u max|x|. A length (std, rms, amplitude)
    is off by at most the length of its vector's error, plus the rounding of the sum of squares.
    """
    return np.asarray(8.0 * (windows.shape[1] + 8) * _UNIT * np.abs(windows).max(axis=(1, 2)))


def waves(rows: int) -> tuple[Float64, Float64]:
    """Returns (rows, rows // 2) cosines and sines; their products with samples are the amplitudes of frequencies."""
    angles = 2.0 * np.pi / rows * (np.outer(np.arange(rows), np.arange(1, rows // 2 + 1)) % rows)
    return 2.0 / rows * np.cos(angles), 2.0 / rows * np.sin(angles)


def bands_of(rows: int, bands: int) -> Float64:
    """Returns the (rows // 2, bands) matrix whose product with amplitudes is their mean in each frequency band."""
    found = np.zeros((rows // 2, bands))
    for band, places in enumerate(np.array_split(np.arange(rows // 2), bands)):
        found[places, band] = 1.0 / len(places)
    return found


def _one(windows: Float64, name: str, bands: int) -> Float64:
    middle = windows - windows.mean(axis=1, keepdims=True)
    if name == SPECTRUM:
        cosines, sines = waves(windows.shape[1])
        turned = middle.transpose(0, 2, 1)
        return np.asarray(np.hypot(turned @ cosines, turned @ sines) @ bands_of(windows.shape[1], bands))
    if name == "zero_crossings":
        return np.asarray(np.abs(np.diff((windows >= 0.0).astype(np.float64), axis=1)).sum(axis=1))
    if name in ("std", "rms"):
        return np.asarray(np.sqrt(((middle if name == "std" else windows) ** 2).mean(axis=1)))
    return np.asarray(getattr(windows, name)(axis=1))
