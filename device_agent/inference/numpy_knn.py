"""Search in NumPy, for boards without a TFLite wheel.

Such boards are 32-bit Debian Trixie, ARMv6, musl and RISC-V. One float32 matrix product finds the rows that may be
among the nearest, and float64 ranks them (`exact`), so the answers equal those of the graph. Reads the rows from the
mapped file: all of them, or the groups that may hold a neighbour. Used by `TfliteKNN` in place of `Graphs`.
"""

from __future__ import annotations

from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from device_agent.inference.graph_runner import OUTPUTS
from device_agent.inference.interpreter import Loader
from device_agent.shared.protocol import constants, model_info

if TYPE_CHECKING:
    from device_agent.inference.exact import ExactKnn


class NumpySearch:
    """The search of one model file in NumPy, with the attributes of `Graphs`, for which it stands.

    Attributes:
        one: empty outputs of one row, read only for shapes and types; its shape None keeps `TfliteKNN` from running it.
        batch_rows: number of rows that one matrix product answers.
    """

    search = alone = constants.FULL  # of the graphs that it stands for
    batch_rows = 256
    delegate = None
    waits = 0

    def __init__(self, loader: Loader, info: model_info.KnnInfo) -> None:
        self.loader, self._info = loader, info
        widths = {constants.OUTPUT_PROBABILITIES: len(info.classes)}
        widths |= dict.fromkeys((constants.OUTPUT_INDICES, constants.OUTPUT_DISTANCES), info.k)
        shapes = {name: (1, widths[name]) if name in widths else (1,) for name in OUTPUTS}
        outputs: dict[str, NDArray[Any]] = {name: np.empty(shape, OUTPUTS[name]) for name, shape in shapes.items()}
        self.one: Any = SimpleNamespace(shape=None, outputs=outputs)

    @cached_property
    def exact(self) -> ExactKnn:
        """The classifier in float64, loaded at the first use; ModelUnusable if the exact tables are damaged."""
        from device_agent.inference.exact import ExactKnn  # slow to import, and few rows need it

        return ExactKnn(self.loader.path, self._info, self.loader.threads)

    def note(self, rows: int) -> None:
        """Does nothing; `Graphs.note` counts rows, to know when to pack (copy) the weights of its graphs."""

    def run(self, queries: NDArray[np.float32], parts: dict[str, NDArray[Any]], way: str = constants.GROUPS) -> None:
        """Answers (n, n_features) finite float32 rows; writes the outputs into the (n, ...) arrays of `parts`, by name.

        `way` is `constants.NUMPY` (all rows) or `constants.GROUPS` (groups of rows, if the model has them).

        Raises:
            ModelUnusable: the exact tables contradict each other.
        """
        parts[constants.OUTPUT_CERTAIN][:] = True
        if len(queries):
            answers = self.exact.answers(queries, by_groups=way == constants.GROUPS)
            for name in parts.keys() & answers.keys():
                parts[name][:] = answers[name]
