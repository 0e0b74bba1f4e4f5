"""A model signed by a trusted key whose tables are wrong: found when it is activated, and never a crash."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.device import Device
from support.releases import Releases

from device_agent.inference.exact import ExactKnn
from device_agent.inference.tflite_knn import TfliteKNN
from device_agent.serving.columns import neighbor_classes
from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.protocol.model_info import InFloat64
from device_agent.shared.release import npz
from device_agent.shared.release.model_file import read_info
from device_agent.shared.release.npz import read_arrays
from knnkit.release.signing import FileSigner, sign_release

WRONG: dict[str, Any] = {
    "centre": [np.array(1.0), np.zeros(0, np.float32), np.array(["a"] * 4), np.zeros((0, 4), np.float32)],
    "scale": [np.zeros(0), np.zeros(3), np.zeros(4, complex)],
    "zero": [np.zeros(2), np.array("0")],
    "tied": [np.zeros(2), np.array("0")],
    "classes": [np.array(0), np.full(105, -1), np.full(105, 2**31), np.zeros(3, np.int32), np.zeros(105)],
    "block_offsets": [np.array([-4]), np.array([2**62]), np.zeros((1, 2), int), np.array([0, 0]), np.array([0.5])],
    "block_rows": [np.array([-1]), np.array([2**62]), np.array([1])],
    "steps": [np.array("affine"), np.array(["nonsense"]), np.array([1])],
}
OTHER_SHAPES: dict[str, list[Any]] = {
    "k": [0, -1, 2, 10**6],
    "batch": [0, -1],
    "quantized": [0, -1],
    "cells": [0, -1],
    "n_features": [0, 3],
    "classes": [(), ("a",)],
}


def with_members(model: bytes, **changed: bytes | dict[str, Any]) -> bytes:
    """Returns the model with members of its archive in the place of others; a dictionary is written as .npz."""
    with zipfile.ZipFile(io.BytesIO(model)) as archive:
        start = min(entry.header_offset for entry in archive.infolist())
        members: dict[str, Any] = {name: archive.read(name) for name in archive.namelist()}
    members |= {name.replace("_", "."): data for name, data in changed.items()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, packed(data) if isinstance(data, dict) else data)
    return model[:start] + out.getvalue()


def packed(tables: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **tables)
    return buffer.getvalue()


def tables_of(model: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(model)) as archive:
        return read_arrays(archive.read(constants.EXACT_FILE))


@pytest.mark.parametrize("name", sorted(WRONG))
def test_wrong_tables_make_a_model_unusable(name: str, releases: Releases, tmp_path: Path) -> None:
    model = (releases["iris"] / constants.MODEL_FILE).read_bytes()
    info, path = read_info(io.BytesIO(model)), tmp_path / "model.tflite"
    tables = tables_of(model)
    assert ExactKnn(str(releases["iris"] / constants.MODEL_FILE), info).answer(np.zeros(4, np.float32))
    for wrong in WRONG[name]:
        path.write_bytes(with_members(model, exact_npz=tables | {name: wrong}))
        with pytest.raises(ModelUnusable):
            ExactKnn(str(path), info).answer(np.zeros(4, np.float32))


@pytest.mark.parametrize(
    "own",
    [
        *(InFloat64(bandwidth=wrong) for wrong in (0.0, -1.0)),
        *(InFloat64(radius=wrong) for wrong in (0.0, -1.0)),
        *(InFloat64(class_weights=wrong) for wrong in ((), (1.0,), (-1.0,) * 3, (0.0,) * 3, (1e308,) * 3)),
        *(InFloat64(radius=1.0, outlier=wrong) for wrong in (-1, 3, 2**70)),
    ],
)
def test_numbers_in_float64_that_no_build_writes_are_refused(
    own: InFloat64, releases: Releases, tmp_path: Path
) -> None:
    model, path = (releases["iris"] / constants.MODEL_FILE).read_bytes(), tmp_path / "model.tflite"
    info = replace(read_info(io.BytesIO(model)), float64=own)
    path.write_bytes(model)
    with pytest.raises(ModelUnusable, match=constants.EXACT_FILE):
        ExactKnn(str(path), info)


@pytest.mark.parametrize("p", [0.0, -1.0, 1e308])
def test_a_power_counts_only_for_minkowski(p: float, releases: Releases) -> None:
    path, row = releases["iris"] / constants.MODEL_FILE, np.zeros((1, 4), np.float32)
    info = read_info(path)
    expected = ExactKnn(str(path), info).answers(row)
    found = ExactKnn(str(path), replace(info, float64=InFloat64(p=p))).answers(row)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("damage", ["no tables", "no classes"])
def test_damaged_tables_are_named_also_where_only_the_neighbours_classes_are_read(
    damage: str, releases: Releases, tmp_path: Path
) -> None:
    model, path = (releases["iris"] / constants.MODEL_FILE).read_bytes(), tmp_path / "model.tflite"
    tables = tables_of(model)
    path.write_bytes(model)
    assert neighbor_classes(str(path)).tolist() == tables.pop("classes").tolist()
    path.write_bytes(with_members(model, exact_npz=b"no tables" if damage == "no tables" else tables))
    with pytest.raises(ModelUnusable, match=constants.EXACT_FILE):
        neighbor_classes(str(path))


def test_tables_that_no_golden_row_needs_are_tried_before_a_release_answers(
    device: Device, releases: Releases, tmp_path: Path
) -> None:
    old = device.install(releases["iris"])
    other = releases.copy("iris-next", tmp_path / "other")
    path = other / constants.MODEL_FILE
    path.write_bytes(with_members(path.read_bytes(), exact_npz=b"no tables"))
    sign_release(other, FileSigner.load(releases.private_key))
    problem = device.ask("activate", device.stage(other), code=constants.EXIT_REFUSED)
    assert problem["reason"] == "model-unusable"
    assert constants.EXACT_FILE in problem["message"]
    assert device.answering() == old


@pytest.mark.parametrize("key", sorted(OTHER_SHAPES))
def test_a_graph_of_other_shapes_than_are_promised_is_not_loaded(key: str, releases: Releases, tmp_path: Path) -> None:
    model = (releases["iris"] / constants.MODEL_FILE).read_bytes()
    info, path = read_info(io.BytesIO(model)), tmp_path / "model.tflite"
    for value in OTHER_SHAPES[key]:
        path.write_bytes(with_members(model, knn_json=json_codec.dump_file(replace(info, **{key: value}))))
        with pytest.raises(ModelUnusable, match="the shapes of the graph"):
            TfliteKNN(path)


@pytest.mark.parametrize(
    ("name", "search", "release"),
    [
        ("classify", "full", "spectra"),
        ("classify_batch", "full", "spectra"),
        ("classify_quantized", "quantized", "spectra"),
        ("classify_batch_quantized", "quantized", "spectra"),
        ("classify_cells", "cells", "blobs"),
        ("classify_batch_cells", "cells", "blobs"),
    ],
)
def test_a_model_without_one_of_its_graphs_is_unusable(
    name: str, search: str, release: str, releases: Releases, tmp_path: Path
) -> None:
    model = (releases[release] / constants.MODEL_FILE).read_bytes()
    held, path = len(name).to_bytes(4, "little") + name.encode() + b"\0", tmp_path / "model.tflite"
    assert held in model
    path.write_bytes(model.replace(held, held.replace(b"class", b"glass")))
    with pytest.raises(ModelUnusable, match=rf"cannot load {path}: .*no graph {name}(\n|$)"):
        TfliteKNN(path, search=search).classify(np.zeros((64, read_info(path).n_features), np.float32))


@pytest.mark.parametrize("search", ["quantized", "cells"])
def test_a_search_that_is_promised_and_not_there_is_not_loaded(search: str, releases: Releases, tmp_path: Path) -> None:
    model = (releases["iris"] / constants.MODEL_FILE).read_bytes()
    info, path = read_info(io.BytesIO(model)), tmp_path / "model.tflite"
    path.write_bytes(with_members(model, knn_json=json_codec.dump_file(replace(info, **{search: 64}))))
    with pytest.raises(ModelUnusable, match=f"no graph classify_{search}"):
        TfliteKNN(path, search=search)


@pytest.mark.parametrize("size", [np.nan, 0.0, -0.1, np.inf])
def test_a_table_in_eight_bits_whose_steps_are_no_size_is_not_activated(
    device: Device, releases: Releases, tmp_path: Path, size: float
) -> None:
    """Whether or not the search in eight bits would answer here and now: XNNPACK refuses it, plain kernels do not."""
    other = releases.copy("spectra", tmp_path / "other")
    path = other / constants.MODEL_FILE
    step = step_of(path)
    path.write_bytes(path.read_bytes().replace(step, np.float32(size).tobytes()))
    for packed in (False, True):
        with pytest.raises(ModelUnusable, match=r"invalid quantization steps|unsupported scale"):
            TfliteKNN(path, packed=packed, search="full")
    sign_release(other, FileSigner.load(releases.private_key))
    problem = device.ask("activate", device.stage(other), code=constants.EXIT_REFUSED)
    assert problem["reason"] == "model-unusable"


def step_of(path: Path) -> bytes:
    """The step of a model's table in eight bits, as the file has it."""
    wrapper = TfliteKNN(path, packed=False)._graphs._interpreter._interpreter
    graph = wrapper.GetSubgraphIndexFromSignature(constants.signature(constants.SIGNATURE_ONE, constants.QUANTIZED))
    found = [wrapper.TensorQuantizationParameters(tensor, graph)[0] for tensor in range(wrapper.NumTensors(graph))]
    (step,) = {float(steps[0]) for steps in found if len(steps)}
    return np.float32(step).tobytes()


def claiming(descr: str, shape: tuple[int, ...]) -> bytes:
    """An .npz whose one array says that it is of a type and a shape, and holds nothing."""
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("rows.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        claiming("<f8", (2**45,)),
        claiming("<f8", (2**62, 2**62)),
        claiming("<f8", (-1,)),
        claiming("|O", (3,)),
    ],
)
def test_what_is_no_set_of_arrays_is_refused_in_little_memory(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_arrays(data)


def test_a_packed_set_of_arrays_cannot_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, rows=np.zeros(100_000))
    assert len(buffer.getvalue()) < 10_000
    assert len(read_arrays(buffer.getvalue())["rows"]) == 100_000
    monkeypatch.setattr(npz, "MAX_UNPACKED", 700_000)
    with pytest.raises(ValueError, match="at most 700,000 are allowed"):
        read_arrays(buffer.getvalue())
