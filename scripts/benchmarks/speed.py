"""scripts/bench speed: every cell of the table, its rounds interleaved so that the machine's noise hits all alike.

Each contender is a child process with its threads pinned; within a cell they take turns, slice by slice, and no two
of them ever run at once. Prints nothing; `benchmarks.report` shows what this returns.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import datasets
from benchmarks.contenders import CONTENDERS, Numpy, Tflite, artefact
from benchmarks.peers import environment

Say = Callable[[str], None]


@dataclass(frozen=True)
class Effort:
    """How long to measure: rounds of a cell, seconds of a contender's slice, starts of each contender."""

    rounds: int
    slice_seconds: float
    starts: int


#: Seconds for which thread pools may wait for more work after a call and keep a core busy: OpenBLAS's for 2^26 cycles.
_SPIN = 0.06
FULL = Effort(rounds=10, slice_seconds=0.12, starts=7)
#: The contenders of the table of speed.
KEYS = tuple(key for key in CONTENDERS if key != "groups")
QUICK = Effort(rounds=4, slice_seconds=0.05, starts=3)


class Child:
    """A contender's process, asked one order at a time."""

    def __init__(self, python: Path, key: str, data: Path, threads: int) -> None:
        self.key, self.kind = key, CONTENDERS[key]
        self.error: str | None = None
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.worker", key, str(data), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(threads, BENCH_K=str(datasets.K)),
        )

    def ask(self, order: str, **arguments: Any) -> dict[str, Any]:
        """Returns the answer to one order; a contender that has failed gets no further orders."""
        if self.error:
            return {}
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"order": order, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        found: dict[str, Any] = json.loads(line) if line else {"error": "the process ended"}
        self.error = found.get("error")
        return found

    def close(self) -> None:
        """Ends the process, also one that does not end by itself."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass
class Cell:
    """One line of the table: milliseconds of each contender."""

    size: str
    rows: int
    threads: int
    median: dict[str, float] = field(default_factory=dict)
    p99: dict[str, float] = field(default_factory=dict)
    least: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def best_peer(self) -> str:
        return min((name for name in self.median if is_peer(name)), key=self.median.__getitem__)

    def ratio(self, ours: str) -> float:
        """How many times as long the best peer takes as `ours`; above 1 that is the fastest."""
        return self.median[self.best_peer] / self.median[ours]

    def ratio_at_best(self, ours: str) -> float:
        """The same ratio between the fastest calls, which other work on the machine disturbed least."""
        return min(value for name, value in self.least.items() if is_peer(name)) / self.least[ours]


def is_peer(name: str) -> bool:
    return any(kind.name == name and kind.peer for kind in CONTENDERS.values())


def prepare(python: Path, data: Path, say: Say, keys: Sequence[str] = KEYS) -> dict[str, int]:
    """Writes every contender's model of one data set; returns bytes on disk by name."""
    sizes = {}
    for key, kind in ((key, CONTENDERS[key]) for key in keys):
        if key in ("graph", "gemm.npy"):
            continue
        child = Child(python, key, data, 2)
        done = child.ask("prepare")
        child.close()
        if "bytes" in done:
            sizes[kind.name] = int(done["bytes"])
        else:
            say(f"{data.name}: {kind.name} left out: {child.error}")
    gemm = artefact("gemm.npy", data)
    if not gemm.exists():
        CONTENDERS["gemm.npy"].prepare(data, gemm, datasets.K)
    return sizes


@dataclass
class Measured:
    """All cells of one data set, and whether the contenders agree on the neighbours.

    Attributes:
        cells: one for a row, one for a batch.
        wrong: contender -> rows that it answers wrong.
        delegates: TfliteKNN on each runtime that is there -> what runs its graphs; None: nothing but the runtime.
    """

    cells: list[Cell]
    wrong: dict[str, int]
    delegates: dict[str, str | None]


def measure(
    python: Path, size: datasets.Size, data: Path, threads: int, effort: Effort, keys: Sequence[str] = KEYS
) -> Measured:
    """Measures one data set with so many threads: one row, and a batch."""
    children = [Child(python, key, data, threads) for key in keys if artefact(key, data).exists()]
    try:
        for child in children:
            child.ask("load")
        present = [child for child in children if child.key != "groups" or child.error is None]  # few models have them
        wrong, delegates = check(present, datasets.load(data), np.load(data / "nearest.npy"))
        cells = [_cell(present, size, threads, rows, effort) for rows in ("one", "batch")]
    finally:
        for child in children:
            child.close()
    return Measured(cells, wrong, delegates)


def check(
    children: Sequence[Child], table: datasets.Table, nearest: NDArray[np.float64]
) -> tuple[dict[str, int], dict[str, str | None]]:
    """Returns the rows that each contender answers wrong, and what runs TfliteKNN's graphs on each runtime."""
    wrong: dict[str, int] = {}
    delegates: dict[str, str | None] = {}
    for child in children:
        answers = child.ask("answer")
        if answers.get("batch") is None:  # a limit, which finds nothing, or one that failed
            continue
        given = ((answers["batch"], nearest), (answers["one"], nearest[: datasets.ALONE]))
        wrong[child.kind.name] = sum(datasets.wrong_rows(table, np.array(found), best) for found, best in given)
        if issubclass(child.kind, Tflite) and child.kind is not Numpy:
            delegates[child.kind.name] = answers["delegate"]
    return wrong, delegates


def _cell(children: list[Child], size: datasets.Size, threads: int, rows: str, effort: Effort) -> Cell:
    cell = Cell(size.name, 1 if rows == "one" else size.batch, threads)
    taken: dict[str, list[int]] = {child.kind.name: [] for child in children}
    for number in range(effort.rounds):
        order = children[number % len(children) :] + children[: number % len(children)]
        for child in order:
            done = taken[child.kind.name]
            if done and done[-1] > 1e9 and len(done) >= 3:  # seconds a call: three are enough
                continue
            done += child.ask("time", rows=rows, seconds=effort.slice_seconds, least=1).get("ns", [])
            time.sleep(_SPIN)
    for child in children:
        name, times = child.kind.name, sorted(taken[child.kind.name])
        if child.error or not times:
            cell.failed[name] = child.error or "no call ended"
            continue
        cell.median[name] = statistics.median(times) / 1e6
        cell.p99[name] = times[min(len(times) - 1, int(len(times) * 0.99))] / 1e6
        cell.least[name] = times[0] / 1e6
    return cell


def starts(python: Path, data: Path, effort: Effort) -> dict[str, dict[str, Any]]:
    """Returns, by contender, the median seconds from process start to first answer, and memory in bytes."""
    found: dict[str, list[float]] = {}
    memory: dict[str, Any] = {}
    kinds = [(key, kind) for key, kind in CONTENDERS.items() if artefact(key, data).exists()]
    for _ in range(effort.starts):
        for key, kind in kinds:
            if kind.peer or key in ("tflite", "litert"):
                seconds, told = _start(python, key, data)
                if told:
                    found.setdefault(kind.name, []).append(seconds)
                    memory[kind.name] = told
    return {name: {"seconds": statistics.median(all_), "memory": memory[name]} for name, all_ in found.items()}


def _start(python: Path, key: str, data: Path) -> tuple[float, dict[str, Any] | None]:
    begun = time.perf_counter()
    process = subprocess.Popen(
        [python, "-m", "benchmarks.first", key, str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(1, BENCH_K=str(datasets.K)),
    )
    assert process.stdout
    first = process.stdout.readline()
    seconds = time.perf_counter() - begun
    rest = process.stdout.read()
    process.wait()
    return seconds, json.loads(rest) if first == "answered\n" and rest else None
