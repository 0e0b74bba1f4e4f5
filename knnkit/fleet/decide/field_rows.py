"""Reads what a device's `enrolled` and `ring` commands print.

A device can be broken or hostile: every value is checked, and a single wrong line is an error. Ids are computed again,
so that no device can use the id of another device's row. No I/O.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from device_agent.shared.enrolment import enrolled
from device_agent.shared.enrolment.enrolled import LocalRow
from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.constants import is_digest, is_name
from knnkit.data.collected import Cell, Columns, FieldRow

KINDS = ("unknown", "uncertain", "random")


@dataclass(frozen=True)
class Brought:
    """The rows that one device sent, by model and columns; `unplaced` counts those whose columns are not known."""

    rows: dict[Columns, tuple[FieldRow, ...]]
    unplaced: int = 0


def read_columns(data: bytes) -> dict[str, Columns]:
    """Parses the output of `ring --columns`; returns name and columns of each release's model on the device.

    The keys are the digest of the release and the fingerprint of its columns, which other releases may share.

    Raises:
        MalformedDocument: a line is not what the agent prints.
    """
    return {key: columns for keys, columns in map(_columns, _lines(data)) for key in keys}


def read_rows(device: str, enrolled: bytes, ring: bytes, columns: Mapping[str, Columns]) -> Brought:
    """Returns the rows that a device printed: taught rows (`enrolled`), then kept rows (`ring`), each id once.

    Of several rows with one id, the first counts. `columns` is the result of `read_columns`.

    Raises:
        MalformedDocument: a line is not what the agent prints.
    """
    known: dict[Columns, dict[str, FieldRow]] = {}
    unplaced = 0
    for data, kind in ((enrolled, "enrolled"), (ring, "")):
        for found in _lines(data):
            row = _row(device, found, kind)
            of = columns.get(row.digest) or columns.get(str(found.get("columns")))  # a release may be gone
            if of is None or not _fits(row.cells, of):
                unplaced += 1
            else:
                known.setdefault(of, {}).setdefault(row.id, row)
    return Brought({of: tuple(found.values()) for of, found in known.items()}, unplaced)


def _fits(cells: tuple[Cell, ...], columns: Columns) -> bool:
    if len(cells) != len(columns.names):
        return False
    return all(
        cell is None or isinstance(cell, str) == (name in columns.categories)
        for cell, name in zip(cells, columns.names)
    )


def _lines(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.splitlines():
        found = json_codec.parse(line)
        if not isinstance(found, dict):
            raise json_codec.MalformedDocument("a line is not a JSON object")
        yield found


def _columns(found: Mapping[str, Any]) -> tuple[tuple[str, str], Columns]:
    names, categories = (tuple(map(_text, found.get(key) or ())) for key in ("columns", "categories"))
    digest, model = _text(found.get("digest")), _text(found.get("name"))
    if not (is_digest(digest) and is_name(model) and names and len(set(names)) == len(names)):
        said = "a release lacks its digest, its model's name or its columns, or a column repeats"
        raise json_codec.MalformedDocument(said)
    return (digest, str(found.get("fingerprint") or digest)), Columns(model, names, categories)


def _row(device: str, found: Mapping[str, Any], kind: str) -> FieldRow:
    taught = kind == "enrolled"
    kind = kind or _text(found.get("kind"))
    cells, time = found.get("row"), found.get("time")
    if not (taught or kind in KINDS) or not isinstance(cells, list) or not isinstance(time, int):
        raise json_codec.MalformedDocument("a row lacks its cells or its time, or has an unknown kind")
    answer = None if taught else _label(found.get("answer"))
    row = FieldRow(
        id=_text(found.get("id")),
        device=device,
        time=max(-(2**62), min(time, 2**62)),
        kind=kind,
        label=_label(found.get("label")) if taught else None,
        answer=answer,
        distance=None if taught else _number(found.get("distance")),
        digest=_text(found.get("digest")),
        cells=tuple(
            cell if cell is None else _text(cell) if isinstance(cell, str) else _number(cell) for cell in cells
        ),
    )
    own = enrolled.id_of(json_codec.from_plain(LocalRow, found)) if taught else enrolled.cells_id(row.cells)
    if row.id != own:
        raise json_codec.MalformedDocument(f"the row {row.id} has the wrong id; its content gives {own}")
    return row


def _label(value: Any) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not enrolled.is_plain(value):
        said = f"a text is empty, not printable, or longer than {enrolled.MOST_TEXT:,} characters"
        raise json_codec.MalformedDocument(said)
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise json_codec.MalformedDocument("a cell or a distance is not a finite number")
    return float(value)
