"""Several interpreters of one small model, among which a batch is divided, each with a thread of its own.

The runtime's own threads share the matrix product and nothing else: TOPK_V2, which small models wait for, runs on one.
The runtime lets go of Python's lock while it computes. Knows nothing of what is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from device_agent.inference.graph import Signature

#: The largest model file, in bytes, that is loaded several times: each costs its memory again.
MAX_SHARED = 8 << 20


class Team:
    """Members are made when the first batch comes that is long enough for them.

    Args:
        size: how many work on a batch, the one who calls among them.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._others: list[Signature] = []
        self._threads: ThreadPoolExecutor | None = None

    def run(
        self,
        own: Signature,
        starts: Sequence[int],
        work: Callable[[Signature, int], None],
        make: Callable[[], Signature],
    ) -> None:
        """Calls `work(signature, start)` for each of `starts`; no signature is in two threads at once.

        `make` loads the model once more, and returns its batch signature. It is not kept: a model that held itself
        would keep its memory until Python looks for garbage.

        Raises:
            RuntimeError: of the runtime, once all have ended.
        """
        if self._size == 1 or len(starts) == 1:
            for start in starts:
                work(own, start)
            return
        if self._threads is None:
            from concurrent.futures import ThreadPoolExecutor

            self._others = [make() for _ in range(self._size - 1)]
            self._threads = ThreadPoolExecutor(len(self._others))

        def share(number: int, signature: Signature) -> None:
            for start in starts[number :: self._size]:
                work(signature, start)

        given = [self._threads.submit(share, number, other) for number, other in enumerate(self._others, 1)]
        try:
            share(0, own)
        finally:
            for future in given:
                future.exception()  # waits: nobody may write into the caller's arrays once it has gone on
        for future in given:
            future.result()
