"""Training rows of a model with stages: embeds the raw inputs of deploy.yaml.

Each row keeps its raw input for the golden set. `knnkit.model.embedding` runs the stages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from device_agent.shared.embedding.decode import to_json
from device_agent.shared.protocol.model_info import Input, Stage, Window
from device_agent.shared.protocol.record import replace as replace_record
from device_agent.shared.queries import default_names
from knnkit.config.input_models import InputConfig
from knnkit.data.dataset import Dataset
from knnkit.model.embedding import embed, read_stages

#: Most rows of a golden set of raw inputs: a device runs every stage on each of them.
GOLDEN_ROWS = 200


@dataclass(frozen=True)
class Embedder:
    """The stages of a model: how they are joined, and the bytes of each under its name in a release."""

    input: Input
    files: Mapping[str, bytes]

    def apply(self, rows: Dataset) -> tuple[Dataset, Embedder]:
        """Returns the rows that the stages make of raw ones, and the embedder with what its files say of themselves.

        Raises:
            BuildError: a stage cannot be loaded, or a row does not fit it.
        """
        found = embed(self.input, self.files, rows.rows)
        made = replace(rows, rows=found.rows, feature_names=found.names, raw=rows)
        return made, replace(self, input=with_names(found.input, rows.feature_names))


def embedder_of(asked: InputConfig | None) -> Embedder | None:
    """Returns the embedder of `input` in deploy.yaml; None without one.

    Raises:
        BuildError: a file cannot be read.
    """
    if asked is None or not asked.stages:
        return None
    stages = tuple(Stage("", "", (), "", each.frames, each.hop, each.multiply, each.add) for each in asked.stages)
    return Embedder(*read_stages(Input(stages, asked.pool), [each.file for each in asked.stages]))


def with_names(input: Input, names: tuple[str, ...]) -> Input:
    """Returns the input with the number and names of its numbers; without names that are default names."""
    return replace_record(input, width=len(names), columns=() if names == default_names(len(names)) else names)


def input_of(window: Window | None, embedder: Embedder | None) -> Input | None:
    """Returns `input` of knn.json; None for a model of rows."""
    if window is None:
        return None if embedder is None else embedder.input
    return replace_record(Input() if embedder is None else embedder.input, window=window, columns=())


def raw_inputs(rows: Dataset) -> Iterator[NDArray[Any]]:
    """Yields the raw input of each row."""
    yield from () if rows.raw is None else rows.raw.rows


def input_lines(rows: Dataset) -> bytes:
    """Returns the raw inputs as JSON lines, as a device reads them."""
    return "".join(f"{to_json(values)}\n" for values in raw_inputs(rows)).encode()
