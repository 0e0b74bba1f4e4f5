"""The model file: metadata that the standard tool reads, aligned buffers, the same bytes every time."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.device_process import ROOT, DeviceProcess
from support.models import build_model

from device_agent.shared.protocol import constants, model_info
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.release import model_file
from knnkit.data.dataset import dataset
from knnkit.model import selfcheck
from knnkit.model.built import BuiltModel
from knnkit.model.graph.row_blocks import Layout
from knnkit.model.reference.spec import KnnSpec

_BUILD = """
import hashlib, sys, numpy as np
sys.path.append("tests")
from knnkit.data.dataset import dataset
from knnkit.model.reference.spec import KnnSpec
from support.models import build_model
rng = np.random.default_rng(0)
data = dataset(rng.normal(size=(300, 5)), rng.choice(["ash", "elm"], 300))
model = build_model(KnnSpec("trees", 5, "cosine", "distance", "standard", 0.9), data)
print(hashlib.sha256(model.data).hexdigest())
"""


@pytest.fixture(scope="module")
def trees() -> BuiltModel:
    rng = np.random.default_rng(0)
    data = dataset(rng.normal(size=(300, 5)), rng.choice(["ash", "elm"], 300))
    return build_model(KnnSpec("trees", 5, "cosine", "distance", "standard", 0.9), data)


@pytest.fixture(scope="module")
def large() -> BuiltModel:
    rng = np.random.default_rng(0)
    return build_model(KnnSpec("large", 3), dataset(rng.normal(size=(3001, 350)), rng.integers(0, 3, 3001)))


def buffer_places(data: bytes) -> list[tuple[int, int]]:
    """(offset, length) of every buffer that is not empty, as TensorFlow's own reader finds them."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.Model.GetRootAs(data, 0)
    buffers = [model.Buffers(number) for number in range(model.BuffersLength())]
    full = [(buffer._tab, buffer.DataLength()) for buffer in buffers if not buffer.DataIsNone()]
    return [(table.Vector(table.Offset(4)), length) for table, length in full if length]


def test_two_processes_make_the_same_bytes(trees: BuiltModel) -> None:
    run = subprocess.run([sys.executable, "-c", _BUILD], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.stdout.split()[-1] == hashlib.sha256(trees.data).hexdigest(), run.stderr


def test_a_build_leaves_nothing_where_temporary_files_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even until Python ends: an interrupted build ends without what Python does last."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    build_model(KnnSpec("few", 1), dataset(np.eye(3), ["ash", "elm", "oak"]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["trees", "large"])
def test_every_buffer_is_aligned(name: str, request: pytest.FixtureRequest) -> None:
    model: BuiltModel = request.getfixturevalue(name)
    places = buffer_places(model.data)
    assert len(places) > 5
    assert {position % 16 for position, _ in places} == {0}


def test_a_large_matrix_is_stored_once_and_once_in_eight_bits(large: BuiltModel) -> None:
    matrix, eight_bits = 3001 * 350 * 4, 3001 * 352
    assert matrix > 4 << 20
    assert matrix + eight_bits < len(large.data) < 1.05 * (matrix + eight_bits)
    places = buffer_places(large.data)
    table = max(places, key=lambda place: place[1])
    inside = [place for place in places if table[0] < place[0] < table[0] + table[1]]
    assert len(inside) == len(Layout.of(large.reference.enrolled).blocks(3001)) > 5


def test_the_parts_of_a_file_hold_no_copy_of_the_rows(large: BuiltModel) -> None:
    rows = large.reference.enrolled
    own = [part for part in large.parts() if isinstance(part, bytes) or not np.shares_memory(part, rows)]
    assert sum(map(len, own)) == len(large.data) - rows.nbytes


def test_a_full_disk_of_temporary_files_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: Any = None
    full = io.BufferedWriter(io.FileIO("/dev/full", "w"))
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", lambda **_: full)
    model = BuiltModel([b"rows"], {}, nothing, nothing, ())
    with pytest.raises(OSError, match=f"No space left on device: '{tempfile.gettempdir()}'"), selfcheck._written(model):
        pass


def test_the_files_inside_tell_what_the_model_is(trees: BuiltModel, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(trees.data)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [
            constants.LABELS_FILE,
            constants.KNN_FILE,
            constants.EXACT_FILE,
            constants.ROWS_FILE,
        ]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
        assert archive.read(constants.LABELS_FILE) == b"ash\nelm\n"
        assert json.loads(archive.read(constants.KNN_FILE))["classes"] == ["ash", "elm"]
    info = model_file.read_info(path)
    assert info == trees.info
    assert (info.k, info.metric, info.weights, info.scale) == (5, "cosine", "distance", "standard")
    assert info.minimum_runtime[:2] in ("1.", "2.")
    assert info.reject is not None
    assert len(info.reject.thresholds) == 2


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    for name, data in {"empty": b"", "text": b"not a model", "zip": b"PK\5\6" + bytes(18)}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ModelUnusable, match="not a knnkit model"):
            model_file.read_info(tmp_path / name)
    with pytest.raises(ModelUnusable):
        model_file.read_info(tmp_path / "missing")


def test_a_model_for_a_newer_runtime_is_refused_by_the_device(
    trees: BuiltModel, device: DeviceProcess, tmp_path: Path
) -> None:
    path = tmp_path / "model.tflite"
    newer = dataclasses.replace(trees.info, minimum_runtime="99.0.0")
    path.write_bytes(_with_info(trees.data, newer, tmp_path))
    with pytest.raises(
        RuntimeError, match=r"needs TFLite runtime 99\.0\.0, but this is (tflite_runtime|ai_edge_litert) 2\."
    ):
        device.classify(path, np.zeros((1, 5), np.float32))


def test_damaged_tables_are_refused_by_the_device(device: DeviceProcess, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    rows = [[-1.0 / 3.0], [1.0 / 3.0], [5.0 / 3.0]]  # whole numbers would need no tables
    model = build_model(KnnSpec("tied", 1), dataset(rows, [0, 1, 1]))
    path.write_bytes(_with_info(model.data, dataclasses.replace(model.info, n_train=2), tmp_path))
    between = np.zeros((1, 1), np.float32)  # a tie at the k-th place asks for the tables
    with pytest.raises(RuntimeError, match=r"ModelUnusable: exact\.npz inside .* is damaged"):
        device.classify(path, between)


def _with_info(data: bytes, info: model_info.KnnInfo, folder: Path) -> bytes:
    from device_agent.shared.protocol import json_codec

    path = folder / "changed.tflite"
    path.write_bytes(data)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
        start = min(entry.header_offset for entry in archive.infolist())
    members[constants.KNN_FILE] = json_codec.dump_file(info)
    path.write_bytes(data[:start])
    with zipfile.ZipFile(path, "a") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path.read_bytes()


ORACLE = Path(os.environ.get("KNNKIT_TEST_CACHE") or ROOT / ".cache" / "tests") / "tflite-support" / "bin" / "python"


@pytest.mark.skipif(
    not ORACLE.parents[1].joinpath("stamp").exists(),
    reason="tflite-support does not run here: scripts/test model installs it, up to Python 3.11, with libusb-1.0-0",
)
def test_the_standard_tool_reads_name_labels_and_files(trees: BuiltModel, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(trees.data)
    ask = (
        "import json, sys\n"
        "from tensorflow_lite_support.metadata.python import metadata\n"
        "shown = metadata.MetadataDisplayer.with_model_file(sys.argv[1])\n"
        "print(json.dumps([shown.get_metadata_json(), shown.get_packed_associated_file_list(),"
        " shown.get_associated_file_buffer('labels.txt').decode()]))\n"
    )
    run = subprocess.run([ORACLE, "-c", ask, str(path)], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    told, files, labels = json.loads(run.stdout)
    shown = json.loads(told)
    assert shown["name"] == "trees"
    assert "k = 5, cosine" in shown["description"]
    assert files == [constants.LABELS_FILE, constants.KNN_FILE, constants.EXACT_FILE, constants.ROWS_FILE]
    assert labels == "ash\nelm\n"
    outputs = shown["subgraph_metadata"][0]["output_tensor_metadata"]
    labelled = [each["name"] for each in outputs if "associated_files" in each]
    assert labelled == [constants.OUTPUT_PROBABILITIES]
    assert {each["name"] for each in outputs} >= {constants.OUTPUT_LABEL, constants.OUTPUT_INDICES}
