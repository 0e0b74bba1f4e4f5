"""Comparison of a new release with the running one.

The running release answers the golden rows of the new one before anything is switched. The result goes into the
certificate. Measures only; the gate `not_worse_than` decides (`class_gates.worse`).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from device_agent.serving.load import load_model
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.documents import ReleaseRef
from device_agent.shared.protocol.errors import AgentError, Refused
from device_agent.shared.protocol.record import record
from device_agent.shared.protocol.reports import Running
from device_agent.shared.release import model_file
from device_agent.shared.release.directory import OpenRelease, open_release
from device_agent.shared.trust.rules import Verdict
from device_agent.store import state
from device_agent.store.trust_state import Known
from device_agent.system import clock, memory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from device_agent.inference.tflite_knn import TfliteKNN
    from device_agent.shared.golden.golden_set import Golden


@record
class Opened:
    """The running release, opened for the comparison; `opened` is None if its files are damaged."""

    opened: OpenRelease | None
    ref: ReleaseRef


def running(known: Known, new: Verdict, size: int, stack: contextlib.ExitStack) -> Opened | None:
    """Returns the running release in `known`, to compare it with `new`; `stack` closes it.

    If the files of that release are damaged, `Opened.opened` is None. Returns None if no other release runs. Also
    returns None if either model is large (the new one has `size` bytes), unless a gate needs the comparison: answers
    of a large model to every golden row take time.
    """
    found = state.answering(known.state, clock.now())
    wanted = new.manifest.gates.not_worse_than is not None
    if found is None or found.release.digest == new.digest or not (wanted or size <= memory.SMALL):
        return None
    try:
        opened = stack.enter_context(open_release(known.store.release_path(found.release.digest)))
        opened.verify_accepted(found.release.digest, known.trust)
    except Refused:
        return Opened(None, found.release)
    small = opened.files[constants.MODEL_FILE].size <= memory.SMALL
    return Opened(opened, found.release) if wanted or small else None


def ask(current: Opened, golden: Golden, runtime: str) -> Running | None:
    """Returns the answers of `current`, the running release, to the golden rows; None if it cannot be loaded or fails.

    `Running.labels` is None if the golden rows have other columns than the model of `current`.
    """
    if current.opened is None:
        return None
    from device_agent.shared.golden.changes import columns_of

    try:
        info = model_file.read_info(current.opened.path(constants.MODEL_FILE))
        columns, classes = columns_of(info), tuple(map(str, info.classes))
        model = load_model(current.opened, runtime)
        rows = _rows(model, golden)
        if rows is None:
            return Running(current.ref, columns, classes, None)
        label = model.classify(rows).label
    except (AgentError, MemoryError):
        return None
    names = (*classes, constants.UNKNOWN_LABEL)
    labels = tuple(names[code] if code >= 0 else names[-1] for code in label.tolist())
    return Running(current.ref, columns, classes, labels)


def _rows(model: TfliteKNN, golden: Golden) -> NDArray[np.floating[Any]] | None:
    """Returns the golden rows as features of `model`; None if it has other columns, or does not know a category."""
    info = model.info
    if golden.raw and (info.table is not None or model.chain is not None):
        from device_agent.shared.raw_rows import raw_parser

        parsed = raw_parser(info, model.chain).parse(golden.raw)
        return None if parsed.errors else parsed.rows
    fits = info.table is None and model.chain is None and not golden.raw and info.n_features == golden.rows.shape[1]
    return golden.rows if fits else None
