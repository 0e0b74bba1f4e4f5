"""What people write above a header, on the host and on a device: units, titles, comments, and `# a,b`."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.tabular.csv_reader import CsvParser
from knnkit.data.files import load
from knnkit.errors import DataError

INFO = KnnInfo(
    name="n", k=1, n_features=2, feature_names=("a", "b (cm)"), classes=(0, 1), metric="euclidean", weights="uniform",
    scale="none", n_train=2, batch=8, fingerprint="", minimum_runtime="1", versions={},
)  # fmt: skip
ABOVE = [
    "",
    "# made by a logger\n",
    "#\n# made by, a logger\n\n",
    "m/s,cm,\n",
    "Measurements of 2024\n\n",
    "# comment\nm/s,cm,-\n",
    "\ufeff# comment\n",
]


@pytest.mark.parametrize("above", ABOVE)
@pytest.mark.parametrize("mark", ["", "# ", "#"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_above_a_header_are_skipped_on_both_sides(
    above: str, mark: str, separator: str, end: str, tmp_path: Path
) -> None:
    lines = [f"{mark}a,b (cm),kind", "1,2,oak", "3,4.5,elm", ""]
    text = above.replace("\n", end) + end.join(line.replace(",", separator) for line in lines)
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert load(tmp_path / "a.csv", "kind").rows.tolist() == [[1.0, 2.0], [3.0, 4.5]]
    parser = CsvParser(INFO.feature_names, ignore_extra=True)
    parsed = parser.parse(text.replace("\r\n", "\n").encode())
    assert parsed.rows.tolist() == [[1.0, 2.0], [3.0, 4.5]]
    assert next(iter(parsed.lines)) == above.count("\n") + 2


@pytest.mark.parametrize(
    ("header", "name"), [("# a,b,kind", "a"), ("#a,b,kind", "#a"), ("#  a,b,kind", "a"), ("#kind,a,b", "a")]
)
def test_the_mark_of_a_comment_is_no_part_of_the_first_name(header: str, name: str, tmp_path: Path) -> None:
    """numpy.savetxt writes `# ` before the header; a device may get rows from another program."""
    (tmp_path / "a.csv").write_text(f"{header}\n1,2,3\n", encoding="utf-8")
    found = load(tmp_path / "a.csv", "kind")
    assert found.feature_names == (name, "b")
    parsed = CsvParser(found.feature_names, ignore_extra=True).parse((tmp_path / "a.csv").read_bytes())
    assert parsed.rows.tolist() == found.rows.tolist()


@pytest.mark.parametrize(
    "comment", ["# kind, a and b (cm), by hand", "# a, b (cm), kind", "# a,b (cm),kind\n#\n# cm, cm, kind"]
)
def test_a_comment_that_names_the_columns_is_not_the_header(comment: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{comment}\n\na,b (cm),kind\n1,2,oak\n3,4.5,elm\n", encoding="utf-8")
    assert load(tmp_path / "a.csv", "kind").rows.tolist() == [[1.0, 2.0], [3.0, 4.5]]
    parsed = CsvParser(INFO.feature_names, ignore_extra=True).parse((tmp_path / "a.csv").read_bytes())
    assert (parsed.rows.tolist(), parsed.errors) == ([[1.0, 2.0], [3.0, 4.5]], {})


@pytest.mark.parametrize("row", ["0,0.5", "0.5,1", "1,1", "0;0,5"])
def test_a_row_with_a_number_that_names_a_column_is_a_row(row: str) -> None:
    """pandas names the columns of an array 0, 1, and so on."""
    parsed = CsvParser(("0", "1")).parse(f"{row}\n".encode())
    assert (parsed.count, parsed.errors) == (1, {})
    header = CsvParser(("0", "1")).parse(b"1,0\n5,6\n")
    assert (header.rows.tolist(), list(header.lines)) == ([[6.0, 5.0]], [2])


@pytest.mark.parametrize("end", ["3,4\n", ""])
@pytest.mark.parametrize("above", ["1,2\n", "m,cm\n1,2\n", "1,2\n5,\n"])
def test_a_row_above_a_header_is_not_skipped(above: str, end: str) -> None:
    """As after `cat` of two files, or once a logger that writes a header starts again."""
    text = f"{above}a,b (cm)\n{end}".encode()
    parsed = CsvParser(INFO.feature_names).parse(text)
    assert parsed.count == text.count(b"\n")
    assert [1.0, 2.0] in parsed.rows.tolist()
    whole = CsvParser(INFO.feature_names).parse(b"a,b (cm)\n1,2\na,b (cm)\n3,4\n")
    assert (list(whole.lines), list(whole.errors)) == ([2, 4], [1])
    assert whole.hint == "a header is read only above all rows; leave it out: sed 3d FILE > rows.csv"


def test_a_row_above_a_header_is_not_skipped_if_the_next_row_begins_with_an_empty_cell() -> None:
    parsed = CsvParser(INFO.feature_names).parse(b"1\t2\na\tb (cm)\n\t4\n")
    assert parsed.rows.tolist() == [[1.0, 2.0]]


def test_a_training_row_above_the_header_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2,oak\n3,4,elm\na,b,kind\n5,6,oak\n")
    with pytest.raises(DataError, match="no column 'kind'; there are 1, 2, oak"):
        load(tmp_path / "a.csv", "kind")


def test_a_bad_cell_below_is_reported_with_its_own_line() -> None:
    parsed = CsvParser(INFO.feature_names).parse(b"# one\nm,cm\na,b (cm)\n1,2\ntall,3\n")
    assert [number for number, _ in parsed.errors.values()] == [5]


@pytest.mark.parametrize("first", ["1,2", "a,b (cm)", "online"])
def test_a_stream_whose_first_line_is_a_comment_goes_on(first: str) -> None:
    parser = CsvParser(INFO.feature_names)
    assert parser.parse(b"# logger\n").count == 0
    parser.parse(first.encode() + b"\n")
    assert parser.parse(b"3,4\n").rows.tolist() == [[3.0, 4.0]]


def test_a_cell_with_the_name_of_the_label_makes_no_header_of_its_row(tmp_path: Path) -> None:
    """Who takes a label for its column must not get a model whose features are called 1 and 2."""
    (tmp_path / "a.csv").write_text("a,b,kind\n1,2,oak\n3,4,oak\n5,6,elm\n")
    with pytest.raises(DataError, match="no column 'oak'; there are a, b, kind"):
        load(tmp_path / "a.csv", "oak")
