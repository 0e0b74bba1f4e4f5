"""What comes from scikit-learn answers as it did there; what cannot be told exactly is refused by name."""

from __future__ import annotations

import itertools
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import make_pipeline as imblearn_pipeline
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA, FactorAnalysis, IncrementalPCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.feature_selection import RFE, SelectFromModel, SelectKBest, SelectPercentile, VarianceThreshold
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
    train_test_split,
)
from sklearn.neighbors import (
    KDTree,
    KNeighborsClassifier,
    NearestNeighbors,
    NeighborhoodComponentsAnalysis,
    RadiusNeighborsClassifier,
)
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
)
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection
from support.device_process import DeviceProcess

import knnkit
from device_agent import TfliteKNN
from device_agent.shared.protocol.model_info import Gates
from knnkit.errors import BuildError, DataError
from knnkit.training import source
from knnkit.training.raw_cells import labelled_rows
from knnkit.training.sklearn_importer import fitted_names

ROWS, CODES = load_wine(return_X_y=True)
KEPT, HELD_OUT, LABELS, TRUTH = train_test_split(ROWS, CODES, test_size=0.3, random_state=0)

PIPELINES = {
    "bare": KNeighborsClassifier(3),
    "standard, distance": make_pipeline(StandardScaler(), KNeighborsClassifier(5, weights="distance")),
    "centred only": make_pipeline(StandardScaler(with_std=False), "passthrough", KNeighborsClassifier(4)),
    "two scalers": make_pipeline(MaxAbsScaler(), RobustScaler(), KNeighborsClassifier(3)),
    "min-max, cosine": make_pipeline(MinMaxScaler((-1, 2)), KNeighborsClassifier(3, metric="cosine")),
    "PCA, whitened": make_pipeline(StandardScaler(), PCA(3, whiten=True), KNeighborsClassifier(4)),
    "PCA, then scaled": make_pipeline(PCA(5), StandardScaler(), KNeighborsClassifier(7, weights="distance", p=1)),
    "columns": make_pipeline(
        ColumnTransformer([("wide", PCA(2), [0, 12]), ("thin", StandardScaler(), [2, 5, 6])]), KNeighborsClassifier(3)
    ),
    "NCA": make_pipeline(
        StandardScaler(), NeighborhoodComponentsAnalysis(2, max_iter=15, random_state=0), KNeighborsClassifier(3)
    ),
    "normalized": make_pipeline(RobustScaler(), Normalizer("l1"), KNeighborsClassifier(3, metric="cityblock")),
    "nested": Pipeline(
        [("maps", make_pipeline(StandardScaler(), Normalizer("max"))), ("knn", KNeighborsClassifier(3, metric="l2"))]
    ),
}

KNN = KNeighborsClassifier
#: What a linear map, or a plain metric after one, can say.
LINEAR: dict[str, Any] = {
    "LDA": make_pipeline(LinearDiscriminantAnalysis(), KNN(3)),
    "LDA, eigen": make_pipeline(LinearDiscriminantAnalysis(solver="eigen", n_components=1), KNN(3)),
    "truncated SVD": make_pipeline(StandardScaler(), TruncatedSVD(4, random_state=0), KNN(5)),
    "incremental PCA": make_pipeline(StandardScaler(), IncrementalPCA(4, whiten=True), KNN(5, weights="distance")),
    "factors": make_pipeline(StandardScaler(), FactorAnalysis(3, random_state=0), KNN(3)),
    "Gaussian projection": make_pipeline(StandardScaler(), GaussianRandomProjection(5, random_state=0), KNN(3)),
    "sparse projection": make_pipeline(StandardScaler(), SparseRandomProjection(5, random_state=0), KNN(3, p=1)),
    "variance": make_pipeline(VarianceThreshold(0.2), StandardScaler(), KNN(3)),
    "best of them": make_pipeline(StandardScaler(), SelectKBest(k=5), KNN(3, metric="cosine")),
    "percentile": make_pipeline(SelectPercentile(percentile=40), RobustScaler(), KNN(3)),
    "from a model": make_pipeline(SelectFromModel(LogisticRegression(max_iter=5000)), StandardScaler(), KNN(3)),
    "recursive": make_pipeline(
        RFE(LogisticRegression(max_iter=5000), n_features_to_select=4), StandardScaler(), KNN(3)
    ),
    "columns": make_pipeline(
        ColumnTransformer(
            [
                ("wide", make_pipeline(StandardScaler(), PCA(2)), [0, 1, 2, 12]),
                ("thin", MinMaxScaler((1, 3)), slice(3, 6)),
                ("none", "drop", [6]),
                ("empty", StandardScaler(), []),
            ],
            remainder="passthrough",
            transformer_weights={"wide": 3.0},
        ),
        KNN(3, weights="distance"),
    ),
    "union": make_pipeline(
        FeatureUnion(
            [("pca", make_pipeline(RobustScaler(), PCA(3))), ("best", SelectKBest(k=2)), ("off", "drop")],
            transformer_weights={"best": 0.1},
        ),
        StandardScaler(),
        KNN(3),
    ),
    "shared columns": make_pipeline(
        FeatureUnion([("raw", "passthrough"), ("scaled", StandardScaler()), ("pca", PCA(3))]), KNN(3)
    ),
    "columns named twice": make_pipeline(
        ColumnTransformer([("raw", "passthrough", [0, 1]), ("scaled", StandardScaler(), [1, 2, 2])]), KNN(3)
    ),
    "standardised": KNN(3, metric="seuclidean", metric_params={"V": KEPT.var(axis=0, ddof=1)}),
    "mahalanobis": KNN(3, metric="mahalanobis", metric_params={"VI": np.linalg.inv(np.cov(KEPT.T))}),
    "after a scaler": make_pipeline(
        StandardScaler(),
        KNN(3, metric="mahalanobis", metric_params={"V": np.cov(StandardScaler().fit_transform(KEPT).T)}),
    ),
    "mahalanobis, not symmetric": make_pipeline(
        StandardScaler(), KNN(3, metric="mahalanobis", metric_params={"VI": np.tri(13) + 2.0 * np.eye(13)})
    ),
    "mahalanobis, of half the directions": make_pipeline(
        StandardScaler(),
        KNN(3, metric="mahalanobis", metric_params={"VI": np.linalg.pinv(np.cov(np.repeat(KEPT[:8], 2, axis=0).T))}),
    ),
    "weighted": make_pipeline(StandardScaler(), KNN(3, metric_params={"w": np.arange(13.0)})),
    "weighted, manhattan": make_pipeline(StandardScaler(), KNN(3, p=1, metric_params={"w": np.arange(1.0, 14.0)})),
    "correlation": make_pipeline(StandardScaler(), KNN(3, metric="correlation")),
    "over sampled": imblearn_pipeline(StandardScaler(), RandomOverSampler(random_state=0), KNN(3)),
}


@pytest.mark.parametrize("name", sorted(LINEAR))
def test_a_linear_map_or_metric_answers_as_the_estimator(name: str, tmp_path: Path) -> None:
    estimator = clone(LINEAR[name]).fit(KEPT, LABELS)
    model = knnkit.from_sklearn(estimator, name="wine")
    assert model.predict(HELD_OUT).tolist() == estimator.predict(HELD_OUT).tolist()
    assert np.abs(model.predict_proba(HELD_OUT) - estimator.predict_proba(HELD_OUT)).max() <= 1e-5
    steps = [step for _, step in getattr(estimator, "steps", [("knn", estimator)])]
    mapped = HELD_OUT
    for step in steps[:-1]:
        mapped = step.transform(mapped) if hasattr(step, "transform") else mapped
    distances, indices = steps[-1].kneighbors(mapped)
    found = model.neighbors(HELD_OUT)
    if name != "over sampled":  # its copies of a row tie, and scikit-learn leaves their order open
        assert np.array_equal(found.indices, indices)
    assert np.allclose(found.distances, distances, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(LINEAR) - {"over sampled"}))
def test_a_linear_map_is_read_from_skops(name: str, tmp_path: Path) -> None:
    estimator = clone(LINEAR[name]).fit(KEPT, LABELS)
    skops.io.dump(estimator, tmp_path / "wine.skops")
    imported = knnkit.from_skops(tmp_path / "wine.skops", name="wine")
    assert imported.fitted.enrolment.fingerprint == knnkit.from_sklearn(estimator).fitted.enrolment.fingerprint


@pytest.mark.parametrize(("name", "words"), list(zip(sorted(PIPELINES), itertools.cycle([False, True]))))
def test_the_device_answers_as_the_estimator(name: str, words: bool, device: DeviceProcess, tmp_path: Path) -> None:
    labels = np.array(["barbera", "grignolino", "nebbiolo"])[LABELS] if words else LABELS
    estimator = PIPELINES[name].fit(KEPT, labels)
    imported = knnkit.from_sklearn(estimator, name="wine")
    path = tmp_path / "model.tflite"
    path.write_bytes(imported.build().data)
    answers = device.classify(path, HELD_OUT.astype(np.float32))
    assert answers.predicted.tolist() == estimator.predict(HELD_OUT).tolist()
    assert np.abs(answers.probabilities - estimator.predict_proba(HELD_OUT)).max() <= 1e-5
    classifier = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    mapped = estimator[:-1].transform(HELD_OUT) if isinstance(estimator, Pipeline) else HELD_OUT
    distances, indices = classifier.kneighbors(mapped)
    assert np.array_equal(answers.indices, indices)
    assert np.allclose(answers.distances, distances, rtol=1e-4, atol=1e-6)


def test_a_skops_file_is_read(tmp_path: Path) -> None:
    estimator = make_pipeline(StandardScaler(), KNeighborsClassifier(3, algorithm="kd_tree")).fit(KEPT, LABELS)
    skops.io.dump(estimator, tmp_path / "wine.skops")
    imported = knnkit.from_skops(tmp_path / "wine.skops", name="wine", reject=0.9)
    direct = knnkit.from_sklearn(estimator, name="wine", reject=0.9)
    assert imported.fitted.spec == direct.fitted.spec
    assert imported.fitted.spec.scale == "standard"
    assert imported.fitted.enrolment.fingerprint == direct.fitted.enrolment.fingerprint


GRID = {"n_neighbors": [1, 3, 5]}
SEARCHES = {
    "grid": GridSearchCV(KNeighborsClassifier(), GRID, cv=3),
    "random, over a pipeline": RandomizedSearchCV(
        make_pipeline(StandardScaler(), KNeighborsClassifier()), {"kneighborsclassifier__p": [1, 2]}, n_iter=2, cv=3
    ),
    "inside a pipeline": make_pipeline(StandardScaler(), GridSearchCV(KNeighborsClassifier(), GRID, cv=3)),
    "of a pipeline that ends in another": make_pipeline(
        MinMaxScaler(), make_pipeline(PCA(4), GridSearchCV(KNeighborsClassifier(weights="distance"), GRID, cv=3))
    ),
}


@pytest.mark.parametrize("name", sorted(SEARCHES))
def test_a_search_hands_over_its_best_estimator(name: str) -> None:
    search = SEARCHES[name].fit(KEPT, LABELS)
    model = knnkit.from_sklearn(search, name="wine")
    assert model.predict(HELD_OUT).tolist() == search.predict(HELD_OUT).tolist()
    assert np.abs(model.predict_proba(HELD_OUT) - search.predict_proba(HELD_OUT)).max() <= 1e-5
    assert model.score(HELD_OUT, TRUTH) == search.score(HELD_OUT, TRUTH)
    assert model.classes_.tolist() == search.classes_.tolist()


class Stranger(KNeighborsClassifier):
    """Somebody's own code."""


def test_a_file_that_could_run_code_is_not_loaded(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (marker,)

    (tmp_path / "trap.skops").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(BuildError, match="not a file in the skops format"):
        knnkit.from_skops(tmp_path / "trap.skops")
    assert not marker.exists()
    skops.io.dump(Stranger(3).fit(KEPT, LABELS), tmp_path / "stranger.skops")
    with pytest.raises(BuildError, match=r"types that are not trusted: .*Stranger"):
        knnkit.from_skops(tmp_path / "stranger.skops")
    for metric in ("canberra", "braycurtis", lambda one, other: abs(one - other).sum()):
        skops.io.dump(KNeighborsClassifier(3, metric=metric).fit(KEPT, LABELS), tmp_path / "other.skops")
        name = metric if isinstance(metric, str) else "pyfunc"
        with pytest.raises(BuildError, match=f"the metric {name} is not supported: ") as caught:
            knnkit.from_skops(tmp_path / "other.skops")
        assert "one of chebyshev, correlation, cosine" in str(caught.value.hint)
    skops.io.dump(KNeighborsClassifier(3, metric="hamming").fit(np.rint(KEPT), LABELS), tmp_path / "hamming.skops")
    assert knnkit.from_skops(tmp_path / "hamming.skops")
    with pytest.raises(BuildError, match="no such file"):
        knnkit.from_skops(tmp_path / "missing.skops")
    skops.io.dump(GridSearchCV(KNeighborsClassifier(), {}).fit(KEPT, LABELS), tmp_path / "search.skops")
    with pytest.raises(BuildError, match="knnkit cannot import") as caught:
        knnkit.from_skops(tmp_path / "search.skops")
    assert caught.value.hint == "skops.io.dump(search.best_estimator_, ...)"


@pytest.mark.parametrize(
    ("estimator", "said", "hint"),
    [
        (StandardScaler(), "StandardScaler is not supported", "ends in one"),
        (GridSearchCV(KNeighborsClassifier(), {}, refit=False), "GridSearchCV is not supported", "refit=True"),
        (GridSearchCV(StandardScaler(), {}, scoring=lambda *_: 0.0), "StandardScaler is not", "a fitted KNeighbors"),
        (Stranger(3), "Stranger is not supported", "a fitted KNeighborsClassifier"),
        (
            make_pipeline(SplineTransformer(), KNeighborsClassifier(3)),
            "SplineTransformer is not supported in front of the classifier: its splines",
            "docs/scikit-learn.md",
        ),
        (KNeighborsClassifier(3, metric="canberra"), "the metric canberra is not supported", "manhattan"),
        (KNeighborsClassifier(3, p=17), "a power from 1 to 16", "chebyshev"),
        (KNeighborsClassifier(3, weights=np.exp), "weights as a function", "'distance'"),
        (
            KNeighborsClassifier(3, metric="euclidean", algorithm="brute", metric_params={"w": np.arange(13.0)}),
            "the metric euclidean with w is not supported: scikit-learn uses w with minkowski alone",
            "metric='minkowski'",
        ),
        (
            KNeighborsClassifier(3, p=np.inf, algorithm="brute", metric_params={"w": np.arange(13.0)}),
            "the metric chebyshev with w is not supported",
            "metric='minkowski'",
        ),
        (KNeighborsClassifier(3, metric="seuclidean", algorithm="brute"), "has no V", "metric_params={'V': ...}"),
        (
            KNeighborsClassifier(
                3, metric="mahalanobis", algorithm="brute", metric_params={"V": np.diag([0.0, *[1.0] * 12])}
            ),
            "a V without an inverse",
            "pinv",
        ),
        (
            KNeighborsClassifier(3, metric="mahalanobis", algorithm="brute", metric_params={"VI": -np.eye(13)}),
            "a VI with a negative eigenvalue",
            "pinv",
        ),
    ],
)
def test_what_is_not_supported_is_named(estimator: Any, said: str, hint: str) -> None:
    with pytest.raises(BuildError, match=said) as caught:
        knnkit.from_sklearn(estimator.fit(KEPT, LABELS))
    assert hint in caught.value.hint


@pytest.mark.parametrize("changed", [{"metric": "manhattan"}, {"p": 3}, {"metric_params": {"p": 1}}])
def test_a_metric_changed_after_fit_is_refused(changed: dict[str, Any]) -> None:
    """scikit-learn predicts with the new metric, and finds neighbours with the old one."""
    estimator = KNeighborsClassifier(3, algorithm="brute").fit(KEPT, LABELS)
    with pytest.raises(BuildError, match="the metric was changed after fit, from euclidean"):
        knnkit.from_sklearn(estimator.set_params(**changed))
    compared = KNeighborsClassifier(3, metric="hamming").fit(np.rint(KEPT), LABELS)
    with pytest.raises(BuildError, match="the metric was changed after fit, from hamming"):
        knnkit.from_sklearn(compared.set_params(**{"metric": "minkowski", **changed}))
    assert knnkit.from_sklearn(KNN(3, metric="infinity").fit(KEPT, LABELS)).fitted.spec.metric == "chebyshev"
    other = KNeighborsClassifier(3, algorithm="brute").fit(KEPT, LABELS).set_params(n_neighbors=4)
    assert knnkit.from_sklearn(other).fitted.spec.k == 4


def test_several_label_columns_have_no_radius_and_no_kernel() -> None:
    """Their votes are those of k neighbours: an answer that ignored the radius would be wrong without a word."""
    both = np.stack([LABELS, LABELS % 2], axis=1)
    with pytest.raises(BuildError, match="RadiusNeighborsClassifier with several label columns is not supported"):
        knnkit.from_sklearn(RadiusNeighborsClassifier(9.0, outlier_label=[5, 5]).fit(KEPT, both))
    with pytest.raises(BuildError, match="label columns does not work with metric euclidean and weights gaussian"):
        knnkit.from_sklearn(KNeighborsClassifier(3, weights=knnkit.kernels.gaussian(1.0)).fit(KEPT, both))
    with pytest.raises(BuildError, match="radius and class_weight are only for classifiers"):
        knnkit.TfKNN(KEPT, 3, targets=LABELS, radius=9.0)


def test_a_notebook_shows_what_it_is_and_what_to_do() -> None:
    imported = knnkit.from_sklearn(PIPELINES["bare"].fit(KEPT, LABELS), name="wine")
    said = "124 rows x 13 features, 3 classes, k = 3, euclidean, weights uniform"
    assert repr(imported) == f"<TfKNN 'wine' from KNeighborsClassifier: {said}>"
    with pytest.raises(BuildError) as caught:
        knnkit.from_sklearn("wine.skops")
    hint = "knnkit.from_skops('wine.skops')"
    assert caught.value.hint == hint
    assert getattr(caught.value, "__notes__", None) == ([f"try: {hint}"] if sys.version_info >= (3, 11) else None)


def test_labels_of_whole_floats_are_integers() -> None:
    imported = knnkit.from_sklearn(KNeighborsClassifier(3).fit(KEPT, LABELS.astype(float)))
    assert imported.fitted.enrolment.classes == (0, 1, 2)


def test_an_outlier_label_may_be_true() -> None:
    estimator = RadiusNeighborsClassifier(30.0, outlier_label=True).fit(KEPT, LABELS > 0)
    asked = np.concatenate([HELD_OUT, HELD_OUT + 1e6])
    assert knnkit.from_sklearn(estimator).predict(asked).tolist() == estimator.predict(asked).astype(str).tolist()


def test_true_and_false_are_labels_as_in_a_file(tmp_path: Path) -> None:
    for given in (LABELS > 0, np.stack([LABELS > 0, LABELS > 1], axis=1)):
        estimator = KNeighborsClassifier(3).fit(KEPT, given)
        host = knnkit.from_sklearn(estimator)
        expected = estimator.predict(KEPT)
        assert host.predict(KEPT).tolist() == expected.astype(str).tolist()
        device = TfliteKNN(host.export(tmp_path / "m.tflite"))
        for truth in (expected, expected.astype(str)):
            assert host.score(KEPT, truth) == device.score(KEPT, truth) == 1.0
        held_out = labelled_rows(host.fitted, (KEPT, given))
        assert held_out is not None
        replace(source.of_imported(host.fitted, held_out), agreement=1.0).build(Gates())


class Halver(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Somebody's own transformer, which does not note its columns."""

    def fit(self, rows: Any, labels: Any = None) -> Halver:
        return self

    def transform(self, rows: Any) -> Any:
        return rows / 2


NAMES = [f"f{place}" for place in range(13)]
#: Pipelines that scikit-learn itself gives no names of columns, and their first step that has some.
UNNAMED: dict[str, Any] = {
    "no scaler": Pipeline([("scale", "passthrough"), ("knn", KNN(3))]),
    "no scaler, then PCA": Pipeline([("scale", "passthrough"), ("pca", PCA(3)), ("knn", KNN(3))]),
    "an inner one": make_pipeline(Pipeline([("scale", "passthrough"), ("pca", PCA(3))]), KNN(3)),
    "a search": GridSearchCV(make_pipeline(StandardScaler(), KNN(3)), {"standardscaler": ["passthrough"]}, cv=2),
    "union, its first off": make_pipeline(FeatureUnion([("off", "drop"), ("pca", PCA(3))]), KNN(3)),
    "union of a pipeline": make_pipeline(
        FeatureUnion(
            [("a", Pipeline([("off", "passthrough"), ("log", FunctionTransformer(np.log1p))])), ("b", PCA(2))]
        ),
        KNN(3),
    ),
}


@pytest.mark.parametrize("name", sorted(UNNAMED))
def test_columns_have_names_whatever_the_first_step_is(name: str) -> None:
    frame = pd.DataFrame(HELD_OUT, columns=NAMES)
    estimator = clone(UNNAMED[name]).fit(pd.DataFrame(KEPT, columns=NAMES), LABELS)
    model = knnkit.from_sklearn(estimator)
    assert fitted_names(estimator) == tuple(NAMES)
    assert model.predict(frame[NAMES[::-1]]).tolist() == estimator.predict(frame).tolist()
    with pytest.raises(DataError, match="there is no column 'f0'"):
        model.predict(frame.rename(columns={"f0": "other"}))


def test_what_cannot_be_imported_is_named_wherever_it_stands() -> None:
    words = ["red wine", "white wine", "no wine"]
    for first, name in ((TfidfVectorizer(), "TfidfVectorizer"), (CountVectorizer(), "CountVectorizer")):
        with pytest.raises(BuildError, match=f"{name} is not supported in front of the classifier: it reads doc"):
            knnkit.from_sklearn(make_pipeline(first, KNN(1)).fit(words, words))
    for own in (make_pipeline(Halver(), KNN(1)), make_pipeline(FeatureUnion([("own", Halver())]), KNN(1))):
        with pytest.raises(BuildError, match="Halver is not supported in front of the classifier"):
            knnkit.from_sklearn(own.fit(KEPT, LABELS))
    tuned = TunedThresholdClassifierCV(KNN(3)).fit(KEPT, LABELS > 0)
    with pytest.raises(BuildError, match="TunedThresholdClassifierCV is not supported") as caught:
        knnkit.from_sklearn(tuned)
    assert caught.value.hint == "a fitted KNeighborsClassifier, or a Pipeline that ends in one"
    with pytest.raises(BuildError, match="NearestNeighbors is not fitted on rows"):  # this tree has its own metric
        knnkit.from_sklearn(NearestNeighbors(n_neighbors=3).fit(KDTree(KEPT, metric="manhattan")))


def test_what_is_not_fitted_or_does_not_fit_is_named() -> None:
    with pytest.raises(BuildError, match="not fitted"):
        knnkit.from_sklearn(KNeighborsClassifier(3))
    with pytest.raises(BuildError, match="GridSearchCV is not supported") as caught:
        knnkit.from_sklearn(GridSearchCV(KNeighborsClassifier(), {}))
    assert caught.value.hint == "search.fit(rows, labels)"
    with pytest.raises(BuildError, match="the label 'unknown' is reserved for rejected rows"):
        knnkit.from_sklearn(KNeighborsClassifier(3).fit(KEPT, np.array(["a", "b", "unknown"])[LABELS]))
    with pytest.raises(BuildError, match="2 distinct feature names for 13 columns"):
        knnkit.from_sklearn(KNeighborsClassifier(3).fit(KEPT, LABELS), feature_names=("a", "b"))
