"""Training rows of a data frame with missing cells.

Reads the frame as a build reads a Parquet file, with the keys of `data:` in deploy.yaml. The model then has a table,
and a device takes the same cells. Needs pyarrow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from device_agent.shared.protocol.table_info import Table
from knnkit.config import parse
from knnkit.config.parse import FileData
from knnkit.data import arrow_table
from knnkit.data.columns import Wanted
from knnkit.data.dataset import Dataset
from knnkit.errors import ConfigError, DataError
from knnkit.training.table import policy_of, prepare_of

_SOURCE = "the data frame"
_KEYS = ("categories", "drop", "features", "missing", "unknown_category")


def read(frame: Any, labels: Any, keys: Mapping[str, Any]) -> tuple[Dataset, Table | None]:
    """Returns the rows of a pandas or polars frame as numbers, and the table that computes them from cells.

    Args:
        frame: the rows; an index of pandas is not used.
        labels: the name of a column, or (n,) labels.
        keys: `missing`, `categories`, `unknown_category`, `drop`, `features`, as in deploy.yaml.

    Raises:
        DataError: a key, column or cell is invalid, or there are no labels.
        MissingDependency: pyarrow is not installed.
    """
    if labels is None:
        raise DataError("a frame with data= has no labels", hint="labels='COLUMN', or an array of labels")
    if not isinstance(labels, str) and np.ndim(labels) != 1:
        raise DataError("with data=, labels are one column", hint="labels='COLUMN', or an array of one dimension")
    data, table = _checked(keys), arrow_table.of_frame(frame, _SOURCE)
    name = labels if isinstance(labels, str) else "label"
    if not isinstance(labels, str):
        name = next(each for each in ("label", "_label", "__label") if each not in table.column_names)
        table = arrow_table.with_column(table, name, labels, _SOURCE)
    wanted = Wanted(name, data.features, policy=policy_of(data))
    found = arrow_table.load(table.schema, table.select, _SOURCE, wanted)
    ready = prepare_of(data, found, found, None)
    return ready.training, ready.table


def _checked(keys: Mapping[str, Any]) -> FileData:
    strange = next((key for key in keys if key not in _KEYS), None)
    if strange is not None:
        raise DataError(f"data has no key {strange!r}", hint=f"one of {', '.join(_KEYS)}")
    text = json.dumps({"model": {"name": "model", "data": {"file": "frame.parquet", **keys}}})
    try:
        found = parse.parse(text, source="data").builds()[0].model.data
    except ConfigError as error:
        raise DataError(str(error), hint=error.hint) from None
    assert isinstance(found, FileData)
    return found
