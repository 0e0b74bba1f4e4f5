"""From scikit-learn: a fitted KNeighborsClassifier, or a Pipeline that ends in one, to what `build_enrolled` takes.

Every map that can stand before it is one of knnkit's own steps; what cannot be told exactly is refused by name, with
what to do instead. A file is read in the skops format, which runs no code of its author; pickles are not read.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.contract import Metric, Scale
from knnkit.errors import BuildError, MissingDependency
from knnkit.model.build import BuiltModel, build_enrolled
from knnkit.model.dataset import Dataset
from knnkit.model.enrol import Enrolment
from knnkit.model.space import Step, adopt_space, affine
from knnkit.model.spec import KnnSpec

#: Metrics of scikit-learn, as KNeighborsClassifier resolves them, and what they are called here.
_METRICS: dict[str, Metric] = {
    "euclidean": "euclidean",
    "l2": "euclidean",
    "sqeuclidean": "sqeuclidean",
    "manhattan": "manhattan",
    "l1": "manhattan",
    "cityblock": "manhattan",
    "cosine": "cosine",
}
_SCALES: dict[str, Scale] = {"StandardScaler": "standard", "MinMaxScaler": "minmax", "RobustScaler": "robust"}


@dataclass(frozen=True)
class Imported:
    """A classifier from scikit-learn: what it is, and its training rows in model space."""

    spec: KnnSpec
    enrolment: Enrolment

    def build(self, held_out: Dataset | None = None, *, margin: float = 1e-5, seed: int = 0) -> BuiltModel:
        """Returns the model file and its reference; `held_out` measures the acceptance rate.

        Raises:
            BuildError: the model cannot be built.
        """
        return build_enrolled(self.spec, self.enrolment, held_out, margin=margin, seed=seed)


def from_sklearn(
    estimator: Any,
    *,
    name: str = "model",
    feature_names: tuple[str, ...] | None = None,
    reject: float | None = None,
) -> Imported:
    """Takes over a fitted KNeighborsClassifier, or a Pipeline of maps that ends in one.

    Maps: StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler, Normalizer, PCA, NeighborhoodComponentsAnalysis.

    Args:
        estimator: fitted.
        name: of the model.
        feature_names: of the raw columns; by default those that the estimator was fitted with.
        reject: share of ordinary rows to accept; None never answers "unknown".

    Raises:
        BuildError: something about it is not supported; the message names it, the hint what to do instead.
    """
    maps, classifier = _parts(estimator)
    steps = [step for each in maps for step in _convert(each)]
    metric = _metric(classifier)
    mapped = _training_rows(classifier)
    width = int(maps[0].n_features_in_) if maps else mapped.shape[1]
    names = _names(estimator, feature_names, width)
    space, enrolled = adopt_space(mapped, steps, metric)
    classes, codes = _classes(classifier)
    digest = hashlib.sha256(enrolled.tobytes() + codes.tobytes() + repr(classes).encode()).hexdigest()
    source = type(estimator).__name__
    spec = KnnSpec(name, int(classifier.n_neighbors), metric, _weights(classifier), _scale(maps), reject)
    return Imported(spec, Enrolment(space, enrolled, codes, classes, names, digest, source))


def from_skops(path: str | Path, **options: Any) -> Imported:
    """Reads a file in the skops format and takes over its estimator; `options` are those of `from_sklearn`.

    Raises:
        BuildError: it cannot be read, holds types that skops does not trust, or is not supported.
        MissingDependency: skops is not installed.
    """
    try:
        import skops.io
        from skops.io.exceptions import UntrustedTypesFoundException
    except ImportError:
        raise MissingDependency("reading this file needs skops", hint="pip install 'knnkit[build]'") from None
    try:
        strangers = [kind for kind in skops.io.get_untrusted_types(file=path) if kind not in _TREE_TYPES]
        if strangers:
            raise BuildError(
                f"{path} holds types that are not trusted: {', '.join(strangers)}",
                hint="save a plain scikit-learn estimator with skops.io.dump",
            )
        estimator = skops.io.load(path, trusted=list(_TREE_TYPES))
    except FileNotFoundError:
        raise BuildError(f"{path}: no such file") from None
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, UntrustedTypesFoundException) as error:
        raise BuildError(
            f"{path} is not a file in the skops format: {error}", hint="skops.io.dump writes one"
        ) from None
    return from_sklearn(estimator, **options)


#: Types of scikit-learn's own search trees, which skops does not list; they hold numbers.
_TREE_TYPES = (
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.metrics._dist_metrics.ManhattanDistance64",
    "sklearn.metrics._dist_metrics.SEuclideanDistance64",
)


def _parts(estimator: Any) -> tuple[list[Any], Any]:
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import Pipeline

    maps = []
    if type(estimator) is Pipeline:
        maps = [step for _, step in estimator.steps[:-1] if step not in (None, "passthrough")]
        estimator = estimator.steps[-1][1]
    if type(estimator) is not KNeighborsClassifier:
        raise BuildError(
            f"{type(estimator).__name__} is not supported",
            hint="a fitted KNeighborsClassifier, or a Pipeline that ends in one",
        )
    if not hasattr(estimator, "_fit_X"):
        raise BuildError("the KNeighborsClassifier is not fitted", hint="estimator.fit(rows, labels)")
    nested = [inner for each in maps for inner in (_parts_of_map(each) if type(each) is Pipeline else [each])]
    return nested, estimator


def _parts_of_map(pipeline: Any) -> list[Any]:
    steps = [step for _, step in pipeline.steps if step not in (None, "passthrough")]
    return [inner for each in steps for inner in (_parts_of_map(each) if type(each) is type(pipeline) else [each])]


def _convert(transformer: Any) -> list[Step]:
    kind = type(transformer)
    convert = _CONVERSIONS.get(kind.__name__) if kind.__module__.startswith("sklearn.") else None
    if convert is None:
        raise BuildError(
            f"{kind.__name__} is not supported in front of the classifier",
            hint=f"apply it before knnkit, or use one of {', '.join(sorted(_CONVERSIONS))}",
        )
    if not hasattr(transformer, "n_features_in_"):
        raise BuildError(f"the {kind.__name__} is not fitted", hint="fit the whole pipeline")
    return convert(transformer)


def _standard(scaler: Any) -> list[Step]:
    zeros = np.zeros(scaler.n_features_in_)
    return [
        affine(
            zeros if scaler.mean_ is None else scaler.mean_,
            1.0 / (1.0 + zeros if scaler.scale_ is None else scaler.scale_),
        )
    ]


def _minmax(scaler: Any) -> list[Step]:
    if scaler.clip:
        raise BuildError("MinMaxScaler(clip=True) is not supported", hint="fit it with clip=False")
    return [affine(-scaler.min_ / scaler.scale_, scaler.scale_)]


def _maxabs(scaler: Any) -> list[Step]:
    if getattr(scaler, "clip", False):
        raise BuildError("MaxAbsScaler(clip=True) is not supported", hint="fit it with clip=False")
    return [affine(np.zeros(scaler.n_features_in_), 1.0 / scaler.scale_)]


def _robust(scaler: Any) -> list[Step]:
    zeros = np.zeros(scaler.n_features_in_)
    scale = 1.0 + zeros if scaler.scale_ is None else scaler.scale_
    return [affine(zeros if scaler.center_ is None else scaler.center_, 1.0 / scale)]


def _normalizer(normalizer: Any) -> list[Step]:
    order = {"l1": 1.0, "l2": 2.0, "max": np.inf}[normalizer.norm]
    return [Step("normalize", np.asarray(order), np.zeros(0))]


def _pca(pca: Any) -> list[Step]:
    matrix = np.asarray(pca.components_, np.float64).T
    if pca.whiten:
        deviation = np.sqrt(np.asarray(pca.explained_variance_, np.float64))
        matrix = matrix / np.maximum(deviation, np.finfo(deviation.dtype).eps)
    return [Step("linear", matrix, np.asarray(pca.mean_, np.float64))]


def _nca(analysis: Any) -> list[Step]:
    matrix = np.asarray(analysis.components_, np.float64).T
    return [Step("linear", matrix, np.zeros(len(matrix)))]


_CONVERSIONS: dict[str, Callable[[Any], list[Step]]] = {
    "MaxAbsScaler": _maxabs,
    "MinMaxScaler": _minmax,
    "NeighborhoodComponentsAnalysis": _nca,
    "Normalizer": _normalizer,
    "PCA": _pca,
    "RobustScaler": _robust,
    "StandardScaler": _standard,
}


def _metric(classifier: Any) -> Metric:
    called = classifier.effective_metric_
    name = called if isinstance(called, str) else getattr(called, "__name__", type(called).__name__)
    others = {key for key, value in (classifier.effective_metric_params_ or {}).items() if value is not None}
    if name == "minkowski" and others == {"p"}:
        power = float(classifier.effective_metric_params_["p"])
        name, others = {1.0: "manhattan", 2.0: "euclidean"}.get(power, f"minkowski with p={power:g}"), set()
    if name not in _METRICS or others - {"p"}:
        what = f"{name} with {', '.join(sorted(others))}" if others else name
        raise BuildError(
            f"the metric {what} is not supported", hint=f"one of {', '.join(sorted(set(_METRICS.values())))}"
        )
    return _METRICS[name]


def _weights(classifier: Any) -> Any:
    if classifier.weights in (None, "uniform"):
        return "uniform"
    if classifier.weights == "distance":
        return "distance"
    raise BuildError("weights as a function are not supported", hint="weights='uniform' or 'distance'")


def _training_rows(classifier: Any) -> NDArray[np.float64]:
    rows = classifier._fit_X
    if not isinstance(rows, np.ndarray):
        raise BuildError("sparse training rows are not supported", hint="fit it with rows.toarray()")
    return np.asarray(rows, np.float64)


def _classes(classifier: Any) -> tuple[tuple[int | str, ...], NDArray[np.int32]]:
    if classifier.outputs_2d_:
        raise BuildError("several outputs are not supported", hint="fit one classifier for each output")
    classes = np.asarray(classifier.classes_)
    if classes.dtype == bool or not (np.issubdtype(classes.dtype, np.integer) or classes.dtype.kind in "UO"):
        raise BuildError(f"labels of type {classes.dtype} are not supported", hint="integers or text")
    labels = classes.tolist()
    if any(isinstance(label, str) and (not label.isprintable() or not label) for label in labels) or not all(
        isinstance(label, int | str) for label in labels
    ):
        raise BuildError("a label is not plain text on one line", hint="integers or plain text")
    return tuple(labels), np.asarray(classifier._y).reshape(-1).astype(np.int32)


def _names(estimator: Any, given: tuple[str, ...] | None, width: int) -> tuple[str, ...]:
    fitted = getattr(estimator, "feature_names_in_", None)
    names = given or (tuple(map(str, fitted)) if fitted is not None else tuple(f"feature_{i}" for i in range(width)))
    if len(names) != width or len(set(names)) != width:
        raise BuildError(f"{len(set(names))} distinct feature names for {width} columns")
    return names


def _scale(maps: list[Any]) -> Scale:
    return _SCALES.get(type(maps[0]).__name__, "none") if len(maps) == 1 else "none"
