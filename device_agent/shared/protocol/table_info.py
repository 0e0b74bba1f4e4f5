"""Records of a model's table: columns and transforms.

A part of knn.json (`model_info`). No I/O.
"""

from __future__ import annotations

from typing import Literal

from device_agent.shared.protocol.record import record


@record
class Column:
    """A raw column of a model's table: its cells are numbers, or categories that become features.

    `fill` replaces a missing cell: a number, or the place of a category. None refuses the row, unless `missing` is
    keep: then the cell is NaN, and the transforms take it. `missing` is how the build chose it. `unknown` replaces the
    table's `unknown_category`. `encoding` of categories: one feature for each (one-hot), or its place in the list
    (ordinal). The cells of an unused column may hold anything.
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
    """A step of `device_agent.shared.features.transforms`: it replaces `count` columns from `start` on.

    `arrays` are float64, little-endian, in base64.
    """

    kind: str
    start: int
    count: int
    arrays: tuple[str, ...] = ()


@record
class Table:
    """The raw columns of a model whose rows have missing cells or categories, besides numbers.

    `transforms` make its features of the columns' numbers and codes; without them, categories become features as their
    columns say.
    """

    columns: tuple[Column, ...]
    unknown_category: Literal["refuse", "ignore"] = "refuse"
    thousands: str = ""  # the sign between thousands in text; empty: none
    transforms: tuple[Transform, ...] = ()
    omitted = ("transforms",)
