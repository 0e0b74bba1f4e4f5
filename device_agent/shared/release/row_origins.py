"""Origins of a model's rows: file, row number, id.

An origin identifies a row of the model in the user's file. rows.npz inside the model file has the origins of training
rows and of golden rows: the number of each row in its source (from 0, without the header), and its id if there is an id
column. The numbers are omitted if they equal the row numbers in the model. Ids are stored as UTF-8 with a newline after
each. Read only for answers that list neighbours. Reads no file but the model.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.constants import ROWS_FILE
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.protocol.record import record
from device_agent.shared.release.model_file import has_member
from device_agent.shared.release.npz import arrays_inside, require_form

_NEWLINE = 10
#: Beginning of the names of the arrays about golden rows.
_GOLDEN = "golden_"


@record
class Origins:
    """Origins of the training rows, or of the golden rows."""

    source: str = ""  # name of the file or data set
    places: NDArray[Any] | None = None  # (n,) row numbers in the source; None if they equal those in the model
    text: bytes | None = None  # the ids in UTF-8, each with a newline after it; None without an id column
    ends: NDArray[Any] | None = None  # (n,) positions of these newlines

    def row(self, index: int) -> int:
        """Returns the row number in the source for the row with this index in the model.

        Raises:
            ModelUnusable: the model has no such row.
        """
        if self.places is None:
            return index
        if not 0 <= index < len(self.places):
            raise ModelUnusable(f"{ROWS_FILE} inside the model is damaged: row {index} is missing")
        return int(self.places[index])

    def id(self, index: int) -> str | None:
        """Returns the id of the row with this index in the model; None if it has no id.

        Raises:
            ModelUnusable: the model has no such row.
        """
        if self.text is None or self.ends is None:
            return None
        if not 0 <= index < len(self.ends):
            raise ModelUnusable(f"{ROWS_FILE} inside the model is damaged: row {index} is missing")
        start = int(self.ends[index - 1]) + 1 if index else 0
        return self.text[start : int(self.ends[index])].decode("utf-8", "replace") or None

    def index(self, row: int) -> int | None:
        """Returns the index in the model of row number `row` of the source; None if `places` lacks it."""
        if self.places is None:
            return row
        found = np.flatnonzero(self.places == row)
        return int(found[0]) if len(found) else None

    def name(self, index: int) -> str:
        """Returns as text the row number in the source, with the id if there is one: `12` or `12 (fall-3)`."""
        found = self.id(index)
        return f"{self.row(index)} ({found})" if found else str(self.row(index))


def pack(training: Origins, golden: Origins) -> bytes:
    """Returns the content of the model's rows.npz for these origins of rows; equal origins give equal bytes."""
    arrays: dict[str, Any] = {}
    for prefix, rows in (("", training), (_GOLDEN, golden)):
        arrays[f"{prefix}source"] = np.frombuffer(rows.source.encode(), np.uint8)
        if rows.places is not None:
            smallest = np.min_scalar_type(int(rows.places.max(initial=0)))
            arrays[f"{prefix}places"] = rows.places.astype(smallest)
        if rows.text is not None:
            arrays[f"{prefix}ids"] = np.frombuffer(rows.text, np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def read(model: str | Path) -> tuple[Origins, Origins]:
    """Returns the origins of the training rows and of the golden rows; empty ones if the model contains none.

    Raises:
        ModelUnusable: the file is not a model, or its origins are damaged.
    """
    if not has_member(model, ROWS_FILE):
        return Origins(), Origins()
    with arrays_inside(model, ROWS_FILE) as arrays:
        return _origins(arrays, ""), _origins(arrays, _GOLDEN)


def _origins(arrays: dict[str, NDArray[Any]], prefix: str) -> Origins:
    places, ids = arrays.get(f"{prefix}places"), arrays.get(f"{prefix}ids")
    if places is not None:
        require_form(f"{prefix}places", places, 1, np.unsignedinteger)
    if ids is not None:
        require_form(f"{prefix}ids", ids, 1, np.uint8)
    source = arrays[f"{prefix}source"].tobytes().decode("utf-8", "replace")
    if ids is None:
        return Origins(source, places)
    return Origins(source, places, ids.tobytes(), np.flatnonzero(ids == _NEWLINE))
