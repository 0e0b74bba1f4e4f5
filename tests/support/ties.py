"""Rows with many ties, and their neighbours in exact arithmetic."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

KINDS = ("one-hot", "counts", "integers", "copies", "large counts")
#: Whole numbers of 2^-27 hold all rows here: halves, eighths, and 0.1 in float32.
_STEPS = 2**27


def rows_of(kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Returns (count, p) whole numbers as float32."""
    if kind == "one-hot":
        sizes = rng.integers(2, 6, 4)
        return np.hstack([np.eye(size)[rng.integers(0, size, count)] for size in sizes]).astype(np.float32)
    if kind == "counts":
        return rng.poisson(1.2, (count, 6)).astype(np.float32)
    if kind == "large counts":  # squared lengths up to 2,700
        return rng.integers(0, 31, (count, 3)).astype(np.float32)
    rows = rng.integers(-3, 4, (count, int(rng.integers(1, 6)))).astype(np.float32)
    if kind == "copies":
        rows[rng.integers(0, count, count // 2)] = rows[0]
    return rows


def queries_of(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns 35 queries: training rows, the middles of two, and some an eighth beside a row."""
    one, other, beside, own = (rows[rng.integers(0, len(rows), count)] for count in (10, 10, 5, 20))
    return np.concatenate([own, (one + other) / 2, beside + 0.125]).astype(np.float32)


def neighbours(rows: np.ndarray, queries: np.ndarray, k: int, metric: str) -> list[list[int]]:
    """Returns the k nearest rows of each query by (distance, row), in exact arithmetic."""
    whole, at = (
        np.array((each.astype(np.float64) * _STEPS).tolist()).astype(np.int64).astype(object)
        for each in (rows, queries)
    )
    return [_nearest(_keys(whole, query, metric), k) for query in at]


def _nearest(keys: list[Any], k: int) -> list[int]:
    return sorted(range(len(keys)), key=lambda index: (keys[index], index))[:k]


def _keys(rows: Any, query: Any, metric: str) -> list[Any]:
    """Returns exact keys that sort the rows by distance; for cosine, minus the signed square of the cosine."""
    if metric == "manhattan":
        return list(abs(rows - query).sum(axis=1))
    if metric != "cosine":
        return list(((rows - query) ** 2).sum(axis=1))
    products, lengths = (rows * query).sum(axis=1), (rows * rows).sum(axis=1)
    return [Fraction(-each * abs(each), length) if length else Fraction(0) for each, length in zip(products, lengths)]
