"""Records of a model's table: columns and transforms.

A part of knn.json (`model_info`). No I/O.
"""

from __future__ import annotations

from typing import Literal

from device_agent.shared.protocol.record import record


@record
class Column:
    """A raw column of a model's table: its cells are numbers, or categories that become features.

    If `fill` is None, a row with a missing cell is refused; but with `missing: keep`, the cell becomes NaN, which the
    transforms accept. The cells of an unused column may hold anything.
    """

    name: str
    missing: str = "refuse"  # how `fill` was chosen: refuse, drop, median, constant, keep
    fill: float | None = None  # for a missing cell: a number, or a position in `categories`
    #: of categories: one feature for each (one-hot), or the position in the list (ordinal).
    encoding: Literal["number", "one-hot", "ordinal", "unused"] = "number"
    categories: tuple[str, ...] = ()
    #: what to do with rows of an unknown category; None: `unknown_category`
    unknown: Literal["refuse", "ignore"] | None = None
    omitted = ("unknown",)


@record
class Transform:
    """A step of `device_agent.shared.features.transforms`."""

    kind: str
    start: int  # the first of the columns that it replaces
    count: int  # their number
    arrays: tuple[str, ...] = ()  # its parameters: float64, little-endian, in base64


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
