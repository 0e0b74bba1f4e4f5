"""Checked parameters of the classifier to build."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from device_agent.shared.protocol.constants import Metric, Scale, Weights, is_name
from device_agent.shared.protocol.model_info import Enrol, Keep
from knnkit.errors import BuildError

#: Key of `reject` for the classes without a share of their own.
DEFAULT = "default"


@dataclass(frozen=True)
class KnnSpec:
    """Parameters of a nearest-neighbour classifier.

    Attributes:
        name: model name: letters, digits, `.`, `_`, `-`, at most 64.
        k: number of neighbours that vote.
        metric: distance between two rows, after scaling.
        weights: `uniform`, or `distance` for votes of 1 / distance, where exact matches take the whole vote.
        scale: scaling of the features, fitted on the training rows and built into the model.
        reject: share of ordinary rows to accept, or label -> share, with `default` for the others; with None the model
            never answers "unknown".
        label_sets: coverages of the label sets that the model can answer with.
        keep: which rows a device keeps for people to label; None: none.
        enrol: what may be taught on a device; None: nothing.
        ignore_extra: whether a device ignores columns that the model does not know.
    """

    name: str
    k: int = 3
    metric: Metric = "euclidean"
    weights: Weights = "uniform"
    scale: Scale = "none"
    reject: float | Mapping[str, float] | None = None
    label_sets: tuple[float, ...] = ()
    keep: Keep | None = None
    enrol: Enrol | None = None
    ignore_extra: bool = False

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise BuildError(f"model name {self.name!r}: letters, digits, '.', '_' and '-' only, at most 64 of them")
        if self.k < 1:
            raise BuildError(f"k is {self.k}; at least one neighbour must vote")
        for value, kind, what in (
            (self.metric, Metric, "metric"),
            (self.weights, Weights, "weights"),
            (self.scale, Scale, "scale"),
        ):
            if value not in get_args(kind):
                raise BuildError(f"{what} {value!r} is not one of {', '.join(get_args(kind))}")
        for share in self.shares.values():
            if not 0.0 < share < 1.0:
                raise BuildError(f"reject is {share}; it is the share of ordinary rows to accept, above 0 and below 1")
        if wrong := [each for each in self.label_sets if not 0.0 < each < 1.0]:
            raise BuildError(f"label_sets: {wrong[0]} is not a coverage above 0 and below 1", hint="label_sets: 0.95")
        if self.reject is not None and DEFAULT not in self.shares:
            raise BuildError("reject has no share for the other classes", hint="reject: {fault: 0.999, default: 0.99}")

    @property
    def shares(self) -> Mapping[str, float]:
        """`reject` as label -> share, with `default`; empty without it."""
        if self.reject is None:
            return {}
        return self.reject if isinstance(self.reject, Mapping) else {DEFAULT: self.reject}


def own_shares(spec: KnnSpec, classes: tuple[int | str, ...]) -> dict[int, float]:
    """Returns class index -> share of `reject`, of the classes with a share of their own.

    Raises:
        BuildError: no training row has one of the labels.
    """
    codes = {str(label): code for code, label in enumerate(classes)}
    own = {label: share for label, share in spec.shares.items() if label != DEFAULT}
    if strange := sorted(own.keys() - codes):
        close = difflib.get_close_matches(strange[0], [*codes, DEFAULT], n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"the labels are {', '.join([*codes][:10])}"
        raise BuildError(f"reject has a share for {strange[0]!r}, and no training row has that label", hint=hint)
    return {codes[label]: share for label, share in own.items()}
