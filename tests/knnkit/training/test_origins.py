"""Features far from 0 are classified as float64 classifies them, whatever the rows come from."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier, NeighborhoodComponentsAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from support.device_process import DeviceProcess
from support.offsets import KINDS, Table, write_csv

import knnkit
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants
from device_agent.shared.release.model_file import read_info, read_member
from knnkit import cli
from knnkit.config import parse
from knnkit.release import golden as golden_sets
from knnkit.release import keys
from knnkit.release.build import Built, build_release
from knnkit.release.signing import FileSigner

each_kind = pytest.mark.parametrize("kind", KINDS)
TEXT = "model: {{name: far, data: {data}, k: 3, scale: {scale}, test: {{file: test.csv, label: y}}}}"


def named(labels: np.ndarray) -> np.ndarray:
    return np.array([f"c{label}" for label in labels])


def write_data(folder: Path, form: str, table: Table, scale: str) -> str:
    """Writes the training rows in a format; returns `data:` of deploy.yaml."""
    rows, labels, _ = table
    file = folder / f"train.{form}"
    if form == "skops":
        maps = [StandardScaler()] if scale == "standard" else []
        skops.io.dump(make_pipeline(*maps, KNeighborsClassifier(3)).fit(rows, named(labels)), file)
        return "{skops: train.skops}"
    if form == "csv":
        write_csv(file, rows, labels)
    elif form == "npz":
        names = np.array([f"f{column}" for column in range(rows.shape[1])])
        np.savez(file, rows=rows, y=named(labels), feature_names=names)
    else:
        import pyarrow
        import pyarrow.parquet

        columns: dict[str, Any] = {f"f{column}": values for column, values in enumerate(rows.T)}
        pyarrow.parquet.write_table(pyarrow.table(columns | {"y": named(labels)}), file)
    return f"{{file: {file.name}, label: y}}"


def expected(table: Table, scale: str) -> np.ndarray:
    rows, labels, queries = table
    maps = [StandardScaler()] if scale == "standard" else []
    found: np.ndarray = make_pipeline(*maps, KNeighborsClassifier(3)).fit(rows, named(labels)).predict(queries)
    return found


def build(folder: Path, form: str, table: Table, scale: str = "none") -> Built:
    write_csv(folder / "test.csv", table[2], np.zeros(len(table[2]), int))
    text = TEXT.format(data=write_data(folder, form, table, scale), scale=scale)
    if form == "skops":
        text = text.replace(f"k: 3, scale: {scale}, ", "")
    signer = FileSigner.load(keys.generate(folder / "signing").private)
    return build_release(parse.parse(text, base=folder).builds()[0], signer, out=folder / "release")


@pytest.mark.parametrize(
    ("kind", "form", "scale"),
    [
        *((kind, "csv", "none") for kind in KINDS),
        *zip(itertools.cycle(KINDS), ("parquet", "npz", "skops", "skops"), ("standard", "none", "none", "standard")),
    ],
)
def test_labels_are_those_of_float64_scikit_learn(
    device: DeviceProcess, tmp_path: Path, kind: str, form: str, scale: str
) -> None:
    table = KINDS[kind]()
    built, queries, labels = build(tmp_path, form, table, scale), table[2], expected(table, scale)
    model = tmp_path / "release" / constants.MODEL_FILE
    assert (device.classify(model, queries).predicted == labels).all()
    assert (device.classify(model, queries[:40], one_by_one=True).predicted == labels[:40]).all()
    golden = Golden.from_bytes((tmp_path / "release" / constants.GOLDEN_FILE).read_bytes())
    assert golden.rows.dtype == np.float64
    assert np.array_equal(golden.rows, queries)
    assert (np.array(built.info.classes)[golden.label] == labels).all()
    narrow = queries.astype(np.float32)
    coarse = KNeighborsClassifier(3).fit(table[0].astype(np.float32), named(table[1])).predict(narrow)
    assert (coarse != labels).sum() > 10, "float32 alone would not have done"


@each_kind
@pytest.mark.parametrize("scale", ["none", "standard", "minmax", "robust"])
@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_a_notebook_gets_them_too(kind: str, scale: Any, metric: Any) -> None:
    rows, labels, queries = KINDS[kind]()
    scalers = {"none": [], "standard": [StandardScaler()], "minmax": [MinMaxScaler()], "robust": [RobustScaler()]}
    estimator = make_pipeline(*scalers[scale], KNeighborsClassifier(3, metric=metric)).fit(rows, labels)
    truth = estimator.predict(queries)
    model = knnkit.TfKNN(rows, k=3, labels=labels, scale=scale, metric=metric)
    assert (model.predict(queries) == truth).all()
    assert (knnkit.from_sklearn(estimator).predict(queries) == truth).all()
    assert (model.predict(queries.tolist()) == truth).all()


@pytest.mark.parametrize("kind", ["utm", "gps"])
@pytest.mark.parametrize(
    "maps",
    [
        [PCA(2)],
        [StandardScaler(), PCA(1)],
        [MaxAbsScaler(), PCA(2, whiten=True)],
        [StandardScaler(with_mean=False)],
        [StandardScaler(with_mean=False), PCA(2)],
        [PCA(2), StandardScaler()],
        [MinMaxScaler(), PCA(2), PCA(2)],
    ],
    ids=lambda maps: "-".join(type(each).__name__ for each in maps),
)
def test_maps_of_a_pipeline_begin_at_the_origin(kind: str, maps: list[Any]) -> None:
    rows, labels, queries = KINDS[kind]()
    estimator = make_pipeline(*maps, KNeighborsClassifier(1)).fit(rows, labels)
    model = knnkit.from_sklearn(estimator)
    assert model.fitted.enrolment.space.origin is not None
    assert (model.predict(queries) == estimator.predict(queries)).all()


def test_a_linear_map_without_a_mean_begins_at_the_origin() -> None:
    rows, labels, queries = KINDS["utm"]()
    analysis = NeighborhoodComponentsAnalysis(2, init=np.array([[2.0, 1.0], [-1.0, 1.0]]), max_iter=1)
    estimator = make_pipeline(analysis, KNeighborsClassifier(1)).fit(rows, labels)
    assert (knnkit.from_sklearn(estimator).predict(queries) == estimator.predict(queries)).all()


def test_without_test_rows_the_golden_rows_keep_their_offset(tmp_path: Path) -> None:
    rows, labels, _ = KINDS["utm"]()
    estimator = KNeighborsClassifier(1).fit(rows, labels)
    pair = keys.generate(tmp_path / "signing")
    knnkit.from_sklearn(estimator).build_release(tmp_path / "release", signing_key=pair.private)
    golden = Golden.from_bytes((tmp_path / "release" / constants.GOLDEN_FILE).read_bytes())
    assert np.abs(golden.rows - rows).max() < 1e-6
    assert (golden.label == labels).all()


def test_rows_of_the_users_own_are_checked_in_float64(tmp_path: Path) -> None:
    table = KINDS["utm"]()
    build(tmp_path, "csv", table)
    config = parse.parse(TEXT.format(data="{file: train.csv, label: y}", scale="none"), base=tmp_path).builds()[0]
    own = golden_sets.golden_for(config, tmp_path / "release", tmp_path / "test.csv", "y", 1e-5)
    assert np.array_equal(Golden.from_bytes(own.data).rows, table[2])


@pytest.mark.parametrize("rows", [np.arange(40.0), np.random.default_rng(0).normal(3.0, 1.0, 40)])
def test_other_models_have_no_origin(tmp_path: Path, rows: np.ndarray) -> None:
    labels = np.arange(len(rows)) % 3
    path = knnkit.TfKNN(rows[:, None], k=1, labels=labels).export(tmp_path / "m.tflite")
    assert b'"origin"' not in read_member(path, constants.KNN_FILE)
    assert read_info(path).origin is None


def test_float32_rows_stay_as_they_are() -> None:
    rows, labels, queries = (part.astype(np.float32) for part in KINDS["utm"]())
    model = knnkit.TfKNN(rows, k=3, labels=labels.astype(int))
    assert model.fitted.enrolment.space.origin is None
    assert (model.predict(queries) == KNeighborsClassifier(3).fit(rows, labels).predict(queries)).mean() > 0.3


def test_directions_have_no_origin() -> None:
    rows, labels, _ = KINDS["utm"]()
    assert knnkit.TfKNN(rows, k=3, labels=labels, metric="cosine").fitted.enrolment.space.origin is None
    scaled = knnkit.TfKNN(rows, k=3, labels=labels, metric="cosine", scale="standard")
    assert scaled.fitted.enrolment.space.origin is not None


def test_inspect_and_build_say_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bursts = np.concatenate([start + np.arange(60) * 40_000.0 for start in (1.4e12, 1.7e12)])
    rows = np.column_stack([bursts, 5_600_000.07 + np.arange(120) * 0.05])
    write_csv(tmp_path / "train.csv", rows, np.arange(120) % 3)
    keys.generate(tmp_path / "signing")
    (tmp_path / "deploy.yaml").write_text(
        "model: {name: far, data: {file: train.csv, label: y}}\nsigning: {key: signing.pem}\nrelease: {dir: dist}\n"
    )
    assert cli.main(["build"]) == 0
    said = capsys.readouterr()
    assert "float32 holds the column 'f0' in steps of" in said.out + said.err
    assert "'f1' in steps" not in said.out + said.err
    assert cli.main(["inspect", "dist"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^origin +subtracted from each row in float64: f1 - 560000\d", shown, re.MULTILINE), shown
