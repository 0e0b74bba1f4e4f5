"""Several copies of one model at work side by side, for inputs that are larger than one block.

The runtime lets go of Python's lock while it computes: parsing, rendering and each copy run on a core of their own.
Results come in the order of the rows. Nothing is started before the second block comes, and a model that is not small
gets no copies, since each costs its memory again. Never holds more than a few blocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from device_agent import board, contract
from device_agent.loading import Loaded, load_model

if TYPE_CHECKING:
    from concurrent.futures import Future

    from device_agent.runtime import Answers, TfliteKNN

#: Most copies of a model, and the largest model file, in bytes, that is copied at all.
MAX_COPIES = 4
MAX_COPIED = 8 * 1024 * 1024


def answer_all(
    loaded: Loaded, blocks: Iterable[NDArray[Any]], runtime: str = "auto", threads: int = 1
) -> Iterator[Answers]:
    """Yields the answers to each block of rows, in order.

    Raises:
        BadInput: a row of the block that comes next is no finite numbers.
    """
    rest = iter(blocks)
    first = next(rest, None)
    if first is None:
        return
    second = next(rest, None)
    if second is None:
        yield loaded.model.classify(first)
        return
    yield from _side_by_side(loaded, [first, second], rest, runtime, threads)


def _side_by_side(
    loaded: Loaded, start: list[NDArray[Any]], rest: Iterator[NDArray[Any]], runtime: str, threads: int
) -> Iterator[Answers]:
    from concurrent.futures import ThreadPoolExecutor

    models: SimpleQueue[TfliteKNN] = SimpleQueue()
    models.put(loaded.model)
    copies = _copies(loaded)
    for _ in range(copies - 1):
        models.put(load_model(loaded.opened, runtime, threads))

    def work(rows: NDArray[Any]) -> Answers:
        model = models.get()
        try:
            return model.classify(rows)
        finally:
            models.put(model)

    with ThreadPoolExecutor(copies) as pool:
        waiting: deque[Future[Answers]] = deque(pool.submit(work, rows) for rows in start)
        for rows in rest:
            if len(waiting) > copies:
                yield waiting.popleft().result()
            waiting.append(pool.submit(work, rows))
        while waiting:
            yield waiting.popleft().result()


def _copies(loaded: Loaded) -> int:
    if loaded.opened.files[contract.MODEL_FILE].size > MAX_COPIED:
        return 1
    return min(board.cores(), MAX_COPIES)
