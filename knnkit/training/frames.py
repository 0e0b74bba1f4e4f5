"""Fits a classifier on a frame with missing cells.

Reads the frame as a build reads a Parquet file, with the keys of `data:` in deploy.yaml. The model then has a table,
and a device takes the same cells. Needs pyarrow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from knnkit.config import parse
from knnkit.config.parse import FileData
from knnkit.data import arrow_table
from knnkit.errors import ConfigError, DataError
from knnkit.model.reference.enrolment import enrol
from knnkit.model.reference.spec import KnnSpec
from knnkit.model.scaling import fit_scaler
from knnkit.training.fitted import Fitted
from knnkit.training.table import policy_of, prepare_of

_SOURCE = "the data frame"
_KEYS = ("categories", "drop", "features", "missing", "unknown_category")


def fit(frame: Any, labels: Any, targets: Any, keys: Mapping[str, Any], spec: KnnSpec) -> Fitted:
    """Returns the classifier over the rows of a pandas or polars frame.

    Args:
        frame: the rows; an index is not a column.
        labels: the name of a column, or (n,) labels.
        targets: None; a frame with `data` answers labels.
        keys: `missing`, `categories`, `unknown_category`, `drop`, `features`, as in deploy.yaml.
        spec: k, metric, weights, scale.

    Raises:
        DataError: a key, column or cell is invalid.
        MissingDependency: pyarrow is not installed.
    """
    if labels is None or targets is not None:
        raise DataError("`data` goes with one column of labels", hint="labels='species', or leave data= out")
    data, table = _checked(keys), arrow_table.of_frame(frame, _SOURCE)
    name = labels if isinstance(labels, str) else "label"
    if not isinstance(labels, str):
        name = next(each for each in ("label", "_label", "__label") if each not in table.column_names)
        table = arrow_table.with_column(table, name, labels, _SOURCE)
    policy = policy_of(data)
    found = arrow_table.load(table.schema, table.select, _SOURCE, name, data.features, None, policy)
    ready = prepare_of(data, found, found, None)
    rows, own = ready.training, (spec.p, spec.outlier_label)
    return Fitted(spec, enrol(rows, fit_scaler(rows.rows, spec.scale), spec.metric, *own), table=ready.table)


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
