"""Version of knn.json that a model needs."""

from __future__ import annotations

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import KnnInfo


def lowest_schema(info: KnnInfo) -> int:
    """Returns the lowest version that says all that an agent must know; older agents refuse the model."""
    needed = {
        constants.SCHEMA_OF_ENROL: info.enrol is not None,
        constants.SCHEMA_OF_ENROL: info.enrol is not None,
        constants.SCHEMA_OF_INPUTS: info.input is not None,
        constants.SCHEMA_OF_PIPELINES: info.targets is not None or bool(info.table and info.table.transforms),
        constants.SCHEMA_OF_TABLES: info.table is not None or info.ignore_extra,
        constants.SCHEMA_OF_ORIGINS: info.origin is not None,
    }
    return max((version for version, is_needed in needed.items() if is_needed), default=constants.SCHEMA)
