"""The greatest or least few of many numbers, in TensorFlow, where TOPK_V2 alone would be what a query waits for.

TOPK_V2 looks at one number after the other, MAXIMUM at as many as a vector register holds. Knows nothing of neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

_Both = Callable[[Any, Any], Any]


def greatest(parts: list[Any], count: int) -> tuple[Any, Any]:
    """Returns the (b, count) greatest values, greatest first, and their places, of rows that come in parts.

    Args:
        parts: (b, width) float32 tensors, side by side the (b, n) values; the last may be narrower.
        count: how many; at most n.
    """
    return _first(parts, count, tf.maximum, tf.identity, stable=False)


def least(parts: list[Any], count: int) -> tuple[Any, Any]:
    """Returns the (b, count) least values and their places, as `greatest`; equal ones in the order of their places."""
    found, places = _first(parts, count, tf.minimum, tf.negative, stable=True)
    return -found, places


def _first(parts: list[Any], count: int, better: _Both, turn: Callable[[Any], Any], *, stable: bool) -> tuple[Any, Any]:
    """Returns the first few in the order that `better` tells; `turn` makes those the greatest, and of the values too.

    The best places within a part are found first: those where the best value over all parts is best. The `count` best
    values stand at the `count` best places, since each of these has one at least as good as any elsewhere.
    """
    width = int(parts[0].shape[1])
    if len(parts) == 1 or width < 4 * count:
        found = tf.math.top_k(turn(tf.concat(parts, axis=1) if len(parts) > 1 else parts[0]), count)
        return found.values, found.indices
    missing = width - int(parts[-1].shape[1])
    if missing:
        worst = -np.inf if better is tf.maximum else np.inf
        parts = [*parts[:-1], tf.pad(parts[-1], [[0, 0], [0, missing]], constant_values=worst)]
    best = tf.math.top_k(turn(_reduce(parts, better)), count).indices
    if stable:
        best = -tf.math.top_k(-best, count).values
    values = turn(tf.concat([tf.gather(part, best, batch_dims=1) for part in parts], axis=1))
    starts = (width * np.arange(len(parts), dtype=np.int32)).reshape(1, -1, 1)
    places = tf.reshape(tf.expand_dims(best, 1) + starts, values.shape)
    found, chosen = tf.math.top_k(values, count)
    places = tf.gather(places, chosen, batch_dims=1)
    # Where all values have overflowed, what fills up the last part is no worse than they are.
    return found, tf.minimum(places, width * len(parts) - missing - 1) if missing else places


def _reduce(parts: list[Any], better: _Both) -> Any:
    while len(parts) > 1:
        pairs = [parts[start : start + 2] for start in range(0, len(parts), 2)]
        parts = [better(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return parts[0]
