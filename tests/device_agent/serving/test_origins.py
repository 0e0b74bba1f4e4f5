"""classify takes rows far from 0 in float64, in every format and way, and subtracts the model's origin first."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.device import Device
from support.device_stream import Stream
from support.offsets import KINDS
from support.releases import Releases

from device_agent.inference.label_map import labeller
from device_agent.inference.tflite_knn import TfliteKNN
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.errors import BadInput, ModelUnusable
from device_agent.shared.protocol.record import replace
from device_agent.shared.release.model_file import read_info

ROWS, LABELS, QUERIES = KINDS["utm"]()


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, releases: Releases) -> Device:
    device = Device(tmp_path_factory.mktemp("ready") / "root", releases)
    device.install(releases["plots"])
    return device


@pytest.fixture(scope="module")
def expected(releases: Releases) -> list[str]:
    """The labels of k = 3 by plain float64 arithmetic."""
    distances = ((QUERIES[:, None] - ROWS) ** 2).sum(axis=2)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :3]
    return [f"c{np.bincount(votes, minlength=4).argmax()}" for votes in LABELS[nearest]]


def csv_of(rows: np.ndarray, *, header: bool = False, order: tuple[int, ...] = (0, 1)) -> str:
    lines = [",".join(repr(row[place]) for place in order) for row in rows.tolist()]
    return "\n".join([",".join(f"f{place}" for place in order)] * header + lines + [""])


@pytest.mark.parametrize("stream", [(), ("--stream",)])
def test_csv_with_and_without_a_header(ready: Device, expected: list[str], stream: tuple[str, ...]) -> None:
    assert ready.run("classify", *stream, input=csv_of(QUERIES)).out.splitlines() == expected
    turned = ready.run("classify", *stream, input=csv_of(QUERIES, header=True, order=(1, 0)))
    assert turned.out.splitlines() == ["label", *expected]


@pytest.mark.parametrize("stream", [(), ("--stream",)])
def test_cells_that_are_read_line_by_line(ready: Device, expected: list[str], stream: tuple[str, ...]) -> None:
    lines = [line.replace(",", ";").replace(".", ",") for line in csv_of(QUERIES).splitlines()]
    quoted = "\n".join([*lines[:-1], '"' + lines[-1].replace(";", '";"') + '"', ""])
    assert ready.run("classify", *stream, input=quoted).out.splitlines() == expected


@pytest.mark.parametrize("stream", [(), ("--stream",)])
def test_json_lines_and_kept_columns(ready: Device, expected: list[str], stream: tuple[str, ...]) -> None:
    arrays = "".join(json.dumps(row) + "\n" for row in QUERIES.tolist())
    found = ready.run("classify", *stream, "--output-format", "csv", input=arrays)
    assert found.out.splitlines() == expected
    objects = "".join(
        json.dumps({"f1": b, "f0": a, "t": place}) + "\n" for place, (a, b) in enumerate(QUERIES.tolist())
    )
    kept = ready.run("classify", *stream, "--keep", "t", "--keep", "f1", input=objects)
    answers = [json.loads(line) for line in kept.out.splitlines()]
    assert [answer["label"] for answer in answers] == expected
    assert [answer["t"] for answer in answers] == list(range(len(QUERIES)))
    assert [answer["f1"] for answer in answers] == QUERIES[:, 1].tolist()


def test_npy(ready: Device, expected: list[str], tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", QUERIES)
    found = ready.run("classify", "--input", tmp_path / "rows.npy", "--output-format", "csv")
    assert found.out.splitlines() == expected


def test_many_blocks_for_replicas_and_the_label_map(ready: Device, expected: list[str]) -> None:
    found = ready.run("classify", input=csv_of(np.tile(QUERIES, (60, 1))))
    assert found.out.splitlines() == expected * 60


def test_the_certificate_covers_the_subtraction(ready: Device, releases: Releases, tmp_path: Path) -> None:
    golden = Golden.from_bytes((releases["plots"] / constants.GOLDEN_FILE).read_bytes())
    assert golden.rows.dtype == np.float64
    assert np.array_equal(golden.rows, QUERIES)
    good = ready.ask("check")
    assert (good["different"], good["identical"]) == (0, len(QUERIES))


def test_a_stream_follows_to_a_release_with_an_origin_and_back(
    device: Device, releases: Releases, expected: list[str]
) -> None:
    middle = ROWS.mean(axis=0)
    device.install(releases["plots-near"])
    with Stream(device) as stream:
        assert [stream.ask(csv_of(row[None]).strip()) for row in QUERIES[:20] - middle] == expected[:20]
        device.install(releases["plots"])
        assert [stream.ask(csv_of(row[None]).strip()) for row in QUERIES[:60]] == expected[:60]


@pytest.mark.parametrize("runtime", ["auto", "ai_edge_litert", "numpy"])
def test_rows_of_any_kind_from_python(releases: Releases, expected: list[str], runtime: str) -> None:
    if runtime == "ai_edge_litert":
        pytest.importorskip("ai_edge_litert")
    model = TfliteKNN(releases["plots"] / constants.MODEL_FILE, runtime=runtime)
    assert model.predict(QUERIES).tolist() == expected
    assert model.predict(QUERIES.tolist()).tolist() == expected
    assert [model.predict(row[None])[0] for row in QUERIES[:50]] == expected[:50]
    assert np.array(model.info.classes)[labeller(model)(model, QUERIES)].tolist() == expected
    assert [model.info.classes[int(model.exactly(row)["label"])] for row in QUERIES[:50]] == expected[:50]
    narrow = QUERIES.astype(np.float32)
    wide = model.classify(narrow.astype(np.float64))
    for one, other in zip(model.classify(narrow), wide):
        assert np.array_equal(one, other)
    with pytest.raises(BadInput, match="row 1, column 0: inf is not a finite float32 number"):
        model.predict(np.array([[0.0, 0.0], [1e300, 0.0]]))
    with pytest.raises(BadInput, match="expected rows of 2 numbers"):
        model.predict(QUERIES[0])


def test_an_origin_of_another_length_is_a_damaged_model(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    path = releases["plots"] / constants.MODEL_FILE
    info = read_info(path)
    assert json_codec.loads(type(info), json_codec.dumps(info)).origin == info.origin
    monkeypatch.setattr("device_agent.inference.tflite_knn.read_info", lambda _: replace(info, origin=(1.0,)))
    with pytest.raises(ModelUnusable, match="origin has 1 numbers for 2 features"):
        TfliteKNN(path)
