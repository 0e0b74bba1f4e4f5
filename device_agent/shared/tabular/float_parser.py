"""Vectorised parser of decimal text to float32 or float64.

Reads numbers of up to 22 digits, with or without sign, dot and exponent, by arithmetic on all numbers of a block; eight
digits are one 64-bit word. Leaves other fields to the caller. Equals float(text), or that rounded to float32, bit by
bit:

- Three multiplications turn eight digits into a number: D. Lemire, Number Parsing at a Gigabyte per Second, 2021.
- A whole number below 2^53, multiplied or divided by a power of ten up to 10^22, is rounded once, and so correctly:
  W. D. Clinger, How to Read Floating Point Numbers Accurately, PLDI 1990.
- With more digits or a larger power, the float64 is off by less than 8 units in its last place. float32 drops 29 bits,
  so this matters only within `_DOUBT` units of the middle between two float32 numbers. Such a field is left to the
  caller.
- For float64, the module `rounding` scales numbers of up to 19 digits by powers up to 10^22. If it is not sure of the
  result, or a field has more digits or a larger power, the field is left to the caller.

Columns of text between those of numbers are returned unchanged. Never reports what is wrong with a text, and never
returns a number that it is not sure of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.tabular.fields import (
    ALL,
    NEWLINE,
    NO_DOT,
    Fields,
    Layout,
    Mask,
    Places,
    check_layout,
    find_fields,
    find_starts,
)
from device_agent.shared.tabular.rounding import scale_once

#: Reads fields one by one; raises ValueError or OverflowError for a field that is not a number.
ReadFields = Callable[[list[bytes]], Sequence[float]]

#: A float64 of at least this size rounds to infinity in float32: its greatest number plus half a step.
TOO_LARGE = 2.0**128 - 2.0**103
#: Below this many fields, reading them one by one is faster than the fixed cost of some 80 NumPy calls.
_FEW = 1500
#: Fields and bytes per block: the arrays stay in the cache, and malloc needs no system call for them.
_FIELDS, _BYTES = 15_000, 96 * 1024
#: Average bytes of a field and its separator up to which `_read_short` is tried; it gives up if more than one field in
#: `_MOSTLY` is not a short whole number.
_SHORT, _MOSTLY = 5, 32
_PAD = 8
_ENDS = b"\n" * _PAD
_PLUS, _MINUS, _ZERO = b"+-0"
_MOST_DIGITS = 22
#: Beyond this power of ten, no number of `_MOST_DIGITS` digits is between `_SMALLEST` and `_LARGEST`.
_MOST_POWER = 60
_EXACT_DIGITS, _EXACT_POWER = 2.0**53, 22
#: Most digits whose number is the sum of two float64.
_WHOLE_DIGITS = 19
_POWERS = np.array([float(f"1e{power}") for power in range(_MOST_POWER + 1)])
#: Divisor for each number of digits after the dot; 1 for `NO_DOT`.
_DIVISORS = np.append(_POWERS, np.ones(NO_DOT - _MOST_POWER))
#: The 29 bits that float32 drops, their value in the middle between two float32 numbers, and the distance from it that
#: counts as doubtful: 64 units, eight times the error bound of 8.
_DROPPED, _MIDDLE, _DOUBT = 0x1FFFFFFF, 0x10000000, 64
#: In this range float32 drops exactly these bits: it is neither subnormal nor near overflow.
_SMALLEST, _LARGEST = 1e-37, 1e38

#: Zeros before the text, so that a word can end in its first number.
_MARGIN = 32
#: The last 0 to 8 characters of a word.
_LAST = np.array([(2**64 - 1 << 64 - 8 * count) % 2**64 for count in range(9)], np.uint64)
_ZEROS, _SIXES, _HIGH_HALVES = (np.uint64(byte * 0x0101010101010101) for byte in (0x30, 0x06, 0xF0))
#: Each step joins pairs of digits in base 10, 100 and 10,000: (base, shift in bits, mask of the results).
_STEPS = [
    (np.uint64(base), np.uint64(bits), np.uint64(mask))
    for base, bits, mask in ((10, 8, 0x00FF00FF00FF00FF), (100, 16, 0x0000FFFF0000FFFF), (10_000, 32, 0xFFFFFFFF))
]


def read_table(
    text: bytes, layout: Layout, read_fields: ReadFields, texts: Sequence[int] = ()
) -> tuple[NDArray[Any], list[list[bytes]]] | None:
    """Returns (n_lines, n_numbers) numbers of `layout.dtype`, and the fields of each column in `texts`.

    Returns None unless each line has `layout.columns` fields, and each of its numbers is finite in float32.

    Args:
        text: lines, each with a newline at its end.
        layout: format of the lines.
        read_fields: returns the numbers of the fields that this parser cannot read.
        texts: positions of columns to return as text.
    """
    columns = layout.columns
    line = text.find(b"\n") + 1 or 1  # the first line stands for all; if they differ, only time is lost
    if len(text) * columns < _FEW * line:
        read = _read_few
    elif line <= _SHORT * columns and not layout.strict:
        read = _read_short
    else:
        read = _read_many
    parts: list[NDArray[Any]] = []
    cut: list[list[bytes]] = [[] for _ in texts]
    try:
        for part in _split(text, min(_BYTES, _FIELDS * line // columns)):
            values, found = read(part, layout, read_fields, texts)
            parts.append(_narrow(values, layout.dtype))
            for fields, more in zip(cut, found):
                fields += more
        return np.concatenate(parts), cut
    except (ValueError, OverflowError):
        return None


def _split(text: bytes, size: int) -> Iterator[bytes]:
    """Yields `text` in parts of whole lines, of about equal length: at most `size` bytes and the rest of a line."""
    size = len(text) // (len(text) // max(size, 1) + 1)
    start = 0
    while start < len(text):
        end = text.find(b"\n", start + size) + 1 or len(text)
        yield text[start:end]
        start = end


def _read_few(
    text: bytes, layout: Layout, read_fields: ReadFields, texts: Sequence[int]
) -> tuple[NDArray[np.float64], list[list[bytes]]]:
    lines, separator, columns = text[:-1].split(b"\n"), layout.separator.encode(), layout.columns
    if any(line.count(separator) != columns - 1 for line in lines):
        raise ValueError("a line does not have the expected number of fields")
    fields = numbers = separator.join(lines).split(separator)
    if layout.numbers is not ALL:
        numbers = np.array(fields, object).reshape(-1, columns)[:, layout.numbers].ravel().tolist()
    values = np.array(read_fields(numbers), np.float64).reshape(len(lines), -1)
    return values, [fields[place::columns] for place in texts]


def _narrow(values: NDArray[np.float64], dtype: type[np.floating[Any]]) -> NDArray[Any]:
    # As Python floats: NumPy 2 would round the limit to the float32 of short numbers, which overflows with a warning.
    if not -TOO_LARGE < float(values.min()) <= float(values.max()) < TOO_LARGE:
        raise ValueError("not finite")
    return values.astype(dtype, copy=False)


def _read_many(
    text: bytes, layout: Layout, read_fields: ReadFields, texts: Sequence[int]
) -> tuple[NDArray[np.float64], list[list[bytes]]]:
    words = _Words(text)
    fields = find_fields(text, words.codes, layout)
    check_layout(words.codes.take(fields.ends) == NEWLINE, layout.columns)
    cut = [fields.cut(text, slice(place, None, layout.columns)) for place in texts]
    lines, fields = len(fields.ends) // layout.columns, fields.choose(layout)
    values, odd = _values(words, fields, layout)
    _hand_over(text, fields, values, np.flatnonzero(odd), read_fields)
    return values.reshape(lines, -1), cut


def _read_short(
    text: bytes, layout: Layout, read_fields: ReadFields, texts: Sequence[int]
) -> tuple[NDArray[np.float64], list[list[bytes]]]:
    """Reads fields of one to four digits (for example, pixels) by arithmetic on all characters.

    If a few fields are different, `read_fields` reads these; if many are, `_read_many` reads all fields. Returns the
    numbers, and the text of each column in `texts`.
    """
    codes = np.frombuffer(_ENDS + text, np.uint8)
    is_end = (codes == ord(layout.separator)) | (codes == NEWLINE)
    ends = np.flatnonzero(is_end[_PAD:])
    check_layout(codes[_PAD:].take(ends) == NEWLINE, layout.columns)
    fields = Fields(find_starts(ends, codes), ends, ends)
    digits, inside = codes - np.uint8(_ZERO), ~is_end
    right = (ends - fields.starts - 1).view(np.uintp) < 4  # 1 to 4 characters: no length is negative then
    right[np.searchsorted(ends, np.flatnonzero((digits > 9) & inside) - _PAD)] = False
    # At each character: the value of it and the character before, then the value of these and the two before.
    pairs = digits[1:] + digits[:-1] * inside[:-1] * np.uint8(10)
    value = pairs[2:] + (pairs[:-2] * (inside[1:-2] & inside[2:-1])).astype(np.uint16) * np.uint16(100)
    found, right = (
        part.reshape(-1, layout.columns)[:, layout.numbers] for part in (value.take(ends + (_PAD - 4)), right)
    )
    values: NDArray[Any] = found.astype(np.float32, order="C")
    odd = np.flatnonzero(~right)
    if len(odd) * _MOSTLY > right.size:
        return _read_many(text, layout, read_fields, texts)
    if len(odd):
        values = values.astype(np.float64)
        _hand_over(text, fields.choose(layout), values.reshape(-1), odd, read_fields)
    return values, [fields.cut(text, slice(place, None, layout.columns)) for place in texts]


def _hand_over(
    text: bytes, fields: Fields, values: NDArray[np.float64], places: Places, read_fields: ReadFields
) -> None:
    if len(places):
        values[places] = read_fields(fields.cut(text, places))


class _Words:
    """A text as characters, and as words of eight characters that end at any position."""

    def __init__(self, text: bytes) -> None:
        padded = np.frombuffer(b"0" * _MARGIN + text, np.uint8)
        self.codes = padded[_MARGIN:]
        self._words: NDArray[np.uint64] = np.ndarray((len(padded) - 7,), "<u8", padded, 0, (1,))

    def load(self, ends: Places, back: int) -> NDArray[np.uint64]:
        """Returns, for each end in `ends`, the eight characters before `end - back`; the last is in the high bits."""
        words: NDArray[np.uint64] = self._words[ends + (_MARGIN - 8 - back)].astype(np.uint64, copy=False)
        return words

    def load_digits(self, ends: Places, after: Places | None, back: int) -> NDArray[np.uint64]:
        """Returns characters like `load`, but skips the dot before a field's last `after` digits (None: no dots)."""
        words = self.load(ends, back)
        if after is not None:
            behind = _LAST.take(after - back, mode="clip")
            words &= behind
            words |= self.load(ends, back + 1) & ~behind
        return words


def _values(words: _Words, fields: Fields, layout: Layout) -> tuple[NDArray[np.float64], Mask]:
    """Returns the (n,) numbers of n fields, and an (n,) mask of the fields that the caller must read."""
    first = words.codes.take(fields.starts)
    minus = first == _MINUS
    signed = minus | (first == _PLUS)
    length = fields.stops - fields.starts - signed
    if fields.after is not None:
        length -= fields.after != NO_DOT
    odd = (length < 1) | (length > _MOST_DIGITS)
    digits, rest = _digits(words, fields, length, odd, exact=layout.dtype is np.float64)
    if layout.strict:
        odd |= (first == _PLUS) | (minus & (digits == 0))
        odd |= _unlike_json(fields, length, words.codes.take(fields.starts + signed))
    values, power = _scale(words, fields, digits)
    inexact = digits >= _EXACT_DIGITS
    if power is not None:
        inexact |= abs(power) > _EXACT_POWER
    if inexact.any():
        odd |= inexact & _in_doubt(values) if rest is None else _refine(values, inexact, digits, rest, fields, power)
    values *= 1.0 - 2.0 * minus
    return values, odd


def _unlike_json(fields: Fields, length: Places, lead: NDArray[np.uint8]) -> Mask:
    """Returns an (n,) mask of numbers that JSON does not allow: `01`, `.5` and `5.`, with or without a sign.

    Each number has `length` digits, the first of which has the code `lead`.
    """
    whole = length if fields.after is None else np.where(fields.after == NO_DOT, length, length - fields.after)
    unlike: Mask = (whole < 1) | ((whole > 1) & (lead == _ZERO))
    if fields.after is not None:
        unlike |= fields.after == 0
    return unlike


def _digits(
    words: _Words, fields: Fields, length: Places, odd: Mask, *, exact: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Returns the `length` digits of each field as one whole number; if `exact`, also its rounding error, else None.

    Sets `odd` for fields with characters that are not digits. For more than 19 digits, the rounding error is NaN.
    """
    digits = _eight(words.load_digits(fields.stops, fields.after, 0), length, odd)
    rest = np.where(length > _WHOLE_DIGITS, np.nan, 0.0) if exact else None
    for back in (8, 16):
        long = np.flatnonzero(length > back)
        if not len(long):
            break
        after = None if fields.after is None else fields.after.take(long)
        wrong = np.zeros(len(long), np.bool_)
        higher = _eight(words.load_digits(fields.stops.take(long), after, back), length.take(long) - back, wrong)
        higher *= _POWERS[back]  # exact: at most 27 bits, and a power of 5 below 2^38, unless over 19 digits
        lower = digits[long]
        digits[long] = both = higher + lower
        if rest is not None:
            rest[long] += np.where(higher >= lower, lower - (both - higher), higher - (both - lower))
        odd[long] |= wrong
    return digits, rest


def _eight(words: NDArray[np.uint64], count: Places, odd: Mask) -> NDArray[np.float64]:
    """Returns the number in each word's last `count` (up to 8) digits; sets `odd` for non-digits; changes `words`."""
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


def _scale(words: _Words, fields: Fields, digits: NDArray[np.float64]) -> tuple[NDArray[np.float64], Places | None]:
    """Returns (n,) `digits` scaled by dot and exponent, and the (n,) powers of ten, None if no field has an `e`."""
    if fields.after is None:
        return digits, None
    raised = np.flatnonzero(fields.stops < fields.ends)
    if not len(raised):
        return digits / _DIVISORS.take(fields.after, mode="clip"), None
    power = np.where(fields.after == NO_DOT, 0, -fields.after)
    power[raised] += _exponents(words, fields.stops.take(raised), fields.ends.take(raised))
    return digits * _POWERS.take(power, mode="clip") / _POWERS.take(-power, mode="clip"), power


def _refine(
    values: NDArray[np.float64],
    inexact: Mask,
    digits: NDArray[np.float64],
    rest: NDArray[np.float64],
    fields: Fields,
    power: Places | None,
) -> Mask:
    """Computes `values` again, rounded once, where `inexact` is set; returns which fields the caller must read.

    A value is (`digits` + `rest`) * 10^`power`; if `power` is None, the position of the dot gives the power.
    """
    places = np.flatnonzero(inexact)
    if power is not None:
        power = power.take(places)
    else:
        power = -(fields.after.take(places) % NO_DOT if fields.after is not None else np.zeros_like(places))
    up, down = (_POWERS.take(part, mode="clip") for part in (power, -power))
    found, sure = scale_once(digits.take(places), rest.take(places), up, down)
    sure &= abs(power) <= _EXACT_POWER
    values[places] = np.where(sure, found, values.take(places))
    inexact[places[sure]] = False
    return inexact


def _exponents(words: _Words, stops: Places, ends: Places) -> Places:
    """Returns the exponent between each `e` (at `stops`) and `ends`; a huge one if it is missing or malformed."""
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
