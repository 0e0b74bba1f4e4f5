"""Joins the rows of several files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnkit.data import precision
from knnkit.data.dataset import Dataset, label_array
from knnkit.data.policy import Policy, sorted_levels


def joined(parts: Sequence[Dataset], policy: Policy, source: str, *, wide: bool = False) -> Dataset:
    """Returns the rows of files with the same columns, in order; each category has one code in all of them.

    Raises:
        DataError: a label cannot be used.
    """
    first = parts[0]
    levels = {
        place: tuple(dict.fromkeys(t for part in parts for t in (part.levels or {})[place])) for place in _all(parts)
    }
    tables = [part.rows.copy() for part in parts]
    for table, part in zip(tables, parts):
        for place, texts in levels.items():
            codes = np.array([texts.index(text) for text in (part.levels or {})[place]] or [0], table.dtype)
            there = ~np.isnan(table[:, place])
            table[there, place] = codes[table[there, place].astype(int)]
    rows: NDArray[np.floating[Any]] = np.concatenate(tables)
    levels = sorted_levels(rows, levels, policy, first.feature_names)
    beside = (
        None if first.beside is None else np.concatenate([part.beside for part in parts if part.beside is not None])
    )
    columns = zip(*((part.labels, *part.more_labels) for part in parts))
    labels, *more = (label_array([text for part in column for text in part.tolist()], source) for column in columns)
    if policy.is_plain and not wide:
        rows = precision.float32_if_enough(rows)
    ids = None if first.ids is None else np.concatenate([part.ids for part in parts if part.ids is not None])
    files = np.repeat(np.arange(len(parts)), [len(part.rows) for part in parts])
    how: dict[str, Any] = {"levels": levels or None, "files": files, "more_labels": tuple(more)}
    how["missing_words"] = frozenset[str]().union(*(part.missing_words for part in parts))
    return Dataset(rows, labels, first.feature_names, source, beside, ids, **how)


def _all(parts: Sequence[Dataset]) -> list[int]:
    """Returns the columns of categories, which all parts have."""
    return list(parts[0].levels or {})
