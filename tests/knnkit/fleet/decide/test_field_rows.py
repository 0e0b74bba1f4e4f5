"""Rows that a device prints: each with the id that its content has, and no other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from device_agent.shared.enrolment.enrolled import LocalRow, cells_id, id_of
from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.json_codec import MalformedDocument
from device_agent.shared.protocol.record import replace
from knnkit.data.collected import Columns
from knnkit.fleet.decide.field_rows import Brought, read_columns, read_rows

COLUMNS = {"d" * 64: Columns("plants", ("length", "soil"), ("soil",))}
ROW = LocalRow("", "moss", 1_700_000_000, (2.0, None), "d" * 64, "c" * 16, "5a" * 8)
ROW = replace(ROW, id=id_of(ROW))
KEPT = {"kind": "unknown", "time": 5, "answer": "k0", "distance": 1.0, "row": [2.0, "sand"], "digest": "d" * 64}
KEPT["id"] = cells_id([2.0, "sand"])
#: What a device may not change in a row and keep its id.
OTHERS: dict[str, Any] = {
    "label": "fern", "time": 1_700_000_001, "row": [2.5, None], "digest": "e" * 64, "columns": "b" * 16, "salt": "",
    "values": [1.0],
}  # fmt: skip


def read(taught: dict[str, Any], kept: dict[str, Any]) -> list[str]:
    lines = [json.dumps(each).encode() for each in (taught, kept)]
    return [row.id for rows in read_rows("north", *lines, COLUMNS).rows.values() for row in rows]


def test_ids_are_those_of_the_rows() -> None:
    plain = json_codec.to_plain(ROW)
    assert read(plain, KEPT) == [ROW.id, KEPT["id"]]
    assert read(plain | {"row": [2, None]}, KEPT | {"row": [2, "sand"]}) == [ROW.id, KEPT["id"]], "2 is 2.0"
    assert len({ROW.id, KEPT["id"], id_of(replace(ROW, salt="6b" * 8))}) == 3


@pytest.mark.parametrize("name", OTHERS)
def test_no_device_takes_the_id_of_another_row(name: str) -> None:
    plain = json_codec.to_plain(ROW)
    with pytest.raises(MalformedDocument, match="has the wrong id"):
        read(plain | {name: OTHERS[name]}, KEPT)


def test_a_kept_row_has_the_id_of_its_cells() -> None:
    plain = json_codec.to_plain(ROW)
    for change in ({"row": [2.0, "clay"]}, {"row": [2.0, None]}, {"id": ROW.id}, {"id": KEPT["id"][:-1]}):
        with pytest.raises(MalformedDocument, match="has the wrong id"):
            read(plain, KEPT | change)
    assert read(plain, KEPT | {"answer": "k1", "time": 9})[1] == KEPT["id"], "another board may answer otherwise"


def brought(names: list[str], fingerprint: str) -> Brought:
    """What a device sends that has only a release with these columns, of three rows under a release that is gone."""
    release = {"digest": "e" * 64, "name": "plants", "columns": names, "categories": ["soil"]}
    columns = read_columns(json.dumps(release | {"fingerprint": fingerprint}).encode())
    taught = json.dumps(json_codec.to_plain(ROW)).encode()
    kept = b"\n".join(
        json.dumps(KEPT | more).encode()
        for more in ({"columns": "c" * 16}, {"id": cells_id([3.0, None]), "row": [3, None]})
    )
    return read_rows("north", taught, kept, columns)


def test_rows_of_a_release_that_is_gone_never_get_other_columns() -> None:
    """`height` in place of `length` has the same kinds of cells."""
    found = brought(["length", "soil"], "c" * 16)
    assert found.unplaced == 1, "a row without a fingerprint"
    assert [(of.names, len(rows)) for of, rows in found.rows.items()] == [(("length", "soil"), 2)]
    assert brought(["height", "soil"], "b" * 16) == Brought({}, 3)
