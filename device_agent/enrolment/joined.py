"""Answers of a model together with taught rows.

The answers equal those of one model that has both the training rows and the taught rows: the float64 reference over
both defines them. The taught rows come after the training rows, in the same space, with the same k, metric, weights and
thresholds. The model answers a row first. A search among the taught rows finds those that may be nearer than its k-th
neighbour, and `merge` inserts them by distance. Queries are raw rows minus the model's origin (a fixed row). Does not
read the journal of taught rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from device_agent.enrolment.merge import Blur, Merge, Nearby
from device_agent.enrolment.one_row import BLUR, OneRow
from device_agent.enrolment.one_screen import OneScreen, Tables
from device_agent.enrolment.rough import Rough
from device_agent.enrolment.screen import Screen
from device_agent.inference.block_search import BlockSearch
from device_agent.inference.exact import ExactKnn, Float64
from device_agent.inference.mapped_rows import MappedRows
from device_agent.inference.tflite_knn import Answers, TfliteKNN
from device_agent.inference.ties import CHAIN
from device_agent.shared.enrolment.joined import Joined
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.protocol.record import replace
from device_agent.shared.queries import check_rows, narrow, origin_of, row_type
from device_agent.shared.regression import Regressor
from device_agent.shared.votes import base_distance

#: Relative error of float64 distances is less than this.
_OFF = 2.0**-30
_MAX_FLOAT32 = np.finfo(np.float32).max
#: Queries that are merged together: their scores fit the caches of most boards.
_TOGETHER = 512
#: float64 errors must be so many times smaller than the differences that float32 leaves open.
_CLEAR = 64.0
_CHUNK_BYTES = 4 << 20  # of float64 differences at a time
_FEW = 16  # taught rows: a ball around them saves nothing


class JoinedExact(ExactKnn):
    """The float64 classifier over the training rows of a model file and the taught rows.

    Raises:
        ModelUnusable: the model's exact tables (exact.npz) are missing or damaged.
    """

    def __init__(self, path: str, info: KnnInfo, joined: Joined) -> None:
        super().__init__(path, info)
        self.own, self._near = info.n_train, info.near
        kept, self._local = self.enrol(narrow(joined.features, origin_of(info.origin)))
        #: Which taught rows are within the range of float32; the others take no part.
        self.kept = kept
        self.info = self._info = replace(joined.info, n_train=info.n_train + int(kept.sum()), groups=None)
        self._rows.append(self._local)
        self._classes = np.append(self._classes, joined.codes[kept])
        if isinstance(self.regressor, Regressor) and joined.targets is not None:
            targets = np.concatenate([self.regressor.targets, joined.targets[kept]])
            self.regressor = Regressor(targets, info.k, info.weights)
        self._rough = Rough(self._steps, self._centre, self._scale, self._by.manhattan)
        self._unweighted = bool((self._weights == 1.0).all())
        codes = joined.codes[kept]
        self._screen = Screen(self._local * self._weights, codes) if len(codes) else None
        self._tables = self._tables_of_one(apart=len(codes) > _FEW and bool(codes.min() >= len(info.classes)))
        if self._by.manhattan and self._screen:
            how: dict[str, Any] = {"manhattan": True, "step": 0.0, "and_ties": self._by.and_ties}
            self._among_local = BlockSearch(MappedRows(self._local), self._weights, info.k, **how)

    def enrol(self, rows: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Maps (n, n_features) taught rows, minus the model's origin (a fixed row), into model space.

        Returns (n,) bool, whether all coordinates of a row are finite in float32, and the (m, p) coordinates of the m
        rows for which they are.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            mapped = self._enter_all(rows).reshape(len(rows), len(self._centre))
            if self._info.metric == "cosine":  # a training row of zeros is marked in the other column than a query
                mapped[:, -1] = mapped[:, -2] + self._centre[-2] - self._centre[-1]
                mapped[:, -2] = -self._centre[-2]
            found = mapped.astype(np.float32)
        kept = np.asarray(np.isfinite(found).all(axis=1))
        return kept, np.ascontiguousarray(found[kept])

    def doubt(self, kth: NDArray[Any]) -> Float64:
        """Returns (n,) numbers: if the distances of two rows from a query differ by more, float32 ranks them rightly.

        Holds for distances up to (n,) `kth`, the distance of each query's k-th neighbour.
        """
        far, near = np.asarray(kth, np.float64), self._near
        return far * BLUR if near is None else near.share * np.maximum(far, near.least)

    def _tables_of_one(self, *, apart: bool) -> Tables | None:
        """Returns the taught rows for the search with one query; `apart`: probably far from the training rows."""
        rows, width = self._local.astype(np.float64), len(self._centre)
        if not len(rows):
            return None
        if self._rough.on_sphere and self._unweighted:
            return Tables(rows + self._centre, width - 2, apart, "cosine")
        return Tables(rows * self._weights, width, apart, "manhattan" if self._by.manhattan else "")

    def one_row(self) -> OneRow | None:
        """Returns the object that merges taught rows into the answer to a single row; None without taught rows."""
        if self._tables is None:
            return None
        of_row = self._rough.before_norm if self._tables.kind == "cosine" else self._coordinates
        reach = self._tied, self._zero, self._rough.blur
        how = (self._unit, self._classes, self.own)
        return OneRow(self._info, self._near, OneScreen(self._tables, of_row), self._from_one, reach, *how)

    def _coordinates(self, row: NDArray[np.float32], *, weighted: bool = True) -> NDArray[Any]:
        found = self._rough.one(row)
        z = self._enter(row) if found is None else found
        return z * self._weights if weighted and not self._unweighted else z

    def _from_one(self, row: NDArray[np.float32], local: NDArray[np.int64]) -> list[float]:
        terms = np.subtract(self._coordinates(row, weighted=False), self._local.take(local, axis=0), dtype=np.float64)
        found: list[float] = self._measures(terms).tolist()
        return found

    def nearby(self, rows: NDArray[np.float32], kth: NDArray[Any]) -> Nearby:
        """Finds the queries whose k nearest neighbours may include taught rows, and these taught rows.

        Args:
            rows: (n, n_features) float32 queries, minus the model's origin (a fixed row).
            kth: (n,) distance of the k-th neighbour among the training rows, in the model's metric.
        """
        z, blur = self._rough.many(rows)
        doubt = self.doubt(kth)
        base = base_distance(kth + doubt, self._info.metric) + (blur + (CHAIN * self._tied + self._zero))
        base[(kth >= _MAX_FLOAT32) | ~np.isfinite(base)] = np.inf  # float32 has no greater distances
        pairs, local = self._find(z, base)
        some, query = np.unique(pairs, return_inverse=True)
        base, blur, doubt = base[some], blur[some], doubt[some]
        with np.errstate(invalid="ignore", over="ignore"):
            moved = blur if self._info.metric in ("euclidean", "manhattan") else blur * (2.0 * base + blur)
            clear = np.isfinite(base) & (_CLEAR * moved <= doubt)
        return Nearby(some, query, local, self._to_local(z, pairs, local), clear)

    def _find(self, z: NDArray[Any], base: Float64) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns two arrays of indices: the query and the taught row of each pair that may be neighbours.

        The indices of queries ascend. `z` are the (n, p) queries in model space, `base` (n,) distances there: a taught
        row farther from its query is not a neighbour.
        """
        if self._screen is None:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        weighted, within = z if self._unweighted else z * self._weights, base / self._unit
        if not self._by.manhattan:
            return self._screen.pairs(weighted, within)
        some = self._screen.reached(weighted, within)  # Manhattan distances are never less than Euclidean ones
        found, fits = self._among_local.find(z[some].astype(np.float64), within[some])
        query, local = found.query, found.row
        if not fits.all():  # too large for float32: all taught rows
            strange, every = np.flatnonzero(~fits), np.arange(len(self._local))
            query = np.concatenate([query, np.repeat(strange, len(every))])
            local = np.concatenate([local, np.tile(every, len(strange))])
            order = np.argsort(query, kind="stable")
            query, local = query[order], local[order]
        return some[query], local

    def _to_local(self, z: NDArray[Any], query: NDArray[np.int64], local: NDArray[np.int64]) -> Float64:
        """Returns (m,) distances in the metric between queries in `z` and taught rows; relative errors below 2^-36."""
        found = np.empty(len(query))
        step = max(1, _CHUNK_BYTES // (8 * z.shape[1]))
        for start in range(0, len(query), step):
            part = slice(start, start + step)
            found[part] = self._measures(np.subtract(z[query[part]], self._local[local[part]], dtype=np.float64))
        return self._by.to_metric(found)

    def _measures(self, terms: Float64) -> Float64:
        """Returns (m,) squared distances (manhattan: distances) from (m, p) differences; relative error below 2^-37."""
        terms = terms if self._unweighted else terms * self._weights
        return np.asarray(np.abs(terms).sum(axis=1) if self._by.manhattan else np.einsum("ij,ij->i", terms, terms))

    def among(self, rows: NDArray[np.float32], indices: NDArray[np.int32], near: Nearby) -> dict[str, NDArray[Any]]:
        """Returns name (such as `label`) -> output for m queries, as if the taught rows were training rows.

        Args:
            rows: (m, n_features) float32 queries, minus the model's origin (a fixed row).
            indices: (m, k) their neighbours among the training rows, nearest first.
            near: the taught rows that may be among their k nearest neighbours.

        Raises:
            ModelUnusable: the model's exact tables are damaged.
        """
        try:
            query = np.concatenate([np.repeat(np.arange(len(rows)), indices.shape[1]), near.query])
            row = np.concatenate([indices.astype(np.int64).reshape(-1), self.own + near.local])
            order = np.argsort(query, kind="stable")
            z = self._enter_all(rows)
            order, measure = self._nearest_of(z, query[order], row[order])
            found = self._decide(order, measure)
            if self._tied and (linked := self._are_linked(z, indices[:, -1], order, measure, near)).any():
                for name, values in self.answers(rows[linked]).items():
                    found[name][linked] = values
            return found
        except (ValueError, TypeError, IndexError, ArithmeticError) as error:
            raise ModelUnusable(f"{self._damaged}: {error}") from None

    def _are_linked(
        self, z: Float64, last: NDArray[np.int32], order: NDArray[np.int64], measure: Float64, near: Nearby
    ) -> NDArray[np.bool_]:
        """Returns (m,) bool: whether a training row beyond the first k may tie with the k-th neighbour after merging.

        Rows at nearly equal distances tie, each with the next. So a taught row can link training rows that did not tie.

        Args:
            z: (m, p) queries in model space.
            last: (m,) indices of the model's own k-th neighbours.
            order: (m, k) neighbours among training and taught rows.
            measure: (m, k) their measures (for most metrics, squares of distances).
            near: the taught rows that may be among the k nearest neighbours.
        """
        kth = self._by.to_distance(measure[:, -1])
        own, added = self._bases(z, last), self._bases(z[near.query], self.own + near.local)
        apart = np.full(len(z), np.inf)
        np.minimum.at(apart, near.query, np.abs(added - kth[near.query]))
        reach, off = 2 * CHAIN * self._tied, _OFF * kth
        takes_part = (order >= self.own).any(axis=1) | (apart <= reach + off)
        found: NDArray[np.bool_] = takes_part & (kth + reach + off >= own)
        return found

    def _bases(self, z: Float64, row: NDArray[Any]) -> Float64:
        return np.asarray(self._by.to_distance(self._by.terms(z, self._rows.take(row)).sum(axis=1)))

    def _nearest_of(
        self, z: Float64, query: NDArray[np.int64], row: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], Float64]:
        order, measure = self._ranking.rank(z, query, row)
        if self._info.metric == "cosine":  # zeros have distance 1 from all: all rows tie
            zeros = z[:, -2] == 1.0
            order[zeros], measure[zeros] = np.arange(self._info.k), 2.0
        return order, measure

    def merge(self, rows: NDArray[np.float32], found: Answers) -> None:
        """Corrects `found`, the model's answers to n `rows` (minus the model's origin), in place."""
        for start in range(0, len(rows), _TOGETHER):
            part = slice(start, start + _TOGETHER)
            self._merge(rows[part], Answers._make(values[part] for values in found))

    def decide(self, row: NDArray[np.float32], local: NDArray[np.int64], found: Answers) -> None:
        """Corrects `found`, the answer to one row, in float64; `local`: all taught rows that may be neighbours."""
        one, many = np.zeros(1, np.int64), np.zeros(len(local), np.int64)
        _write(found, one, self.among(row, found.indices, Nearby(one, many, local, np.zeros(len(local)), one == 0)))

    def _merge(self, rows: NDArray[np.float32], found: Answers) -> None:
        near = self.nearby(rows, found.distances[:, -1])
        if not len(near.some):
            return
        indices, distances = found.indices[near.some], found.distances[near.some]
        blur = Blur(self.doubt(distances[:, -1]), self._tied, self._zero)
        done = Merge(self._info, self.own, indices, distances, near, blur, self._outputs)
        _write(found, near.some[done.chosen], done.outputs)
        if len(rest := done.unsure):
            left = near.only(rest)
            _write(found, left.some, self.among(rows[left.some], indices[rest], left))


def _write(found: Answers, some: NDArray[np.int64], outputs: dict[str, NDArray[Any]]) -> None:
    for name, part in found._asdict().items():
        part[some] = outputs[name]


class JoinedKNN:
    """A model with the rows taught on a device; classifies as `TfliteKNN` does.

    Args:
        exact: the float64 classifier of another `JoinedKNN` with the same rows, to share its memory; None: a new one.

    Raises:
        ModelUnusable: the model's exact tables are damaged.
    """

    def __init__(self, signed: TfliteKNN, joined: Joined, exact: JoinedExact | None = None) -> None:
        self.signed, self._joined, self.chain = signed, joined, signed.chain
        #: The float64 classifier over both sets of rows.
        self.exact = JoinedExact(signed.path, signed.info, joined) if exact is None else exact
        self.info = replace(joined.info, n_train=signed.info.n_train + int(self.exact.kept.sum()))
        self.ids = tuple(row.id for row, kept in zip(joined.rows, self.exact.kept) if kept)
        self.codes = joined.codes[self.exact.kept]
        self._origin, self._one = origin_of(signed.info.origin), self.exact.one_row()
        self._row_type: Any = np.dtype(row_type(self._origin))
        self._new_classes = len(self.info.classes) - len(signed.info.classes)

    @property
    def batch(self) -> int:
        """Number of rows that the model answers in one call; more rows are answered in several batches."""
        return self.signed.batch

    def over(self, signed: TfliteKNN) -> JoinedKNN:
        """Returns `signed`, another loaded copy of the model, joined with the same taught rows."""
        return JoinedKNN(signed, self._joined, self.exact)

    def labels(self, rows: ArrayLike) -> NDArray[np.int32]:
        """Returns the (n,) int32 class indices of n raw rows; `constants.UNKNOWN` for a row answered "unknown"."""
        return self.classify(rows).label

    def classify(self, rows: ArrayLike) -> Answers:
        """Returns the answers to (n, n_features) raw `rows`; indices of taught rows follow those of training rows.

        Raises:
            BadInput: the rows have wrong columns, or a value that is not finite.
        """
        found = self.signed.classify(rows)
        if self._new_classes:
            wide = np.zeros((len(found.label), len(self.info.classes)), np.float32)
            wide[:, : -self._new_classes] = found.probabilities
            found = Answers(found.label, wide, found.indices, found.distances)
        if self._one is not None and type(rows) is np.ndarray and rows.dtype is self._row_type and len(rows) == 1:
            row = rows if self._origin is None else narrow(rows, self._origin)
            if (left := self._one.merge(row[0], found)) is not None:
                self.exact.decide(row, left, found)
            return found
        queries = check_rows(rows, self.signed.info.feature_names, self._origin)
        self.exact.merge(queries, found)
        return found

    def values_of(self, answers: Answers) -> NDArray[np.float64]:
        """Returns (n, t) float64 values of t targets; for t label columns, positions in the sorted labels of each."""
        regressor = self.exact.regressor
        return self.signed.values_of(answers) if regressor is None else regressor.values(answers)
