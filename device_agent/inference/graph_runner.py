"""The two graphs of a model that answer, for one row and for a batch: rows in, outputs back.

Which way is used, and whether XNNPACK packs it, is said elsewhere. Checks no rows, and settles nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.inference.graph import Signature
from device_agent.inference.interpreter import Loader
from device_agent.inference.interpreter_pool import Team
from device_agent.shared.protocol import constants, model_info
from device_agent.shared.protocol.errors import ModelUnusable

OUTPUTS = {
    constants.OUTPUT_LABEL: np.int32,
    constants.OUTPUT_PROBABILITIES: np.float32,
    constants.OUTPUT_INDICES: np.int32,
    constants.OUTPUT_DISTANCES: np.float32,
    constants.OUTPUT_CERTAIN: np.bool_,
}

_OTHER_SHAPES = "its graph has other shapes than knn.json says"


class Pair:
    """The graph for one row at once, that for a batch when the first batch comes.

    Args:
        interpreter: of the model, loaded by `loader`.
        loader: that loads it again, for other threads.
        info: its knn.json.
        packed: whether XNNPACK may take what is loaded again.
        search: one of `contract.SEARCHES` that the model has, for a batch.
        alone: the same for one row.
        threads: among how many a batch is divided.

    Attributes:
        one: the graph for one row.
        batch_rows: how many rows the other takes.
        search: which a batch goes by.
        alone: which one row goes by.

    Raises:
        ModelUnusable: the model has no such graphs.
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
        self._batch: Signature | None = None
        self._team = Team(threads)

    def run(self, queries: NDArray[np.float32], parts: dict[str, NDArray[Any]]) -> None:
        """Writes the graphs' outputs for (n, n_features) finite rows into `parts`, (n, ...) each, by their names.

        Raises:
            ModelUnusable: a table of the model leads nowhere for one of these rows.
        """
        try:
            self._run(queries, parts)
        except RuntimeError as error:
            raise unusable(self._loader, error, "run") from None

    def _run(self, queries: NDArray[np.float32], parts: dict[str, NDArray[Any]]) -> None:
        count, batch = len(queries), self.batch_rows
        # A batch that is not even a third full costs more than its rows one by one.
        alone = count % batch if (count % batch) * 3 <= batch else 0
        chunks = range(0, count - alone, batch)
        if chunks:
            if self._batch is None:  # a stream of single rows does without its memory
                self._batch = self._take_batch(self._interpreter)

            def work(signature: Signature, start: int) -> None:
                _fill(signature, queries[start : start + batch], parts, start)

            self._team.run(self._batch, chunks, work, self._make_batch)
        for start in range(count - alone, count):
            _fill(self.one, queries[start : start + 1], parts, start)

    def _make_batch(self) -> Signature:
        return self._take_batch(self._loader.load(self._packed))

    def _take_batch(self, interpreter: Any) -> Signature:
        return self._take(interpreter, constants.signature(constants.SIGNATURE_BATCH, self.search), self.batch_rows)

    def _take(self, interpreter: Any, name: str, rows: int) -> Signature:
        batches = [self._info.batch_rows(search) for search in constants.SEARCHES]
        try:
            if any(batch is not None and batch < 1 for batch in batches):
                raise ValueError(_OTHER_SHAPES)
            made = Signature(interpreter, name, constants.INPUT_ROWS, OUTPUTS)
            _require_shapes(made, rows, self._info)
        except (ValueError, RuntimeError, KeyError, OSError) as error:
            raise unusable(self._loader, error) from None
        return made


def require_steps(interpreter: Any) -> None:
    """Refuses tables in eight bits whose steps are no size: kernels multiply by it, and not every one looks.

    Raises:
        ValueError: a step is not a finite number over 0.
    """
    wrapper = interpreter._interpreter
    for name in wrapper.GetSignatureDefs():
        if name.endswith(constants.QUANTIZED):
            graph = wrapper.GetSubgraphIndexFromSignature(name)
            for tensor in range(wrapper.NumTensors(graph)):
                steps = wrapper.TensorQuantizationParameters(tensor, graph)[0]
                if not all(0.0 < step < np.inf for step in steps.tolist()):
                    raise ValueError(f"a table in eight bits of {name} has steps of {steps.tolist()[:4]}")


def unusable(loader: Loader, error: Exception, what: str = "load") -> ModelUnusable:
    """Returns what to raise where the runtime could not load a model or a graph of it, or run it."""
    return ModelUnusable(
        f"{loader.name} {loader.version} cannot {what} {loader.path}: {str(error).strip()}",
        hint="build the release again with this knnkit, or provision the board's runtime again",
    )


def _fill(signature: Signature, chunk: NDArray[np.float32], parts: dict[str, NDArray[Any]], start: int) -> None:
    """Writes the answers to `chunk` into `parts` from row `start` on."""
    used = len(chunk)
    signature.rows[:used] = chunk  # what the batch before left in the other rows is finite, and not read
    signature.run()
    for name, part in parts.items():
        part[start : start + used] = signature.outputs[name][:used]


def _require_shapes(signature: Signature, rows: int, info: model_info.KnnInfo) -> None:
    expected = {
        constants.OUTPUT_LABEL: (rows,),
        constants.OUTPUT_PROBABILITIES: (rows, len(info.classes)),
        constants.OUTPUT_INDICES: (rows, info.k),
        constants.OUTPUT_DISTANCES: (rows, info.k),
        constants.OUTPUT_CERTAIN: (rows,),
    }
    found = {name: view.shape for name, view in signature.outputs.items()}
    if signature.rows.shape != (rows, info.n_features) or found != expected:
        raise ValueError(_OTHER_SHAPES)
