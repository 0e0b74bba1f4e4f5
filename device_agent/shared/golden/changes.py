"""Changes of answers between two releases, on golden rows.

A golden row is a query row that checks a release. A device compares the labels of both releases when it activates the
new one; the host does in a dry run, with the same code. No I/O.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol.constants import MAX_DIFFERENCES, UNKNOWN_LABEL
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.protocol.reports import ClassChange, Compared, Flip, Running

#: Kinds of changes that a comparison lists, at most.
MAX_FLIPS = 50


def columns_of(info: KnnInfo) -> tuple[str, ...]:
    """Returns the columns of raw rows. Releases with equal ones can answer the same rows, whatever their features are.

    Sounds have their rate, since golden sounds are at the rate of their release; pictures may have any size.
    """
    given = info.input
    if given is None:
        return info.columns
    if given.window is not None:
        return (*given.window.columns, f"{given.window.rows} samples")
    if given.audio is not None:
        return (f"sound at {given.audio.rate} Hz",)
    return ("picture",) if given.image is not None else (*given.columns, f"{given.width} numbers")


def compare(running: Running, info: KnnInfo, golden: Golden, label: NDArray[np.int32]) -> Compared:
    """Compares the labels of the running release and of a new release on the golden rows of the new one.

    The result has `fits=False` and no counts if the running release has other columns than the new one.

    Args:
        running: the running release, with its labels for these rows.
        info: knn.json of the new release.
        golden: golden set of the new release.
        label: (n,) int32 class indices that the new release answers.
    """
    ref, classes = running.release, tuple(map(str, info.classes))
    fits = running.labels is not None and running.features == columns_of(info)
    if not fits or running.labels is None or len(running.labels) != len(label):
        return Compared(ref.digest, ref.name, ref.version, False)
    old, truth = np.array(running.labels), golden.truth
    changed = []
    for code, name in enumerate(classes):
        own = truth == code
        counts = int(own.sum()), int((old[own] == name).sum()), int((label[own] == code).sum())
        changed.append(ClassChange(name, *counts))
    names = (*classes, UNKNOWN_LABEL)
    new = [names[max(code, -1)] for code in label.tolist()]
    known = [classes[code] if code >= 0 else "" for code in truth.tolist()]
    gone = tuple(name for name in running.classes if name not in classes)
    return Compared(ref.digest, ref.name, ref.version, True, tuple(changed), gone, flips(known, running.labels, new))


def flips(truth: Sequence[str], before: Sequence[str], after: Sequence[str]) -> tuple[Flip, ...]:
    """Counts rows by (`truth`, `before`, `after`), their labels as text; returns the `MAX_FLIPS` commonest changes."""
    rows: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for row, key in enumerate(zip(truth, before, after)):
        if key[1] != key[2]:
            rows[key].append(row)
    common = sorted(rows.items(), key=lambda entry: (-len(entry[1]), entry[0]))[:MAX_FLIPS]
    return tuple(Flip(*key, len(found), tuple(found[:MAX_DIFFERENCES])) for key, found in common)
