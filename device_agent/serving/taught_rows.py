"""Reads rows to teach, as raw cells.

Takes every format that `classify` reads. All rows of the input are taught, or none. Numbers are kept as the model reads
them. For a model with a table, categories stay text, and missing values stay missing, so that a later release can fill
them in its own way. For a model with stages, the output of the stages is kept, not the input.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from device_agent.serving.batch import Request, open_rows
from device_agent.serving.columns import Columns
from device_agent.serving.load import Loaded
from device_agent.serving.parsing import make_parser
from device_agent.shared.features.coder import is_missing
from device_agent.shared.features.parsers import coder_of, read_array
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.model_info import Column, KnnInfo
from device_agent.shared.protocol.record import replace
from device_agent.shared.queries import cell_type

if TYPE_CHECKING:
    from device_agent.inference.tflite_knn import TfliteKNN

Cells = tuple[float | str | None, ...]


def read(loaded: Loaded, request: Request, most: int) -> list[Cells]:
    """Returns the raw rows of the input, each cell in the order of the model's columns.

    Raises:
        BadInput: a row cannot be read, or there are no rows, or more than `most`.
    """
    source, request = open_rows(loaded, request)
    rows: list[Cells] = []
    for part in _arrays(loaded, source) if source.format == "npy" else _lines(loaded.signed, source, request):
        rows += part
        if len(rows) > most:
            hint = f"teach at most {most:,} rows at once: head -n {most} FILE"
            raise BadInput(f"{source.name}: it has more rows than the release allows, {most:,}", hint=hint)
    if not rows:
        raise BadInput(f"{source.name}: it has no rows", reason="no-rows")
    return rows


def _arrays(loaded: Loaded, source: Any) -> Iterator[list[Cells]]:
    info = loaded.signed.info
    if loaded.signed.chain is not None:
        from device_agent.serving.files import embedded

        for rows, _ in embedded(source, loaded.signed):
            yield cells_of(rows, info)
        return
    if info.window is not None:
        raise BadInput(f"{source.name}: windows can be taught only from text", hint="--format csv, or jsonl")
    for wide in source.arrays(len(info.columns)):
        if info.table is not None:
            read_array(coder_of(info), wide.astype(cell_type(info)))  # refuses a category, and a cell that is missing
        yield [tuple(None if np.isnan(value) else value for value in row) for row in _shortest(wide, info)]


def _lines(signed: TfliteKNN, source: Any, request: Request) -> Iterator[list[Cells]]:
    info = signed.info
    keep = () if info.table is None or source.format == "jsonl" else info.columns
    reading = info
    if info.table is not None and info.table.transforms:  # the numbers before them
        reading = replace(info, table=replace(info.table, transforms=()))
    parser = make_parser(reading, source.format, replace(request, columns=Columns(keep=keep)), signed.chain)
    parser.dtype = cell_type(info)
    blocks = source.blocks()
    if info.window is not None:
        blocks = chain.from_iterable(map(parser.blocks, blocks))  # type: ignore[attr-defined]
    for block in blocks:
        parsed = parser.parse(block)
        if parsed.errors:
            number, message = next(iter(parsed.errors.values()))
            raise BadInput(f"{source.where(number)}: {message}", hint=parsed.hint or source.remedy)
        if info.table is None:
            yield cells_of(parsed.rows, info)
        elif source.format == "jsonl":
            yield [_of_json(info, json.loads(line)) for line in block.splitlines() if line.strip()]
        else:
            yield [_of_text(info, *pair) for pair in zip(zip(*parsed.kept), _shortest(parsed.rows, info))]


def cells_of(rows: NDArray[Any], info: KnnInfo) -> list[Cells]:
    """Returns (n, n_features) numbers as raw rows."""
    return [tuple(row) for row in _shortest(rows, info)]


def _shortest(rows: NDArray[Any], info: KnnInfo) -> list[list[float]]:
    """Returns numbers that read back as the same float32 (float64 for a model with an origin), with few digits."""
    with np.errstate(over="ignore"):
        narrow = rows.astype(cell_type(info))
    return [[float(str(value)) for value in row] for row in narrow]


def _of_json(info: KnnInfo, found: Any) -> Cells:
    assert info.table is not None
    values = [found.get(name) for name in info.columns] if isinstance(found, dict) else found
    return tuple(_cell(column, value) for column, value in zip(info.table.columns, values))


def _cell(column: Column, value: Any) -> float | str | None:
    """Returns a JSON value as a number or text; `true` is a category of that name in upper or lower case."""
    if isinstance(value, bool) and column.encoding != "number":
        text = str(value)
        return next((known for known in column.categories if known.casefold() == text.casefold()), text)
    return float(value) if isinstance(value, int | float) else value


def _of_text(info: KnnInfo, cells: Sequence[str], numbers: Sequence[float]) -> Cells:
    """Returns the cells of a CSV line; `numbers` are the features that the parser has read from it."""
    assert info.table is not None
    values: list[float | str | None] = []
    place = 0
    for column, cell in zip(info.table.columns, cells):
        text = str(cell).strip()
        missing = is_missing(text) and text not in column.categories
        values.append(None if missing else numbers[place] if column.encoding == "number" else text)
        place += len(column.categories) if column.encoding == "one-hot" else 1
    return tuple(values)
