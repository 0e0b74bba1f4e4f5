"""The greatest or least few of many numbers, in TensorFlow, where TOPK_V2 alone would be what a query waits for.

TOPK_V2 looks at one number after the other, MAXIMUM at as many as a vector register holds. Knows nothing of neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

#: What makes a value less: relative to it, and where it is nothing.
_LESS, _LEAST = np.float32(2.0**-20), np.float32(1e-30)
_Both = Callable[[Any, Any], Any]


def greatest(parts: list[Any], count: int, starts: Sequence[int] | None = None) -> tuple[Any, Any]:
    """Returns the (b, count) greatest values, greatest first, and their places, of rows that come in parts.

    Args:
        parts: (b, width) float32 tensors, side by side the (b, n) values; the last may be narrower.
        count: how many; at most n.
        starts: place of each part's first value; None where parts follow each other without a gap.
    """
    return _first(parts, count, starts, tf.maximum, tf.identity, stable=False)


def least(parts: list[Any], count: int) -> tuple[Any, Any]:
    """Returns the (b, count) least values and their places, as `greatest`; equal ones in the order of their places."""
    found, places = _first(parts, count, None, tf.minimum, tf.negative, stable=True)
    return -found, places


def _first(
    parts: list[Any],
    count: int,
    starts: Sequence[int] | None,
    better: _Both,
    turn: Callable[[Any], Any],
    *,
    stable: bool,
) -> tuple[Any, Any]:
    """Returns the first few in the order that `better` tells; `turn` makes those the greatest, and of the values too.

    The best places within a part are found first: those where the best value over all parts is best. The `count` best
    values stand at the `count` best places, since each of these has one at least as good as any elsewhere.
    """
    width, last = (int(parts[place].shape[1]) for place in (0, -1))
    following = width * np.arange(len(parts), dtype=np.int32)
    first = following if starts is None else np.asarray(starts, np.int32)
    if len(parts) == 1 or width < 4 * count:
        found = tf.math.top_k(turn(tf.concat(parts, axis=1) if len(parts) > 1 else parts[0]), count)
        moved = first - following
        return found.values, found.indices + (_pick(moved, found.indices // width) if moved.any() else 0)
    if last < width:
        worst = -np.inf if better is tf.maximum else np.inf
        parts = [*parts[:-1], tf.pad(parts[-1], [[0, 0], [0, width - last]], constant_values=worst)]
    ranked = tf.math.top_k(turn(_reduce(parts, better)), count)
    within = -tf.math.top_k(-ranked.indices, count).values if stable else ranked.indices
    values = turn(tf.concat([tf.gather(part, within, batch_dims=1) for part in parts], axis=1))
    found, chosen = tf.math.top_k(_level(values, ranked.values), count)
    within = tf.gather(within, _pick(np.tile(np.arange(count, dtype=np.int32), len(parts)), chosen), batch_dims=1)
    places = within + _pick(np.repeat(first, count), chosen)
    # Where all values have overflowed, what fills up the last part is no worse than they are.
    return found, tf.minimum(places, int(first[-1]) + last - 1) if last < width else places


def _pick(numbers: NDArray[np.int32], which: Any) -> Any:
    return tf.gather(tf.constant(numbers), which)


def _level(values: Any, best: Any) -> Any:
    """Makes equal what is less than the last of the `best`: TOPK_V2's heap moves for what is greater only.

    Where that is infinite, no order is left; such a row is too far out to be certain.
    """
    last = best[:, -1:]
    return tf.maximum(values, last - (tf.abs(last) * _LESS + _LEAST))


def _reduce(parts: list[Any], better: _Both) -> Any:
    while len(parts) > 1:
        pairs = [parts[start : start + 2] for start in range(0, len(parts), 2)]
        parts = [better(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return parts[0]
