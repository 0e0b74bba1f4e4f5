"""Self-contained HTML report without scripts or requests.

Text from devices is not trusted: every value passes through `sanitize.clean` and HTML escaping, whatever the template
says. As a second defence, the page's content security policy forbids scripts and requests. Needs only jinja2, and loads
it only to write a page, because few commands write a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from device_agent import __version__
from device_agent.shared.golden.error_gates import described, described_columns
from device_agent.shared.safe_files import whole_file
from knnkit.evaluation import metrics
from knnkit.render import confusion, palette, sanitize
from knnkit.render import page as pages
from knnkit.render.page import Page
from knnkit.render.terminal import Table, cell, head

if TYPE_CHECKING:
    import jinja2

#: Steps with a colour of their own.
STEPS = ("connect", "probe", "provision", "upload", "stage", "activate", "check", "confirm", "roll-back")


def write_report(path: Path, page: Page) -> Path:
    """Writes `page` to `path`, completely or not at all; returns the path.

    Raises:
        OSError: the file cannot be written.
    """
    shown = render(page).encode()
    with whole_file(path) as file:
        file.write(shown)
    return path


def render(page: Page) -> str:
    """Returns `page` as HTML."""
    timeline = pages.timeline(page)
    matrices = confusion.matrices(page)
    certified = pages.certified(page)
    used = {step.name.replace(" ", "-") for device in page.devices for step in device.steps}
    return environment().get_template("report.html").render(
        page=page,
        version=__version__,
        tiles=pages.tiles(page),
        parity=pages.parity_lanes(page),
        latency=pages.latency_plot(page),
        matrices=matrices,
        more_matrices=sum(bool(d.certificate and d.certificate.confusion) for d in certified)
        - sum(len(matrix.devices) for matrix in matrices),
        regions=_regions(page),
        shapes=palette.SHAPES,
        timeline=timeline,
        timed=sum(bool(device.steps) for device in page.devices),
        steps=[step for step in STEPS if step in used] + (["other"] if used - set(STEPS) else []),
        kinds={"identical", "equivalent", "different", "latency", *STEPS},
        certified=len(certified),
        mixed=any(pages.release_text(device.release) != pages.checked(device) for device in certified),
    )  # fmt: skip


def render_chart(title: str, picture: str, table: Table, notes: Sequence[str]) -> str:
    """Returns a page with `picture` (a PNG in base64), the table and the notes."""
    return environment().get_template("chart.html").render(
        title=title,
        picture=Markup(picture),  # noqa: S704 - base64
        columns=list(map(head, table.columns)),
        rows=table.rows,
        notes=notes,
        version=__version__,
    )  # fmt: skip


def _regions(page: Page) -> dict[str, Any] | None:
    if page.regions is None:
        return None
    from knnkit.render import decision_regions  # numpy is for a page that is drawn

    outlines = {index: Markup(path) for index, path in decision_regions.outlines(page.regions).items()}  # noqa: S704 - digits only
    return {"outlines": outlines, "marks": decision_regions.marks(page.regions), "cells": decision_regions.CELLS}


def _finalize(value: Any) -> Any:
    return sanitize.clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def environment() -> jinja2.Environment:
    """Returns jinja2's environment, which loads the templates of this folder, and escapes and cleans every value."""
    import jinja2

    folder = resources.files("knnkit.render")
    loader = jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, finalize=_finalize, keep_trailing_newline=True
    )
    environment.filters |= {
        "moment": sanitize.moment,
        "seconds": sanitize.seconds,
        "milliseconds": sanitize.milliseconds,
        "percent": metrics.percent,
        "size": sanitize.size,
        "counted": sanitize.count,
        "colour": palette.colour,
        "cell": cell,
        "column": head,
        "tone": pages.device_tone,
        "release": pages.release_text,
        "checked": pages.checked,
        "score": pages.score,
        "described": described,
        "described_columns": described_columns,
    }
    return environment
