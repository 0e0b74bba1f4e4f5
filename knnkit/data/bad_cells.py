"""Collects the cells of a file that cannot be read.

One error names all bad cells: the first ten by line and column, and the number of each kind in each column. Its hint
is what to write into deploy.yaml. Reads no file.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from device_agent.shared.file_hints import cleaned, with_file
from device_agent.shared.protocol.constants import counted
from device_agent.shared.tabular.csv_dialect import short
from device_agent.shared.tabular.csv_reader import DECIMAL_COMMA
from device_agent.shared.tabular.units import WITHOUT_FORMULAS, is_formula, unit_of, without_units
from knnkit.errors import DataError

#: Kinds of bad cells, as they are counted.
EMPTY, TEXT, NOT_FINITE = "empty", "not numbers", "not finite"
#: Kinds of bad lines.
SHAPE, NO_LABEL = "lines with another number of cells", "lines without a label"
#: The kinds in the singular.
_ONE = {TEXT: "not a number", SHAPE: "line with another number of cells", NO_LABEL: "line without a label"}
#: Most lines that a command leaves out of a file, and its longest list of them.
_MAX_CUT, _LONGEST = 1000, 600
_SHOWN = 10
#: A column of at most _FEW different texts, each on average in _SEVERAL rows, may be categories.
_FEW, _SEVERAL = 12, 3
#: A text with so many digits is a time or a number of something.
DIGITS = 6
#: A number that may have a decimal comma.
_WITH_COMMA = re.compile(r"\s*[+-]?\d+(,\d+)?\s*")
#: A name that needs no quotes in YAML, unless it is one of the words that YAML reads as a value.
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_WORDS = frozenset({"false", "n", "no", "null", "off", "on", "true", "y", "yes"})
#: Sources that are not files: rows that were given in Python.
FRAME = "the data frame"
IN_MEMORY = frozenset({FRAME, "arrays", "rows", "test"})
#: If more than this share of rows has no label, another column may be the label.
_UNLABELLED = 0.05
#: Last words in the names of id columns.
IDS = frozenset({"guid", "id", "idx", "index", "key", "nr", "no", "pk", "row", "rowid", "rownum", "serial", "uuid"})


#: Number of line or row, index and name of the column, message, hint, sign between thousands.
_Bad = tuple[int, int, str, str, str, str]


class BadCells:
    """The bad cells of one file.

    Args:
        source: name of the file in messages.
        unit: what the numbers in messages count: line, or row.
        hint: hint of the error; "": the hint names the keys to write into deploy.yaml.
        targets: columns that the model predicts, which can be neither dropped nor filled.
        given: the keys of `data` in deploy.yaml and their values, which the hint repeats before it adds to them.

    Attributes:
        rows: number of rows of the file, to tell a column of text from a few wrong cells.
        features: number of feature columns; 0: unknown.
        filled: column -> number of its missing cells that the policy accepts.
        advice: the argument `hint`, which a reader may replace.
        not_between: signs that cannot separate thousands: some cell of the file has the sign in another place.
        filter: command that copies the file without lines that have a wrong number of cells or no label.
    """

    def __init__(
        self,
        source: str,
        unit: str = "line",
        hint: str = "",
        targets: Sequence[str] = (),
        given: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._source, self._unit, self.advice, self.rows, self.filter = source, unit, hint, 0, ""
        self.features, self.filled = 0, Counter[str]()
        self._targets, self.not_between, self._given = targets, set[str](), given
        self._built = bool(given.get("known"))  # the model's table is there: `given` is made from it
        self._lines: dict[str, set[int]] = {}
        self._first: list[_Bad] = []
        self._counts: dict[str, Counter[str]] = {}
        self._texts: dict[str, Counter[str]] = {}

    def add(
        self, place: int, index: int, name: str, kind: str, said: str, cell: str = "", hint: str = "", sign: str = ""
    ) -> None:
        """Records a bad cell: number of its line or row (`place`), index and name of its column, and what is wrong.

        `kind` is EMPTY, TEXT or another kind to count by, `said` the message, `cell` the text of the cell, `hint` how
        to read or replace it, and `sign` what may separate its thousands.
        """
        self._counts.setdefault(name, Counter())[kind] += 1
        if kind == TEXT:
            texts = self._texts.setdefault(name, Counter())
            if cell in texts or len(texts) <= _FEW:
                texts[cell] += 1
        may_be_cut, lines = kind != EMPTY or name in self._targets or self._built, self._lines.setdefault(name, set())
        if may_be_cut and len(lines) <= _MAX_CUT:
            lines.add(place)
        if len(self._first) < _SHOWN or (place, index) < self._first[-1][:2]:
            self._first = sorted([*self._first, (place, index, name, said, hint, sign)])[:_SHOWN]

    def add_line(self, place: int, kind: str, said: str) -> None:
        """Records line number `place` with a wrong number of cells, or no label: `kind` to count by, message `said`."""
        self.add(place, -1, "", kind, said)

    def columns(self) -> set[str]:
        """Returns the names of the columns that have bad cells."""
        return set(self._counts)

    def text_columns(self) -> list[str]:
        """Returns the names of columns in which at least half of the cells that are not empty are text, not numbers."""
        there = {name: self.rows - counts[EMPTY] - self.filled[name] for name, counts in self._counts.items()}
        return [name for name, counts in self._counts.items() if 2 * counts[TEXT] >= there[name] > 0]

    @property
    def only_without_label(self) -> bool:
        """Whether nothing is wrong but lines without a label."""
        return {kind for counts in self._counts.values() for kind in counts} == {NO_LABEL}

    def __bool__(self) -> bool:
        return bool(self._counts)

    def error(self) -> DataError:
        """Returns the error that names the bad cells."""
        hint = self._hint_of(*self._first[0][-2:])
        total = sum(sum(counts.values()) for counts in self._counts.values())
        message = f"{self._source}, {self._placed(self._first[0])}"
        if total > 1:
            kinds = sum(self._counts.values(), Counter())
            what = "cells or lines" if "" in self._counts else "cells"
            message += f"\n  {total:,} {what} cannot be read ({_numbers(kinds)}):"
            by_count = sorted(self._counts.items(), key=lambda item: -sum(item[1].values()))
            for column, counts in by_count[:_SHOWN]:
                message += f"\n    {f'column {short(column)}: ' * bool(column)}{_numbers(counts)}"
            if len(by_count) > _SHOWN:
                message += f"\n    and {counted(len(by_count) - _SHOWN, 'more column')}"
            message += "\n  the first of them:"
            for each in self._first:
                message += f"\n    {self._placed(each)}"
        flags = self.advice.replace("label: in deploy.yaml", "--label on the command line")
        return DataError(
            message, hint=hint or self.advice or self._which_label() + self._hint(), flags="" if hint else flags
        )

    def _which_label(self) -> str:
        """Returns a question to put before the hint, if so many rows lack a label that it may be another column."""
        unlabelled = self._counts.get("", Counter())[NO_LABEL]
        if unlabelled <= _UNLABELLED * (self.rows + unlabelled):
            return ""
        key, names = "target" if self._targets else "label", ""
        few = [name for name in self.text_columns() if self._may_be_categories(name)]
        if few and not self._targets:
            names = f", such as {', '.join(map(quoted, few[:_SHOWN]))} (few different values)"
        return f"is it the right {key} column? If not, set `{key}` to another one{names}. If it is: "

    def _hint_of(self, hint: str, sign: str) -> str:
        if hint == DECIMAL_COMMA:
            hint = f"for a decimal comma, {hint}: {_with_semicolons(self._source)}"
        hint = with_file(hint, self._source)
        thousands = between_thousands(sign) if sign and sign not in self.not_between else ""
        return "; for thousands, ".join(filter(None, (hint, thousands)))

    def _placed(self, bad: _Bad) -> str:
        place, index, name, said, *_ = bad
        column = "" if index < 0 else f", column {short(name)}"
        return f"{self._unit} {place}{column}: {said}"

    def _hint(self) -> str:
        """Returns the hint of the error: keys for `data:` with flags of `knnkit init`, or which cells to correct."""
        drop: list[str] = []
        categories: list[str] = []
        units = {name: unit for name in self._texts if (unit := self._unit_of(name))}
        if units:
            return self._without_units(units)
        if formulas := [name for name, texts in self._texts.items() if all(map(is_formula, texts))]:
            said = f"{', '.join(map(short, formulas[:_SHOWN]))}: leave the number of each formula"
            return said + self._by(WITHOUT_FORMULAS)
        if self._source in IN_MEMORY and (named := [name for name in self._texts if self._has_commas(name)]):
            how = "pandas.read_csv(FILE, decimal=',', na_values=['-']) reads them" if self._source == FRAME else ""
            return f"write decimal points in {', '.join(map(short, named))}" + f"; {how}" * bool(how)
        if self._built:
            return self._correct(list(self._counts))
        for name in self.text_columns():
            if name in self._targets:
                key = "labels={!r} instead of targets=" if self._source in IN_MEMORY else "label: {} instead of target:"
                return f"{key.format(name if self._source in IN_MEMORY else quoted(name))} for classes"
            (categories if self._may_be_categories(name) else drop).append(name)
        if drop and len(drop) == self.features:
            return f"no feature would be left without {as_yaml(drop)}: add columns of numbers, or write them as numbers"
        others = [name for name in self._counts if name not in (*drop, *categories)]
        filled = [name for name in (*others, *categories) if name not in self._targets]
        wrong = [
            name for name in others if name not in filled or self._counts[name].total() > self._counts[name][EMPTY]
        ]
        keys, flags = [], []
        if drop:
            key, flag = self._to_drop(drop)
            keys.append(key)
            flags.append(flag)
        if categories:
            encodings = {**self._map("categories"), **dict.fromkeys(categories, "one-hot")}
            keys.append(f"categories: {as_map(encodings)}")
            flags.append(f"--categories {shlex.join(encodings)}")
        if empty := [name for name in filled if self._counts[name][EMPTY]]:
            words = self._map("missing")
            keys.append(f"missing: {as_map(words | dict.fromkeys(empty, 'median')) if words else 'median'}")
            flags.append("--missing median")
        said = in_data(self._source, ", ".join(keys), " ".join(flags)) if keys else ""
        if wrong:
            found = self._correct(wrong)
            if said:
                return f"{said}; {found}"
            named = [name for name in wrong if name in filled and name]
            also = in_data(self._source, *self._to_drop(named))
            return f"{found}, or leave out the column: {also}" if named == wrong else found
        return said

    def _to_drop(self, names: Sequence[str]) -> tuple[str, str]:
        """Returns the line `drop:` for deploy.yaml, its present columns and `names`, and the same for `knnkit init`."""
        whole = [*self._given.get("drop", ()), *names]
        return f"drop: {as_yaml(whole)}", f"--drop {shlex.join(whole)}"

    def _map(self, key: str) -> dict[str, Any]:
        """Returns column -> value of `missing` or `categories` (`key`) in deploy.yaml; {} for one word, or none."""
        return {} if isinstance(given := self._given.get(key, ""), str) else {**given}

    def _unit_of(self, name: str) -> str:
        """Returns the unit that all texts of a column have after a number, such as `km`; "" if they have none."""
        units = set(map(unit_of, self._texts[name]))
        return units.pop() if len(units) == 1 else ""

    def _without_units(self, units: Mapping[str, str]) -> str:
        listed = ", ".join(f"{unit!r} in column {short(name)}" for name, unit in list(units.items())[:_SHOWN])
        return f"the numbers have a unit: {listed}; remove it{self._by(without_units(units.values()))}"

    def _by(self, command: str) -> str:
        """Returns `: command FILE > COPY` for a text file, the end of a hint; else ""."""
        is_text = Path(self._source).suffix.lower() in (".csv", ".tsv", ".txt")
        return f": {command} {shlex.quote(self._source)} > {cleaned(self._source)}" if is_text else ""

    def _correct(self, names: Sequence[str]) -> str:
        """Returns a hint to correct cells of the columns `names` ("": whole lines), or to remove their lines."""
        cells = ", ".join(short(name) for name in names if name)
        found = f"correct {f'the cells of {cells}' if cells else 'the lines'}"
        lines = sorted(set[int]().union(*(self._lines[name] for name in names)))
        command = without_lines(self._source, lines) if len(lines) <= _MAX_CUT else ""
        command = command or ("" if cells else self.filter)
        if self._source == FRAME and all(self._counts[name].total() == self._counts[name][EMPTY] for name in names):
            command = f"frame.dropna(subset={names}), in polars frame.drop_nulls({names})"
        them = f"leave out their {self._unit}s" if cells else "leave them out"
        return f"{found}, or {them}: {command}" if command else found

    def _has_commas(self, name: str) -> bool:
        texts = self._texts[name]
        return any("," in text for text in texts) and all(map(_WITH_COMMA.fullmatch, texts))

    def _may_be_categories(self, name: str) -> bool:
        texts = self._texts.get(name, Counter())
        if any(sum(map(str.isdigit, text)) >= DIGITS for text in texts):
            return False
        return len(texts) <= _FEW and sum(texts.values()) >= _SEVERAL * len(texts) and not is_id(name)


def in_data(source: object, keys: str, flags: str = "") -> str:
    """Returns the hint to set `keys` (YAML): in deploy.yaml or by `flags` of `knnkit init`, or as `data=` in Python.

    The hint is `data=` if `source`, the name of the rows in messages, is in `IN_MEMORY`.
    """
    if str(source) in IN_MEMORY:
        return f"data={yaml.safe_load(f'{{{keys}}}')}"
    return f"{keys} in `data:` of deploy.yaml" + (f" (knnkit init: {flags})" if flags else "")


def between_thousands(sign: str) -> str:
    """Returns the hint to set `thousands` to this sign."""
    return f'thousands: "{sign}" in `data:` of deploy.yaml (knnkit init: --thousands {shlex.quote(sign)})'


def _with_semicolons(source: str) -> str:
    """Returns a command that copies a file with semicolons in place of the commas between its columns."""
    clean = shlex.split(cleaned(source))[0]
    code = f"import csv; r = csv.reader(open({source!r}, newline='', encoding='utf-8-sig'), skipinitialspace=True); "
    code += f"csv.writer(open({clean!r}, 'w', newline='', encoding='utf-8'), delimiter=';').writerows(r)"
    return f"python -c {shlex.quote(code)}"


def without_lines(source: str, places: Sequence[int]) -> str:
    """Returns a command that copies a CSV or Parquet file without the lines or rows `places`.

    "" for other files, or if the command would be too long.
    """
    suffix, script = Path(source).suffix.lower(), ";".join(f"{part}d" for part in _ranges(places))
    if len(script) > _LONGEST or suffix not in (".csv", ".tsv", ".txt", ".parquet"):
        return ""
    if suffix != ".parquet":
        return f"sed '{script}' {shlex.quote(source)} > {cleaned(source)}"
    kept = f"[i for i in range(len(t)) if i not in {[*places]}]"
    code = f"import pyarrow.parquet as p; t = p.read_table({source!r}); p.write_table(t.take({kept}), "
    return f"python -c {shlex.quote(code + repr(Path(source).stem + '-clean.parquet') + ')')}"


def _ranges(places: Sequence[int]) -> Iterator[str]:
    """Yields the ranges of consecutive numbers in sed's syntax: `3`, or `3,7` for 3 to 7."""
    for _, run in itertools.groupby(enumerate(places), lambda pair: pair[1] - pair[0]):
        first, *rest = (place for _, place in run)
        yield f"{first},{rest[-1]}" if rest else str(first)


def _numbers(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {_ONE.get(kind, kind) if count == 1 else kind}" for kind, count in counts.items())


def is_id(name: str) -> bool:
    """Whether the name of a column suggests an id: its last word is in `IDS`."""
    words = re.findall(r"[a-z]+|[A-Z]+(?![a-z])|[A-Z][a-z]+", name)
    return bool(words) and words[-1].casefold() in IDS


def quoted(name: str) -> str:
    """Returns a column name in YAML syntax, in quotes if it needs them."""
    return name if _BARE.fullmatch(name) and name.casefold() not in _WORDS else "'" + name.replace("'", "''") + "'"


def as_yaml(names: Sequence[str]) -> str:
    """Returns column names as a YAML list."""
    return f"[{', '.join(map(quoted, names))}]"


def as_map(words: Mapping[str, Any]) -> str:
    """Returns column names and what is set for each (a word, a number, or a list of categories) as a YAML mapping."""
    values = (
        as_yaml(each) if isinstance(each, list | tuple) else quoted(each) if isinstance(each, str) else each
        for each in words.values()
    )
    return f"{{{', '.join(f'{quoted(name)}: {value}' for name, value in zip(words, values))}}}"
