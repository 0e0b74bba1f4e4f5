"""Several copies of one model at work side by side, for inputs that are larger than one block.

The runtime lets go of Python's lock while it computes: parsing, rendering and each copy run on a core of their own.
Results come in the order of the rows. Nothing is started before the second block comes, and a model that is not small
gets no copies, since each costs its memory again. Never holds more than a few blocks.
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
from device_agent.serving.load import Loaded, load_model
from device_agent.shared.protocol import constants
from device_agent.system import board

if TYPE_CHECKING:
    from concurrent.futures import Future

    from device_agent.inference.tflite_knn import Answers, TfliteKNN

T = TypeVar("T")

#: Most copies of a model.
MAX_COPIES = 4


def answer_all(
    loaded: Loaded, blocks: Iterable[NDArray[Any]], runtime: str = "auto", threads: int = 1
) -> Iterator[Answers]:
    """Yields the answers to each block of rows, in order.

    Raises:
        BadInput: a row of the block that comes next is no finite numbers.
    """

    def ask(model: TfliteKNN, rows: NDArray[Any]) -> Answers:
        return model.classify(rows)

    return _in_order(loaded, blocks, ask, lambda: ask, runtime, threads)


def label_all(
    loaded: Loaded, blocks: Iterable[NDArray[Any]], runtime: str = "auto", threads: int = 1
) -> Iterator[NDArray[np.int32]]:
    """Yields the (n,) class indices of each block of rows, in order.

    Raises:
        BadInput: a row of the block that comes next is no finite numbers.
    """

    def of_many() -> Callable[[TfliteKNN, NDArray[Any]], NDArray[np.int32]]:
        from device_agent.inference.label_map import labeller

        return labeller(loaded.model)

    return _in_order(loaded, blocks, lambda model, rows: model.labels(rows), of_many, runtime, threads)


def _in_order(
    loaded: Loaded,
    blocks: Iterable[NDArray[Any]],
    ask: Callable[[TfliteKNN, NDArray[Any]], T],
    of_many: Callable[[], Callable[[TfliteKNN, NDArray[Any]], T]],
    runtime: str,
    threads: int,
) -> Iterator[T]:
    """Yields what is said of each block; where there is a second, by what `of_many` returns."""
    rest = iter(blocks)
    first = next(rest, None)
    if first is None:
        return
    second = next(rest, None)
    if second is None:
        yield ask(loaded.model, first)
        return
    ask = of_many()
    models: SimpleQueue[TfliteKNN] = SimpleQueue()
    models.put(loaded.model)
    copies = _copies(loaded)
    for _ in range(copies - 1):
        models.put(load_model(loaded.opened, runtime, threads))

    def work(rows: NDArray[Any]) -> T:
        model = models.get()
        try:
            return ask(model, rows)
        finally:
            models.put(model)

    yield from _side_by_side(work, chain([first, second], rest), copies)


def _side_by_side(work: Callable[[NDArray[Any]], T], blocks: Iterator[NDArray[Any]], copies: int) -> Iterator[T]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(copies) as pool:
        waiting: deque[Future[T]] = deque()
        for rows in blocks:
            if len(waiting) > copies:
                yield waiting.popleft().result()
            waiting.append(pool.submit(work, rows))
        while waiting:
            yield waiting.popleft().result()


def _copies(loaded: Loaded) -> int:
    if loaded.opened.files[constants.MODEL_FILE].size > MAX_SHARED:
        return 1
    return min(board.cores(), MAX_COPIES)
