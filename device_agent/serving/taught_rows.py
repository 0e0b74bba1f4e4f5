"""Reads rows to teach, as raw cells.

Accepts every format that `classify` reads. All rows of the input are taught, or none. Numbers are stored as the model
reads them. For a model with a table, categories stay text, and missing values stay missing, so that a later release can
fill them in its own way. For a model with stages, the output of the stages is stored, not the input.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.serving.columns import Columns
from device_agent.serving.load import Loaded
from device_agent.serving.rows import Block, Request, Rows, open_rows
from device_agent.shared import raw_rows
from device_agent.shared.features.coder import Coder, is_missing
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.protocol.record import replace
from device_agent.shared.protocol.table_info import Column, Table
from device_agent.shared.queries import cell_type
from device_agent.shared.tabular.csv_reader import LEAVES_OUT
from device_agent.shared.tabular.inputs import FILES

Cells = tuple[float | str | None, ...]
_REMEDY = "correct or remove the line: either all lines are taught, or none"


def read(loaded: Loaded, request: Request, most: int) -> list[Cells]:
    """Returns the raw rows of the input of `request`; the cells are in the order of the columns of `loaded`.

    Raises:
        BadInput: a row cannot be read, or there are no rows, or more than `most`.
    """
    source, request = open_rows(loaded, request)
    info, is_npy = loaded.signed.info, source.format == "npy"
    if is_npy and info.window is not None:
        raise BadInput(f"{source.name}: windows can be taught only from text", hint="give CSV or JSON lines")
    reading = info
    if not is_npy and info.table is not None:  # the numbers before the transforms
        reading = replace(info, table=replace(info.table, transforms=()))
    keep = info.columns if info.table is not None and source.format == "csv" else ()
    made = Rows(reading, loaded.signed.chain, source, replace(request, columns=Columns(keep=keep)), _REMEDY)
    made.parser.dtype = cell_type(info)
    rows: list[Cells] = []
    for block in _without_keep(made):
        rows += _cells_of_block(info, source.format, block)
        if len(rows) > most:
            others = {FILES: "a folder with fewer files", "npy": "an array with fewer rows"}
            fewer = others.get(source.format, f"head -n {most} FILE")
            hint = f"teach at most {most:,} rows at once: {fewer}"
            raise BadInput(f"{source.name}: more than {most:,} rows, which the release does not allow", hint=hint)
    if not rows:
        said, hint = made.parser.why_empty()
        raise BadInput(f"{source.name}: {said}", reason="no-rows", hint=hint)
    return rows


def _without_keep(made: Rows) -> Iterator[Block]:
    """Yields the blocks of `made`; removes `--keep`, an option that `enrol` does not have, from an error's hint."""
    try:
        yield from made.blocks()
    except BadInput as error:
        if LEAVES_OUT not in (error.hint or ""):
            raise
        raise BadInput(str(error), reason=error.reason, hint=LEAVES_OUT) from None


def _cells_of_block(info: KnnInfo, format: str, block: Block) -> list[Cells]:
    if info.table is None:
        return cells_of(block.rows, info)
    if format == "npy":
        return [tuple(None if np.isnan(value) else value for value in row) for row in _shortest(block.raw, info)]
    if format == "jsonl":
        coder = Coder(info.table)
        return [_of_json(info, coder, json.loads(line)) for line in block.raw.split(b"\n") if line.strip()]
    return [_of_text(info, *pair) for pair in zip(zip(*block.kept), _shortest(block.rows, info))]


def cells_of(rows: NDArray[Any], info: KnnInfo) -> list[Cells]:
    """Converts (n, n_features) features to raw rows: for a model with a table, undoes its encodings (`raw_rows`)."""
    if info.table is not None:
        return [tuple(raw_rows.cells_of(info, row)) for row in rows]
    return [tuple(row) for row in _shortest(rows, info)]


def _shortest(rows: NDArray[Any], info: KnnInfo) -> list[list[float]]:
    """Returns `rows` as numbers with as few digits as tell them apart in float32 or float64, as `cell_type` says."""
    with np.errstate(over="ignore"):
        narrow = rows.astype(cell_type(info))
    return [[float(str(value)) for value in row] for row in narrow]


def _of_json(info: KnnInfo, coder: Coder, found: Any) -> Cells:
    assert info.table is not None
    values = [found.get(name) for name in info.columns] if isinstance(found, dict) else found
    return tuple(_cell(info.table, coder, place, value) for place, value in enumerate(values))


def _is_missing(table: Table, column: Column, text: str) -> bool:
    return is_missing(text, table.missing_words) and text not in column.categories


def _cell(table: Table, coder: Coder, place: int, value: Any) -> float | str | None:
    """Returns a JSON value of the column `place` as number, text (as `Coder.text` gives it) or None (missing)."""
    if value != value or (isinstance(value, str) and _is_missing(table, table.columns[place], value.strip())):
        return None
    if value is not None and not (coder.is_number(place) or isinstance(value, str)):
        return coder.text(place, value)
    return float(value) if isinstance(value, int | float) else value


def _of_text(info: KnnInfo, cells: Sequence[str], numbers: Sequence[float]) -> Cells:
    """Returns the raw cells of a CSV line: numbers, text or None; `cells` are its texts, `numbers` its features."""
    assert info.table is not None
    values: list[float | str | None] = []
    place = 0
    for column, cell in zip(info.table.columns, cells):
        text = str(cell).strip()
        missing = _is_missing(info.table, column, text)
        values.append(None if missing else numbers[place] if column.encoding == "number" else text)
        place += len(column.categories) if column.encoding == "one-hot" else 1
    return tuple(values)
