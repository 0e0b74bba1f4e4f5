"""`tune` measures what scikit-learn's GridSearchCV measures by leave-one-out, and names a scale that is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut, LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from knnkit import cli
from knnkit.data.dataset import Dataset, dataset, load_sklearn
from knnkit.data.targets import with_labels, with_targets
from knnkit.evaluation.splits import LEAVE_ONE_OUT
from knnkit.model.reference.spec import KnnSpec
from knnkit.training import tuning, unscaled
from knnkit.training.source import Material
from knnkit.training.tuning import Setting

SCALERS: dict[str, Any] = {
    "none": "passthrough",
    "standard": StandardScaler(),
    "minmax": MinMaxScaler(),
    "robust": RobustScaler(),
}
MOST = 4


def some(name: str, count: int) -> Dataset:
    found = load_sklearn(name)
    return found.take(np.random.default_rng(7).permutation(len(found.rows))[:count])


def material(training: Dataset, held_out: Dataset | None = None) -> Material:
    return Material(KnnSpec("m"), training, held_out)


@pytest.mark.parametrize(
    ("name", "scales", "metrics"),
    [
        ("wine", ["none", "standard"], ["euclidean"]),
        ("breast_cancer", ["minmax", "robust"], ["manhattan"]),
        ("blobs", ["none", "robust"], ["sqeuclidean"]),
        ("moons", ["standard", "minmax"], ["cosine"]),
        ("digits", ["standard", "robust"], ["cosine"]),
    ],
)
@pytest.mark.parametrize("grouped", [False, True])
def test_every_score_is_that_of_grid_search(name: str, scales: list[Any], metrics: list[Any], grouped: bool) -> None:
    """Rows of one group are left out together: a row's twin of the same device would answer for it."""
    rows = some(name, 24)
    groups = np.arange(24) % 6
    if grouped:
        rows = replace(rows, beside=groups.astype(str))
    settings = [Setting(s, m, w) for s in scales for m in metrics for w in ("uniform", "distance")]  # type: ignore[arg-type]
    found = tuning.tune(material(rows), LEAVE_ONE_OUT, MOST, settings)
    pipeline = Pipeline([("scale", None), ("knn", KNeighborsClassifier(algorithm="brute"))])
    grid = {
        "scale": [SCALERS[each] for each in scales],
        "knn__metric": metrics,
        "knn__weights": ["uniform", "distance"],
        "knn__n_neighbors": range(1, MOST + 1),
    }
    search = GridSearchCV(pipeline, grid, cv=LeaveOneGroupOut() if grouped else LeaveOneOut(), refit=False)
    search.fit(rows.rows.astype(float), rows.labels, groups=groups if grouped else None)
    for values, score in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"]):
        scale = next(each for each in scales if repr(SCALERS[each]) == repr(values["scale"]))
        setting = Setting(scale, values["knn__metric"], values["knn__weights"])
        assert found.score(setting, values["knn__n_neighbors"]) == pytest.approx(score, abs=1e-12), values
    assert max(found.curves[0].scores) == pytest.approx(search.best_score_, abs=1e-12)


@pytest.mark.parametrize("name", ["iris", "digits"])
def test_many_ties_cost_no_more_than_their_rows(name: str) -> None:
    """scikit-learn's search leaves the order of equal distances open; ours takes the first row, as a device does."""
    rows = some(name, 30)
    found = tuning.tune(material(rows), LEAVE_ONE_OUT, MOST, [Setting("none", "manhattan", "uniform")])
    grid = {"n_neighbors": range(1, MOST + 1)}
    search = GridSearchCV(KNeighborsClassifier(metric="manhattan"), grid, cv=LeaveOneOut()).fit(rows.rows, rows.labels)
    distances = np.sort(np.abs(rows.rows[:, None].astype(float) - rows.rows[None]).sum(-1), axis=1)[:, 1:]
    for k in range(1, MOST + 1):
        tied = int((distances[:, k] - distances[:, k - 1] < 1e-9).sum())
        assert abs(found.curves[0].scores[k - 1] - search.cv_results_["mean_test_score"][k - 1]) * 30 <= tied + 1e-9


@pytest.mark.parametrize("scale", ["none", "standard", "minmax", "robust"])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_held_out_scores_are_those_of_scikit_learn(scale: Any, weights: Any) -> None:
    rows = some("breast_cancer", 300)
    training, held_out = rows.take(np.arange(200)), rows.take(np.arange(200, 300))
    found = tuning.tune(material(training, held_out), tuning.SPLIT, MOST, [Setting(scale, "euclidean", weights)])
    for k in (1, 2, MOST):
        model = Pipeline([("s", SCALERS[scale]), ("k", KNeighborsClassifier(k, weights=weights))])
        model.fit(training.rows.astype(float), training.labels)
        expected = model.score(held_out.rows.astype(float), held_out.labels)
        assert found.curves[0].scores[k - 1] == pytest.approx(expected, abs=1e-12)


def test_balanced_accuracy_finds_the_rare_class() -> None:
    random = np.random.default_rng(0)
    rows = np.concatenate([random.normal(size=(180, 2)), random.normal(2.0, 0.4, size=(9, 2))])
    training = dataset(rows, ["ok"] * 180 + ["fault"] * 9)
    settings = [Setting("none", "euclidean", "uniform")]
    plain = tuning.tune(material(training), LEAVE_ONE_OUT, 40, settings)
    balanced = tuning.tune(material(training), LEAVE_ONE_OUT, 40, settings, score="balanced_accuracy")
    assert plain.curves[0].scores[39] > 0.9
    assert balanced.curves[0].scores[39] == pytest.approx(0.5)
    assert max(balanced.curves[0].scores) > 0.7


@pytest.mark.parametrize("how", [LEAVE_ONE_OUT, tuning.SPLIT])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_targets_and_several_labels_are_scored_as_by_scikit_learn(how: str, weights: Any) -> None:
    random = np.random.default_rng(5)
    rows = random.normal(size=(60, 3))
    numbers = rows @ random.normal(size=(3, 2)) + random.normal(size=(60, 2)) / 4
    words = [np.array(["a", "b"])[(numbers[:, 0] > 0).astype(int)], np.digitize(numbers[:, 1], [-1.0, 1.0])]
    given = dataset(rows, None)
    setting, part = [Setting("standard", "euclidean", weights)], np.arange(40)
    for answers, kind, score in (
        (with_targets(given, numbers), KNeighborsRegressor, "r_squared"),
        (with_labels(given, words, ("word", "step")), KNeighborsClassifier, "accuracy"),
    ):
        training = answers if how == LEAVE_ONE_OUT else answers.take(part)
        asked = material(training, answers.take(np.arange(40, 60)))
        found = tuning.tune(asked, how, MOST, setting, score=score)  # type: ignore[arg-type]
        truth = answers.targets
        assert truth is not None
        for k in range(1, MOST + 1):
            model = Pipeline([("s", StandardScaler()), ("k", kind(k, weights=weights))])
            values = answers.rows.astype(float)
            if how == LEAVE_ONE_OUT:
                expected, right = cross_val_predict(model, values, truth, cv=LeaveOneOut()), truth
            else:
                expected, right = model.fit(values[part], truth[part]).predict(values[40:]), truth[40:]
            wanted = r2_score(right, expected) if score == "r_squared" else (right == expected).all(axis=1).mean()
            assert found.curves[0].scores[k - 1] == pytest.approx(wanted, abs=1e-12)


# --- the command --------------------------------------------------------------------------------------------------
YAML = """\
# my model
model:
  name: wine      # a name
  data: {sklearn: wine}

  k: 3            # neighbours
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploy.yaml").write_text(YAML)
    return tmp_path


def test_tune_writes_the_file_and_keeps_comments(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tune", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["best"]["score"] > told["now"]["score"] + 0.2
    assert (folder / "deploy.yaml").read_text() == YAML
    assert cli.main(["tune", "--write", "--plot", "p.png"]) == 0
    text = (folder / "deploy.yaml").read_text()
    assert text == YAML.replace("k: 3 ", f"k: {told['best']['k']} ") + f"  scale: {told['best']['scale']}\n"
    assert (folder / "p.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert cli.main(["tune", "--write", "--plot", "p.html"]) == 0
    assert (folder / "deploy.yaml").read_text() == text
    assert "no setting is better" in (folder / "p.html").read_text()


def test_tune_leaves_whole_groups_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A group written as 1 and as 1.0 is one group."""
    cells = [
        (f"{device}.{twin}", "ab"[device % 2], f"{device}{'.0' * (twin % 2)}")
        for device in range(12)
        for twin in range(5)
    ]
    lines = [",".join(each) for each in cells]
    (folder / "t.csv").write_text("\n".join(["x,kind,device", *lines]))
    (folder / "deploy.yaml").write_text(
        "model: {name: g, k: 1, test: 0, split: {group: device}, data: {file: t.csv, label: kind}}\n"
    )
    assert cli.main(["tune", "--by", "leave-one-out", "--k", "4", "--scale", "none"]) == 0
    said = capsys.readouterr()
    assert "each training row without the rows of the same device" in said.err
    assert "as without `reject`" not in said.err
    assert "100" not in said.out, "every neighbour of another device has the other label"


def test_tune_names_what_it_cannot_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tune", "--plot", "x.svg"]) == 2
    assert "--plot x.html" in capsys.readouterr().err
    assert cli.main(["tune", "--model", "other"]) == 2
    assert "--model wine" in capsys.readouterr().err
    (folder / "deploy.yaml").write_text(YAML + "  test: 0\n")
    assert cli.main(["tune", "--by", "split"]) == 2
    assert "--by leave-one-out" in capsys.readouterr().err


def test_tune_chooses_for_a_regression_and_for_several_labels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(2)
    points = random.uniform(size=(60, 2))
    lines = [f"{a},{1000 * b},{9 * a + random.normal() / 9},{a > 0.5},{a > 0.7}" for a, b in points.tolist()]
    (folder / "t.csv").write_text("\n".join(["a,b,y,half,most", *lines]))
    number = "model: {name: g, test: 0, reject: 0.9, data: {file: t.csv, target: y, drop: [half, most]}}\n"
    several = "model: {name: g, test: 0, reject: 0.9, data: {file: t.csv, label: [half, most], drop: [y]}}\n"
    for text, word, least in ((number, "R² of 60 rows", 0.9), (several, "accuracy of 60 rows", 0.7)):
        (folder / "deploy.yaml").write_text(text)
        assert cli.main(["tune", "--k", "9", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["best"]["scale"] != "none"
        assert told["best"]["score"] > least > told["now"]["score"] + 0.1
        assert cli.main(["tune", "--k", "9", "--write", "--plot", "p.html"]) == 0
        said = capsys.readouterr()
        assert word in said.err
        assert "every row is answered, as without `reject`" in said.err
        assert ("%" in said.out) == (text == several)
        assert f"scale: {told['best']['scale']}" in (folder / "deploy.yaml").read_text()
    assert cli.main(["tune", "--score", "r_squared"]) == 2
    assert "--score accuracy" in capsys.readouterr().err
    assert cli.main(["tune", "--score", "balanced_accuracy"]) == 2
    assert "--score accuracy" in capsys.readouterr().err
    (folder / "deploy.yaml").write_text(number)
    assert cli.main(["tune", "--score", "accuracy"]) == 2
    assert "--score r_squared" in capsys.readouterr().err


# --- a scale that is missing --------------------------------------------------------------------------------------
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "manhattan"])
def test_wine_without_a_scale_is_pointed_out(metric: Any) -> None:
    (said,) = unscaled.find(load_sklearn("wine"), 3, metric, "uniform")
    assert "'proline' makes" in said
    assert "knnkit tune" in said


@pytest.mark.parametrize("name", ["iris", "digits", "blobs", "moons"])
@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_rows_that_need_no_scale_are_silent(name: str, metric: Any) -> None:
    assert unscaled.find(load_sklearn(name), 3, metric, "uniform") == ()


def test_a_wide_feature_that_decides_is_silent() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(400) % 2
    rows = np.column_stack([1000.0 * labels + random.normal(size=400), random.normal(size=(400, 3))])
    assert unscaled.find(dataset(rows, labels), 3, "euclidean", "uniform") == ()
    assert unscaled.find(dataset(rows[:, 1:] * [1000.0, 1, 1], labels), 3, "euclidean", "uniform") == ()
    assert unscaled.find(dataset(rows[:20], labels[:20]), 3, "euclidean", "uniform") == ()


def test_a_build_points_out_a_missing_scale_only(folder: Path) -> None:
    from knnkit.config import load
    from knnkit.training import source

    def warned(more: str) -> bool:
        (folder / "deploy.yaml").write_text(YAML + more)
        found = source.load(load.load("deploy.yaml").builds()[0])
        return any("scale: standard would raise" in said for said in found.warnings)

    assert [warned(more) for more in ("", "  scale: none\n", "  scale: minmax\n")] == [True, False, False]
