"""Line charts as a PNG or an HTML page.

`write` chooses by the file's suffix. The page has no scripts and loads nothing else.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_agent.shared.safe_files import whole_file
from knnkit.render import html, palette
from knnkit.render.plots import new_figure
from knnkit.render.sanitize import clean
from knnkit.render.terminal import Table

#: Suffixes that `write` knows.
SUFFIXES = (".html", ".png")


@dataclass(frozen=True)
class Line:
    """One curve of a chart: its name, and the x and y coordinates of its points."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Chart:
    """Curves in one plot; `x` and `y` name the axes. A share of rows, as a coordinate, is a number from 0 to 1."""

    title: str
    x: str
    y: str
    lines: tuple[Line, ...]


def write(path: Path, chart: Chart, table: Table, notes: Sequence[str] = ()) -> None:
    """Writes the chart to `path`, completely or not at all; an HTML page also shows the table and the notes.

    Raises:
        OSError: the file cannot be written.
        MissingDependency: matplotlib is not installed.
    """
    data = _png(chart)
    if path.suffix == ".html":
        data = html.render_chart(chart.title, base64.b64encode(data).decode(), table, notes).encode()
    with whole_file(path) as file:
        file.write(data)


def _png(chart: Chart) -> bytes:
    figure = new_figure(10, 6)
    drawn = figure.subplots()
    for index, line in enumerate(chart.lines):
        style: dict[str, Any] = {"color": palette.colour(index), "marker": palette.marker(index), "markersize": 4}
        drawn.plot(line.x, line.y, label=clean(line.name, 60), linestyle=("-", "--", ":")[index // 7 % 3], **style)
    drawn.set_title(clean(chart.title))
    drawn.set_xlabel(chart.x)
    drawn.set_ylabel(chart.y)
    drawn.grid(alpha=0.3)
    drawn.legend(fontsize="small")
    picture = io.BytesIO()
    figure.savefig(picture, metadata={"Software": None})
    return picture.getvalue()
