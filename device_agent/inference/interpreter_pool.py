"""Pool of interpreters of one model that share a batch.

For small models. Each interpreter runs in its own thread. The runtime's own threads share only the matrix product, but
small models spend most time in TOPK_V2, which runs on one thread. The runtime releases Python's global lock while it
computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from device_agent.inference.graph import Graph

#: Largest model file in bytes that is loaded several times; each interpreter takes its memory again.
MAX_SHARED = 8 << 20


class InterpreterPool:
    """Interpreters and threads, created at the first batch that is long enough to share.

    Args:
        size: number of threads that work on a batch, including the caller's.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._others: list[Graph] = []
        self._threads: ThreadPoolExecutor | None = None

    def run(
        self, own: Graph, starts: Sequence[int], work: Callable[[Graph, int], None], make: Callable[[], Graph]
    ) -> None:
        """Calls `work(graph, start)` for each of `starts`, in several threads; no two threads share a graph.

        `starts` are the indices of the first rows of the parts of a batch. `own` is the caller's graph; `make` loads
        the model again and returns its batch graph. The pool does not store `make`: a reference cycle would hold the
        model's memory until Python's garbage collection.

        Raises:
            RuntimeError: the runtime failed; raised after all threads have finished.
        """
        if self._size == 1 or len(starts) == 1:
            for start in starts:
                work(own, start)
            return
        if self._threads is None:
            from concurrent.futures import ThreadPoolExecutor

            self._others = [make() for _ in range(self._size - 1)]
            self._threads = ThreadPoolExecutor(len(self._others))

        def share(number: int, graph: Graph) -> None:
            for start in starts[number :: self._size]:
                work(graph, start)

        given = [self._threads.submit(share, number, other) for number, other in enumerate(self._others, 1)]
        try:
            share(0, own)
        finally:
            for future in given:
                future.exception()  # waits: no thread may write into the caller's arrays after this returns
        for future in given:
            future.result()
