"""Page on which a person gives labels to rows.

Shows one row with its nearest training rows, and a button for each label. Every value is escaped. The only script turns
pressed keys into clicks; the page's nonce allows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from device_agent import __version__
from knnkit.data.collected import Cell, Columns, FieldRow
from knnkit.render.html import environment
from knnkit.render.sanitize import clean, count
from knnkit.training.labelling import Beside

#: Columns of a row that are shown, at most.
MOST_COLUMNS = 100


@dataclass(frozen=True)
class View:
    """Content of the page."""

    row: FieldRow | None  # to label; None: all have labels
    columns: Columns
    labels: tuple[str, ...]
    beside: tuple[Beside, ...]  # training rows near it
    progress: str  # how many rows have a label and how many are left
    message: str = ""  # the reply to the last button
    undo: bool = False  # whether there is a label to undo
    why: str = ""  # why no training rows are beside it
    numbered: bool = True  # whether keys 1 to 9 stand for the first labels; else for the labels of one digit


def render(view: View, nonce: str) -> str:
    """Returns the HTML page. Its style and its script carry `nonce`, so that the browser accepts them."""
    names = view.columns.names
    beside = [{"label": each.label, "name": each.name, "shown": number(each.distance)} for each in view.beside]
    labels = [(label, key(view, place, label)) for place, label in enumerate(view.labels, 1)]
    return environment().get_template("label.html").render(
        **vars(view) | {"beside": beside, "labels": labels},
        title=f"Label rows of {view.columns.model}",
        distance=number(view.row.distance) if view.row else "",
        lines=lines(view)[:MOST_COLUMNS],
        more=count(len(names) - MOST_COLUMNS, "more column") if len(names) > MOST_COLUMNS else "",
        nonce=nonce,
        version=__version__,
    )  # fmt: skip


def key(view: View, place: int, label: str) -> str:
    """Returns the digit to press for `label`, the `place`-th label of the page (from 1); "" if there is no digit."""
    found = str(place) if view.numbered else label
    return found if len(found) == 1 and found.isdecimal() else ""


def lines(view: View) -> list[tuple[str, ...]]:
    """Returns for each column its name, the cell of the row to label, and the cells of the training rows beside it.

    [] if there is no row to label.
    """
    if view.row is None:
        return []
    rows: Sequence[Sequence[Cell]] = [view.row.cells, *(each.cells for each in view.beside)]
    return [(name, *(number(row[place]) for row in rows)) for place, name in enumerate(view.columns.names)]


def number(cell: Cell) -> str:
    """Returns a cell as text; a missing cell as a dash."""
    if cell is None:
        return "\u2013"
    return clean(cell) if isinstance(cell, str) else f"{cell:.7g}"
