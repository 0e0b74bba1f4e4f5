"""Records of a model's table: columns and transforms.

A part of knn.json (`model_info`). No I/O.
"""

from __future__ import annotations

from typing import Literal

from device_agent.shared.protocol.record import record


@record
class Column:
    """A raw column of a model's table: its cells are numbers, or categories that become features.

    `fill` replaces a missing cell: a number, or the position of a category in `categories`. If it is None, a row with a
    missing cell is refused; but with `missing: keep`, the cell becomes NaN, which the transforms accept. `missing` is
    the method by which the build chose `fill`. `unknown` says whether to refuse rows with an unknown category, or to
    ignore it; None: as the table's `unknown_category` says. `encoding` of categories: one feature for each (one-hot),
    or the position in the list (ordinal). The cells of an unused column may hold anything.
    """

    name: str
    missing: str = "refuse"  # refuse, drop, median, constant, keep
    fill: float | None = None
    encoding: Literal["number", "one-hot", "ordinal", "unused"] = "number"
    categories: tuple[str, ...] = ()
    unknown: Literal["refuse", "ignore"] | None = None
    omitted = ("unknown",)


@record
class Transform:
    """A step of `device_agent.shared.features.transforms`: it replaces `count` columns, beginning at `start`.

    `arrays` are its parameters: float64, little-endian, in base64.
    """

    kind: str
    start: int
    count: int
    arrays: tuple[str, ...] = ()


@record
class Table:
    """The raw columns of a model whose rows have missing cells, categories or transforms.

    `transforms` compute the features from the columns' numbers and category codes; without them, categories become
    features as their columns state.
    """

    columns: tuple[Column, ...]
    unknown_category: Literal["refuse", "ignore"] = "refuse"
    thousands: str = ""  # the sign between thousands in text; empty: none
    transforms: tuple[Transform, ...] = ()
    missing_words: tuple[str, ...] = ()  # stand for a missing cell in its data, beside those that every model knows
    omitted = ("transforms", "missing_words")
