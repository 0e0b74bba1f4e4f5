"""Describes in words how a model transforms a row.

knn.json, the description inside the model file, only has `scale`. A Pipeline of scikit-learn can have more steps, which
knnkit combines into a few steps without names: only their numbers are stored, as exact tables inside the model file.
The text says what these numbers do. Loads no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol import constants, model_info
from device_agent.shared.release.npz import arrays_inside

_NORMS = {
    1.0: "the sum of its absolute values (l1)",
    2.0: "its length (l2)",
    float("inf"): "its largest absolute value (max)",
}
_OWN_FACTORS = "each {} is scaled by a different factor"


def folded_in(model: Path, info: model_info.KnnInfo) -> tuple[str, ...]:
    """Returns a text for each step that transforms a row; () if the model has a `scale`, which then is the only step.

    Raises:
        ModelUnusable: the file has no exact tables, or they are damaged.
    """
    if info.scale != "none":
        return ()
    with arrays_inside(model, constants.EXACT_FILE) as tables:
        return tuple(_steps(tables))


def _steps(tables: dict[str, NDArray[Any]]) -> Iterator[str]:
    what = "feature"
    for number, kind in enumerate(tables["steps"].tolist()):
        table = tables[f"step{number}_a"]
        if kind == "affine":
            yield "each feature is shifted, and " + _OWN_FACTORS.format("one")
        elif kind == "linear":
            given, left = table.shape
            yield f"a linear map (PCA or NCA, with any scaling before it) of {given:,} features to {left:,} coordinates"
            what = "coordinate"
        elif kind == "normalize":
            yield f"each row is divided by {_NORMS[float(table)]}"
    if not np.all(tables["scale"] == 1.0):
        yield _OWN_FACTORS.format(what)
