"""Version of knn.json that a model needs, and its limits."""

from __future__ import annotations

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import KnnInfo
from knnkit.errors import BuildError


def lowest_schema(info: KnnInfo) -> int:
    """Returns the lowest version that has all keys of this model. Agents that only know older versions refuse it."""
    needed = {
        constants.SCHEMA_OF_LABEL_COLUMNS: bool(info.targets and info.targets.classes),
        constants.SCHEMA_OF_ENROL: info.enrol is not None,
        constants.SCHEMA_OF_INPUTS: info.input is not None,
        constants.SCHEMA_OF_PIPELINES: info.targets is not None or bool(info.table and info.table.transforms),
        constants.SCHEMA_OF_TABLES: info.table is not None or info.ignore_extra,
        constants.SCHEMA_OF_ORIGINS: info.origin is not None,
    }
    return max((version for version, is_needed in needed.items() if is_needed), default=constants.SCHEMA)


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
