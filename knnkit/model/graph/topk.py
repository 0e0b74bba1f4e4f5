"""Top-k of wide rows: vectorised MAXIMUM first, then TOPK_V2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

#: Relative and absolute amount that puts a value below another despite rounding.
_LESS, _LEAST = np.float32(2.0**-20), np.float32(1e-30)
_Both = Callable[[Any, Any], Any]


def greatest(parts: list[Any], count: int, starts: Sequence[int] | None = None) -> tuple[Any, Any]:
    """Returns the (b, count) float32 greatest values of rows, greatest first, and their int32 places.

    Args:
        parts: (b, width) float32 tensors, side by side the (b, n) values; the last may be narrower.
        count: number of values, at most n.
        starts: place of each part's first value; None if the parts are contiguous.
    """
    return _first(parts, count, starts, tf.maximum, tf.identity, stable=False)


def least(parts: list[Any], count: int) -> tuple[Any, Any]:
    """Returns the (b, count) least values and their places, as `greatest`; equal values in order of their places."""
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
    """Returns the `count` first values in the order of `better`, and their places; `turn` makes them the greatest.

    First finds the `count` best columns within a part, by the best value over all parts. The `count` best values stand
    in these columns: each of them has a value at least as good as any in another column.
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
    # If all values have overflowed, the padding of the last part ties with them: clip its places.
    return found, tf.minimum(places, int(first[-1]) + last - 1) if last < width else places


def _pick(numbers: NDArray[np.int32], which: Any) -> Any:
    return tf.gather(tf.constant(numbers), which)


def _level(values: Any, best: Any) -> Any:
    """Raises all values below the last of `best` to one value: TOPK_V2's heap moves only for a greater one.

    If the last is infinite, no order is left; such a row is too far away to be certain.
    """
    last = best[:, -1:]
    return tf.maximum(values, last - (tf.abs(last) * _LESS + _LEAST))


def _reduce(parts: list[Any], better: _Both) -> Any:
    while len(parts) > 1:
        pairs = [parts[start : start + 2] for start in range(0, len(parts), 2)]
        parts = [better(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return parts[0]
