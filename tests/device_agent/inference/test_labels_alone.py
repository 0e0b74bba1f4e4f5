"""Labels alone: the same answers as with all the rest, of which most never meet the graph; and the check proves it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.device import Device
from support.releases import Releases

from device_agent.inference import label_map as regions
from device_agent.inference.label_map import LabelMap
from device_agent.inference.tflite_knn import TfliteKNN
from device_agent.lifecycle import check
from device_agent.serving import load
from device_agent.shared.protocol import constants
from device_agent.store.store import Store


def queries(path: Path, count: int) -> NDArray[np.float32]:
    """Rows all over the space of a model of two features, a few of them off its map."""
    label_map = regions.map_of(TfliteKNN(path))
    assert label_map is not None
    cells = np.random.default_rng(5).uniform(-0.02, 1.02, (count, 2)) * label_map.table.shape
    return (label_map.centre + label_map.first + cells / label_map.per_unit).astype(np.float32)


def test_labels_are_those_of_classify_and_most_rows_do_not_meet_the_graph(
    releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = releases["blobs"] / constants.MODEL_FILE
    rows = queries(path, 40_000)
    model = TfliteKNN(path)
    expected = model.classify(rows).label
    assert model.labels(rows).tolist() == expected.tolist()
    assert model.predict(rows).tolist() == [model.info.classes[index] for index in expected]
    labels = regions.labeller(model)
    asked: list[int] = []
    ask = TfliteKNN._ask

    def count(self: TfliteKNN, rows: NDArray[np.float32], names: tuple[str, ...]) -> tuple[NDArray[Any], ...]:
        asked.append(len(rows))
        return ask(self, rows, names)

    monkeypatch.setattr(TfliteKNN, "_ask", count)
    assert labels(TfliteKNN(path), rows).tolist() == expected.tolist()
    assert 0 < sum(asked) < 0.2 * len(rows)


def test_a_model_of_more_features_goes_without_a_map(releases: Releases) -> None:
    model = TfliteKNN(releases["iris"] / constants.MODEL_FILE)
    assert regions.map_of(model) is None
    rows = np.random.default_rng(5).uniform(0, 8, (100, 4)).astype(np.float32)
    assert regions.labeller(model)(model, rows).tolist() == model.classify(rows).label.tolist()


@pytest.mark.parametrize(
    "more",
    [
        {"n_train": regions.MAX_ROWS + 1},
        {"classes": tuple(range(regions.MAX_CLASSES + 1))},
        {"n_features": regions.MAX_FEATURES + 1},
    ],
)
def test_it_pays_for_small_models_alone(more: dict[str, Any], releases: Releases) -> None:
    info = TfliteKNN(releases["blobs"] / constants.MODEL_FILE).info
    assert regions.pays(info)
    assert not regions.pays(dataclasses.replace(info, **more))


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_a_long_file_has_the_same_labels_with_and_without_the_rest(
    format: str, device: Device, releases: Releases, tmp_path: Path
) -> None:
    device.install(releases["blobs"])
    rows = queries(releases["blobs"] / constants.MODEL_FILE, 40_000)
    file = tmp_path / f"rows.{format}"
    lines = (f"{x},{y}" for x, y in rows.tolist())
    file.write_text("\n".join(f"[{line}]" if format == "jsonl" else line for line in lines))
    alone, whole = (device.run("classify", "--input", file, *more) for more in ((), ("--proba",)))
    assert (alone.code, whole.code, alone.err) == (0, 0, "")
    assert len(alone.out.splitlines()) == len(rows)
    if format == "jsonl":
        found, expected = ([json.loads(line)["label"] for line in said.out.splitlines()] for said in (alone, whole))
    else:
        found, expected = ([line.partition(",")[0] for line in said.out.splitlines()] for said in (alone, whole))
    assert found == expected
    assert len(set(found)) == 5


def test_npy_labels_alone_are_those_with_the_digest(device: Device, releases: Releases, tmp_path: Path) -> None:
    digest = device.install(releases["blobs"])
    np.save(tmp_path / "rows.npy", queries(releases["blobs"] / constants.MODEL_FILE, 20_000))
    for name, more in (("alone", ()), ("digest", ("--digest",))):
        device.run("classify", "--input", tmp_path / "rows.npy", "--output", tmp_path / f"{name}.npy", *more)
    alone, table = (np.load(tmp_path / f"{name}.npy") for name in ("alone", "digest"))
    assert alone.tolist() == table["label"].tolist()
    assert set(table["digest"].tolist()) == {digest.encode()}


@pytest.mark.parametrize("falsified", [False, True])
def test_the_check_finds_a_label_map_that_lies(
    falsified: bool, device: Device, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.install(releases["blobs"])
    store = Store(device.root)
    draw = regions.draw

    def lie(*parts: Any) -> LabelMap | None:
        drawn = draw(*parts)
        assert drawn is not None
        return dataclasses.replace(drawn, table=np.where(drawn.table == 0, 1, drawn.table).astype(np.int8))

    if falsified:
        monkeypatch.setattr(regions, "draw", lie)
    with contextlib.ExitStack() as stack:
        opened, verdict = load.open_accepted(store, load.answering(store).release, stack)
        certificate = check.certify(opened, verdict, "nonce")
    assert (certificate.different > 0) == falsified
    assert certificate.passed == (not falsified)
    told = {(row.expected_label, row.label) for row in certificate.differences}
    assert told == ({("0", "1")} if falsified else set())
