"""Row checks and result records of TfKNN and TfliteKNN.

Host and device check rows with the same code, and return neighbours in the same record. Needs numpy; does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.model_info import Near


# A named tuple: a stream makes one for every row, and a frozen dataclass takes three times as long to make.
class Neighbors(NamedTuple):
    """The k nearest training rows of each query, by (distance, training index).

    Attributes:
        indices: (n, k) int32, rows of the training set.
        distances: (n, k) float32, in the model's metric.
    """

    indices: NDArray[np.int32]
    distances: NDArray[np.float32]


def in_doubt(distances: NDArray[np.float32], near: Near) -> NDArray[np.bool_]:
    """Returns (n,) whether rounding may have changed the order of the k neighbours at these (n, k) distances."""
    limit = np.float32(near.share) * np.maximum(distances[:, -1], np.float32(near.least))
    found: NDArray[np.bool_] = (distances[:, 1:] - distances[:, :-1] <= limit[:, np.newaxis]).any(axis=1)
    return found


def default_names(count: int) -> tuple[str, ...]:
    """Returns the names of unnamed features: feature_0, feature_1, ..."""
    return tuple(f"feature_{column}" for column in range(count))


def column_names(rows: Any) -> tuple[str, ...] | None:
    """Returns the column names of a data frame; None if `rows` is not one, or a name is not text."""
    names = getattr(rows, "columns", None)
    if names is None or not len(names) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(map(str, names))


def check_rows(
    rows: ArrayLike, features: tuple[str, ...], error: Callable[..., Exception] = BadInput
) -> NDArray[np.float32]:
    """Returns `rows` as (n, n_features) contiguous float32.

    Args:
        rows: numbers; a data frame must have the columns `features`, unless these are default names.
        features: names of the model's features.
        error: class of the exception to raise; takes a message and a `hint`.

    Raises:
        BadInput: or `error`: wrong shape, wrong columns, not numbers, or not finite in float32; the message names the
            first such row and column, counted from 0.
    """
    if type(rows) is np.ndarray and rows.dtype == np.float32:
        queries: NDArray[np.float32] = np.ascontiguousarray(rows)
    else:
        queries = _as_float32(rows, features, error)
    if queries.ndim != 2 or queries.shape[1] != len(features):
        hint = "rows.reshape(1, -1), if it is a single row" if queries.ndim == 1 else ""
        raise error(f"expected rows of {len(features)} numbers, found an array of shape {queries.shape}", hint=hint)
    finite = np.isfinite(queries)
    if not finite.all():
        row, column = (int(place[0]) for place in np.nonzero(~finite))
        raise error(f"row {row}, column {column}: {queries[row, column]} is not a finite float32 number")
    return queries


def _as_float32(rows: Any, features: tuple[str, ...], error: Callable[..., Exception]) -> NDArray[np.float32]:
    named = column_names(rows)
    if named not in (None, features) and features != default_names(len(features)):
        hint = f"rows[{list(features)}]" if len(features) <= 8 else "the columns of the training rows, in their order"
        raise error(f"the columns are {_few(named or ())}, but the model takes {_few(features)}", hint=hint)
    try:
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(rows, dtype=np.float32)
    except (TypeError, ValueError) as problem:
        hint = "rows.toarray()" if hasattr(rows, "toarray") else ""
        raise error(f"the rows are not a table of numbers: {problem}", hint=hint) from None


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def accuracy(predicted: NDArray[Any], truth: ArrayLike, error: Callable[..., Exception] = BadInput) -> float:
    """Returns the share (0 to 1) of `predicted` labels (n,) that equal `truth` (n,).

    Raises:
        BadInput: or `error`: `truth` has another shape, or there are no labels.
    """
    expected = np.asarray(truth, dtype=object)
    if expected.shape != predicted.shape or not len(predicted):
        raise error(f"{len(predicted)} rows, but labels of shape {expected.shape}")
    return float((predicted.astype(object) == expected).mean())
