"""Joins a loaded model with the rows taught under its root."""

from __future__ import annotations

from pathlib import Path

from device_agent.enrolment.joined import JoinedKNN
from device_agent.enrolment.journal import Journal
from device_agent.inference.tflite_knn import TfliteKNN
from device_agent.shared.enrolled import Joined, LocalRow, join
from device_agent.shared.protocol.errors import AgentError
from device_agent.shared.release import row_origins


def with_rows(root: Path, signed: TfliteKNN, digest: str) -> tuple[TfliteKNN | JoinedKNN, str]:
    """Returns the model that answers under `root`, and a warning where taught rows cannot be read.

    Without rows that take part, it is `signed` itself. A damaged journal never stops the answers of the release.
    """
    try:
        rows = Journal(root).read()
    except (AgentError, OSError) as error:
        return signed, f"{error}; the release answers without taught rows"
    joined = taking_part(signed, rows, digest)
    return (JoinedKNN(signed, joined) if joined.rows else signed), ""


def taking_part(signed: TfliteKNN, rows: list[LocalRow], digest: str) -> Joined:
    """Returns the rows that take part under a release."""
    contained = contained_ids(signed.path, rows) if rows else frozenset()
    return join(signed.info, rows, digest, contained)


def contained_ids(path: str, rows: list[LocalRow]) -> frozenset[str]:
    """Returns the ids of the rows that are training rows of a model file."""
    found = row_origins.read(path)
    text = found[0].text if found else None
    if text is None:
        return frozenset()
    there = {row.id.encode() for row in rows}.intersection(text.split(b"\n"))
    return frozenset(each.decode() for each in there)
