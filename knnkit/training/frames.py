"""Training rows of a data frame with missing cells.

Reads the frame as a build reads a Parquet file, with the keys of `data:` in deploy.yaml. The model then holds a
table of the rules, and a device takes the same cells. Needs pyarrow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from device_agent.shared.arguments import shown
from device_agent.shared.protocol.table_info import Table
from device_agent.shared.queries import as_array
from knnkit.config import parse
from knnkit.config.parse import FileData
from knnkit.data import arrow_table, targets
from knnkit.data.bad_cells import FRAME, in_data
from knnkit.data.columns import Wanted
from knnkit.data.dataset import Dataset
from knnkit.errors import ConfigError, DataError
from knnkit.training.table import policy_of, prepare_of

_KEYS = ("categories", "drop", "features", "missing", "unknown_category")


def read(frame: Any, labels: Any, keys: Mapping[str, Any]) -> tuple[Dataset, Table | None]:
    """Returns the rows of a pandas or polars frame as numbers, and the table that computes them from cells.

    The table is None if `keys` has no rule about cells: the cells then are the numbers.

    Args:
        frame: a data frame of pandas (its index is not used) or polars, or an Arrow table.
        labels: the name of a column, or (n,) labels.
        keys: `missing`, `categories`, `unknown_category`, `drop`, `features`, as in deploy.yaml.

    Raises:
        DataError: a key, column or cell is invalid, or there are no labels.
        MissingDependency: pyarrow is not installed.
    """
    if labels is None:
        raise DataError("a frame with data= has no labels", hint="labels='COLUMN', or an array of labels")
    data = _checked(keys)
    table = arrow_table.of_frame(frame, f"labels={labels!r}" if isinstance(labels, str) else "data=")
    name = labels if isinstance(labels, str) else "label"
    while not isinstance(labels, str) and name in table.column_names:
        name = f"_{name}"
    table = table if isinstance(labels, str) else arrow_table.with_zeros(table, name)
    found = arrow_table.load_frame(table, Wanted(name, data.features, policy=policy_of(data)))
    found = targets.labelled(found, table.column(name).to_pylist() if isinstance(labels, str) else labels)
    if found.targets is not None:
        raise DataError("with data=, labels are one column", hint="labels='COLUMN', or an array of one dimension")
    ready = prepare_of(data, found, found, None)
    return ready.training, ready.table


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
