"""Hints for rows that cannot be read: what they suggest leads on, and a stream repeats none."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agent.serving.columns import Columns
from device_agent.serving.rows import Request, Rows
from device_agent.serving.stream_rows import StreamRows
from device_agent.shared.file_hints import with_file
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


def _refused(data: bytes, format: str, path: Path) -> BadInput:
    path.write_bytes(data)
    request = Request(str(path), None, format, None, Columns())
    with pytest.raises(BadInput) as refused:
        list(Rows(INFO, None, open_source(request.input, format), request, constants.OTHER_LINES).blocks())
    return refused.value


@pytest.mark.parametrize(
    ("line", "way"),
    [
        (b'["1","2","3"]', "numbers have no quotes"),
        (b'[1,2,"3,5"]', "numbers have no quotes and a decimal point"),
        (b'[1,2,"tall"]', "correct"),
        (b"[1,2,3],", "leave out the comma between lines: sed"),
        (b"{'a':1,'b':2,'c':3}", "json.dumps(row)"),
    ],
)
def test_what_is_no_row_of_json_is_told_how_to_become_one(line: bytes, way: str, tmp_path: Path) -> None:
    error = _refused(line + b"\n" + line + b"\n", "jsonl", tmp_path / "rows.jsonl")
    assert way in error.hint
    if ": sed" in error.hint:
        command = with_file(error.hint.partition(": ")[2], "rows.jsonl")
        subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
        assert (tmp_path / "rows-clean.jsonl").read_bytes() == line[:-1] + b"\n" + line[:-1] + b"\n"


def test_a_comment_between_rows_is_left_out_by_the_hint(tmp_path: Path) -> None:
    error = _refused(b"a,b,c\n1,2,3\n# pause\n4,5,6\n", "csv", tmp_path / "rows.csv")
    command = with_file(error.hint.partition(": ")[2], "rows.csv")
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    assert (tmp_path / "rows-clean.csv").read_bytes() == b"a,b,c\n1,2,3\n4,5,6\n"


@pytest.mark.parametrize(
    ("array", "said", "way"),
    [
        (np.array([["1", "2", "3"]]), "the array contains <U1, not numbers", "rows.astype(float)"),
        (np.ones((1, 2)), "expected rows of 3 numbers, found the shape (1, 2)", "the shape (rows, 3)"),
        (np.array([(1.0, 2.0)], [("a", "f8"), ("b", "f8")]), "contains records", "structured_to_unstructured(rows)"),
    ],
)
def test_an_array_of_another_kind_is_told_how_to_be_saved(array: Any, said: str, way: str, tmp_path: Path) -> None:
    np.save(tmp_path / "made.npy", array)
    error = _refused((tmp_path / "made.npy").read_bytes(), "npy", tmp_path / "rows.npy")
    assert said in str(error)
    assert way in error.hint
