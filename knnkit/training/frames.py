"""Training rows of an array or a data frame.

Reads a frame with missing cells or text as a build reads a Parquet file, with the keys of `data:` in deploy.yaml. The
model then holds a table of the rules, and a device takes the same cells. A frame with such rules needs pyarrow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from device_agent.shared.arguments import shown
from device_agent.shared.protocol.table_info import Table
from device_agent.shared.queries import as_array, column_names
from knnkit.config import parse
from knnkit.config.parse import FileData
from knnkit.data import arrow_table, targets
from knnkit.data.bad_cells import FRAME, in_data
from knnkit.data.columns import Wanted
from knnkit.data.dataset import Dataset, require_distinct
from knnkit.data.targets import of_arrays
from knnkit.errors import ConfigError, DataError
from knnkit.training.table import policy_of, prepare_of

_KEYS = ("categories", "drop", "features", "missing", "unknown_category")


def read(
    rows: Any, labels: Any, targets: Any, keys: Mapping[str, Any] | None, names: Sequence[str] | None
) -> tuple[Dataset, Table | None]:
    """Returns training rows with labels or targets, and the table that computes them from the cells of a data frame.

    The table is None if `keys` has no rule about cells: the cells then are the numbers.

    Args:
        rows: an array or a data frame; with `keys`, or an answer that is a column, a data frame of pandas (its index is
            not used) or polars, or an Arrow table.
        labels: (n,) or (n, t) labels, or the name of a column; None: none.
        targets: (n,) or (n, t) numbers, or the name or a list of names of columns; None: none.
        keys: `missing`, `categories`, `unknown_category`, `drop`, `features`, as in deploy.yaml; None: plain numbers.
        names: names of the features of an array; None: those of a frame, or default names.

    Raises:
        DataError: a key, column or cell cannot be read, or shapes do not match; both labels and targets are given; or
            `keys` without either.
        MissingDependency: pyarrow is not installed.
    """
    if labels is not None and targets is not None:
        raise DataError("give labels or targets, not both", hint="TfKNN(rows, targets=targets) for a regression")
    word, answers = ("labels", labels) if targets is None else ("targets", targets)
    several = isinstance(targets, list | tuple) and all(isinstance(name, str) for name in targets)
    columns = (answers,) if isinstance(answers, str) else tuple(targets) if several else ()
    if keys is None and not columns:
        return of_arrays(rows, labels, targets, column_names(rows) if names is None else names), None
    if names is not None:
        hint = "rename the columns of the frame, or give an array of labels, without data="
        raise DataError(
            "feature_names does not go with data=, or with labels= or targets= that name columns", hint=hint
        )
    if answers is None:
        hint = "labels='COLUMN', or an array of labels; targets= for a regression"
        raise DataError("a frame with data= has no labels", hint=hint)
    data = _checked({} if keys is None else keys)
    column = repr(answers) if isinstance(answers, str) else f"[{columns[0]!r}, ...]" if columns else ""
    table = arrow_table.of_frame(rows, f"{word}={column}" if columns else "data=")
    found = _with_targets(table, targets, columns, data) if labels is None else _with_labels(table, labels, data)
    ready = prepare_of(data, found, found, None)
    return ready.training, ready.table


def _with_targets(table: Any, values: Any, columns: tuple[str, ...], data: FileData) -> Dataset:
    """Returns the rows of an Arrow table; their targets are its `columns`, or the `values` if no columns are named."""
    if not columns:
        return targets.with_targets(_beside(table, data), values)
    require_distinct(columns, "the targets")
    policy = policy_of(data).for_answers(columns, are_labels=False)

    def reader(label: str, features: Sequence[str] | None) -> Dataset:
        return arrow_table.load_frame(table, Wanted(label, features, policy=policy, wide=True))

    return targets.read(reader, columns, data.features, narrow=policy.is_plain)


def _with_labels(table: Any, labels: Any, data: FileData) -> Dataset:
    """Returns the rows of an Arrow table with its column `labels`, or (n,) `labels`."""
    if isinstance(labels, str):
        found = arrow_table.load_frame(table, Wanted(labels, data.features, policy=policy_of(data)))
        labels = table.column(labels).to_pylist()
    else:
        found = _beside(table, data)
    found = targets.labelled(found, labels)
    if found.targets is not None:
        raise DataError("with data=, labels are one column", hint="labels='COLUMN', or an array of one dimension")
    return found


def _beside(table: Any, data: FileData) -> Dataset:
    """Returns the rows of an Arrow table without answers: every column may be a feature."""
    name = "label"
    while name in table.column_names:
        name = f"_{name}"
    wanted = Wanted(name, data.features, policy=policy_of(data))
    return arrow_table.load_frame(arrow_table.with_zeros(table, name), wanted)


def _checked(keys: Mapping[str, Any]) -> FileData:
    if not isinstance(keys, Mapping):
        raise DataError(f"data is {shown(keys)}; it is a dictionary of keys", hint=in_data(FRAME, "missing: median"))
    strange = next((key for key in keys if key not in _KEYS), None)
    if strange is not None:
        raise DataError(f"data has no key {strange!r}", hint=f"one of {', '.join(_KEYS)}")
    try:
        given = json.dumps(dict(keys), default=lambda value: as_array(value).tolist())
        found = parse.parse(f'{{"model": {{"name": "model", "data": {{"file": "frame", {given[1:]}}}}}', source="data")
    except ConfigError as error:
        said = "; ".join(re.findall(r"^.*model\.data\.(.*)$", str(error), re.MULTILINE))
        hint = in_data(FRAME, error.hint) if re.match(r"\w+: ", error.hint) else error.hint  # a key in YAML
        raise DataError(f"data: {said or str(error)}", hint=hint) from None
    except (TypeError, ValueError, RecursionError):
        said = "data has a value that is not text, a number, a list or a dictionary"
        raise DataError(said, hint=in_data(FRAME, "missing: median")) from None
    data = found.builds()[0].model.data
    assert isinstance(data, FileData)
    return data
