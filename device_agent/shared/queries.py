"""Row checks and result records of TfKNN and TfliteKNN.

Host and device check rows with the same code, and return neighbours in the same record. A model whose features are far
from 0 (UTM metres, seconds since 1970) has an origin: its rows stay float64 until `narrow` has subtracted the origin.
Needs NumPy; does no I/O.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from device_agent.shared.arguments import shown
from device_agent.shared.console.lists import listed
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.model_info import Near

#: (n_features,) numbers to subtract from raw float64 rows; None for a model that takes float32 rows as they are.
Origin = NDArray[np.float64] | None
#: First names of targets or label columns that were given without names.
_UNNAMED = ("target", "target_0", "label_0")


# A named tuple: a stream makes one for every row, and a frozen dataclass takes three times as long to make.
class Neighbors(NamedTuple):
    """The k nearest training rows of each query, sorted by (distance, training index)."""

    indices: NDArray[np.int32]  # (n, k) int32 indices of training rows
    distances: NDArray[np.float32]  # (n, k) float32, in the model's metric


def in_doubt(distances: NDArray[np.float32], near: Near) -> NDArray[np.bool_]:
    """Returns (n,) bool: whether float32 rounding may have swapped neighbours of each of n rows.

    This is possible if two consecutive distances in a row of the (n, k) `distances` differ by at most a bound:
    `near.share` times the k-th distance, or times `near.least` if that is larger.
    """
    limit = np.float32(near.share) * np.maximum(distances[:, -1], np.float32(near.least))
    with np.errstate(invalid="ignore"):  # between two that are infinite in float32
        apart = distances[:, 1:] - distances[:, :-1] > limit[:, np.newaxis]
    return np.asarray(~apart.all(axis=1))


def default_names(count: int) -> tuple[str, ...]:
    """Returns the names of unnamed features: feature_0, feature_1, ..."""
    return tuple(f"feature_{column}" for column in range(count))


def column_names(rows: Any) -> tuple[str, ...] | None:
    """Returns the column names of a data frame; None if `rows` is not a data frame, or a name is not text."""
    kind = type(rows)
    if not hasattr(kind, "__array__"):  # a frame that was not computed yet
        return None
    names = rows.column_names if _is_arrow(kind) else getattr(rows, "columns", None)
    if names is None or not len(names) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(map(str, names))


def select(rows: Any, names: Sequence[str]) -> Any:
    """Returns the columns `names` of a data frame or an Arrow table."""
    return rows.select(list(names)) if _is_arrow(type(rows)) else rows[list(names)]


def _is_arrow(kind: type) -> bool:
    return hasattr(kind, "column_names")


def origin_of(given: Sequence[float] | None) -> Origin:
    """Returns as a float64 array the origin that a model file states, `given`; None if it states none."""
    return None if given is None else np.array(given, np.float64)


def row_type(origin: Any) -> type[np.floating[Any]]:
    """Returns the dtype of a model's raw rows: float64 if it has an `origin` to subtract, float32 if that is None."""
    return np.float32 if origin is None else np.float64


def cell_type(info: Any) -> type[np.floating[Any]]:
    """Returns the dtype of raw cells: float64 if the table in model `info` has transforms, else that of raw rows."""
    return np.float64 if info.table is not None and info.table.transforms else row_type(info.origin)


def narrow(rows: NDArray[Any], origin: Origin) -> NDArray[np.float32]:
    """Converts raw (n, n_features) rows to the model's input: contiguous float32 offsets from its origin.

    The difference is rounded to float64, then to float32, as on every IEEE machine. For values between half and twice
    the origin, it is exact in float64 (Sterbenz 1974), so it is rounded once. An offset beyond float32 becomes
    infinite.
    """
    if origin is None and rows.dtype == np.float32:
        return np.ascontiguousarray(rows)
    with np.errstate(over="ignore"):
        offsets = rows if origin is None else np.subtract(rows, origin, dtype=np.float64)
        return np.ascontiguousarray(offsets, dtype=np.float32)


def check_rows(rows: ArrayLike, features: tuple[str, ...], origin: Origin) -> NDArray[np.float32]:
    """Returns `rows` as (n, n_features) contiguous float32; with an origin, as offsets from it.

    Args:
        rows: numbers; a data frame must have the columns `features`, unless these are feature_0, feature_1, ...
        features: names of the model's features.
        origin: (n_features,) float64, the model's origin, or None.

    Raises:
        BadInput: the rows have a wrong shape or wrong columns, or a cell is not a number, or not finite in float32; the
            message names row and column of the first such cell, counted from 0.
    """
    ready = type(rows) is np.ndarray and rows.dtype == np.float32
    table: NDArray[Any] = rows if ready else _as_table(rows, features, BadInput, origin)  # type: ignore[assignment]
    if table.ndim == 2 and table.shape[1] == len(features):
        table = narrow(table, origin)
    return _checked(table, features, BadInput)


def check_raw_rows(
    rows: ArrayLike, features: tuple[str, ...], error: Callable[..., Exception], origin: Origin
) -> NDArray[Any]:
    """Returns `rows` as (n, n_features) finite numbers, with an origin as float64, without it as float32.

    Does not subtract the origin. Raises `error`, called with a message and a `hint`, for a wrong shape, wrong columns,
    or cells that are not finite numbers.
    """
    return _checked(_as_table(rows, features, error, origin), features, error)


def _checked(queries: NDArray[Any], features: tuple[str, ...], error: Callable[..., Exception]) -> NDArray[Any]:
    if queries.ndim != 2 or queries.shape[1] != len(features):
        one = queries.ndim == 1 and len(queries) == len(features)
        hint = "np.reshape(rows, (1, -1)), for a single row" if one else f"rows of shape (n, {len(features)})"
        raise error(f"expected rows of {len(features)} numbers, found an array of shape {queries.shape}", hint=hint)
    finite = np.isfinite(queries)
    if not finite.all():
        row, column = (int(place[0]) for place in np.nonzero(~finite))
        said = f"row {row}, column {column}: {queries[row, column]} is not a finite float32 number"
        raise error(said, hint="leave out the row, or fill the cell")
    return queries


def _as_table(
    rows: Any, features: tuple[str, ...], error: Callable[..., Exception], origin: Origin
) -> NDArray[np.floating[Any]]:
    named = column_names(rows)
    if named not in (None, features) and features != default_names(len(features)):
        rows = _by_name(rows, named or (), features, error)
    try:
        return as_numbers(rows, row_type(origin))
    except (TypeError, ValueError) as problem:
        said, hint = not_numbers(rows, problem)
        raise error(said, hint=hint) from None


def _by_name(rows: Any, named: Sequence[str], features: tuple[str, ...], error: Callable[..., Exception]) -> Any:
    """Returns a data frame's columns (`named`) in the order of `features`; raises `error` if the names differ."""
    absent = [name for name in features if name not in named]
    if absent and (found := elements(rows, named, features, exact=True)) is not None:
        return found
    if absent and (twice := twice_named(named, features)):
        raise error(f"two columns have the name {twice!r}", hint="rename one of them, or leave it out")
    if absent:
        more = f" (nor {len(absent) - 1} more)" if len(absent) > 1 else ""
        said = f"there is no column {absent[0]!r}{more}; the model has {listed(features)}"
        raise error(said, hint="rename the columns, or give an array in this order")
    if len(named) != len(features):
        hint = f"rows[{list(features)}]" if len(features) <= 8 else "leave out the other columns"
        raise error(f"the columns are {listed(named)}, but the model has {listed(features)}", hint=hint)
    return select(rows, features)


def elements(rows: Any, named: Sequence[str], features: Sequence[str], *, exact: bool = False) -> NDArray[Any] | None:
    """Returns the columns of a data frame as an array, in the order of `features`.

    `named` are the frame's own column names. A column `vector` of lists counts as `vector_0`, `vector_1`, ... Returns
    None if a feature is missing or found twice, or lists differ in length; with `exact`, also if there are other
    columns.
    """
    found: dict[str, Any] = {}
    if twice_named(named, features):
        return None
    try:
        for name in named:
            if f"{name}_0" not in features:
                found[name] = rows[name] if name in features else None
            elif not (cells := list(rows[name])):  # lists of any length
                found |= {each: [] for each in features if each.startswith(f"{name}_")}
            elif not any(isinstance(cell, str | bytes) for cell in cells):
                found |= {f"{name}_{at}": part for at, part in enumerate(zip(*cells, strict=True))}
    except (TypeError, ValueError):  # lists of several lengths, or no lists
        return None
    if not found.keys() >= set(features) or (exact and len(found) > len(features)):
        return None
    table: NDArray[Any] = np.stack([column_cells(found[name]) for name in features], 1)
    return table


def column_cells(column: Any) -> NDArray[Any]:
    """Returns the (n,) cells of one column of a frame, as objects; 0.1 in float32 stays a number of float32."""
    cells = as_array(column)
    if cells.dtype in (np.float16, np.float32):
        values = list(cells)
    elif hasattr(column, "to_pylist"):  # in an array of Arrow, a gap makes whole numbers floats
        values = column.to_pylist()
    else:
        return as_array(column, object)
    found = np.empty(len(values), object)
    for place, value in enumerate(values):  # a value may be a list
        found[place] = value
    return found


def twice_named(named: Sequence[str], features: Sequence[str]) -> str | None:
    """Returns the first name that two columns have and that features need (`x` for the feature `x_0`); else None."""
    needed = {*features, *(name.rpartition("_")[0] for name in features)}
    return next((name for name, count in Counter(named).items() if count > 1 and name in needed), None)


def as_array(value: Any, dtype: Any = None) -> NDArray[Any]:
    """Returns any `value` as an array, of `dtype` unless that is None; a masked cell becomes NaN.

    Raises:
        TypeError: the value cannot be an array.
    """
    try:
        if callable(getattr(value, "filled", None)) and hasattr(value, "mask"):
            value = value.astype(object).filled(np.nan)
        if str(getattr(value, "type", "")).startswith("dictionary<"):  # a missing cell would become its last value
            value = value.cast(value.type.value_type)
        if _is_arrow(type(value)) and "dictionary<" in str(getattr(value, "schema", "")):
            value = np.stack([column_cells(value[name]) for name in value.column_names], 1)
        return np.asarray(value, dtype)
    except Exception as error:  # of lists of several lengths, or of another library's type
        raise TypeError(str(error)) from None


def as_numbers(rows: Any, dtype: type[np.floating[Any]]) -> NDArray[Any]:
    """Returns rows as a contiguous array of `dtype`.

    Raises:
        TypeError, ValueError: a value is not a real number, but for example a time or a complex number.
    """
    table = as_array(rows)
    kinds = getattr(rows, "dtypes", ()) if column_names(rows) else ()  # of polars, which would give numbers for times
    if (place := next((at for at, kind in enumerate(kinds) if getattr(kind, "is_temporal", bool)()), -1)) >= 0:
        raise TypeError(f"column {rows.columns[place]!r} has times")
    if table.dtype.kind in "cmMV":
        raise TypeError(f"{'times' if table.dtype.kind in 'mM' else table.dtype} are not numbers")
    if table.dtype == object and not table.ndim:
        raise TypeError(f"they are {shown(rows)}")
    try:
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(table, dtype=dtype)
    except OverflowError as error:
        raise ValueError(str(error)) from None


#: What turns other tables into one that NumPy reads.
_CONVERSIONS = ("toarray", "collect", "to_pandas", "toPandas")


def not_numbers(rows: Any, problem: Exception) -> tuple[str, str]:
    """Returns a message why `rows` are not a table of numbers, and a hint.

    The message names the first cell of a data frame that is not a number; if none is found, it quotes `problem`.
    """
    names = column_names(rows)
    cells = np.empty((0, len(names or ())))
    polars = hasattr(type(rows), "with_columns")
    with contextlib.suppress(TypeError):  # NumPy has no such type
        cells = as_array(rows.rows() if polars else rows, object) if names else cells
    for place, name in enumerate(names if names and cells.ndim == 2 else ()):
        for row, cell in enumerate(cells[:, place].tolist()):
            found = cell_problem(cell, name)
            if found is not None:
                return f"row {row}, column {name!r}: {found[0]}", f"rows.drop([{name!r}])" if polars else found[1]
    way = next((f"rows.{each}()" for each in _CONVERSIONS if hasattr(type(rows), each)), "")
    return f"the rows are not a table of numbers: {problem}", way or "an array, nested lists or a data frame of numbers"


def cell_problem(cell: Any, name: str) -> tuple[str, str] | None:
    """Returns a message why a cell of the column `name` is not a number, and a hint; None if it is a number."""
    if is_gap(cell):
        return "the cell is empty", 'rows.dropna(), rows.fillna(VALUE), or TfKNN(..., data={"missing": "median"})'
    if hasattr(cell, "isoformat") or hasattr(cell, "total_seconds"):
        part = f"rows.drop(columns=[{name!r}]), or convert: (rows[{name!r}] - START) / pd.Timedelta(seconds=1)"
        return f"{cell} is a time, not a number", part
    try:
        float(cell if not getattr(cell, "ndim", 0) else "an array")
    except (TypeError, ValueError, OverflowError):
        part = f'rows.drop(columns=[{name!r}]), or TfKNN(..., data={{"categories": {{{name!r}: "one-hot"}}}})'
        return f"{shown(cell)} is not a number", part
    return None


def is_gap(cell: Any) -> bool:
    """Whether a cell of a data frame has no value: None, NaN, `pd.NA` or `pd.NaT`."""
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    same = cell == cell
    return isinstance(same, bool | np.bool_) and not same


def answers_by_name(answers: Any, names: Sequence[str], error: Callable[..., Exception]) -> Any:
    """Returns the columns `names` of a data frame of right answers, in this order.

    `names` are the model's targets or label columns. Returns `answers` unchanged if they are not a frame, or the model
    has no such names. Raises `error` if a column is missing.
    """
    named = column_names(answers)
    if not names or names[0] in _UNNAMED or named in (None, names):
        return answers
    absent = next((name for name in names if name not in (named or ())), None)
    if absent is not None:
        said = f"the labels or targets have no column {absent!r}; the model answers {listed(names)}"
        raise error(said, hint="rename the columns, or give an array in this order")
    return select(answers, names)


def accuracy(predicted: NDArray[Any], truth: ArrayLike, error: Callable[..., Exception] = BadInput) -> float:
    """Returns the share (0 to 1) of rows whose `predicted` labels, (n,) or (n, t), all equal those in `truth`.

    A label True also equals the text "True".

    Raises:
        error: `truth` and `predicted` have different shapes; there are no rows; or labels would only be equal as text,
            such as 1 and "1".
    """
    said, hint = "", f"labels of shape {predicted.shape}, and at least one row"
    try:
        expected = as_array(truth, object)
        if expected.shape == predicted.shape and len(predicted):
            found = predicted.astype(object)
            same = (found == expected) | (found == _without_bools(expected))
            if same.any() or not (predicted.astype(str) == expected.astype(str)).any():
                return float(same.reshape(len(expected), -1).all(axis=1).mean())
            said = f"the labels are {shown(expected.flat[0])}, ..., but the model's are {shown(predicted.flat[0])}, ..."
            hint = "labels of the same type, text or integers: labels.astype(str) or labels.astype(int)"
    except Exception:  # of another library's type, perhaps in an array of objects
        raise error(f"the labels must be an array, but are {shown(truth)}", hint=hint) from None
    raise error(said or f"{len(predicted)} rows, but labels of shape {expected.shape}", hint=hint)


#: Returns an array of objects with text in place of True and False, as labels are read.
_without_bools = np.frompyfunc(lambda cell: str(cell) if isinstance(cell, bool | np.bool_) else cell, 1, 1)
