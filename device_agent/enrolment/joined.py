"""Answers of a model together with taught rows.

The answers equal those of one model that has both the training rows and the taught rows: the float64 reference over
both defines them. The taught rows come after the training rows, in the same space, with the same k, metric, weights and
thresholds. The model answers a row first. A search among the taught rows finds those that may be nearer than its k-th
neighbour, and `merge` inserts them by distance. Never reads the journal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from device_agent.enrolment.merge import Blur, Merge, Nearby
from device_agent.enrolment.one_row import OneRow
from device_agent.inference.block_search import BlockSearch
from device_agent.inference.exact import ExactKnn, Float64
from device_agent.inference.mapped_rows import MappedRows
from device_agent.inference.tflite_knn import Answers, TfliteKNN
from device_agent.inference.ties import CHAIN
from device_agent.shared.enrolment.joined import Joined
from device_agent.shared.golden.judge import base_distance
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.protocol.record import replace
from device_agent.shared.queries import check_rows, narrow, origin_of
from device_agent.shared.regression import Regressor

if TYPE_CHECKING:
    from device_agent.shared.embedding.chain import Chain

#: Share by which a float64 value is off at most after one operation, and after a sum of a few thousand terms.
_UNIT, _ROUNDING = 2.0**-52, 2.0**-36
#: Most balls around the added rows: one for each label, and one for all others.
_BALLS = 8
_MAX_FLOAT32 = np.finfo(np.float32).max
#: float32 distances of a model without `near` are off by less than this share.
_BLUR = 1e-3
#: Queries that are merged together: their scores fit the caches of most boards.
_TOGETHER = 512
#: The rounding of float64 has to be so many times less than what float32 leaves open.
_CLEAR = 64.0
_CHUNK_BYTES = 4 << 20  # of float64 differences at a time


class JoinedExact(ExactKnn):
    """The float64 classifier over the training rows of a model file and the taught rows.

    Args:
        path: the model file.
        info: the model's knn.json.
        joined: the taught rows.

    Raises:
        ModelUnusable: exact.npz is missing or damaged.
    """

    def __init__(self, path: str, info: KnnInfo, joined: Joined) -> None:
        super().__init__(path, info)
        self.own, self._near = info.n_train, info.near
        kept, self._local = self.enrol(narrow(joined.features, origin_of(info.origin)))
        #: Which of the rows to add are within the range of float32; the others take no part.
        self.kept = kept
        self._info = replace(joined.info, n_train=info.n_train + int(kept.sum()), groups=None)
        self._rows.append(self._local)
        self._classes = np.append(self._classes, joined.codes[kept])
        if isinstance(self.regressor, Regressor) and joined.targets is not None:
            targets = np.concatenate([self.regressor.targets, joined.targets[kept]])
            self.regressor = Regressor(targets, info.k, info.weights)
        self._among_local: BlockSearch | None = None
        self._centres, self._radius = _balls((self._local * self._scale).astype(np.float64), joined.codes[kept])
        self._lengths = np.sqrt((self._centres**2).sum(axis=1))

    def enrol(self, rows: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Returns (n,) bool, whether each (n, n_features) row is finite in model space, and the finite rows, mapped."""
        with np.errstate(over="ignore", invalid="ignore"):
            mapped = self._enter_all(rows).reshape(len(rows), len(self._centre))
            if self._info.metric == "cosine":  # a training row of zeros is marked in the other column than a query
                mapped[:, -1] = mapped[:, -2] + self._centre[-2] - self._centre[-1]
                mapped[:, -2] = -self._centre[-2]
            found = mapped.astype(np.float32)
        kept = np.isfinite(found).all(axis=1)
        return kept, np.ascontiguousarray(found[kept])

    def doubt(self, kth: NDArray[Any]) -> Float64:
        """Returns (n,): how much distances must differ for a certain order in float32; `kth` (n,) k-th distances."""
        far, near = np.asarray(kth, np.float64), self._near
        return far * _BLUR if near is None else near.share * np.maximum(far, near.least)

    def one_row(self) -> OneRow | None:
        """Returns a fast `OneRow` merge; None if there are label sets, no `near`, or no usable taught rows."""
        if self._near is None or self._info.label_sets is not None or not self.kept.any():
            return None
        reach, how = (self._tied, self._zero), (self._weights, self._unit, self._classes)
        return OneRow(self._info, self._near, self._local, self._enter_one, reach, *how)

    def nearby(self, rows: NDArray[np.float32], kth: NDArray[Any]) -> Nearby:
        """Finds the queries whose k nearest may include a taught row, and these taught rows.

        Args:
            rows: (n, n_features) float32 queries, minus the model's origin.
            kth: (n,) distance of the k-th of the model's own rows.
        """
        z, blur = self._enter_roughly(rows)
        doubt, beyond = self.doubt(kth), blur + (CHAIN * self._tied + self._zero)
        base = base_distance(kth + doubt, self._info.metric) + beyond
        base[(kth >= _MAX_FLOAT32) | ~np.isfinite(base)] = np.inf  # farther ones are not told apart
        some = np.flatnonzero(~self._is_apart(z, base)) if len(self._local) else np.array([], np.int64)
        if not len(some):
            return Nearby(some, some, some, np.array([]), np.array([], np.bool_))
        query, local = self._find(z[some], base[some])
        there, query = np.unique(query, return_inverse=True)
        some = some[there]
        with np.errstate(invalid="ignore", over="ignore"):
            moved = blur if self._info.metric in ("euclidean", "manhattan") else blur * (2.0 * base + blur)
            clear = np.isfinite(base) & (_CLEAR * moved <= doubt)
        return Nearby(some, query, local, self._to_local(z[some], query, local), clear[some])

    def _find(self, z: Float64, base: Float64) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns pairs of the index of a (n, p) query, ascending, and a taught row that may be among its k nearest."""
        manhattan = self._info.metric == "manhattan"
        if self._among_local is None:
            how: dict[str, Any] = {"manhattan": manhattan, "step": 0.0, "and_ties": self._by.and_ties}
            self._among_local = BlockSearch(MappedRows(self._local), self._weights, self._info.k, **how)
        within = base / self._unit
        with np.errstate(over="ignore"):
            found, fits = self._among_local.find(z, within if manhattan else within * within)
        query, local = found.query, found.row
        if not fits.all():  # too large for float32: all added rows
            strange, every = np.flatnonzero(~fits), np.arange(len(self._local))
            query = np.concatenate([query, np.repeat(strange, len(every))])
            local = np.concatenate([local, np.tile(every, len(strange))])
            order = np.argsort(query, kind="stable")
            query, local = query[order], local[order]
        return query, local

    def _is_apart(self, z: Float64, base: Float64) -> NDArray[np.bool_]:
        """Returns (n,) bool: whether all taught rows are farther than (n,) `base` from (n, p) rows in model space."""
        at = z * self._scale
        # A product with the centres, off by a few 2^-52 (length + length)². Manhattan distances are never less.
        squares = np.einsum("ij,ij->i", at, at)[:, np.newaxis]
        lost = (at.shape[1] + 16) * _UNIT * (np.sqrt(squares) + self._lengths) ** 2
        squares = squares + self._lengths**2 - 2.0 * (at @ self._centres.T) - lost
        far = np.sqrt(np.maximum(squares, 0.0)) * (1.0 - _ROUNDING) > base[:, np.newaxis] + self._radius
        found: NDArray[np.bool_] = far.all(axis=1)
        return found

    def _enter_roughly(self, rows: NDArray[np.float32]) -> tuple[Float64, Float64]:
        """Maps many rows into model space at once, with sums in any order; `_enter_all` fixes the order.

        Returns (n, p) rows in model space, and (n,) bounds on their distance from those of `_enter_all`.
        """
        if not self._steps:
            return self._enter_all(rows), np.zeros(len(rows))
        z, blur = rows.astype(np.float64), np.zeros(len(rows))
        with np.errstate(all="ignore"):
            for kind, a, b in self._steps:
                if kind == "affine":
                    z, blur = (z - a) * b, blur * np.abs(b).max()
                elif kind == "linear":
                    z, reach = z - b, np.linalg.norm(a)
                    blur = (blur + z.shape[1] * _UNIT * np.linalg.norm(z, axis=1)) * reach
                    z = z @ a
                else:
                    norm = np.linalg.norm(z, ord=2.0 if kind == "cosine" else float(a), axis=1)
                    blur = blur * (1.0 + z.shape[1])  # a coordinate is at most the norm, so this is over sqrt(p) of it
                    blur = np.where(blur > 0.0, blur / norm, 0.0) + z.shape[1] * _UNIT
                    z = z / np.where(norm > 0.0, norm, 1.0)[:, np.newaxis]
                    if kind == "cosine":
                        z = np.column_stack([z, norm == 0.0, np.zeros(len(z))])
                blur += 4.0 * _UNIT * np.linalg.norm(z, axis=1)
            z -= self._centre
            blur += 4.0 * _UNIT * np.linalg.norm(z, axis=1)
            blur *= np.abs(self._scale).max() * (1.0 if self._info.metric != "manhattan" else np.sqrt(z.shape[1]))
        return z, np.where(np.isfinite(blur), blur, np.inf)

    def _to_local(self, z: Float64, query: NDArray[np.int64], local: NDArray[np.int64]) -> Float64:
        """Returns the (m,) distances between queries and taught rows, with a relative error below `_ROUNDING`."""
        found = np.empty(len(query))
        step = max(1, _CHUNK_BYTES // (8 * z.shape[1]))
        for start in range(0, len(query), step):
            part = slice(start, start + step)
            terms = (z[query[part]] - self._local[local[part]]) * self._weights
            if self._info.metric == "manhattan":
                np.abs(terms).sum(axis=1, out=found[part])
            else:
                np.einsum("ij,ij->i", terms, terms, out=found[part])
        return self._by.to_metric(found)

    def among(
        self, rows: NDArray[np.float32], indices: NDArray[np.int32], kth: NDArray[Any], near: Nearby
    ) -> dict[str, NDArray[Any]]:
        """Returns the float64 outputs for m queries, by output name, with taught rows among the candidates.

        Args:
            rows: (m, n_features) float32 queries, minus the model's origin.
            indices: (m, k) their neighbours among the model's own rows.
            kth: (m,) distance of the k-th of these.
            near: the taught rows that may be among their k nearest.
        """
        try:
            query = np.concatenate([np.repeat(np.arange(len(rows)), indices.shape[1]), near.query])
            row = np.concatenate([indices.astype(np.int64).reshape(-1), self.own + near.local])
            order = np.argsort(query, kind="stable")
            z = self._enter_all(rows)
            found = self._decide(*self._nearest_of(z, query[order], row[order]))
            if self._tied:  # ties form chains, in which an added row may link others of the model's own
                last = base_distance(found[constants.OUTPUT_DISTANCES][:, -1], self._info.metric)
                linked = last + 2 * CHAIN * self._tied >= base_distance(kth * (1.0 - _BLUR), self._info.metric)
                if linked.any():
                    for name, values in self.answers(rows[linked]).items():
                        found[name][linked] = values
            return found
        except (ValueError, TypeError, IndexError, ArithmeticError) as error:
            raise ModelUnusable(f"{self._damaged}: {error}") from None

    def _nearest_of(
        self, z: Float64, query: NDArray[np.int64], row: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], Float64]:
        order, measure = self._rank(z, query, row)
        if self._info.metric == "cosine":  # zeros have distance 1 from all: all rows tie
            zeros = z[:, -2] == 1.0
            order[zeros], measure[zeros] = np.arange(self._info.k), 2.0
        return order, measure

    def merge(self, rows: NDArray[np.float32], found: Answers) -> None:
        """Inserts taught rows into the answers `found` to (n, n_features) float32 rows, minus the origin; in place."""
        for start in range(0, len(rows), _TOGETHER):
            part = slice(start, start + _TOGETHER)
            self._merge(rows[part], Answers._make(values[part] for values in found))

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
            _write(found, left.some, self.among(rows[left.some], indices[rest], distances[rest, -1], left))


def _write(found: Answers, some: NDArray[np.int64], outputs: dict[str, NDArray[Any]]) -> None:
    for name, part in found._asdict().items():
        part[some] = outputs[name]


def _balls(rows: Float64, codes: NDArray[np.int32]) -> tuple[Float64, Float64]:
    """Returns (m, p) centres and (m,) radii of balls around the (n, p) rows: one ball per label, at most `_BALLS`."""
    groups = np.minimum(np.unique(codes, return_inverse=True)[1].reshape(-1), _BALLS - 1)
    centres = np.array([rows[groups == group].mean(axis=0) for group in range(groups.max(initial=-1) + 1)])
    centres = centres.reshape(-1, rows.shape[1])
    radius = np.zeros(len(centres))
    np.maximum.at(radius, groups, np.sqrt(((rows - centres[groups]) ** 2).sum(axis=1)))
    lengths = np.sqrt((centres**2).sum(axis=1))
    return centres, radius * (1.0 + _ROUNDING) + lengths * _ROUNDING


class JoinedKNN:
    """A model with the rows taught on a device; classifies as `TfliteKNN` does.

    Args:
        signed: the model of the signed release.
        joined: the taught rows.
        exact: the float64 classifier of another `JoinedKNN` with the same rows, to share its memory.

    Raises:
        ModelUnusable: the model's exact tables are damaged.
    """

    def __init__(self, signed: TfliteKNN, joined: Joined, exact: JoinedExact | None = None) -> None:
        self.signed, self._joined = signed, joined
        self._exact = JoinedExact(signed.path, signed.info, joined) if exact is None else exact
        self.info = replace(joined.info, n_train=signed.info.n_train + int(self._exact.kept.sum()))
        self.ids = tuple(row.id for row, kept in zip(joined.rows, self._exact.kept) if kept)
        self.codes = joined.codes[self._exact.kept]
        self._origin, self._one = origin_of(signed.info.origin), self._exact.one_row()
        self._new_classes = len(self.info.classes) - len(signed.info.classes)

    @property
    def batch(self) -> int:
        """Number of rows of the batch graph; see `TfliteKNN.batch`."""
        return self.signed.batch

    @property
    def chain(self) -> Chain | None:
        """The stages of the model; None if it has none."""
        return self.signed.chain

    def over(self, signed: TfliteKNN) -> JoinedKNN:
        """Returns the same taught rows joined with `signed`, another replica of the same model."""
        return JoinedKNN(signed, self._joined, self._exact)

    def labels(self, rows: ArrayLike) -> NDArray[np.int32]:
        """Returns the (n,) int32 class indices of raw rows; see `TfliteKNN.labels`."""
        return self.classify(rows).label

    def classify(self, rows: ArrayLike) -> Answers:
        """Returns the answers to (n, n_features) raw `rows`; indices of taught rows begin at the model's `n_train`.

        Raises:
            BadInput: wrong number of columns, or a value that is not finite.
        """
        found = self.signed.classify(rows)
        if self._new_classes:
            more = np.zeros((len(found.label), self._new_classes), np.float32)
            found = found._replace(probabilities=np.concatenate([found.probabilities, more], axis=1))
        is_one = type(rows) is np.ndarray and rows.dtype == np.float32 and self._origin is None and len(rows) == 1
        if is_one and self._one is not None and self._one.merge(np.asarray(rows), found):
            return found
        queries = check_rows(rows, self.signed.info.feature_names, origin=self._origin)
        self._exact.merge(queries, found)
        return found

    def values_of(self, answers: Answers) -> NDArray[np.float64]:
        """Returns the (n, t) float64 values of `answers` for t targets; see `TfliteKNN.values_of`."""
        regressor = self._exact.regressor
        return self.signed.values_of(answers) if regressor is None else regressor.values(answers)
