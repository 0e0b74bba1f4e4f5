"""Classifies rows on a device through its agent's command line.

The device's committed release answers. Compares nothing.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol import constants
from knnkit.errors import DeviceFailed
from knnkit.fleet.device.probe import Facts
from knnkit.transport.base import Transport

_SECONDS = 300.0
_MAX_ANSWER = 64 * 1024 * 1024


class Answerer:
    """Classifies rows with a device's committed release; raises DeviceFailed for a missing or malformed answer."""

    def __init__(self, transport: Transport, facts: Facts) -> None:
        self._transport, self._facts = transport, facts

    def neighbours(self, rows: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """Returns the answers to (n, n_features) raw rows: (n, k) indices of the nearest training rows, (n,) labels."""
        records = self._classify(rows, ["--neighbors"])
        with self._sensible():
            nearest = np.array([[near["index"] for near in record["neighbors"]] for record in records], np.int32)
            return nearest, np.array([record["label"] for record in records])

    def labels(self, rows: NDArray[Any], classes: Sequence[int | str]) -> NDArray[np.int32]:
        """Returns a device's answers to (n, n_features) raw rows as (n,) indices into `classes`; -1 is "unknown"."""
        index = {label: number for number, label in enumerate(classes)} | {constants.UNKNOWN_LABEL: constants.UNKNOWN}
        records = self._classify(rows, [])
        with self._sensible():
            return np.array([index[record["label"]] for record in records], np.int32)

    def labels_of_lines(self, lines: Sequence[bytes]) -> list[str]:
        """Returns the device's label, as text, for each of `lines`: one raw row as JSON, with its newline."""
        records = self._ask(b"".join(lines), "jsonl", len(lines), [])
        with self._sensible():
            return [str(record["label"]) for record in records]

    @contextmanager
    def _sensible(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
            raise DeviceFailed(
                f"{self._transport.name}: the answers of `classify` are malformed", reason="bad-answer"
            ) from None

    def _classify(self, rows: NDArray[Any], options: list[str]) -> list[dict[str, Any]]:
        sent = io.BytesIO()
        np.save(sent, np.ascontiguousarray(rows), allow_pickle=False)
        return self._ask(sent.getvalue(), "npy", len(rows), options)

    def _ask(self, data: bytes, format: str, count: int, options: list[str]) -> list[dict[str, Any]]:
        command = [*self._facts.agent_argv, "classify", "--format", format, "--output-format", "jsonl", *options]
        answer = self._transport.run(command, timeout=_SECONDS, input=data, max_output=_MAX_ANSWER)
        if answer.exit_code != 0:
            raise DeviceFailed(f"{self._transport.name}: classify: {answer.complaint}", reason="classify-failed")
        with self._sensible():
            records = [json.loads(line) for line in answer.stdout.splitlines()]
        if len(records) != count:
            raise DeviceFailed(
                f"{self._transport.name}: {count:,} rows were sent, but {len(records):,} answers came back",
                reason="rows-lost",
            )
        return records
