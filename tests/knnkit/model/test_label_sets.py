"""Label sets are MAPIE's, hold their coverage class by class, and are the same on a device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mapie.classification import SplitConformalClassifier
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_classification
from sklearn.neighbors import NearestNeighbors
from support.device_process import DeviceProcess
from support.models import build_model

from device_agent.shared import label_sets
from device_agent.shared.protocol.constants import KNN_FILE
from device_agent.shared.protocol.model_info import LabelSets
from device_agent.shared.release.model_file import read_member
from knnkit.data.dataset import Dataset, dataset, load_sklearn
from knnkit.data.targets import with_labels, with_targets
from knnkit.errors import BuildError
from knnkit.model import build
from knnkit.model.build import make_reference
from knnkit.model.conformal import calibrate_sets, check_sets, threshold
from knnkit.model.reference.classifier import Reference
from knnkit.model.reference.enrolment import encode, enrol
from knnkit.model.reference.spec import KnnSpec
from knnkit.model.scaling import fit_scaler

K = 5


def halves(name: str) -> tuple[Dataset, Dataset]:
    found = load_sklearn(name)
    order = np.random.default_rng(5).permutation(len(found.rows))[:400]
    return found.take(order[: len(order) // 2]), found.take(order[len(order) // 2 :])


def reference_of(training: Dataset, weights: Any = "uniform", metric: Any = "euclidean") -> Reference:
    enrolment = enrol(training, fit_scaler(training.rows, "standard"), metric)
    return make_reference(KnnSpec("m", K, metric, weights), enrolment)


class Table(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier whose probabilities are written down: row i is [i]."""

    def __init__(self, conformity: Any = None, k: int = K) -> None:
        self.conformity, self.k = conformity, k

    def fit(self, rows: Any, labels: Any) -> Table:
        return self

    def predict_proba(self, rows: Any) -> Any:
        # 1 minus the score, moved into [0, 1], and one more class so that they add up to 1.
        scores = self.conformity[np.asarray(rows)[:, 0].astype(int)]
        shares = (1.0 - scores + 1.0 / self.k) / (1.0 + scores.shape[1] / self.k)
        return np.column_stack([shares, 1.0 - shares.sum(axis=1)])

    def predict(self, rows: Any) -> Any:
        return self.predict_proba(rows).argmax(axis=1)


def mapie_sets(scores: Any, calibration: Any, truth: Any, asked: Any, coverage: float) -> Any:
    """Returns the sets of the rows `asked` by MAPIE, calibrated for each class on its own rows."""
    count, found = scores.shape[1], []
    for code in range(count):
        table = Table(scores)
        table.classes_ = np.arange(count + 1)
        own = calibration[truth == code].reshape(-1, 1)
        model = SplitConformalClassifier(table, confidence_level=coverage, conformity_score="lac", prefit=True)
        model.conformalize(own, np.full(len(own), code))
        found.append(model.predict_set(asked.reshape(-1, 1))[1][:, code, 0])
    return np.stack(found, axis=1)


@pytest.mark.filterwarnings("ignore:WARNING. your conformalization dataset has less labels")
@pytest.mark.parametrize("coverage", [0.8, 0.95])
@pytest.mark.parametrize(
    ("name", "weights", "metric"),
    [
        ("iris", "distance", "euclidean"),
        ("wine", "uniform", "manhattan"),
        ("breast_cancer", "uniform", "sqeuclidean"),
        ("moons", "distance", "cosine"),
    ],
)
def test_the_sets_are_those_of_mapie(name: str, weights: Any, metric: Any, coverage: float) -> None:
    training, held_out = halves(name)
    reference = reference_of(training, weights, metric)
    (sets,) = calibrate_sets(reference, [coverage], 10_000, 0)
    left_out, asked = reference.leave_one_out(np.arange(len(training.rows))), reference.answer(held_out.rows)
    radius = reference.space.radius
    scores = [label_sets.scores(a.probabilities, a.distances, metric, K, radius) for a in (left_out, asked)]
    both = np.concatenate(scores)
    places = np.arange(len(both))
    first = places[: len(training.rows)]
    expected = mapie_sets(both, first, reference.classes, places[len(first) :], coverage)
    found = label_sets.members(sets, asked.probabilities, asked.distances, metric, K)
    assert np.array_equal(found, expected)
    checked = check_sets(sets, reference, asked, encode(held_out.labels)[1])
    truth = encode(held_out.labels)[1]
    assert sum(checked.covered) == int(expected[np.arange(len(truth)), truth].sum())
    assert checked.size == pytest.approx(float(expected.sum(axis=1).mean()))


def some(name: str) -> tuple[Any, Any]:
    if name == "rare":
        rows, codes = make_classification(2500, 6, n_classes=3, n_informative=4, weights=[0.8, 0.1], random_state=1)
        return rows, codes
    found = load_sklearn(name)
    return found.rows.astype(float), encode(found.labels)[1]


@pytest.mark.parametrize("name", ["blobs", "moons", "breast_cancer", "digits", "rare"])
def test_coverage_is_within_two_points_for_each_class(name: str) -> None:
    """Mean over many divisions of the rows; neighbours are searched once, and those held out are passed over."""
    rows, codes = some(name)
    distances, indices = NearestNeighbors(n_neighbors=60).fit(rows).kneighbors()
    n_classes, random = int(codes.max()) + 1, np.random.default_rng(0)
    covered, asked = np.zeros(n_classes), np.zeros(n_classes)
    for _ in range(120):
        training = random.random(len(rows)) < 0.7
        known = training[indices]
        first = np.argsort(~known, axis=1, kind="stable")[:, :K]
        assert np.take_along_axis(known, first, 1).all()
        near = codes[np.take_along_axis(indices, first, 1)]
        shares = np.stack([(near == code).mean(axis=1) for code in range(n_classes)], axis=1)
        scores = label_sets.scores(shares, np.take_along_axis(distances, first, 1), "euclidean", K, 5.0)
        for code in range(n_classes):
            limit = threshold(scores[training & (codes == code), code], 0.95)
            held_out = scores[~training & (codes == code), code]
            covered[code] += (held_out <= (np.inf if limit is None else limit)).sum()
            asked[code] += len(held_out)
    assert np.abs(covered / asked - 0.95).max() <= 0.02


def test_a_class_with_few_rows_is_in_every_set() -> None:
    assert threshold(np.arange(18.0), 0.95) is None
    assert threshold(np.arange(19.0), 0.95) == 18.0
    assert threshold(np.arange(99.0), 0.9) == 89.0
    assert threshold(np.empty(0), 0.5) is None


@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_a_device_gives_the_sets_of_the_reference(
    weights: Any, device: DeviceProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a score is a threshold: those are the scores of rows that are asked."""
    training, held_out = halves("breast_cancer")
    reference = reference_of(training, weights)
    answers = reference.answer(held_out.rows)
    scores = label_sets.scores(answers.probabilities, answers.distances, "euclidean", K, reference.space.radius)
    rows = np.random.default_rng(1).permutation(len(scores))[:20]
    exact = tuple(LabelSets(0.9, tuple(map(float, scores[row])), reference.space.radius) for row in rows)
    monkeypatch.setattr(build, "calibrate_sets", lambda *_: exact)
    model = build_model(KnnSpec("m", K, "euclidean", weights, "standard", label_sets=(0.9,)), training)
    path = tmp_path / "model.tflite"
    path.write_bytes(model.data)
    for one_by_one in (False, True):
        found = device.classify(path, held_out.rows, one_by_one=one_by_one)
        for sets in exact:
            both = [label_sets.members(sets, a.probabilities, a.distances, "euclidean", K) for a in (found, answers)]
            assert np.array_equal(*both)


def test_a_build_without_label_sets_has_no_new_key(tmp_path: Path) -> None:
    training, held_out = halves("iris")
    path = tmp_path / "model.tflite"
    for coverages in ((), (0.9, 0.95)):
        model = build_model(KnnSpec("m", K, label_sets=coverages), training, held_out)
        path.write_bytes(model.data)
        written = json.loads(read_member(path, KNN_FILE))
        assert ("label_sets" in written) == bool(coverages)
    assert [each["coverage"] for each in written["label_sets"]] == [0.9, 0.95]
    assert sum(written["label_sets"][0]["rows"]) == len(held_out.rows)
    with pytest.raises(BuildError, match="label_sets needs more training rows"):
        build_model(KnnSpec("m", 3, label_sets=(0.9,)), dataset([[0.0], [1.0], [2.0]], [0, 1, 1]))
    with pytest.raises(BuildError, match=r"1\.5 is not a coverage"):
        KnnSpec("m", label_sets=(1.5,))


def test_a_model_without_one_label_for_each_row_has_no_sets() -> None:
    rows, spec = dataset(np.arange(30.0).reshape(15, 2), None), KnnSpec("m", 3, label_sets=(0.9,))
    numbers = np.arange(15)
    for training in (with_targets(rows, numbers), with_labels(rows, [numbers % 2, numbers % 3], ("a", "b"))):
        with pytest.raises(BuildError, match="label_sets needs one label"):
            build_model(spec, training)
