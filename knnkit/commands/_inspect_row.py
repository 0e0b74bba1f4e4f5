"""`knnkit inspect --row N`: shows one training row.

N is the number of the row in the user's file, from 0; `classify --neighbors` prints it as `row`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from device_agent.shared.label_columns import labels_of
from device_agent.shared.protocol import constants, json_codec
from knnkit.errors import UsageError, raised_as
from knnkit.model.stored import StoredModel, read_model
from knnkit.release.evaluation_rows import read_evaluation_rows
from knnkit.render.sanitize import clean

_HINT = "--row takes a number that `knnkit classify --neighbors` prints as `row`"


def show(model: Path, row: int, *, json: bool) -> int:
    """Prints a training row: its file, number, id, label and features (`json`: as JSON); returns 0.

    Raises:
        UsageError: the model has no such training row.
    """
    with raised_as(UsageError):
        found = _training_row(model, row)
    if json:
        print(json_codec.dumps(found))
        return 0
    for name, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {str(part).removesuffix('.0')}" for key, part in value.items())
        if value is not None:
            print(f"{name:<8}  {clean(value)}")
    return 0


def _training_row(path: Path, row: int) -> dict[str, Any]:
    stored = read_model(path)
    origins, count = stored.training, stored.info.n_train
    index = origins.index(row)
    if index is None or index >= count:
        raise _not_there(path, stored, row)
    return {
        "source": origins.source,
        "row": row,
        "id": origins.id(index),
        "index": index,
        **_answer(stored, index),
        "features": dict(zip(stored.info.feature_names, stored.training_row(index))),
    }


def _answer(stored: StoredModel, index: int) -> dict[str, Any]:
    """Returns what to print as the answer of training row `index`: {"label": its label}.

    With several label columns, `label` is a dict, column -> label. A regression gives {"label": None, "value": {target:
    number}}; outlier detection gives {"label": None, "value": None}.
    """
    targets, info = stored.reference.targets, stored.info
    if info.targets is None or targets is None:
        return {"label": info.classes[stored.reference.classes[index]]}
    values = targets[index : index + 1]
    if info.targets.classes:
        return {"label": dict(zip(info.targets.names, labels_of(info.targets.classes, values)[0]))}
    measured = info.float64 is not None and info.float64.offset is not None  # its targets are densities
    return {"label": None, "value": None if measured else dict(zip(info.targets.names, values[0].tolist()))}


def _not_there(path: Path, stored: StoredModel, row: int) -> UsageError:
    """Returns the error for a row that is not a training row: it was held out, or is not in the data."""
    golden, source = stored.golden, stored.training.source
    place = golden.index(row) if golden.source == source and golden.places is not None else None
    if place is not None and (path.parent / constants.GOLDEN_FILE).is_file():
        rows = read_evaluation_rows(path.parent)
        said = f": its label is {rows.truth[place]!r}, the model answers {rows.answers[place]!r}"
        said = said if stored.info.targets is None else ""  # the one class of such a model says nothing
        return UsageError(f"row {row} of {source} was held out{said}", hint=_HINT)
    count = stored.info.n_train
    said = f"row {row} is not among the {count:,} training rows: it was held out, or {source or 'the data'} is shorter"
    return UsageError(said, hint=_HINT)
