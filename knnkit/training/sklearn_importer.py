"""Imports fitted nearest-neighbour estimators from scikit-learn.

These are classifiers, regressions and outlier factors (`ESTIMATORS`), also in a search such as GridSearchCV or at the
end of a Pipeline, of which each transformer becomes steps of knnkit. If a part has no exact equivalent,
an error names the part and what to do instead. Reads files in the skops format, which runs no code; no pickles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.features.transforms import FUNCTIONS
from device_agent.shared.outliers import TARGETS
from device_agent.shared.protocol.constants import UNKNOWN_LABEL, Metric, Scale, Weights
from device_agent.shared.tabular.csv_dialect import short
from knnkit.data.dataset import RENAME, is_plain
from knnkit.data.files import BROKEN, members_that_fit
from knnkit.data.patterns import nearest
from knnkit.data.targets import CLASS, default_names
from knnkit.errors import FILE, BuildError, needs
from knnkit.kernels import Kernel
from knnkit.model.reference.enrolment import Enrolment, with_class
from knnkit.model.reference.space import Float32, Space, adopt_space
from knnkit.model.reference.spec import KnnSpec
from knnkit.training.fitted import Fitted
from knnkit.training.sklearn_left_out import ESTIMATORS as LEFT_OUT
from knnkit.training.sklearn_left_out import because
from knnkit.training.sklearn_metrics import compare_values, is_hamming, metric_of, require_metrics, require_whole
from knnkit.training.sklearn_pipelines import convert_all, is_nonlinear
from knnkit.training.sklearn_transforms import convert, first_of, parts_of, width_of, without_dropped

_TAKEN_OVER = (
    "an estimator of sklearn.neighbors, or a Pipeline that ends in one (docs/scikit-learn.md has the list), "
    "written by skops.io.dump"
)
Labels = tuple[int | str, ...]
#: What is imported, alone or at the end of a Pipeline, and what may stand around it.
ESTIMATORS = (
    *("KNeighborsClassifier", "KNeighborsRegressor", "NearestNeighbors"),
    *("RadiusNeighborsClassifier", "LocalOutlierFactor"),
)
#: Neighbours that a model with a radius shows.
_SHOWN = 5
AROUND = ("Pipeline, also nested", "searches (their best estimator)", "pipelines and samplers of imbalanced-learn")
#: Module of scikit-learn's hyperparameter searches and of their cross-validation splitters.
_SEARCHES = "sklearn.model_selection."
#: Largest schema.json of a file in the skops format, in bytes; that of a pipeline has about ten thousand.
_MAX_SCHEMA = 16 * 1024 * 1024
#: Scaler -> the same scaler in knnkit, and the settings with which both are equal.
_SCALES: dict[str, tuple[Scale, dict[str, Any]]] = {
    "StandardScaler": ("standard", {"with_mean": True, "with_std": True}),
    "MinMaxScaler": ("minmax", {"feature_range": (0, 1)}),
    "RobustScaler": (
        "robust",
        {"with_centering": True, "with_scaling": True, "unit_variance": False, "quantile_range": (25.0, 75.0)},
    ),
}


def import_estimator(
    estimator: Any,
    *,
    name: str = "model",
    feature_names: tuple[str, ...] | None = None,
    reject: float | Mapping[str, float] | None = None,
    source: str | None = None,
) -> Fitted:
    """Returns a fitted scikit-learn estimator as a classifier called `name`.

    `feature_names` are the raw columns (None: those it was fitted with), `reject` is the share of ordinary rows to
    accept (None: all) or label -> share, `source` the estimator's name in messages (None: that of its class).
    Raises:
        BuildError: a part is not supported; the message names it, the hint states what to do instead.
    """
    maps, classifier = _parts(estimator)
    name_of = type(classifier).__name__
    width = width_of(maps[0]) if maps else classifier._fit_X.shape[1]
    names, table = _names(estimator, feature_names, width), None
    mapped = _training_rows(classifier)
    metric: Metric = "sqeuclidean"
    p: float | None = None
    if is_hamming(classifier):
        table, mapped, weighting = compare_values(classifier, maps, mapped, names)
        maps, names = [], tuple(f"value_{place}" for place in range(mapped.shape[1]))
    else:
        if curved := max((place for place, each in enumerate(maps, 1) if is_nonlinear(each)), default=0):
            table, maps = convert_all(maps[:curved], names), maps[curved:]
            names = _made_names(estimator, curved, names, width_of(maps[0]) if maps else mapped.shape[1])
        metric, p, weighting = metric_of(classifier, mapped.shape[1])
        if metric == "jaccard":
            require_whole("jaccard", maps, mapped)
    for step in weighting:
        mapped = step.apply(mapped, query=False)
    steps = [step for each in maps for step in convert(each)] + weighting
    table = table or (without_dropped(maps[0], steps, names) if maps else None)
    space, enrolled = adopt_space(mapped, steps, metric, p)
    alike = np.zeros(len(enrolled), np.int32)
    targets, columns = _targets(classifier)
    classes, codes = ((CLASS,), alike) if targets is not None else _classes(classifier) or ((0,), alike)
    source = source or type(estimator).__name__
    weights, bandwidth = _weights(classifier)
    own = {"p": p, "bandwidth": bandwidth, **_own(classifier)}
    if name_of.startswith("Radius"):
        k = min(_SHOWN, len(enrolled))
    else:  # outlier factors have n_neighbors_, which is at most n - 1
        k = int(getattr(classifier, "n_neighbors_", classifier.n_neighbors))
    spec = KnnSpec(name, k, metric, weights, _scale(maps), reject, **own)
    classes, codes = with_class(classes, codes, spec.outlier_label)
    fingerprint = _fingerprint(space, enrolled, codes, (*classes, *columns), targets)
    word = "label" if columns else "target"
    called = TARGETS if spec.offset is not None else () if targets is None else default_names(targets.shape[1], word)
    numbers = (targets, called, columns)
    enrolment = Enrolment(space, enrolled, codes, classes, names, fingerprint, source, *numbers)
    return Fitted(spec, enrolment, estimator, table, targets is not None or hasattr(classifier, "classes_"))


def _own(estimator: Any) -> dict[str, Any]:
    """Returns more arguments of `KnnSpec` for an estimator with a radius or outlier factors; {} for others."""
    name = type(estimator).__name__
    if name == "LocalOutlierFactor":
        return {"offset": float(estimator.offset_)}
    if name != "RadiusNeighborsClassifier":
        return {}
    if estimator.outputs_2d_:
        hint = f"KNeighborsClassifier, or one {name} for each column"
        raise BuildError(f"{name} with several label columns is not supported", hint=hint)
    outlier: Any = None
    if estimator.outlier_label_ is not None:  # one for each output
        (outlier,) = _labels(np.asarray(estimator.outlier_label_).reshape(-1)[:1])
    return {"radius": float(estimator.radius), "outlier_label": outlier}


def _made_names(estimator: Any, count: int, names: tuple[str, ...], width: int) -> tuple[str, ...]:
    """Returns names of the `width` features that the first `count` transformers make of the columns `names`.

    feature_0, feature_1 and so on if the transformers do not give plain, distinct names.
    """
    made: Any = names
    try:
        for each in _parts(estimator)[0][:count]:
            made = each.get_feature_names_out(made)
    except (AttributeError, ValueError, TypeError):
        made = ()
    found = tuple(map(str, made))
    fits = len(found) == len(set(found)) == width and all(map(is_plain, found))
    return found if fits else tuple(f"feature_{place}" for place in range(width))


def _targets(estimator: Any) -> tuple[NDArray[np.float64] | None, tuple[Labels, ...]]:
    """Returns (n_train, t) targets and the labels of each label column; (None, ()) for a classifier with one column.

    Targets are numbers to predict, class indices in several label columns, or for outlier factors, the distance of the
    k-th neighbour and the local density of each row.
    """
    columns = tuple(map(_labels, estimator.classes_)) if getattr(estimator, "outputs_2d_", False) else ()
    if type(estimator).__name__ == "LocalOutlierFactor":
        k = int(estimator.n_neighbors_)
        both = np.stack([estimator._distances_fit_X_[:, k - 1], estimator._lrd], axis=1)
        return np.asarray(both, np.float64), ()
    if type(estimator).__name__ != "KNeighborsRegressor" and not columns:
        return None, ()
    return np.array(estimator._y, np.float64).reshape(len(estimator._y), -1), columns


def _fingerprint(
    space: Space,
    enrolled: Float32,
    codes: NDArray[np.int32],
    classes: tuple[Any, ...],
    targets: NDArray[np.float64] | None,
) -> str:
    """Returns the SHA-256 of rows, labels and targets (None: none) in model space, and of the map into model space."""
    digest = hashlib.sha256(repr((space.metric, classes, [step.kind for step in space.steps])).encode())
    arrays: list[NDArray[Any]] = [enrolled, codes, space.centre, space.scale]
    arrays += [each for each in (space.origin, targets) if each is not None]
    for array in arrays + [part for step in space.steps for part in (step.a, step.b)]:
        digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def load_skops(path: str | Path) -> Any:
    """Returns the estimator in a file in the skops format; runs no code from the file.

    Raises:
        BuildError: the file cannot be read, or holds types that skops does not trust.
        MissingDependency: skops is not installed.
    """
    with needs("reading this file needs skops"):
        import skops.io
        from skops.io.exceptions import UntrustedTypesFoundException
    try:
        members_that_fit(Path(path), schema_json=_MAX_SCHEMA)
        untrusted = [kind for kind in skops.io.get_untrusted_types(file=path) if kind not in _HARMLESS]
        if untrusted:
            require_metrics(untrusted)
            own = all(kind.startswith("sklearn.") for kind in untrusted)
            said = "parts of scikit-learn that knnkit cannot import" if own else "types that are not trusted"
            searched = any(kind.startswith(_SEARCHES) for kind in untrusted)
            hint = "skops.io.dump(search.best_estimator_, ...)" if searched else _TAKEN_OVER
            raise BuildError(f"{path} holds {said}: {', '.join(untrusted)}", hint=hint)
        return skops.io.load(path, trusted=list(_HARMLESS))
    except FileNotFoundError:
        hint = nearest(Path(path), (".skops",), "skops.io.dump writes one")
        raise BuildError(f"{path}: no such file", hint=hint, key=FILE) from None
    except (*BROKEN, UntrustedTypesFoundException) as error:
        said = f"{path} is not a file in the skops format: {str(error) or type(error).__name__}"
        raise BuildError(said, hint="skops.io.dump writes one", key=FILE) from None


#: Types that skops does not list as trusted. Search trees, metrics and a sparse matrix only hold numbers; a selector's
#: score function, and types of columns, are named and never called.
_HARMLESS = (
    *(f"sklearn.neighbors.{tree}" for tree in ("_kd_tree.KDTree", "_ball_tree.BallTree")),
    *(
        f"sklearn.metrics._dist_metrics.{metric}Distance64"
        for metric in ("Euclidean", "Manhattan", "SEuclidean", "Mahalanobis", "Minkowski", "Chebyshev", "Jaccard",
                       "Haversine", "Hamming")
    ),
    "knnkit.kernels.Kernel",
    "sklearn.compose._column_transformer.make_column_selector",  # the columns that it chose are in the file
    *(f"numpy.{kind}" for kind in ("number", "floating", "integer", "object_", "str_", "bool_", "bool")),
    *("builtins.object", "pandas.CategoricalDtype"),
    *(f"sklearn.feature_selection._univariate_selection.{score}" for score in ("f_classif", "chi2", "f_regression")),
    *(f"sklearn.feature_selection._mutual_info.mutual_info_{kind}" for kind in ("classif", "regression")),
    *(f"numpy.{name}" for name in ("dtype", *sorted(FUNCTIONS), "absolute")),
    "scipy.sparse._csr.csr_matrix",
)  # fmt: skip


def _parts(estimator: Any) -> tuple[list[Any], Any]:
    """Returns the transformers in order, and the classifier, of an estimator (of a GridSearchCV: of its best one)."""
    from sklearn import neighbors
    from sklearn.pipeline import Pipeline

    kind = type(estimator)
    if kind is Pipeline or (kind.__module__, kind.__name__) == ("imblearn.pipeline", "Pipeline"):
        # A sampler of imbalanced-learn changes what a Pipeline is fitted on, and no row that it is asked.
        maps = [step for _, step in estimator.steps[:-1] if not hasattr(step, "fit_resample")]
        further, classifier = _parts(estimator.steps[-1][1])
        return [inner for each in maps for inner in parts_of(each)] + further, classifier
    if _is_search(estimator) and hasattr(estimator, "best_estimator_"):
        return _parts(estimator.best_estimator_)
    if type(estimator) not in [getattr(neighbors, name) for name in ESTIMATORS]:
        name = "None" if estimator is None else type(estimator).__name__
        raise BuildError(f"{name} is not supported{because(name, LEFT_OUT)}", hint=_instead_of(estimator))
    if not (hasattr(estimator, "_fit_X") and hasattr(estimator, "n_features_in_")):  # a tree keeps its own metric
        raise BuildError(f"the {type(estimator).__name__} is not fitted on rows", hint="estimator.fit(rows, labels)")
    if not getattr(estimator, "novelty", True):
        said = "LocalOutlierFactor with novelty=False answers for its training rows alone"
        raise BuildError(said, hint="LocalOutlierFactor(novelty=True).fit(rows)")
    return [], estimator


def _is_search(estimator: Any) -> bool:
    return type(estimator).__module__.startswith(_SEARCHES) and hasattr(estimator, "error_score")


def _instead_of(estimator: Any) -> str:
    if isinstance(estimator, str | Path):
        return f"knnkit.from_skops({str(estimator)!r})"
    if _is_search(estimator):
        return "search.fit(rows, labels)" if estimator.refit else "refit=True, then search.fit(rows, labels)"
    return "a fitted KNeighborsClassifier, or a Pipeline that ends in one"


def _weights(classifier: Any) -> tuple[Weights, float | None]:
    """Returns the weights of a classifier, and the bandwidth of a kernel (else None); BuildError for a function."""
    given: Any = getattr(classifier, "weights", None) or "uniform"
    if isinstance(given, Kernel):
        return given.name, float(given.bandwidth)
    if isinstance(given, str):
        return given, None  # type: ignore[return-value]
    hint = "weights='uniform', 'distance' or a kernel: knnkit.kernels.gaussian(0.5)"
    raise BuildError("weights as a function are not supported", hint=hint)


def _training_rows(classifier: Any) -> NDArray[Any]:
    rows = classifier._fit_X
    rows = rows.toarray() if hasattr(rows, "toarray") else rows  # as encoders give them
    return rows if rows.dtype == np.float32 else np.asarray(rows, np.float64)


def _classes(classifier: Any) -> tuple[Labels, NDArray[np.int32]] | None:
    if not hasattr(classifier, "classes_"):  # NearestNeighbors
        return None
    return _labels(classifier.classes_), np.asarray(classifier._y).reshape(-1).astype(np.int32)


def _labels(found: Any) -> Labels:
    classes = np.asarray(found)
    classes = classes.astype(str) if classes.dtype == bool else classes  # as from a file
    if classes.dtype.kind == "f" and (classes == np.rint(classes)).all() and np.abs(classes).max() < 2**53:
        classes = classes.astype(np.int64)  # 2.0 is the class 2, as in a file
    if not (np.issubdtype(classes.dtype, np.integer) or classes.dtype.kind in "UO"):
        raise BuildError(f"labels of type {classes.dtype} are not supported", hint="integers or text")
    labels = classes.tolist()
    if UNKNOWN_LABEL in labels:
        raise BuildError(f"the label {UNKNOWN_LABEL!r} is reserved for rejected rows", hint="rename it, and fit again")
    strange = [word for word in labels if not isinstance(word, int) and not (isinstance(word, str) and is_plain(word))]
    if strange:
        raise BuildError(f"a label may not be {short(str(strange[0]))}", hint=f"{RENAME}, and fit again")
    return tuple(labels)


def fitted_names(estimator: Any) -> tuple[str, ...] | None:
    """Returns the feature names that `estimator` was fitted with; None if it was fitted on a plain array."""
    maps, classifier = _parts(estimator)
    first = first_of(maps[0]) if maps else classifier  # a Pipeline that begins with "passthrough" has no names
    fitted = getattr(estimator, "feature_names_in_", getattr(first, "feature_names_in_", None))
    return None if fitted is None else tuple(map(str, fitted))


def _names(estimator: Any, given: tuple[str, ...] | None, width: int) -> tuple[str, ...]:
    names = given or fitted_names(estimator) or tuple(f"feature_{i}" for i in range(width))
    if len(names) != width or len(set(names)) != width:
        said = f"{len(set(names))} distinct feature names for {width} columns"
        raise BuildError(said, hint="feature_names: one name for each column")
    strange = next((name for name in names if not is_plain(name)), None)
    if strange is not None:
        hint = f"{RENAME}; feature_names gives other names"
        raise BuildError(f"a feature may not be called {short(strange)}", hint=hint)
    return names


def _scale(maps: list[Any]) -> Scale:
    """Returns the value of `scale` in deploy.yaml that has the effect of these transformers; "none" if none has it."""
    if len(maps) != 1:
        return "none"
    scale, settings = _SCALES.get(type(maps[0]).__name__, ("none", {}))
    return scale if all(np.array_equal(getattr(maps[0], name), value) for name, value in settings.items()) else "none"
