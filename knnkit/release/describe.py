"""What a model does to a row before it takes distances, in words, from the tables inside the file. Loads no TensorFlow.

knn.json knows one word for it, `scale`; a Pipeline of scikit-learn is more than that, and is folded into few maps.
Whatever names its parts had are lost there, so that what is told is what is computed.
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

#: Largest tables that are read, in bytes: as on a device.
_MAX_TABLES = 256 << 20
_NORMS = {1.0: "the sum of its amounts (l1)", 2.0: "its length (l2)", float("inf"): "its greatest amount (max)"}
_OWN_FACTORS = "each {} is scaled by a factor of its own"


def folded_in(model: Path, info: model_info.KnnInfo) -> tuple[str, ...]:
    """Returns what is done to a row, step by step, where `info.scale` does not tell it; nothing where it does.

    Raises:
        UsageError: the tables in the file are damaged.
        ModelUnusable: there are none.
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
