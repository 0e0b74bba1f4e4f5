"""The child process of one contender: answers orders on standard input, one JSON line each, until it closes.

`prepare` writes the contender's file, `load` loads it, `answer` finds the neighbours of every query, `time` measures a
slice of calls. Knows one contender and never another: their thread pools cannot disturb each other.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders import CONTENDERS, Contender, artefact
from benchmarks.datasets import ALONE

#: Calls of one slice that are kept at most.
MOST = 4000


class Worker:
    """One contender on one data set."""

    def __init__(self, key: str, data: Path, threads: int) -> None:
        self.kind, self.file, self.data, self.threads = CONTENDERS[key], artefact(key, data), data, threads
        self.queries = np.load(data / "queries.npy")
        self.model: Contender | None = None

    def prepare(self) -> dict[str, Any]:
        if not self.file.exists():
            part = self.file.with_name("part." + self.file.name)
            self.kind.prepare(
                self.data, part if self.file.suffix != ".tflite" else self.file, int(os.environ["BENCH_K"])
            )
            if self.file.suffix != ".tflite":
                part.rename(self.file)
        return {"bytes": self.file.stat().st_size}

    def load(self) -> dict[str, Any]:
        self.model = self.kind.tuned(self.file, self.threads, self.queries)
        gc.collect()
        gc.freeze()
        return {}

    def answer(self) -> dict[str, Any]:
        assert self.model is not None
        batch, _ = self.model.neighbors(self.queries)
        one = [self.model.neighbors(self.queries[row : row + 1])[0] for row in range(len(self.queries[:ALONE]))]
        if batch is None:
            return {"batch": None}
        delegate = getattr(self.model, "delegate", None)  # a large model is packed when it is asked for a batch
        return {"batch": np.asarray(batch).tolist(), "one": np.concatenate(one).tolist(), "delegate": delegate}

    def time(self, rows: str, seconds: float, least: int) -> dict[str, Any]:
        """Measures calls for `seconds`, at least `least` of them; the first, on cold caches, are not kept."""
        assert self.model is not None
        ask, clock, queries = self.model.neighbors, time.perf_counter_ns, self.queries
        chunks = [queries[row : row + 1] for row in range(len(queries))] if rows == "one" else [queries]
        taken: list[int] = []
        end = clock() + int(seconds * 1e9)
        number = 0
        while True:
            chunk = chunks[number % len(chunks)]
            start = clock()
            ask(chunk)
            stop = clock()
            number += 1
            # The others have had the caches since the last slice; a call that lasts far longer than they hold is kept.
            if number > 1 or stop - start > 1e8:
                taken.append(stop - start)
            if (stop > end and len(taken) >= least) or len(taken) >= MOST:
                return {"ns": taken}


def main() -> None:
    key, data, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    answers, sys.stdout = sys.stdout, sys.stderr
    worker = Worker(key, data, threads)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            found = getattr(worker, order.pop("order"))(**order)
        except Exception as error:  # a contender that cannot is a result, not a crash
            found = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
