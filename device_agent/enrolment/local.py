"""Joins a loaded model with taught rows."""

from __future__ import annotations

from pathlib import Path

from device_agent.enrolment.joined import JoinedKNN
from device_agent.enrolment.journal import Journal
from device_agent.inference.tflite_knn import TfliteKNN
from device_agent.shared.enrolled import LocalRow
from device_agent.shared.joined import Joined, contained, join
from device_agent.shared.protocol.errors import AgentError
from device_agent.shared.release import row_origins


def with_rows(root: Path, signed: TfliteKNN, digest: str) -> tuple[JoinedKNN | None, str]:
    """Returns the model with the rows taught under `root`, and a warning if the taught rows cannot be read.

    If no taught row fits the release, the model is None. A damaged journal never stops the answers of the release.
    """
    try:
        rows = Journal(root).read()
    except (AgentError, OSError) as error:
        return None, f"{error}; the release answers without taught rows"
    joined = taking_part(signed, rows, digest)
    return (JoinedKNN(signed, joined) if joined.rows else None), ""


def taking_part(signed: TfliteKNN, rows: list[LocalRow], digest: str) -> Joined:
    """Returns the taught rows that the answers of this release include."""
    found = row_origins.read(signed.path) if rows else None
    return join(signed.info, rows, digest, contained(found[0] if found else None, rows))
