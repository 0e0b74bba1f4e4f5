"""One graph of a loaded model, with its input and outputs seen where the runtime keeps them.

A call through the runtime's own Python classes costs more than the graph of a small model: it looks names up, checks
shapes and copies each tensor twice. Here a call is one write, one invoke, and reads. Shapes are fixed and nothing is
allocated after the first use, so the views stay valid for the life of the interpreter. Checks no values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Signature:
    """A signature of an interpreter: write `rows`, call `run`, read `outputs`, which the next call overwrites.

    Making one allocates the memory of its graph.

    Args:
        interpreter: of either TFLite runtime, with `allocate_tensors()` called.
        name: of the signature.
        input: name of its one input.
        outputs: names of all its outputs, with their types.

    Attributes:
        rows: the input, (b, n_features) float32.
        shape: of `rows`.
        flat: the same numbers, (b * n_features,) float32.
        numbers: the same numbers, as Python's.
        memory: the same bytes.
        outputs: the outputs by name.

    Raises:
        ValueError: the model has no such signature, or it has other inputs and outputs.
    """

    def __init__(self, interpreter: Any, name: str, input: str, outputs: Mapping[str, type]) -> None:
        wrapper = interpreter._interpreter
        definition = wrapper.GetSignatureDefs().get(name)
        if definition is None:
            raise ValueError(f"it has no signature {name}")
        if set(definition["inputs"]) != {input} or set(definition["outputs"]) != set(outputs):
            raise ValueError(f"the inputs and outputs of {name} are not those of a knnkit model")
        self._subgraph = int(wrapper.GetSubgraphIndexFromSignature(name))
        wrapper.AllocateTensors(self._subgraph)
        #: Answers `rows`; raises RuntimeError where the runtime could not.
        self.run: Callable[[], None] = partial(wrapper.Invoke, self._subgraph)
        self.rows: NDArray[np.float32] = wrapper.tensor(wrapper, definition["inputs"][input], self._subgraph)
        self.rows[...] = 0.0
        self.shape = self.rows.shape
        self.flat = self.rows.reshape(-1)
        self.numbers = memoryview(self.flat)
        self.memory = self.numbers.cast("B")
        # A delegate may put its outputs elsewhere in the first run.
        self.run()
        self.outputs: dict[str, NDArray[Any]] = {
            name: wrapper.tensor(wrapper, index, self._subgraph) for name, index in definition["outputs"].items()
        }
        if {name: view.dtype.type for name, view in self.outputs.items()} != dict(outputs):
            raise ValueError(f"the outputs of {name} have other types than those of a knnkit model")
