"""Answers uncertain rows again in float64.

The graph flags a row whose neighbours or label float32 rounding could have changed. `ExactKnn` answers it from the same
file: the training matrix is memory-mapped inside the model, and exact.npz has the map from raw rows to model space in
float64. Every deciding value is computed so that all IEEE machines agree bit by bit: elementwise operations, and sums
that are rounded once (`math.fsum`) or added in a fixed order; no BLAS. Needs only NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.golden.judge import votes
from device_agent.shared.protocol import constants, model_info
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.release.model_file import read_member
from device_agent.shared.release.npz import read_arrays

Float64 = NDArray[np.float64]

_CHUNK_BYTES = 4 << 20  # of float64 differences at a time
#: NumPy adds pairwise, so a sum of p terms is off by less than (16 + log2 p) 2^-53 of itself: far less than 2^-40.
_NEAR_TIED = 1.0 + 2.0**-40
#: Ties within `tied` form chains; the chain of the k-th neighbour ends this many times `tied` beyond it.
_CHAIN = 8
_MAX_TABLES = 256 << 20
_MAX_FLOAT32 = float(np.finfo(np.float32).max)
_STEEP = 1e18  # above this scale, a query times the scale twice may overflow float32
#: Dtype kind and dimensions of each table; the tables of the steps are not listed.
_TABLES = {
    "centre": ("f", 1),
    "scale": ("f", 1),
    "zero": ("f", 0),
    "tied": ("f", 0),
    "classes": ("i", 1),
    "block_offsets": ("i", 1),
    "block_rows": ("i", 1),
    "steps": ("U", 1),
}


class ExactKnn:
    """The classifier of one model file in float64, one row at a time.

    Args:
        path: the model file.
        info: its knn.json.

    Raises:
        ModelUnusable: exact.npz is missing, damaged, or points outside the file.
    """

    def __init__(self, path: str, info: model_info.KnnInfo) -> None:
        self._info = info
        self._squares: NDArray[np.float32] | None = None
        self._damaged = f"{constants.EXACT_FILE} inside {path} is damaged"
        data = read_member(path, constants.EXACT_FILE, _MAX_TABLES)
        try:
            self._take(path, read_arrays(data))
        except (KeyError, ValueError, OverflowError, OSError) as error:
            raise ModelUnusable(f"{self._damaged}: {error}") from None

    def _take(self, path: str, tables: dict[str, NDArray[Any]]) -> None:
        before = "tied" not in tables
        tables.setdefault("tied", np.array(0.0))
        for name, (kind, ndim) in _TABLES.items():
            if tables[name].dtype.kind != kind or tables[name].ndim != ndim:
                raise ValueError(f"{name} has type {tables[name].dtype} and shape {tables[name].shape}")
        self._centre = tables["centre"]
        self._scale: Float64 = tables["scale"]
        self._zero = float(tables["zero"])
        self._tied = float(tables["tied"])
        # A scale that all coordinates share is left out until ties are found. Older models, without `tied`, did not.
        least, most = float(np.abs(self._scale).min()), float(np.abs(self._scale).max())
        self._unit = 1.0 if before or least == 0.0 or least < most else least
        self._weights = self._scale / self._unit
        self._classes = tables["classes"]
        self._steps = [
            (str(kind), tables[f"step{i}_a"], tables[f"step{i}_b"]) for i, kind in enumerate(tables["steps"])
        ]
        rows = [int(count) for count in tables["block_rows"]]
        if not len(self._classes) == sum(rows) == self._info.n_train or min(rows, default=0) < 1:
            raise ValueError("its tables have another length than knn.json says")
        width = len(self._centre)
        if len(self._scale) != width or not (self._steps or width == self._info.n_features):
            raise ValueError("its tables have another width than knn.json says")
        self._blocks = [  # plain arrays: those of the class memmap are slow to index
            np.asarray(np.memmap(path, np.float32, "r", int(offset), (count, width)))
            for offset, count in zip(tables["block_offsets"], rows, strict=True)
        ]
        self._starts = np.append(0, np.cumsum(rows))
        if self._classes.min(initial=0) < 0 or self._classes.max(initial=0) >= len(self._info.classes):
            raise ValueError("a training row has a class that knn.json does not name")

    def answer(self, row: NDArray[np.float32]) -> dict[str, Any]:
        """Returns the model's outputs for one (n_features,) float32 row, by output name; the origin is subtracted.

        Raises:
            ModelUnusable: the tables do not fit each other.
        """
        return self.answers(row[np.newaxis])[0]

    def answers(self, rows: NDArray[np.float32]) -> list[dict[str, Any]]:
        """Returns `answer` of each of the (n, n_features) raw rows; one product searches for all of them.

        Raises:
            ModelUnusable: the tables do not fit each other.
        """
        try:
            entered = [self._enter(row) for row in rows]
            near = self._find_near(np.array(entered))
            return [self._answer(z, found) for z, found in zip(entered, near, strict=True)]
        except (ValueError, TypeError, IndexError, ArithmeticError) as error:
            raise ModelUnusable(f"{self._damaged}: {error}") from None

    def _answer(self, z: Float64, near: NDArray[np.int64] | None) -> dict[str, Any]:
        order, measure = self._rank(z, near)
        distances = self._distances(measure)
        probabilities = votes(self._classes[order], distances, self._info)
        # The order of addition can split equal shares by some 2^-53: shares within 1e-12 tie, the lowest class wins.
        label = int(np.argmax(probabilities >= probabilities.max() - 1e-12))
        reject = self._info.reject
        if reject is not None and distances[-1] > reject.thresholds[label]:
            label = constants.UNKNOWN
        return {
            constants.OUTPUT_LABEL: label,
            constants.OUTPUT_PROBABILITIES: probabilities,
            constants.OUTPUT_INDICES: order,
            constants.OUTPUT_DISTANCES: np.minimum(distances, _MAX_FLOAT32),  # beyond float32: its greatest number
        }

    def order(self, row: NDArray[np.float32], indices: NDArray[np.int32]) -> tuple[NDArray[np.int64], Float64]:
        """Returns the (k,) neighbours of a raw row in order of (distance, index), and their distances.

        Args:
            row: (n_features,) float32.
            indices: (k,) its neighbours, in any order.

        Raises:
            ModelUnusable: the tables do not fit each other.
        """
        try:
            order, measure = self._sort(self._enter(row), np.sort(indices.astype(np.int64)))
        except (ValueError, TypeError, IndexError, ArithmeticError) as error:
            raise ModelUnusable(f"{self._damaged}: {error}") from None
        return order, self._distances(measure)

    def moved(self, rows: NDArray[np.float32], others: NDArray[np.float32]) -> Float64:
        """Returns (n,) metric distances in model space between raw (n, n_features) rows and as many others."""
        pairs = [(self._enter(row) - self._enter(other)) * self._scale for row, other in zip(rows, others)]
        manhattan = self._info.metric == "manhattan"
        return np.array([np.abs(gap).sum() if manhattan else math.sqrt(float(gap @ gap)) for gap in pairs])

    def is_exact(self, rows: NDArray[np.float32], kth: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Returns (n,) whether float32 ranks the k neighbours of raw rows exactly: rows in whole steps of `lattice`.

        Args:
            rows: (n, n_features) float32.
            kth: (n,) their k-th distances. Up to 2^24 units of the measure, no sum was rounded.
        """
        step = self._info.lattice
        if not step or self._steps:
            return np.zeros(len(rows), np.bool_)
        units = kth / step if self._info.metric != "sqeuclidean" else kth / step**2
        whole = (rows - self._centre) * (self._scale / step)
        exact: NDArray[np.bool_] = (whole == np.rint(whole)).all(axis=1)
        return exact & (units < (2.0**12 if self._info.metric == "euclidean" else 2.0**24))

    def scaled_rows(self) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32], Float64] | None:
        """Returns training rows (n, p) as offsets, classes (n,), centre and scale (p,); None after other steps."""
        if self._steps:
            return None
        return np.concatenate(self._blocks), self._classes, self._centre, self._scale

    def _enter(self, row: NDArray[np.float32]) -> Float64:
        if not self._steps:  # a row is defined by its float32 offset from the centre (docs/decisions/001)
            with np.errstate(over="ignore"):
                offset = row - self._centre
            clipped: Float64 = np.clip(offset, -_MAX_FLOAT32, _MAX_FLOAT32).astype(np.float64)
            return clipped
        z = row.astype(np.float64)
        for kind, a, b in self._steps:
            if kind == "affine":
                z = (z - a) * b
            elif kind == "linear":  # added in feature order, which a BLAS product does not guarantee
                z = np.add.accumulate((z - b)[:, np.newaxis] * a, axis=0)[-1]
            elif kind == "normalize":
                z = z / (_norm(z, float(a)) or 1.0)
            elif kind == "cosine":  # on the unit sphere; a row of zeros has distance 1 from every other
                norm = _norm(z, 2.0)
                z = np.concatenate([z / (norm or 1.0), [float(norm == 0.0), 0.0]])
            else:
                raise ModelUnusable(f"{constants.EXACT_FILE}: unknown step {kind!r}")
        entered: Float64 = z - self._centre
        return entered

    def _rank(self, z: Float64, near: NDArray[np.int64] | None) -> tuple[NDArray[np.int64], Float64]:
        """Returns the (k,) nearest training rows and their measures, in order of (measure, index).

        The measure is the squared distance; for manhattan, the distance. `near` are the rows to rank; None: all.
        """
        k = self._info.k
        if self._info.metric == "cosine" and z[-2] == 1.0:  # zeros have distance 1 from all: all rows tie
            return np.arange(k), np.full(k, 2.0)
        rough = self._measure(z, near)
        kth = np.partition(rough, k - 1)[k - 1]
        candidates = np.flatnonzero(rough <= self._and_ties(float(kth)) * _NEAR_TIED)
        order, measure = self._sort(z, candidates)
        return order[:k], measure[:k]

    @property
    def _exact_match(self) -> float:
        """The largest measure that counts as an exact match."""
        zero = self._zero / self._unit
        return zero if self._info.metric == "manhattan" else zero**2

    def _and_ties(self, measure: Any) -> Any:
        """Returns the measure up to which rows may be tied with one at `measure`."""
        beyond, measure = _CHAIN * self._tied / self._unit, np.maximum(measure, self._exact_match)
        return measure + beyond if self._info.metric == "manhattan" else (np.sqrt(measure) + beyond) ** 2

    def _sort(self, z: Float64, chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], Float64]:
        """Returns the rows of the ascending `chosen` in order of (measure, index), and their measures.

        Ties (chains of distances that are less than `tied` apart) all have the least measure of theirs.
        """
        measure = self._add_up(z, chosen)
        measure[measure <= self._exact_match] = 0.0
        order = np.argsort(measure, kind="stable")
        chosen, measure = chosen[order], measure[order]
        if self._tied == 0.0 or len(chosen) < 2:
            return chosen, measure
        base = (measure if self._info.metric == "manhattan" else np.sqrt(measure)) * self._unit
        apart = (np.diff(base) > self._tied) | (base[1:] > base[self._info.k - 1] + _CHAIN * self._tied)
        group = np.append(0, np.cumsum(apart))
        first = np.append(0, np.flatnonzero(apart) + 1)[group]
        return chosen[np.lexsort((chosen, group))], measure[first]

    def _measure(self, z: Float64, near: NDArray[np.int64] | None) -> Float64:
        """Returns the (n_train,) measures, added in any order; infinity for rows not in `near`."""
        measure: Float64 = np.full(self._info.n_train, np.inf)
        for rows, parts in self._parts(z, np.arange(self._info.n_train) if near is None else near):
            measure[rows] = parts.sum(axis=1)
        return measure

    def _add_up(self, z: Float64, candidates: NDArray[np.int64]) -> Float64:
        """Returns the measures of some rows; each sum is rounded once, so the order of addition has no effect."""
        sums: dict[bytes, float] = {}  # sums a row with thousands of copies once
        found = []
        for _, parts in self._parts(z, candidates):
            for part in parts:
                key = part.tobytes()
                if key not in sums:
                    sums[key] = math.fsum(part.tolist())
                found.append(sums[key])
        return np.array(found)

    def _parts(self, z: Float64, chosen: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Float64]]:
        """Yields (r,) training rows of the ascending `chosen`, and the (r, p) terms of their measures."""
        step = max(1, _CHUNK_BYTES // (8 * len(z)))
        edges = np.searchsorted(chosen, self._starts).tolist()
        for block, first, begin, end in zip(self._blocks, self._starts.tolist(), edges, edges[1:]):
            for start in range(begin, end, step):
                rows = chosen[start : min(end, start + step)]
                difference = (z - block[rows - first]) * self._weights
                yield rows, np.abs(difference) if self._info.metric == "manhattan" else difference * difference

    def _find_near(self, z: Float64) -> list[NDArray[np.int64] | None]:
        """Returns, for each of (q, p) rows, the training rows that may be among the k nearest; None if all may be.

        One float32 matrix product finds them.
        """
        if self._info.metric == "manhattan" or self._weights.max() > _STEEP:
            return [None] * len(z)
        if self._squares is None:
            self._squares = self._measure_squares()
        with np.errstate(over="ignore", invalid="ignore"):  # in rows that are not bounded
            weighted = z * self._weights
            length = np.sqrt(np.einsum("ij,ij->i", weighted, weighted))
        # (6 sqrt(p) + 8) u, u = 2^-24, bounds the error of a float32 score over p coordinates, relative to (length +
        # reach)² (`relative_error` in knnkit.model.reference.space). Four times that: nothing checks the result.
        rho = 4.0 * (6.0 * np.sqrt(z.shape[1]) + 8.0) * 2.0**-24
        slack = rho * (length + float(np.sqrt(self._squares.max()))) ** 2
        # Outside these bounds, float32 squares may overflow or underflow.
        bounded = (slack > 1e-30) & (slack < 1e30)
        if not bounded.any():
            return [None] * len(z)
        with np.errstate(over="ignore", invalid="ignore"):
            factor = (weighted * self._weights).astype(np.float32)
            scores = np.concatenate([factor @ block.T for block in self._blocks], axis=1)
            scores *= -2.0
            scores += self._squares
            kth = np.partition(scores, self._info.k - 1, axis=1)[:, self._info.k - 1].astype(np.float64)
            # Keep all that are tied with the k-th. It and a row that could pass it are off by `slack` each.
            limit = self._and_ties(kth + length * length + slack) - length * length + slack
        return [
            np.flatnonzero(row <= most) if usable else None
            for row, most, usable in zip(scores, limit, bounded, strict=True)
        ]

    def _measure_squares(self) -> NDArray[np.float32]:
        """Returns the (n_train,) float32 squared lengths of the training rows in model space."""
        scale, found = self._weights.astype(np.float32), []
        for block in self._blocks:
            step = max(1, _CHUNK_BYTES // (4 * block.shape[1]))
            for start in range(0, len(block), step):
                weighted = block[start : start + step] * scale
                found.append(np.einsum("ij,ij->i", weighted, weighted))
        return np.concatenate(found)

    def _distances(self, measure: Float64) -> Float64:
        if self._info.metric == "cosine":
            return measure / 2
        if self._info.metric == "euclidean":
            measure = np.sqrt(measure)
        return measure * (self._unit**2 if self._info.metric == "sqeuclidean" else self._unit)


def _norm(z: Float64, order: float) -> float:
    """Returns the norm of order 1, 2 or infinity; its sum is rounded once."""
    if math.isinf(order):
        return float(np.abs(z).max())
    return math.fsum(np.abs(z).tolist()) if order == 1.0 else math.sqrt(math.fsum((z * z).tolist()))
