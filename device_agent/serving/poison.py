"""Finds the row that kills the model.

Answers rows in a child process, first block by block and then one by one, and returns the row at which the child dies.
Used only after an earlier process died: it takes as long as the answers themselves. Never changes an answer.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.serving.load import Loaded, load_model
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.system import sandbox

_DEATHS = ("model-crashed", "model-hangs")


def find_poison(loaded: Loaded, rows: NDArray[Any]) -> tuple[int, str] | None:
    """Returns the index of the first of (n, n_features) rows that kills the model, and a message; None if none does.

    Raises:
        ModelUnusable: the model dies before its first row.
    """
    size = loaded.model.batch
    blocks = [rows[start : start + size] for start in range(0, len(rows), size)]
    found = _first_to_kill(loaded, blocks)
    if found is None:
        return None
    block, how = found
    alone = _first_to_kill(loaded, [row[None] for row in blocks[block]])
    return block * size + (alone[0] if alone else 0), alone[1] if alone else f"{how} (this row, or one soon after it)"


def _first_to_kill(loaded: Loaded, parts: Sequence[NDArray[Any]]) -> tuple[int, str] | None:
    with mmap.mmap(-1, 8) as begun:  # shared with the child

        def answer() -> None:
            model = load_model(loaded.opened, loaded.runtime)
            for number, rows in enumerate(parts, 1):
                begun[:] = number.to_bytes(8, "little")
                model.classify(np.ascontiguousarray(rows))

        try:
            sandbox.run(answer)
        except ModelUnusable as error:
            number = int.from_bytes(begun[:], "little")
            if number and error.reason in _DEATHS:
                return number - 1, f"this row kills the model: {error}"
            raise
    return None
