"""Missing cells, unknown categories and columns too many, on a device: each by its policy, and the stream goes on."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.device import ROOT, Device
from support.releases import Releases

from device_agent.inference.tflite_knn import TfliteKNN
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.protocol.record import replace
from device_agent.shared.raw_rows import own_golden
from device_agent.shared.release.model_file import read_info, read_member

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
    assert (info.ignore_extra, info.schema) == (True, constants.SCHEMA_OF_TABLES)


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


STREAM = [
    ('{"length": 6.0, "width": 2.0, "soil": "loam \u00e9", "size": "small"}', "k2"),
    ('{"width": 2.0, "soil": "loam \u00e9", "size": "small"}', "k2"),
    ('{"length": null, "width": 2.0, "soil": "loam \u00e9", "size": "small"}', "k2"),
    ('{"length": NaN, "width": 2.0, "soil": "loam \u00e9", "size": "small"}', "k2"),
    ('{"length": 6.0, "width": 2.0, "soil": "gravel", "size": "small", "colour": "red"}', "k2"),
    ('{"length": 6.0, "width": null, "soil": "loam \u00e9", "size": "small"}', None),
    ('{"length": 6.0, "width": 2.0, "soil": "loam \u00e9", "size": ""}', None),
    ('{"length": 0.0, "width": 0.0, "soil": "sand", "size": "small"}', "k0"),
]


def test_a_stream_answers_each_line_by_its_policy_and_goes_on(device: Device) -> None:
    said = device.run("classify", "--stream", input="".join(line + "\n" for line, _ in STREAM))
    answers = [json.loads(line) for line in said.out.splitlines()]
    assert [answer.get("label") for answer in answers] == [label for _, label in STREAM]
    assert said.code == 2, "two lines have no answer"
    assert said.err.count("'length' is missing: filled") == 1
    assert said.err.count("'soil' has the unknown category 'gravel': ignored") == 1
    assert "line 6: value 2 ('width'): the cell is empty" in said.err


def test_status_counts_what_was_filled_and_ignored(tmp_path: Path, releases: Releases) -> None:
    own = Device(tmp_path / "root", releases)
    digest = own.install(releases["plants"])
    assert own.ask("status")["cells"] is None
    lines = "".join(line + "\n" for line, _ in STREAM)
    own.run("classify", "--stream", input=lines)
    expected = {"filled": {"length": 3}, "unknown": {"soil": 1}, "release": digest, "schema": 1}
    assert own.ask("status")["cells"] == expected
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


def test_an_agent_that_reads_schema_1_refuses_the_model(releases: Releases) -> None:
    data = read_member(releases["plants"] / constants.MODEL_FILE, constants.KNN_FILE)
    assert json_codec.parse(data)["schema"] > constants.SCHEMA


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
