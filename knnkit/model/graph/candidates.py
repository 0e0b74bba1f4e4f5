"""Candidate search by one matrix product with all training rows.

The score of a row t for a query x is x·t - ‖t‖²/2. Because ‖x - t‖² = ‖x‖² - 2 score, the nearest row has the greatest
score. `Products` computes scores in float32, over all coordinates or in a projection; `QuantizedProducts` in int8. Both
return a lower bound on the distance of every other row; neither ranks its candidates. The int8 scores are compared with
the exact distances afterwards, so that a wrong kernel cannot cause a wrong answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from knnkit.model.graph.row_blocks import Layout, StoredRows
from knnkit.model.graph.topk import greatest
from knnkit.model.index.cost_sample import PART, WeightedRows
from knnkit.model.index.int8 import LEAST_STEP, STEPS, Quantized, blurred
from knnkit.model.index.projection import Projection
from knnkit.model.reference.float32_errors import relative_error
from knnkit.model.reference.lattice import Lattice
from knnkit.model.reference.space import Float32, Float64, Space

_MAX_FLOAT32 = np.float32(np.finfo(np.float32).max)
_TINY = float(np.finfo(np.float32).tiny)
#: TOPK_V2 ends in std::sort, which is undefined for NaN beyond this many elements (below, it is an insertion sort).
_NAN_SAFE_SORT = 16
#: Coordinates are clipped to this: its square, 9e36, stays finite in float32 (3.4e38). A distance above 1e18 is never
#: certain, so clipping changes no certain answer.
_FARTHEST = 3e18
#: From this scale on, a query that is multiplied by the scale twice can overflow although it is not far away.
_STEEP = 1e18


#: Ending of the names of weights that are added to a product.
BIAS = "_bias"

#: Returns the tensor of weights, from their name and their values.
Take = Callable[[str, StoredRows], Any]


class Variables:
    """TensorFlow variables by name, each created when it is first requested."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __call__(self, name: str, values: StoredRows) -> Any:
        """Returns the variable `name`; the first call creates it with `values`."""
        if name not in self._made:
            with tf.init_scope():
                self._made[name] = tf.Variable(values.join(), trainable=False, name=name)
        return self._made[name]


@dataclass(frozen=True)
class Chosen:
    """The candidates of b queries: training rows that may be their neighbours."""

    positions: Any  # (b, count) int32 positions of the candidates in the table of training rows, ascending
    beyond: Any  # (b,) float32 lower bound on the squared distance of every row that is not a candidate
    #: function from the candidates' exact (b, count) float32 squared distances to (b,) bool: whether the scores that
    #: chose the candidates agree with these distances. None if the scores need no check.
    agree: Callable[[Any], Any] | None = None


class Scores(tf.Module):  # type: ignore[misc]
    """Computes the score x·t - ‖t‖²/2 of a query x and every row t of a table; the nearest row has the greatest.

    Args:
        table: the rows to score.
        squares: (n,) float64 ‖t‖² of the rows t after `Space.scale` is applied; the table may hold them without it.
        count: number of greatest scores to return.
        apart: number subtracted from the scores of the second block of rows, twice from the third, and so on, so that
            equal exact scores are sorted by row. Too small to change the order of unequal ones. 0: nothing.

    Attributes:
        table: n rows of r coordinates as the model file stores them, in blocks with a gap (unused rows) before each.
        blocks: (position of the first row, number of rows) of each block.
    """

    def __init__(self, table: StoredRows, squares: Float64, count: int, apart: float = 0.0) -> None:
        super().__init__(name="scores")
        self.table, self.layout, self.count, self.apart = table, table.layout, count, apart
        self.blocks = self.layout.blocks(len(squares))
        self.take: Take = Variables()
        self._bias = (-0.5 * squares).astype(np.float32)

    @property
    def weights(self) -> Any:
        """The table as a tensor: n rows of r coordinates in blocks, with a gap (unused rows) before each block."""
        return self._weight("rows", self.table)

    def _weight(self, name: str, values: StoredRows) -> Any:
        return self.take(f"{type(self).__name__.lower()}_{name}", values)

    def best(self, factors: Any) -> tuple[Any, Any]:
        """Returns the (b, count) greatest float32 scores of b queries, descending, and their int32 table positions.

        The nearest row has the greatest score. `factors` are the (b, r) queries, mapped so that the scores are
        `factors @ table.T` plus each row's bias: -‖t‖²/2 for row t.
        """
        if not self.layout.gap or factors.shape[0] == 1:  # blocks help only a batch: one row reads every weight once
            return tuple(tf.math.top_k(self.scores(factors), self.count))
        parts = [
            self._score(
                factors,
                f"block_{block.at}",
                block,
                self._bias[number * self.layout.block :][: len(block.rows)] - np.float32(number * self.apart),
            )
            for number, block in enumerate(self.table.blocks())
        ]
        return greatest(parts, self.count, [start for start, _ in self.blocks], stable=self.apart > 0.0)

    def scores(self, factors: Any) -> Any:
        """Returns (b, n + gaps) scores of (b, r) `factors`, mapped queries; gaps (no rows) score lower than any row."""
        return self._score(factors, "rows", self.table, self.layout.column(self._bias, -float(_MAX_FLOAT32)))

    def _score(self, factors: Any, name: str, table: StoredRows, bias: Float32) -> Any:
        # `convert` makes it one FULLY_CONNECTED, including the bias.
        products = tf.matmul(factors, self._weight(name, table), transpose_b=True)
        return tf.nn.bias_add(products, self._weight(f"{name}{BIAS}", StoredRows.of(bias)))

    def index(self, positions: Any) -> Any:
        """Maps table positions to training row indices; a position in a gap (no row) maps to a row beside the gap."""
        if not self.layout.gap:
            return positions
        name = f"indices_{self.layout.block}_{self.layout.gap}"  # searches of equal layout share them
        return tf.gather(self.take(name, StoredRows.of(self._indices)), positions)

    def in_layout(self, positions: Any, other: Layout) -> Any:
        """Converts positions in this table to those of the same rows in a table with the blocks of `other`."""
        if self.layout == other:
            return positions
        return tf.gather(self._weight("positions", StoredRows.of(other.position(self._indices))), positions)

    @cached_property
    def _indices(self) -> NDArray[np.int32]:
        positions = np.arange(self.table.shape[0], dtype=np.int32)
        return np.asarray(np.clip(self.layout.index(positions), 0, len(self._bias) - 1), np.int32)


class Products(Scores):
    """Finds rows that may be the nearest by float32 scores (x·t - ‖t‖²/2 of query x and row t).

    Args:
        enrolled: (n, p) float32 training rows in model space.
        projection: the projection to score in; None for all coordinates.
        count: number of candidates; ignored with a projection, which has its own number.
        lattice: describes training rows whose coordinates are all multiples of one step; None for other rows.

    Attributes:
        exact_within: scores have no rounding error for queries up to this length whose coordinates are multiples of
            that step, too; 0: there are no such queries.
    """

    def __init__(
        self, space: Space, enrolled: Float32, projection: Projection | None, count: int, lattice: Lattice | None = None
    ) -> None:
        rows = projection.rows if projection else enrolled
        weighted = WeightedRows(rows, np.ones(rows.shape[1]) if projection else space.scale)
        squares = np.concatenate([(part * part).sum(axis=1) for _, part in weighted.parts(PART)])
        layout = Layout.of(rows)
        longest, apart = 0.0, 0.0
        if lattice and not projection:
            longest, apart = lattice.scored_within(len(layout.blocks(len(rows))))
            longest, apart = longest * lattice.step, apart * lattice.step**2
        super().__init__(StoredRows(rows, layout), squares, projection.candidates if projection else count, apart)
        self.space, self.projection, self.exact_within = space, projection, longest
        # A factor below the normal numbers is read as 0: a score then lacks up to that number times a coordinate.
        most = np.maximum(rows.max(axis=0), -rows.min(axis=0))
        self._flushed = _TINY * float(most.sum(dtype=np.float64))

    def choose(self, weighted: Any) -> Chosen:
        """Returns the candidates of b queries: the rows that may be their neighbours.

        `weighted` are the queries as (b, p) float32 offsets from the centre of model space, times its `scale`.
        """
        if self.count > _NAN_SAFE_SORT:
            weighted = tf.clip_by_value(weighted, -_FARTHEST, _FARTHEST)
        searched, slack = _project(weighted, self.projection), np.float32(_slack(self.space, self.projection))
        factors = self._factors(searched)
        best, positions = self.best(factors)
        squared = _squares(weighted)
        # No other row scores above the last candidate, so its squared distance is at least ‖x‖² - 2 best[-1], less the
        # error slack (‖x‖ + reach)² of a score in float32; (‖x‖ + reach)² <= 2 (‖x‖² + reach²).
        if self.projection:
            within = _squares(searched) - squared * np.float32(2.0 * slack)
        else:
            within = squared * np.float32(1.0 - 2.0 * slack)
        apart = self.apart * (len(self.blocks) - 1)
        lost = 2.0 * (float(slack) * float(self.space.reach) ** 2 + apart + self._flushed)
        beyond = within - (2.0 * best[:, -1] + np.float32(lost))
        if not self.projection and self.space.scale.max() > _STEEP:  # scores of clipped factors bound nothing
            beyond = tf.where(tf.reduce_max(tf.abs(factors), axis=1) < _MAX_FLOAT32, beyond, -_MAX_FLOAT32)
        return Chosen(_ascending(positions)[0], beyond)

    def _factors(self, searched: Any) -> Any:
        if self.projection:
            return searched
        factors = weigh(self.space, searched)
        if factors is searched:
            return factors
        # Without a minimum or maximum here, the converter folds the scale into the weights and stores them twice.
        factors = tf.minimum(factors, _MAX_FLOAT32)
        return tf.maximum(factors, -_MAX_FLOAT32) if self.space.scale.max() > _STEEP else factors


class QuantizedProducts(Scores):
    """Finds rows that may be the nearest by int8 scores.

    In TensorFlow the table of rows is float32, multiples of the quantization step; `convert` replaces it by int8.

    Args:
        projection: the projection that made the int8 rows; None if they have all coordinates.
    """

    def __init__(self, space: Space, quantized: Quantized, projection: Projection | None) -> None:
        table = StoredRows(quantized.table, Layout.of(quantized.table), quantized.step)
        super().__init__(table, quantized.squares, quantized.candidates)
        self.space, self.quantized, self.projection = space, quantized, projection

    def choose(self, weighted: Any) -> Chosen:
        """Returns the candidates of b queries: the rows that may be their neighbours.

        `weighted` are the queries as (b, p) float32 offsets from the centre of model space, times its `scale`.
        """
        quantized = self.quantized
        weighted = tf.clip_by_value(weighted, -_FARTHEST, _FARTHEST)
        searched, slack = _project(weighted, self.projection), 2.0 * _slack(self.space, self.projection)
        size = tf.reduce_max(tf.abs(searched), axis=1, keepdims=True) * np.float32(1.0 / STEPS)
        size = tf.maximum(size, np.float32(quantized.step * LEAST_STEP))
        whole = tf.round(searched / size) * size
        left = blurred(tf.sqrt(_squares(searched - whole)), size[:, 0], quantized.width) + np.float32(quantized.error)
        best, positions = self.best(tf.concat([whole, size * quantized.marks], axis=1))
        # `within` bounds the squared distance of the rounded points, as in `Products`. `left` is how far both points
        # were moved by rounding, so the true distance is at least sqrt(within) - left (triangle inequality).
        squared = _squares(whole)
        lengths = squared + _squares(weighted) if self.projection else squared
        lost = lengths * np.float32(slack) + np.float32(
            slack * max(self.space.reach**2, float(quantized.squares.max()))
        )
        within = squared - 2.0 * best[:, -1] - lost
        beyond = tf.square(tf.maximum(tf.sqrt(tf.maximum(within, 0.0)) - left, 0.0))
        positions, order = _ascending(positions)
        scored = (squared - lost)[:, tf.newaxis] - 2.0 * tf.gather(best, order, batch_dims=1)
        return Chosen(positions, beyond, lambda measure: self._agree(measure, scored, lost, left))

    def _agree(self, measure: Any, scored: Any, lost: Any, left: Any) -> Any:
        """Returns (b,) bool: whether the exact squared distances `measure` of all candidates fit their int8 scores.

        Both bound the squared distance between rounded query and rounded row. By the score, it is between `scored` and
        `scored + 2 lost` (`lost`: float32 error). By the exact distance d, it is between (d - left)² and (d + left)²,
        because rounding moved the two points by `left` together. So the two ranges must overlap. In a projection, where
        distances are shorter, only (d + left)² is known.
        """
        distance, left = tf.sqrt(measure), (left + np.float32(self.space.zero))[:, tf.newaxis]
        over = scored - tf.square(distance + left)
        if self.projection is None:
            under = tf.square(tf.maximum(distance - left, 0.0)) - scored - 2.0 * lost[:, tf.newaxis]
            over = tf.maximum(over, under)
        return tf.reduce_max(over, axis=1) <= 0.0


def weigh(space: Space, offsets: Any) -> Any:
    """Returns (b, p) float32 offsets from the centre times the space's `scale`, a factor for each coordinate."""
    return offsets if (space.scale == 1.0).all() else offsets * space.scale.astype(np.float32)


def _project(weighted: Any, projection: Projection | None) -> Any:
    return tf.matmul(weighted, tf.constant(projection.matrix)) if projection else weighted


def _slack(space: Space, projection: Projection | None) -> float:
    """Returns the float32 error of a squared distance computed from a score, relative to (‖x‖ + `Space.reach`)².

    x is the query, and `Space.reach` the length of the longest training row. `projection`: that of the scored rows;
    None: they have all coordinates.
    """
    return (
        relative_error(projection.rows.shape[1]) + projection.blur if projection else relative_error(len(space.centre))
    )


def _squares(rows: Any) -> Any:
    return tf.reduce_sum(rows * rows, axis=1)


def _ascending(positions: Any) -> tuple[Any, Any]:
    # Ascending training index, so that an exact tie goes to the lower index.
    found = tf.math.top_k(-positions, int(positions.shape[1]))
    return -found.values, found.indices
