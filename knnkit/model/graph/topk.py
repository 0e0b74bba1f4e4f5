"""Finds the k greatest or least values of wide rows.

A row is cut into parts. TFLite's operator MAXIMUM (or MINIMUM) of all parts shows which k columns hold these values, so
that TOPK_V2, which is slow, sorts the values of these columns alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

#: Relative and absolute amount that puts a value below another despite rounding.
_LESS, _LEAST = np.float32(2.0**-20), np.float32(1e-30)
_Both = Callable[[Any, Any], Any]


def greatest(parts: list[Any], count: int, starts: Sequence[int], *, stable: bool) -> tuple[Any, Any]:
    """Returns the (b, count) greatest float32 values of each row, descending, and their int32 positions in the row.

    Each row is cut into parts of equal width; column i of a part is its i-th value. First finds the `count` columns
    with the greatest maximum over all parts. These columns contain the `count` greatest values of the row.

    Args:
        parts: (b, width) float32 tensors; the last may be narrower.
        count: number of values, at most the length of a row.
        starts: position in the row of each part's first value.
        stable: whether equal values are sorted by position; works only if the parts do not overlap.
    """
    width, last = (int(parts[place].shape[1]) for place in (0, -1))
    first = np.asarray(starts, np.int32)
    if len(parts) == 1 or width < 4 * count:
        found = tf.math.top_k(tf.concat(parts, axis=1), count)
        moved = first - width * np.arange(len(parts), dtype=np.int32)
        return found.values, found.indices + (_pick(moved, found.indices // width) if moved.any() else 0)
    if last < width:
        parts = [*parts[:-1], tf.pad(parts[-1], [[0, 0], [0, width - last]], constant_values=-np.inf)]
    ranked = tf.math.top_k(_reduce(parts, tf.maximum), count)
    within = _ascending(ranked.indices) if stable else ranked.indices
    values = tf.concat([tf.gather(part, within, batch_dims=1) for part in parts], axis=1)
    found, chosen = tf.math.top_k(_level(values, ranked.values), count)
    within = tf.gather(within, _pick(np.tile(np.arange(count, dtype=np.int32), len(parts)), chosen), batch_dims=1)
    places = within + _pick(np.repeat(first, count), chosen)
    # If all values have overflowed, the padding of the last part ties with them: clip its places.
    return found, tf.minimum(places, int(first[-1]) + last - 1) if last < width else places


def least(parts: list[Any], count: int) -> tuple[Any, Any]:
    """Returns the (b, count) least values of each row, ascending, and their positions; equal values by position.

    Works like `greatest`, but of m parts, part i has the values at positions i, i + m, i + 2 m, ... A column then holds
    m consecutive positions. So of columns with equal minima, the first have the lowest positions, and are chosen.
    """
    if len(parts) == 1:
        found, places = tf.math.top_k(-parts[0], count)
        return -found, places
    ranked = tf.math.top_k(-_reduce(parts, tf.minimum), count)
    within = _ascending(ranked.indices)
    values = -tf.stack([tf.gather(part, within, batch_dims=1) for part in parts], axis=2)
    values = tf.reshape(values, (-1, count * len(parts)))
    found, chosen = tf.math.top_k(_level(values, ranked.values), count)
    within = tf.gather(within, _pick(np.repeat(np.arange(count, dtype=np.int32), len(parts)), chosen), batch_dims=1)
    return -found, within * len(parts) + _pick(np.tile(np.arange(len(parts), dtype=np.int32), count), chosen)


def _ascending(numbers: Any) -> Any:
    return -tf.math.top_k(-numbers, int(numbers.shape[1])).values


def _pick(numbers: NDArray[np.int32], which: Any) -> Any:
    return tf.gather(tf.constant(numbers), which)


def _level(values: Any, best: Any) -> Any:
    """Returns `values`; in each row, those under the least of `best` are replaced by one number just under it.

    `best` has n values of the row, so smaller ones are not among its n greatest values. TOPK_V2 moves fewer
    values if they are equal. If the least value of `best` is infinite, the order of the row is lost, but then its query
    is too far away for a certain answer.
    """
    last = best[:, -1:]
    return tf.maximum(values, last - (tf.abs(last) * _LESS + _LEAST))


def _reduce(parts: list[Any], better: _Both) -> Any:
    while len(parts) > 1:
        pairs = [parts[start : start + 2] for start in range(0, len(parts), 2)]
        parts = [better(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return parts[0]
