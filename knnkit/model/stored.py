"""Reads the float64 classifier back out of a model file.

Every model file holds its training rows and the exact tables of the map into model space, from which a device computes
doubtful answers in float64. This module makes the host's reference classifier from them. Loads no TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.release.model_file import read_info
from device_agent.shared.release.npz import arrays_inside
from device_agent.shared.release.row_origins import Origins, read
from knnkit.model.reference.classifier import Reference
from knnkit.model.reference.space import Space, Step


@dataclass(frozen=True)
class StoredModel:
    """Content of a model file: knn.json, classifier, and origins (row numbers, ids) of training and golden rows."""

    info: KnnInfo
    reference: Reference
    training: Origins
    golden: Origins

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels as text, by class index; then, as the last one (index -1), the label of rejected rows."""
        return (*map(str, self.info.classes), constants.UNKNOWN_LABEL)

    def training_row(self, index: int) -> tuple[float, ...]:
        """Returns the raw features of training row `index`; approximate if the map into model space has no inverse."""
        row = self.reference.space.leave(self.reference.enrolled[index : index + 1])[0]
        space = self.reference.space
        if not space.steps and self.info.origin is None:
            return tuple(_shortest(np.float32(value), centre) for value, centre in zip(row, space.centre))
        return tuple(float(str(value)) for value in row)  # 14.37, and not 14.369999885559082, of the float32 14.37


def _shortest(value: np.float32, centre: float) -> float:
    """Returns the shortest decimal (5.1) that becomes `value` again if float32 subtracts and adds `centre`."""
    error = abs(float(np.spacing(value))) / 2 + abs(float(np.spacing(np.float32(value - centre)))) / 2
    found = (float(f"{value:.{digits}g}") for digits in range(1, 10))
    return next((short for short in found if abs(short - float(value)) < error), float(value))


def read_model(path: Path) -> StoredModel:
    """Returns the classifier in a model file.

    Raises:
        ModelUnusable: the file is not a knnkit model, or is damaged.
    """
    info = read_info(path)
    with arrays_inside(path, constants.EXACT_FILE) as tables:
        space = _space(info, tables)
        enrolled, classes = _rows(path, tables), tables["classes"].astype(np.int32)
        targets = None if info.targets is None else tables["targets"]
        if not len(enrolled) == len(classes) == info.n_train or not 1 <= info.k <= info.n_train:
            said = f"it has {len(enrolled)} rows, and class numbers of {len(classes)}"
            raise ValueError(f"{said}; knn.json states {info.n_train} rows, k {info.k}")
        if classes.min(initial=0) < 0 or classes.max(initial=0) >= len(info.classes):
            raise ValueError("a training row has a class that knn.json does not name")
        if len(space.scale) != len(space.centre) or not (space.steps or len(space.centre) == info.n_features):
            said = f"it has {len(space.centre)} columns, {len(space.scale)} factors"
            raise ValueError(f"{said}; knn.json states {info.n_features} features")
        if info.origin is not None and len(info.origin) != info.n_features:
            raise ValueError(f"its origin has {len(info.origin)} numbers for {info.n_features} features")
    counts = () if info.targets is None else tuple(map(len, info.targets.classes))
    how: dict[str, Any] = {"reject": info.reject, "targets": targets, "counts": counts, "float64": info.float64}
    reference = Reference(space, enrolled, classes, len(info.classes), info.k, info.weights, **how)
    return StoredModel(info, reference, *read(path))


def _space(info: KnnInfo, tables: dict[str, NDArray[Any]]) -> Space:
    steps: list[Any] = [
        Step(str(kind), tables[f"step{number}_a"], tables[f"step{number}_b"])  # type: ignore[arg-type]
        for number, kind in enumerate(tables["steps"].tolist())
    ]
    origin = None if info.origin is None else np.array(info.origin)
    zero = float(tables["zero"])
    p = None if info.float64 is None else info.float64.p
    return Space(info.metric, tuple(steps), tables["centre"], tables["scale"], zero=zero, origin=origin, p=p)


def _rows(path: Path, tables: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Returns the (n_train, p) training rows of a model file; a memory map if it has them in one block."""
    width = len(tables["centre"])
    blocks = [
        np.memmap(path, np.float32, "r", int(offset), (int(count), width))
        for offset, count in zip(tables["block_offsets"], tables["block_rows"], strict=True)
    ]
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
