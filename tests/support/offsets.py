"""Labelled rows far from 0, which float32 cannot tell apart, and queries between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

#: Training rows, labels and 450 queries, none of which is equally far from two training rows.
Table = tuple[np.ndarray, np.ndarray, np.ndarray]


def _lattice(first: list[float], apart: list[float]) -> Table:
    rng = np.random.default_rng(7)
    axes = [start + np.arange(484 if len(first) == 1 else 22) * step for start, step in zip(first, apart)]
    rows = np.stack(np.meshgrid(*axes), -1).reshape(-1, len(first))
    rows += rng.uniform(-0.2, 0.2, rows.shape) * apart  # without ties
    places = rng.integers(0, len(rows), 450)
    queries = rows[places] + rng.uniform(-0.4, 0.4, (450, len(first))) * apart
    return rows, rng.integers(0, 4, len(rows)), queries


def utm() -> Table:
    """Plants 5 cm apart, in metres of UTM: northings step by 0.5 m in float32."""
    return _lattice([343_000.1, 5_600_000.1], [0.05, 0.05])


def gps() -> Table:
    """Parking bays 2.5 m apart, in degrees."""
    return _lattice([48.13711, 11.5754], [2.25e-5, 3.37e-5])


def milliseconds() -> Table:
    """Events 40 s apart, in milliseconds since 1970, which step by 131,072 in float32; and a feature near 0."""
    rows, labels, queries = _lattice([1_767_225_600_000.0], [40_000.0])
    rng = np.random.default_rng(8)
    level = rng.normal(0.0, 3000.0, (len(rows), 1))
    return np.hstack([np.round(rows), level]), labels, np.hstack([np.round(queries), rng.choice(level, 450) + 1.0])


def seconds() -> Table:
    """Events 10 s apart, in seconds since 1970, with an outlier: a clock that was never set."""
    rows, labels, queries = _lattice([1_767_225_600.0], [10.0])
    rows[5] = 0.0
    return rows, labels, queries


#: Every kind of such rows, by name.
KINDS: dict[str, Callable[[], Table]] = {"utm": utm, "gps": gps, "milliseconds": milliseconds, "seconds": seconds}


def write_csv(path: Path, rows: np.ndarray, labels: np.ndarray) -> Path:
    """Writes rows f0, f1, ... with the label y."""
    header = ",".join([*(f"f{column}" for column in range(rows.shape[1])), "y"])
    lines = [",".join([*map(repr, row), f"c{label}"]) for row, label in zip(rows.tolist(), labels.tolist())]
    path.write_text("\n".join([header, *lines, ""]))
    return path
