"""The article's experiment, told twice: by TfKNN on the host and by TfliteKNN on a device, against a float64 search.

Asks a deployed device through its own command line and compares; builds, deploys and draws nothing.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent import contract
from knnkit.errors import DeviceFailed
from knnkit.fleet.facts import Facts
from knnkit.transport.base import Transport

_SECONDS = 300.0
_MAX_ANSWER = 64 * 1024 * 1024


@dataclass(frozen=True)
class Witness:
    """One implementation's answers to the test rows: (n, k) neighbours, (n,) labels."""

    name: str
    neighbours: NDArray[np.int32]
    labels: NDArray[Any]

    def agrees(self, neighbours: NDArray[np.int32]) -> int:
        """Returns on how many rows the neighbours are these, in this order."""
        return int((self.neighbours == neighbours).all(axis=1).sum())

    def accuracy(self, truth: NDArray[Any]) -> float:
        """Returns the share of right labels."""
        return float(np.mean(self.labels == truth))


class Device:
    """A device with a committed release, asked through its agent's command line.

    Args:
        transport: to the device.
        facts: say how its agent is called.
    """

    def __init__(self, transport: Transport, facts: Facts) -> None:
        self._transport, self._facts = transport, facts

    def witness(self, name: str, rows: NDArray[np.float32]) -> Witness:
        """Returns the device's answers to (n, n_features) rows.

        Raises:
            DeviceFailed: it cannot answer, or answers something else.
        """
        records = self._classify(rows, ["--neighbors"])
        neighbours = np.array([[near["index"] for near in record["neighbors"]] for record in records], np.int32)
        return Witness(name, neighbours, np.array([record["label"] for record in records]))

    def labels(self, rows: NDArray[np.float32], classes: Sequence[int | str]) -> NDArray[np.int32]:
        """Returns the (n,) class indices of rows; -1 is "unknown".

        Raises:
            DeviceFailed: as `witness`.
        """
        index = {label: number for number, label in enumerate(classes)} | {contract.UNKNOWN_LABEL: contract.UNKNOWN}
        return np.array([index[record["label"]] for record in self._classify(rows, [])], np.int32)

    def _classify(self, rows: NDArray[np.float32], options: list[str]) -> list[dict[str, Any]]:
        sent = io.BytesIO()
        np.save(sent, np.ascontiguousarray(rows, np.float32), allow_pickle=False)
        command = [*self._facts.agent_argv, "classify", "--format", "npy", "--output-format", "jsonl", *options]
        answer = self._transport.run(command, timeout=_SECONDS, input=sent.getvalue(), max_output=_MAX_ANSWER)
        if answer.exit_code != 0:
            raise DeviceFailed(f"{self._transport.name}: classify: {answer.complaint}", reason="classify-failed")
        records = [json.loads(line) for line in answer.stdout.splitlines()]
        if len(records) != len(rows):
            raise DeviceFailed(
                f"{self._transport.name}: {len(rows):,} rows went in, {len(records):,} answers came out",
                reason="rows-lost",
            )
        return records
