"""Hints for rows that cannot be read: what they suggest leads on, and a stream repeats none."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_agent.serving.columns import Columns
from device_agent.serving.rows import Request, Rows
from device_agent.serving.stream_rows import StreamRows
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.tabular.inputs import Source, open_source

INFO = KnnInfo(
    name="n", k=1, n_features=3, feature_names=("a", "b", "c"), classes=(0, 1), metric="euclidean",
    weights="uniform", scale="none", n_train=2, batch=8, fingerprint="", minimum_runtime="1", versions={},
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("1,2,3\nx,2,3\n", constants.OTHER_LINES),
        ("x,2,3\n", constants.OTHER_LINES),
        ("y,2,3\nx,2,3\n", "correct all lines: of the first 2, none can be read"),
    ],
)
def test_a_stream_is_suggested_only_if_it_could_answer_a_line(text: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(text)
    request = Request(str(tmp_path / "rows.csv"), None, "auto", None, Columns())
    rows = Rows(INFO, None, open_source(request.input, "auto"), request, constants.OTHER_LINES)
    with pytest.raises(BadInput, match="' is not a number") as refused:
        list(rows.blocks())
    assert refused.value.hint == hint


def test_a_good_row_of_an_earlier_block_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.csv").write_text("")
    request = Request(str(tmp_path / "rows.csv"), None, "csv", None, Columns())
    source = open_source(request.input, "csv")
    monkeypatch.setattr(Source, "blocks", lambda _: iter([b"1,2,3\n", b"x,2,3\ny,2,3\n"]))
    with pytest.raises(BadInput, match="'x' is not a number") as refused:
        list(Rows(INFO, None, source, request, constants.OTHER_LINES).blocks())
    assert refused.value.hint == constants.OTHER_LINES


def test_a_stream_gives_the_hint_of_bad_lines_once() -> None:
    request = Request(None, None, "csv", None, Columns())
    rows = StreamRows(INFO, Source(0, "a pipe", "csv", b""), request)
    parsed = [found for _ in range(3) for found in rows.parse(b"1,2\n1,2,3\n")]
    assert [rows.take_hint(found) for found in parsed if found.errors] == ["the model has the columns a, b, c", "", ""]
