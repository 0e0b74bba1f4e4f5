"""Finds the k nearest training rows, in TensorFlow.

Candidates come from one matrix product (`candidates`), and are ranked by their exact differences from the query. Models
with few coordinates, few rows or the Manhattan metric have no candidates: all rows are ranked, or those of the query's
cell (`grid`). Also returns a lower bound on the distance of all other rows. Never votes, nor decides what is certain.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from device_agent.shared.protocol import constants
from knnkit.model.graph.candidates import Products, QuantizedProducts, Take, Variables, weigh
from knnkit.model.graph.row_blocks import Layout, StoredRows, block_width
from knnkit.model.graph.sums import add_up
from knnkit.model.graph.topk import least
from knnkit.model.index.cost_sample import Sample
from knnkit.model.index.grid import FAR, CellLists, find_cells
from knnkit.model.index.groups import find_groups
from knnkit.model.index.int8 import quantize
from knnkit.model.index.projection import Projection, find_projection
from knnkit.model.reference.float32_errors import measure_error, relative_gap, summed_at_once
from knnkit.model.reference.lattice import MOST, find_lattice
from knnkit.model.reference.space import Float32, Space

#: Spare candidates of a search in a projection or in int8.
OVER_FETCH = 3
#: Up to this many coordinates, all differences are computed column by column instead of a matrix product. They need no
#: second ranking, and with one coordinate the converter would fold the centre into the product's bias, where raw values
#: of 10,000 cancel.
FEW_COLUMNS = 3


@dataclass(frozen=True)
class Nearest:
    """The neighbours of b queries. Their measure is the squared distance; with the Manhattan metric, the distance."""

    measure: Any  # (b, k) float32, ascending
    indices: Any  # (b, k) int32 training rows, in order of (measure, index)
    following: Any  # (b,) float32 lower bound on every other row's measure; None if every row is a neighbour
    #: (b,) bool, whether float32 made no rounding error in measures under `Search.most_exact`; None if the coordinates
    #: of the training rows are not all multiples of one step.
    exact: Any = None
    #: (b, c) int32 training rows that may be the neighbours, whatever the rounding errors; None with few columns or
    #: rows.
    candidates: Any = None
    beyond: Any = None  # (b,) float32 lower bound on the measure of every other row; None if `candidates` is


class Search(tf.Module):  # type: ignore[misc]
    """Finds the k nearest training rows.

    Args:
        enrolled: (n, p) float32 training rows in model space.
        k: number of neighbours, at most n.
        cells: whether to list the possible neighbours of each cell of a grid, if this makes the search faster.

    Attributes:
        projection: the projection to search in; None for all coordinates.
        products: the float32 candidate search; None if distances to all rows are computed.
        quantized: the int8 candidate search; None if the model has none.
        cells: the lists of the cells; None if the model has none.
        groups: the groups of rows, which only NumPy code searches; None if the model has none.
        lattice: describes training rows whose coordinates are all multiples of one step; None for other rows.
        layout: layout of `table` in the file.
        table: the training rows as the file stores them.
        take: function (name, table) -> tensor; makes all tensors that have a row or number for each training row.
    """

    def __init__(self, space: Space, enrolled: Float32, k: int, *, cells: bool = True) -> None:
        super().__init__(name="search")
        count, width = enrolled.shape
        self.space, self.enrolled, self.k = space, enrolled, k
        self.by_columns = width <= FEW_COLUMNS
        self.take: Take = Variables()
        self.projection: Projection | None = None
        self.products: Products | None = None
        self.quantized: QuantizedProducts | None = None
        self.cells = find_cells(space, enrolled, k) if self.by_columns and cells else None
        self.lattice = None if space.steps else find_lattice(enrolled, space.scale)
        sample = Sample(space, enrolled, k)
        self.groups = find_groups(sample)
        if self.by_columns or k + OVER_FETCH >= count or space.metric == "manhattan":
            self.table, self.layout = StoredRows.of(enrolled[np.newaxis]), Layout(count, 0)
            return
        self.projection = find_projection(sample, OVER_FETCH)
        self.products = Products(space, enrolled, self.projection, k + sample.over_fetch(), self.lattice)
        self.layout, self.table = self.products.layout, self.products.table
        if self.products.exact_within > 0.0:  # rows are tied by the dozen, and int8 leaves all of them in doubt
            return
        quantized = quantize(sample, self.projection, OVER_FETCH)
        if quantized is not None:
            self.quantized = QuantizedProducts(space, quantized, self.projection)

    @property
    def _rows(self) -> Any:
        """Tensor of all training rows, to compute distances from: (n, p), or (1, n, p) without a candidate search."""
        if self.products is None:
            return self.take("training_rows", self.table)
        if self.projection:
            return self.take("training_rows", StoredRows.of(self.enrolled))
        return self.products.weights

    @contextlib.contextmanager
    def using(self, take: Take) -> Iterator[None]:
        """Within this context, `take` makes all tensors of training rows; in `convert`, it makes them graph inputs."""
        takers = [each for each in (self, self.products, self.quantized) if each is not None]
        before = [each.take for each in takers]
        try:
            for each in takers:
                each.take = take
            yield
        finally:
            for each, old in zip(takers, before):
                each.take = old

    @property
    def rho(self) -> np.float32:
        """Largest relative float32 error of a measure."""
        return np.float32(measure_error(len(self.space.centre)))

    @property
    def gap(self) -> float:
        """Relative difference of two squared distances, or Manhattan distances, that proves their order."""
        return relative_gap(len(self.space.centre))

    @property
    def ways(self) -> list[str]:
        """Names of the searches that this model has, out of `constants.SEARCHES`."""
        there = {constants.FULL: self, constants.QUANTIZED: self.quantized, constants.CELLS: self.cells}
        return [way for way in constants.SEARCHES if there[way] is not None]

    def candidates(self, way: str) -> int:
        """Returns how many rows the search `way` (one of `ways`) ranks by distances, which it computes in full."""
        if way == constants.CELLS and self.cells:
            return int(self.cells.lists.shape[1])
        products = self._products(way)
        return len(self.enrolled) if products is None else products.count

    def _products(self, way: str) -> Products | QuantizedProducts | None:
        return self.quantized if way == constants.QUANTIZED else self.products

    def stored(self) -> list[StoredRows]:
        """Returns the tables of rows that the searches read first; not all coordinates, beside a projection."""
        return [self.table, *([] if self.quantized is None else [self.quantized.table])]

    def nearest(self, query: Any, way: str = constants.FULL) -> Nearest:
        """Returns the k nearest rows of (b, p) float32 queries (offsets from the centre) by the search `way`."""
        products = self._products(way)
        if products is None:
            return replace(self._among_all(query, way), exact=self._is_whole(query))
        weighted = weigh(self.space, query)
        chosen = products.choose(weighted)
        positions, beyond = chosen.positions, chosen.beyond
        candidates = products.index(positions)
        found_at = candidates if self.projection else products.in_layout(positions, self.layout)
        rows = tf.gather(self._rows, found_at)
        measure = self._measure(tf.expand_dims(query, 1), rows)
        if chosen.agree is not None:
            beyond = beyond * tf.cast(chosen.agree(measure), tf.float32)
        found = self._rank(measure)
        indices = tf.gather(candidates, found.indices, batch_dims=1)
        exact = self._is_whole(query)
        if exact is not None:  # a row beyond the candidates may be tied with the k-th, unless their scores are exact
            clear = beyond > found.measure[:, -1]
            if isinstance(products, Products) and products.exact_within > 0.0:
                squares = tf.reduce_sum(weighted * weighted, axis=1)
                clear = tf.logical_or(clear, squares <= np.float32(products.exact_within**2))
            exact = tf.logical_and(exact, clear)
        following = beyond if found.following is None else tf.minimum(found.following, beyond)
        return Nearest(found.measure, indices, following, exact, candidates, beyond)

    @property
    def most_exact(self) -> float:
        """Squared distances (for Manhattan, distances) below this have no rounding error in float32; 0: no such limit.

        It is 2^24 squared steps (for Manhattan, steps), and holds if all coordinates of query and rows are multiples of
        one step. A sum of whole numbers only grows: if it ends under 2^24, every partial sum was exact.
        """
        return MOST * self.measure_of(self.lattice.step) if self.lattice else 0.0

    def _is_whole(self, query: Any) -> Any:
        """Returns (b,) bool: whether (b, p) queries are multiples of the training rows' step; None without a step."""
        if self.lattice is None:
            return None
        steps = weigh(self.space, query) * np.float32(1.0 / self.lattice.step)
        return tf.reduce_max(tf.abs(steps - tf.round(steps)), axis=1) <= 0.0

    # --- all differences ------------------------------------------------------------------------------------------
    def _among_all(self, query: Any, way: str) -> Nearest:
        if way == constants.CELLS and self.cells:
            return self._in_cell(query, self.cells)
        if self.by_columns:
            return self._among_columns(query)
        measure = self._measure(tf.expand_dims(query, 1), self._rows)
        count = self.k + OVER_FETCH
        if count >= len(self.enrolled):
            return self._rank(measure)
        # A row after the last candidate is at most two errors nearer, less than `gap`.
        negative, candidates = tf.math.top_k(-measure, count)
        beyond = negative[:, -1] * np.float32(self.gap - 1.0)
        return replace(self._split(-negative, candidates), candidates=candidates, beyond=beyond)

    def _among_columns(self, query: Any) -> Nearest:
        """Ranks all rows; adds up distances one coordinate at a time, which suits SIMD units."""
        count = len(self.enrolled)
        width = block_width(count, 1024, 8) if query.shape[0] == 1 else block_width(count, 160)
        first = min(self.k + 1, count)
        blocks = -(-count // width) if width >= 4 * first else 1
        columns = [np.pad(each, (0, -count % blocks), constant_values=FAR) for each in self.enrolled.T]
        parts = [
            self._measure_columns(query, [np.ascontiguousarray(each[start::blocks])[None] for each in columns])
            for start in range(blocks)
        ]
        measure, indices = least(parts, first)
        return self._split(measure, tf.minimum(indices, count - 1) if count % blocks else indices)

    def _in_cell(self, query: Any, cells: CellLists) -> Nearest:
        """Ranks the rows listed for each query's cell of the grid.

        A short list is filled up with points far from every query. An answer with such a point is never certain.
        """
        last = np.array(cells.table.shape, np.float32) - 1.0
        place = tf.floor(tf.minimum(tf.nn.relu((query - cells.first) * cells.per_unit + 1.0), last))
        number = tf.cast(tf.reduce_sum(place * cells.strides, axis=1), tf.int32)
        listed = tf.gather(tf.constant(cells.lists), tf.gather(tf.constant(cells.table.reshape(-1)), number))
        columns = [
            tf.gather(tf.constant(cells.column(values, coordinate)), listed)
            for coordinate, values in enumerate(self.enrolled.T)
        ]
        found = self._rank(self._measure_columns(query, columns))
        indices = tf.minimum(tf.gather(listed, found.indices, batch_dims=1), len(self.enrolled) - 1)
        return Nearest(found.measure, indices, found.following)

    def _measure_columns(self, query: Any, columns: list[Any]) -> Any:
        total = None
        ones = tf.split(query, len(columns), axis=1)
        for one, others, scale in zip(ones, columns, self.space.scale.astype(np.float32)):
            part = self._part(one, others, scale)
            total = part if total is None else total + part
        return self._zeroed(total)

    def _part(self, one: Any, others: Any, scale: Any) -> Any:
        if self.space.metric == "manhattan":
            return tf.abs(one - others) if np.all(scale == 1.0) else tf.abs((one - others) * scale)
        if np.all(scale == 1.0):
            return tf.math.squared_difference(one, others)
        return tf.square((one - others) * scale)

    def _measure(self, one: Any, others: Any) -> Any:
        parts = self._part(one, others, self.space.scale.astype(np.float32))
        return self._zeroed(add_up(parts, summed_at_once(parts.shape[2])))

    def _zeroed(self, measure: Any) -> Any:
        """Returns squared, or Manhattan, distances, with 0 for rows within the distance `space.zero`: exact matches."""
        if self.space.zero <= 0.0:
            return measure
        return measure * tf.cast(measure > np.float32(self.measure_of(self.space.zero)), tf.float32)

    def measure_of(self, distance: Any) -> Any:
        """Returns the measure by which rows at this distance are ranked: its square, or itself for Manhattan."""
        return distance if self.space.metric == "manhattan" else distance * distance

    # --- ranking --------------------------------------------------------------------------------------------------
    def _rank(self, measure: Any) -> Nearest:
        """Returns the k smallest values of each row of `measure` (b, m); `indices` of the result are column numbers."""
        negative, order = tf.math.top_k(-measure, min(self.k + 1, int(measure.shape[1])))
        return self._split(-negative, order)

    def _split(self, measure: Any, indices: Any) -> Nearest:
        following = measure[:, self.k] if measure.shape[1] > self.k else None
        return Nearest(measure[:, : self.k], indices[:, : self.k], following)
