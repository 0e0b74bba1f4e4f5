"""Maps queries into model space, with error bounds.

The map is a list of steps, such as a scaler or PCA (`Space.steps`). `blur` bounds the error that float32 arithmetic
has made in a mapped row, as the length of the error in the model's metric; after a PCA, in nearly all cases
(`CONFIDENCE`). Each step multiplies the blur of the steps before it by its greatest factor, and adds its own rounding
error. Fits nothing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from knnkit.model.graph.sums import add_up
from knnkit.model.reference.float32_errors import CONFIDENCE, EPSILON
from knnkit.model.reference.space import Float64, Space, Step

#: A typical error is this share of the bound.
TYPICAL = 0.125
#: From so many features on, a norm is added up in blocks.
_WIDE = 128
#: Error of a subnormal value: XNNPACK flushes it to zero on every processor.
_UNDERFLOW = float(np.finfo(np.float32).tiny)


def enter(space: Space, rows: Any) -> tuple[Any, Any]:
    """Returns (b, p) float32 offsets of mapped raw rows from the centre, and their (b,) blur: a bound on their error.

    Without steps, the blur is None: a row in model space then is the rounded float32 difference of raw row and centre,
    which every machine rounds alike.
    """
    if not space.steps:
        return rows - space.centre, None
    z, blur = rows, tf.zeros_like(rows[:, 0])
    for step in space.steps:
        if step.kind == "affine":
            z, blur = _affine(z, blur, step)
        elif step.kind == "linear":
            z, blur = _linear(z, blur, step)
        else:
            z, blur = _normalize(z, blur, step)
    z = z - space.centre
    blur = (blur + np.float32(EPSILON) * _length(z)) * np.float32(space.scale.max())
    if space.metric == "manhattan":  # a sum of p absolute values is at most sqrt(p) times as long as the vector
        blur = blur * np.float32(math.sqrt(len(space.scale)))
    return z, blur + np.float32(space.tied)  # float64 ranks closer distances as ties


def _affine(z: Any, blur: Any, step: Step) -> tuple[Any, Any]:
    # 3 u: one rounding each for the subtraction, for b in float32, and for the product.
    lost = _lost(len(step.b))
    z = _subtract(z, step.a) * step.b.astype(np.float32)
    return z, (blur + lost) * np.float32(np.abs(step.b).max()) + (np.float32(3 * EPSILON) * _length(z) + lost)


def _linear(z: Any, blur: Any, step: Step) -> tuple[Any, Any]:
    # Column sums of p products: CONFIDENCE sqrt(p) u of the absolute terms, bounded through the row norms of `a`, and
    # 3 u as in `_affine`. A blur before the step grows by at most the spectral norm.
    offsets = _subtract(z, step.b)
    reach = np.linalg.norm(step.a, axis=1).astype(np.float32)
    growth = np.float32(np.linalg.norm(step.a, ord=2))
    units = np.float32((CONFIDENCE * np.sqrt(len(step.a)) + 3.0) * EPSILON)
    matrix = tf.constant(step.a.astype(np.float32))
    # One feature without matmul: the converter would fold the origin into its bias, where raw values of 10^7 cancel.
    mapped = offsets * matrix if len(step.a) == 1 else tf.matmul(offsets, matrix)
    lost = _lost(step.a.size)
    return mapped, (blur + lost) * growth + (units * _length(offsets * reach) + lost)


def _normalize(z: Any, blur: Any, step: Step) -> tuple[Any, Any]:
    # Divides by the greatest value first, because float32 squares overflow and underflow.
    greatest = tf.reduce_max(tf.abs(z), axis=1, keepdims=True)
    zero = tf.cast(greatest == 0.0, tf.float32)
    z = z / (greatest + zero)
    order, width = 2.0 if step.kind == "cosine" else float(step.a), int(z.shape[1])
    # A sum in blocks of b of p terms is off by at most (b + p / b) u; the root of 2.0 halves that.
    norm, block, lost = tf.ones_like(zero), width if width < _WIDE else math.isqrt(width), 0.0
    if order in (1.0, 2.0):
        sums = add_up(tf.abs(z) if order == 1.0 else z * z, block)[:, tf.newaxis]
        norm = (sums if order == 1.0 else tf.sqrt(sums)) + zero
        lost = (block + -(-width // block)) / order
    z = z / norm
    units = np.float32((lost + 5.0) * EPSILON)  # 5 u: two divisions, the root, the square, and products of errors
    # A shift of the row moves the quotient x / ‖x‖ by at most twice the shift over ‖x‖.
    scaled = 2.0 * (blur + _lost(int(z.shape[1]))) / ((greatest + zero) * norm)[:, 0]
    # A row of zeros may be a row of subnormals whose true direction is unknown: blur 1.
    blur = scaled * _length(z) + units * _length(z) + zero[:, 0]
    return (tf.concat([z, zero, tf.zeros_like(zero)], axis=1) if step.kind == "cosine" else z), blur


def _subtract(z: Any, origin: Float64) -> Any:
    high = origin.astype(np.float32)
    return (z - high) - (origin - high).astype(np.float32)


def _lost(numbers: int) -> np.float32:
    """Returns a bound on the error of a vector's length by underflow: 8 underflows in each of `numbers` values."""
    return np.float32(8.0 * _UNDERFLOW * numbers)


def _length(z: Any) -> Any:
    return tf.sqrt(tf.reduce_sum(z * z, axis=1))
