"""Decimal text to float32, a block of numbers at a time: eight digits are one word of 64 bits.

A number of up to 22 digits, with or without a sign, a dot and an exponent, is read by arithmetic on all numbers of the
block together; any other field is handed to the caller. Gives what float(text) rounded to float32 gives, to the bit:

- Three multiplications turn eight digits into a number: D. Lemire, Number Parsing at a Gigabyte per Second, 2021.
- Digits below 2^53 times, or divided by, a power of ten up to 10^22 are rounded once, and so correctly: W. D. Clinger,
  How to Read Floating Point Numbers Accurately, PLDI 1990.
- With more digits or a larger power the float64 is off by less than 8 units in its last place, which float32 does not
  have. Within `_DOUBT` units of where float32 would round the other way, the field is handed to the caller as well.

Never says what is wrong with a text, and never reads what it is not sure of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Reads fields one by one; raises ValueError or OverflowError for what is no number.
ReadFields = Callable[[list[bytes]], Sequence[float]]
Places = NDArray[np.intp]
Mask = NDArray[np.bool_]

MAX_FLOAT32 = float(np.finfo(np.float32).max)
#: So many fields are read one by one in the time that some 80 calls of numpy take whatever the number of fields.
_FEW = 1500
#: Fields and bytes read together: arrays that stay in the cache, and that malloc gets without asking the system.
_FIELDS, _BYTES = 15_000, 96 * 1024
_NEWLINE, _BLANK, _COMMA, _PLUS, _MINUS, _DOT, _ZERO, _E = b"\n ,+-.0E"
_UPPER_CASE = np.uint8(0xDF)

_MOST_BLANKS, _MOST_DIGITS = 16, 22
#: Beyond, no number of so many digits is within `_SMALLEST` and `_LARGEST`.
_MOST_POWER = 60
_EXACT_DIGITS, _EXACT_POWER = 2.0**53, 22
_POWERS = np.array([float(f"1e{power}") for power in range(_MOST_POWER + 1)])
#: The number of digits after the dot where there is no dot, and by what to divide then.
_NO_DOT = _MOST_POWER + 1
_DIVISORS = np.append(_POWERS, 1.0)
#: The bits that float32 drops, what they are in the middle between two float32, and how near to it is in doubt.
_DROPPED, _MIDDLE, _DOUBT = 0x1FFFFFFF, 0x10000000, 64
#: Between these, float32 drops just these bits, and overflows or not without doubt.
_SMALLEST, _LARGEST = 1e-37, 1e38

#: Zeros in front of a text, so that there are words that end at its first number.
_MARGIN = 32
#: The last 0 to 8 characters of a word.
_LAST = np.array([(2**64 - 1 << 64 - 8 * count) % 2**64 for count in range(9)], np.uint64)
_ZEROS, _SIXES, _HIGH_HALVES = (np.uint64(byte * 0x0101010101010101) for byte in (0x30, 0x06, 0xF0))
#: Pairs of digits of base 10, 100 and 10,000 become one of the base squared: base, its bits, where the result lies.
_STEPS = [
    (np.uint64(base), np.uint64(bits), np.uint64(mask))
    for base, bits, mask in ((10, 8, 0x00FF00FF00FF00FF), (100, 16, 0x0000FFFF0000FFFF), (10_000, 32, 0xFFFFFFFF))
]


def read_table(
    text: bytes, columns: int, read_fields: ReadFields, *, strict: bool = False
) -> NDArray[np.float32] | None:
    """Returns the numbers of whole lines of fields with commas between them, (n_lines, columns) float32.

    None unless each line has that many fields, each a finite number that float32 can hold.

    Args:
        text: lines, each with a newline behind it.
        columns: how many fields each line must have.
        read_fields: reads the fields that are not read here.
        strict: whether `+1`, `01`, `.5`, `5.` and `-0`, which JSON refuses or takes otherwise, are not read here.
    """
    line = text.find(b"\n") + 1 or 1  # stands for all lines: where they differ, only time is lost
    few = len(text) * columns < _FEW * line
    try:
        parts = [
            _read_few(part, columns, read_fields) if few else _read_many(part, columns, read_fields, strict)
            for part in _split(text, min(_BYTES, _FIELDS * line // columns))
        ]
        return np.concatenate(parts).reshape(-1, columns)
    except (ValueError, OverflowError):
        return None


def _split(text: bytes, size: int) -> Iterator[bytes]:
    """Yields whole lines in parts of about the same length, at most a line longer than `size`."""
    size = len(text) // (len(text) // max(size, 1) + 1)
    start = 0
    while start < len(text):
        end = text.find(b"\n", start + size) + 1 or len(text)
        yield text[start:end]
        start = end


def _read_few(text: bytes, columns: int, read_fields: ReadFields) -> NDArray[np.float32]:
    lines = text[:-1].split(b"\n")
    if any(line.count(b",") != columns - 1 for line in lines):
        raise ValueError("a line has another number of fields")
    return _to_float32(np.array(read_fields(b",".join(lines).split(b",")), np.float64))


def _to_float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    if not -MAX_FLOAT32 <= values.min() <= values.max() <= MAX_FLOAT32:
        raise ValueError("not finite in float32")
    return values.astype(np.float32)


def _read_many(text: bytes, columns: int, read_fields: ReadFields, strict: bool) -> NDArray[np.float32]:
    words = _Words(text)
    fields = _find(text, words.codes)
    _check_layout(words.codes.take(fields.ends) == _NEWLINE, columns)
    values, odd = _values(words, fields, strict=strict)
    places = np.flatnonzero(odd)
    if len(places):
        starts, ends = fields.starts.take(places).tolist(), fields.ends.take(places).tolist()
        values[places] = read_fields([text[start:end] for start, end in zip(starts, ends)])
    return _to_float32(values)


def _check_layout(last: Mask, columns: int) -> None:
    """Takes which fields are the last of their line."""
    if np.count_nonzero(last) * columns != len(last) or not last[columns - 1 :: columns].all():
        raise ValueError("a line has another number of fields")


class _Words:
    """A text as characters, and as words of eight characters that end at any place in it."""

    def __init__(self, text: bytes) -> None:
        padded = np.frombuffer(b"0" * _MARGIN + text, np.uint8)
        self.codes = padded[_MARGIN:]
        self._words: NDArray[np.uint64] = np.ndarray((len(padded) - 7,), "<u8", padded, 0, (1,))

    def load(self, ends: Places, back: int) -> NDArray[np.uint64]:
        """Returns the eight characters that end `back` characters before each of `ends`, the last in the high bits."""
        words: NDArray[np.uint64] = self._words[ends + (_MARGIN - 8 - back)].astype(np.uint64, copy=False)
        return words

    def load_digits(self, ends: Places, after: Places | None, back: int) -> NDArray[np.uint64]:
        """As `load`, with the dot left out of the count: those before it move over it."""
        words = self.load(ends, back)
        if after is not None:
            behind = _LAST.take(after - back, mode="clip")
            words &= behind
            words |= self.load(ends, back + 1) & ~behind
        return words


@dataclass(frozen=True)
class _Fields:
    """Where the fields of a text lie; each array has one entry for each field.

    Attributes:
        starts: place of the first character, blanks in front of it left out.
        stops: place of the character behind the number, its exponent left out.
        ends: place of the comma or newline.
        after: characters between the dot and `stops`, or `_NO_DOT`; None where no field has a dot or an exponent.
    """

    starts: Places
    stops: Places
    ends: Places
    after: Places | None = None


def _find(text: bytes, codes: NDArray[np.uint8]) -> _Fields:
    found = (codes == _COMMA) | (codes == _NEWLINE)
    after = None
    if b"." in text or b"e" in text or b"E" in text:
        found |= (codes == _DOT) | (codes & _UPPER_CASE == _E)
        ends, stops, after = _sort(np.flatnonzero(found), codes)
    else:
        ends = stops = np.flatnonzero(found)
    return _Fields(_starts(ends, codes, _MOST_BLANKS if b" " in text else 0), stops, ends, after)


def _sort(marks: Places, codes: NDArray[np.uint8]) -> tuple[Places, Places, Places]:
    """Takes the places of all commas, newlines, dots and letters e. Before the first is, by -1, the last: a newline."""
    kinds = codes.take(marks)
    dots, letters = kinds == _DOT, kinds >= _E
    end = np.flatnonzero(~(dots | letters))
    stop = end - letters.take(end - 1)
    ends, stops = marks.take(end), marks.take(stop)
    return ends, stops, np.where(dots.take(stop - 1), stops - marks.take(stop - 1) - 1, _NO_DOT)


def _starts(ends: Places, codes: NDArray[np.uint8], blanks: int) -> Places:
    starts = np.empty_like(ends)
    starts[0] = 0
    np.add(ends[:-1], 1, out=starts[1:])
    for _ in range(blanks):
        blank = codes.take(starts) == _BLANK
        if not blank.any():
            break
        starts += blank
    return starts


def _values(words: _Words, fields: _Fields, *, strict: bool) -> tuple[NDArray[np.float64], Mask]:
    """Returns the numbers, and which of them are not to be trusted."""
    first = words.codes.take(fields.starts)
    minus = first == _MINUS
    signed = minus | (first == _PLUS)
    length = fields.stops - fields.starts - signed
    if fields.after is not None:
        length -= fields.after != _NO_DOT
    odd = (length < 1) | (length > _MOST_DIGITS)
    digits = _digits(words, fields, length, odd)
    if strict:
        odd |= (first == _PLUS) | (minus & (digits == 0))
        odd |= _unlike_json(fields, length, words.codes.take(fields.starts + signed))
    values = _scale(words, fields, digits, odd)
    values *= 1.0 - 2.0 * minus
    return values, odd


def _unlike_json(fields: _Fields, length: Places, lead: NDArray[np.uint8]) -> Mask:
    """Returns where there is a zero too many or no digit on one side of a dot; takes the first digit of each field."""
    whole = length if fields.after is None else np.where(fields.after == _NO_DOT, length, length - fields.after)
    unlike: Mask = (whole < 1) | ((whole > 1) & (lead == _ZERO))
    if fields.after is not None:
        unlike |= fields.after == 0
    return unlike


def _digits(words: _Words, fields: _Fields, length: Places, odd: Mask) -> NDArray[np.float64]:
    """Returns the digits of each field as one whole number; marks as odd what holds anything else."""
    digits = _eight(words.load_digits(fields.stops, fields.after, 0), length, odd)
    for back in (8, 16):
        long = np.flatnonzero(length > back)
        if not len(long):
            break
        after = None if fields.after is None else fields.after.take(long)
        wrong = np.zeros(len(long), np.bool_)
        higher = _eight(words.load_digits(fields.stops.take(long), after, back), length.take(long) - back, wrong)
        digits[long] += higher * _POWERS[back]
        odd[long] |= wrong
    return digits


def _eight(words: NDArray[np.uint64], count: Places, odd: Mask) -> NDArray[np.float64]:
    """Returns the number that the last `count` characters of each word are, all of them if more; spends the words."""
    words ^= _ZEROS
    words &= _LAST.take(count, mode="clip")
    rest = words + _SIXES
    rest |= words
    rest &= _HIGH_HALVES
    odd |= rest != 0
    for base, bits, mask in _STEPS:
        np.right_shift(words, bits, out=rest)
        words *= base
        words += rest
        words &= mask
    return words.astype(np.float64)


def _scale(words: _Words, fields: _Fields, digits: NDArray[np.float64], odd: Mask) -> NDArray[np.float64]:
    """Returns the numbers that dot and exponent make of the digits; marks as odd what float32 may round otherwise."""
    inexact = digits >= _EXACT_DIGITS
    values = digits
    if fields.after is not None:
        raised = np.flatnonzero(fields.stops < fields.ends)
        if len(raised):
            power = np.where(fields.after == _NO_DOT, 0, -fields.after)
            power[raised] += _exponents(words, fields.stops.take(raised), fields.ends.take(raised))
            inexact |= abs(power) > _EXACT_POWER
            values = digits * _POWERS.take(power, mode="clip") / _POWERS.take(-power, mode="clip")
        else:
            values = digits / _DIVISORS.take(fields.after, mode="clip")
    if inexact.any():
        odd |= inexact & _in_doubt(values)
    return values


def _exponents(words: _Words, stops: Places, ends: Places) -> Places:
    """Returns the power of ten between each `e` and the end of its field; a huge one where there is none."""
    first = words.codes.take(stops + 1)
    minus = first == _MINUS
    count = ends - stops - 1 - (minus | (first == _PLUS))
    odd = (count < 1) | (count > 8)
    power = _eight(words.load(ends, 0), count, odd).astype(np.intp)
    power[odd] = 10**8
    return np.where(minus, -power, power)


def _in_doubt(values: NDArray[np.float64]) -> Mask:
    dropped = values.view(np.int64) & _DROPPED
    near = abs(dropped - _MIDDLE) < _DOUBT
    return near | (values < _SMALLEST) | (values > _LARGEST)
