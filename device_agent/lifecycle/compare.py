"""Comparison of a new release with the running one.

For the gate `not_worse_than: current`. The running release answers the golden rows of the new one before anything is
switched. Measures only; `class_gates.worse` decides.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from device_agent.serving.load import load_model, open_kept
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.documents import ReleaseRef
from device_agent.shared.protocol.errors import ModelUnusable, Refused
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.protocol.record import record
from device_agent.shared.protocol.reports import ClassChange, Compared
from device_agent.shared.release import model_file
from device_agent.shared.release.directory import OpenRelease
from device_agent.shared.trust.rules import Verdict
from device_agent.store import state
from device_agent.store.trust_state import Known
from device_agent.system import clock

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from device_agent.shared.golden.golden_set import Golden


@record
class Running:
    """The release that answers now, open and verified."""

    opened: OpenRelease
    ref: ReleaseRef


@record
class Before:
    """What the running release answers to the golden rows of another: labels as text; None if the features differ."""

    ref: ReleaseRef
    classes: tuple[str, ...]
    labels: tuple[str, ...] | None


def running(known: Known, new: Verdict, stack: contextlib.ExitStack) -> Running | None:
    """Returns the release that answers now, if the gates of `new` ask for it; `stack` closes it.

    None as well if the device has no other release, or if its files are damaged: then there is nothing to keep.
    """
    found = state.answering(known.state, clock.now()) if new.manifest.gates.not_worse_than else None
    if found is None or found.release.digest == new.digest:
        return None
    try:
        return Running(open_kept(known.store, found.release, stack)[0], found.release)
    except Refused:
        return None


def ask(found: Running, golden: Golden, columns: tuple[str, ...], runtime: str) -> Before | None:
    """Returns the running release's answers; None if it cannot be loaded."""
    try:
        info = model_file.read_info(found.opened.path(constants.MODEL_FILE))
        if info.columns != columns or (info.table is not None) != bool(golden.raw):
            return Before(found.ref, tuple(map(str, info.classes)), None)
        if info.table is not None:
            from device_agent.shared.features.golden_rows import from_raw

            golden = from_raw(golden, info)
        label = load_model(found.opened, runtime).classify(golden.rows).label
    except ModelUnusable:
        return None
    classes = tuple(map(str, info.classes))
    names = (*classes, constants.UNKNOWN_LABEL)
    return Before(found.ref, classes, tuple(names[code] if code >= 0 else names[-1] for code in label.tolist()))


def beside(before: Before, info: KnnInfo, golden: Golden, label: NDArray[np.int32]) -> Compared:
    """Returns the running release beside the new one, with the new one's answers `label` to its golden rows."""
    classes = tuple(map(str, info.classes))
    ref, gone = before.ref, tuple(name for name in before.classes if name not in classes)
    if before.labels is None:
        return Compared(ref.digest, ref.name, ref.version, False)
    import numpy as np  # a process that compares nothing starts without it

    old = np.array(before.labels)
    changes = []
    for code, name in enumerate(classes):
        rows = golden.truth == code
        changes.append(
            ClassChange(name, int(rows.sum()), int((old[rows] == name).sum()), int((label[rows] == code).sum()))
        )
    return Compared(ref.digest, ref.name, ref.version, True, tuple(changes), gone)
