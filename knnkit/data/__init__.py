"""Labelled rows from files and from scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def warnings_of_file(
    file: Path,
    label: str,
    names: Sequence[str] | None,
    drop: Sequence[str] = (),
    missing: str = "refuse",
    categories: Mapping[str, str] | None = None,
    thousands: str = "",
) -> tuple[str, ...]:
    """Reads a file as a build does; returns its warnings: an odd label column, and features that number the rows.

    The arguments are keys of `data` in deploy.yaml (None: absent); the features in `names` get no warning.

    Raises:
        DataError: the rows cannot be read.
    """
    from knnkit.data import columns, files, policy

    rows = files.load(file, label, names, policy.Policy(tuple(drop), missing, categories or {}, thousands=thousands))
    doubt = columns.doubt(list(dict.fromkeys(rows.labels.tolist())), len(rows.labels))
    odd = (f"{rows.source}: {doubt}",) if doubt else ()
    return (*odd, *(columns.warnings(rows, drop) if names is None else ()))


def has_column(file: Path, name: str) -> bool:
    """Whether a CSV file has the column `name`; False also if the file cannot be read: the build reports that."""
    from knnkit.data import listing
    from knnkit.errors import DataError

    try:
        return name in listing.read(file, [name])[0]
    except DataError:
        return False
