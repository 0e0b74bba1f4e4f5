"""A classifier that was fitted with scikit-learn becomes a release, by deploy.yaml and from Python."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier, NeighborhoodComponentsAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, Normalizer, RobustScaler, StandardScaler
from support.device_process import DeviceProcess

import knnkit
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants, model_info
from device_agent.shared.release.model_file import read_info
from knnkit import cli
from knnkit.config import load, parse
from knnkit.errors import BuildError, ConfigError, DataError
from knnkit.release import golden as golden_sets
from knnkit.release import keys
from knnkit.release.golden import golden_for
from knnkit.training import source
from knnkit.training.sklearn_importer import load_skops

IRIS = load_iris()
NAMES = np.asarray(IRIS.target_names)[IRIS.target]
KEPT, HELD_OUT, LABELS, TRUTH = train_test_split(IRIS.data, NAMES, test_size=0.3, random_state=0)
HEADER = "sepal_length,sepal_width,petal_length,petal_width"
YAML = """
model: {name: fruit, data: {skops: pipeline.skops}, test: {file: test.csv, label: species}}
signing: {key: signing.pem}
"""
NO_TEST = YAML.replace(", test: {file: test.csv, label: species}", "")


def table(rows: np.ndarray, labels: Any, header: str = HEADER) -> str:
    lines = [",".join([*(repr(float(cell)) for cell in row), str(label)]) for row, label in zip(rows, labels)]
    return "\n".join([f"{header},species", *lines, ""])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    keys.generate(tmp_path / "signing")
    estimator = make_pipeline(StandardScaler(), KNeighborsClassifier(5, weights="distance")).fit(KEPT, LABELS)
    skops.io.dump(estimator, tmp_path / "pipeline.skops")
    (tmp_path / "test.csv").write_text(table(HELD_OUT, TRUTH))
    (tmp_path / "deploy.yaml").write_text(YAML)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    capsys.readouterr()
    assert cli.main(["build", "--json"]) == 0
    out, err = capsys.readouterr()
    return json.loads(out)["releases"][0], err


def test_a_pipeline_in_a_file_becomes_a_release(
    folder: Path, device: DeviceProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    told, _ = build(capsys)
    estimator = load_skops(folder / "pipeline.skops")
    assert told["accuracy"] == estimator.score(HELD_OUT, TRUTH)
    assert told["accuracy_rows"] == len(HELD_OUT)
    assert told["warnings"] == []
    info = read_info(folder / "dist" / constants.MODEL_FILE)
    assert (info.k, info.metric, info.weights, info.scale) == (5, "euclidean", "distance", "standard")
    assert info.feature_names == tuple(HEADER.split(","))  # fitted with an array: the test file names them
    assert cli.main(["verify", "dist", "--key", "signing.pub"]) == 0
    golden = Golden.from_bytes((folder / "dist" / constants.GOLDEN_FILE).read_bytes())
    assert np.array_equal(golden.rows, HELD_OUT.astype(np.float32))
    answers = device.classify(folder / "dist" / constants.MODEL_FILE, golden.rows)
    assert answers.predicted.tolist() == estimator.predict(HELD_OUT).tolist()
    assert np.array_equal(answers.indices, golden.indices[:, :5])
    again, _ = build(capsys)
    assert again["fresh"] is False
    skops.io.dump(estimator.set_params(kneighborsclassifier__n_neighbors=3), folder / "pipeline.skops")
    changed, _ = build(capsys)
    assert changed["fresh"] is True
    assert changed["manifest"]["k"] == 3


FACTORS = "each feature is scaled by a different factor"
FOLDED: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "a scaler of ours": ([StandardScaler()], {}, "scale standard"),
    "a scaler of ours, and cosine": ([RobustScaler()], {"metric": "cosine"}, "scale robust"),
    "nothing": ([], {}, "scale none"),
    "nothing, and cosine": ([], {"metric": "cosine"}, "scale none"),
    "a scaler that centres alone": ([StandardScaler(with_std=False)], {}, "scale none"),
    "a scaler to another range": ([MinMaxScaler((-1, 1))], {}, FACTORS),
    "another scaler": ([MaxAbsScaler()], {}, FACTORS),
    "another scaler, and cosine": (
        [MaxAbsScaler()],
        {"metric": "cosine"},
        "each feature is shifted, and each one is scaled by a different factor",
    ),
    "two scalers": ([MinMaxScaler(), StandardScaler()], {}, FACTORS),
    "rows of one length": ([Normalizer()], {}, "each row is divided by its length (l2)"),
    "a scaler, and rows of one sum": (
        [StandardScaler(), Normalizer("l1")],
        {},
        "each feature is shifted, and each one is scaled by a different factor; "
        "each row is divided by the sum of its absolute values (l1)",
    ),
    "a scaler, and a projection": (
        [StandardScaler(), PCA(2)],
        {},
        "a linear map (PCA or NCA, with any scaling before it) of 4 features to 2 coordinates",
    ),
    "a projection, and a scaler": (
        [PCA(3), StandardScaler()],
        {},
        "a linear map (PCA or NCA, with any scaling before it) of 4 features to 3 coordinates; "
        "each coordinate is scaled by a different factor",
    ),
}


@pytest.mark.parametrize("name", FOLDED)
def test_inspect_says_what_was_folded_in(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps, options, said = FOLDED[name]
    estimator = make_pipeline(*steps, KNeighborsClassifier(5, **options)).fit(KEPT, LABELS)
    (tmp_path / "model.tflite").write_bytes(knnkit.from_sklearn(estimator).build().data)
    assert cli.main(["inspect", str(tmp_path / "model.tflite")]) == 0
    told = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    metadata = (tmp_path / "model.tflite").read_bytes()  # what a tool that knows only TFLite Metadata shows
    assert (b"the maps of a Pipeline folded in" in metadata) is not said.startswith("scale ")
    assert (b"scale none" in metadata) is (said == "scale none")
    if said.startswith("scale "):
        assert "steps" not in told
        assert told["neighbours"].endswith(f", {said}")
    else:
        assert told["steps"].strip() == said
        assert "scale" not in told["neighbours"]
    assert cli.main(["inspect", str(tmp_path / "model.tflite"), "--json"]) == 0
    assert "; ".join(json.loads(capsys.readouterr().out)["folded_in"]) == ("" if said.startswith("scale ") else said)


def test_build_says_what_it_folded_in(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    estimator = make_pipeline(StandardScaler(), PCA(2), KNeighborsClassifier(3)).fit(KEPT, LABELS)
    skops.io.dump(estimator, folder / "pipeline.skops")
    _, err = build(capsys)
    said = "a linear map (PCA or NCA, with any scaling before it) of 4 features to 2 coordinates"
    assert f"\n  steps before the search: {said}\n" in err
    assert "scale none" not in err


def test_a_build_ends_if_the_estimator_itself_answers_differently(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole numbers tie often, and a search tree breaks ties in another order."""
    rows = np.random.default_rng(5).integers(0, 3, (300, 4)).astype(float)
    estimator = KNeighborsClassifier(3, algorithm="kd_tree", leaf_size=2).fit(rows[:200], np.resize(NAMES, 200))
    skops.io.dump(estimator, folder / "pipeline.skops")
    (folder / "test.csv").write_text(table(rows[200:], np.resize(NAMES, 100)))
    gate = "gates: {agreement: 0.99}\n"
    for text, said in (
        (YAML + gate, "of the test rows; gates: {agreement} needs 99 %"),
        (NO_TEST + gate, "scikit-learn's own answers to the test rows are not known, so `agreement`"),
        (NO_TEST.replace("skops: pipeline.skops", "sklearn: iris") + gate, "compares a fitted scikit-learn estimator"),
    ):
        (folder / "deploy.yaml").write_text(text)
        capsys.readouterr()
        assert cli.main(["build"]) == 2
        assert said in capsys.readouterr().err
        assert not (folder / "dist").exists()
    (folder / "deploy.yaml").write_text(YAML + gate.replace("0.99", "0.4"))
    build(capsys)


def test_without_test_rows_training_rows_stand_in_and_no_accuracy_is_claimed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "deploy.yaml").write_text(NO_TEST)
    told, err = build(capsys)
    assert told["accuracy"] is None
    assert "pipeline.skops: there are no test rows: training rows stand in as golden rows, and no accuracy" in err
    golden = Golden.from_bytes((folder / "dist" / constants.GOLDEN_FILE).read_bytes())
    assert np.allclose(golden.rows, KEPT, rtol=1e-6, atol=1e-6)
    assert (golden.truth == -1).all()
    assert read_info(folder / "dist" / constants.MODEL_FILE).feature_names == tuple(f"feature_{i}" for i in range(4))
    (folder / "deploy.yaml").write_text(NO_TEST + "gates: {accuracy: 0.5}\n")
    assert cli.main(["build"]) == constants.EXIT_USAGE
    assert "no golden row has a known true class" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "key", "said"),
    [
        ("data: {skops: a.skops}, k: 3", "k", "the estimator of `skops` decides k: leave it out"),
        ("data: {skops: a.skops}, scale: none, metric: l2x", "metric", "'l2x' is not one of"),
        ("metric: cosine, weights: uniform, data: {skops: a.skops}", "metric", "decides metric, weights: leave them"),
        ("data: {skops: a.skops}, scale: standard", "scale", "decides scale: leave it out"),
        ("data: {skops: a.skops}, test: 0.3", "test", "write test: {file: test.csv}, or leave `test` out"),
        ("data: {skops: a.skops, label: y}", "label", "unknown key 'label'; known here: skops"),
        ("data: {file: a.csv, lable: y}", "lable", "unknown key 'lable'; did you mean 'label'?"),
        ("data: {sklearn: iris}, test: {file: a.csv, lable: y}", "lable", "did you mean 'label'?"),
        ("data: {skop: a.skops}", "skop", "unknown key 'skop'"),
    ],
)
@pytest.mark.parametrize("several", [False, True])
def test_what_the_estimator_decides_is_not_said_again(model: str, key: str, said: str, several: bool) -> None:
    entry = f"{{name: fruit,\n  {model}}}"
    text = f"release: {{dir: dist}}\nmodels:\n- {entry}\n" if several else f"release: {{dir: dist}}\n\nmodel: {entry}\n"
    with pytest.raises(ConfigError) as caught:
        parse.parse(text, source="deploy.yaml")
    assert said in str(caught.value)
    first = str(caught.value).splitlines()
    assert first[0].startswith("deploy.yaml:4: ")
    place = re.search(rf"\b{key}:", model)
    assert place is not None
    assert first[2].index("^") - first[1].index(model) == place.start()


def test_nothing_to_hold_out_may_be_said() -> None:
    text = "model: {name: fruit, data: {skops: a.skops}, test: 0, seed: 4, reject: 0.9}"
    parsed = parse.parse(text)
    assert isinstance(parsed.builds()[0].model.data, parse.SkopsData)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("pipeline.skops", "not a file of skops", "pipeline.skops is not a file in the skops format"),
        ("test.csv", table(HELD_OUT[:, :3], TRUTH, "a,b,c"), "3 features beside 'species', but"),
        ("test.csv", table(HELD_OUT, ["orchid"] * len(TRUTH)), "a label that no training row has: 'orchid'"),
        ("deploy.yaml", YAML.replace("pipeline", "pipelin"), "pipelin.skops: no such file"),
    ],
)
def test_what_does_not_fit_is_named_and_leaves_nothing(
    name: str, text: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / name).write_text(text)
    assert cli.main(["build"]) == constants.EXIT_USAGE
    assert said in capsys.readouterr().err
    assert not (folder / "dist").exists()


def test_the_names_that_it_was_fitted_with_choose_the_columns_of_the_test_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    estimator = load_skops(folder / "pipeline.skops")
    names = HEADER.split(",")
    expected = estimator.score(HELD_OUT, TRUTH)
    estimator[0].feature_names_in_ = np.array(names, dtype=object)
    skops.io.dump(estimator, folder / "pipeline.skops")
    turned = table(HELD_OUT[:, ::-1], TRUTH, ",".join(reversed(names)))
    (folder / "test.csv").write_text(turned)
    told, _ = build(capsys)
    assert told["accuracy"] == expected > 0.9
    (folder / "test.csv").write_text(table(HELD_OUT, TRUTH, "a,b,c,d"))
    assert cli.main(["build"]) == constants.EXIT_USAGE
    assert "no column 'sepal_length'" in capsys.readouterr().err


def test_columns_that_are_dropped_by_number_stand_in_the_test_file(folder: Path) -> None:
    chosen = ColumnTransformer([("size", StandardScaler(), [0, 2, 3])])
    estimator = make_pipeline(chosen, KNeighborsClassifier(5)).fit(KEPT, LABELS)
    skops.io.dump(estimator, folder / "pipeline.skops")
    material = source.load(load.load(folder / "deploy.yaml").builds()[0])
    assert material.held_out is not None
    assert material.training.feature_names == material.held_out.feature_names == tuple(HEADER.split(","))


def test_own_rows_are_judged_against_the_imported_classifier(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(capsys)
    parsed = parse.parse(YAML, base=folder).builds()[0]
    own = golden_for(parsed, folder / "dist", folder / "test.csv", None, 1e-5)
    golden = Golden.from_bytes((folder / "dist" / constants.GOLDEN_FILE).read_bytes())
    asked = Golden.from_bytes(own.data)
    assert np.array_equal(asked.indices, golden.indices)
    assert np.array_equal(asked.truth, golden.truth)
    other = make_pipeline(MinMaxScaler(), KNeighborsClassifier(5, weights="distance")).fit(KEPT, LABELS)
    skops.io.dump(other, folder / "pipeline.skops")  # the same rows, scaled otherwise
    with pytest.raises(Exception, match="was built from other rows"):
        golden_for(parsed, folder / "dist", folder / "test.csv", None, 1e-5)


def test_more_own_rows_than_a_certificate_covers_are_drawn_from_and_counted(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build(capsys)
    monkeypatch.setattr(golden_sets, "MAX_OWN_ROWS", 10)
    parsed = parse.parse(YAML, base=folder).builds()[0]
    own = golden_for(parsed, folder / "dist", folder / "test.csv", None, 1e-5)
    assert (own.rows, own.left_out) == (10, len(HELD_OUT) - 10)
    assert len(Golden.from_bytes(own.data).rows) == 10


PIPELINES = {
    "two scalers": make_pipeline(MinMaxScaler(), RobustScaler(), KNeighborsClassifier(3)),
    "cosine": make_pipeline(StandardScaler(), KNeighborsClassifier(4, metric="cosine")),
    "PCA": make_pipeline(StandardScaler(), PCA(2), KNeighborsClassifier(3, weights="distance")),
    "whitened, normalized": make_pipeline(PCA(3, whiten=True), Normalizer(), KNeighborsClassifier(3, p=1)),
    "NCA": make_pipeline(NeighborhoodComponentsAnalysis(2, max_iter=5, random_state=0), KNeighborsClassifier(3)),
}


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_rows_that_stand_in_are_near_the_training_rows_for_the_classifier(name: str, tmp_path: Path) -> None:
    keys.generate(tmp_path / "signing")
    estimator = PIPELINES[name].fit(KEPT, LABELS)
    imported = knnkit.from_sklearn(estimator, name="iris")
    stand_in = imported.fitted.training_rows()
    again = estimator[:-1].transform(stand_in.rows.astype(np.float64))
    expected = estimator[:-1].transform(KEPT)
    if name == "cosine":  # where only the direction of a row matters, its length is lost
        again, expected = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (again, expected))
    assert np.allclose(again, expected, rtol=1e-4, atol=1e-5)
    assert stand_in.labels.tolist() == LABELS.tolist()
    built = imported.build_release(tmp_path / "dist", signing_key=tmp_path / "signing.pem", version="2.0.0", sequence=7)
    assert (built.manifest.version, built.manifest.sequence, built.accuracy) == ("2.0.0", 7, None)
    assert len(built.warnings) == 1
    assert cli.main(["verify", str(tmp_path / "dist"), "--key", str(tmp_path / "signing.pub")]) == 0


def test_from_python_with_test_rows(tmp_path: Path) -> None:
    keys.generate(tmp_path / "signing")
    codes, truth = (
        np.array([str(len(label)) for label in labels]) for labels in (LABELS, TRUTH)
    )  # text that is digits
    estimator = KNeighborsClassifier(3).fit(KEPT, codes)
    imported = knnkit.from_sklearn(estimator, name="iris", reject=0.95)
    built = imported.build_release(
        tmp_path / "dist",
        signing_key=tmp_path / "signing.pem",
        test=(HELD_OUT, truth),
        device_class="zero",
        gates=model_info.Gates(accuracy=0.5),
    )
    assert built.info.classes == ("10", "6", "9")
    assert built.accuracy_rows == len(truth)
    assert built.accuracy is not None
    assert built.manifest.device_class == "zero"
    assert built.info.reject is not None
    assert built.info.reject.measured_rows == len(truth)
    assert built.warnings == ()
    assert repr(built).startswith(
        f"<Built iris 1.0.0 (sequence {built.manifest.sequence}) in {tmp_path / 'dist'}: accuracy "
    )
    before = {path.name: path.read_bytes() for path in (tmp_path / "dist").iterdir()}
    with pytest.raises(DataError, match=r"rows of 4 numbers, found an array of shape \(45, 3\)"):
        imported.build_release(tmp_path / "dist", signing_key=tmp_path / "signing.pem", test=(HELD_OUT[:, :3], truth))
    with pytest.raises(BuildError, match="misses its own gates: accuracy"):
        imported.build_release(
            tmp_path / "dist",
            signing_key=tmp_path / "signing.pem",
            test=(HELD_OUT, truth[::-1].copy()),
            gates=model_info.Gates(accuracy=0.99),
        )
    assert {path.name: path.read_bytes() for path in (tmp_path / "dist").iterdir()} == before
