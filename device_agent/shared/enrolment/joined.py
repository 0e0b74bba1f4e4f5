"""Taught rows that a release uses.

A release uses a taught row if the row has the columns of the model, its label may be taught, and no training row has
its id. For a regression, the row must have a value of each target. This depends only on the release and the rows: a
rollback needs no bookkeeping, and a host can compute the same answers. No I/O.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.enrolment.enrolled import Label, LocalRow, fingerprint, label_of
from device_agent.shared.protocol.constants import UNKNOWN_LABEL
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.protocol.record import record, replace
from device_agent.shared.raw_rows import features_of
from device_agent.shared.release.row_origins import Origins


@record
class Joined:
    """A release together with the taught rows that it uses."""

    info: KnnInfo  # knn.json of the model, with new labels after its own labels
    rows: tuple[LocalRow, ...]  # the taught rows that it uses, in the order in which they were taught
    codes: NDArray[np.int32]  # (L,) int32 class index of each row in `info.classes`
    features: NDArray[Any]  # (L, n_features) numbers of each row, as the model takes them
    targets: NDArray[np.float64] | None = None  # (L, t) float64 values of each row, for a regression; else None


def contained(training: Origins, rows: Iterable[LocalRow]) -> frozenset[str]:
    """Returns the ids of taught `rows` that a release was trained on; `training` has the ids of its training rows."""
    if training.text is None:
        return frozenset()
    there = {row.id.encode() for row in rows}.intersection(training.text.split(b"\n"))
    return frozenset(each.decode() for each in there)


def values_digest(info: KnnInfo, values: NDArray[np.float64]) -> str:
    """Returns a digest of answers: the SHA-256 of (n, t) values, rounded to millionths of each target's range."""
    assert info.targets is not None
    spread = np.where(np.array(info.targets.spread) > 0.0, info.targets.spread, 1.0)
    millionths = (values / spread * 1e6).tolist()
    rounded = [["" if value != value else str(round(value)) for value in row] for row in millionths]
    return hashlib.sha256("".join(f"{','.join(row)}\n" for row in rounded).encode()).hexdigest()


def labels_digest(info: KnnInfo, labels: NDArray[np.int32]) -> str:
    """Returns a digest of answers: the SHA-256 of (n,) labels as lines of text; `labels` are class indices."""
    names = [*map(str, info.classes), UNKNOWN_LABEL]
    return hashlib.sha256("".join(f"{names[label]}\n" for label in labels.tolist()).encode()).hexdigest()


def join(info: KnnInfo, rows: Sequence[LocalRow], digest: str, contained: frozenset[str] = frozenset()) -> Joined:
    """Selects the taught `rows` that a release uses; returns them with a knn.json that includes them.

    `digest` identifies the release; `contained` are ids of rows that it was trained on, which it does not use twice.
    """
    chosen = [row for row in rows if _takes_part(info, row, digest, contained)]
    labels = {} if info.targets is not None else _labels(info, [row.label for row in chosen])
    chosen = [row for row in chosen if info.targets is not None or row.label in labels]
    found = features_of(info, [row.row for row in chosen])
    good = np.flatnonzero(np.isfinite(found).all(axis=1)) if len(chosen) else np.array([], int)
    chosen = [chosen[place] for place in good]
    if info.targets is not None:
        values = np.array([row.values for row in chosen], np.float64).reshape(len(chosen), len(info.targets.names))
        widened = _widened(info, info.classes, len(chosen))
        return Joined(widened, tuple(chosen), np.zeros(len(chosen), np.int32), found[good], values)
    classes = tuple(dict.fromkeys((*info.classes, *(labels[row.label] for row in chosen))))
    codes = {label: code for code, label in enumerate(classes)}
    numbers = np.array([codes[labels[row.label]] for row in chosen], np.int32)
    return Joined(_widened(info, classes, len(chosen)), tuple(chosen), numbers, found[good])


def _takes_part(info: KnnInfo, row: LocalRow, digest: str, contained: frozenset[str]) -> bool:
    allowed = info.enrol
    if allowed is None or row.columns != fingerprint(info) or row.id in contained:
        return False
    complete = info.targets is None or len(row.values) == len(info.targets.names)
    return complete and not (allowed.drop and row.digest != digest)


def _labels(info: KnnInfo, taught: Iterable[Label]) -> dict[Label, Label]:
    """Returns `taught` label -> the model's label that it means, or the new label to add.

    Leaves out new labels if the model allows none. A row that was taught under an older release may have another
    spelling of a label: `1.0` for `1`, for example.
    """
    found: dict[Label, Label] = {}
    for label in dict.fromkeys(taught):
        meant = label_of(str(label), info.classes, found.values())
        if meant in info.classes or (meant is not None and info.enrol and info.enrol.new_labels):
            found[label] = meant
    return found


def _widened(info: KnnInfo, classes: tuple[Label, ...], added: int) -> KnnInfo:
    """Returns knn.json with `added` more rows and with `classes`, new ones last; lengthens each list by class.

    A new class has no rows to calibrate with. Its reject threshold is the (lower) median of the other thresholds, and
    it is in every label set: without calibration rows, the conformal threshold admits every score.
    """
    new = len(classes) - len(info.classes)
    reject, sets = info.reject, info.label_sets
    if reject is not None:
        usual = sorted(reject.thresholds)[(len(reject.thresholds) - 1) // 2]
        reject = replace(reject, thresholds=reject.thresholds + (usual,) * new)
    if sets is not None:
        sets = tuple(replace(each, thresholds=each.thresholds + (None,) * new) for each in sets)
    wider = replace(info, classes=classes, n_train=info.n_train + added, reject=reject, label_sets=sets)
    return replace(wider, lattice=None)  # taught rows need not lie on it
