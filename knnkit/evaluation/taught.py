"""Replays answers with the rows taught on a device.

The device's certificate has two digests: of its taught rows, and of its answers to the golden rows. This module
computes both again, from the release and from the output of `device_agent enrolled --json`. The code that chooses
which taught rows count is the device's (`device_agent.shared.enrolment.joined`); the search is not.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.enrolment.enrolled import LocalRow
from device_agent.shared.enrolment.joined import Joined, contained, join, labels_digest, values_digest
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.reports import TaughtCheck
from device_agent.shared.regression import differ
from knnkit.model.reference.classifier import Reference
from knnkit.model.stored import read_model


def contradicts(directory: Path, digest: str, lines: bytes, claim: TaughtCheck) -> str:
    """Returns how the taught rows that a device sent contradict its certificate; "" if they do not.

    Args:
        directory: directory of the release on this machine.
        digest: digest of the release.
        lines: output of `enrolled --json` on the device.
        claim: the part of the certificate about taught rows.

    Raises:
        ModelUnusable, MalformedDocument: the release or the lines are damaged.
    """
    rows = [json_codec.loads(LocalRow, line, extra="keep") for line in lines.splitlines()]
    if hashlib.sha256(lines).hexdigest() != claim.digest or len(rows) != claim.rows:
        return "the taught rows that the device sent are not those of its certificate (were rows taught meanwhile?)"
    stored = read_model(directory / constants.MODEL_FILE)
    joined = join(stored.info, rows, digest, contained(stored.training, rows))
    golden = Golden.from_bytes((directory / constants.GOLDEN_FILE).read_bytes())
    info, reference = joined.info, over_both(stored.reference, joined)
    answers = reference.answer(golden.rows)
    if info.targets is None or golden.values is None:
        digest, places = labels_digest(info, answers.label), answers.label != golden.label
    else:
        values = reference.values(answers)
        digest, places = values_digest(info, values), differ(values, golden.values, info.targets.spread)
    if digest != claim.answers:
        return "with its taught rows, the device answers golden rows differently than the reference"
    changed = int(np.count_nonzero(places))
    return "" if changed == claim.changed else f"taught rows change {changed} golden answers, not {claim.changed}"


def over_both(own: Reference, joined: Joined) -> Reference:
    """Returns the reference classifier over a model's own training rows and the taught rows that count, in `joined`."""
    mapped = own.space.enter(joined.features)
    if own.space.metric == "cosine":  # a training row of zeros is marked in the other column than a query
        mapped[:, [-2, -1]] = mapped[:, [-1, -2]]
    with np.errstate(over="ignore"):
        local = mapped.astype(np.float32)
    kept = np.isfinite(local).all(axis=1)
    classes: NDArray[np.int32] = np.concatenate([own.classes, joined.codes[kept]]).astype(np.int32)
    enrolled = np.concatenate([own.enrolled, local[kept]])
    info = joined.info
    how: dict[str, Any] = {"reject": info.reject}
    if own.targets is not None and joined.targets is not None:
        how["targets"] = np.concatenate([own.targets, joined.targets[kept]])
    return Reference(own.space, enrolled, classes, len(info.classes), own.k, own.weights, **how)
