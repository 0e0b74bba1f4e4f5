"""Reader of labelled rows from Arrow tables.

Columns of numbers and booleans are features. A column of lists (embeddings) becomes a feature for each element:
`vector_0`, `vector_1`, ... Text is read as categories if the policy lists the column. Never fills a cell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.arguments import shown
from device_agent.shared.tabular.csv_dialect import is_number
from knnkit.data import precision
from knnkit.data.bad_cells import EMPTY, FRAME, TEXT, BadCells
from knnkit.data.columns import Wanted, choose, find
from knnkit.data.dataset import Dataset, label_array, note_bad_numbers, require_distinct
from knnkit.data.policy import Learner, Policy, matching, sorted_levels
from knnkit.errors import DataError, needs

#: Part of the name of a column's type that Arrow does not have -> code that converts the column.
_WAYS = {
    "sparse": "frame[{0}] = frame[{0}].sparse.to_dense()",
    "complex": "frame[{0}] = numpy.real(frame[{0}])",
    "int128": "frame = frame.with_columns(polars.col({0}).cast(polars.Float64))",
}


def load(schema: Any, read: Callable[[list[str]], Any], source: Path | str, wanted: Wanted) -> Dataset:
    """Returns the labelled rows of an Arrow table.

    Args:
        schema: pyarrow schema of the table.
        read: reads the named columns, and returns them as a pyarrow table.
        source: name of the table in messages.
        wanted: which columns to read, and how.

    Raises:
        DataError: a column is missing, or a cell cannot be read.
    """
    header, file = list(schema.names), Path(source)
    require_distinct(header, str(source))
    features, policy = wanted.features, wanted.policy
    bases = None if features is None else list(dict.fromkeys(_base(name, header) for name in features))
    lists = [name for name in header if _is_list(schema.field(name).type)]
    at, chosen = choose(header, replace(wanted, features=bases), file, lists)
    if wrong := [name for name in policy.targets if name in lists]:
        hint = "a column of numbers for each element; `target` then lists these columns"
        raise DataError(f"{source}: the target {wrong[0]!r} is a column of lists", hint=hint)
    chosen += at if policy.targets else []
    more = [find(header, name, file, key) for key, name in wanted.texts.items() if name is not None]
    table = read([header[column] for column in sorted({*chosen, *at, *more})])
    if not table.num_rows:
        raise DataError(f"{source}: there are no rows", hint="a table with labelled rows")
    names = [header[column] for column in chosen]
    if isinstance(policy.categories, str):
        policy = policy.with_text([name for name in names if _is_text(schema.field(name).type)])
    columns = [] if policy.targets else [(header[place], table.column(header[place])) for place in at]
    for name, labels in columns:
        if labels.null_count:
            said = f"{source}, row {labels.is_null().to_pylist().index(True)}: the label ({name!r}) is empty"
            raise DataError(said, hint="leave rows without a label out")
    reader = _Table(table, str(source), policy)
    found = reader.read(names)
    if features is not None and any(_base(name, header) != name for name in features):
        found = _pick(found, [*features, *policy.targets], file)
    first, *further = [label_array(_values(labels), str(source)) for _, labels in columns] or [np.zeros(len(table))]
    beside, ids = (None if name is None else _texts(table.column(name)) for name in wanted.texts.values())
    keep = wanted.wide or not policy.is_plain  # a table is applied to float64 rows
    return Dataset(
        found.rows if keep else precision.float32_if_enough(found.rows),
        first,
        found.names,
        str(source),
        beside,
        ids,
        levels=found.levels or None,
        missing_words=frozenset(reader.met),
        more_labels=tuple(further),
    )


def of_frame(frame: Any, why: str) -> Any:
    """Converts a data frame of pandas (without its index) or polars, or an Arrow table, to a pyarrow table.

    `why` names the argument that needs a frame, for the message about rows of another type.

    Raises:
        DataError: the frame cannot be converted.
        MissingDependency: pyarrow is not installed.
    """
    with needs("reading a data frame needs pyarrow"):
        import pyarrow
    kind = type(frame)
    if isinstance(frame, pyarrow.Table):
        return frame
    if hasattr(kind, "collect") or not (hasattr(kind, "columns") or isinstance(frame, pyarrow.RecordBatch)):
        hint = "rows.collect()" if hasattr(kind, "collect") else "a pandas or polars frame, or an Arrow table"
        raise DataError(f"{why} is for a data frame, and rows are {shown(frame)}", hint=hint)
    try:
        if isinstance(frame, pyarrow.RecordBatch):
            return pyarrow.Table.from_batches([frame])
        return frame.to_arrow() if hasattr(kind, "to_arrow") else pyarrow.Table.from_pandas(frame, preserve_index=False)
    except (pyarrow.ArrowException, AttributeError, TypeError, ValueError, OverflowError) as error:
        for name, kind in zip(frame.columns, getattr(frame, "dtypes", ())):
            if way := next((way for word, way in _WAYS.items() if word in str(kind).lower()), ""):
                said = f"{FRAME} cannot be read: column {name!r} is of type {kind}"
                raise DataError(said, hint=way.format(repr(name))) from None
        if found := re.search(r"for column (.*) with type", str(error)):  # Arrow's words
            said = f"{FRAME} cannot be read: column {found[1]!r} holds values of several types"
            raise DataError(said, hint=f"frame[{found[1]!r}] = frame[{found[1]!r}].astype(str)") from None
        hint = "give a pandas or polars frame with one type of value in each column"
        raise DataError(f"{FRAME} cannot be read: {error}", hint=hint) from None


def with_zeros(table: Any, name: str) -> Any:
    """Returns a pyarrow table with one more column, `name`, of zeros."""
    import pyarrow

    return table.append_column(name, [pyarrow.array(np.zeros(table.num_rows, np.int64))])


def load_frame(table: Any, wanted: Wanted) -> Dataset:
    """Returns the rows of a pyarrow table that was a data frame; DataError for a missing column or a bad cell."""
    import pyarrow

    try:
        return load(table.schema, table.select, FRAME, wanted)
    except pyarrow.ArrowException as error:
        raise DataError(f"{FRAME} cannot be read: {error}", hint="columns of numbers, text or truth values") from None


@dataclass(frozen=True)
class _Read:
    rows: NDArray[np.float64]
    names: tuple[str, ...]
    levels: dict[int, tuple[str, ...]]


class _Table:
    """Reads the columns of an Arrow table; `met` collects the words for missing cells that were found."""

    def __init__(self, table: Any, source: str, policy: Policy) -> None:
        self._table, self._source, self._policy, self.met = table, source, policy, set[str]()
        self._bad = BadCells(source, "row", targets=policy.targets, given=vars(policy))
        self._bad.rows = table.num_rows

    def read(self, columns: Sequence[str]) -> _Read:
        parts = {name: self._column(place, name) for place, name in enumerate(columns)}
        names, self._bad.features = tuple(name for part, _, _ in parts.values() for name in part), len(columns)
        require_distinct(names, "the features")
        rows = np.column_stack([values for _, values, _ in parts.values()]).astype(np.float64, copy=False)
        noted = self._bad.columns()
        done = [part for name, (part, _, texts) in parts.items() if texts is not None or name in noted]
        skip = {names.index(name) for part in done for name in part}
        note_bad_numbers(rows, names, self._policy, self._bad, skip)
        if self._bad:
            raise self._bad.error()
        found = {names.index(name): texts for name, (_, _, texts) in parts.items() if texts is not None}
        return _Read(rows, names, sorted_levels(rows, found, self._policy, names))

    def _column(self, place: int, name: str) -> tuple[list[str], NDArray[Any], tuple[str, ...] | None]:
        """Returns features of column number `place`: names, (n,) or (n, width) values, categories (None: numbers)."""
        import pyarrow
        import pyarrow.compute

        column = self._table.column(name).combine_chunks()
        if isinstance(column, pyarrow.ChunkedArray):  # without rows
            column = pyarrow.array([], column.type)
        kind = column.type
        if pyarrow.types.is_dictionary(kind):
            column = column.dictionary_decode()
        elif pyarrow.types.is_run_end_encoded(kind):
            column = pyarrow.compute.run_end_decode(column)
        kind = column.type
        if self._policy.categories_of(name) is not None:
            return [name], *self._categories(place, name, column)
        if pyarrow.types.is_null(kind):
            column, kind = column.cast(pyarrow.float64()), pyarrow.float64()
        if _is_list(kind):
            values = self._lists(place, name, column)
            return [f"{name}_{index}" for index in range(values.shape[1])], values, None
        if not (_is_number(kind) or pyarrow.types.is_boolean(kind)):
            return [name], self._text(place, name, column), None
        if kind.bit_width == 1:
            column = column.cast(pyarrow.uint8())
        values = column.cast(pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False)
        return [name], values, None

    def _categories(self, place: int, name: str, column: Any) -> tuple[NDArray[Any], tuple[str, ...]]:
        from pyarrow import types

        if types.is_decimal(column.type) or types.is_temporal(column.type):  # each library writes them otherwise
            said = f"{self._source}: column {name!r} is of type {column.type}, which cannot be categories"
            raise DataError(said, hint=f"store text: frame[{name!r}] = frame[{name!r}].astype(str)")
        learner = Learner(self._policy, [name], self._bad)
        codes = []
        for row, value in enumerate(_values(column)):
            learner.place = row
            text = "" if value is None else str(value).strip()
            codes.append(learner.missing(0, text) if learner.is_missing(0, text) else learner.category(0, text))
        self.met |= learner.met
        return np.array(codes), learner.levels()[0]

    def _text(self, place: int, name: str, column: Any) -> NDArray[Any]:
        """Records every cell of text column number `place` as a bad cell; returns (n,) zeros."""
        values = column.to_pylist()
        numbers = _is_text(column.type) and all(value is None or is_number(str(value), ",") for value in values)
        hint = f"store numbers: frame[{name!r}] = pandas.to_numeric(frame[{name!r}])" if numbers else ""
        for row, value in enumerate(values):
            if value is None:
                self._bad.add(row, place, name, EMPTY, "the cell is empty")
            else:
                text = _is_text(column.type) and is_number(str(value), ",")
                said = f"{str(value)[:40]!r} is {'text' if text else 'not a number'}"
                self._bad.add(row, place, name, TEXT, said, str(value), hint)
        return np.zeros(len(column))

    def _lists(self, place: int, name: str, column: Any) -> NDArray[Any]:
        """Returns (n, width) numbers of column number `place`, whose lists have `width` each; a missing list is NaN."""
        import pyarrow.compute

        while _is_list(column.type) and _is_list(column.type.value_type):
            lists = column.to_pylist()
            rows = [value and [x for part in value for x in ([None] if part is None else part)] for value in lists]
            column = pyarrow.array(rows)
        lengths = pyarrow.compute.list_value_length(column).to_pylist()
        width = next((length for length in lengths if length is not None), 0)
        values = np.full((len(column), width), np.nan)
        for row, (value, length) in enumerate(zip(column.to_pylist(), lengths)):
            if length is None:
                continue
            said = f"a list of {length} numbers; the others have {width}"
            try:
                values[row] = value if length == width else said
            except (TypeError, ValueError):
                said = said if length != width else "a list that holds something else than numbers"
                self._bad.add(row, place, name, TEXT, said, said)
        return values


def _base(name: str, header: Sequence[str]) -> str:
    """Returns the list column in `header` that has the element `name`: `vector` for `vector_12`; else `name` itself."""
    base, _, place = name.rpartition("_")
    return base if name not in header and place.isdigit() and base in header else name


def _pick(found: _Read, features: Sequence[str], file: Path) -> _Read:
    """Returns the columns in `found` in the order of `features`, which may name elements of list columns."""
    names = list(found.names)
    parts = {name: [each for each in names if each.rpartition("_")[0] == name] for name in features}
    wanted = [each for name in features for each in matching(name, names) or parts[name] or [name]]
    chosen = [find(names, name, file, "features") for name in dict.fromkeys(wanted)]
    levels = {at: found.levels[place] for at, place in enumerate(chosen) if place in found.levels}
    return _Read(found.rows[:, chosen], tuple(names[place] for place in chosen), levels)


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_number(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    inner = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(inner) or types.is_large_string(inner))


def _texts(column: Any) -> NDArray[Any]:
    """Returns the (n,) cells of a column as text; an empty cell becomes ""."""
    return np.array(["" if cell is None else str(cell) for cell in _values(column)])


def _values(column: Any) -> list[Any]:
    """Returns the cells of a column as Python values; 0.1 in float32 becomes 0.1, not 0.10000000149011612."""
    narrow = {"float": np.float32, "halffloat": np.float16}.get(str(column.type))
    values: list[Any] = column.to_pylist()
    return values if narrow is None else [cell if cell is None else float(str(narrow(cell))) for cell in values]
