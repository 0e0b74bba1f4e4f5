"""Runs the graphs for one row and for a batch.

`graph_selection` chooses the search, and whether XNNPACK packs the weights. Does not check rows, and does not recompute
uncertain rows in float64.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.inference.graph import Graph
from device_agent.inference.interpreter import Loader
from device_agent.inference.interpreter_pool import InterpreterPool
from device_agent.shared.protocol import constants, model_info
from device_agent.shared.protocol.errors import ModelUnusable

OUTPUTS = {
    constants.OUTPUT_LABEL: np.int32,
    constants.OUTPUT_PROBABILITIES: np.float32,
    constants.OUTPUT_INDICES: np.int32,
    constants.OUTPUT_DISTANCES: np.float32,
    constants.OUTPUT_CERTAIN: np.bool_,
}

_OTHER_SHAPES = "the shapes of the graph differ from those in knn.json"


class GraphRunner:
    """The graph for one row, and the graph for a batch, which is allocated at the first batch.

    Args:
        interpreter: of the model, loaded by `loader`.
        loader: loads the model again for other threads.
        packed: whether XNNPACK may pack (copy) the weights of the graphs that `loader` loads.
        search: the search for batches, one of `constants.SEARCHES` that the model has.
        alone: the search for single rows, also one of `constants.SEARCHES`.
        threads: number of threads that share a batch.

    Attributes:
        one: the graph for one row.
        batch_rows: number of rows of the batch graph.

    Raises:
        ModelUnusable: the model does not have these graphs.
    """

    def __init__(
        self,
        interpreter: Any,
        loader: Loader,
        info: model_info.KnnInfo,
        *,
        packed: bool,
        search: str,
        alone: str,
        threads: int,
    ) -> None:
        self._interpreter, self._loader, self._info, self._packed = interpreter, loader, info, packed
        self.search, self.alone, self.batch_rows = search, alone, info.batch_rows(search) or 1
        self.one = self._take(interpreter, constants.signature(constants.SIGNATURE_ONE, alone), 1)
        self._batch: Graph | None = None
        self._pool = InterpreterPool(threads)

    def run(self, queries: NDArray[np.float32], parts: dict[str, NDArray[Any]]) -> None:
        """Answers (n, n_features) finite float32 rows; writes the outputs into the (n, ...) arrays of `parts`, by name.

        Raises:
            ModelUnusable: the runtime fails for one of these rows (an index in the model is out of range).
        """
        try:
            self._run(queries, parts)
        except RuntimeError as error:
            raise unusable(self._loader, error, "run") from None

    def _run(self, queries: NDArray[np.float32], parts: dict[str, NDArray[Any]]) -> None:
        count, batch = len(queries), self.batch_rows
        # A batch that is less than a third full takes longer than its rows one by one.
        alone = count % batch if (count % batch) * 3 <= batch else 0
        chunks = range(0, count - alone, batch)
        if chunks:
            if self._batch is None:  # a stream of single rows never allocates it
                self._batch = self._take_batch(self._interpreter)

            def work(graph: Graph, start: int) -> None:
                _fill(graph, queries[start : start + batch], parts, start)

            self._pool.run(self._batch, chunks, work, lambda: self._take_batch(self._loader.load(self._packed)))
        for start in range(count - alone, count):
            _fill(self.one, queries[start : start + 1], parts, start)

    def _take_batch(self, interpreter: Any) -> Graph:
        return self._take(interpreter, constants.signature(constants.SIGNATURE_BATCH, self.search), self.batch_rows)

    def _take(self, interpreter: Any, name: str, rows: int) -> Graph:
        batches = [self._info.batch_rows(search) for search in constants.SEARCHES]
        try:
            if any(batch is not None and batch < 1 for batch in batches):
                raise ValueError(_OTHER_SHAPES)
            made = Graph(interpreter, name, constants.INPUT_ROWS, OUTPUTS, delegated=self._packed)
            _require_shapes(made, rows, self._info)
        except (ValueError, RuntimeError, KeyError, OSError) as error:
            raise unusable(self._loader, error) from None
        return made


def require_steps(interpreter: Any) -> None:
    """Checks the quantization steps of int8 tensors: the runtime may multiply by them without a check.

    Raises:
        ValueError: a step is not a finite number above 0.
    """
    wrapper = interpreter._interpreter
    for name in wrapper.GetSignatureDefs():
        if name.endswith(constants.QUANTIZED):
            subgraph = wrapper.GetSubgraphIndexFromSignature(name)
            for tensor in range(wrapper.NumTensors(subgraph)):
                steps = wrapper.TensorQuantizationParameters(tensor, subgraph)[0]
                if not ((steps > 0.0) & (steps < np.inf)).all():
                    raise ValueError(f"an int8 table of {name} has invalid quantization steps: {steps.tolist()[:4]}")


def unusable(loader: Loader, error: Exception, what: str = "load") -> ModelUnusable:
    """Returns the error for a model that the runtime of `loader` cannot load or run; `what` is the verb to print."""
    path = os.path.realpath(loader.path)  # it may be a descriptor's
    return ModelUnusable(
        f"{loader.name} {loader.version} cannot {what} {path}: {str(error).strip()}",
        hint="build the release again with this knnkit, or provision the board's runtime again",
    )


def _fill(graph: Graph, chunk: NDArray[np.float32], parts: dict[str, NDArray[Any]], start: int) -> None:
    used = len(chunk)
    graph.rows[:used] = chunk  # other rows keep finite values of the last batch; their outputs are not read
    graph.run()
    for name, part in parts.items():
        part[start : start + used] = graph.outputs[name][:used]


def _require_shapes(graph: Graph, rows: int, info: model_info.KnnInfo) -> None:
    expected = {
        constants.OUTPUT_LABEL: (rows,),
        constants.OUTPUT_PROBABILITIES: (rows, len(info.classes)),
        constants.OUTPUT_INDICES: (rows, info.k),
        constants.OUTPUT_DISTANCES: (rows, info.k),
        constants.OUTPUT_CERTAIN: (rows,),
    }
    found = {name: view.shape for name, view in graph.outputs.items()}
    if graph.rows.shape != (rows, info.n_features) or found != expected:
        raise ValueError(_OTHER_SHAPES)
