"""Golden rows of a model with a table."""

from __future__ import annotations

from device_agent.shared.features.parsers import TableJsonParser
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol.errors import BadInput, ModelUnusable
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.protocol.record import replace


def from_raw(golden: Golden, info: KnnInfo) -> Golden:
    """Returns a golden set whose rows this machine computed from the raw ones, as it does when it classifies.

    Raises:
        ModelUnusable: there are no raw rows, or one cannot be read.
    """
    try:
        parsed = TableJsonParser(info).parse(golden.raw)
    except BadInput as error:
        raise ModelUnusable(f"golden.npz: {error}") from None
    if parsed.errors or len(parsed.rows) != len(golden.rows):
        said = next(iter(parsed.errors.values()), (0, f"{len(parsed.rows)} raw rows for {len(golden.rows)} answers"))[1]
        raise ModelUnusable(f"golden.npz does not fit the model's table: {said}", hint="build the release again")
    return replace(golden, rows=parsed.rows)
