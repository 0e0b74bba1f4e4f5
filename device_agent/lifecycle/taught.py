"""The golden check when taught rows vote, too."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from device_agent.enrolment import golden_answers, local
from device_agent.enrolment.joined import JoinedKNN
from device_agent.enrolment.journal import Journal
from device_agent.inference.tflite_knn import TfliteKNN
from device_agent.shared import regression
from device_agent.shared.enrolment import enrolled
from device_agent.shared.enrolment.joined import labels_digest, values_digest
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol.errors import AgentError
from device_agent.shared.protocol.reports import TaughtCheck


def check_taught(root: Path, model: TfliteKNN, golden: Golden, digest: str) -> tuple[TaughtCheck | None, str]:
    """Checks the answers to golden rows when taught rows vote, too; returns (result, "" or the missed gate).

    With taught rows merged into both, the model's answers must equal those of the golden set. If the journal of taught
    rows cannot be read (`status` reports that), or the release uses none of its rows, returns None and "".
    """
    try:
        rows = Journal(root).read()
    except (AgentError, OSError):
        return None, ""
    joined = local.taking_part(model, rows, digest)
    if not joined.rows:
        return None, ""
    merged, info = JoinedKNN(model, joined), joined.info
    expected = golden_answers.with_taught(merged.exact, golden)
    if info.targets is None:
        labels = merged.labels(golden.rows) if len(golden.rows) else expected
        different, digest = int(np.count_nonzero(labels != expected)), labels_digest(info, labels)
    else:
        values = merged.values_of(merged.classify(golden.rows)) if len(golden.rows) else expected
        places = regression.differ(values, expected, info.targets.spread)
        different, digest = int(places.sum()), values_digest(info, expected)
    wrong = f"parity: with taught rows, {different} golden rows are answered differently" if different else ""
    changed, counts = len(golden_answers.changed(expected, golden, info)), enrolled.counts(joined.rows)
    return TaughtCheck(enrolled.digest_of(rows), len(rows), counts, changed, digest), wrong
