"""Which training rows may be the nearest, in TensorFlow: those of greatest score in one product with all of them.

The score of a row is x·t - ‖t‖²/2, which is greatest where the distance is least. `Products` takes it in float32, over
all coordinates or over a projection's few; `QuantizedProducts` in eight bits. Both say how near any other row can be at
most; neither ranks what it found. What eight bits found is held against the exact distances afterwards, so that no
answer depends on a kernel's being right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from knnkit.model.graph.row_blocks import Layout
from knnkit.model.graph.topk import greatest
from knnkit.model.index.cost_sample import PART, WeightedRows
from knnkit.model.index.int8 import LEAST_STEP, STEPS, Quantized, blurred
from knnkit.model.index.projection import Projection
from knnkit.model.reference.space import Float32, Float64, Space, relative_error

_MAX_FLOAT32 = np.float32(np.finfo(np.float32).max)
#: TOPK_V2 ends in std::sort, which must not meet scores that are no numbers once it has more than this many to sort.
_SORTED_WHATEVER = 16
#: Coordinates whose products with any row's stay numbers; a row that has a greater one is too far off to be certain.
_FARTHEST = 3e18
#: Scales from which on a query that is weighted twice may overflow before it is far off.
_STEEP = 1e18


@dataclass(frozen=True)
class Chosen:
    """The candidates of (b,) queries.

    Attributes:
        places: (b, count) int32 places in the table, ascending.
        beyond: (b,) float32 squared distance under which no other row lies.
        agree: takes the candidates' (b, count) float32 squared distances; returns (b,) whether they are those that
            were searched by. None where that needs no proof.
    """

    places: Any
    beyond: Any
    agree: Callable[[Any], Any] | None = None


class Scores(tf.Module):  # type: ignore[misc]
    """The product with a table of rows, and the best of it.

    Args:
        rows: (n, r) float32.
        squares: (n,) their squared lengths, which may be told after a scale that the rows are before.
        layout: how they stand in the file.
        count: how many of the best are wanted.

    Attributes:
        table: (n + gaps, r) float32, what is stored in one piece with its blocks inside it.
        blocks: first place and number of rows of each block.
    """

    def __init__(self, rows: Float32, squares: Float64, layout: Layout, count: int) -> None:
        super().__init__(name="scores")
        self.layout, self.count, self.table = layout, count, layout.table(rows)
        self.blocks = layout.blocks(len(rows))
        self.variable = tf.Variable(self.table, trainable=False, name="searched_rows")
        self._parts = [
            tf.Variable(self.table[start : start + rows], trainable=False, name=f"block_{start}")
            for start, rows in (self.blocks if layout.gap else [])
        ]
        self._bias = (-0.5 * squares).astype(np.float32)

    def best(self, factors: Any) -> tuple[Any, Any]:
        """Returns the (b, count) best scores of (b, r) queries, greatest first, and their places in the table."""
        if not self._parts or factors.shape[0] == 1:  # one row reads every weight once, blocks or not
            return tuple(tf.math.top_k(self.scores(factors), self.count))
        parts = [
            _scores(factors, part, self._bias[number * self.layout.block :][: part.shape[0]])
            for number, part in enumerate(self._parts)
        ]
        return greatest(parts, self.count, [start for start, _ in self.blocks])

    def scores(self, factors: Any) -> Any:
        """Returns the (b, n + gaps) scores of (b, r) queries; none is less than a gap's."""
        return _scores(factors, self.variable, self.layout.column(self._bias, -float(_MAX_FLOAT32)))

    def index(self, places: Any) -> Any:
        """Returns the rows at places of the table; where all scores overflow, a gap stands for one nearby."""
        return tf.gather(tf.constant(self._indices()), places) if self.layout.gap else places

    def place(self, places: Any, other: Layout) -> Any:
        """Returns where the rows at places of this table stand in that of another layout."""
        if self.layout == other:
            return places
        return tf.gather(tf.constant(other.place(self._indices())), places)

    def _indices(self) -> Any:
        places = np.arange(len(self.table), dtype=np.int32)
        return np.clip(self.layout.index(places), 0, len(self._bias) - 1).astype(np.int32)


class Products(Scores):
    """Scores in float32.

    Args:
        space: of the rows.
        enrolled: (n, p) float32 rows in it.
        projection: in which the scores are taken; None for all coordinates.
        count: of the candidates, where there is no projection that says how many.
    """

    def __init__(self, space: Space, enrolled: Float32, projection: Projection | None, count: int) -> None:
        rows = projection.rows if projection else enrolled
        weighted = WeightedRows(rows, np.ones(rows.shape[1]) if projection else space.scale)
        squares = np.concatenate([(part * part).sum(axis=1) for _, part in weighted.parts(PART)])
        super().__init__(rows, squares, Layout.of(rows), projection.candidates if projection else count)
        self.space, self.projection = space, projection

    def choose(self, weighted: Any) -> Chosen:
        """Returns the candidates of queries.

        Args:
            weighted: (b, p) float32 offsets of the queries from the space's centre, after `scale`.
        """
        if self.count > _SORTED_WHATEVER:
            weighted = tf.clip_by_value(weighted, -_FARTHEST, _FARTHEST)
        searched, slack = _project(weighted, self.projection), np.float32(_slack(self.space, self.projection))
        factors = self._factors(searched)
        best, places = self.best(factors)
        squared = _squares(weighted)
        # No other row scores over the last of these, but for rounding; (‖x‖ + reach)² is at most twice the squares.
        if self.projection:
            within = _squares(searched) - squared * np.float32(2.0 * slack)
        else:
            within = squared * np.float32(1.0 - 2.0 * slack)
        lost = 2.0 * float(slack) * float(self.space.reach) ** 2
        beyond = within - (2.0 * best[:, -1] + np.float32(lost))
        if not self.projection and self.space.scale.max() > _STEEP:  # what was clipped scores nothing of worth
            beyond = tf.where(tf.reduce_max(tf.abs(factors), axis=1) < _MAX_FLOAT32, beyond, -_MAX_FLOAT32)
        return Chosen(_ascending(places)[0], beyond)

    def _factors(self, searched: Any) -> Any:
        """What the table is multiplied with: it holds rows before `scale`, a projection's after."""
        if self.projection:
            return searched
        factors = weigh(self.space, searched)
        if factors is searched:
            return factors
        # Without one of them the converter multiplies the scale into the weights, and stores them again.
        factors = tf.minimum(factors, _MAX_FLOAT32)
        return tf.maximum(factors, -_MAX_FLOAT32) if self.space.scale.max() > _STEEP else factors


class QuantizedProducts(Scores):
    """Scores in eight bits.

    Here the table is one of float32 numbers, in whole steps; `convert` puts eight bits in the place of each.

    Args:
        space: of the rows.
        quantized: the rows.
        projection: in which they are; None for all coordinates.
    """

    def __init__(self, space: Space, quantized: Quantized, projection: Projection | None) -> None:
        rows = quantized.table.astype(np.float32) * np.float32(quantized.step)
        super().__init__(rows, quantized.squares, Layout.of(quantized.table), quantized.candidates)
        self.space, self.quantized, self.projection = space, quantized, projection

    def choose(self, weighted: Any) -> Chosen:
        """Returns the candidates of queries, as `Products` does."""
        quantized = self.quantized
        weighted = tf.clip_by_value(weighted, -_FARTHEST, _FARTHEST)
        searched, slack = _project(weighted, self.projection), 2.0 * _slack(self.space, self.projection)
        size = tf.reduce_max(tf.abs(searched), axis=1, keepdims=True) * np.float32(1.0 / STEPS)
        size = tf.maximum(size, np.float32(quantized.step * LEAST_STEP))
        whole = tf.round(searched / size) * size
        left = blurred(tf.sqrt(_squares(searched - whole)), size[:, 0], quantized.width) + np.float32(quantized.error)
        best, places = self.best(tf.concat([whole, size * quantized.marks], axis=1))
        # As for `Products`, between whole steps; each of the two points is off them by no more than its part of `left`.
        squared = _squares(whole)
        lengths = squared + _squares(weighted) if self.projection else squared
        lost = lengths * np.float32(slack) + np.float32(
            slack * max(self.space.reach**2, float(quantized.squares.max()))
        )
        within = squared - 2.0 * best[:, -1] - lost
        beyond = tf.square(tf.maximum(tf.sqrt(tf.maximum(within, 0.0)) - left, 0.0))
        places, order = _ascending(places)
        told = (squared - lost)[:, tf.newaxis] - 2.0 * tf.gather(best, order, batch_dims=1)
        return Chosen(places, beyond, lambda measure: self._agree(measure, told, lost, left))

    def _agree(self, measure: Any, told: Any, lost: Any, left: Any) -> Any:
        """Returns whether every candidate is as far as its score says it is, give or take what is `left` and `lost`."""
        distance, left = tf.sqrt(measure), (left + np.float32(self.space.zero))[:, tf.newaxis]
        over = told - tf.square(distance + left)
        if self.projection is None:  # in a projection, any distance may be less than it is
            under = tf.square(tf.maximum(distance - left, 0.0)) - told - 2.0 * lost[:, tf.newaxis]
            over = tf.maximum(over, under)
        return tf.reduce_max(over, axis=1) <= 0.0

    def eight_bits(self) -> list[tuple[Float32, Any]]:
        """Returns the table and each of its blocks, as they are here and in eight bits."""
        parts = [(0, len(self.table)), *(self.blocks if self.layout.gap else [])]
        table = self.layout.table(self.quantized.table)
        return [(self.table[start : start + rows], table[start : start + rows]) for start, rows in parts]


def weigh(space: Space, offsets: Any) -> Any:
    """Returns (b, p) float32 offsets after `scale`."""
    return offsets if (space.scale == 1.0).all() else offsets * space.scale.astype(np.float32)


def _project(weighted: Any, projection: Projection | None) -> Any:
    return tf.matmul(weighted, tf.constant(projection.matrix)) if projection else weighted


def _slack(space: Space, projection: Projection | None) -> float:
    """Returns the error of a squared distance by scores, relative to (‖x‖ + reach)²."""
    return relative_error(len(space.centre)) + (projection.blur if projection else 0.0)


def _squares(rows: Any) -> Any:
    return tf.reduce_sum(rows * rows, axis=1)


def _ascending(places: Any) -> tuple[Any, Any]:
    # In order of the training index, so that an exact tie goes to the lower one.
    found = tf.math.top_k(-places, int(places.shape[1]))
    return -found.values, found.indices


def _scores(factors: Any, rows: Any, bias: Float32) -> Any:
    # Written so that the converter makes one FULLY_CONNECTED of it, bias and all.
    return tf.nn.bias_add(tf.matmul(factors, rows, transpose_b=True), tf.constant(bias))
