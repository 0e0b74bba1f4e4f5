"""A cell means the same in training and on a device: missing cells and categories, in CSV, JSON and Parquet."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from device_agent.shared.features.coder import Coder
from device_agent.shared.features.parsers import TableCsvParser, TableJsonParser, read_array
from device_agent.shared.features.transforms import make
from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.protocol.record import replace
from device_agent.shared.protocol.table_info import Column, Table
from knnkit.data.columns import Wanted
from knnkit.data.files import load, load_all
from knnkit.data.policy import MISSING_WORDS, Policy
from knnkit.errors import DataError
from knnkit.training.table import policy_for, prepare, raw_lines

PLAIN = KnnInfo(
    name="n", k=1, n_features=1, feature_names=("a",), classes=(0, 1), metric="euclidean", weights="uniform",
    scale="none", n_train=2, batch=8, fingerprint="", minimum_runtime="1", versions={},
)  # fmt: skip
COLUMNS = ["a", "b c", "sex", "size", "true"]
POLICY = Policy(
    (),
    {"a": "median", "b c": -1.5, "sex": "median", "size": "medium", "t*": "constant"},
    {"sex": "one-hot", "size": ("small", "medium", "large"), "true": "ordinal"},
    "ignore",
)
CELLS: dict[str, list[str]] = {
    "a": ["1.5", "-2", "1e3", "0.1", "", "NaN", "null", "n/a", " "],
    "b c": ["7", "0.25", "", "NA"],
    "sex": ["f", "m", "x, y", "\u00e9", "", "None"],
    "size": ["small", "large", ""],
    "true": ["True", "False", ""],
}


def rows_of(seed: int, count: int = 200) -> list[dict[str, str]]:
    rng = random.Random(seed)
    return [{name: rng.choice(cells) for name, cells in CELLS.items()} for _ in range(count)]


def write(path: Path, rows: list[dict[str, str]], separator: str = ",", quoting: int = csv.QUOTE_MINIMAL) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator, quoting=quoting)  # type: ignore[arg-type]
        writer.writerow([*COLUMNS, "y"])
        writer.writerows([[*(row[name] for name in COLUMNS), "ab"[at % 2]] for at, row in enumerate(rows)])
    return path


def as_json(row: dict[str, str], rng: random.Random) -> dict[str, Any]:
    """A row as a program may write it: null, NaN or no key at all for a missing cell."""
    found: dict[str, Any] = {}
    for name, cell in row.items():
        if cell.strip().casefold() in ("", "nan", "null", "n/a", "na", "none"):
            how = rng.choice(["key", "null", "nan", "text"])
            found |= {} if how == "key" else {name: {"null": None, "nan": float("nan"), "text": cell}[how]}
        else:
            found[name] = float(cell) if name in ("a", "b c") else cell == "True" if name == "true" else cell
    return found


@pytest.mark.parametrize("seed", range(12))
def test_a_device_makes_the_features_that_the_model_was_trained_on(seed: int, tmp_path: Path) -> None:
    rng, rows = random.Random(seed), rows_of(seed)
    separator, quoting = rng.choice([(",", csv.QUOTE_MINIMAL), (";", csv.QUOTE_ALL), ("\t", csv.QUOTE_ALL)])
    file = write(tmp_path / "rows.csv", rows, separator, quoting)
    ready = prepare(POLICY, load(file, "y", None, POLICY), None)
    table, expected = ready.table, ready.training.rows
    assert np.isfinite(expected).all()
    text = file.read_bytes().replace(b"\r\n", b"\n")
    parsed = TableCsvParser(table, ignore_extra=True).parse(text)
    assert (parsed.rows.tobytes(), parsed.errors) == (expected.tobytes(), {})
    parser, parts = TableCsvParser(table, ignore_extra=True), text.splitlines(keepends=True)
    single = [parser.parse(line).rows for line in parts]
    assert np.concatenate([part for part in single if len(part)]).tobytes() == expected.tobytes()
    lines = b"".join(json.dumps(as_json(row, rng)).encode() + b"\n" for row in rows)
    assert TableJsonParser(table).parse(lines).rows.tobytes() == expected.tobytes()
    golden = raw_lines(ready.training)
    assert TableJsonParser(table).parse(golden).rows.tobytes() == expected.tobytes()


@pytest.mark.parametrize("word", MISSING_WORDS)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_device_reads_the_words_for_a_missing_cell_that_its_training_rows_had(
    word: str, suffix: str, tmp_path: Path
) -> None:
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    rows = [row | {"sex": word.upper()} if row["a"] == "1.5" else row for row in rows_of(1)]
    file = write(tmp_path / "rows.csv", rows)
    if suffix == "parquet":
        pyarrow.parquet.write_table(pyarrow.csv.read_csv(file), tmp_path / "rows.parquet")
    policy = Policy(("a", "b c", "true"), "median", "one-hot")
    files = [write(tmp_path / "clean.csv", rows_of(2)), tmp_path / f"rows.{suffix}"]
    loaded = load_all(files, Wanted("y", policy=policy))
    table = prepare(policy.with_text(loaded.feature_names), loaded, None).table
    assert table.missing_words == (word,)
    coder = Coder(table)
    assert all(coder.is_missing(index, each) for index in range(len(table.columns)) for each in ("", word))
    assert policy_for(table).missing_words == (word,)


@pytest.mark.parametrize("word", MISSING_WORDS)
def test_a_model_of_rows_without_such_words_reads_them_as_it_always_did(word: str, tmp_path: Path) -> None:
    table = prepare(POLICY, load(write(tmp_path / "a.csv", rows_of(1)), "y", None, POLICY), None).table
    assert b"missing_words" not in json_codec.dump_file(replace(PLAIN, table=table))
    parser = TableCsvParser(table, ignore_extra=True)
    header = ",".join(COLUMNS).encode()
    parsed = parser.parse(header + f"\n1,2,{word},small,True\n{word},2,m,small,True\n".encode())
    assert (parser.coder.filled, parser.coder.unknown) == ({}, {"sex": 1})
    assert "is not a number" in parsed.errors[1][1]


@pytest.mark.parametrize("seed", range(4))
def test_what_is_filled_is_counted_alike_by_block_and_by_line(seed: int, tmp_path: Path) -> None:
    rows = rows_of(seed)
    file = write(tmp_path / "rows.csv", rows)
    table = prepare(POLICY, load(file, "y", None, POLICY), None).table
    empty = {
        name: sum(not row[name].strip() or row[name] in [*CELLS["a"][4:], "NA", "None"] for row in rows)
        for name in COLUMNS
    }
    told: list[str] = []
    text = file.read_bytes().replace(b"\r\n", b"\n")
    whole = TableCsvParser(table, ignore_extra=True, tell=told.append)
    whole.parse(text)
    assert whole.coder.filled == empty
    assert len(told) == len(COLUMNS), "each column is reported once"
    alone = TableCsvParser(table, ignore_extra=True)
    for line in text.splitlines(keepends=True):
        alone.parse(line)
    assert alone.coder.filled == empty


def test_medians_come_from_the_training_rows_alone(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,y\n1,p\n2,q\n3,p\n,q\n")
    (tmp_path / "b.csv").write_text("a,y\n100,p\n,q\n")
    policy = Policy((), "median")
    ready = prepare(policy, *(load(tmp_path / name, "y", None, policy) for name in ("a.csv", "b.csv")))
    assert ready.table.columns[0].fill == 2.0
    assert ready.held_out is not None
    assert ready.held_out.rows.tolist() == [[100.0], [2.0]]


def test_dropped_rows_are_left_out_of_training_and_refused_by_a_device(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b,y\n1,2,p\n,3,q\n4,5,q\n")
    policy = Policy((), "drop")
    ready = prepare(policy, load(tmp_path / "a.csv", "y", None, policy), None)
    assert ready.training.rows.tolist() == [[1.0, 2.0], [4.0, 5.0]]
    assert ready.training.labels.tolist() == ["p", "q"]
    assert "1 of 3 rows have missing cells and were left out" in ready.warnings[0]
    parsed = TableCsvParser(ready.table).parse(b"a,b\n,3\n4,5\n")
    assert parsed.rows.tolist() == [[4.0, 5.0]]
    assert list(parsed.errors.values()) == [(2, "column 1 ('a'): the cell is empty")]


TABLE = Table(
    (Column("x", "median", 0.5), Column("kind", "refuse", None, "one-hot", ("a", "b", "None"))), "refuse"
)  # fmt: skip


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1,c", "'c' is not a category of the model"),
        ("1,", "the cell is empty"),
        ("1,nan", "'nan' stands for a missing value"),
        ("tall,a", "'tall' is not a number"),
        ("inf,a", "not a finite"),
        ("1", "expected 2 columns, found 1"),
    ],
)
def test_a_bad_line_is_refused_and_the_next_one_is_answered(line: str, said: str) -> None:
    parsed = TableCsvParser(TABLE).parse(f"x,kind\n{line}\n,None\n".encode())
    ((number, message),) = parsed.errors.values()
    assert (number, said in message) == (2, True), message
    assert parsed.rows.tolist() == [[0.5, 0.0, 0.0, 1.0]], "a category that is listed is one, whatever it is called"


def test_a_refused_row_counts_nothing() -> None:
    parser = TableCsvParser(TABLE)
    parser.parse(b"x,kind\n,c\n,a\n")
    assert parser.coder.filled == {"x": 1}


def test_a_column_named_like_a_category_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a=b,a,y\n1,b,p\n2,c,q\n")
    policy = Policy(categories={"a": "one-hot"})
    with pytest.raises(DataError, match="two features would be called 'a=b'"):
        prepare(policy, load(tmp_path / "a.csv", "y", None, policy), None)


def test_unknown_categories_are_ignored_where_the_table_says_so() -> None:
    told: list[str] = []
    parser = TableJsonParser(replace(TABLE, unknown_category="ignore"), tell=told.append)
    parsed = parser.parse(b'{"x": 1, "kind": "zebra"}\n[2, "b"]\n[2, "zoo"]\n')
    assert parsed.rows.tolist() == [[1.0, 0.0, 0.0, 0.0], [2.0, 0.0, 1.0, 0.0], [2.0, 0.0, 0.0, 0.0]]
    assert parser.coder.unknown == {"kind": 2}
    assert told == ["'kind' has the unknown category 'zebra': ignored"]


@pytest.mark.parametrize(("cells", "fill"), [("3,x", "3"), ("3.0,x", "3.0"), ("4,x", "3")])
def test_a_number_fills_missing_cells_with_the_category_of_that_number(cells: str, fill: str, tmp_path: Path) -> None:
    """YAML's `missing: {a: 3}` is the float 3.0 here."""
    (tmp_path / "a.csv").write_text("a,y\n,p\n" + "".join(f"{cell},q\n" for cell in cells.split(",")))
    policy = Policy(missing={"a": 3.0}, categories={"a": "one-hot"})
    table = prepare(policy, load(tmp_path / "a.csv", "y", None, policy), None).table
    (column,) = table.columns
    assert column.categories[int(column.fill)] == fill
    assert set(column.categories) == {*cells.split(","), fill}


@pytest.mark.parametrize(
    ("categories", "values"), [(("1.0", "2.0"), [1, 2.0]), (("1", "2"), [1.0, 2]), (("1", "1.0"), [1, 1.0])]
)
def test_a_whole_number_is_the_category_of_a_float_and_vice_versa(categories: tuple[str, ...], values: list) -> None:
    """pandas makes a column of whole numbers floats as soon as one cell is missing."""
    table = Table((Column("a", encoding="ordinal", categories=categories),))
    lines = b"".join(json.dumps([value]).encode() + b"\n" for value in values)
    assert TableJsonParser(table).parse(lines).rows.tolist() == [[0.0], [1.0]]
    for kind in (np.int64, np.float32, np.float64):
        assert Coder(table).text(0, kind(1)) in categories
    assert Coder(Table((Column("a", encoding="ordinal", categories=("true",)),))).text(0, np.True_) == "true"


def test_a_missing_cell_that_transforms_fill_is_missing_before_them() -> None:
    """As a row is taught: its cells are kept, and not the features of one release."""
    table = Table((Column("x", "keep"), Column("y")))
    for parser, block in ((TableCsvParser(table), b"x,y\n,2\n"), (TableJsonParser(table), b"[null, 2]\n")):
        parsed = parser.parse(block)
        assert (parsed.errors, parsed.rows.shape) == ({}, (1, 2))
        assert np.isnan(parsed.rows[0, 0])


def test_an_array_holds_missing_numbers_and_no_categories() -> None:
    numbers = Table((Column("x", "median", 0.5), Column("y", "refuse", None)))
    rows = np.array([[np.nan, 1.0], [2.0, 3.0]], np.float32)
    assert read_array(Coder(numbers), rows).tolist() == [[0.5, 1.0], [2.0, 3.0]]
    with pytest.raises(BadInput, match=r"rows\[4096, 1\] \('y'\): the cell is empty"):
        read_array(Coder(numbers), rows[:, ::-1], 4096)
    with pytest.raises(BadInput, match="the column 'kind' takes a category, but the array has only numbers"):
        read_array(Coder(TABLE), rows)


def test_models_of_plain_rows_hold_no_keys_of_tables() -> None:
    plain = json_codec.dump_file(PLAIN)
    assert b'"table"' not in plain
    assert b'"ignore_extra"' not in plain
    assert json_codec.loads(KnnInfo, plain) == PLAIN
    grown = replace(PLAIN, table=TABLE, ignore_extra=True)
    assert json_codec.loads(KnnInfo, json_codec.dump_file(grown)) == grown


def test_a_parquet_file_gives_the_table_of_the_csv_file(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = rows_of(5)
    file = write(tmp_path / "rows.csv", rows)
    columns: dict[str, Any] = {name: [as_json(row, random.Random(1)).get(name) for row in rows] for name in COLUMNS}
    for name in ("a", "b c"):
        columns[name] = [None if isinstance(cell, str) else cell for cell in columns[name]]
    columns["sex"] = pyarrow.array([row["sex"] for row in rows]).dictionary_encode()
    columns["y"] = ["ab"[at % 2] for at in range(len(rows))]
    for name in ("size", "true"):
        columns[name] = [None if not isinstance(cell, str | bool) or not str(cell) else cell for cell in columns[name]]
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    found = [prepare(POLICY, load(path, "y", None, POLICY), None) for path in (file, tmp_path / "rows.parquet")]
    assert found[0].table == found[1].table
    assert found[0].training.rows.tobytes() == found[1].training.rows.tobytes()


def test_csv_is_read_by_the_block_where_no_cell_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TableCsvParser, "_parse_line", None)
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows([["x", "kind"], *[[f"{n}.5", "ab"[n % 2]] for n in range(50)]])
    parsed = TableCsvParser(TABLE).parse(lines.getvalue().encode())
    assert parsed.rows.shape == (50, 4)


@pytest.mark.parametrize(("sign", "separator"), [(",", ","), (",", ";"), (".", ";"), ("'", ","), (" ", "\t")])
def test_signs_between_thousands_are_read_alike_on_both_sides(sign: str, separator: str, tmp_path: Path) -> None:
    decimal = "," if sign == "." else "."
    values = [1234.5, -1234567.0, 12.25, 999.0, 1000.0, 0.5]
    cells = [f"{value:,}".replace(",", "_").replace(".", decimal).replace("_", sign) for value in values]
    text = "".join(f'"{cell}"{separator}{"pq"[at % 2]}\n' for at, cell in enumerate(cells))
    (tmp_path / "a.csv").write_text(f"a{separator}y\n{text}")
    policy = Policy(thousands=sign)
    ready = prepare(policy, load(tmp_path / "a.csv", "y", None, policy), None)
    assert ready.training.rows[:, 0].tolist() == values
    parsed = TableCsvParser(ready.table, ignore_extra=True).parse(f"a{separator}y\n{text}".encode())
    assert parsed.rows.tolist() == ready.training.rows.tolist()
    for wrong in (f"1{sign}23", f"12{sign}34{sign}567", f"1{sign}2345", f"1234{sign}567"):
        bad = TableCsvParser(ready.table).parse(f'a\n"{wrong}"\n'.encode())
        assert "is not a number" in str(bad.errors), wrong
        (tmp_path / "b.csv").write_text(f'a{separator}y\n"{wrong}"{separator}p\n')
        with pytest.raises(DataError, match="is not a number"):
            load(tmp_path / "b.csv", "y", None, policy)


@pytest.mark.parametrize(
    ("cell", "sign", "way"),
    [("100.5", ".", "write decimal commas, and semicolons"), ("1,23", ",", "write decimal points")],
)
def test_a_sign_between_thousands_in_a_wrong_place_is_named(cell: str, sign: str, way: str, tmp_path: Path) -> None:
    parser = TableCsvParser(Table((Column("a"), Column("b")), thousands=sign))
    parsed = parser.parse(f"a;b\n{cell};1\n".encode())
    assert list(parsed.errors) == [0]
    assert way in parsed.hint
    (tmp_path / "a.csv").write_text(f"a;b;y\n{cell};1;x\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load(tmp_path / "a.csv", "y", policy=Policy(thousands=sign))
    assert caught.value.hint.startswith(f"leave out thousands: {sign!r} of deploy.yaml")


@pytest.mark.parametrize(("cell", "sign"), [("1,234.5", ","), ("1.234,5", "."), ("1'234", "'"), ("1,234,567", ",")])
def test_the_hint_names_the_sign_between_thousands(cell: str, sign: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f'a;y\n"{cell}";p\n2;q\n')
    with pytest.raises(DataError) as caught:
        load(tmp_path / "a.csv", "y")
    key = yaml.safe_load(caught.value.hint.partition(" in `data:`")[0])
    assert key == {"thousands": sign}
    found = load(tmp_path / "a.csv", "y", None, Policy(**key))
    assert found.rows[0, 0] == float(cell.replace(sign, "").replace(",", "."))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", [TableCsvParser, TableJsonParser])
def test_bad_lines_are_reported_in_order_whatever_is_wrong(kind: type[Any], seed: int) -> None:
    """A cell may be no number, or the transforms may make none of it; the hint is that of the first bad line."""
    parser = kind(Table((Column("a"),), transforms=(make("log", 0, 1),)))
    cells = random.Random(seed).choices(["1.5", "2", "-1", "0", "x"], k=20)
    whole = [cell if kind is TableCsvParser or cell == "x" else f"[{cell}]" for cell in cells]
    parsed = parser.parse("".join(f"{line}\n" for line in ("a", *whole)[kind is TableJsonParser :]).encode())
    bad = [place for place, cell in enumerate(cells) if cell in ("-1", "0", "x")]
    first = 2 if kind is TableCsvParser else 1
    assert [(place, line) for place, (line, _) in parsed.errors.items()] == [(place, place + first) for place in bad]
    assert list(parsed.lines) == [place + first for place in range(20) if place not in bad]
    np.testing.assert_allclose(parsed.rows[:, 0], np.log([float(cell) for cell in cells if cell in ("1.5", "2")]))
    units = cells[0] == "x"  # a first row without a number may be a line of units
    assert bool(parsed.hint) == (units if kind is TableCsvParser else cells[bad[0]] == "x")


_NUMBER, _SEX = (
    Column(name="a", missing="median", fill=0.5),
    Column(name="sex", encoding="ordinal", categories=("f", "m")),
)
_PLANTS = Table(columns=(_NUMBER, Column(name="b"), _SEX), unknown_category="ignore")


@pytest.mark.parametrize("rows", ["1.5;2;f", "1,5;2,0;f", "1,5\t2\tf", "1.5,2,f", '"1,5";2;" f"'])
@pytest.mark.parametrize("more", ["", "1{0}2{0}other\n", "NA{0}2{0}m\n"])
def test_rows_without_a_header_may_have_any_separator(rows: str, more: str) -> None:
    separator = next(each for each in "\t;," if each in rows)
    parser = TableCsvParser(_PLANTS)
    parsed = parser.parse(f"{more.format(separator)}{rows}\n".encode())
    assert parsed.errors == {}
    assert parsed.rows[-1].tolist() == [1.5, 2.0, 0.0]


def test_the_bad_cell_of_a_row_with_semicolons_is_named() -> None:
    parser = TableCsvParser(_PLANTS)
    assert parser.parse(b"1,5;34,8 %;f\n").errors[0][1].startswith("column 2 ('b'): '34,8 %' is not a number")
    assert parser.parse(b"1.5,2,f\n").rows.tolist() == [[1.5, 2.0, 0.0]]
    assert parser.parse(b"1.5;2;f\n").errors, "the first good row decides"
