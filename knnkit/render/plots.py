"""Matplotlib plots of experiments (extra `knnkit[build]`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnkit.errors import needs
from knnkit.render import palette
from knnkit.render.decision_regions import Regions
from knnkit.render.sanitize import clean


def draw_experiment(
    path: Path, regions: Regions, train_rows: NDArray[np.float64], train_labels: NDArray[np.int32], *, title: str
) -> None:
    """Writes a PNG with three panels: the data, the decision regions, and the misclassified evaluation rows.

    `train_rows` are (n, 2) training rows, `train_labels` their (n,) class indices.
    """
    figure = new_figure(18, 6.4)
    figure.suptitle(clean(title), fontsize=15)
    data, decided, wrong = figure.subplots(1, 3, sharex=True, sharey=True)
    _data(data, regions, train_rows, train_labels)
    _decided(decided, regions, train_rows, train_labels)
    _misclassified(wrong, regions)
    for axes in (data, decided, wrong):
        axes.set_xlim(regions.low[0], regions.high[0])
        axes.set_ylim(regions.low[1], regions.high[1])
        axes.set_xlabel(clean(regions.features[0], 60))
    data.set_ylabel(clean(regions.features[1], 60))
    figure.savefig(path, metadata={"Software": None})


def draw_rows(
    path: Path, rows: NDArray[np.floating[Any]], groups: Sequence[tuple[str, NDArray[np.int64]]], title: str
) -> None:
    """Writes a PNG of (n, d) rows in their two directions of most variance; `groups`: name and row indices by class."""
    centred = rows.astype(np.float64) - rows.mean(axis=0)
    points = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    figure = new_figure(10, 7.5)
    drawn = figure.subplots()
    for index, (name, places) in enumerate(groups):
        _points(drawn, points[places], index, name, s=34, linewidths=0.4)
    drawn.set_title(clean(title))
    drawn.legend(fontsize="small")
    figure.savefig(path, metadata={"Software": None})


def write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Writes (height, width) grey pixels to a PNG file."""
    from matplotlib.image import imsave

    imsave(path, pixels, cmap="gray", vmin=0, vmax=255)


def new_figure(width: float, height: float) -> Any:
    """Returns an empty matplotlib figure; the sizes are in inches.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    with needs("a plot needs matplotlib"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _scatter(
    axes: Any, rows: NDArray[np.float64], labels: NDArray[np.int32], classes: tuple[str, ...], **how: Any
) -> None:
    for index, name in enumerate(classes):
        _points(axes, rows[labels == index], index, name, **how)


def _points(axes: Any, points: NDArray[np.float64], index: int, name: str, **how: Any) -> None:
    style = {"color": palette.colour(index), "marker": palette.marker(index), "edgecolors": "white"} | how
    axes.scatter(*points.T, label=clean(name, 40), **style)


def _data(axes: Any, regions: Regions, rows: NDArray[np.float64], labels: NDArray[np.int32]) -> None:
    axes.set_title(f"the data: {len(rows)} training rows, {len(regions.points)} test rows")
    _scatter(axes, rows, labels, regions.classes, s=30, linewidths=0.4)
    axes.scatter(*regions.points.T, s=9, color="#444444", marker=".", label="test row", linewidths=0)
    if len(regions.classes) <= 12:
        axes.legend(title="class", loc="best", framealpha=0.85)


def _fill(axes: Any, regions: Regions, alpha: float) -> None:
    from matplotlib.colors import ListedColormap

    count = len(regions.classes)
    colours = ListedColormap([palette.colour(index) for index in range(-1, count)])
    edges = (regions.low[0], regions.high[0], regions.low[1], regions.high[1])
    grid = regions.grid
    axes.imshow(
        grid, origin="lower", extent=edges, aspect="auto", cmap=colours, vmin=-1.5, vmax=count - 0.5,
        alpha=alpha, interpolation="nearest",
    )  # fmt: skip


def _decided(axes: Any, regions: Regions, rows: NDArray[np.float64], labels: NDArray[np.int32]) -> None:
    axes.set_title("the device's decision regions")
    _fill(axes, regions, 0.35)
    _scatter(axes, rows, labels, regions.classes, s=16, linewidths=0.3)


def _misclassified(axes: Any, regions: Regions) -> None:
    wrong = regions.truth != regions.answered
    axes.set_title(f"misclassified by the device: {int(wrong.sum())} of {len(wrong)} test rows")
    _fill(axes, regions, 0.18)
    right = ~wrong
    _scatter(axes, regions.points[right], regions.truth[right], regions.classes, s=12, alpha=0.35, linewidths=0)
    _scatter(
        axes, regions.points[wrong], regions.truth[wrong], regions.classes, s=70, linewidths=1.4, edgecolors="black"
    )
