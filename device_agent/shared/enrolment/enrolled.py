"""Rows taught on a device: record, id, label and digest.

`device_agent enrolled --json` prints one line per row. Ids are digests that the host recomputes, so no device can claim
the id of another device's row. Loads no NumPy, so that `status` starts fast. No I/O.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.documents import TaughtRows
from device_agent.shared.protocol.input_info import Input
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.protocol.record import record, replace

Label = int | str
Cell = float | str | None
#: Most characters of a text cell.
MOST_TEXT = 1000
#: A whole number, perhaps with a fraction of zeros; group 1 is without it.
WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]{0,18}))(?:\.0+)?")
#: Hexadecimal digits of an id: nobody finds another row with the same one.
ID_DIGITS = 32
#: Cyrillic and Greek letters that look like Latin ones, and those.
_LATIN = str.maketrans(
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u0405\u0406\u0408"
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0455\u0456\u0458\u04bb\u0501\u051b\u051d"
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03b1\u03bd\u03bf\u03c1",
    "ABEKMHOPCTYXSIJaeopcyxsijhdqwABEZHIKMNOPTYXavop",
)
#: The name under which `counts` counts the rows of a regression.
VALUES = "values"


@record
class LocalRow:
    """A row taught on a device; one line of `device_agent enrolled --json`."""

    id: str  # unique in a fleet (`id_of`)
    label: int | str  # in a regression: the row's values as text
    time: int  # seconds since 1970
    row: tuple[Cell, ...]  # the raw cells: numbers; with a table also text, and None for a missing value
    digest: str  # names the release under which the row was taught
    columns: str  # identifies that release's columns (`fingerprint`)
    salt: str = ""  # random, so that equal rows get different ids
    values: tuple[float, ...] = ()  # in a regression: one for each target
    omitted = ("values",)


def cells_id(cells: Sequence[Cell]) -> str:
    """Returns the id of a row kept for labelling: a digest of its cells, so that equal rows have the same id."""
    return _digest([cell if cell is None or isinstance(cell, str) else float(cell) for cell in cells])


def id_of(row: LocalRow) -> str:
    """Returns the id of a taught row: a digest of all its fields."""
    cells = cells_id(row.row)
    return _digest([row.label, row.time, cells, row.digest, row.columns, row.salt, *map(float, row.values)])


def is_plain(text: str) -> bool:
    """Whether a host accepts a text cell of a device: not empty, printable, at most `MOST_TEXT` characters."""
    return bool(text) and text.isprintable() and len(text) <= MOST_TEXT


def _digest(parts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:ID_DIGITS]


def fingerprint(info: KnnInfo) -> str:
    """Returns 16 hexadecimal digits that identify the columns of a model's raw rows."""
    kinds = [] if info.table is None else [column.encoding == "number" for column in info.table.columns]
    kinds = [] if all(kinds) else kinds  # columns of numbers are the same with a table and without
    more = [] if info.input is None else [json_codec.to_plain(_of_rows(info.input))]
    more += [] if info.targets is None else [{"targets": info.targets.names}]
    return hashlib.sha256(json.dumps([info.columns, kinds, *more]).encode()).hexdigest()[:16]


def _of_rows(input: Input) -> Input:
    """Returns `input` without what changes no row: where windows begin and end, how stages are run and checked."""
    window = input.window and replace(input.window, hop=1, time=None, gap=None, recording=None)
    stages = tuple(replace(stage, slides=False, reach=0, step=0) for stage in input.stages)
    return replace(input, bound=0.0, window=window, stages=stages)


def line_of(row: LocalRow) -> str:
    """Returns the line of `enrolled --json` for a row, without a newline."""
    return json_codec.dumps(row)


def digest_of(rows: Iterable[LocalRow]) -> str:
    """Returns the SHA-256, in hexadecimal, of the output of `enrolled --json` for these rows; "" without rows."""
    text = "".join(f"{line_of(row)}\n" for row in rows)
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def text_of(label: Label) -> str:
    """Returns a label as text in Unicode's form NFC, in which a letter with an accent has only one spelling."""
    text = str(label)
    if text.isascii():
        return text
    from unicodedata import normalize

    return normalize("NFC", text)


def spelling(label: Label, *, by_look: bool = False) -> str:
    """Returns a label in lower case and without blanks, to compare it with others.

    With `by_look`, Latin letters replace the Cyrillic and Greek letters that look like them.
    """
    text = str(label)
    if not text.isascii():
        from unicodedata import normalize

        text = normalize("NFKC", text)
    return "".join((text.translate(_LATIN) if by_look else text).casefold().split())


def alike(label: Label, others: Iterable[Label]) -> Label | None:
    """Returns the first of `others` that differs from a text `label` only in blanks, case or look-alikes, or None."""
    spelt = None if isinstance(label, int) else spelling(label, by_look=True)
    return next((one for one in others if spelt and one != label and spelling(one, by_look=True) == spelt), None)


def difference(label: Label, other: Label) -> str:
    """Describes the difference of two labels that `alike` matches: "in blanks or case", for example."""
    if spelling(label) == spelling(other):
        return "in blanks or case"
    points = [
        f"{one} has " + ", ".join(f"U+{ord(sign):04X}" for sign in dict.fromkeys(str(one)) if sign not in str(two))
        for one, two in ((label, other), (other, label))
    ]
    return f"in letters that look alike ({'; '.join(points)})"


def without_fraction(text: str) -> str:
    """Returns a whole number without a fraction of zeros: `2` for `2.00`, `0` for `-0`; other text (`2.5`) as it is."""
    found = WHOLE.fullmatch(text)
    return text if found is None else "0" if found[1] == "-0" else found[1]


def label_of(text: str, classes: Sequence[Label], taught: Iterable[Label] = ()) -> Label | None:
    """Returns the label that a text means: one of `classes`, else of `taught`, else the text itself as a new label.

    If labels are text, `1.0` also means a known label `1`, and the reverse, as in training data
    (`knnkit/data/dataset.label_array`). If labels are whole numbers, returns None for text that is not a whole number.
    """
    text = text_of(text)
    known: dict[str, Label] = {text_of(label): label for label in classes}
    if text in known:
        return known[text]
    if not all(isinstance(label, int) for label in classes):
        names: dict[str, Label] = {name: name for name in map(text_of, taught)}
        known, short = names | known, without_fraction(text)
        same = (label for name, label in known.items() if short == name or without_fraction(name) == text)
        return known.get(text) or next(same, text)
    try:
        return int(text) if str(int(text)) == text and abs(int(text)) < 2**53 else None
    except ValueError:
        return None


def counted_as(row: LocalRow) -> str:
    """Returns the label of a row, as text; `VALUES` for a row of a regression, which has no classes."""
    return VALUES if row.values else str(row.label)


def counts(rows: Iterable[LocalRow]) -> dict[str, int]:
    """Returns label as text (`counted_as`) -> number of rows with it, sorted by label."""
    return dict(sorted(Counter(map(counted_as, rows)).items()))


def summary(rows: Sequence[LocalRow]) -> TaughtRows:
    """Returns the part of `status` about taught rows: digest, number of rows, and rows of each label."""
    return TaughtRows(digest_of(rows), len(rows), counts(rows))
