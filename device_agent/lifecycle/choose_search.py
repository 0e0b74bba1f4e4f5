"""Measures which search of a release is fastest here.

A search is a way to find the neighbours (`constants.WAYS`). All give the same answers and differ only in time and
memory. Each is timed on golden rows, for one row and for a batch, in the child process of the golden check. A search
that fails or answers differently is skipped. If the child fails, models choose their search without a measurement.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from device_agent.serving.load import load_model
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.documents import Searched
from device_agent.shared.protocol.errors import AgentError
from device_agent.shared.release.directory import OpenRelease
from device_agent.system import memory

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from device_agent.inference.tflite_knn import TfliteKNN

#: No other search is tried after so many seconds; one that was begun is measured to its end.
_SECONDS = 1.0
#: After so many seconds the child is ended; a single call may take long.
HANGS = 30
#: The searches that gain the most come first.
_IN_TURN = (constants.GROUPS, constants.CELLS, constants.NUMPY, constants.FULL, constants.QUANTIZED)
_WITHOUT_COPIES = (constants.GROUPS, constants.NUMPY)
_REPEATS, _SLICE = 15, 0.06
#: Rows asked one by one; a batch has at least so many.
_ROWS = 64
#: Rows of a batch if `_ROWS` take the usual search less than `_QUICK` milliseconds: files often hold more.
_MANY, _QUICK = 256, 20.0
#: Another search than the usual one must be faster by this factor: times vary.
_FASTER = 0.9
#: XNNPACK copies the rows of a large model twice, NumPy never: it answers batches, unless a graph needs less than this
#: share of its time.
_WORTH_COPIES = 0.9
#: If a batch takes so many times as long as the usual search's, it is not timed again.
_HOPELESS = 3.0


def measure_release(opened: OpenRelease, digest: str, runtime: str) -> Searched | None:
    """Returns times of searches of `opened` on golden rows; None if there is only one search, or no golden row."""
    from device_agent.shared.golden.golden_set import Golden
    from device_agent.shared.raw_rows import own_golden

    golden = Golden.from_bytes(opened.read(constants.GOLDEN_FILE))
    usual = load_model(opened, runtime)
    if usual.search == constants.NUMPY or not len(golden.rows):
        return None
    large = opened.files[constants.MODEL_FILE].size > memory.SMALL
    rows = own_golden(golden, usual.info).rows
    return measure(usual, lambda way: load_model(opened, runtime, search=way), rows, digest, large=large)


def measure(
    usual: TfliteKNN, load: Callable[[str], TfliteKNN], rows: NDArray[Any], digest: str = "", *, large: bool = False
) -> Searched:
    """Times the searches of a model (begins none after `_SECONDS`), chooses one for batches and one for single rows.

    Args:
        usual: the model with the searches that it chooses without a measurement.
        load: opens the same model with another search, one of `constants.WAYS`.
        rows: (n, n_features) raw rows, at least one.
        digest: the release's digest, for the result.
        large: whether the copies that XNNPACK (TFLite's CPU kernels) makes of the training rows are large: a search
            without copies is then preferred, and single rows are answered before any copy is made.
    """
    import numpy as np

    many, rows = np.resize(rows, (max(usual.batch, _ROWS), rows.shape[1])), rows[:_ROWS]
    expected = _try(usual, rows, many, large=large)
    if expected.batch < _QUICK:
        many = np.resize(rows, (max(usual.batch, _MANY), rows.shape[1]))
        expected = _try(usual, rows, many, large=large)._replace(alone=expected.alone)  # by now, it may be copied
    usually, usually_alone, until = usual.search, usual.search_alone, time.perf_counter() + _SECONDS
    batch, alone = {usually: expected.batch}, {usually_alone: expected.alone}
    for way in _IN_TURN:
        if not usual.info.has(way) or (way in batch and way in alone) or time.perf_counter() > until:
            continue
        model = None  # so that a small board never holds a third one
        try:
            model = load(way)
            found = _try(model, rows, many, large=large, most=_HOPELESS * batch[usually])
        except AgentError:  # of one row, too: it runs another graph than a batch
            continue
        if found.agrees(expected):
            alone.setdefault(way, found.alone)
            batch.setdefault(way, found.batch)
    return Searched(
        digest,
        f"{usual.runtime.name} {usual.runtime.version}",
        _fastest(alone, usually_alone),
        (_frugal if large else _fastest)(batch, usually),
        alone,
        batch,
        len(many),
    )


class _Tried(NamedTuple):
    """Milliseconds of one row and of a batch, and the answers: of single rows, then of the batch."""

    alone: float
    batch: float
    answers: list[Any]

    def agrees(self, expected: _Tried) -> bool:
        """Returns whether labels and neighbours are those of `expected`; a batch that was not tried does not count."""
        return all(
            (one.label == other.label).all() and (one.indices == other.indices).all()
            for one, other in zip(self.answers, expected.answers)
        )


def _try(
    model: TfliteKNN, rows: NDArray[Any], many: NDArray[Any], *, large: bool, most: float = float("inf")
) -> _Tried:
    """Times single `rows` and the batch `many`, whose first call may take longer: it copies the training rows.

    A batch that takes more than `most` milliseconds is timed only once. A search in groups takes each row of a batch
    alone: if that would take more than `most`, the batch is not tried.
    """
    if not large:  # after a few rows, single rows are answered from the copies, too
        model.classify(many)
    answers = [model.classify(row[None]) for row in rows[:_REPEATS]]
    alone, _ = _least(lambda turn: model.classify(rows[turn % len(rows)][None]))
    batch = alone * len(many) if model.search == constants.GROUPS else 0.0
    if batch <= most:
        if large:
            model.classify(many)
        batch, first = _least(lambda turn: model.classify(many), most)
        answers.append(first)
    return _Tried(alone, batch, answers)


def _fastest(taken: dict[str, float], usual: str) -> str:
    best = min(taken, key=taken.__getitem__)
    return best if taken[best] < _FASTER * taken[usual] else usual


def _frugal(taken: dict[str, float], usual: str) -> str:
    best, without = _fastest(taken, usual), {way: taken[way] for way in _WITHOUT_COPIES if way in taken}
    least = min(without, key=without.__getitem__, default=best)
    return least if taken[best] >= _WORTH_COPIES * taken[least] else best


def _least(work: Callable[[int], Any], most: float = float("inf")) -> tuple[float, Any]:
    """Returns the milliseconds of the fastest of `work(1)`, `work(2)`, ...; and what `work(0)`, called before, returns.

    If `work(0)` takes more than `most` milliseconds, nothing else is called.
    """
    before = time.perf_counter()
    first = work(0)
    best, end = (time.perf_counter() - before) * 1e3, time.perf_counter() + _SLICE
    if best > most:
        return best, first
    for turn in range(1, _REPEATS + 1):
        before = time.perf_counter()
        work(turn)
        best = min(best, (time.perf_counter() - before) * 1e3)
        if time.perf_counter() > end:
            break
    return best, first
