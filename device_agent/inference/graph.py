"""One graph of a model, with zero-copy input and outputs.

A call through the runtime's own Python classes takes longer than the graph of a small model: it looks up names, checks
shapes and copies each tensor twice. `Graph` needs one write, one invoke, and reads. Shapes are fixed and nothing is
allocated after the first run, so the views stay valid as long as the interpreter exists. Does not check values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.constants import BEYOND, CANDIDATES


class Graph:
    """The graph of one TFLite signature: write `rows`, call `run`, read `outputs`.

    The constructor allocates the graph's memory. The next `run` overwrites `outputs`.

    Args:
        interpreter: of either TFLite runtime, after `allocate_tensors()`.
        name: name of the signature.
        input: name of its one input.
        outputs: names of all its outputs, with their types.
        delegated: whether a delegate (XNNPACK) may run it. Then the constructor runs it once, on zeros.

    Attributes:
        rows: the input, (b, n_features) float32.
        shape: shape of `rows`.
        flat: the memory of `rows` as (b * n_features,) float32.
        numbers: the memory of `rows` as a memoryview of Python floats.
        memory: the memory of `rows` as bytes.
        outputs: the outputs by name.

    Raises:
        ValueError: the model has no such signature, or it has other inputs or outputs.
    """

    def __init__(
        self, interpreter: Any, name: str, input: str, outputs: Mapping[str, type], *, delegated: bool
    ) -> None:
        wrapper = interpreter._interpreter
        definition = wrapper.GetSignatureDefs().get(name)
        if definition is None:
            raise ValueError(f"the model has no graph {name}")
        if set(definition["inputs"]) != {input} or set(definition["outputs"]) != set(outputs):
            raise ValueError(f"the inputs and outputs of {name} are not those of a knnkit model")
        self._subgraph = int(wrapper.GetSubgraphIndexFromSignature(name))
        wrapper.AllocateTensors(self._subgraph)
        self._wrapper = wrapper
        #: Computes `outputs` from `rows`; raises RuntimeError if the runtime fails.
        self.run: Callable[[], None] = partial(wrapper.Invoke, self._subgraph)
        self.rows: NDArray[np.float32] = wrapper.tensor(wrapper, definition["inputs"][input], self._subgraph)
        self.rows[...] = 0.0
        self.shape = self.rows.shape
        self.flat = self.rows.reshape(-1)
        self.numbers = memoryview(self.flat)
        self.memory = self.numbers.cast("B")
        # A delegate may move its outputs in the first run, so the views are taken after it. Without one, the outputs
        # have fixed places from the start; a run would read all rows of a large model before its first answer.
        if delegated:
            self.run()
        self.outputs: dict[str, NDArray[Any]] = {
            name: wrapper.tensor(wrapper, index, self._subgraph) for name, index in definition["outputs"].items()
        }
        if {name: view.dtype.type for name, view in self.outputs.items()} != dict(outputs):
            raise ValueError(f"the outputs of {name} have other types than those of a knnkit model")

    @cached_property
    def candidates(self) -> tuple[NDArray[np.int32], memoryview] | None:
        """(c,) indices of the rows that the last `run` ranked; and a memoryview of one number, a bound for the others.

        No other training row has a lower squared distance (manhattan: distance) in model space than this bound. None
        for an older model, whose graph does not output these.
        """
        wrapper, subgraph = self._wrapper, self._subgraph
        numbers = {wrapper.TensorName(each, subgraph): each for each in range(wrapper.NumTensors(subgraph))}
        try:
            rows, beyond = (wrapper.tensor(wrapper, numbers[name], subgraph) for name in (CANDIDATES, BEYOND))
        except (KeyError, ValueError):
            return None
        fits = rows.dtype == np.int32 and beyond.dtype == np.float32 and beyond.shape == (1,)
        return (rows.reshape(-1), beyond.data) if fits else None
