"""Rows taught on a device: record, label and digest.

`device_agent enrolled --json` prints a line for each. Loads no NumPy, so that `status` starts fast. No I/O.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence

from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.documents import TaughtRows
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.protocol.record import record

Label = int | str


@record
class LocalRow:
    """A row taught on a device; one line of `device_agent enrolled --json`.

    `id` is unique in a fleet, `time` in seconds since 1970. `row` holds the raw cells: numbers; for a model with a
    table also text, and None where the value is missing. `digest` names the release that it was taught under, `columns`
    is the `fingerprint` of that release's columns.
    """

    id: str
    label: int | str
    time: int
    row: tuple[float | str | None, ...]
    digest: str
    columns: str


def fingerprint(info: KnnInfo) -> str:
    """Returns 16 hexadecimal digits that name the columns of a model's raw rows."""
    kinds = [] if info.table is None else [column.encoding == "number" for column in info.table.columns]
    stages = [json_codec.to_plain(part) for part in (info.window, info.input) if part is not None]
    return hashlib.sha256(json.dumps([info.columns, kinds, *stages]).encode()).hexdigest()[:16]


def line_of(row: LocalRow) -> str:
    """Returns the line of `enrolled --json` for a row, without a newline."""
    return json_codec.dumps(row)


def digest_of(rows: Iterable[LocalRow]) -> str:
    """Returns the SHA-256 of the output of `enrolled --json`; an empty text if there are no rows."""
    text = "".join(f"{line_of(row)}\n" for row in rows)
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def label_of(text: str, classes: Sequence[Label]) -> Label | None:
    """Returns the label for a text: one of `classes`, or a new one; None if labels are numbers, but it is not one."""
    known = {str(label): label for label in classes}
    if text in known:
        return known[text]
    if not all(isinstance(label, int) for label in classes):
        return text
    try:
        return int(text) if str(int(text)) == text and abs(int(text)) < 2**53 else None
    except ValueError:
        return None


def counts(rows: Sequence[LocalRow]) -> dict[str, int]:
    """Returns the number of rows of each label, as text."""
    return dict(sorted(Counter(str(row.label) for row in rows).items()))


def summary(rows: Sequence[LocalRow]) -> TaughtRows:
    """Returns what `status` shows about taught rows."""
    return TaughtRows(digest_of(rows), len(rows), counts(rows))
