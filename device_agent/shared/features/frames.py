"""Features of data frames and lists of raw cells.

Host and device take the columns of a frame by name, and those of an array by position. Loaded only for a model that has
a table. No I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.console.lists import listed
from device_agent.shared.features.coder import UNUSED, Coder
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.protocol.table_info import Table
from device_agent.shared.queries import (
    as_array,
    as_numbers,
    cell_problem,
    column_cells,
    column_names,
    elements,
    is_gap,
    not_numbers,
    row_type,
    twice_named,
)
from device_agent.shared.tabular.csv_reader import BadCell

_Error = Callable[..., Exception]


def cell_matrix(names: Sequence[str], rows: Any, error: _Error, source: str = "") -> NDArray[Any]:
    """Returns the (n, n_columns) raw cells of rows, as objects.

    Args:
        names: names of the raw columns.
        rows: a data frame or a list of dictionaries, which may have other columns, too; or an array.
        error: class of the exception to raise; takes a message and a `hint`.
        source: prefix of messages.

    Raises:
        error: a column is missing, or the rows are not a table.
    """
    rows, framed = _with_columns(rows)
    if framed is not None:
        absent = [name for name in names if name not in framed]
        if absent and (found := elements(rows, framed, names)) is not None:
            return found
        twice = twice_named(framed, names)
        if twice and (absent or twice in names):
            raise error(f"{source}two columns have the name {twice!r}", hint="rename one of them, or leave it out")
        if absent:
            raise error(
                f"{source}there is no column {absent[0]!r}", hint=f"a frame with these columns: {listed(names, 8)}"
            )
    try:
        if framed is None:
            matrix = as_array(rows, object)
        elif isinstance(rows, list):
            matrix = as_array([[row.get(name) for name in names] for row in rows], object)
        else:  # column by column: in one array, polars and Arrow make truth values numbers
            matrix = np.stack([column_cells(rows[name]) for name in names], 1)
    except (TypeError, ValueError) as problem:
        said, hint = not_numbers(rows, problem)
        raise error(f"{source}{said}", hint=hint) from None
    if matrix.ndim != 2 or matrix.shape[1] != len(names):
        hint = f"rows of shape (n, {len(names)}), or a frame with these columns: {listed(names, 8)}"
        raise error(f"{source}expected rows of {len(names)} cells, found an array of shape {matrix.shape}", hint=hint)
    return matrix


def is_missing(coder: Coder, place: int, cell: Any) -> bool:
    """Whether a cell of the column with index `place` has no value."""
    return is_gap(cell) or (isinstance(cell, str) and coder.is_missing(place, cell.strip()))


def encoded(info: KnnInfo, rows: Any) -> Any:
    """Returns the (n, n_features) features of raw cells; rows that hold features already are returned unchanged.

    Raises:
        BadInput: the columns are wrong, or the model refuses a cell; the message names its row, from 0, and column.
    """
    table = info.table
    assert table is not None
    if _are_features(info, table, rows):
        return rows
    coder = Coder(table, row_type(info.origin))
    matrix = cell_matrix(coder.names, rows, BadInput)
    if not len(matrix):
        return np.empty((0, info.n_features))
    found = np.zeros(matrix.shape)
    for place, column in enumerate(table.columns):
        if column.encoding != UNUSED:
            found[:, place] = _numbers(coder, place, matrix[:, place])
    with np.errstate(over="ignore"):
        return coder.expand(found).astype(row_type(info.origin))


def _are_features(info: KnnInfo, table: Table, rows: Any) -> bool:
    """Whether `rows` hold features, not raw cells.

    A frame holds features if it has a column for each feature, but not for each raw column. An array with as many
    columns as there are features holds features; if the table has as many, only if each raw column is a feature and
    each cell is a number other than NaN.
    """
    names = [column.name for column in table.columns]
    rows, framed = _with_columns(rows)
    if framed is not None:
        return not {*names} <= {*framed} and {*info.feature_names} <= {*framed}
    try:
        array = as_array(rows)
    except TypeError:
        return False
    if array.shape[-1:] != (len(names),):
        return array.shape[-1:] == (len(info.feature_names),)
    same = not table.transforms and all(column.encoding == "number" for column in table.columns)
    return same and array.dtype.kind in "fiub" and not np.isnan(array).any()


def _numbers(coder: Coder, place: int, cells: NDArray[Any]) -> NDArray[np.float64]:
    """Returns the (n,) numbers or category codes of a raw column's cells."""
    found, name = np.zeros(len(cells)), coder.names[place]
    gaps = np.array([is_missing(coder, place, cell) for cell in cells], bool)
    row = int(gaps.argmax()) if len(gaps) else 0
    try:
        if gaps.any():
            found[gaps] = coder.missing(place)
        if coder.is_number(place):
            found[~gaps] = as_numbers(cells[~gaps].tolist(), np.float64)
            return found
        for row in np.flatnonzero(~gaps).tolist():
            found[row] = coder.category(place, coder.text(place, cells[row]))
    except BadCell as error:
        raise BadInput(f"row {row}, column {name!r}: {error}", hint=error.hint) from None
    except (TypeError, ValueError) as error:
        bad = ((row, problem) for row in np.flatnonzero(~gaps).tolist() if (problem := cell_problem(cells[row], name)))
        row, (said, hint) = next(bad, (0, (str(error), "")))
        raise BadInput(f"row {row}, column {name!r}: {said}", hint=hint) from None
    return found


def _with_columns(rows: Any) -> tuple[Any, Sequence[str] | None]:
    """Returns the rows, and the names of their columns (None: no names); one dictionary becomes a list of one row."""
    rows = [rows] if isinstance(rows, Mapping) else rows
    if isinstance(rows, list) and rows and all(isinstance(row, Mapping) for row in rows):
        return rows, list(dict.fromkeys(name for row in rows for name in row))
    return rows, column_names(rows)
