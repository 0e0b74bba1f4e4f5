"""Missing cells, unknown categories and columns too many, on a device: each by its policy, and the stream goes on."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.device import ROOT, Device
from support.releases import Releases

from device_agent.inference.tflite_knn import TfliteKNN
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.protocol.record import replace
from device_agent.shared.raw_rows import own_golden
from device_agent.shared.release.model_file import read_info

HEADER = "length,width,soil,size"


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, releases: Releases) -> Device:
    made = Device(tmp_path_factory.mktemp("plants") / "root", releases)
    made.install(releases["plants"])
    return made


@pytest.fixture(scope="module")
def golden(releases: Releases) -> Golden:
    return Golden.from_bytes((releases["plants"] / constants.GOLDEN_FILE).read_bytes())


def test_the_table_is_in_the_model(releases: Releases) -> None:
    info = read_info(releases["plants"] / constants.MODEL_FILE)
    assert info.columns == ("length", "width", "soil", "size")
    assert info.feature_names == (
        "length", "width", "soil=clay", "soil=loam \u00e9", "soil=sand", "soil=missing", "size",
    )  # fmt: skip
    assert info.ignore_extra


def test_raw_rows_in_and_the_reference_s_labels_out(device: Device, golden: Golden, releases: Releases) -> None:
    assert b"null" in golden.raw, "missing cells are among the golden rows"
    said = device.run("classify", "--format", "jsonl", "--output-format", "csv", input=golden.raw)
    info = read_info(releases["plants"] / constants.MODEL_FILE)
    assert said.out.splitlines() == [str(info.classes[code]) for code in golden.label.tolist()]
    assert said.code == 0
    assert said.err.count("'length' is missing: filled with") == 1
    assert said.err.count("'soil' is missing: filled with 'missing'") == 1


def test_a_device_judges_the_rows_that_it_made_itself(golden: Golden, releases: Releases) -> None:
    info = read_info(releases["plants"] / constants.MODEL_FILE)
    assert own_golden(golden, info).rows.tobytes() == golden.rows.tobytes()
    for raw in (b"", golden.raw + b"[1]\n", golden.raw[:-1].rpartition(b"\n")[0] + b"\n"):
        with pytest.raises(ModelUnusable):
            own_golden(replace(golden, raw=raw), info)


WHOLE = {"length": "6.0", "width": "2.0", "soil": "loam \u00e9", "size": "small"}
#: What a line has -> the cells that differ, the answer but its label, and what the line adds to the counts of `status`.
LINES: dict[str, tuple[dict[str, str | None], dict[str, int] | None, dict[str, Any]]] = {
    "all cells": ({}, {}, {}),
    "an empty cell": ({"length": ""}, {"missing": 1}, {"filled": {"length": 1}}),
    "NaN": ({"length": "NaN"}, {"missing": 1}, {"filled": {"length": 1}}),
    "null": ({"length": "null"}, {"missing": 1}, {"filled": {"length": 1}}),
    "N/A": ({"soil": "N/A"}, {"missing": 1}, {"filled": {"soil": 1}}),
    "two of them": ({"length": " ", "soil": "<NA>"}, {"missing": 2}, {"filled": {"length": 1, "soil": 1}}),
    "an unknown category": ({"soil": "gravel"}, {"unknown_categories": 1}, {"unknown": {"soil": 1}}),
    "both": (
        {"length": "", "soil": "\u7802"},
        {"missing": 1, "unknown_categories": 1},
        {"filled": {"length": 1}, "unknown": {"soil": 1}},
    ),
    "a column too many": ({"when": "today"}, {}, {"left_out": {"when": 1}}),
    "a cell that is refused": ({"width": ""}, None, {"refused": 1}),
    "a word": ({"width": "wide"}, None, {"refused": 1}),
    "a key that is not there": ({"length": None}, {"missing": 1}, {"filled": {"length": 1}}),
    "a cell too many": ({"": "1"}, None, {"refused": 1}),
}


def text_of(kind: str, format: str) -> str:
    """One line of a kind after a whole one; in CSV under a header."""
    changed = LINES[kind][0]
    rows = [WHOLE | dict.fromkeys(changed.keys() - WHOLE.keys(), "0"), {**WHOLE, **changed}]
    if format == "csv":
        names = [name for name in rows[1] if name]
        lines = [",".join("" if row.get(name) is None else str(row[name]) for name in names) for row in rows]
        return "\n".join([",".join(names), lines[0], lines[1] + ",1" * ("" in rows[1])]) + "\n"
    if "" in changed:
        whole = {name: _json(cell) for name, cell in WHOLE.items()}
        return json.dumps(whole) + "\n" + json.dumps([*whole.values(), 1]) + "\n"
    numbers = [{name: _json(cell) for name, cell in row.items() if cell is not None} for row in (WHOLE, rows[1])]
    return "".join(json.dumps(row) + "\n" for row in numbers)


def _json(cell: str) -> Any:
    """A number as a number, `null` and NaN as JSON has them, anything else as text."""
    words = {"null": None, "NaN": float("nan")}
    return words[cell] if cell in words else float(cell) if cell.replace(".", "").isdigit() else cell


@pytest.mark.parametrize("format", ["csv", "jsonl"])
@pytest.mark.parametrize("kind", LINES)
def test_each_kind_of_line_is_answered_by_its_policy_and_counted(device: Device, kind: str, format: str) -> None:
    counts = device.root / constants.COUNTS_FILE
    counts.unlink(missing_ok=True)
    _, expected, counted = LINES[kind]
    text = text_of(kind, format)
    again = text + text.splitlines()[1 if format == "csv" else 0] + "\n"
    said = device.run("classify", "--stream", "--output-format", "jsonl", "--format", format, input=again)
    answers = [json.loads(line) for line in said.out.splitlines()]
    assert [answers[0], answers[-1]] == [{"label": "k2"}] * 2, "the stream goes on"
    assert len(answers) == 3
    assert said.code == (2 if expected is None else 0)
    if expected is None:
        assert set(answers[1]) == {"error", "line"}
        assert said.err.count(f"line {3 if format == 'csv' else 2}: ") == 1
    else:
        assert answers[1] == {"label": "k2"} | expected
        assert said.err.count("(reported once)") == len([name for each in counted.values() for name in each])
    found = device.ask("status")["cells"] or {}
    if kind == "a column too many" and format == "csv":
        counted = {"left_out": {"when": 3}}  # each line has it
    assert {key: value for key, value in found.items() if value and key not in ("release", "schema")} == counted


def test_npy_counts_its_missing_cells(tmp_path: Path, releases: Releases) -> None:
    own = Device(tmp_path / "root", releases)
    own.install(releases["plots-gaps"])
    np.save(tmp_path / "rows.npy", np.array([[1.0, np.nan], [1.0, 2.0], [np.nan, np.nan]]))
    said = own.run("classify", "--input", tmp_path / "rows.npy", "--output-format", "jsonl")
    assert [json.loads(line).get("missing") for line in said.out.splitlines()] == [1, None, 2]
    assert sum(own.ask("status")["cells"]["filled"].values()) == 3


def test_counts_come_after_the_columns_that_are_kept(device: Device) -> None:
    rows = f"when,{HEADER}\nmonday,,2.0,,small\ntuesday,6.0,2.0,clay,small\n"
    ask = ("classify", "--keep", "when", "--proba", "--output-format")
    answers = [json.loads(line) for line in device.run(*ask, "jsonl", input=rows).out.splitlines()]
    assert [(answer["when"], answer.get("missing")) for answer in answers] == [("monday", 2), ("tuesday", None)]
    assert device.run(*ask, "csv", input=rows).out.splitlines()[0] == "when,label,proba_k0,proba_k1,proba_k2"


def test_status_counts_what_was_filled_and_ignored(tmp_path: Path, releases: Releases) -> None:
    own = Device(tmp_path / "root", releases)
    digest = own.install(releases["plants"])
    assert own.ask("status")["cells"] is None
    lines = "".join(text_of(kind, "jsonl") for kind in ("NaN", "null", "both", "a column too many", "a word"))
    own.run("classify", "--stream", input=lines)
    expected = {"filled": {"length": 3}, "unknown": {"soil": 1}, "release": digest, "schema": 1}
    assert own.ask("status")["cells"] == expected | {"left_out": {"when": 1}, "refused": 1}
    assert {"left out   when 1", "refused    1 line"} < set(own.run("status").out.splitlines())
    own.run("classify", input=f"{HEADER}\n,1.0,,small\n")
    assert own.ask("status")["cells"]["filled"] == {"length": 4, "soil": 1}
    assert "filled     length 4, soil 1" in own.run("status").out
    (own.root / constants.COUNTS_FILE).write_text("[")
    assert own.ask("status")["cells"] is None
    own.run("classify", input=f"{HEADER}\n,1.0,,small\n")
    assert own.ask("status")["cells"]["filled"] == {"length": 1, "soil": 1}


def test_csv_with_columns_too_many_is_read(device: Device) -> None:
    rows = f"when,{HEADER},kind\n2024-01-01,,2.0,loam \u00e9,large,?\n2024-01-01,0.1,0.0,sand,small,?\n"
    said = device.run("classify", input=rows)
    assert (said.code, said.out.splitlines()) == (0, ["label", "k2", "k0"])


def test_a_batch_ends_with_the_line_that_no_policy_takes(device: Device) -> None:
    said = device.run("classify", input=f"{HEADER}\n1,,sand,small\n")
    assert said.code == 2
    assert "line 2: column 2 ('width'): the cell is empty" in said.err
    assert "missing: refuse" in said.err


def test_an_array_is_refused_where_the_model_takes_categories(device: Device) -> None:
    data = io.BytesIO()
    np.save(data, np.zeros((2, 4), np.float32))
    said = device.run("classify", "--format", "npy", input=data.getvalue())
    assert said.code == 2
    assert "the array has only numbers" in said.err


def test_the_bench_reads_the_raw_rows(device: Device) -> None:
    assert device.ask("bench", "--seconds", "0.1")["n_features"] == 7


def test_the_model_file_answers_features(releases: Releases, golden: Golden) -> None:
    model = TfliteKNN(releases["plants"] / constants.MODEL_FILE)
    assert np.array_equal(model.classify(golden.rows).label, golden.label)


def test_a_model_of_plain_rows_loads_no_table(tmp_path: Path, releases: Releases) -> None:
    plain = Device(tmp_path / "root", releases)
    plain.install(releases["iris"])
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from device_agent.cli import main; main(sys.argv[1:])"
    code += "; print([name for name in sys.modules if 'features' in name], file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, "--root", str(plain.root), "classify"],
        input="5.1,3.5,1.4,0.2\n", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "setosa\n"
    assert done.stderr.splitlines()[-1] == "[]"
