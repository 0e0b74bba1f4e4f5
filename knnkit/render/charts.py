"""Line charts as a PNG or an HTML page.

`write` chooses by the file's suffix. The page has no scripts and loads nothing else.
"""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from device_agent.shared.safe_files import whole_file
from knnkit.errors import UsageError
from knnkit.render import html, plots
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
    """Curves in common axes with the names `x` and `y`. Shares of rows are numbers from 0 to 1."""

    title: str
    x: str
    y: str
    lines: tuple[Line, ...]


def check_path(path: Path | None) -> None:
    """Checks the path of a chart file, before any computation starts.

    Raises:
        UsageError: the suffix is not .html or .png, or the folder does not exist.
    """
    if path is None:
        return
    if path.suffix not in SUFFIXES:
        raise UsageError(f"--plot {path}: the file name must end in .html or .png", hint=f"--plot {path.name}.html")
    if not (parent := path.absolute().parent).is_dir():
        raise UsageError(f"--plot {path}: there is no directory {parent}", hint=f"mkdir -p {shlex.quote(str(parent))}")


def write(path: Path, chart: Chart, table: Table, notes: Sequence[str] = ()) -> None:
    """Writes the chart to `path`, completely or not at all; an HTML page also shows the table and the notes.

    Raises:
        OSError: the file cannot be written.
        MissingDependency: matplotlib is not installed.
    """
    picture = io.BytesIO()
    plots.draw_lines(picture, chart.title, (chart.x, chart.y), [(each.name, each.x, each.y) for each in chart.lines])
    data = picture.getvalue()
    if path.suffix == ".html":
        data = html.render_chart(chart.title, base64.b64encode(data).decode(), table, notes).encode()
    with whole_file(path) as file:
        file.write(data)
