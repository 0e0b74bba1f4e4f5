"""Search in NumPy, for boards without a TFLite wheel.

Such boards are 32-bit Debian Trixie, ARMv6, musl and RISC-V. One float32 matrix product finds the
rows that may be among the nearest, and float64 ranks them (`exact`), so the answers are those of the graph. The rows
are read from the mapped file: all, or the groups that can hold a neighbour. Takes the place of `Graphs` in `TfliteKNN`.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.inference.exact import ExactKnn
from device_agent.inference.graph_runner import OUTPUTS
from device_agent.inference.interpreter import Loader
from device_agent.shared.protocol import constants, model_info


class NumpySearch:
    """The search of one model file in NumPy.

    Args:
        loader: of NumPy, with the path of the file.
        info: its knn.json.

    Attributes:
        one: has the shapes and types of the outputs; it answers nothing.
        batch_rows: rows that one product answers.
        exact: the model in float64, which answers.

    Raises:
        ModelUnusable: its exact tables are missing or damaged.
    """

    search = alone = constants.FULL  # of the graphs that it stands for
    batch_rows = 256
    delegate = None
    waits = 0

    def __init__(self, loader: Loader, info: model_info.KnnInfo) -> None:
        self.loader = loader
        self.exact = ExactKnn(loader.path, info)
        widths = {constants.OUTPUT_PROBABILITIES: len(info.classes)}
        widths |= dict.fromkeys((constants.OUTPUT_INDICES, constants.OUTPUT_DISTANCES), info.k)
        shapes = {name: (1, widths[name]) if name in widths else (1,) for name in OUTPUTS}
        outputs = {name: np.empty(shape, OUTPUTS[name]) for name, shape in shapes.items()}
        self.one: Any = SimpleNamespace(shape=None, outputs=outputs)

    def note(self, rows: int) -> None:
        """Does nothing: there is no graph to pack."""

    def run(self, queries: NDArray[np.float32], parts: dict[str, NDArray[Any]], way: str = constants.GROUPS) -> None:
        """Writes the outputs for (n, n_features) finite float32 rows into `parts`: name -> (n, ...) array.

        `way` is NUMPY, or GROUPS where the model has them.

        Raises:
            ModelUnusable: the exact tables do not fit each other.
        """
        parts[constants.OUTPUT_CERTAIN][:] = True
        if len(queries):
            answers = self.exact.answers(queries, by_groups=way == constants.GROUPS)
            for name in parts.keys() & answers.keys():
                parts[name][:] = answers[name]
