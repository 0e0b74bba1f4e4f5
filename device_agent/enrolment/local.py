"""Joins a loaded model with taught rows."""

from __future__ import annotations

from pathlib import Path

from device_agent.enrolment.joined import JoinedKNN
from device_agent.enrolment.journal import Journal
from device_agent.inference.tflite_knn import TfliteKNN
from device_agent.shared.enrolment.enrolled import LocalRow
from device_agent.shared.enrolment.joined import Joined, contained, join
from device_agent.shared.protocol.errors import AgentError
from device_agent.shared.release import row_origins


def with_rows(root: Path, signed: TfliteKNN, digest: str) -> tuple[JoinedKNN | None, str]:
    """Returns `signed`, the model of the release `digest`, with the rows taught under `root`; and a warning or "".

    The model is None if the release uses none of the taught rows. It is None, with a warning, if the rows cannot be
    read or joined; the caller then answers with `signed` alone.
    """
    try:
        joined = taking_part(signed, Journal(root).read(), digest)
        return (JoinedKNN(signed, joined) if joined.rows else None), ""
    except (AgentError, OSError, MemoryError) as error:
        return None, f"{error or 'not enough memory'}; the release answers without taught rows"


def taking_part(signed: TfliteKNN, rows: list[LocalRow], digest: str) -> Joined:
    """Returns those taught `rows` that the release `digest`, whose model is `signed`, uses in answers."""
    there = contained(row_origins.read(signed.path)[0], rows) if rows else frozenset()
    return join(signed.info, rows, digest, there)
