"""Converts the metric of a fitted scikit-learn classifier.

A metric with weights equals a metric without weights after a linear map of the rows.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.features import transforms
from device_agent.shared.protocol.constants import Metric
from device_agent.shared.protocol.table_info import Table, Transform
from knnkit.errors import BuildError
from knnkit.model.reference.space import Step, affine
from knnkit.training.sklearn_left_out import METRICS as LEFT_OUT
from knnkit.training.sklearn_left_out import because
from knnkit.training.sklearn_pipelines import convert_all

#: Metric in scikit-learn, as KNeighborsClassifier resolves it -> metric in knnkit.
METRICS: dict[str, Metric] = {
    "euclidean": "euclidean",
    "l2": "euclidean",
    "sqeuclidean": "sqeuclidean",
    "manhattan": "manhattan",
    "l1": "manhattan",
    "cityblock": "manhattan",
    "cosine": "cosine",
    "chebyshev": "chebyshev",
    "infinity": "chebyshev",
    "minkowski": "minkowski",
    "jaccard": "jaccard",
    "haversine": "haversine",
}
#: Metric -> the parameter without which scikit-learn finds no neighbours.
_NEEDS = {"seuclidean": "V", "mahalanobis": "VI"}
MAPPED = ("seuclidean", "mahalanobis", "correlation", "hamming")
#: Share of the largest eigenvalue up to which a negative one is rounding.
_ROUNDED = 1e-9
#: Columns that `_agreements` makes, at most.
_MOST_VALUES = 4096


def metric_of(classifier: Any, width: int) -> tuple[Metric, float | None, list[Step]]:
    """Returns the metric of a classifier fitted with `width` features, its power, and linear steps before it.

    The power is None except for minkowski. The steps stand for the weights that the metric has in scikit-learn.

    Raises:
        BuildError: the metric is not supported.
    """
    called = classifier.effective_metric_
    name = called if isinstance(called, str) else getattr(called, "__name__", type(called).__name__)
    params = {key: value for key, value in (classifier.effective_metric_params_ or {}).items() if value is not None}
    power = float(params.pop("p", 2.0))
    weights = params.pop("w", None) if name == "minkowski" and power < np.inf else None  # others ignore them, or fail
    if name == "minkowski":
        name = {1.0: "manhattan", 2.0: "euclidean", np.inf: "chebyshev"}.get(power, name)
    maps = _maps(name, params, width)
    metric = METRICS.get(
        {"seuclidean": "euclidean", "mahalanobis": "euclidean", "correlation": "cosine"}.get(name, name)
    )
    if "w" in params:
        hint = "metric='minkowski', for euclidean with p=2, for manhattan with p=1"
        raise BuildError(
            f"the metric {name} with w is not supported: scikit-learn uses w with minkowski alone", hint=hint
        )
    if name in _NEEDS and not params:
        raise BuildError(f"the metric {name} has no {_NEEDS[name]}", hint=f"metric_params={{{_NEEDS[name]!r}: ...}}")
    if metric is None or (maps is None and params):
        raise _not_supported(name, f"{name} with {', '.join(sorted(params))}" if params else name)
    if weights is not None:  # sum of w |d|^p
        factor = np.asarray(weights, np.float64)
        factor = factor ** (1.0 / {"manhattan": 1.0, "minkowski": power}.get(metric, 2.0))
        # A scaling by 0 could not be undone, a linear map can.
        maps = [affine(np.zeros(width), factor) if factor.all() else Step("linear", np.diag(factor), np.zeros(width))]
    return metric, power if metric == "minkowski" else None, maps or []


def is_hamming(classifier: Any) -> bool:
    """Whether the metric is hamming; raises BuildError if the metric was changed after `fit`."""
    _require_as_fitted(classifier)
    return bool(classifier.effective_metric_ == "hamming")


def _require_as_fitted(classifier: Any) -> None:
    """Raises BuildError if the metric was changed after `fit`: scikit-learn then mixes the old metric and the new."""
    from sklearn.neighbors import NearestNeighbors

    own = {name: getattr(classifier, name) for name in ("metric", "p", "metric_params")}
    if own["metric"] == "precomputed":
        return
    with warnings.catch_warnings():  # the estimator's own fit has given them
        warnings.simplefilter("ignore")
        fresh = NearestNeighbors(**own).fit(classifier._fit_X[:1])
    now, then = (
        (each.effective_metric_, (each.effective_metric_params_ or {}).get("p")) for each in (fresh, classifier)
    )
    if now != then:
        raise BuildError(f"the metric was changed after fit, from {then[0]}", hint="fit the estimator again")


def _not_supported(name: str, what: str = "") -> BuildError:
    """Returns the error about the metric `name`; `what` is its name in the message, such as `minkowski with V`."""
    known = sorted({*METRICS.values(), *MAPPED})
    why = because(name, LEFT_OUT)
    return BuildError(f"the metric {what or name} is not supported{why}", hint=f"one of {', '.join(known)}")


def require_metrics(kinds: Sequence[str]) -> None:
    """Raises BuildError if one of these types of a skops file is a metric that cannot be imported."""
    for name in re.findall(r"sklearn\.metrics\._dist_metrics\.(\w+)Distance(?:64|32)?\b", " ".join(kinds)):
        if name.lower() not in (*METRICS, *MAPPED):
            raise _not_supported(name.lower())


def compare_values(
    classifier: Any, maps: list[Any], mapped: NDArray[Any], names: tuple[str, ...]
) -> tuple[Table, NDArray[np.float64], list[Step]]:
    """Returns a table, training rows and steps with which hamming becomes squared Euclidean distance (`_agreements`).

    `maps` are the transformers before `classifier`, `mapped` the training rows after them, `names` the raw columns.
    Raises BuildError if the metric has weights, or the transformers make fractions.
    """
    if (classifier.effective_metric_params_ or {}).get("w") is not None:
        raise BuildError("the metric hamming with w is not supported", hint="metric='hamming' alone")
    require_whole("hamming", maps, mapped)
    compare, scaling = _agreements(np.asarray(mapped, np.float64))
    return convert_all(maps, names, [compare]), transforms.Transforms([compare])(mapped), [scaling]


def require_whole(metric: str, maps: list[Any], mapped: NDArray[Any]) -> None:
    """Raises BuildError if transformers make fractions in the rows `mapped`: rounding would make equal cells differ."""
    if maps and not (mapped == np.rint(mapped)).all():
        said = f"the metric {metric} behind transformers that compute numbers is not supported"
        raise BuildError(said, hint="compare the raw columns, or categories as whole numbers")


def _agreements(rows: NDArray[Any]) -> tuple[Transform, Step]:
    """Returns a transform and a scaling after which the squared Euclidean distance equals the hamming distance.

    A column becomes one column for each of its values in the (n, p) training rows, and one more for all other values.
    Two rows that differ in a column then have a squared distance of 2 in the new columns, even if a value is new.

    Raises:
        BuildError: there are too many values.
    """
    values = [np.unique(column) for column in rows.T]
    widths = np.array([len(each) + 1 for each in values])
    if widths.sum() > _MOST_VALUES:
        said = f"the columns have {widths.sum():,} different values, too many for the metric hamming"
        raise BuildError(said, hint=f"columns with few values, at most {_MOST_VALUES:,} together")
    ends, width = np.cumsum(widths), int(widths.sum())
    owners = np.repeat(np.arange(len(values)), widths - 1)
    known = np.setdiff1d(np.arange(width), ends - 1)
    made = transforms.make("one-hot", 0, len(values), np.concatenate(values), owners, known, ends - 1, [width])
    return made, affine(np.zeros(width), np.full(width, np.sqrt(0.5 / len(values))))


def _maps(name: str, params: dict[str, Any], width: int) -> list[Step] | None:
    """Returns the linear map after which a plain metric equals the metric `name` with `params`; None: there is none."""
    if name == "seuclidean" and set(params) == {"V"}:
        return [affine(np.zeros(width), 1.0 / np.sqrt(np.asarray(params["V"], np.float64)))]
    if name == "mahalanobis" and set(params) in ({"V"}, {"VI"}):
        return [Step("linear", _root_of(np.asarray(next(iter(params.values())), np.float64), *params), np.zeros(width))]
    if name == "correlation" and not params:  # the cosine of rows less their own mean
        return [Step("linear", np.eye(width) - 1.0 / width, np.zeros(width))]
    return None


def _root_of(matrix: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """Returns L with d' VI d = |d' L|^2 for every d; `name` says whether the `matrix` is VI or its inverse V.

    Raises:
        BuildError: V has no inverse, or VI has a negative eigenvalue, so that it defines no distance.
    """
    hint = "VI=np.linalg.pinv(np.cov(rows.T))"
    try:
        inverse = matrix if name == "VI" else np.linalg.inv(matrix)
    except np.linalg.LinAlgError:
        raise BuildError("the metric mahalanobis has a V without an inverse", hint=hint) from None
    values, vectors = np.linalg.eigh((inverse + inverse.T) / 2.0)  # the half that d' VI d does not cancel
    if values[0] < -_ROUNDED * abs(values[-1]):
        raise BuildError("the metric mahalanobis has a VI with a negative eigenvalue, and gives no distance", hint=hint)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
