"""Fingerprints of 200 access points, and the positions where they were taken."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

POINTS = [f"WAP{number:03d}" for number in range(200)]
#: What stands for a signal that is not received, in dBm.
NOTHING = -105.0


def fingerprints(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (count, 200) signals in dBm, NaN where none is received, and (count, 2) positions in metres."""
    rng = np.random.default_rng(seed)
    access, places = np.random.default_rng(1).uniform(0, 100, (200, 2)), rng.uniform(0, 100, (count, 2))
    signal = -30 - 20 * np.log10(1 + np.linalg.norm(places[:, None] - access[None], axis=2))
    signal = np.round(signal + rng.normal(0, 2, signal.shape))
    return np.where(signal < -62, np.nan, signal), np.round(places + np.array([-7600, 4864800]), 3)


def write(path: Path, signal: np.ndarray, places: np.ndarray) -> None:
    """Writes a file with empty cells for missing signals."""
    with path.open("w", newline="") as file:
        lines = [["" if value != value else value for value in row] for row in signal.tolist()]
        csv.writer(file).writerows([[*POINTS, "east", "north"], *([*a, *b] for a, b in zip(lines, places.tolist()))])
