"""Metrics, kernels, radius and outlier factors that the graph does not compute answer as scikit-learn does.

The expected neighbours, by (distance, row), come from SciPy's distances; votes from the estimator's own weights; labels
and probabilities of rows without ties from the estimator itself.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import skops.io
import yaml
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, LocalOutlierFactor, RadiusNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support.device_process import DeviceProcess
from support.runtimes import RUNTIMES

import knnkit
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.golden.judge import judge
from device_agent.shared.powers import power
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import Enrol, Gates, InFloat64
from device_agent.shared.protocol.record import replace
from knnkit import kernels
from knnkit.config import parse
from knnkit.data.dataset import dataset
from knnkit.errors import BuildError
from knnkit.model.build import make_reference
from knnkit.model.golden import make_golden
from knnkit.model.reference.enrolment import enrol
from knnkit.model.reference.spec import KnnSpec
from knnkit.model.stored import read_model
from knnkit.training import source
from knnkit.training.raw_cells import labelled_rows

RNG = np.random.default_rng(190)
WEIGHTS = np.array([1.0, 0.5, 2.0, 0.0, 3.0])
KNN, RADIUS = KNeighborsClassifier, RadiusNeighborsClassifier
HALVES = RNG.integers(-6, 7, (200, 5)) / 2  # many ties, which float64 finds exactly
FLOATS = RNG.normal(size=(200, 5)) * [1.0, 20.0, 0.1, 3.0, 1.0]
BITS = RNG.random((200, 12)) < RNG.random(12)
PLACES = np.radians(np.column_stack([RNG.uniform(46.0, 48.0, 200), RNG.uniform(6.0, 11.0, 200)]))
POLES = np.column_stack([RNG.uniform(-1.57, 1.57, 200), RNG.uniform(-3.14, 3.14, 200)])


@dataclass(frozen=True)
class Case:
    """A fitted estimator over rows, with SciPy's distances between rows after its transformers."""

    estimator: Any
    rows: np.ndarray
    distances: Callable[[Any, Any], Any]


def minkowski(p: float, w: np.ndarray | None = None) -> Callable[[Any, Any], Any]:
    return lambda one, other: cdist(one, other, "minkowski", p=p, **({} if w is None else {"w": w}))


def named(metric: str) -> Callable[[Any, Any], Any]:
    return lambda one, other: pairwise_distances(one, other, metric=metric)


CASES: dict[str, Case] = {
    "chebyshev, ties": Case(KNN(5, metric="chebyshev"), HALVES, named("chebyshev")),
    "chebyshev, scaled": Case(
        make_pipeline(StandardScaler(), KNN(4, p=np.inf, weights="distance")), FLOATS, named("chebyshev")
    ),
    "p = 3, ties": Case(KNN(5, p=3), HALVES, minkowski(3)),
    "p = 1.5, weighted": Case(
        KNN(3, p=1.5, metric_params={"w": WEIGHTS}, weights="distance"), FLOATS, minkowski(1.5, WEIGHTS)
    ),
    "p = 4.7, mapped": Case(make_pipeline(PCA(3), KNN(5, p=4.7)), FLOATS, minkowski(4.7)),
    "jaccard": Case(KNN(7, metric="jaccard", weights="distance"), BITS, named("jaccard")),
    "haversine": Case(KNN(4, metric="haversine", weights="distance"), PLACES, named("haversine")),
    "haversine, poles": Case(KNN(4, metric="haversine"), POLES, named("haversine")),
    "gaussian": Case(KNN(9, weights=kernels.gaussian(1.5)), HALVES, named("euclidean")),
    "triangular, manhattan": Case(KNN(9, p=1, weights=kernels.triangular(4000.0)), FLOATS, named("cityblock")),
    "radius": Case(RADIUS(2.5, outlier_label=-1), HALVES, named("euclidean")),
    "radius, chebyshev": Case(RADIUS(1.0, p=np.inf, weights="distance", outlier_label=2), HALVES, named("chebyshev")),
    "radius, scaled, kernel": Case(
        make_pipeline(StandardScaler(), RADIUS(1.2, p=3, weights=kernels.biweight(3.0), outlier_label=-1)),
        FLOATS,
        minkowski(3),
    ),
    "radius, cosine": Case(RADIUS(0.2, metric="cosine", outlier_label=-1), HALVES, named("cosine")),
}


def queries(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows beside the training rows, training rows (exact matches), and two far ones."""
    if rows.dtype == bool:
        return np.concatenate([rng.random((40, rows.shape[1])) < 0.4, rows[:10], np.zeros((1, rows.shape[1]), bool)])
    moved = rng.permuted(rows[:60], axis=0)  # of the values that a column has: ties stay
    far = rows[:2] * [[1.0], [-1.0]] if np.abs(rows).max() < np.pi else rows[:2] * 40.0
    return np.concatenate([moved, rows[:10], far])


def expect(case: Case, classes: list[Any], asked: np.ndarray, shown: int) -> tuple[Any, Any, Any]:
    """Returns the neighbours by (distance, row), their distances, and the vote shares in the order of `classes`."""
    own, fitted = case.estimator, case.estimator
    before, after = asked, case.rows
    if hasattr(own, "steps"):
        fitted = own[-1]
        before, after = own[:-1].transform(asked), own[:-1].transform(case.rows)
    far = np.asarray(case.distances(before, after))
    order = np.lexsort((np.broadcast_to(np.arange(far.shape[1]), far.shape), np.round(far, 10)))
    shares = np.zeros((len(asked), len(classes)))
    labels = [classes.index(label) for label in fitted.classes_[fitted._y.reshape(-1)]]
    for row, (near, distance) in enumerate(zip(order, far)):
        chosen = (
            near[:shown]
            if not hasattr(fitted, "radius") or fitted.radius is None
            else near[distance[near] <= fitted.radius + 1e-9]
        )
        d = distance[chosen]
        weight = np.ones(len(d))
        if fitted.weights == "distance":
            weight = (d < 1e-9) * 1.0 if (d < 1e-9).any() else 1.0 / d
        elif callable(fitted.weights):
            weight = fitted.weights(d[np.newaxis])[0]
        np.add.at(shares[row], [labels[each] for each in chosen], weight)
    total = shares.sum(axis=1, keepdims=True)
    shares = shares / np.where(total > 0, total, 1)
    outlier = getattr(fitted, "outlier_label", None)
    if outlier is not None:
        shares[total[:, 0] == 0, classes.index(outlier)] = 1.0
    return order[:, :shown], np.take_along_axis(far, order[:, :shown], axis=1), shares


def test_a_row_without_a_vote_is_not_counted_as_accepted() -> None:
    held_out = dataset(FLOATS[100:], np.zeros(100, int))
    spec = KnnSpec("m", 3, weights="triangular", bandwidth=0.5, reject=0.9)
    training = enrol(dataset(FLOATS[:100], np.zeros(100, int)), [], "euclidean")
    reference = make_reference(spec, training, held_out)
    assert reference.reject is not None
    accepted = reference.answer(held_out.rows).label != constants.UNKNOWN
    assert reference.reject.measured == accepted.mean() < 0.5


@pytest.mark.parametrize("name", sorted(CASES))
def test_answers_are_those_of_scikit_learn(name: str, device: DeviceProcess, tmp_path: Path) -> None:
    case = CASES[name]
    rng = np.random.default_rng(sorted(CASES).index(name))
    labels, asked = rng.integers(0, 3, len(case.rows)), queries(case.rows, rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of jaccard: rows become truth values
        case.estimator.fit(case.rows, labels)
        theirs = case.estimator.predict(asked)
        proba = case.estimator.predict_proba(asked)
    skops.io.dump(case.estimator, tmp_path / "a.skops")
    model = knnkit.from_skops(tmp_path / "a.skops", name="m")
    built = model.build()
    (tmp_path / "m.tflite").write_bytes(built.data)
    classes, k = list(built.info.classes), built.info.k
    order, far, shares = expect(case, classes, asked, k)
    rows = asked.astype(np.float32 if built.info.origin is None else np.float64)
    host = built.reference.answer(rows)
    assert np.array_equal(host.indices[:, :k], order)
    for runtime in RUNTIMES:
        found = device.classify(tmp_path / "m.tflite", rows, runtime=runtime)
        assert np.array_equal(found.indices, order), runtime
        assert np.abs(found.distances - far).max() <= 1e-6 * far.max(), runtime
        assert np.abs(found.probabilities - shares).max() <= 1e-5, runtime
        assert np.array_equal(found.label, host.label), runtime
        same = host.probabilities.astype(np.float32)
        if name != "haversine":  # its sines differ in the last bit
            assert np.array_equal(found.probabilities, same), runtime
    kth = np.sort(np.asarray(far), axis=1)[:, -1]
    there = [classes.index(each) for each in case.estimator.classes_]
    agree = np.abs(shares[:, there] - proba).max(axis=1) < 1e-6
    assert agree.mean() > (0.4 if "ties" in name or name in ("jaccard", "gaussian") else 0.95), kth  # ties: any order
    top = np.sort(shares, axis=1)
    clear = agree & (top[:, -1] - top[:, -2] > 1e-9)
    assert [classes[each] for each in host.label[clear]] == theirs[clear].tolist()


def test_outlier_factors_are_those_of_scikit_learn(device: DeviceProcess, tmp_path: Path) -> None:
    for estimator in (
        LocalOutlierFactor(20, novelty=True, contamination=0.1),
        make_pipeline(StandardScaler(), LocalOutlierFactor(7, novelty=True, metric="chebyshev")),
    ):
        estimator.fit(FLOATS)
        rng = np.random.default_rng(1)
        asked = np.concatenate([queries(FLOATS, rng), rng.normal(size=(100, 5)) * [1, 20, 0.1, 3, 1]])
        asked = asked.astype(np.float32)
        skops.io.dump(estimator, tmp_path / "a.skops")
        built = knnkit.from_skops(tmp_path / "a.skops", name="strange").build()
        (tmp_path / "m.tflite").write_bytes(built.data)
        assert built.info.targets is not None
        assert built.info.targets.names == ("outlier_factor", "is_outlier")
        expected = -estimator.score_samples(asked.astype(np.float64))
        host = built.reference.values(built.reference.answer(asked))
        for runtime in RUNTIMES:
            found = device.classify(tmp_path / "m.tflite", asked, runtime=runtime).predicted
            assert np.array_equal(found, host), "the same bits"
            assert np.allclose(found[:, 0], expected, rtol=1e-5)
            assert np.array_equal(found[:, 1] == 1.0, estimator.predict(asked.astype(np.float64)) == -1)
        host = knnkit.from_sklearn(estimator)
        held_out = labelled_rows(host.fitted, (asked, np.stack([expected, found[:, 1]], axis=1)))
        assert (
            dataclasses.replace(source.of_imported(host.fitted, held_out), agreement=1.0).build(Gates()).warnings == ()
        )
    with pytest.raises(BuildError, match="novelty=False answers for its training rows alone"):
        knnkit.from_sklearn(LocalOutlierFactor().fit(FLOATS))
    with pytest.raises(BuildError, match="reject does not work with outlier factors"):
        knnkit.from_sklearn(LocalOutlierFactor(novelty=True).fit(FLOATS), reject=0.9)


@pytest.mark.parametrize(
    "estimator",
    [
        RadiusNeighborsClassifier(2.0),
        KNeighborsClassifier(3, weights=kernels.epanechnikov(2.0)),
        KNeighborsRegressor(3, weights=kernels.triangular(2.0)),
    ],
)
def test_a_release_is_built_with_test_rows_that_scikit_learn_refuses(estimator: Any) -> None:
    """It raises, or answers NaN, where no training row votes; the model answers "unknown", or no value."""
    numbers = np.arange(len(FLOATS)) % 3
    host = knnkit.from_sklearn(estimator.fit(FLOATS, numbers))
    far = FLOATS[:20] + 1e4
    for asked in (far, np.concatenate([FLOATS[:20], far])):
        held_out = labelled_rows(host.fitted, (asked, np.resize(numbers[:20], len(asked))))
        made = dataclasses.replace(source.of_imported(host.fitted, held_out), agreement=1.0).build(Gates())
        assert not [text for text in made.warnings if "scikit-learn" in text]


def test_a_regression_has_kernels_and_metrics_too(device: DeviceProcess, tmp_path: Path) -> None:
    estimator = KNeighborsRegressor(6, p=3, weights=kernels.exponential(4.0)).fit(FLOATS, FLOATS @ np.ones((5, 2)))
    path = knnkit.from_sklearn(estimator).export(tmp_path / "m.tflite")
    asked = np.random.default_rng(2).normal(size=(50, 5)).astype(np.float32)
    expected = estimator.predict(asked.astype(np.float64))
    for runtime in RUNTIMES:
        found = device.classify(path, asked, runtime=runtime).predicted
        assert np.abs(found - expected).max() <= 1e-5 * np.ptp(expected)


def test_a_row_without_votes_is_unknown(device: DeviceProcess, tmp_path: Path) -> None:
    labels = np.where(FLOATS[:, 0] > 0, "up", "down")
    far = np.concatenate([FLOATS[:1], FLOATS[:1] + 1e4]).astype(np.float32)
    for how in ({"radius": 1e-3}, {"weights": "tricube", "bandwidth": 1e-3}):
        path = knnkit.TfKNN(FLOATS, 3, labels=labels, **how).export(tmp_path / "m.tflite")  # type: ignore[arg-type]
        found = device.classify(path, far)
        assert found.predicted.tolist() == [labels[0], "unknown"]
        assert found.probabilities[1].tolist() == [0.0, 0.0]
    other = knnkit.TfKNN(FLOATS, 3, labels=labels, radius=1e-3, outlier_label="other")
    assert other.predict(far).tolist() == [labels[0], "other"]


def test_a_wrong_share_is_different_although_the_neighbours_are_right() -> None:
    made = knnkit.TfKNN(HALVES, 3, labels=(HALVES[:, 0] > 0).astype(int), radius=3.0, outlier_label=0)
    built = made.build()
    golden = Golden.from_bytes(make_golden(built, None, made.fitted.training_rows()).to_bytes())
    answers = built.reference.answer(golden.rows)
    told = replace_answers(answers, built.info.k)
    assert judge(golden, told, built.info, Gates()).identical == len(golden.rows)
    told.probabilities[7] = told.probabilities[7][::-1] * 0.9
    assert [each.row for each in judge(golden, told, built.info, Gates()).differences] == [7]
    with pytest.raises(Exception, match="another model"):
        judge(replace(golden, shares=None), told, built.info, Gates())


def replace_answers(answers: Any, k: int) -> Any:
    """Returns answers as a device gives them."""
    cut = {"indices": answers.indices[:, :k], "distances": answers.distances[:, :k]}
    return SimpleNamespace(**{**vars(answers), **cut})


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"metric": "minkowski"}, "metric: minkowski needs p"),
        ({"metric": "minkowski", "p": 0.5}, "a power from 1 to 16"),
        ({"metric": "minkowski", "p": 17}, "a power from 1 to 16"),
        ({"p": 3}, "p is for metric: minkowski"),
        ({"weights": "gaussian"}, "weights: gaussian needs bandwidth"),
        ({"weights": "gaussian", "bandwidth": -1.0}, "a distance from 1e-38 to 1e"),
        ({"bandwidth": 1.0}, "bandwidth is for weights: gaussian"),
        ({"radius": 1e200}, "a distance from 1e-38 to 1e"),
        ({"radius": float("nan")}, "a distance from 1e-38 to 1e"),
        ({"outlier_label": "x"}, "outlier_label needs a radius"),
        ({"radius": 1.0, "reject": 0.9}, "reject needs exactly k neighbours"),
        ({"radius": 1.0, "label_sets": (0.9,)}, "label_sets needs exactly k neighbours"),
        ({"metric": "jaccard", "scale": "standard"}, "changes what jaccard compares"),
        ({"radius": "1"}, "radius is '1'; a number is needed"),
        ({"radius": True}, "radius is True; a number is needed"),
        ({"metric": "minkowski", "p": "3"}, "p is '3'; a number is needed"),
        ({"class_weight": {"a": "x"}}, "class_weight of 'a' is 'x'; a number is needed"),
        ({"class_weight": {"a": 1e308, "b": 1e308}}, "a factor from 1e-09 to 1e\\+09"),
        ({"class_weight": {"a": float("nan")}}, "a factor from 1e-09 to 1e\\+09"),
        ({"class_weight": 3}, "class_weight is 3"),
        ({"radius": 1.0, "outlier_label": "unknown"}, "'unknown' is reserved"),
        ({"metric": "chebyshev", "enrol": Enrol(5)}, "enrol does not work with metric chebyshev"),
    ],
)
def test_what_has_no_meaning_is_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(BuildError, match=said):
        KnnSpec("m", **keys)


@pytest.mark.parametrize(
    "keys",
    [
        {"class_weight": "balanced", "enrol": Enrol(5)},
        {"metric": "chebyshev", "enrol": Enrol(5)},
        {"radius": 1.0, "reject": 0.9},
        {"radius": 1.0, "outlier_label": "unknown"},
    ],
)
def test_a_key_that_the_hint_leaves_out_was_the_fault(keys: dict[str, Any]) -> None:
    with pytest.raises(BuildError) as caught:
        KnnSpec("m", **keys)
    left = re.match("leave ([a-z_]+) out", caught.value.hint)
    repair = {left[1]: None} if left else {"metric": caught.value.hint.split(", ")[0].removeprefix("metric: ")}
    KnnSpec("m", **(keys | repair))


def test_an_outlier_label_is_of_the_kind_that_the_hint_shows() -> None:
    for labels, wrong in ((["a", "b"] * 100, 3), ([1, 2] * 100, "x")):
        with pytest.raises(BuildError, match="outlier_label is") as caught:
            knnkit.TfKNN(HALVES, labels=labels, radius=1.0, outlier_label=wrong)
        right = yaml.safe_load(caught.value.hint)["outlier_label"]
        assert right in knnkit.TfKNN(HALVES, labels=labels, radius=1.0, outlier_label=right).classes_


@pytest.mark.parametrize("labels", [["a", "b"], ["caf\u00e9", "b"]])
def test_an_outlier_label_in_any_unicode_form_is_one_class(labels: list[str]) -> None:
    made = knnkit.TfKNN(HALVES, labels=labels * 100, radius=1.0, outlier_label="cafe\u0301")
    assert made.classes_.tolist() == sorted({*labels, "caf\u00e9"})
    assert made.predict(np.full((1, HALVES.shape[1]), 1e3)).tolist() == ["caf\u00e9"]


def test_numbers_of_numpy_are_numbers() -> None:
    model = knnkit.TfKNN(HALVES, metric="minkowski", p=np.int64(3), radius=np.float32(0.5), labels=[1, 2] * 100)
    assert model.build().info.float64 == InFloat64(p=3.0, radius=0.5)


def test_degrees_are_not_taken_for_radians() -> None:
    with pytest.raises(BuildError, match="90 degrees"):
        knnkit.TfKNN(np.degrees(PLACES), metric="haversine")
    with pytest.raises(BuildError, match="two features"):
        knnkit.TfKNN(FLOATS, metric="haversine")
    with pytest.raises(BuildError, match="scaled or mapped features"):
        knnkit.from_sklearn(make_pipeline(StandardScaler(), KNN(metric="haversine")).fit(PLACES, [0, 1] * 100))


def test_powers_are_right_to_the_last_digits() -> None:
    values = np.concatenate([[0.0, 1.0], 10.0 ** np.random.default_rng(3).uniform(-8, 8, 500)])
    for exponent in (0.5, 1.0, 1.5, 2.0, 3.0, 7.0, 16.0, 1 / 3, 1.2, 4.7, np.pi):
        assert np.allclose(power(values, exponent), values**exponent, rtol=2.0**-44, atol=0.0), exponent
    assert np.array_equal(power(values, 2.0), values * values)
    assert np.array_equal(power(values, 0.5), np.sqrt(values))


def test_votes_of_a_label_have_its_weight(device: DeviceProcess, tmp_path: Path) -> None:
    rows, labels = HALVES, np.where(RNG.random(200) < 0.2, "rare", "usual")
    asked = queries(rows, np.random.default_rng(5)).astype(np.float32)
    plain = knnkit.TfKNN(rows, 5, labels=labels).predict_proba(asked)
    for asked_for, factor in (({"rare": 3.0}, 3.0), ("balanced", (labels == "usual").sum() / (labels == "rare").sum())):
        path = knnkit.TfKNN(rows, 5, labels=labels, class_weight=asked_for).export(tmp_path / "m.tflite")
        expected = plain * [factor, 1.0]
        expected /= expected.sum(axis=1, keepdims=True)
        for runtime in RUNTIMES:
            assert np.abs(device.classify(path, asked, runtime=runtime).probabilities - expected).max() < 1e-6
    with pytest.raises(BuildError, match="did you mean 'rare'"):
        knnkit.TfKNN(rows, labels=labels, class_weight={"rar": 2.0}).predict(asked)


def test_deploy_yaml_has_all_of_it(tmp_path: Path) -> None:
    table = np.column_stack([FLOATS, FLOATS[:, 0] > 0])
    np.savetxt(tmp_path / "a.csv", table, "%.9g", ",", header="a,b,c,d,e,y", comments="")
    text = """model: {name: m, data: {file: a.csv, label: y}, metric: minkowski, p: 3, weights: gaussian,
                       bandwidth: 2.0, radius: 9.0, outlier_label: 7, class_weight: {0: 2.0}, scale: standard}"""
    build = parse.parse(text, base=tmp_path).builds()[0]
    material = source.load(build)
    made = material.build(Gates())
    assert made.model.info.float64 == InFloat64(3.0, 2.0, 9.0, 2, (2.0, 1.0, 1.0))
    assert (made.model.info.classes, made.verdict.identical) == ((0, 1, 7), len(made.golden.rows))
    (tmp_path / "m.tflite").write_bytes(made.model.data)
    stored = read_model(tmp_path / "m.tflite").reference
    assert np.array_equal(stored.answer(FLOATS).probabilities, made.model.reference.answer(FLOATS).probabilities)
    for more, said in ((", reduce: condensed", "reduce does not work"), (", enrol: {rows: 5}", "enrol needs exactly")):
        with pytest.raises(BuildError, match=said):
            source.load(parse.parse(text[:-1] + more + "}", base=tmp_path).builds()[0])
