"""Separators of rows with text and no header."""

from __future__ import annotations

import pytest

from device_agent.shared.features.parsers import TableCsvParser
from device_agent.shared.protocol.table_info import Column, Table

_COLOURS = Table(
    columns=(Column(name="colour", encoding="ordinal", categories=("red", "blue")), Column(name="b")),
    unknown_category="ignore",
)


@pytest.mark.parametrize("row", ["a;1,5", "red;1,5"])
def test_a_row_that_two_separators_divide_is_refused(row: str) -> None:
    parsed = TableCsvParser(_COLOURS).parse(f"{row}\n".encode())
    assert parsed.errors == {0: (1, "the separator is unclear: ',' and ';' give different cells")}
    assert parsed.hint == "write a header line above the rows"


def test_a_separator_in_text_does_not_hide_the_one_that_fits() -> None:
    parsed = TableCsvParser(_COLOURS).parse(b"a;b,5\n")
    assert (parsed.errors, parsed.rows[0, -1]) == ({}, 5.0)


def test_a_separator_stays_after_good_lines() -> None:
    parser = TableCsvParser(_COLOURS)
    assert not parser.parse(b"red,5\n").errors
    assert parser.parse(b"red;5\n").errors[0] == (2, "expected 2 columns, found 1")
    assert not parser.parse(b"red,5\n").errors


def test_a_first_row_of_text_is_not_a_line_of_units() -> None:
    colour = Column(name="colour", encoding="ordinal", categories=("red", "blue"))
    parsed = TableCsvParser(Table(columns=(colour,))).parse(b"colour\ngreen\n")
    assert "'green' is not a category" in parsed.errors[0][1]
    assert parsed.hint.startswith("the model has ")


@pytest.mark.parametrize(("row", "expected"), [("red,NA", [0.0, 7.0]), (",n/a", [1.0, 7.0]), ("blue;", [1.0, 7.0])])
def test_a_first_row_without_a_number_is_a_row(row: str, expected: list[float]) -> None:
    """As of a sensor that has measured nothing yet."""
    colour = Column("colour", "constant", 1.0, "ordinal", ("red", "blue"))
    parser = TableCsvParser(Table((colour, Column("b", "constant", 7.0))))
    assert parser.parse(f"{row}\n".encode()).rows.tolist() == [expected]
    assert TableCsvParser(Table((colour,))).parse(b"red\nblue\n").rows.tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize("line", ["Colour,B", "green,NA", "red,B"])
def test_a_first_line_that_is_no_row_is_a_wrong_header(line: str) -> None:
    colour = Column("colour", "constant", 1.0, "ordinal", ("red", "blue"))
    parsed = TableCsvParser(Table((colour, Column("b", "constant", 7.0)), "ignore")).parse(f"{line}\n".encode())
    assert "and no header either" in parsed.errors[0][1]


def test_a_category_that_begins_as_a_comment_is_a_row() -> None:
    colour = Column("colour", encoding="ordinal", categories=("#00ff00", "#ff0000"))
    parser = TableCsvParser(Table((colour, Column("b"))))
    assert parser.parse(b"#ff0000,1\n#00ff00,2\n").rows.tolist() == [[1.0, 1.0], [0.0, 2.0]]
    headed = TableCsvParser(Table((colour, Column("b"))))
    assert headed.parse(b"# a comment\ncolour,b\n#ff0000,1\n").rows.tolist() == [[1.0, 1.0]]
    assert TableCsvParser(Table((Column("a"), Column("b")))).parse(b"# a comment\n1,2\n").rows.tolist() == [[1.0, 2.0]]
