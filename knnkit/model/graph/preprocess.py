"""The way of a query into model space, in TensorFlow: the steps in float32, and how much they blur.

`blur` is a bound, row by row, on the Euclidean error that float32 arithmetic has made in a query's place
(`space.CONFIDENCE`). Fits nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from knnkit.model.reference.space import CONFIDENCE, EPSILON, Float64, Space, Step

#: What one sees of such a bound: a typical error is this share of it.
TYPICAL = 0.125
#: What a number under the least normal one may be off by: XNNPACK makes zero of it, whatever the processor does.
_VANISHED = float(np.finfo(np.float32).tiny)


def enter(space: Space, rows: Any) -> tuple[Any, Any]:
    """Returns (b, p) float32 offsets from the centre of raw rows, and their (b,) blur; None where there is none.

    The subtraction of the centre is part of the definition of a row, and exact on every machine: it does not blur.
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
    return z, blur


def _affine(z: Any, blur: Any, step: Step) -> tuple[Any, Any]:
    lost = _lost(len(step.b))
    z = _less(z, step.a) * step.b.astype(np.float32)
    return z, (blur + lost) * np.float32(np.abs(step.b).max()) + (np.float32(3 * EPSILON) * _length(z) + lost)


def _linear(z: Any, blur: Any, step: Step) -> tuple[Any, Any]:
    offsets = _less(z, step.b)
    reach = np.linalg.norm(step.a, axis=1).astype(np.float32)
    growth = np.float32(np.linalg.norm(step.a, ord=2))
    units = np.float32((CONFIDENCE * np.sqrt(len(step.a)) + 3.0) * EPSILON)
    matrix = tf.constant(step.a.astype(np.float32))
    # Of one feature no product: the converter would fold the origin into its bias, where raw values of 10^7 cancel.
    mapped = offsets * matrix if len(step.a) == 1 else tf.matmul(offsets, matrix)
    lost = _lost(step.a.size)
    return mapped, (blur + lost) * growth + (units * _length(offsets * reach) + lost)


def _normalize(z: Any, blur: Any, step: Step) -> tuple[Any, Any]:
    # Divided by the greatest value first: squares of float32 overflow and underflow.
    greatest = tf.reduce_max(tf.abs(z), axis=1, keepdims=True)
    zero = tf.cast(greatest == 0.0, tf.float32)
    z = z / (greatest + zero)
    order = 2.0 if step.kind == "cosine" else float(step.a)
    norm = tf.ones_like(zero)
    if order == 1.0:
        norm = tf.reduce_sum(tf.abs(z), axis=1, keepdims=True) + zero
    elif order == 2.0:
        norm = tf.sqrt(tf.reduce_sum(z * z, axis=1, keepdims=True)) + zero
    z = z / norm
    units = np.float32((CONFIDENCE / 2 * np.sqrt(int(z.shape[1])) + 4.0) * EPSILON)
    scaled = 2.0 * (blur + _lost(int(z.shape[1]))) / ((greatest + zero) * norm)[:, 0]
    # What looks like a row of zeros may be one of numbers that have vanished.
    blur = scaled * _length(z) + units * _length(z) + zero[:, 0]
    return (tf.concat([z, zero, tf.zeros_like(zero)], axis=1) if step.kind == "cosine" else z), blur


def _less(z: Any, origin: Float64) -> Any:
    """Subtracts a float64 origin in two parts, so that a large offset costs nothing."""
    high = origin.astype(np.float32)
    return (z - high) - (origin - high).astype(np.float32)


def _lost(numbers: int) -> np.float32:
    """Returns how long what vanishes of so many numbers can be at most: read, and in what is computed with them."""
    return np.float32(8.0 * _VANISHED * numbers)


def _length(z: Any) -> Any:
    return tf.sqrt(tf.reduce_sum(z * z, axis=1))
