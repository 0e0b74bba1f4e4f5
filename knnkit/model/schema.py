"""Version of knn.json that a model needs, and its limits."""

from __future__ import annotations

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import KnnInfo
from knnkit.errors import BuildError


def lowest_schema(info: KnnInfo) -> int:
    """Returns the lowest version that has all keys of this model. Agents that only know older versions refuse it."""
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


def require_answerable(info: KnnInfo) -> None:
    """Checks that what the graph does not compute goes with the rest of the model.

    Raises:
        BuildError: it does not.
    """
    own, columns = info.float64, info.targets is not None and bool(info.targets.classes)
    if columns and info.enrol is not None:
        raise BuildError("enrol: a device cannot be taught rows with several labels", hint="leave enrol out")
    if own is None:
        return
    if columns:
        said = f"several label columns need a metric and weights of the graph, not {info.how}"
        raise BuildError(said, hint="metric: euclidean, weights: uniform or distance")
    if info.input is not None:
        raise BuildError(f"windows, sounds and pictures do not go with {info.how}", hint="leave input out")
    if info.targets is not None and (own.radius is not None or own.class_weights is not None):
        said = "radius and class_weight are for classes; a regression answers the mean of k targets"
        raise BuildError(said, hint="leave them out")


def require_keepable(info: KnnInfo) -> None:
    """Checks that a device can keep rows (`keep`): it must be able to compute raw cells back from features.

    Raises:
        BuildError: it cannot.
    """
    why = "it has several label columns, or answers numbers" if info.targets is not None else ""
    why = why or ("its input is windows, sounds or pictures" if info.input is not None else "")
    why = why or ("its transforms cannot be inverted" if info.table is not None and info.table.transforms else "")
    if info.keep is not None and why:
        raise BuildError(
            f"keep: a device cannot keep rows of this model for people to label: {why}", hint="leave it out"
        )
