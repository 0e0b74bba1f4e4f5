"""Chooses which answered rows a board keeps.

The ring is a file of the newest kept rows, for people to label. A release states how many rows of each kind to keep
(`keep` in knn.json): rows answered "unknown", rows with an uncertain answer, and a random sample of all rows (algorithm
R, Vitter 1985). Chosen rows wait in memory; `store.ring_file` writes them every few seconds and at the end, so a kill
loses the last ones. Never changes or stops an answer: a board that cannot write its ring still answers.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.enrolment.enrolled import cells_id, fingerprint
from device_agent.shared.protocol.constants import UNKNOWN, UNKNOWN_LABEL
from device_agent.shared.protocol.model_info import Keep, KnnInfo
from device_agent.shared.raw_rows import cells_of
from device_agent.store import ring_file

if TYPE_CHECKING:
    from pathlib import Path

    from device_agent.inference.tflite_knn import Answers

#: Seconds between two writes while rows arrive.
SECONDS = 10.0
#: An accepted row is near the threshold of its class if its distance is at least this share of the threshold.
NEAR = 0.9
#: Rows that are looked at together.
_TOGETHER = 512

#: Class index, distance of the k-th neighbour, and the row.
_Picked = tuple[int, float, NDArray[Any]]


class Ring:
    """The rows that one process has chosen and not yet written to the ring, the board's file of kept rows.

    Raises:
        OSError: this user may not write that file.
    """

    def __init__(self, path: Path, info: KnnInfo, keep: Keep, digest: str) -> None:
        self._path, self._info, self._keep, self._digest = path, info, keep, digest
        self._columns = fingerprint(info)
        self._rng = np.random.default_rng()
        self._next = time.monotonic() + SECONDS
        self._begin()

    def _begin(self) -> None:
        self._generation, self._seen = ring_file.begin(self._path, self._keep)
        self._newest = {kind: deque[_Picked](maxlen=self._keep.sizes[kind]) for kind in ("unknown", "uncertain")}
        self._sample: dict[int, _Picked] = {}
        self._noted: list[tuple[NDArray[Any], Answers]] = []
        self._count = 0

    def use(self, info: KnnInfo) -> None:
        """Writes the waiting rows; labels of later answers are class indices of `info` (taught labels may be new)."""
        self.save()
        self._info = info

    def note(self, rows: NDArray[Any], answers: Answers) -> None:
        """Chooses rows to keep from (n, n_features) rows by their `answers`; writes the choice every few seconds."""
        self._noted.append((rows, answers))
        self._count += len(rows)
        if self._count >= _TOGETHER:
            self._choose()
        if time.monotonic() >= self._next:
            self.save()

    def _choose(self) -> None:
        """Chooses rows to keep from all that `note` got since the last call: many at once, because this is faster."""
        if not self._noted:
            return
        rows = np.concatenate([rows for rows, _ in self._noted])
        answers = type(self._noted[0][1])(*map(np.concatenate, zip(*(found for _, found in self._noted))))
        self._noted, self._count = [], 0
        unknown = answers.label == UNKNOWN
        uncertain = ~unknown & self._is_uncertain(answers) if self._keep.uncertain else np.zeros_like(unknown)
        for kind, places in (("unknown", unknown), ("uncertain", uncertain)):
            newest = self._newest[kind]
            newest.extend(self._pick(rows, answers, place) for place in np.flatnonzero(places)[-(newest.maxlen or 1) :])
        self._draw(rows, answers)

    def _is_uncertain(self, answers: Answers) -> NDArray[np.bool_]:
        """Returns (n,) bool: whether one neighbour with another label could change the answer, or the row is far away.

        Far away means that the k-th distance is at least `NEAR` times the threshold from which rows are rejected.
        """
        votes = answers.probabilities
        found = np.zeros(len(votes), bool)
        if votes.shape[1] > 1:
            two = np.partition(votes, -2, axis=1)[:, -2:]
            found |= two[:, 1] - two[:, 0] < 2.0 / self._info.k - _ROUNDING
        if self._info.reject is not None:
            limits = np.array([*self._info.reject.thresholds, np.inf])[answers.label]
            found |= answers.distances[:, -1] >= NEAR * limits
        return found

    def _draw(self, rows: NDArray[Any], answers: Answers) -> None:
        """Draws rows into the random sample; each row answered so far is equally likely to be in it (algorithm R)."""
        size = self._keep.random
        if not size:
            return
        order = np.arange(self._seen, self._seen + len(rows))
        seats = np.where(order < size, order, self._rng.integers(0, order + 1))
        self._seen += len(rows)
        for place in np.flatnonzero(seats < size).tolist():
            self._sample[int(seats[place])] = self._pick(rows, answers, place)

    def _pick(self, rows: NDArray[Any], answers: Answers, place: int) -> _Picked:
        return int(answers.label[place]), float(answers.distances[place, -1]), rows[place].copy()

    def save(self) -> None:
        """Writes the chosen rows to the file; drops them if somebody has erased the file since they were chosen."""
        self._next = time.monotonic() + SECONDS
        self._choose()
        entries = [self._entry(kind, each) for kind, newest in self._newest.items() for each in newest]
        entries += [self._entry("random", each) | {"seat": seat} for seat, each in self._sample.items()]
        if not entries:
            return
        with contextlib.suppress(OSError):
            if not ring_file.add(self._path, self._generation, self._keep, entries, self._seen):
                self._begin()
        for newest in self._newest.values():
            newest.clear()
        self._sample.clear()

    def _entry(self, kind: str, picked: _Picked) -> ring_file.Entry:
        code, distance, row = picked
        cells = cells_of(self._info, row)
        return {
            "id": cells_id(cells),
            "kind": kind,
            "time": int(time.time()),
            "answer": UNKNOWN_LABEL if code == UNKNOWN else self._info.classes[code],
            "distance": distance,
            "row": cells,
            "digest": self._digest,
            "columns": self._columns,
        }


#: Vote shares are rounded to float32.
_ROUNDING = 1e-5
