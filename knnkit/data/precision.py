"""Finds columns whose distinct values float32 would merge.

Models work in float32, which has 24 bits: UTM northings near 5.6 million step by 0.5 m, seconds since 1970 by 128 s.
`find_origin` chooses numbers to subtract from the columns in float64 before rounding. `warnings` names columns that
still lose too much precision, and columns that vary only by rounding. Reads no file and changes no row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Rows that statistics of a column are made from.
_SAMPLE = 1024
#: A column is far from 0 if its median is this many times the distance within which three quarters of its rows lie.
_FAR, _MOST = 16.0, 0.75
#: Neighbouring values fewer float32 steps apart than these: an origin pays; the column cannot be told apart.
_FINE, _COARSE = 4096.0, 8.0
#: Share of its values between which neighbours are looked for, so that more rows of the same data change nothing.
_SHARE = 256
#: Steps of float32, or units of 2^-52, within which a column varies only by rounding.
_ROUNDING, _NOISE = 4.0, 16.0
#: From here on, float64 does not hold every whole number; 64-bit integers end at `_LONGEST`.
WHOLE, _LONGEST = 2.0**53, 2.0**64
#: Share of the rows that may be inexact in float32 without a warning.
_FEW_ROWS = 0.01
_ADVICE = "put differences that matter into separate columns, such as the hour"

Float64 = NDArray[np.float64]


def find_origin(rows: NDArray[Any]) -> Float64 | None:
    """Returns (d,) float64 numbers to subtract from (n, d) rows before they become float32; None if no column needs it.

    The number of a column is its median, rounded to a multiple of a power of two below the spread, so that differences
    are exact in float64; it is 0 for a column that float32 holds well enough.
    """
    if rows.dtype == np.float32:
        return None
    origin = np.zeros(rows.shape[1])
    for column, (values, middle, spread) in _suspects(rows).items():
        if _is_far(middle, spread) and not _exact(rows[:, column], 0.0) and not varies_by_rounding(rows[:, column]):
            grid = 2.0 ** np.floor(np.log2(spread or _step(middle)))
            if _gap(values, 0.0)[0] < _FINE:
                origin[column] = np.round(middle / grid) * grid
    return origin if origin.any() else None


def float32_if_enough(rows: NDArray[Any]) -> NDArray[np.floating[Any]]:
    """Returns (n, d) rows as float32, or as float64 if a column needs a number subtracted first, or loses too much."""
    if rows.dtype == np.float32 or not is_suspect(rows):
        return _float32(rows)
    wide = np.ascontiguousarray(rows, dtype=np.float64)
    return wide if find_origin(wide) is not None or any(_coarse(wide, None)) else _float32(rows)


def is_suspect(rows: NDArray[Any]) -> bool:
    """Whether float32 may lose too much precision of (n, d) rows, so that they must be checked in float64."""
    return bool(_suspects(rows))


def may_hide(rows: NDArray[np.float32]) -> bool:
    """Whether (n, d) rows that were read as float32 must be read again as float64, to see what float32 loses."""
    sample = rows[:: -(-len(rows) // _SAMPLE)]
    same = np.flatnonzero((sample == rows[0]).all(axis=0) & (rows[0] != 0.0)).tolist()
    constant = any((rows[:, column] == rows[0, column]).all() for column in same)  # perhaps only in float32
    return constant or is_suspect(rows)


def warnings(
    rows: NDArray[Any], names: Sequence[str], source: str, *, shifted: bool = True, advice: str = _ADVICE
) -> tuple[str, ...]:
    """Returns a warning for each column that loses too much precision in float32, or varies only by rounding.

    Args:
        rows: (n, d) rows, as `float32_if_enough` returns them.
        names: names of the d columns.
        source: name of the file, for messages.
        shifted: whether the model subtracts a number from each raw column first; models with the metric cosine cannot.
        advice: what to do about a column that loses too much.
    """
    rounding = [column for column in _suspects(rows) if varies_by_rounding(rows[:, column])]
    found = [
        f"{source}: the column {name!r} has whole numbers beyond 2^53, some of which are equal in float64; "
        "if they are ids, leave it out with drop:"
        for name, most in zip(names, np.abs(rows).max(axis=0, initial=0.0).tolist())
        if WHOLE <= most < _LONGEST
    ]
    for column in rounding:
        low, high = rows[:, column].min(), rows[:, column].max()
        said = f"the column {names[column]!r} varies only by rounding, from {low} to {high}"
        found.append(f"{source}: {said}; leave it out with features:, or new rows may be far from all training rows")
    for column, step, gap in _coarse(rows, find_origin(rows) if shifted else None):
        if column not in rounding:
            spread = float(np.ptp(rows[:, column]))
            said = f"float32 holds the column {names[column]!r} in steps of {step:.2g}"
            said += f", but neighbouring values are {gap:.2g} apart (spread {spread:.3g})"
            found.append(f"{source}: {said}; {advice}")
    return tuple(found)


def varies_by_rounding(values: NDArray[Any]) -> bool:
    """Whether (n,) values differ only by rounding errors: 3.3 and the next float32, or 0.3 and 0.1 + 0.2."""
    low, high = float(values.min()), float(values.max())
    greatest = max(abs(low), abs(high))
    if low == high or high - low > _ROUNDING * _step(greatest):
        return False
    if high - low <= _NOISE * np.spacing(greatest):
        return True
    quarters = values.astype(np.float64) * 4.0  # measured in quarters: no decimal was rounded
    distinct = len(np.unique(values))
    return distinct == len(np.unique(values.astype(np.float32))) and not bool((quarters == np.floor(quarters)).all())


def _suspects(rows: NDArray[Any]) -> dict[int, tuple[Float64, float, float]]:
    """Returns column -> (sorted sample, median, spread) of the columns that may lose too much in float32.

    The spread is the distance from the median within which three quarters of the sample lie.
    """
    sample = np.sort(rows[:: -(-len(rows) // _SAMPLE)].astype(np.float64), axis=0)
    middle = sample[len(sample) // 2]  # a value that occurs: between two clusters, an origin would serve neither
    spread = np.quantile(np.abs(sample - middle), _MOST, axis=0)
    found = {}
    for column in np.flatnonzero(sample[0] != sample[-1]):
        values = sample[:, column]
        limit = _FINE if _is_far(middle[column], spread[column]) else _COARSE
        if _gap(values, 0.0)[0] < limit:
            found[int(column)] = (values, float(middle[column]), float(spread[column]))
    return found


def _is_far(middle: float, spread: float) -> bool:
    return abs(middle) >= _FAR * spread


def _coarse(rows: NDArray[Any], origin: Float64 | None) -> list[tuple[int, float, float]]:
    """Returns (column, float32 step, difference of close values) for each column whose steps are too large.

    The steps are those of the values less `origin` (None: 0).
    """
    found = []
    for column, (values, _, _) in _suspects(rows).items():
        start = 0.0 if origin is None else float(origin[column])
        steps, gap, step = _gap(values, start)
        if steps < _COARSE and not _exact(rows[:, column], start):
            found.append((column, step, gap))
    return found


def _gap(values: Float64, origin: float) -> tuple[float, float, float]:
    """Returns the difference of close values in float32 steps, the same difference as a number, and the step's size.

    The difference is the tenth percentile of those between neighbours among the sorted distinct values. A step is that
    of float32 at the values' offsets from `origin`. Equal values give (infinity, infinity, 0).
    """
    distinct = np.unique(values)
    apart = max(1, len(distinct) // _SHARE)
    if len(distinct) <= apart:
        return np.inf, np.inf, 0.0
    gaps = distinct[apart:] - distinct[:-apart]
    steps = _step(np.maximum(np.abs(distinct[apart:] - origin), np.abs(distinct[:-apart] - origin)))
    place = np.argsort(gaps / steps)[(len(gaps) - 1) // 10]
    return float(gaps[place] / steps[place]), float(gaps[place]), float(steps[place])


def _step(values: Any) -> Any:
    return np.ldexp(1.0, np.maximum(np.frexp(values)[1] - 24, -149))


def _exact(values: NDArray[Any], origin: float) -> bool:
    """Whether the offsets of nearly all values from `origin` are exact in float32."""
    offsets = values.astype(np.float64) - origin
    with np.errstate(over="ignore"):
        return bool((offsets.astype(np.float32) != offsets).mean() <= _FEW_ROWS)


def _float32(rows: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(rows, dtype=np.float32)
