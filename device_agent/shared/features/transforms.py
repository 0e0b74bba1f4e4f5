"""Nonlinear steps of a pipeline, in float64.

The transforms of a table run in order. They compute the features of the model from the numbers and category codes of
the table's columns. Each one replaces a range of adjacent columns. Host and device run this code, so that a row means
the same in training and on a board. Elementwise operations and sums in a fixed order; no BLAS, no I/O. The formulas are
scikit-learn's.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.protocol.table_info import Transform

Float64 = NDArray[np.float64]
Step = Callable[[Float64], Float64]

#: Results of `look_up` in a one-hot step: no feature, or a category that the model refuses; the latter in "look-up".
NOTHING, REFUSED, REFUSED_VALUE = -1.0, -2.0, math.inf
#: Kinds of transforms whose result is infinite for a category that the model refuses.
_ENCODERS = ("look-up", "one-hot")
#: Functions of FunctionTransformer, by name.
FUNCTIONS: dict[str, Any] = {
    name: getattr(np, name)
    for name in ("abs", "cbrt", "exp", "expm1", "log", "log10", "log1p", "log2", "sqrt", "square")
}
#: A value so close to the least or greatest of the training rows counts as that (`BOUNDS_THRESHOLD` of scikit-learn).
_BOUND = 1e-7


def make(kind: str, start: int, count: int, *arrays: Any) -> Transform:
    """Returns the record of a transform: its `kind`, its `count` columns from `start` on, its parameters `arrays`."""
    packed = (base64.b64encode(np.ascontiguousarray(array, "<f8").tobytes()).decode() for array in arrays)
    return Transform(kind, start, count, tuple(packed))


def arrays_of(transform: Transform) -> list[Float64]:
    """Returns the parameters of a transform, as float64 arrays.

    Raises:
        ValueError: a parameter is not base64.
    """
    return [np.frombuffer(base64.b64decode(text, validate=True), "<f8") for text in transform.arrays]


class Transforms:
    """The transforms of a table, in the order in which they run.

    Raises:
        ModelUnusable: a transform is unknown, or has parameters of the wrong shape.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self._steps: list[tuple[int, int, Step, bool]] = []
        for each in transforms:
            try:
                step = FUNCTIONS[each.kind] if each.kind in FUNCTIONS else _KINDS[each.kind](*arrays_of(each))
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise ModelUnusable(f"knn.json: the transform {each.kind!r} cannot be used: {error}") from None
            self._steps.append((each.start, each.count, step, each.kind in _ENCODERS))

    def __call__(self, rows: NDArray[Any]) -> Float64:
        """Returns the (n, n_features) features of (n, n_columns) numbers and category codes.

        A row with a category that an encoder refuses is NaN, even if a later step fills missing cells.

        Raises:
            ModelUnusable: a transform does not fit the columns.
        """
        found: Float64 = rows.astype(np.float64)
        refused = np.zeros(len(found), np.bool_)
        with np.errstate(all="ignore"):  # a result that is not finite is found by the caller
            for start, count, step, encodes in self._steps:
                if start + count > found.shape[1]:
                    raise ModelUnusable(
                        f"knn.json: a transform needs {start + count} columns, but there are {found.shape[1]}"
                    )
                try:
                    part = step(found[:, start : start + count])
                except (ValueError, IndexError) as error:
                    raise ModelUnusable(f"knn.json: a transform does not fit its columns: {error}") from None
                if encodes:
                    refused |= np.isinf(part).any(axis=1)
                found = np.concatenate([found[:, :start], part, found[:, start + count :]], axis=1)
        found[refused] = np.nan
        return found


# --- columns ------------------------------------------------------------------------------------------------------
def _take(places: Float64) -> Step:
    chosen = places.astype(np.int64)
    return lambda rows: rows[:, chosen]


def _is_missing(rows: Float64, missing: float) -> NDArray[np.bool_]:
    return np.isnan(rows) if math.isnan(missing) else rows == missing


# --- categories ---------------------------------------------------------------------------------------------------
def _look_up(column: Float64, values: Float64, results: Float64, other: float) -> Float64:
    """Returns (n,) numbers: `results[i]` where `column` equals `values[i]` (NaN equals NaN), else `other`."""
    order = np.argsort(values, kind="stable")  # NaN is last
    ordered = values[order]
    at = np.minimum(np.searchsorted(ordered, column), len(ordered) - 1)
    equal = (ordered[at] == column) | (np.isnan(ordered[at]) & np.isnan(column))
    return np.where(equal, results[order[at]], other)


def _mapped(values: Float64, owners: Float64, results: Float64, others: Float64) -> Step:
    """Returns a step that maps numbers: `values[i]` in column c = `owners[i]` to `results[i]`, else `others[c]`."""
    parts = [
        (values[owners == column], results[owners == column], other) for column, other in enumerate(others.tolist())
    ]
    if any(not len(part) for part, _, _ in parts):
        raise ValueError("a column has no categories")
    return lambda rows: np.stack([_look_up(rows[:, column], *part) for column, part in enumerate(parts)], axis=1)


def _one_hot(values: Float64, owners: Float64, results: Float64, others: Float64, width: Float64) -> Step:
    look_up, columns = _mapped(values, owners, results, others), int(width[0])

    def apply(rows: Float64) -> Float64:
        found = np.zeros((len(rows), columns))
        for places in look_up(rows).T:
            hot = np.flatnonzero(places >= 0.0)
            found[hot, places[hot].astype(np.int64)] = 1.0
            found[places == REFUSED] = np.inf
        return found

    return apply


# --- numbers ------------------------------------------------------------------------------------------------------
def _standard(origin: Float64, scale: Float64) -> Step:
    # Divides as scikit-learn does: a product with 1 / scale has other last bits, and a later step may compare them.
    return lambda rows: (rows - origin) / scale


def _scaled(factor: Float64, offset: Float64) -> Step:
    return lambda rows: rows * factor + offset


def _linear(matrix: Float64, origin: Float64) -> Step:
    factors = matrix.reshape(len(origin), -1)

    def apply(rows: Float64) -> Float64:
        found = np.zeros((len(rows), factors.shape[1]))
        for column, row in enumerate(factors):  # in the order of the columns: the same bits on every machine
            found += (rows[:, column] - origin[column])[:, np.newaxis] * row
        return found

    return apply


def _normalize(order: Float64) -> Step:
    def apply(rows: Float64) -> Float64:
        terms = np.abs(rows) if order[0] != 2.0 else rows * rows
        total = np.zeros(len(rows))
        for column in terms.T:
            total = np.maximum(total, column) if math.isinf(order[0]) else total + column
        norm = np.sqrt(total) if order[0] == 2.0 else total
        found: Float64 = rows / np.where(norm == 0.0, 1.0, norm)[:, np.newaxis]
        return found

    return apply


def _bins(edges: Float64, owners: Float64) -> Step:
    """Returns a step that replaces each number by the index of its bin: the number of edges at or below it.

    Edge i belongs to column `owners[i]`; the edges of a column ascend. NaN stays NaN.
    """
    parts = [edges[owners == column] for column in range(int(owners.max(initial=-1)) + 1)]

    def apply(rows: Float64) -> Float64:
        none = edges[:0]
        columns = [
            np.searchsorted(parts[place] if place < len(parts) else none, column, side="right")
            for place, column in enumerate(rows.T)
        ]
        return np.where(np.isnan(rows), np.nan, np.stack(columns, axis=1).astype(np.float64))

    return apply


def _quantiles(quantiles: Float64, references: Float64, normal: Float64) -> Step:
    table = quantiles.reshape(len(references), -1)
    inverse = NormalDist().inv_cdf
    least, most = inverse(_BOUND - np.spacing(1.0)), inverse(1.0 - (_BOUND - np.spacing(1.0)))

    def apply(rows: Float64) -> Float64:
        found = np.empty(rows.shape)
        for place, column in enumerate(rows.T):
            known = table[:, place]
            up = np.interp(column, known, references)
            down = np.interp(-column, -known[::-1], -references[::-1])
            within = 0.5 * (up - down)
            low = column - _BOUND < known[0] if normal[0] else column == known[0]
            high = column + _BOUND > known[-1] if normal[0] else column == known[-1]
            found[:, place] = np.where(low, 0.0, np.where(high, 1.0, within))
        if normal[0]:
            found = np.reshape([_normal(p, least, most, inverse) for p in found.ravel().tolist()], rows.shape)
        return found

    return apply


def _normal(share: float, least: float, most: float, inverse: Callable[[float], float]) -> float:
    if math.isnan(share):
        return share
    return least if share <= 0.0 else most if share >= 1.0 else min(max(inverse(share), least), most)


def _yeo_johnson(power: Float64) -> Step:
    def apply(rows: Float64) -> Float64:
        other = 2.0 - power
        above = np.where(power == 0.0, np.log1p(rows), np.expm1(power * np.log1p(rows)) / power)
        below = np.where(other == 0.0, -np.log1p(-rows), -np.expm1(other * np.log1p(-rows)) / other)
        return np.where(np.isnan(power), rows, np.where(rows >= 0.0, above, below))

    return apply


def _box_cox(power: Float64) -> Step:
    def apply(rows: Float64) -> Float64:
        logs = np.log(rows)
        return np.where(np.isnan(power), rows, np.where(power == 0.0, logs, np.expm1(power * logs) / power))

    return apply


def _polynomial(places: Float64, degree: Float64) -> Step:
    """Returns a step whose result has a column for each product of `degree[0]` columns of its input.

    `places` has the column indices of the products, one product after another; -1 stands for a factor of 1.
    """
    factors = places.astype(np.int64).reshape(-1, int(degree[0]))

    def apply(rows: Float64) -> Float64:
        with_one = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
        found = np.ones((len(rows), len(factors)))
        for column in factors.T:
            found = found * with_one[:, column]
        return found

    return apply


_KINDS: dict[str, Callable[..., Step]] = {
    "binarize": lambda threshold: lambda rows: np.where(np.isnan(rows), np.nan, rows > float(threshold[0])),
    "bins": _bins,
    "box-cox": _box_cox,
    "clip": lambda low, high: lambda rows: np.clip(rows, low[0], high[0]),
    "impute": lambda missing, fill: lambda rows: np.where(_is_missing(rows, missing[0]), fill, rows),
    "indicate": lambda missing: lambda rows: _is_missing(rows, missing[0]).astype(np.float64),
    "linear": _linear,
    "look-up": _mapped,
    "normalize": _normalize,
    "one-hot": _one_hot,
    "polynomial": _polynomial,
    "quantiles": _quantiles,
    "scale": _scaled,
    "standard": _standard,
    "take": _take,
    "yeo-johnson": _yeo_johnson,
}
