"""Converts raw rows to features, and features to raw cells.

Used for the golden set, taught rows and rows that a device keeps, which store raw rows as JSON. Loads the parsers only
when needed. No I/O.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.protocol.record import replace
from device_agent.shared.queries import row_type

if TYPE_CHECKING:
    from device_agent.shared.embedding.chain import Chain
    from device_agent.shared.golden.golden_set import Golden
    from device_agent.shared.tabular.reader import Parser


def raw_parser(info: KnnInfo, chain: Chain | None = None) -> Parser:
    """Returns the parser of raw rows as JSON lines, for a model with stages (`chain`) or a table."""
    if chain is not None:
        from device_agent.shared.embedding.parsers import InputJsonParser

        return InputJsonParser(chain, row_type(info.origin))
    from device_agent.shared.features.parsers import TableJsonParser

    assert info.table is not None
    return TableJsonParser(info.table, row_type(info.origin))


def own_golden(golden: Golden, info: KnnInfo, chain: Chain | None = None) -> Golden:
    """Returns `golden` with features that this machine computed from its raw rows, by the table or stages (`chain`).

    Without a table and `chain`, returns it unchanged.

    Raises:
        ModelUnusable: there are no raw rows, or a raw row cannot be read.
    """
    if info.table is None and chain is None:
        return golden
    parsed = raw_parser(info, chain).parse(golden.raw)
    rows = parsed.rows if len(parsed.rows) else golden.rows[:0]
    if parsed.errors or rows.shape != golden.rows.shape:
        said = next(iter(parsed.errors.values()), (0, f"{len(rows)} raw rows for {len(golden.rows)} answers"))[1]
        made = "table" if chain is None else "stages"
        raise ModelUnusable(f"golden.npz does not fit the model's {made}: {said}", hint="build the release again")
    return replace(golden, rows=rows)


def features_of(info: KnnInfo, cells: Sequence[Sequence[float | str | None]]) -> NDArray[Any]:
    """Returns the (n, n_features) features of n raw rows of cells in the order `info.columns`; NaN for a bad row."""
    dtype = row_type(info.origin)
    if info.table is None:
        with np.errstate(over="ignore"):
            return np.array(cells, np.float64).astype(dtype).reshape(len(cells), info.n_features)
    parsed = raw_parser(info).parse("".join(f"{json.dumps(list(row))}\n" for row in cells).encode())
    found = np.full((len(cells), info.n_features), np.nan, dtype)
    if len(parsed.rows):
        found[[place for place in range(len(cells)) if place not in parsed.errors]] = parsed.rows
    return found


def cells_of(info: KnnInfo, row: Sequence[Any] | NDArray[Any]) -> list[float | str | None]:
    """Returns the raw cells of one row of features: numbers, categories as text, None for an unknown category.

    A number has the fewest decimal digits that round to the feature.
    """
    numbers = [float(str(value)) for value in row]
    if info.table is None:
        return list(numbers)
    from device_agent.shared.features.coder import collapse

    return collapse(info.table.columns, numbers)
