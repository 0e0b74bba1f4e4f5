"""Which columns of a file are the label and the features. Reads no file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from knnkit.data.dataset import shortened
from knnkit.errors import DataError

_MAX_LISTED = 20
_MAX_NAMED = 12
#: A name that means itself in a list of YAML; of these, YAML takes some for something else.
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORDS = frozenset({"false", "n", "no", "null", "off", "on", "true", "y", "yes"})


def choose(header: list[str], label: str, features: Sequence[str] | None, file: Path) -> tuple[int, list[int]]:
    """Returns the place of the label and those of the features: all others, unless `features` names them.

    Raises:
        DataError: one of them is not there, or the label is a feature.
    """
    at = find(header, label, file, "label")
    if features is None:
        chosen = [column for column in range(len(header)) if column != at]
    else:
        chosen = [find(header, name, file, "features") for name in features]
    if at in chosen:
        raise DataError(f"{file}: {label!r} is the label; it cannot be a feature too", hint="leave it out of features:")
    if not chosen:
        raise DataError(f"{file}: {label!r} is the only column; there is no feature", hint="add columns of numbers")
    return at, chosen


def find(header: list[str], name: str, file: Path, key: str) -> int:
    """Returns the place of the column `name`; `key` is what names it in deploy.yaml.

    Raises:
        DataError: there is none; with the nearest.
    """
    if name in header:
        return header.index(name)
    close = difflib.get_close_matches(name, header, n=1, cutoff=0.5)
    if not close:
        close = [other for other in header if other.casefold() == name.casefold()]
    bare = [other.isprintable() and "," not in other for other in header]
    names = ", ".join(other if plain else shortened(other) for other, plain in zip(header[:_MAX_LISTED], bare))
    names += ", ..." if len(header) > _MAX_LISTED else ""
    where = f"{key}: in deploy.yaml, --{key} on the command line"
    hint = f"did you mean {close[0]!r} ({where})?" if close else f"set it to one of them ({where})"
    if not close and len(header) > 1 and sum(map(_is_number, header)) >= len(header) - 1:
        hint += "; if these are numbers of a row, put a header above it"
    raise DataError(f"{file}: no column {name!r}; there are {names}", hint=hint)


def as_yaml(names: Sequence[str]) -> str:
    """Returns names of columns as a list for `features:`; of many, the first and the last."""
    written = [
        name if _BARE.fullmatch(name) and name.casefold() not in _WORDS else "'" + name.replace("'", "''") + "'"
        for name in names
    ]
    return f"[{', '.join(written if len(written) <= _MAX_NAMED else [*written[:3], '...', written[-1]])}]"


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True
