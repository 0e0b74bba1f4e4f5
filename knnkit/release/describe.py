"""Describes in words how a model transforms a row.

knn.json, the description inside the model file, only has `scale`. A Pipeline of scikit-learn can have more steps,
which knnkit combines into a few steps without names. So the text is made from the numbers of these steps, which are
tables inside the model file. Loads no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol import constants, model_info
from device_agent.shared.release.model_file import read_member
from device_agent.shared.release.npz import read_arrays
from knnkit.errors import UsageError

#: Largest tables that are read, in bytes, the same as on a device.
_MAX_TABLES = 256 << 20
_NORMS = {
    1.0: "the sum of its absolute values (l1)",
    2.0: "its length (l2)",
    float("inf"): "its largest absolute value (max)",
}
_OWN_FACTORS = "each {} is scaled by a different factor"


def folded_in(model: Path, info: model_info.KnnInfo) -> tuple[str, ...]:
    """Returns a text for each step that transforms a row; () if `info.scale` already describes all steps.

    Raises:
        UsageError: the tables in the file are damaged.
        ModelUnusable: the file has no tables.
    """
    if info.scale != "none":
        return ()
    data = read_member(model, constants.EXACT_FILE, _MAX_TABLES)
    try:
        return tuple(_steps(read_arrays(data, most=_MAX_TABLES)))
    except (KeyError, ValueError, IndexError, TypeError) as error:
        said = f"{model}: {constants.EXACT_FILE} inside it is damaged: {error}"
        raise UsageError(said, hint="is it a model that `knnkit build` made?") from None


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
