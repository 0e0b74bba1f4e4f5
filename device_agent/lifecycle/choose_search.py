"""Measures which search of a release is fastest here.

All searches give the same answers and differ only in time. Each is timed on golden rows, for one row and for a batch,
in a child process. A search that answers differently is skipped. If the child fails, no result is stored, and models
choose their search without a measurement.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from device_agent.lifecycle.check import lock_of
from device_agent.serving.load import load_model
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.documents import Searched
from device_agent.shared.protocol.errors import AgentError
from device_agent.shared.release.directory import OpenRelease
from device_agent.store import searches
from device_agent.store.store import Store
from device_agent.system import memory, sandbox

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from device_agent.inference.tflite_knn import TfliteKNN

_SECONDS = 1.0
#: After so many seconds the child is ended; a single call may take long.
_HANGS = 20.0
_REPEATS, _SLICE = 15, 0.06
_ROWS = 64
#: Another search than the usual one must be faster by this factor: times vary.
_FASTER = 0.9


def measure_and_keep(store: Store, opened: OpenRelease, digest: str, runtime: str) -> None:
    """Measures the searches of an open, verified release, and stores the result for `load_kept`; never fails."""
    try:
        found = sandbox.run(lambda: _measure(opened, digest, runtime), close=lock_of(store), timeout=_HANGS)
    except (AgentError, OSError):
        return
    if found is not None:
        searches.write(store, found)


def _measure(opened: OpenRelease, digest: str, runtime: str) -> Searched | None:
    """Returns the times measured within the time limit; None if there is only one search."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import numpy as np

    from device_agent.shared.golden.golden_set import Golden
    from device_agent.shared.raw_rows import own_golden

    until = time.perf_counter() + _SECONDS
    golden = Golden.from_bytes(opened.read(constants.GOLDEN_FILE))
    usual = load_model(opened, runtime)
    if usual.search == constants.NUMPY or not len(golden.rows):
        return None
    golden = own_golden(golden, usual.info)
    rows = golden.rows[:_ROWS]
    many = np.resize(golden.rows, (usual.batch, rows.shape[1]))
    expected = usual.classify(rows)
    batch, alone = {usual.search: _time(usual, many, until)}, {usual.search_alone: _time_one(usual, rows, until)}
    large = opened.files[constants.MODEL_FILE].size > memory.SMALL
    for way in constants.WAYS:
        if not usual.info.has(way) or (way in batch and way in alone):
            continue
        model = load_model(opened, runtime, stream=large, search=way)
        found = model.classify(rows)
        if not (np.array_equal(found.label, expected.label) and np.array_equal(found.indices, expected.indices)):
            continue
        if way not in alone:
            alone[way] = _time_one(model, rows, until)
        if way not in batch:
            batch[way] = _time(model, many, until)
    return Searched(
        digest,
        f"{usual.runtime.name} {usual.runtime.version}",
        _fastest(alone, usual.search_alone),
        _fastest(batch, usual.search),
        {way: taken for way, taken in alone.items() if taken < float("inf")},
        {way: taken for way, taken in batch.items() if taken < float("inf")},
        len(many),
    )


def _fastest(taken: dict[str, float], usual: str) -> str:
    best = min(taken, key=taken.__getitem__)
    return best if taken[best] < _FASTER * taken[usual] else usual


def _time_one(model: TfliteKNN, rows: NDArray[Any], until: float) -> float:
    return _least(lambda turn: model.classify(rows[turn % len(rows)][None]), until)


def _time(model: TfliteKNN, rows: NDArray[Any], until: float) -> float:
    return _least(lambda turn: model.classify(rows), until)


def _least(work: Callable[[int], Any], until: float) -> float:
    """Returns the time of the fastest of a few calls, in milliseconds; infinity if no time is left."""
    best, start = float("inf"), time.perf_counter()
    for turn in range(_REPEATS + 1):
        before = time.perf_counter()
        if before > until or (before > start + _SLICE and turn > 1):
            break
        work(turn)
        if turn:  # the first call allocates
            best = min(best, (time.perf_counter() - before) * 1e3)
    return best
