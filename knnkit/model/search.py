"""The nearest training rows of a query, in TensorFlow: candidates, their exact differences, and what lies beyond.

Candidates come from one matrix product, `top_k(x·Tᵀ - ‖t‖²/2)`, over all coordinates or over a projection's few; their
exact differences rank them. Few coordinates, few rows and Manhattan need no candidates: there all differences are
taken. Says how far all others are at least; never votes, and never decides what is certain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from knnkit.model.layout import Layout, block_width
from knnkit.model.projection import Projection
from knnkit.model.space import Float32, Space, relative_error
from knnkit.model.topk import greatest, least

#: Candidates beyond k that the matrix product hands to the exact ranking. More would not make more rows certain (it is
#: ties at the k-th place that are not), and TOPK_V2 keeps a heap of them: a longer one takes longer.
OVER_FETCH = 3
#: Coordinates up to which the differences themselves, column by column, are taken instead of a matrix product: they
#: need no ranking again, and with one coordinate the converter would fold the centre into the product's bias, where raw
#: values of 10,000 cancel.
FEW_COLUMNS = 3
_MAX_FLOAT32 = np.float32(np.finfo(np.float32).max)
#: TOPK_V2 ends in std::sort, which must not meet scores that are no numbers once it has more than this many to sort.
_SORTED_WHATEVER = 16
#: Coordinates whose products with any row's stay numbers; a row that has a greater one is too far off to be certain.
_FARTHEST = 3e18
#: Scales from which on a query that is weighted twice may overflow before it is far off.
_STEEP = 1e18


@dataclass(frozen=True)
class Nearest:
    """What was found; the measure is the squared distance, for Manhattan the distance.

    Attributes:
        measure: (b, k) float32, ascending.
        indices: (b, k) int32 training rows, by (measure, index).
        following: (b,) float32, under which no other row's measure lies; None where every row is a neighbour.
    """

    measure: Any
    indices: Any
    following: Any


class Search(tf.Module):  # type: ignore[misc]
    """Finds the k nearest of enrolled rows.

    Args:
        space: of the rows.
        enrolled: (n, p) float32 rows in it.
        k: neighbours, at most n.
        projection: in which candidates are looked for; None for all coordinates.
    """

    def __init__(self, space: Space, enrolled: Float32, k: int, projection: Projection | None) -> None:
        super().__init__(name="search")
        count, width = enrolled.shape
        self.space, self.enrolled, self.k = space, enrolled, k
        self.by_columns = width <= FEW_COLUMNS
        self.candidates = min(count, projection.candidates if projection else k + OVER_FETCH)
        direct = self.by_columns or self.candidates == count or space.metric == "manhattan"
        self._direct, self.projection = direct, None if direct else projection
        searched = self.projection.rows if self.projection else enrolled
        self.layout = Layout(count, 0) if direct else Layout.of(searched)
        #: What is stored in one piece, with its blocks inside it.
        self.table = self.layout.table(searched)
        self._table = tf.Variable(self.table, trainable=False, name="searched_rows")
        self._rows = tf.Variable(enrolled, trainable=False, name="training_rows") if self.projection else self._table
        self._blocks = [
            tf.Variable(self.table[start : start + rows], trainable=False, name=f"block_{start}")
            for start, rows in (self.layout.blocks(count) if self.layout.gap else [])
        ]

    @property
    def rho(self) -> np.float32:
        """Relative error of a squared distance or a score."""
        return np.float32(relative_error(len(self.space.centre)))

    def nearest(self, query: Any) -> Nearest:
        """Returns the k nearest rows of (b, p) float32 queries, offsets from the space's centre."""
        if self.by_columns:
            return self._among_columns(query)
        if self._direct:
            return self._rank(self._measure(tf.expand_dims(query, 1), tf.expand_dims(self._table, 0)), None)
        weighted = self._weigh(query)
        if self.candidates > _SORTED_WHATEVER:
            weighted = tf.clip_by_value(weighted, -_FARTHEST, _FARTHEST)
        places, beyond = self._choose(weighted)
        rows = tf.gather(self._rows, places if self._rows is self._table else self._index(places))
        found = self._rank(self._measure(tf.expand_dims(query, 1), rows), places)
        following = beyond if found.following is None else tf.minimum(found.following, beyond)
        return Nearest(found.measure, found.indices, following)

    # --- all differences ------------------------------------------------------------------------------------------
    def _among_columns(self, query: Any) -> Nearest:
        """The differences of one coordinate after the other: (b, n) numbers each, which vector units like."""
        count = len(self.enrolled)
        width = block_width(count, 1024, 8) if query.shape[0] == 1 else block_width(count, 160)
        parts = [self._measure_columns(query, self.enrolled[start : start + width]) for start in range(0, count, width)]
        measure, indices = least(parts, min(self.k + 1, count))
        return self._split(measure, indices)

    def _measure_columns(self, query: Any, rows: Float32) -> Any:
        total = None
        for column, scale in enumerate(self.space.scale.astype(np.float32)):
            one, others = query[:, column : column + 1], np.ascontiguousarray(rows[:, column])[np.newaxis]
            part = self._part(one, others, scale)
            total = part if total is None else total + part
        return self._level(total)

    def _part(self, one: Any, others: Any, scale: Any) -> Any:
        """What a coordinate adds to the measure."""
        if self.space.metric == "manhattan":
            return tf.abs(one - others) if np.all(scale == 1.0) else tf.abs((one - others) * scale)
        if np.all(scale == 1.0):
            return tf.math.squared_difference(one, others)
        return tf.square((one - others) * scale)

    def _measure(self, one: Any, others: Any) -> Any:
        parts = self._part(one, others, self.space.scale.astype(np.float32))
        return self._level(tf.reduce_sum(parts, axis=2))

    def _level(self, measure: Any) -> Any:
        """Counts what lies within `space.zero` as an exact match."""
        if self.space.zero <= 0.0:
            return measure
        return measure * tf.cast(measure > np.float32(self.measure_of(self.space.zero)), tf.float32)

    def measure_of(self, distance: Any) -> Any:
        """Returns what a distance is ranked by."""
        return distance if self.space.metric == "manhattan" else distance * distance

    # --- candidates -----------------------------------------------------------------------------------------------
    def _choose(self, weighted: Any) -> tuple[Any, Any]:
        """Returns the places of the candidates, ascending, and the measure under which no other row lies."""
        squared, searched, slack = tf.reduce_sum(weighted * weighted, axis=1), weighted, self.rho
        within = squared
        if self.projection:
            searched = tf.matmul(weighted, tf.constant(self.projection.matrix))
            within = tf.reduce_sum(searched * searched, axis=1)
            slack = np.float32(slack + self.projection.blur)
        factors = self._factors(searched)
        best, places = self._best(factors)
        # In order of the training index, so that an exact tie goes to the lower one.
        places = -tf.math.top_k(-places, self.candidates).values
        # No other row scores over the last of these, but for rounding; (‖x‖ + reach)² is at most twice the squares.
        lost = 2.0 * float(slack) * float(self.space.reach) ** 2
        if self.projection:
            within = within - squared * np.float32(2.0 * slack)
        else:
            within = within * np.float32(1.0 - 2.0 * slack)
        beyond = within - (2.0 * best[:, -1] + np.float32(lost))
        if not self.projection and self.space.scale.max() > _STEEP:  # what was clipped scores nothing of worth
            beyond = tf.where(tf.reduce_max(tf.abs(factors), axis=1) < _MAX_FLOAT32, beyond, -_MAX_FLOAT32)
        return places, beyond

    def _factors(self, searched: Any) -> Any:
        """What the table is multiplied with: it holds rows before `scale`, a projection's after."""
        if self.projection:
            return searched
        factors = self._weigh(searched)
        if factors is searched:
            return factors
        # Without one of them the converter multiplies the scale into the weights, and stores them again.
        factors = tf.minimum(factors, _MAX_FLOAT32)
        return tf.maximum(factors, -_MAX_FLOAT32) if self.space.scale.max() > _STEEP else factors

    def _best(self, factors: Any) -> tuple[Any, Any]:
        """Returns the (b, c) best scores and their places in the table."""
        rows = self.projection.rows.astype(np.float64) if self.projection else self.enrolled * self.space.scale
        bias = (-0.5 * (rows * rows).sum(axis=1)).astype(np.float32)
        if not self._blocks or factors.shape[0] == 1:  # one row reads every weight once, blocks or not
            bias = self.layout.column(bias, -float(_MAX_FLOAT32))
            return tuple(tf.math.top_k(_scores(factors, self._table, bias), self.candidates))
        parts = [
            _scores(factors, block, bias[number * self.layout.block :][: block.shape[0]])
            for number, block in enumerate(self._blocks)
        ]
        best, indices = greatest(parts, self.candidates)
        return best, self.layout.place(indices)

    def _weigh(self, offsets: Any) -> Any:
        return offsets if (self.space.scale == 1.0).all() else offsets * self.space.scale.astype(np.float32)

    # --- ranking --------------------------------------------------------------------------------------------------
    def _rank(self, measure: Any, places: Any) -> Nearest:
        """Ranks (b, m) measures of the rows at `places` in the table; None where they are all rows."""
        negative, order = tf.math.top_k(-measure, min(self.k + 1, int(measure.shape[1])))
        found = self._split(-negative, order)
        if places is None:
            return found
        return Nearest(found.measure, self._index(tf.gather(places, found.indices, batch_dims=1)), found.following)

    def _split(self, measure: Any, indices: Any) -> Nearest:
        following = measure[:, self.k] if measure.shape[1] > self.k else None
        return Nearest(measure[:, : self.k], indices[:, : self.k], following)

    def _index(self, places: Any) -> Any:
        """Returns the training rows at places of the table; where all scores overflow, a gap stands for one nearby."""
        if not self.layout.gap:
            return places
        indices = self.layout.index(np.arange(len(self.table), dtype=np.int32))
        return tf.gather(tf.constant(np.clip(indices, 0, len(self.enrolled) - 1).astype(np.int32)), places)


def _scores(factors: Any, rows: Any, bias: Float32) -> Any:
    # Written so that the converter makes one FULLY_CONNECTED of it, bias and all.
    return tf.nn.bias_add(tf.matmul(factors, rows, transpose_b=True), tf.constant(bias))
