"""Answers of a model and taught rows together.

The answers equal those of one model that has the training rows and the taught rows: the float64 reference over both
defines them. The taught rows come after the training rows, in the same space, with the same k, metric, weights and
thresholds. The model answers a row first. If a taught row may be among its k nearest, float64 decides again, among the
model's k neighbours and the taught rows. Never reads the journal.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from device_agent.inference.exact import ExactKnn, Float64
from device_agent.inference.tflite_knn import Answers, TfliteKNN
from device_agent.shared.enrolment.joined import Joined
from device_agent.shared.golden.judge import base_distance
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.protocol.record import replace
from device_agent.shared.queries import check_rows, narrow, origin_of

if TYPE_CHECKING:
    from device_agent.shared.embedding.chain import Chain

#: As in `exact`: how far beyond the k-th neighbour, in `tied`, a tie can reach.
_CHAIN = 8
#: A float64 sum of a few thousand terms is off by less than this share.
_ROUNDING = 2.0**-36
#: Offsets that are rounded to float32 lie so far apart from those that are not, relative to their length.
_ROUNDED = 2.0**-22
#: Most balls around the added rows: one for each label, and one for all others.
_BALLS = 8
_MAX_FLOAT32 = np.finfo(np.float32).max
#: float32 distances of a model without `near` are off by less than this share.
_BLUR = 1e-3


class JoinedExact(ExactKnn):
    """The float64 classifier over the rows of a model file and more rows.

    Args:
        path: the model file.
        info: its knn.json.
        joined: the rows to add.

    Raises:
        ModelUnusable: as `ExactKnn`.
    """

    def __init__(self, path: str, info: KnnInfo, joined: Joined) -> None:
        super().__init__(path, info)
        self._own, self._near = info.n_train, info.near
        kept, local = self.enrol(narrow(joined.features, origin_of(info.origin)))
        #: Which of the rows to add are within the range of float32; the others take no part.
        self.kept = kept
        self._info = replace(joined.info, n_train=info.n_train + int(kept.sum()))
        self._blocks.append(local)
        self._starts = np.append(self._starts, self._info.n_train)
        self._classes = np.append(self._classes, joined.codes[kept])
        self._local = (local * self._scale).astype(np.float64)
        with np.errstate(over="ignore"):
            self._narrow = self._local.astype(np.float32)
            self._squares = np.einsum("ij,ij->i", self._narrow, self._narrow)
        self._reach = float(np.sqrt(np.einsum("ij,ij->i", self._local, self._local).max(initial=0.0)))
        self._centres, self._radius = _balls(self._local, joined.codes[kept])
        self._centre64 = self._centre.astype(np.float64)
        lengths = np.sqrt((self._centres**2).sum(axis=1))
        self._radii = (self._radius + _ROUNDED * lengths).tolist()

    def enrol(self, rows: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Maps (n, n_features) rows into model space; returns (n,) which stay finite in float32, and these, mapped."""
        with np.errstate(over="ignore", invalid="ignore"):
            mapped = self._enter_all(rows).reshape(len(rows), len(self._centre))
            if self._info.metric == "cosine":  # a training row of zeros is marked in the other column than a query
                mapped[:, -1] = mapped[:, -2] + self._centre[-2] - self._centre[-1]
                mapped[:, -2] = -self._centre[-2]
            found = mapped.astype(np.float32)
        kept = np.isfinite(found).all(axis=1)
        return kept, np.ascontiguousarray(found[kept])

    def is_far(self, row: NDArray[np.float32], kth: float) -> bool:
        """Whether no added row can be among the k nearest of one (1, n_features) row. False means: ask `candidates`.

        Uses Python numbers where it can: a NumPy call would take longer than this whole check.
        """
        if self._steps or not kth < _MAX_FLOAT32:
            return False
        near, metric = self._near, self._info.metric
        limit = kth * (1.0 + _BLUR) if near is None else kth + near.share * max(kth, near.least)
        base = sqrt(limit) if metric == "sqeuclidean" else limit
        apart = (row - self._centre64) * self._scale - self._centres
        # Rounding an offset to float32 moves it by 2^-24 of its size.
        squares = np.einsum("ij,ij->i", apart, apart).tolist()
        return all(sqrt(square) * (1.0 - _ROUNDED) > base + radius for square, radius in zip(squares, self._radii))

    def candidates(
        self, rows: NDArray[np.float32], kth: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Finds the rows whose k nearest may include an added row.

        Returns (m,) their indices, and (m, L) bool: which added rows may be among the k nearest of each.

        Args:
            rows: (n, n_features) float32, less the origin.
            kth: (n,) the k-th distance among the model's own rows.
        """
        near = self._near
        limit = kth * (1.0 + _BLUR) if near is None else kth + near.share * np.maximum(kth, near.least)
        base = base_distance(limit, self._info.metric) + (_CHAIN * self._tied + self._zero)
        at = self._enter_all(rows) * self._scale
        apart = at[:, np.newaxis] - self._centres
        # Manhattan distances are never less than Euclidean ones.
        distance = np.sqrt(np.einsum("nmp,nmp->nm", apart, apart))
        far = distance * (1.0 - _ROUNDING) > base[:, np.newaxis] + self._radius
        some = np.flatnonzero(~far.all(axis=1) | (kth >= _MAX_FLOAT32))  # farther ones are not told apart
        return some, self._candidates(at[some], base[some], kth[some]) if len(some) else np.zeros((0, 0), np.bool_)

    def _candidates(self, at: Float64, base: Float64, kth: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Returns (m, L) bool: which added rows may be within the distance `base` of (m, p) weighted rows."""
        squares = np.einsum("ij,ij->i", at, at)
        slack = _error(at.shape[1]) * (np.sqrt(squares) + self._reach) ** 2
        with np.errstate(over="ignore", invalid="ignore"):  # in rows that are not bounded
            scores = at.astype(np.float32) @ self._narrow.T
            scores *= -2.0
            scores += self._squares
            found: NDArray[np.bool_] = scores <= (base * base - squares + slack)[:, np.newaxis]
        # Outside these bounds, float32 squares may overflow or underflow.
        found[~((slack > 1e-30) & (slack < 1e30)) | (kth >= _MAX_FLOAT32)] = True
        return found

    def among(
        self, rows: NDArray[np.float32], indices: NDArray[np.int32], kth: NDArray[Any], added: NDArray[np.bool_]
    ) -> dict[str, NDArray[Any]]:
        """Returns the outputs for (n, n_features) rows, as `answers` would.

        Args:
            rows: float32, less the origin.
            indices: (n, k) their neighbours among the model's own rows.
            kth: (n,) the distance of the k-th of these.
            added: (n, L) as `candidates` returns it.
        """
        try:
            query, local = np.nonzero(added)
            query = np.concatenate([np.repeat(np.arange(len(rows)), indices.shape[1]), query])
            row = np.concatenate([indices.astype(np.int64).reshape(-1), self._own + local])
            order = np.argsort(query, kind="stable")
            z = self._enter_all(rows)
            found = self._decide(*self._nearest_of(z, query[order], row[order]))
            if self._tied:  # ties form chains, in which an added row may link others of the model's own
                last = base_distance(found[constants.OUTPUT_DISTANCES][:, -1], self._info.metric)
                linked = last + 2 * _CHAIN * self._tied >= base_distance(kth * (1.0 - _BLUR), self._info.metric)
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


def _error(width: int) -> float:
    """Returns the error bound of a float32 score, relative to (length + reach)²: four times `relative_error`.

    (6 sqrt(p) + 8) u, u = 2^-24 (`knnkit.model.reference.space`). It is wide because nothing checks the result.
    """
    return float(4.0 * (6.0 * np.sqrt(width) + 8.0) * 2.0**-24)


def _balls(rows: Float64, codes: NDArray[np.int32]) -> tuple[Float64, Float64]:
    """Returns (m, p) centres and (m,) radii of balls that hold the (L, p) rows: one for each label if there are few."""
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
        exact: the classifier of another `JoinedKNN` of the same model, for a replica to share.

    Raises:
        ModelUnusable: the model's exact tables are damaged.
    """

    def __init__(self, signed: TfliteKNN, joined: Joined, exact: JoinedExact | None = None) -> None:
        self.signed, self._joined = signed, joined
        self._exact = JoinedExact(signed.path, signed.info, joined) if exact is None else exact
        self.info = replace(joined.info, n_train=signed.info.n_train + int(self._exact.kept.sum()))
        self.ids = tuple(row.id for row, kept in zip(joined.rows, self._exact.kept) if kept)
        self.codes = joined.codes[self._exact.kept]
        self._origin = origin_of(signed.info.origin)
        self._new_classes = len(self.info.classes) - len(signed.info.classes)

    @property
    def batch(self) -> int:
        """As `TfliteKNN.batch`."""
        return self.signed.batch

    @property
    def chain(self) -> Chain | None:
        """The stages of the model."""
        return self.signed.chain

    def over(self, signed: TfliteKNN) -> JoinedKNN:
        """Returns the same rows joined with a replica of the model."""
        return JoinedKNN(signed, self._joined, self._exact)

    def labels(self, rows: ArrayLike) -> NDArray[np.int32]:
        """Returns (n,) int32 class indices, as `TfliteKNN.labels`."""
        return self.classify(rows).label

    def classify(self, rows: ArrayLike) -> Answers:
        """Returns the answers to (n, n_features) raw `rows`; a taught row has an index from the model's `n_train` on.

        Raises:
            BadInput: as `TfliteKNN.classify`.
        """
        found = self.signed.classify(rows)
        if self._new_classes:
            more = np.zeros((len(found.label), self._new_classes), np.float32)
            found = found._replace(probabilities=np.concatenate([found.probabilities, more], axis=1))
        is_one = type(rows) is np.ndarray and rows.dtype == np.float32 and self._origin is None and len(rows) == 1
        if is_one and self._exact.is_far(np.asarray(rows), float(found.distances[0, -1])):  # the fastest way
            return found
        queries = check_rows(rows, self.signed.info.feature_names, origin=self._origin)
        some, added = self._exact.candidates(queries, found.distances[:, -1])
        if len(some):
            kth = found.distances[some, -1]
            answers = self._exact.among(queries[some], found.indices[some], kth, added)
            for name, part in found._asdict().items():
                part[some] = answers[name]
        return found
