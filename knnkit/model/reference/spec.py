"""Checked parameters of the classifier to build."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.arguments import is_number, shown
from device_agent.shared.console.lists import listed
from device_agent.shared.protocol.constants import (
    GRAPH_METRICS,
    GRAPH_WEIGHTS,
    UNKNOWN_LABEL,
    Metric,
    Scale,
    Weights,
    is_name,
)
from device_agent.shared.protocol.model_info import Enrol, InFloat64, Keep
from device_agent.shared.weights import LEAST_WIDTH, MOST_WIDTH
from knnkit.data.dataset import by_text, require_label, spelt
from knnkit.errors import BuildError

#: Key of `reject` for the classes without a share of their own.
DEFAULT = "default"


@dataclass(frozen=True)
class KnnSpec:
    """Parameters of a nearest-neighbour classifier."""

    name: str  # model name: letters, digits, `.`, `_`, `-`, at most 64
    k: int = 3  # number of neighbours that vote
    metric: Metric = "euclidean"  # distance between two rows, after scaling
    #: `uniform`, `distance` (votes of 1 / distance; an exact match takes all votes) or a kernel's name.
    weights: Weights = "uniform"
    scale: Scale = "none"  # scaling of the features, fitted on the training rows and built into the model
    #: share of ordinary rows to accept, or label -> share, with `default` for the others; with None the model never
    #: answers "unknown".
    reject: float | Mapping[str, float] | None = None
    #: coverages (how often the set has the true label), such as 0.9, of the label sets that the model can answer with.
    label_sets: tuple[float, ...] = ()
    keep: Keep | None = None  # which rows a device stores for people to label; None: no rows
    enrol: Enrol | None = None  # which rows and labels may be taught on a device; None: none
    ignore_extra: bool = False  # whether a device ignores columns that the model does not have
    p: float | None = None  # power of the metric minkowski
    bandwidth: float | None = None  # width of the kernel, in the unit of distances
    radius: float | None = None  # distance within which all training rows vote; None: the k nearest vote
    outlier_label: int | str | None = None  # answer to a row for which no training row votes; None: "unknown"
    #: "balanced", or label -> factor of its votes, with `default` for the others (else 1).
    class_weight: str | Mapping[str, float] | None = None
    #: threshold of outlier factors (LocalOutlierFactor's `offset_`); None: the model answers none.
    offset: float | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and is_name(self.name)):
            said = f"model name {shown(self.name)}: letters, digits, '.', '_' and '-' only, at most 64 of them"
            raise BuildError(said, hint="name='fruit'")
        if self.k < 1:
            raise BuildError(f"k is {shown(self.k)}; at least one neighbour must vote", hint="k=3")
        for value, kind, what in (
            (self.metric, Metric, "metric"),
            (self.weights, Weights, "weights"),
            (self.scale, Scale, "scale"),
        ):
            if not isinstance(value, str) or value not in get_args(kind):
                said = f"{what} {shown(value)} is not one of {', '.join(get_args(kind))}"
                raise BuildError(said, hint=f"{what}='{get_args(kind)[0]}'")
        for share in self.shares.values():
            if not (is_number(share) and 0.0 < share < 1.0):
                said = f"reject is {shown(share)}; it is the share of ordinary rows to accept, above 0 and below 1"
                raise BuildError(said, hint="reject: 0.99")
        if wrong := [each for each in self.label_sets if not 0.0 < each < 1.0]:
            raise BuildError(f"label_sets: {wrong[0]} is not a coverage above 0 and below 1", hint="label_sets: 0.95")
        if self.reject is not None and DEFAULT not in self.shares:
            raise BuildError("reject has no `default` share", hint="reject: {fault: 0.999, default: 0.99}")
        _require_numbers(self)
        _require_combinable(self)

    def in_float64(self, classes: tuple[int | str, ...], codes: NDArray[np.int32]) -> InFloat64 | None:
        """Returns the parameters that only float64 code computes; None if the graph computes the whole answer.

        `codes` has the (n_train,) class of each training row, an index in `classes`.
        """
        if is_plain(self):
            return None
        label = spelt(self.outlier_label, classes) if isinstance(self.outlier_label, str) else self.outlier_label
        outlier = None if label is None else classes.index(label)
        factors = None if self.class_weight is None else _factors(self.class_weight, classes, codes)
        p, bandwidth, radius = (None if each is None else float(each) for each in (self.p, self.bandwidth, self.radius))
        return InFloat64(p, bandwidth, radius, outlier, factors, self.offset)

    @property
    def shares(self) -> Mapping[str, float]:
        """Label (or `default`) -> share of ordinary rows to accept; empty if `reject` is None."""
        if self.reject is None:
            return {}
        return self.reject if isinstance(self.reject, Mapping) else {DEFAULT: self.reject}


def is_plain(spec: KnnSpec) -> bool:
    """Whether the TensorFlow graph computes the metric and the votes of `spec`."""
    graph = spec.metric in GRAPH_METRICS and spec.weights in GRAPH_WEIGHTS
    return graph and spec.radius is None and spec.class_weight is None and spec.offset is None


def require_plain(spec: KnnSpec, what: str, key: str = "") -> None:
    """Raises BuildError unless the TensorFlow graph computes metric and votes, as the feature `what` needs.

    `key` is the key of deploy.yaml that asks for the feature, if it is not `what`.
    """
    if not is_plain(spec):
        said = f"{what} does not work with metric {spec.metric} and weights {spec.weights}"
        more = [key for key in ("radius", "class_weight") if getattr(spec, key) is not None]
        said += f" and {' and '.join(more)}" if more else ""
        plain = f"metric: {', '.join(GRAPH_METRICS)}, and weights: {', '.join(GRAPH_WEIGHTS)}"
        hint = f"leave {' and '.join(more) or what} out" if more or spec.offset is not None else plain
        raise BuildError(said, hint=hint, key=key)


def own_shares(spec: KnnSpec, classes: tuple[int | str, ...]) -> dict[int, float]:
    """Returns class index -> share of ordinary rows to accept, for the `classes` that the spec's `reject` names.

    Raises:
        BuildError: `reject` names a label that no training row has.
    """
    return _by_class("reject has a share", spec.shares, classes)


def _by_class(what: str, given: Mapping[str, float], classes: tuple[int | str, ...]) -> dict[int, float]:
    codes = by_text(classes, range(len(classes)))
    own = {spelt(str(label), codes): value for label, value in given.items() if label != DEFAULT}
    if strange := sorted(own.keys() - codes):
        close = difflib.get_close_matches(strange[0], [*codes, DEFAULT], n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"the labels are {listed([*codes])}"
        raise BuildError(f"{what} for {strange[0]!r}, and no training row has that label", hint=hint)
    return {codes[label]: value for label, value in own.items()}


def _factors(
    asked: str | Mapping[str, float], classes: tuple[int | str, ...], codes: NDArray[np.int32]
) -> tuple[float, ...]:
    """Returns the factor of each class's votes: from `asked` (label -> factor), or balanced.

    A balanced factor is rows / (number of classes * rows of the class); `codes` has the class index of each row.
    """
    if isinstance(asked, str):
        counts = np.bincount(codes, minlength=len(classes))
        return tuple((len(codes) / (np.count_nonzero(counts) * np.maximum(counts, 1))).tolist())
    own = _by_class("class_weight has a factor", asked, classes)
    return tuple(float(own.get(code, asked.get(DEFAULT, 1.0))) for code in range(len(classes)))


#: Above this power, float64 loses distances between rows that float32 holds; chebyshev is the limit.
MOST_P = 16.0
#: Sums of votes with factors up to this one stay far inside float64.
MOST_FACTOR = 1e9


def _require_numbers(spec: KnnSpec) -> None:
    """Raises BuildError if p, bandwidth, radius, class_weight or outlier_label is unused, missing or not allowed."""
    kernel, factors = spec.weights not in GRAPH_WEIGHTS, spec.class_weight
    given = factors if isinstance(factors, Mapping) else {}
    own = {f"class_weight of {label!r}": value for label, value in given.items()}
    for name, number in {"p": spec.p, "bandwidth": spec.bandwidth, "radius": spec.radius, **own}.items():
        if number is not None and not is_number(number):
            hint = "a number without quotation marks, such as 2"
            raise BuildError(f"{name} is {shown(number)}; a number is needed", hint=hint)
    for name, value, wanted, where, example in (
        ("p", spec.p, spec.metric == "minkowski", "metric: minkowski", "p: 3"),
        ("bandwidth", spec.bandwidth, kernel, f"weights: {spec.weights if kernel else 'gaussian'}", "bandwidth: 0.5"),
    ):
        if wanted and value is None:
            raise BuildError(f"{where} needs {name}", hint=example)
        if not wanted and value is not None:
            raise BuildError(f"{name} is for {where}", hint=f"leave {name} out, or {where}")
    if spec.p is not None and not 1.0 <= spec.p <= MOST_P:
        hint = "metric: chebyshev, the limit of high p" if spec.p > 1.0 else "p: 1 or more"
        raise BuildError(f"p is {shown(spec.p)}; a power from 1 to {MOST_P:g} is needed", hint=hint)
    for name, value in (("bandwidth", spec.bandwidth), ("radius", spec.radius)):
        if value is not None and not LEAST_WIDTH <= value <= MOST_WIDTH:
            said = f"{name} is {shown(value)}; a distance from {LEAST_WIDTH:g} to {MOST_WIDTH:g} is needed"
            raise BuildError(said, hint=f"{name}: 0.5")
    if not (factors is None or isinstance(factors, Mapping) or (isinstance(factors, str) and factors == "balanced")):
        said = f"class_weight is {shown(factors)}; it is balanced, or a label and its factor"
        raise BuildError(said, hint="class_weight: balanced, or {fault: 5}")
    for label, value in given.items():
        if not 1.0 / MOST_FACTOR <= value <= MOST_FACTOR:
            bounds = f"from {1.0 / MOST_FACTOR:g} to {MOST_FACTOR:g}"
            said = f"class_weight of {label!r} is {shown(value)}; a factor {bounds} is needed"
            raise BuildError(said, hint=f"class_weight: {{{label}: 5}}")
    outlier = spec.outlier_label
    is_label = isinstance(outlier, str) or (type(outlier) is int and abs(outlier) < 2**63)
    if outlier is not None and not is_label:
        said = f"outlier_label is {shown(outlier)}; a whole number or text is needed"
        raise BuildError(said, hint="outlier_label: other")
    if outlier is not None and spec.radius is None:
        raise BuildError("outlier_label needs a radius", hint="add radius: 0.5, or leave outlier_label out")
    if outlier == UNKNOWN_LABEL:
        said = f"outlier_label: {UNKNOWN_LABEL!r} is reserved for rows without a label"
        raise BuildError(said, hint="leave outlier_label out: such rows then are unknown; or outlier_label: other")
    if isinstance(outlier, str):
        require_label(outlier, "outlier_label")


def _require_combinable(spec: KnnSpec) -> None:
    """Raises BuildError for keys that do not work with the metric, or with a radius or kernel."""
    if spec.metric in ("haversine", "jaccard") and spec.scale != "none":
        raise BuildError(f"scale: {spec.scale} changes what {spec.metric} compares", hint="scale: none")
    given = {"reject": spec.reject, "label_sets": spec.label_sets or None, "enrol": spec.enrol, "keep": spec.keep}
    taken = [key for key, value in given.items() if value is not None]
    if taken and (spec.radius is not None or spec.offset is not None):
        why = "needs exactly k neighbours, not a radius"
        why = why if spec.offset is None else "does not work with outlier factors, which have their own threshold"
        raise BuildError(f"{taken[0]} {why}", hint=f"leave {taken[0]} out")
    if spec.enrol is not None:
        require_plain(spec, "enrol")
