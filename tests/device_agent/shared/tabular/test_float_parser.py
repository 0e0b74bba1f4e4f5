"""Numbers read a block at a time are those of float(text), rounded to float32, whatever a file is made of."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator
from decimal import Context, Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.tabular.csv_reader import CsvParser
from device_agent.shared.tabular.fields import Layout
from device_agent.shared.tabular.float_parser import read_table
from device_agent.shared.tabular.json_reader import JsonParser

INFO = KnnInfo(
    name="n", k=1, n_features=3, feature_names=("a", "b", "c"), classes=(0, 1), metric="euclidean", weights="uniform",
    scale="none", n_train=2, batch=8, fingerprint="", minimum_runtime="1", versions={},
)  # fmt: skip
#: Digits enough for every float64 in these tests.
EXACT = Context(prec=200)
#: More text than is read number by number.
LONG = 30_000
FILLER = [b"0.5,-12,3e-05", b"1234567,+0.25,7.0001", b"-3.1415927,2.,.125"]


class OneByOne:
    """float() for the fields that are handed over, which it keeps."""

    def __init__(self) -> None:
        self.fields: list[bytes] = []

    def __call__(self, fields: list[bytes]) -> list[float]:
        self.fields += fields
        return list(map(float, fields))


def table_of(texts: list[str], columns: int) -> bytes:
    lines = (",".join(texts[start : start + columns]) for start in range(0, len(texts), columns))
    return "".join(line + "\n" for line in lines).encode(errors="surrogateescape")


def table_read(text: bytes, columns: int, read_fields: Any, **how: Any) -> np.ndarray | None:
    found = read_table(text, Layout(columns, **how), read_fields)
    return None if found is None else found[0]


def rounded(texts: list[str]) -> np.ndarray:
    return np.array(list(map(float, texts))).astype(np.float32)


def assert_read_as_float(texts: list[str], columns: int = 1) -> list[bytes]:
    """Returns the fields that were handed over."""
    one_by_one = OneByOne()
    table = table_read(table_of(texts, columns), columns, one_by_one)
    assert table is not None
    assert table.shape == (len(texts) // columns, columns)
    expected = rounded(texts)
    differ = np.flatnonzero(table.ravel().view(np.int32) != expected.view(np.int32))
    assert [(texts[place], table.ravel()[place]) for place in differ] == []
    wide = table_read(table_of(texts, columns), columns, OneByOne(), dtype=np.float64)
    assert wide is not None
    assert wide.tobytes() == np.array(list(map(float, texts))).tobytes(), "float64 is float() itself"
    return one_by_one.fields


def wide(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.standard_normal(count) * 10.0 ** rng.integers(-9, 9, count)


def bits(rng: np.random.Generator, count: int) -> np.ndarray:
    """Finite float32 of any size, subnormal ones among them."""
    values = rng.integers(0, 2**32, count, dtype=np.uint32).view(np.float32)
    return values[np.isfinite(values)][: count - count // 100]


FORMATS: dict[str, Callable[[Any], str]] = {
    "repr": lambda value: repr(float(value)),
    "repr of float32": lambda value: str(np.float32(value)),
    **{
        form: form.__mod__
        for form in ("%.3g", "%.6g", "%.7g", "%.9g", "%.17g", "%.18e", "%.3E", "%f", "%+.5f", "%018.9f", "%16.4f")
    },
    "whole": lambda value: str(int(value)),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("columns", [1, 2, 7, 64, 300])
def test_what_files_are_made_of_is_read_without_a_call_for_each_number(form: str, columns: int) -> None:
    values = wide(np.random.default_rng(columns), 8400 - 8400 % columns)
    handed_over = assert_read_as_float([FORMATS[form](value) for value in values], columns)
    assert len(handed_over) < 5, handed_over[:5]


@pytest.mark.parametrize("form", ["repr", "repr of float32", "%.7g", "%.9g", "%.18e"])
def test_float32_of_every_size_are_read_as_float_does(form: str) -> None:
    assert_read_as_float([FORMATS[form](value) for value in bits(np.random.default_rng(5), 20_000)])


def near_the_middle(smallest: float, largest: float) -> Iterator[float]:
    """Float64 next to where float32 rounds the other way: there, a last place off is a float32 off."""
    low, high = (int(np.float32(value).view(np.int32)) for value in (smallest, largest))
    lower = np.random.default_rng(11).integers(low, high, 3000, dtype=np.int32)
    middle = (lower.view(np.float32).astype(np.float64) + (lower + 1).view(np.float32)) / 2
    for unit in (-2, -1, 0, 1, 2):
        yield from (middle + unit * np.spacing(middle)).tolist()


@pytest.mark.parametrize("form", ["%.17g", "%.19g", "%.17e", "%.21g"])
@pytest.mark.parametrize(("smallest", "largest"), [(1e-4, 1e15), (1e15, 3e38), (1e-37, 1e-4), (1e-45, 1e-37)])
def test_next_to_the_middle_between_two_float32_nothing_is_rounded_twice(
    form: str, smallest: float, largest: float
) -> None:
    handed_over = assert_read_as_float([form % value for value in near_the_middle(smallest, largest)])
    assert len(handed_over) > 1000, "float() decides here"


@pytest.mark.parametrize("digits", range(16, 23))
@pytest.mark.parametrize(("smallest", "largest"), [(1e-6, 1e19), (2.0**52, 2.0**63)])
@pytest.mark.parametrize("powers", [False, True])
def test_next_to_the_middle_between_two_float64_nothing_is_rounded_twice(
    digits: int, smallest: float, largest: float, powers: bool
) -> None:
    low, high = (int(np.float64(value).view(np.int64)) for value in (smallest, largest))
    lower = np.random.default_rng(12).integers(low, high, 3000).view(np.float64)
    if powers:  # where the step below is half of the step above
        lower = 2.0 ** np.floor(np.log2(lower))
    texts = [
        f"{EXACT.divide(EXACT.add(Decimal(value), Decimal(float(np.nextafter(value, to)))), 2):.{digits}g}"
        for value, to in zip(lower.tolist(), itertools.cycle([0.0, np.inf]))
    ]
    assert_read_as_float(texts)


@pytest.mark.parametrize("form", ["%.17g", "%.2f", "%.7f", "%.15g", "%r", "%.18e"])
def test_float64_is_read_without_a_call_for_each_number(form: str) -> None:
    one_by_one = OneByOne()
    values = np.random.default_rng(13).uniform(-180.0, 6e6, 20_000).tolist()
    assert table_read(table_of([form % value for value in values], 2), 2, one_by_one, dtype=np.float64) is not None
    assert len(one_by_one.fields) < 20


@pytest.mark.parametrize("columns", [1, 3, 250])
@pytest.mark.parametrize("form", ["%d", "%.1f", "%.20e", "%0300d"])
def test_of_a_text_of_any_length_no_line_is_lost_or_read_twice(form: str, columns: int) -> None:
    assert_read_as_float([form % value for value in range(60_000)], columns)


@pytest.mark.parametrize("lines", [[b"0,0\n"], [b"0,0\n", b"-1.2345678901234567,2.5e-07\n"], [b"0" * 3000 + b",7\n"]])
def test_a_bad_field_is_found_wherever_a_long_text_is_cut(lines: list[bytes]) -> None:
    good = lines * (300_000 // len(b"".join(lines)))
    assert table_read(b"".join(good), 2, OneByOne()) is not None
    for place in [*range(0, len(good), max(1, len(good) // 40)), -1]:
        for bad in (b"0\n", b"0,0,0\n", b"0,x\n", b"\n"):
            assert table_read(b"".join([*good[:place], bad, *good[place:][1:]]), 2, OneByOne()) is None


def test_digits_up_to_two_to_the_53rd_are_exact_and_more_are_not_taken_for_exact() -> None:
    whole = [2**53 + off for off in range(-600, 600)] + [2**24 + off for off in range(-600, 600)]
    assert_read_as_float([str(value) for value in whole])
    assert_read_as_float([f"{str(value)[:-7]}.{str(value)[-7:]}" for value in whole])


@pytest.mark.parametrize(
    "text",
    [
        *["-0", "-0.0", "+0", "0", "5.", "-5.", ".5", "-.5", "+.5", "000001.5", "1e5", "1E+5", "1.5e-005", "5.e3"],
        *[
            ".5e3",
            "-0e0",
            "0e999",
            "1e0000000000012",
            "1e-45",
            "7e-46",
            "1e-400",
            "3.4028234663852886e38",
            "3.4028234e+38",
            "1e38",
        ],
        *["1" * 22, "1" * 23, "1" * 39, "0." + "1" * 22, "0." + "1" * 300, "0" * 500 + "7", "0." + "0" * 30 + "1"],
        *[
            " 7",
            "  7",
            " " * 40 + "7",
            "7 ",
            "\t7\t",
            "  -1.5e3  ",
            "12345678",
            "123456789",
            "1234567890123456",
            "12345678901234567",
        ],
        *["12345678.12345678", "1.00000000", "123456.7e-30", "99999999.99999999", "1e22", "1e23", "9007199254740993"],
    ],
)
@pytest.mark.parametrize("filler", ["0.25", "7"])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_number_of_any_look_is_read_at_any_place(text: str, place: str, filler: str) -> None:
    texts = [filler] * 6000
    texts[{"first": 0, "middle": 3001, "last": -1}[place]] = text
    assert_read_as_float(texts, columns=3)


@settings(deadline=None)
@given(st.lists(st.from_regex(r"\A[+-]?([0-9]{1,24}\.?[0-9]{0,24}|\.[0-9]{1,24})([eE][+-]?[0-9]{1,3})?\Z"), min_size=1))
def test_whatever_is_a_number_is_read_as_float_does(texts: list[str]) -> None:
    texts = [text if abs(float(text)) < 3e38 else "1" for text in texts]
    assert_read_as_float(texts + ["0.5"] * (LONG // 4))


BAD = [
    "",
    " ",
    " " * 40,
    " - 1",
    "  1 2",
    "-",
    "+",
    ".",
    "-.",
    "e5",
    "1e",
    "1e+",
    "1.5e-",
    ".e1",
    "1e5.5",
    "1e5e5",
    "1.2.3",
    "--1",
    "+-1",
    "1-",
    "1-2",
]
BAD += [
    "1 2",
    "1_0",
    "nan",
    "inf",
    "-inf",
    "infinity",
    "x",
    "0x1",
    "1e400",
    "-1e39",
    "9" * 40,
    '"1"',
    "1\r",
    "\0",
    "½",
    "1f",
]
BAD += [
    "1,5",
    "1\n5",
    "1/2",
    "1:2",
    "12345678x",
    "x12345678",
    "1234x5678",
    "1234567812345x78",
    "1.5E 5",
    "1e 5",
    "1e1-1",
    "1ex00000005",
    "1\udcca",
    "\udcca1",
]


@pytest.mark.parametrize("text", BAD)
@pytest.mark.parametrize("filler", ["0.25", "7"])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("strict", [False, True])
def test_what_is_no_finite_number_is_never_read(text: str, place: str, strict: bool, filler: str) -> None:
    def handed_over(fields: list[bytes]) -> list[float]:
        raise ValueError(fields)

    texts = [filler] * 6000
    texts[{"first": 0, "middle": 3001, "last": -1}[place]] = text
    assert table_read(table_of(texts, 3), 3, handed_over, strict=strict) is None


@pytest.mark.parametrize(
    "text", ["+1", "01", "-01", "00", "00.5", ".5", "-.5", "5.", "5.e1", "-0", "+0.5", "-0.0", "01e2"]
)
def test_what_json_would_refuse_or_take_otherwise_is_handed_over_where_asked(text: str) -> None:
    one_by_one = OneByOne()
    ordinary = ["0", "10", "-10.25", "0.5", "-0.5", "1e5", "1E+05", "0e0", "100", "1.0"] * 1000
    assert table_read(table_of([*ordinary, text], 1), 1, one_by_one, strict=True) is not None
    assert one_by_one.fields == [text.encode()]


@pytest.mark.parametrize(("columns", "count"), [(4, 6000), (7, 6000), (2, 6000), (1, 6000)])
def test_lines_of_another_length_are_no_table(columns: int, count: int) -> None:
    text = table_of(["0.25"] * count, 3)
    assert table_read(text, columns, OneByOne()) is None


@pytest.mark.parametrize("lines", [b"1,2\n3,4,5,6\n", b"1,2,3\n4\n5,6\n", b"1\n2\n3\n", b"1,2,3,4,5,6\n", b"1,2,3,4\n"])
@pytest.mark.parametrize("place", [0, 1000, 3000])
def test_lines_of_a_wrong_length_are_no_table_whatever_the_sum(lines: bytes, place: int) -> None:
    line = b"0.25,0.5,0.75\n"
    assert table_read(line * place + lines + line * (3000 - place), 3, OneByOne()) is None


class TestInTheMidstOfManyLines:
    """A long block and the same line by line, which a bad last line enforces, say the same."""

    def both(self, parser: Any, block: bytes) -> None:
        fast, slow = parser(INFO.feature_names).parse(block), parser(INFO.feature_names).parse(block + b"bad\n")
        errors = dict(slow.errors)
        assert errors.popitem()[0] == slow.count - 1 == fast.count
        assert fast.errors == errors
        if len(slow.rows):
            np.testing.assert_array_equal(fast.rows.view(np.int32), slow.rows.view(np.int32))

    def damaged(self, data: st.DataObject, lines: list[bytes], alphabet: bytes) -> bytes:
        block = bytearray(b"\n".join(lines * (LONG // len(b"".join(lines)))) + b"\n")
        for _ in range(data.draw(st.integers(1, 3))):
            start = data.draw(st.one_of(st.integers(0, len(block) - 1), st.sampled_from([0, len(block) - 2])))
            length = data.draw(st.integers(0, 3))
            new = data.draw(st.lists(st.sampled_from(list(alphabet)), max_size=4))
            block[start : start + length] = bytes(new)
        return bytes(block.rstrip(b"\n")) + b"\n"

    @settings(deadline=None)
    @given(st.data())
    def test_damaged_csv(self, data: st.DataObject) -> None:
        self.both(CsvParser, self.damaged(data, FILLER, b'0123456789+-.eE ,\n\r\t_x"\xff'))

    @settings(deadline=None)
    @given(st.data())
    def test_damaged_json(self, data: st.DataObject) -> None:
        lines = [b"[0.5, -12, 3e-05]", b"[1234567,1E+2,7.0001]", b"[-0.0, 0, 10]"]
        self.both(JsonParser, self.damaged(data, lines, b'0123456789+-.eE ,\n\r\t_n[]{}"'))

    @pytest.mark.parametrize(
        "line", [b"1.5,2,3\r", b"1.5, 2, 3", b" 1.5 , 2 ,3 ", b"\t1.5,2,3", b"1.5,2,3\r\n\r", b"\xef\xbb\xbf1,2,3"]
    )
    def test_csv_as_others_write_it(self, line: bytes) -> None:
        self.both(CsvParser, (line + b"\n") * 3000)

    @pytest.mark.parametrize(
        "line", [b"[1.5, 2, 3]\r", b"[ 1.5, 2 ,3]", b" [1,2,3]", b"[1,2,3] ", b'{"a":1,"b":2,"c":3}']
    )
    def test_json_as_others_write_it(self, line: bytes) -> None:
        self.both(JsonParser, (line + b"\n") * 3000)

    def test_json_of_all_sizes_is_what_json_reads(self) -> None:
        values = bits(np.random.default_rng(3), 6060)[:6000].astype(np.float64).reshape(-1, 3)
        block = b"".join(json.dumps(row).encode() + b"\n" for row in values.tolist())
        parsed = JsonParser(INFO.feature_names).parse(block)
        assert parsed.errors == {}
        np.testing.assert_array_equal(parsed.rows.view(np.int32), values.astype(np.float32).view(np.int32))

    def test_a_bad_line_is_named_by_its_number(self) -> None:
        lines = FILLER * 500
        lines[1234] = b"1,x,3"
        parsed = CsvParser(INFO.feature_names).parse(b"\n".join(lines) + b"\n")
        assert parsed.errors == {1234: (1235, "column 2 ('b'): 'x' is not a number")}

    def test_empty_arrays_are_no_rows_of_a_model_with_one_feature(self) -> None:
        info = dataclasses.replace(INFO, n_features=1, feature_names=("a",))
        parsed = JsonParser(info.feature_names).parse(b"[1.5]\n" * 5000 + b"[]\n")
        assert parsed.errors == {5000: (5001, "expected 1 values, found 0")}


@pytest.mark.parametrize("columns", [1, 3, 785])
@pytest.mark.parametrize("most", [10, 256, 10_000, 100_000])
def test_short_whole_numbers_are_read_wherever_a_longer_one_is_among_them(columns: int, most: int) -> None:
    rng = np.random.default_rng(most)
    texts = [str(value) for value in rng.integers(0, most, 785 * 60)]
    for place in rng.integers(0, len(texts), 200):
        texts[place] = str(rng.choice(["00012", "10000", "99999999", "-1", "0.5", "1e3", " 7", "007"]))
    assert_read_as_float(texts, columns)
