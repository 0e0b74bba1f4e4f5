"""Recordings of an accelerometer for tests, and the windows of them cut one sample at a time.

`windows` shares no code with `device_agent.shared.windows`: it is what both sides are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Label -> Hz of its movement.
ACTIVITIES = {"stand": 0.0, "walk": 1.9, "run": 2.8}
RATE = 50.0
HEADER = "t,ax,ay,az"


@dataclass(frozen=True)
class Line:
    """One line of a recording: its number in the file, its time and sample, or None where it is bad."""

    number: int
    time: float
    sample: tuple[float, ...] | None

    @property
    def text(self) -> str:
        return "broken line" if self.sample is None else ",".join([f"{self.time:.2f}", *map(repr, self.sample)])


def samples(activity: str, count: int, seed: int) -> NDArray[np.float64]:
    """Returns (count, 3) accelerations in m/s^2, as a file of 4 decimals has them."""
    rng = np.random.default_rng(seed)
    phase = np.arange(count) / RATE * 2.0 * np.pi * ACTIVITIES[activity] + rng.uniform(0.0, 6.0)
    moved = np.stack([np.sin(phase), np.cos(phase), np.sin(2.0 * phase)], axis=1) * (ACTIVITIES[activity] > 0.0)
    return np.round(moved + np.array([0.1, 0.2, 9.8]) + rng.normal(0.0, 0.2, (count, 3)), 4)


def stream(seed: int, parts: int, length: int, faults: float = 0.003) -> list[Line]:
    """Returns the lines of a sensor that changes its movement, loses samples, jumps in time and writes rubbish."""
    rng = np.random.default_rng(seed)
    lines: list[Line] = []
    time = 0.0
    for part in range(parts):
        for sample in samples([*ACTIVITIES][part % 3], length, seed + part).tolist():
            time += 1.0 / RATE
            fault = rng.uniform() / faults
            if fault < 0.4:
                time += 3.0
            elif fault < 0.6:
                time = 0.0
            lines.append(Line(len(lines) + 2, round(time, 2), None if 0.6 <= fault < 1.0 else tuple(sample)))
    return lines


def write(folder: Path, each: int = 3, length: int = 240) -> None:
    """Writes recordings to folder/ACTIVITY/N.csv, each with a column `activity`, and all labels to labels.csv."""
    listed = ["file,label"]
    for place, activity in enumerate(ACTIVITIES):
        (folder / activity).mkdir(parents=True)
        for number in range(each):
            found = samples(activity, length, 100 * place + number).tolist()
            lines = [f"{row / RATE:.2f},{','.join(map(repr, sample))},{activity}" for row, sample in enumerate(found)]
            (folder / activity / f"{number}.csv").write_text("\n".join([f"{HEADER},activity", *lines]) + "\n")
            listed.append(f"{activity}/{number}.csv,{activity.upper()}")
    (folder / "labels.csv").write_text("\n".join(listed) + "\n")


def windows(
    lines: Sequence[Line], rows: int, hop: int, gap: float | None = None
) -> tuple[NDArray[np.float64], list[tuple[int, int, float, float]]]:
    """Returns (m, rows * 3) windows, and first and last line and time of each."""
    found, marks = [], []
    run: list[Line] = []
    for line in lines:
        if line.sample is None:
            run = []
            continue
        if run and gap is not None and not 0.0 <= line.time - run[-1].time <= gap:
            run = []
        run.append(line)
        if len(run) >= rows and (len(run) - rows) % hop == 0:
            window = run[-rows:]
            found.append([value for each in window for value in each.sample or ()])
            marks.append((window[0].number, window[-1].number, window[0].time, window[-1].time))
    return np.array(found).reshape(-1, rows * 3), marks


def pieces(text: bytes, seed: int) -> list[bytes]:
    """Cuts a text anywhere, as a serial port does."""
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.integers(0, len(text) + 1, 1 + len(text) // 900)).tolist()
    return [text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)])]


def answers(marks: Sequence[tuple[Any, ...]], labels: Sequence[str]) -> list[str]:
    """Returns the CSV lines that a device answers for windows."""
    return [f"{','.join(map(str, mark))},{label}" for mark, label in zip(marks, labels)]
