"""Answers uncertain rows again in float64.

The graph flags a row if float32 rounding could have changed its neighbours or its label. `ExactKnn` answers it from the
same file: the training matrix is memory-mapped inside the model, and exact.npz holds the float64 map from raw rows to
model space, where distances are computed. `block_search` finds the rows that may be nearest. All IEEE machines compute
the same bits: only elementwise operations, and sums rounded once (`rounded`) or added in a fixed order; no BLAS. If the
model has an `origin` in knn.json (its numbers lie far from 0), the rows here are raw rows minus that origin.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.inference.block_search import BlockSearch
from device_agent.inference.graph import Graph
from device_agent.inference.mapped_rows import MappedRows
from device_agent.inference.measures import Measure
from device_agent.inference.ranking import NEAR_TIED, Ranking
from device_agent.inference.rounded import add_rows
from device_agent.inference.settling import Settling
from device_agent.inference.steps import apply
from device_agent.shared.outliers import OutlierFactors
from device_agent.shared.protocol import constants, model_info
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.regression import Regressor
from device_agent.shared.release.npz import Arrays, arrays_inside, require_form
from device_agent.shared.votes import base_distance, votes, votes_within

Float64 = NDArray[np.float64]

_SCANNED, _MEASURES = 1 << 14, 1 << 21  # differences of a scan at a time, which stay in the cache; and its results
_MAX_FLOAT32 = float(np.finfo(np.float32).max)
_QUERIES = 256  # of one search
#: A block of so many bytes, freed but never written: glibc then keeps the memory of a batch for the next one. Otherwise
#: it returns the memory, and the system clears each page again.
_FREED = 4 << 20
#: Dimensions and type of each table; the tables of the steps are not listed.
_TABLES: dict[str, tuple[int, type[np.generic]]] = {
    **dict.fromkeys(("centre", "scale"), (1, np.floating)),
    **dict.fromkeys(("zero", "tied"), (0, np.floating)),
    **dict.fromkeys(("classes", "block_offsets", "block_rows"), (1, np.signedinteger)),
    "steps": (1, np.str_),
}


class ExactKnn:
    """The classifier of one model file, computed in float64.

    Raises:
        ModelUnusable: exact.npz (the exact tables) is missing or damaged, or refers to bytes outside the file.
    """

    def __init__(self, path: str, info: model_info.KnnInfo, threads: int = 1) -> None:
        self._info, self._path, self._threads = info, path, threads
        self._search: BlockSearch | None = None
        self._damaged = f"{constants.EXACT_FILE} inside {path} is damaged"
        with arrays_inside(path, constants.EXACT_FILE) as tables:
            self._take(path, tables)

    def _take(self, path: str, tables: Arrays) -> None:
        before = "tied" not in tables
        tables.setdefault("tied", np.array(0.0))
        for name, form in _TABLES.items():
            require_form(name, tables[name], *form)
        self._centre = tables["centre"]
        # NumPy subtracts arrays of one shape and type faster.
        self._centre_row, self._centre64 = self._centre[np.newaxis], self._centre.astype(np.float64)
        self._scale: Float64 = tables["scale"]
        self._zero = float(tables["zero"])
        self._tied = float(tables["tied"])
        # A scale that all coordinates share is left out until ties are found. Older models, without `tied`, did not.
        least, most = float(np.abs(self._scale).min()), float(np.abs(self._scale).max())
        self._unit = 1.0 if before or least == 0.0 or least < most else least
        self._weights = self._scale / self._unit
        self._by = Measure(self._info, self._weights, self._unit, self._centre, zero=self._zero, tied=self._tied)
        self._classes = tables["classes"]
        self._steps = [
            (str(kind), tables[f"step{i}_a"], tables[f"step{i}_b"]) for i, kind in enumerate(tables["steps"])
        ]
        rows = [int(count) for count in tables["block_rows"]]
        if not len(self._classes) == sum(rows) == self._info.n_train or min(rows, default=0) < 1:
            found = f"{sum(rows)} rows in blocks of {rows} and {len(self._classes)} classes"
            raise ValueError(f"there are {found}; knn.json states {self._info.n_train} rows")
        width = len(self._centre)
        if len(self._scale) != width or not (self._steps or width == self._info.n_features):
            found = f"centre has {width} columns and scale {len(self._scale)}"
            raise ValueError(f"{found}; knn.json states {self._info.n_features} features")
        self._rows = MappedRows.open(path, tables["block_offsets"], rows, width)
        self._ranking = Ranking(self._rows, self._by, self._info.k, self._tied)
        if self._classes.min(initial=0) < 0 or self._classes.max(initial=0) >= len(self._info.classes):
            raise ValueError("a training row has a class that knn.json does not name")
        near_ties = self._zero > 0.0 or self._tied > 0.0
        self._settling = Settling(self._info, self._ranking, self._by, self._classes, self._unit, near_ties=near_ties)
        self.regressor: Regressor | OutlierFactors | None = None
        if self._info.targets is not None:
            from device_agent.shared.label_columns import regressor

            targets = tables["targets"]
            require_form("targets", targets, 2, np.float64)
            if targets.shape != (shape := (self._info.n_train, len(self._info.targets.names))):
                raise ValueError(f"targets has shape {targets.shape}; knn.json states {shape}")
            counts = [len(labels) for labels in self._info.targets.classes]
            self.regressor = regressor(targets, self._info.k, self._info.weights, self._info.float64, counts)

    def answer(self, row: NDArray[np.float32]) -> dict[str, Any]:
        """Returns the outputs, by name, for one (n_features,) float32 row, a raw row minus the model's `origin`."""
        return {name: values[0] for name, values in self.answers(row[np.newaxis]).items()}

    def answers(self, rows: NDArray[np.float32], *, by_groups: bool = True) -> dict[str, NDArray[Any]]:
        """Returns the model's outputs, by name, for (n, n_features) float32 rows.

        The rows are raw rows minus the model's `origin` (a fixed row). `by_groups=False` searches all training rows,
        even if the model has groups of rows.

        Raises:
            ModelUnusable: the exact tables of the model contradict each other.
        """
        try:
            chunks = (rows[start : start + _QUERIES] for start in range(0, len(rows), _QUERIES))
            parts = [self._answers(chunk, by_groups) for chunk in chunks]
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        except (ValueError, TypeError, IndexError, ArithmeticError) as error:
            raise ModelUnusable(f"{self._damaged}: {error}") from None

    def settle(self, graph: Graph) -> dict[str, list[Any]]:
        """Returns the outputs, by name, for the one row in `graph`, which has run; fast: it ranks few training rows.

        Each output is a flat list of numbers. Returns {} if the graph's own answer is right.

        If k of the rows that the graph ranked are nearer than its bound for all other rows, only these are ranked.
        Otherwise one pass over all training rows finds those that may be as near as the graph's k-th neighbour.

        Raises:
            ModelUnusable: the exact tables of the model contradict each other.
        """
        try:
            z, known = self._enter_one(graph.rows), graph.outputs[constants.OUTPUT_INDICES][0].tolist()
            if (found := self._settling.among(z, known, graph)) is not None:
                return found
            sound = len({*known}) == len(known) and min(known) >= 0 and max(known) < self._info.n_train
            if sound and not (self._info.metric == "cosine" and z[0, -2] == 1.0):
                near = self._get_search().rows_near(z[0].astype(np.float64), known)
                if near is not None and len(near) >= self._info.k:
                    return self._settling.decide(*self._ranking.rank_one(z, near))
        except (ValueError, TypeError, IndexError, ArithmeticError) as error:
            raise ModelUnusable(f"{self._damaged}: {error}") from None
        return {name: values.reshape(-1).tolist() for name, values in self.answers(graph.rows).items()}

    def _answers(self, rows: NDArray[np.float32], by_groups: bool) -> dict[str, NDArray[Any]]:
        z = self._enter_all(rows)
        return self._decide(*self._nearest(z, by_groups), self._within(z))

    def _decide(
        self, order: NDArray[np.int64], measure: Float64, within: tuple[Any, Any, Any] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Returns the outputs, by name, for queries with (q, k) neighbours `order` at the measures `measure`.

        `within`, for a model with a radius, has three arrays: query, row and distance of each pair that votes. None:
        the k nearest rows vote.
        """
        return self._outputs(order, self._by.to_metric(measure), within)

    def _outputs(
        self, order: NDArray[Any], distances: Float64, within: tuple[Any, Any, Any] | None = None
    ) -> dict[str, NDArray[Any]]:
        if within is None:
            probabilities = votes(self._classes[order], distances, self._info)
        else:
            query, row, far = within
            probabilities = votes_within(query, self._classes[row], far, len(order), self._info)
        # The order of addition can split equal shares by some 2^-53: shares within 1e-12 tie, the lowest class wins.
        equal = self._info.weights == "uniform" and self._info.float64 is None  # then shares are quotients of counts
        best = probabilities if equal else probabilities >= probabilities.max(axis=1, keepdims=True) - 1e-12
        label = best.argmax(axis=1)
        if self._info.float64 is not None:  # with a radius or a kernel, perhaps no row has a vote
            label[~probabilities.any(axis=1)] = constants.UNKNOWN
        if (reject := self._info.reject) is not None:
            label[distances[:, -1] > np.array(reject.thresholds)[label]] = constants.UNKNOWN
        return {
            constants.OUTPUT_LABEL: label,
            constants.OUTPUT_PROBABILITIES: probabilities,
            constants.OUTPUT_INDICES: order,
            constants.OUTPUT_DISTANCES: np.minimum(distances, _MAX_FLOAT32),  # beyond float32: its greatest number
        }

    def confirms(self, row: NDArray[np.float32], indices: NDArray[np.int32]) -> bool:
        """Returns True if the (k,) neighbours `indices` of one (1, n_features) row are surely in order of distance.

        Raises:
            ModelUnusable: the exact tables of the model contradict each other.
        """
        try:
            return self._settling.confirms(self._enter_one(row), indices.tolist())
        except (ValueError, TypeError, IndexError, ArithmeticError) as error:
            raise ModelUnusable(f"{self._damaged}: {error}") from None

    def order(self, rows: NDArray[np.float32], indices: NDArray[np.int32]) -> tuple[NDArray[np.int64], Float64]:
        """Sorts (n, k) known neighbours of rows by (distance, index); returns indices and distances, (n, k) each.

        Raises:
            ModelUnusable: the exact tables of the model contradict each other.
        """
        try:
            z, query = self._enter_all(rows), np.repeat(np.arange(len(rows)), indices.shape[1])
            order, measure = (
                map(np.array, zip(self._ranking.rank_one(z, indices[0])))
                if len(z) == 1
                else self._ranking.rank(z, query, indices.reshape(-1))
            )
        except (ValueError, TypeError, IndexError, ArithmeticError) as error:
            raise ModelUnusable(f"{self._damaged}: {error}") from None
        return order, self._by.to_metric(measure)

    def moved(self, rows: NDArray[np.float32], others: NDArray[np.float32]) -> Float64:
        """Returns (n,) distances in model space from `rows[i]` to `others[i]`, raw rows minus the model's `origin`."""
        terms = self._by.terms(self._enter_all(rows), self._enter_all(others))
        return np.asarray(self._by.to_base(terms.sum(axis=1)) * self._unit)

    def is_exact(self, rows: NDArray[np.float32], kth: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Returns (n,) bool: whether float32 has computed the k distances of each row without rounding errors.

        True if the coordinates of the row and of all training rows are whole multiples of one number (`lattice` in
        knn.json), and the terms of a distance add up to less than 2^24 of these units (or of their squares).

        Args:
            rows: (n, n_features) float32 raw rows minus the model's `origin`.
            kth: (n,) distance of the k-th neighbour of each row.
        """
        step = self._info.lattice
        if not step or self._steps:
            return np.zeros(len(rows), np.bool_)
        units = kth / step if self._info.metric != "sqeuclidean" else kth / step**2
        whole = (rows - self._centre) * (self._scale / step)
        exact: NDArray[np.bool_] = (whole == np.rint(whole)).all(axis=1)
        return exact & (units < (2.0**12 if self._info.metric == "euclidean" else 2.0**24))

    def scaled_rows(self) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32], Float64] | None:
        """Returns (n, p) training rows minus a centre, their (n,) classes, and the (p,) centre and scale.

        (row - centre) * scale is a row in model space. Returns None for a model with other transforms (`steps`).
        """
        if self._steps:
            return None
        return np.concatenate(self._rows.blocks), self._classes, self._centre, self._scale

    def _enter_all(self, rows: NDArray[np.float32]) -> Float64:
        if self._steps:
            return np.array([self._enter(row) for row in rows])
        with np.errstate(over="ignore"):  # a row is defined by its float32 offset from the centre (docs/decisions/001)
            offsets: NDArray[np.float32] = rows - self._centre
        return np.maximum(np.minimum(offsets, _MAX_FLOAT32), -_MAX_FLOAT32).astype(np.float64)

    def _enter_one(self, row: NDArray[np.float32]) -> NDArray[Any]:
        """Returns one (1, n_features) row in model space; a coordinate beyond float32 may be infinite."""
        return self._enter(row[0])[np.newaxis] if self._steps else row - self._centre_row

    def _enter(self, row: NDArray[np.float32]) -> Float64:
        return np.asarray(apply(self._steps, row) - self._centre64)

    def _nearest(self, z: Float64, by_groups: bool) -> tuple[NDArray[np.int64], Float64]:
        """Returns (q, k) indices of the nearest rows of queries `z`, sorted by (measure, index), and their measures."""
        k = self._info.k
        order, measure = np.tile(np.arange(k), (len(z), 1)), np.full((len(z), k), 2.0)
        # Zeros have distance 1 from all by cosine: all rows tie.
        live = np.flatnonzero(z[:, -2] != 1.0) if self._info.metric == "cosine" else np.arange(len(z))
        if not len(live):
            return order, measure
        if not self._by.in_graph:
            return self._among_all(z, live, order, measure)
        found, fits = self._get_search().find(z[live], by_groups=by_groups)
        whole, rest = found.exact[found.query], np.flatnonzero(fits & ~found.exact)
        kinds = ((np.flatnonzero(found.exact), whole, found.measure[whole]), (rest, ~whole, None))
        for some, chosen, known in kinds:
            if len(some):
                query = np.searchsorted(some, found.query[chosen])
                order[live[some]], measure[live[some]] = self._ranking.rank(
                    z[live[some]], query, found.row[chosen], known
                )
        return self._among_all(z, live[~fits], order, measure)

    def _among_all(self, z: Float64, some: Any, order: Any, measure: Any) -> tuple[NDArray[np.int64], Float64]:
        """Searches all training rows for the queries at positions `some` of `z`; fills (q, k) `order` and `measure`."""
        k = self._info.k
        for one, rough in zip(some, self._scan(z[some])):
            near = np.flatnonzero(rough <= self._by.and_ties(np.partition(rough, k - 1)[k - 1]) * NEAR_TIED)
            order[one], measure[one] = self._ranking.rank_one(z[one : one + 1], near)
        return order, measure

    def _scan(self, z: Float64) -> Iterator[Float64]:
        together, step = max(1, _MEASURES // self._info.n_train), max(1, _SCANNED // z.shape[1])
        parts = [block[start : start + step] for block in self._rows.blocks for start in range(0, len(block), step)]
        for start in range(0, len(z), together):
            some = z[start : start + together]
            yield from np.concatenate([self._by.rough(some, part) for part in parts], axis=1)

    def _within(self, z: Float64) -> tuple[NDArray[np.int64], NDArray[np.int64], Float64] | None:
        """Returns query, row and distance, (m,) each, of all pairs within the radius; None for models without it."""
        radius = None if self._info.float64 is None else self._info.float64.radius
        if radius is None:
            return None
        limit = float(base_distance(np.array(radius), self._info.metric)) + self._tied
        most = self._by.of_base(limit / self._unit) * NEAR_TIED
        near = [np.flatnonzero(rough <= most) for rough in self._scan(z)]
        query, row = np.repeat(np.arange(len(z)), [len(each) for each in near]), np.concatenate([*near, np.arange(0)])
        measure = self._ranking.measure(z, query, row, add_rows)
        measure[measure <= self._by.exact_match] = 0.0
        inside = self._by.to_base(measure) * self._unit <= limit
        return query[inside], row[inside], self._by.to_metric(measure[inside])

    def _get_search(self) -> BlockSearch:
        if self._search is None:
            np.empty(_FREED, np.uint8)
            step = 0.0 if self._steps else (self._info.lattice or 0.0) / self._unit
            first = (self._rows, self._weights, self._info.k)
            how: dict[str, Any] = {"step": step, "and_ties": self._by.and_ties, "threads": self._threads}
            if self._info.groups is None:
                self._search = BlockSearch(*first, manhattan=self._by.manhattan, **how)
            else:
                from device_agent.inference.group_search import Groups, GroupSearch

                with arrays_inside(self._path, constants.GROUPS_FILE) as arrays:
                    groups = Groups.from_arrays(arrays, self._info.n_train, len(self._centre))
                self._search = GroupSearch(*first, **how, groups=groups, unit=self._unit)
        return self._search
