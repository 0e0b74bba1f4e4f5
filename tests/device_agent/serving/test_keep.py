"""classify --keep: each answer stands beside columns of its own row."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.device import Device
from support.releases import Releases

from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants
from device_agent.shared.release.model_file import read_info

#: Seven blocks of each format: more than wait at once, with as many replicas as there may be.
ROWS = {"csv": 40_000, "jsonl": 12_000}
#: Cells that a table may hold beside its numbers.
TEXTS = ["7", "007", "", "a b", "a,b", 'say "hi"', "Tür; 1\u00b0", "1e5", "2026-11-29T08:00:00Z", "nan", "'", "\u65e5"]


class Ready:
    """A device with `iris`, and rows whose labels are known."""

    def __init__(self, device: Device, release: Path) -> None:
        self.device = device
        self.digest = device.install(release)
        info = read_info(release / constants.MODEL_FILE)
        golden = Golden.from_bytes((release / constants.GOLDEN_FILE).read_bytes())
        self.names = info.feature_names
        self.rows = golden.rows.tolist()
        self.labels = [str((*info.classes, constants.UNKNOWN_LABEL)[label]) for label in golden.label]


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, releases: Releases) -> Ready:
    return Ready(Device(tmp_path_factory.mktemp("ready") / "root", releases), releases["iris"])


def table(chosen: list[int], ready: Ready, ids: list[str], quoting: Any = csv.QUOTE_MINIMAL) -> str:
    """CSV in which an id stands before the features, and other columns between and behind."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=quoting, lineterminator="\n")
    writer.writerow(["id", *ready.names[:2], "note", *ready.names[2:], "place"])
    for number, place in zip(ids, chosen):
        row = ready.rows[place]
        writer.writerow([number, *row[:2], f"note {number}", *row[2:], "here"])
    return buffer.getvalue()


def objects(chosen: list[int], ready: Ready, ids: list[Any]) -> str:
    return "".join(
        json.dumps({"id": number, "note": f"note {number}", **dict(zip(ready.names, ready.rows[place]))}) + "\n"
        for number, place in zip(ids, chosen)
    )


@pytest.mark.parametrize("stream", [(), ("--stream",)], ids=["batch", "stream"])
@pytest.mark.parametrize("answers", ["csv", "jsonl"])
@pytest.mark.parametrize("rows", ["csv", "jsonl"])
def test_each_of_many_answers_is_joined_to_its_row(
    ready: Ready, rows: str, answers: str, stream: tuple[str, ...]
) -> None:
    chosen = np.random.default_rng(0).integers(0, len(ready.rows), ROWS[rows]).tolist()
    ids = [str(number * 7919 % 1_000_003) for number in range(ROWS[rows])]
    text = (table if rows == "csv" else objects)(chosen, ready, ids)
    argv = ["classify", *stream, "--keep", "id", "--keep", ready.names[0], "--ignore-extra", "--output-format", answers]
    said = ready.device.run(*argv, input=text)
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    if answers == "csv":
        if rows == "csv":
            assert lines.pop(0) == f"id,{ready.names[0]},label"
        found = [(line.split(",")[0], float(line.split(",")[1]), line.split(",")[2]) for line in lines]
    else:
        found = [(r["id"], float(r[ready.names[0]]), r["label"]) for r in map(json.loads, lines)]
    assert found == [(n, ready.rows[place][0], ready.labels[place]) for n, place in zip(ids, chosen)]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("more", [(), ("--proba", "--neighbors", "--digest")])
def test_any_text_is_kept_as_it_is(ready: Ready, quoting: Any, more: tuple[str, ...]) -> None:
    rng = random.Random(1)
    ids = [rng.choice(TEXTS) + rng.choice(["", str(number)]) for number in range(500)]
    chosen = [number % len(ready.rows) for number in range(500)]
    text = table(chosen, ready, ids, quoting)
    keep = ["--keep", "id", "--keep", "note", "--ignore-extra", *more]
    for data in (text, text.replace("\n", "\r\n"), text.replace("\n", "\n\n")):
        said = ready.device.run("classify", *keep, input=data)
        assert said.code == 0, said.err
        found = list(csv.DictReader(io.StringIO(said.out)))
        assert [(row["id"], row["note"], row["label"]) for row in found] == [
            (n, f"note {n}".strip(), ready.labels[place]) for n, place in zip(ids, chosen)
        ]


def test_json_values_of_any_kind_are_kept(ready: Ready) -> None:
    ids = [7, 7.5, "7", None, True, {"a": [1, "\n"]}, 2**70, "\u65e5\n", ""]
    text = objects(list(range(len(ids))), ready, ids)
    said = ready.device.run("classify", "--keep", "id", "--ignore-extra", input=text)
    assert [json.loads(line)["id"] for line in said.out.splitlines()] == ids
    said = ready.device.run("classify", "--keep", "id", "--ignore-extra", "--output-format", "csv", input=text)
    assert len(said.out.splitlines()) == len(ids), "each answer stands in one line"


@pytest.mark.parametrize("value", ["NaN", "-Infinity", '"\\ud800"', "1e999"])
def test_what_json_cannot_hold_makes_a_bad_line(ready: Ready, value: str) -> None:
    good = objects([0], ready, ["a"])
    text = good + good.replace('"a"', value) + good
    said = ready.device.run("classify", "--stream", "--keep", "id", "--ignore-extra", input=text)
    assert said.code == constants.EXIT_USAGE
    assert [record.get("id") for record in map(json.loads, said.out.splitlines())] == ["a", None, "a"]
    assert "line 2: 'id': " in said.err


def test_a_bad_line_has_as_many_fields_as_an_answer(ready: Ready) -> None:
    lines = table([0, 1, 2], ready, ["a", "b", "c"]).splitlines()
    lines[2] = lines[2].replace("note b,", "note b,x")
    text = "\n".join(lines) + "\n"
    said = ready.device.run("classify", "--stream", "--keep", "id", "--ignore-extra", input=text)
    assert said.out.splitlines() == ["id,label", f"a,{ready.labels[0]}", ",", f"c,{ready.labels[2]}"]


def test_a_kept_column_needs_no_ignore_extra_and_others_do(ready: Ready) -> None:
    text = ",".join(("id", *ready.names)) + "\n" + ",".join(map(str, ["x", *ready.rows[0]])) + "\n"
    said = ready.device.run("classify", "--keep", "id", input=text)
    assert said.out.splitlines() == ["id,label", f"x,{ready.labels[0]}"]
    said = ready.device.run("classify", "--keep", "id", input=table([0], ready, ["x"]))
    assert said.code == constants.EXIT_USAGE
    assert "the model has no column 'note'" in said.err


def test_features_are_kept_without_a_header(ready: Ready) -> None:
    text = "".join(",".join(map(str, row)) + "\n" for row in ready.rows)
    said = ready.device.run("classify", "--keep", ready.names[1], input=text)
    assert [float(line.split(",")[0]) for line in said.out.splitlines()] == [row[1] for row in ready.rows]


@pytest.mark.parametrize(
    ("argv", "text", "why"),
    [
        (["id"], "5.1,3.5,1.4,0.2\n", "no header line says which column is 'id'"),
        (["id"], "[5.1,3.5,1.4,0.2]\n", "an array has no key 'id'"),
        (["label"], "", "the answers already have a column of that name"),
        (["id", "--output-format", "npy"], "1,2,3,4\n", "holds no text"),
    ],
)
def test_what_cannot_be_kept_is_said(ready: Ready, argv: list[str], text: str, why: str) -> None:
    said = ready.device.run("classify", "--keep", *argv, input=text)
    assert said.code == constants.EXIT_USAGE
    assert why in said.err


def test_the_header_and_the_object_must_have_the_column(ready: Ready) -> None:
    header = ",".join(ready.names) + "\n"
    said = ready.device.run("classify", "--keep", "Id", input="id," + header + "1,5,3,1,1\n")
    assert "the header has no column 'Id'; 'id' is similar, but not the same name" in said.err
    row = json.dumps(dict(zip(ready.names, ready.rows[0])))
    assert "the object has no key 'id' (--keep)" in ready.device.run("classify", "--keep", "id", input=row).err


def test_npy_rows_have_no_columns_to_keep(ready: Ready) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array(ready.rows, np.float32))
    argv = ["--keep", "id", "--output-format", "csv"]
    assert "the columns of NPY have no names" in ready.device.run("classify", *argv, input=buffer.getvalue()).err
