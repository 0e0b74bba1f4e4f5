"""scripts/bench growth: the time of one row against the number of training rows, from 1,000 to 1,000,000.

The rows lie in clusters. Every model is built with this clone's knnkit; searches and peers take turns, as in `speed`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import datasets, models, speed
from benchmarks.contenders import CONTENDERS
from benchmarks.peers import BUILD, processor_class
from benchmarks.report import milliseconds, table

FEATURES, CLUSTERS, BATCH = 16, 500, 64
COUNTS = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
#: Keys of the contenders; `groups` exists from 100,000 rows on.
KEYS = ("tflite", "litert", "numpy", "groups", "faiss", "auto.joblib")


def generate(size: datasets.Size) -> datasets.Table:
    """Returns rows about 500 centres, and as many queries as a batch has."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLUSTERS, size.rows + size.batch)
    rows = 5.0 * rng.normal(size=(CLUSTERS, size.features))[labels]
    rows = (rows + rng.normal(size=rows.shape)).astype(np.float32)
    return datasets.Table(rows[: size.rows], labels[: size.rows] % 10, rows[size.rows :])


def run(python: Path, effort: speed.Effort, counts: tuple[int, ...], say: speed.Say) -> dict[str, Any]:
    """Measures all sizes; returns milliseconds of one row by contender, and contenders that answer rows wrong."""
    sizes = [datasets.Size(f"{rows}x{FEATURES}-clusters", rows, FEATURES, BATCH, "clusters") for rows in counts]
    say("making data and models")
    folders = [datasets.store(size, BUILD / "data", generate) for size in sizes]
    models.ensure(folders)
    found: dict[str, Any] = {}
    for size, folder in zip(sizes, folders):
        say(size.name)
        speed.prepare(python, folder, say, KEYS)
        cells = speed.measure(python, size, folder, 1, effort, KEYS)
        median = cells.cells[0].median | {"a row of a batch: " + n: t / BATCH for n, t in cells.cells[1].median.items()}
        found[str(size.rows)] = {"ms": median, "wrong": {name: rows for name, rows in cells.wrong.items() if rows}}
    return found


def shown(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Returns the head and the lines of the table: milliseconds of one row."""
    names = [CONTENDERS[key].name for key in KEYS]
    lines = []
    for rows, each in results.items():
        lines.append([f"{int(rows):,}", *(milliseconds(each["ms"][n]) if n in each["ms"] else "-" for n in names)])
    return ["rows", *names], lines


def text(results: dict[str, Any]) -> str:
    """Returns the table as text."""
    return table(*shown(results))


def markdown(results: dict[str, Any]) -> str:
    """Returns the table for the page."""
    head, lines = shown(results)
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])


def plot(results: dict[str, Any], folder: Path) -> Path:
    """Draws the times against the rows, both on logarithmic axes; returns the file."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "knnkit"
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(7.5, 4.6), layout="constrained")
    for name in (CONTENDERS[key].name for key in KEYS):
        points = [(int(rows), each["ms"][name]) for rows, each in results.items() if name in each["ms"]]
        panel.plot(*zip(*points), marker="o", label=name) if points else None
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel(f"training rows, {FEATURES} features, in clusters")
    panel.set_ylabel("median ms of one row, one thread")
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
    path = folder / f"growth-{processor_class()}.svg"
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path
