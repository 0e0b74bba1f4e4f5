"""Replicas of one model that answer blocks in parallel.

The runtime releases Python's global lock while it computes, so parsing, rendering and each replica can use a core each.
Results keep the order of the rows. Replicas start with the second block, and only for small models, because each needs
the model's memory again. Holds a few blocks at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from device_agent.inference.interpreter_pool import MAX_SHARED
from device_agent.serving.load import Loaded
from device_agent.shared.protocol import constants
from device_agent.system import board

if TYPE_CHECKING:
    from concurrent.futures import Future

    from device_agent.inference.tflite_knn import Answers

T = TypeVar("T")

#: Most replicas of a model.
MAX_REPLICAS = 4


def answer_all(loaded: Loaded, blocks: Iterable[NDArray[Any]]) -> Iterator[Answers]:
    """Yields the answers of `loaded` to each (n, n_features) block of rows, in order.

    Raises:
        BadInput: a row of the next block has a value that is not finite.
    """
    for rows, answers in _in_order(loaded, blocks, lambda model, rows: (rows, model.classify(rows))):
        if loaded.ring:
            loaded.ring.note(rows, answers)
        yield answers


def label_all(loaded: Loaded, blocks: Iterable[NDArray[Any]]) -> Iterator[NDArray[np.int32]]:
    """Yields the (n,) int32 class indices that `loaded` answers to each (n, n_features) block of rows, in order.

    Raises:
        BadInput: a row of the next block has a value that is not finite.
    """

    def of_many() -> Callable[[Any, NDArray[Any]], NDArray[np.int32]]:
        from device_agent.inference.label_map import labeller

        return labeller(loaded.signed)

    return _in_order(loaded, blocks, lambda model, rows: model.labels(rows), of_many)


def _in_order(
    loaded: Loaded,
    blocks: Iterable[NDArray[Any]],
    query: Callable[[Any, NDArray[Any]], T],
    query_of_many: Callable[[], Callable[[Any, NDArray[Any]], T]] | None = None,
) -> Iterator[T]:
    """Yields `query(model, rows)` of each block in order; for several blocks, `query_of_many()` replaces `query`."""
    rest = iter(blocks)
    first = next(rest, None)
    if first is None:
        return
    second = next(rest, None)
    if second is None:
        yield query(loaded.model, first)
        return
    query = query_of_many() if query_of_many else query
    models: SimpleQueue[Any] = SimpleQueue()
    models.put(loaded.model)
    replicas = _count_replicas(loaded)
    for _ in range(replicas - 1):
        models.put(loaded.replica())

    def work(rows: NDArray[Any]) -> T:
        model = models.get()
        try:
            return query(model, rows)
        finally:
            models.put(model)

    yield from _in_parallel(work, chain([first, second], rest), replicas)


def _in_parallel(work: Callable[[NDArray[Any]], T], blocks: Iterator[NDArray[Any]], workers: int) -> Iterator[T]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[T]] = deque()
        for rows in blocks:
            if len(waiting) > workers:
                yield waiting.popleft().result()
            waiting.append(pool.submit(work, rows))
        while waiting:
            yield waiting.popleft().result()


def _count_replicas(loaded: Loaded) -> int:
    if loaded.opened.files[constants.MODEL_FILE].size > MAX_SHARED:
        return 1
    return min(board.cores(), MAX_REPLICAS)
