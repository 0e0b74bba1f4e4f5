"""Reader of rows without labels, as a device reads them.

CSV (columns by name, others ignored), JSON lines or NPY. Every error names the file, and the line of CSV or JSON lines.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.file_hints import with_file
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.table_info import Table
from device_agent.shared.tabular.csv_reader import CsvParser
from device_agent.shared.tabular.inputs import open_source
from device_agent.shared.tabular.json_reader import JsonParser
from device_agent.shared.tabular.reader import Parser
from knnkit.data.dataset import Dataset
from knnkit.errors import DataError

_SAVE = "in Python, numpy.save('rows.npy', numpy.ascontiguousarray(rows)) saves (rows, features) again"


def load(path: Path, like: Dataset, table: Table | None = None) -> NDArray[Any]:
    """Reads (n, n_features) rows with the features and dtype of `like`; `table` computes them from cells, if not None.

    Raises:
        DataError: the file is missing, empty, or has a bad line.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a file", hint="name one file of rows")
    if not path.is_file():
        raise DataError(f"{path}: no such file", hint="paths are relative to the current folder")
    try:
        parts = _read(path, like, table)
    except BadInput as error:
        said = str(error).removeprefix(f"{path}: ")  # errors of an NPY file name it
        mend = "correct this line, or leave it out" if said.startswith("line ") else _SAVE
        raise DataError(f"{path}: {said}", hint=with_file(error.hint, path) or mend) from None
    with np.errstate(over="ignore"):  # a number beyond float32 is named below
        rows = np.concatenate(parts).astype(like.rows.dtype) if parts else like.rows[:0]
    if not len(rows):
        raise DataError(f"{path}: it has no rows", hint="give CSV with a header, JSON lines, or NPY")
    if len(wrong := np.flatnonzero(~np.isfinite(rows).all(axis=1))):
        said = f"{path}: row {wrong[0]}: a value is not a finite number, or beyond the range of {rows.dtype}"
        raise DataError(said, hint="correct this row, or leave it out")
    return rows


def _read(path: Path, like: Dataset, table: Table | None) -> list[NDArray[Any]]:
    source = open_source(str(path), "auto")
    try:
        if source.format == "npy" and table is None:
            return list(source.arrays(len(like.feature_names)))
        parser = _parser(source.format, like, table)
        parts = []
        for parsed in map(parser.parse, source.blocks()):
            if parsed.errors:
                number, message = next(iter(parsed.errors.values()))
                raise BadInput(f"line {number}: {message}", hint=parsed.hint)
            if len(parsed.rows):
                parts.append(parsed.rows)
        return parts
    finally:
        os.close(source.descriptor)


def _parser(format: str, like: Dataset, table: Table | None) -> Parser:
    """Returns a device's parser of rows in this format; they get the features and dtype of `like`.

    A `table` computes the features from raw cells, which NPY cannot hold: BadInput.
    """
    if format == "npy":
        raise BadInput("an NPY file holds numbers, and this model takes cells", hint="CSV with a header, or JSON lines")
    if table is None:
        plain = CsvParser if format == "csv" else JsonParser
        return plain(like.feature_names, like.rows.dtype.type, ignore_extra=True)
    from device_agent.shared.features.parsers import TableCsvParser, TableJsonParser

    return (TableCsvParser if format == "csv" else TableJsonParser)(table, like.rows.dtype.type, ignore_extra=True)
