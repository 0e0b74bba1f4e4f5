"""Version of knn.json that a model needs, and refused combinations."""

from __future__ import annotations

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import KnnInfo
from knnkit.errors import BuildError
from knnkit.model.reference.enrolment import Enrolment
from knnkit.model.reference.spec import DEFAULT, KnnSpec, is_plain, require_plain


def lowest_schema(info: KnnInfo) -> int:
    """Returns the lowest version of knn.json that has all keys of `info`; older agents refuse the model."""
    words = bool(info.table and info.table.missing_words)
    needed = {
        constants.SCHEMA_OF_FLOAT64: info.float64 is not None or words or bool(info.targets and info.targets.classes),
        constants.SCHEMA_OF_ENROL: info.enrol is not None,
        constants.SCHEMA_OF_INPUTS: info.input is not None,
        constants.SCHEMA_OF_PIPELINES: info.targets is not None or bool(info.table and info.table.transforms),
        constants.SCHEMA_OF_TABLES: info.table is not None or info.ignore_extra,
        constants.SCHEMA_OF_ORIGINS: info.origin is not None,
    }
    return max((version for version, is_needed in needed.items() if is_needed), default=constants.SCHEMA)


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
    if has_input and not is_plain(spec):
        said = f"input: does not work with metric {spec.metric}, or with other options that only NumPy computes"
        raise BuildError(said, hint="leave input out")
    if enrolment.targets is not None and (spec.radius is not None or spec.class_weight is not None):
        said = "radius and class_weight are only for classifiers; a regression answers the mean of k targets"
        raise BuildError(said, hint="leave radius and class_weight out")


def require_keepable(info: KnnInfo) -> None:
    """Checks that a device can keep rows for people to label: it must be able to compute raw cells from features.

    Raises:
        BuildError: `keep` is set, and the device cannot.
    """
    why = "it has several label columns, or answers numbers" if info.targets is not None else ""
    why = why or ("its input is windows, sounds or pictures" if info.input is not None else "")
    why = why or ("its transforms cannot be inverted" if info.table is not None and info.table.transforms else "")
    if info.keep is not None and why:
        said = f"keep: a device cannot keep rows for people to label with this model: {why}"
        raise BuildError(said, hint="leave keep out")
