"""Finds possible neighbours by float32 scores that grow with distance.

Computes the scores of one block of the memory-mapped rows for all queries: by a matrix product, or by differences
(manhattan, unless each column has only two values). Nearly all rows are excluded by the k-th best score so far and a
proven bound of the rounding error. `exact` ranks the remaining rows in float64. Copies no rows. Needs only NumPy.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.inference.mapped_rows import MappedRows
from device_agent.inference.scales import Found as Found
from device_agent.inference.scales import Scale as Scale
from device_agent.system.blas import in_threads

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: Unit roundoff of float32, and the most that a result below the normal numbers is off (ARM rounds these to 0).
_UNIT, _TINY = 2.0**-24, 2.0**-126
#: Scores at a time: 1 MB fits the caches of most boards.
_SCORES = 1 << 18
#: NumPy copies a row of fewer numbers to a buffer before it is compared with one number. (By default, of 8,192.)
_BUFFERED = 1 << 10
#: Groups of scores whose least ones bound the k-th score; at least eight times k.
_GROUPS = 64
#: After so many pairs for each neighbour, the limit is found again: sorting few pairs takes as long as one block.
_ADDED = 4
#: Differences at a time, and squared lengths.
_DIFFERENCES, _SQUARES = 1 << 14, 1 << 18
#: Whole numbers up to here are exact in float32.
_WHOLE = 2.0**24
_MAX, _GREATEST = 1e37, np.finfo(np.float32).max


class BlockSearch:
    """Searches all training rows of one model in float32.

    Args:
        rows: the training rows in model space, minus a fixed row (the centre), as all queries are.
        weights: (p,) float64, multiplies the difference in each coordinate.
        manhattan: True: a measure (what orders neighbours) is a sum of absolute differences; False: of squared ones.
        step: all weighted coordinates of the rows are whole multiples of this number; 0: no such number is known. If
            those of a query are such multiples, too, the query's float32 scores up to `Scale.exact` are exact.
        and_ties: function from a measure to the highest measure that counts as tied with it.
        threads: number of threads that share the blocks of rows of a batch.
    """

    def __init__(
        self,
        rows: MappedRows,
        weights: Float64,
        k: int,
        *,
        manhattan: bool,
        step: float,
        and_ties: Callable[[Any], Any],
        threads: int = 1,
    ) -> None:
        self._rows, self._weights, self._k, self._threads = rows, weights, k, threads
        self._manhattan, self._step, self._and_ties = manhattan, step, and_ties
        self._error = (len(weights) + 8) * _UNIT / (1.0 - (len(weights) + 8) * _UNIT)
        self._weights32 = weights.astype(np.float32)
        squares = self._measure()
        self._differs = manhattan and not self._is_two_valued()
        self._reach = float(np.sqrt(squares.max(initial=0.0)))
        # A power of two that brings scores near 1, so that no product is too small for float32.
        self._lift = 2.0 ** -np.round(2 * np.log2(self._reach)) if 1e-60 < self._reach < 1e60 else 1.0
        self._lifted = weights * self._lift
        self._steepest = float(np.abs(self._lifted).max(initial=0.0))
        self._halves = rows.spread((squares * (self._lift / 2)).astype(np.float32))  # by position, as all scores

    def find(
        self, z: Float64, within: Float64 | None = None, *, by_groups: bool = True
    ) -> tuple[Found, NDArray[np.bool_]]:
        """Returns pairs of a query and a row that may be among its k nearest; and (q,) bool, whether each query fits.

        A query in (q, p) `z` does not fit if it or its scores exceed float32: then it has no pairs. `within` has for
        each query a squared distance (manhattan: distance) within which the caller knows k rows: rows beyond it are
        left out (None: the caller knows none). `by_groups=False` reads all rows, even if the model has groups of rows.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            factors, scale = self._prepare(z)
            fits = np.isfinite(factors).all(axis=1) & (scale.slack < _MAX)
            if not fits.all():
                z, factors, scale = z[fits], factors[fits], scale.take(fits)
                within = None if within is None else within[fits]
            groups = by_groups and within is None
            found = self._search(z, factors, scale) if groups else self._scan(factors, scale, within)
        query, row, score, kth = found
        exact = np.zeros(len(fits), np.bool_)
        exact[fits] = kth <= scale.exact
        measure = scale.base[query] + scale.factor * score.astype(np.float64)
        return Found(np.flatnonzero(fits)[query], row, measure, exact), fits

    def rows_near(self, z: Float64, known: list[int]) -> NDArray[np.int64] | None:
        """Returns the indices of the rows that may be among the k nearest of one (p,) query `z`, or tied with these.

        `known` are the indices of any k rows: the highest of their scores is an upper bound of the k-th best.
        Returns None if the query is too large for float32, or if taught rows were appended to the training rows.
        """
        found = self._prepare_one(z)
        if found is None or len(self._rows.pieces) > 1:
            return None
        factors, base, factor, share, slack = found
        piece = self._rows.pieces[0]
        scores = self._score(factors[np.newaxis], piece, 0, np.empty((1, len(piece)), np.float32))[0]
        kth = max(scores.item(self._rows.position(each)) for each in known)
        most = max(base + factor * (kth + slack), 0.0) * (1.0 + share)
        limit = (float(self._and_ties(most)) * (1.0 + share) - base) / factor + slack
        limit += abs(limit) * 2.0 * _UNIT + _TINY  # more than rounding to float32 takes
        return self._rows.indices((scores <= limit).nonzero()[0]) if limit < _MAX else None

    def _prepare_one(self, z: Float64) -> tuple[Float32, float, float, float, float] | None:
        """Returns factors of one query `z`, and base, factor, share, slack of its `Scale`; None if `z` is too large."""
        if self._manhattan:
            with np.errstate(over="ignore", invalid="ignore"):
                factors, scale = self._prepare(z[np.newaxis])
            base, slack = scale.base.item(), scale.slack.item()
            fits = slack < _MAX and bool(np.isfinite(factors).all())
            return (factors[0], base, scale.factor, scale.share, slack) if fits else None
        weighted = z * self._weights
        square = float(weighted @ weighted)
        length = math.sqrt(square)
        together, longest = self._lift * (length + self._reach) * (length + self._reach), length * self._steepest
        if not together < _MAX or not longest < _MAX:
            return None
        tiny = len(z) * (longest + 2.0 + self._most) * _TINY
        factors = (weighted * self._lifted).astype(np.float32)
        return factors, square, 2.0 / self._lift, 0.0, self._error * together / 2 + tiny

    def _search(self, z: Float64, factors: Float32, scale: Scale) -> tuple[Any, Any, Any, Float32]:
        """Returns m pairs of a query and a row that may be among its k nearest; and each query's k-th lowest score.

        The pairs are three (m,) arrays: position in `z`, index of the row, score (lower is nearer).
        """
        return self._scan(factors, scale)

    def _scan(self, factors: Float32, scale: Scale, within: Float64 | None = None) -> tuple[Any, Any, Any, Float32]:
        most = np.full(len(factors), np.inf, np.float32)  # the k-th score is at most this
        if within is not None:
            most = ((within - scale.base) / scale.factor).astype(np.float32)
        blocks = self._blocks(len(factors))
        threads = min(self._threads, len(blocks)) if len(factors) > 1 else 1
        turns = iter(blocks)  # whichever thread is free takes the next block
        parts = in_threads(threads, lambda: self._scan_some(turns, factors, scale, most, within is not None))
        found, kth, _ = self._keep_near([pairs for part in parts for pairs in part], most, scale)
        query, row, score = found[0]
        return query, self._rows.indices(row), score, kth

    def _scan_some(
        self, blocks: Iterator[tuple[int, Float32]], factors: Float32, scale: Scale, most: Float32, known: bool
    ) -> list[tuple[Any, Any, Any]]:
        """Returns (query, row position, score) arrays of possible neighbours; `known`: k-th scores are up to `most`."""
        found: list[tuple[Any, Any, Any]] = []
        memory = np.empty(0, np.float32)
        added = 0  # pairs since the limit was found
        with np.errstate(over="ignore", invalid="ignore"), _small_buffer():  # count in this thread only
            limit = self._limit(most, scale)[1] if known else None
            for start, rows in blocks:
                size = len(factors) * len(rows)
                memory = memory if size <= len(memory) else np.empty(size, np.float32)
                scores = self._score(factors, rows, start, memory[:size].reshape(len(factors), len(rows)))
                if limit is None:
                    limit = self._limit(_bound(scores, self._k), scale)[1]
                flat = np.flatnonzero(scores <= limit[:, np.newaxis])
                query, column = np.divmod(flat, len(rows)) if len(scores) > 1 else (np.zeros_like(flat), flat)
                found.append((query, column + start, scores.reshape(-1)[flat]))
                added += len(flat)
                if added > _ADDED * self._k * len(factors):
                    found, kth, limit = self._keep_near(found, most, scale)
                    added = 0
                    if not known:  # of later rows, those at the k-th distance come after it
                        limit = np.where(kth <= scale.exact, np.nextafter(kth, np.float32(-np.inf)), limit)
        return found

    def _keep_near(
        self, found: list[tuple[Any, Any, Any]], most: Float32, scale: Scale
    ) -> tuple[list[tuple[Any, Any, Any]], Float32, Float32]:
        """Keeps the pairs that may still be among the k nearest; returns them, (q,) k-th scores, and (q,) limits.

        A row with a score above the limit of a query is not its neighbour. `found` is a list of (query, row, score)
        arrays; the list that is returned has one entry. The k-th scores are at most `most`, (q,) numbers.
        """
        query, row, score = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.lexsort((score, query))
        query, row, score = query[order], row[order], score[order]
        last = np.searchsorted(query, np.arange(len(most))) + (self._k - 1)
        scores = np.append(score, [np.inf] * self._k).astype(np.float32, copy=False)
        has_k = last < np.append(last[1:] - (self._k - 1), len(query))
        kth = np.minimum(most, np.where(has_k, scores[last], np.float32(np.inf)))
        limit = self._limit(kth, scale)[1]
        near = np.flatnonzero(score <= limit[query])
        return [(query[near], row[near], score[near])], kth, limit

    def _limit(self, kth: Float32, scale: Scale) -> tuple[Float64, Float32]:
        """Returns (q,) limits up to which a row may tie with the k-th neighbour: as measures, and as scores."""
        measure = scale.base + scale.factor * (kth + scale.slack)
        measure = self._and_ties(np.maximum(measure, 0.0) * (1.0 + scale.share)) * (1.0 + scale.share)
        limit = (measure - scale.base) / scale.factor + scale.slack
        rounded = np.minimum(np.nextafter(limit.astype(np.float32), np.float32(np.inf)), _GREATEST)
        return measure, np.where(kth <= scale.exact, kth, rounded)

    def _blocks(self, queries: int) -> list[tuple[int, Float32]]:
        """Returns the blocks of rows whose scores are computed together: position of the first row, and the rows."""
        step, start, found = max(1, _SCORES // max(1, queries)), 0, []
        for piece in self._rows.pieces:
            found += [(start + begin, piece[begin : begin + step]) for begin in range(0, len(piece), step)]
            start += len(piece)
        return found

    def _score(self, factors: Float32, rows: Float32, start: int, scores: Float32) -> Float32:
        """Fills and returns (q, r) `scores` of q queries and r `rows`; the first row has the position `start`."""
        halves = self._halves[start : start + len(rows)]  # 0 for manhattan
        if self._differs:
            self._add_differences(factors, rows, scores)
            return np.add(scores, halves, out=scores)
        if len(factors) == 1:
            np.dot(rows, factors[0], out=scores[0])
        else:
            np.matmul(factors, rows.T, out=scores)
        return np.subtract(halves, scores, out=scores)

    def _add_differences(self, factors: Float32, rows: Float32, scores: Float32) -> None:
        step = max(1, _DIFFERENCES // rows.shape[1])
        buffer = np.empty((step, rows.shape[1]), np.float32)
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            apart = buffer[: len(part)]
            for query, factor in enumerate(factors):
                np.subtract(part, factor, out=apart)
                np.abs(apart, out=apart)
                np.dot(apart, self._weights32, out=scores[query, start : start + len(part)])

    def _prepare(self, z: Float64) -> tuple[Float32, Scale]:
        """Returns the queries `z` as `_score` takes them, (q, p), and the scale that converts scores into measures."""
        if not self._manhattan:
            return self._by_products(z)
        return self._by_differences(z) if self._differs else self._by_sides(z)

    def _by_differences(self, z: Float64) -> tuple[Float32, Scale]:
        """Returns `z` in float32, and the scale of scores that are sums of differences; `slack` bounds the rounding."""
        factors = z.astype(np.float32)
        lost = (np.abs(z - factors) * np.abs(self._weights)).sum(axis=1)
        most = float(np.abs(self._weights).max(initial=0.0))
        far = (np.abs(z).max(axis=1, initial=0.0) + self._most) * max(most, 1.0) * len(self._weights)
        slack = np.where(far < _MAX, lost + len(self._weights) * _TINY * (1.0 + most), np.inf)
        exact = np.where(self._whole(z), (_WHOLE - 1.0) * self._step, -np.inf)
        share = self._error / (1.0 - self._error)
        return factors, Scale(np.zeros(len(z)), 1.0, share, slack, exact)

    def _by_sides(self, z: Float64) -> tuple[Float32, Scale]:
        """Returns factors of the queries `z`, and the scale of the scores, for manhattan and columns of two values.

        The values are low and high. For coordinates x of a query and t of a row, |x - t| = |x - low| + (t - low)
        (|x - high| - |x - low|) / (high - low), which is linear in t: all scores are one matrix product.
        """
        wide = np.where(self._high > self._low, self._high - self._low, 1.0)
        to_low = np.abs(z - self._low) * self._weights
        slope = (np.abs(z - self._high) * self._weights - to_low) / wide
        products = np.abs(slope) * np.maximum(np.abs(self._low), np.abs(self._high))
        together = products.sum(axis=1)
        base = (to_low - self._low * slope).sum(axis=1)
        tiny = np.abs(slope).sum(axis=1) + len(self._weights) * (2.0 + self._most)
        slack = self._error * (together + np.abs(base)) + tiny * _TINY
        slack = np.where(together + np.abs(base) < _MAX, slack, np.inf)
        whole = self._whole(z) & (np.abs(slope) == np.where(self._high > self._low, self._weights, 0.0)).all(axis=1)
        exact = np.where(whole & (together + to_low.sum(axis=1) <= _WHOLE * self._step), np.inf, -np.inf)
        return (-slope).astype(np.float32), Scale(base, 1.0, 0.0, slack, exact)

    def _by_products(self, z: Float64) -> tuple[Float32, Scale]:
        """Returns factors of the queries `z`, whose products with rows give the scores, and the scale of the scores.

        The score of a query x and a row t is ‖t‖²/2 - x·t. With u = 2^-24, a sum of p products, added in any order, is
        off by at most p u ‖x‖ ‖t‖ (Higham 2002, 3.5), ‖t‖²/2 by at most (p + 4) u of itself, the factors and the
        difference by at most 2 u of themselves: together less than (p + 8) u (‖x‖ + ‖t‖)²/2.
        """
        weighted = z * self._weights
        squares = np.einsum("ij,ij->i", weighted, weighted)
        together = (np.sqrt(squares) + self._reach) ** 2
        factors64 = weighted * self._lifted
        tiny = np.abs(factors64).sum(axis=1) + len(self._weights) * (2.0 + self._most)
        slack = self._lift * self._error * together / 2 + tiny * _TINY
        slack = np.where(self._lift * together < _MAX, slack, np.inf)
        whole = self._whole(z) & (together <= _WHOLE * self._step**2)
        exact = np.where(whole, np.inf, -np.inf)
        return factors64.astype(np.float32), Scale(squares, 2.0 / self._lift, 0.0, slack, exact)

    def _whole(self, z: Float64) -> NDArray[np.bool_]:
        """Returns (q,) bool: whether all weighted coordinates of each query in `z` are whole multiples of `step`."""
        if not self._step:
            return np.zeros(len(z), np.bool_)
        units = z * (self._weights / self._step)
        found: NDArray[np.bool_] = (units == np.rint(units)).all(axis=1)
        return found

    def _measure(self) -> Float64:
        """Returns (n,) squared lengths of weighted rows (0 for manhattan); stores each column's least and greatest."""
        found = []
        self._low, self._high = (self._rows.blocks[0][0].astype(np.float64) for _ in range(2))
        for part in self._parts():
            np.minimum(self._low, part.min(axis=0), out=self._low)
            np.maximum(self._high, part.max(axis=0), out=self._high)
            weighted = part[:, :0] if self._manhattan else part * self._weights
            found.append(np.einsum("ij,ij->i", weighted, weighted))
        self._most = float(np.maximum(-self._low, self._high).max(initial=0.0))
        squares: Float64 = np.concatenate(found).astype(np.float64)
        return squares

    def _is_two_valued(self) -> bool:
        low, high = self._low.astype(np.float32), self._high.astype(np.float32)
        return all(bool(((part == low) | (part == high)).all()) for part in self._parts())

    def _parts(self) -> Iterator[Float32]:
        for block in self._rows.blocks:
            step = max(1, _SQUARES // block.shape[1])
            yield from (block[start : start + step] for start in range(0, len(block), step))


@contextlib.contextmanager
def _small_buffer() -> Iterator[None]:
    before = np.setbufsize(_BUFFERED)
    try:
        yield
    finally:
        np.setbufsize(before)


def _bound(scores: Float32, k: int) -> Float32:
    """Returns (q,) upper bounds of the k-th lowest of each query's (r,) scores; infinity if r is less than k.

    The scores are cut into groups. The bound is the k-th lowest of the groups' minima, which belong to k different
    rows. Partitioning all scores would take longer.
    """
    count, width = scores.shape
    groups = min(width, max(_GROUPS, 8 * k))
    if groups < k:
        return np.full(count, np.inf, np.float32)
    whole = width // groups
    least = np.fmin.reduce(scores[:, : whole * groups].reshape(count, whole, groups), axis=1)  # gaps may hold NaN
    found: Float32 = np.partition(least, k - 1, axis=1)[:, k - 1]
    return np.fmin(found, np.float32(np.inf))  # NaN if fewer than k groups have a row
