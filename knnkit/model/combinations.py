"""Refuses options of a model that cannot be combined."""

from __future__ import annotations

from device_agent.shared.protocol.model_info import KnnInfo
from knnkit.errors import BuildError
from knnkit.model.reference.enrolment import Enrolment
from knnkit.model.reference.spec import DEFAULT, KnnSpec, require_plain


def require_answerable(spec: KnnSpec, enrolment: Enrolment, *, has_input: bool) -> None:
    """Checks that options of a model can be combined; `has_input` is True for a model with stages or windows.

    Raises:
        BuildError: two options cannot be combined.
    """
    columns = bool(enrolment.target_classes)
    if columns and spec.enrol is not None:
        raise BuildError("enrol: a device cannot be taught rows with several labels", hint="leave enrol out")
    if enrolment.targets is not None and spec.shares.keys() - {DEFAULT}:
        said = "reject may not have shares by label: one threshold decides on all label columns or targets of a row"
        raise BuildError(said, hint="reject: 0.99")
    if columns:
        require_plain(spec, "a list of label columns", "data/label")
    if has_input:
        require_plain(spec, "input")
    if enrolment.targets is not None and (spec.radius is not None or spec.class_weight is not None):
        said = "radius and class_weight are only for classifiers; a regression answers the mean of k targets"
        raise BuildError(said, hint="leave radius and class_weight out")


def require_keepable(info: KnnInfo) -> None:
    """Checks that a device can keep rows for people to label: it must be able to compute raw cells from features.

    Raises:
        BuildError: `keep` is set, and raw cells cannot be computed from the model's features.
    """
    why = "it has several label columns, or answers numbers" if info.targets is not None else ""
    why = why or ("its input is windows, sounds or pictures" if info.input is not None else "")
    why = why or ("its transforms cannot be inverted" if info.table is not None and info.table.transforms else "")
    if info.keep is not None and why:
        said = f"keep: a device cannot keep rows for people to label with this model: {why}"
        raise BuildError(said, hint="leave keep out")
