"""Tables as spreadsheets and other people's programs write them: read as they are meant, or told what to mend."""

from __future__ import annotations

import csv
import gzip
import io
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.device import Device
from support.releases import Releases

from device_agent.shared.console import lists
from device_agent.shared.file_hints import with_file
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.tabular.csv_reader import Columns, CsvParser
from device_agent.shared.tabular.json_reader import JsonParser

INFO = KnnInfo(
    name="n", k=1, n_features=3, feature_names=("a", "b (cm)", "c"), classes=(0, 1), metric="euclidean",
    weights="uniform", scale="none", n_train=2, batch=8, fingerprint="", minimum_runtime="1", versions={},
)  # fmt: skip
HEADER = ["a", "b (cm)", "c"]
ROWS = [["1.5", "-2", "0.25"], ["30", "4.5", "-0.125"]]
NUMBERS = [[1.5, -2.0, 0.25], [30.0, 4.5, -0.125]]


def table(separator: str, *, header: bool = True, decimal: str = ".", end: str = "\n", tail: str = "") -> bytes:
    rows = [[cell.replace(".", decimal) for cell in row] for row in ROWS]
    lines = [separator.join(row) + tail for row in ([HEADER] if header else []) + rows]
    return (end.join(lines) + end).encode()


def read(block: bytes, *, ignore_extra: bool = False) -> tuple[list[list[float]], list[tuple[int, str]], str]:
    parsed = CsvParser(INFO.feature_names, ignore_extra=ignore_extra).parse(block)
    return parsed.rows.tolist(), list(parsed.errors.values()), parsed.hint


@pytest.mark.parametrize("header", [True, False], ids=["header", "no header"])
@pytest.mark.parametrize(("separator", "decimal"), [(",", "."), (";", "."), (";", ","), ("\t", "."), ("\t", ",")])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_commas_semicolons_tabs_and_decimal_commas_are_read_as_they_are_meant(
    separator: str, decimal: str, header: bool, end: str
) -> None:
    block = table(separator, header=header, decimal=decimal, end=end)
    assert read(block) == (NUMBERS, [], "")
    assert read(b"\xef\xbb\xbf" + block) == (NUMBERS, [], "")
    assert read(table(separator, header=header, decimal=decimal, end=end, tail=separator * 2)) == (NUMBERS, [], "")


def test_the_line_by_which_a_spreadsheet_tells_its_separator_is_no_row() -> None:
    assert read(b"sep=;\r\n" + table(";", decimal=",")) == (NUMBERS, [], "")
    assert read(b"sep=;\n" + table(";", header=False) + b"1;2\n")[1][0][0] == 4


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_columns_are_matched_by_name_whatever_stands_between_them(separator: str) -> None:
    lines = [["id", "c", "b (cm)", "species", "a"], ["r;1,\t", "3", "2", "oak, red", "1"]]
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=separator).writerows(lines)
    assert read(buffer.getvalue().encode(), ignore_extra=True) == ([[1.0, 2.0, 3.0]], [], "")
    with pytest.raises(BadInput, match=r"the model has no column 'id' \(nor 1 more\)") as refused:
        read(buffer.getvalue().encode())
    assert "--ignore-extra" in refused.value.hint


def test_quotes_behind_a_blank_are_quotes() -> None:
    assert read(b'"a", "b (cm)", "c"\n"1", "2", "3"\n') == ([[1.0, 2.0, 3.0]], [], "")


def test_row_numbers_without_a_name_are_told_as_such() -> None:
    block = b",a,b (cm),c\n0,1,2,3\n"
    with pytest.raises(BadInput, match=r"column 1 of the header has no name"):
        read(block)
    assert read(block, ignore_extra=True)[0] == [[1.0, 2.0, 3.0]]


def test_a_name_in_other_capitals_is_pointed_out_and_not_guessed() -> None:
    with pytest.raises(BadInput, match=r"has no column 'b \(cm\)'; 'B_cm' is similar, but not the same name"):
        read(b"a,B_cm,c\n1,2,3\n")
    _, errors, hint = read(b"A,B (CM),C\n1,2,3\n")
    assert errors == [(1, "not numbers, and no header either: 'A' is not the column 'a'")]
    assert hint == "the model has the columns a, b (cm), c"


@pytest.mark.parametrize(
    ("line", "said", "hint"),
    [
        (b"1,2,3,oak", "expected 3 columns, found 4", "--ignore-extra leaves out other columns"),
        (b"1 2 3", "expected 3 columns, found 1", "the model has the columns a, b (cm), c"),
        (b'"1,5","2","3"', "'1,5' is not a number: a decimal comma needs semicolons or tabs", ""),
        (b",,", "all cells of the line are empty", "remove the line"),
        (b'1,2,"3 and a line break', "unexpected end of data", "with line breaks in a cell as JSON lines"),
        (b"1,,3", "column 2 ('b (cm)'): the cell is empty", ""),
        (b"1\r2,3,4", "the line contains a carriage return", "tr '\\r' '\\n'"),
        ("gr\u00f6\u00dfe,b,c".encode("latin-1"), "not UTF-8 text: byte 2 is 0xf6", "iconv -f WINDOWS-1252"),
        ("1,2,3".encode("utf-16"), "the file is UTF-16 text", "iconv -f UTF-16 "),
        ("1,2,3".encode("utf-16-le"), "the line contains a zero byte", "iconv -f UTF-16LE"),
        ("1,2,3".encode("utf-32"), "the file is UTF-32 text", "iconv -f UTF-32 "),
        ("1,2,3".encode("utf-32-le"), "the line contains a zero byte", "iconv -f UTF-32LE"),
        ("1,2,3".encode("utf-32-be"), "the line contains a zero byte", "iconv -f UTF-32BE"),
        (b"PK\x03\x04 xl/workbook", "the file is a spreadsheet or a zip archive", "save the table as CSV"),
        (gzip.compress(b"1,2,3"), "the file is compressed with gzip", "gzip -dc"),
        (b"\x89PNG\r", "the file is a picture (PNG)", "this model takes rows"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "the file is a picture (JPEG)", "this model takes rows"),
        (b"RIFF$\0\0\0WAVEfmt ", "the file is a sound (WAV)", "this model takes rows"),
        (b"RIFF,2,3", "'RIFF' is not a number", ""),
        (b"\x1c\0\0\0TFL3", "the file is a model (TFLite)", "name the file of the rows"),
    ],
)
def test_a_line_that_cannot_be_meant_says_what_is_wrong_and_what_mends_it(line: bytes, said: str, hint: str) -> None:
    rows, errors, found = read(line + b"\n")
    assert rows == []
    assert errors[0][0] == 1
    assert said in errors[0][1]
    assert hint in found


def test_a_comma_that_may_stand_between_thousands_is_not_guessed() -> None:
    _, errors, hint = read(b"a\tb (cm)\tc\n1,234\t2\t3\n")
    assert errors == [(2, "'1,234': is it a decimal comma, or a thousands separator?")]
    assert "decimal point" in hint
    assert read(b"a\tb (cm)\tc\n0,5\t2\t3\n1,234\t2\t3\n")[:2] == ([[0.5, 2.0, 3.0], [np.float32(1.234), 2.0, 3.0]], [])
    assert read(b"1,234;2;3\n")[0] == [[float(np.float32(1.234)), 2.0, 3.0]], "semicolons are there for that comma"


@pytest.mark.parametrize(
    "block", [b"1,5;2;3\n1.5;2;3\n", b"1.5;2;3\n1,5;2;3\n", b"1;2;3\n1.234,5;2;3\n", b"1;2;3\n1,5;2.5;3\n"]
)
def test_one_file_does_not_have_two_decimal_signs(block: bytes) -> None:
    rows, errors, _ = read(block)
    assert (len(rows), [number for number, _ in errors]) == (1, [2])
    assert re.search("has a decimal|'1.234,5' is not a number: leave out the thousands separator", errors[0][1])


def test_a_semicolon_is_found_after_a_first_line_of_rubbish() -> None:
    rows, errors, _ = read(b"Booting v1.2 ...\n1;2;3\n4;5;6\n")
    assert (rows, [number for number, _ in errors]) == ([[1, 2, 3], [4, 5, 6]], [1])


def test_tabs_at_the_ends_of_a_line_are_columns() -> None:
    _, errors, _ = read(b"a\tb (cm)\tc\n\t2\t3\n1\t2\t\n")
    assert errors == [(2, "column 1 ('a'): the cell is empty"), (3, "column 3 ('c'): the cell is empty")]


numbers = st.decimals(min_value=-(10**6), max_value=10**6, places=3).map(str)


@settings(deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=40), st.sampled_from([(";", ","), ("\t", ",")])
)
def test_a_block_at_once_and_line_by_line_give_the_same_with_decimal_commas(
    rows: list[tuple[str, ...]], how: tuple[str, str]
) -> None:
    separator, decimal = how
    first = separator.join(["0,5", "1,5", "2,5"]) + "\n"
    text = "".join(separator.join(row).replace(".", decimal) + "\n" for row in rows)
    parser = CsvParser(INFO.feature_names)
    parser.parse(first.encode())
    fast = parser.parse(text.encode())
    slow = CsvParser(INFO.feature_names).parse((first + text + "bad\n").encode())
    assert fast.errors == {}
    assert fast.rows.tolist() == slow.rows[1:].tolist() == np.array(rows, np.float64).astype(np.float32).tolist()


def test_plain_blocks_of_a_semicolon_file_are_read_at_once() -> None:
    columns = Columns(";", 3, range(3))

    def at_once(block: bytes) -> list[list[float]] | None:
        found = columns.read_block(block)
        return None if found is None else found[0].tolist()

    assert at_once(b"1;2;3\n") == [[1.0, 2.0, 3.0]]
    assert at_once(b"1,5;2;3\n") is None, "which sign it is, a line must show first"
    columns.read_fields(["1,5", "2", "3"])
    assert at_once(b"1,5;2;3\n") == [[1.5, 2.0, 3.0]]
    assert at_once(b"1.5;2;3\n") is None


def test_names_of_a_model_with_very_many_features_do_not_flood_the_terminal() -> None:
    assert lists.listed([f"f{number}" for number in range(784)]).endswith("f11 and 772 more")


@pytest.mark.parametrize("line", [b"[[1,2,3],[4,5,6]]", b'[{"a": 1}]', b"["])
def test_a_whole_json_document_is_told_how_to_become_lines(line: bytes) -> None:
    parsed = JsonParser(INFO.feature_names).parse(line + b"\n")
    assert len(parsed.errors) == 1
    assert "jq -c" in parsed.hint


def test_an_export_with_semicolons_is_answered_and_an_endless_line_is_told_by_its_number(
    device: Device, releases: Releases
) -> None:
    device.install(releases["iris"])
    names = "sepal length (cm);sepal width (cm);petal length (cm);petal width (cm)"
    rows = "5,1;3,5;1,4;0,2\r\n6,7;3,0;5,2;2,3\r\n"
    said = device.run("classify", input=f"\ufeff{names};\r\n{rows}")
    assert (said.code, said.out, said.err) == (0, "label\nsetosa\nvirginica\n", "")
    endless = device.run("classify", input="5.1,3.5,1.4,0.2\n" + "5.1,3.5,1.4,0.2\r" * 100_000)
    assert endless.code == 2
    assert "line 2: the line has more than 1,048,576 bytes" in endless.err
    assert "tr '\\r' '\\n'" in endless.err


PIECES = st.sampled_from(
    [
        b"a",
        b"b (cm)",
        b"c",
        b",",
        b";",
        b"\t",
        b"\n",
        b"\r",
        b'"',
        b".",
        b"1",
        b"-2",
        b"1,5",
        b"1.234",
        b" ",
        b"\0",
        b"\xff",
    ]
)


@settings(deadline=None, derandomize=True, database=None, max_examples=400)
@given(st.lists(PIECES, max_size=40), st.binary(max_size=20), st.booleans())
def test_any_bytes_at_all_are_finite_rows_or_bad_lines(pieces: list[bytes], more: bytes, ignore_extra: bool) -> None:
    block = b"".join(pieces) + more + b"\n"
    parser = CsvParser(INFO.feature_names, ignore_extra=ignore_extra)
    try:
        parsed = parser.parse(block)
    except BadInput:
        return  # the header does not fit
    assert len(parsed.rows) + len(parsed.errors) == parsed.count
    assert np.isfinite(parsed.rows).all()
    assert parser.line <= block.count(b"\n")
    assert all(1 <= number <= parser.line and message for number, message in parsed.errors.values())


#: A cell that Python's float reads, or a typographer writes, and how it is written in ASCII.
OTHER_DIGITS = {
    "\u0661\u0662": "12",  # Arabic-Indic
    "\u0661\u066b\u0665": "1.5",
    "\u06f3.\u06f5": "3.5",  # of Persian
    "-\u0967": "-1",  # Devanagari
    "\uff11\uff12": "12",  # full width
    "1\u0665": "15",
    "\u22125": "-5",
    "\U0001d7db": "3",  # mathematical bold
}


@pytest.mark.parametrize("cell", OTHER_DIGITS)
@pytest.mark.parametrize("header", [True, False], ids=["header", "no header"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_digits_of_another_script_are_refused_and_written_out_in_ours(cell: str, header: bool, separator: str) -> None:
    lines = ([HEADER] if header else []) + [["1", "2", "3"], ["1", cell, "3"]]
    rows, errors, _ = read("".join(separator.join(line) + "\n" for line in lines).encode())
    assert rows == [[1.0, 2.0, 3.0]]
    said = f"column 2 ('b (cm)'): {cell!r} is not a number: write {OTHER_DIGITS[cell]}, with the digits 0 to 9"
    assert errors == [(len(lines), said)]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_first_line_of_such_digits_is_a_row_and_no_header(separator: str) -> None:
    cells = list(OTHER_DIGITS)[:1] * 3
    rows, errors, _ = read((separator.join(cells) + "\n").encode())
    assert rows == []
    assert "is not a number: write 12, with the digits 0 to 9" in errors[0][1]


def test_such_digits_with_a_decimal_comma_are_written_out_too() -> None:
    _, errors, _ = read("1,5;\u0662,\u0665;3\n".encode())
    assert "'\u0662,\u0665' is not a number: write 2.5, with the digits 0 to 9" in errors[0][1]


def test_a_block_with_one_such_cell_is_the_same_in_blocks_of_every_size() -> None:
    for count in (1, 10, 3000):
        rows, errors, _ = read(b"1,2,3\n" * count + "1,\u0662,3\n".encode())
        assert len(rows) == count
        assert [line for line, _ in errors] == [count + 1]


@given(st.text(st.characters(codec="utf-8", exclude_characters='\n\r"\0,'), max_size=6))
@example("0\x1f")
@example("\x0b1")
@example("1\t")
@settings(max_examples=300, deadline=None)
def test_what_the_host_learns_from_is_what_the_device_reads(
    tmp_path_factory: pytest.TempPathFactory, cell: str
) -> None:
    from knnkit.data.files import load
    from knnkit.errors import DataError

    folder = tmp_path_factory.mktemp("rows")
    (folder / "train.csv").write_bytes(f"a,b (cm),c,y\n1,{cell},3,oak\n".encode())
    rows, errors, _ = read(f"a,b (cm),c\n1,{cell},3\n".encode())
    try:
        learnt = load(folder / "train.csv", "y").rows.tolist()
    except DataError:
        learnt = []
    assert learnt == rows
    assert len(errors) == 1 - len(rows)


def test_blanks_of_other_kinds_around_a_number_are_none_of_it() -> None:
    assert read("1,\u00a02\u2009,3\n".encode())[0] == [[1.0, 2.0, 3.0]]


def test_names_that_hold_a_comma_are_told_from_two() -> None:
    assert lists.listed(("air, %", "gas")) == "'air, %', gas"
    assert lists.first_of(["1,200 in 'width'", "3 in 'mass'"], 1) == "1,200 in 'width' and 1 more"


@pytest.mark.parametrize(("cell", "unit"), [("34,8 %", "%"), ("7,4km", "km"), ("-2,5 m/s", "m/s")])
def test_a_unit_in_a_cell_is_removed_by_the_hint(cell: str, unit: str, tmp_path: Path) -> None:
    text = f"a;b (cm);c\n1,5;{cell};3\n"
    _, errors, hint = read(text.encode())
    assert errors == [(2, f"column 2 ('b (cm)'): {cell!r} is not a number")]
    assert hint.startswith(f"remove the unit {unit!r}: sed -E ")
    (tmp_path / "rows.csv").write_text(text)
    command = with_file(hint.partition(": ")[2], "rows.csv")
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    assert read((tmp_path / "rows-clean.csv").read_bytes())[1] == []


@pytest.mark.parametrize("cell", ["7\x1bc", "5-", "5 +"])
def test_what_cannot_be_printed_or_is_a_sign_is_no_unit(cell: str) -> None:
    assert read(f"a;b (cm);c\n1,5;{cell};3\n".encode())[2] == ""


def test_a_line_of_units_below_the_header_is_named() -> None:
    _, errors, hint = read(b"a;b (cm);c\nkg;cm;%\n1;2;3\n")
    assert errors == [(2, "column 1 ('a'): 'kg' is not a number")]
    assert hint == "is it a line of units? leave it out: sed 2d FILE > rows.csv"
    assert read(b"a;b (cm);c\n1;2;3\nkg;cm;%\n")[2] == ""


def test_a_first_row_with_units_in_every_cell_is_no_line_of_units() -> None:
    hint = read(b"a;b (cm);c\n1 kg;2 cm;3 %\n1;2;3\n")[2]
    assert hint.startswith("remove the unit 'kg': sed -E ")
