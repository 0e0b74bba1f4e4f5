"""The report in a real browser: phone and desktop, light and dark, without scripts and without a network.

KNNKIT_SCREENSHOTS=DIR keeps the pictures for a person to look at.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import browser, pages

from device_agent.shared.protocol.model_info import TargetError
from knnkit.render import html

PHONE, TABLET, DESKTOP = 360, 800, 1280
#: How far the content of a card reaches beyond its right padding, in pixels.
BEYOND = """Math.max(...[...document.querySelectorAll('section > *')].map(
  e => e.getBoundingClientRect().right - e.parentNode.getBoundingClientRect().right)) + 17"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[browser.Browser]:
    if browser.find() is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with browser.launch() as running:
        yield running


@pytest.fixture(scope="module", params=["fleet", "hostile"])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = getattr(pages, request.param)()
    return html.write_report(tmp_path_factory.mktemp("report") / f"{request.param}.html", page)


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("dark", [False, True])
def test_the_report_opens_without_a_complaint_and_asks_for_nothing(
    chromium: browser.Browser, report: Path, width: int, dark: bool
) -> None:
    visit = chromium.visit(report.as_uri(), width=width, dark=dark, scripts=True)
    if folder := os.environ.get("KNNKIT_SCREENSHOTS"):
        browser.save(visit, Path(folder) / f"{report.stem}-{width}-{'dark' if dark else 'light'}.png")
    assert visit.console == []
    assert [url for url in visit.requests if url not in (report.as_uri(), "data:,")] == []
    assert visit.title != "owned"


@pytest.mark.parametrize("width", [PHONE, TABLET, DESKTOP])
def test_nothing_sticks_out_sideways_and_no_text_is_too_small(
    chromium: browser.Browser, report: Path, width: int
) -> None:
    visit = chromium.visit(report.as_uri(), width=width, measure=BEYOND)
    assert visit.content_width <= width
    assert visit.measured <= 0.5
    assert visit.small_texts == []


def test_the_errors_of_several_targets_hide_no_column(chromium: browser.Browser, tmp_path: Path) -> None:
    errors = tuple(TargetError(name, 80, 3.431, 2.7, 10.6) for name in ("east", "north", "height", "depth"))
    proof = pages.certificate(accuracy=None, accuracy_rows=0, confusion=(), classes=(), errors=errors)
    (device,) = pages.fleet().devices[:1]
    page = replace(pages.fleet(), devices=(replace(device, certificate=proof, warnings=()),))
    file = html.write_report(tmp_path / "r.html", page)
    hidden = "(e => e.scrollWidth - e.clientWidth)(document.querySelector('.scroll'))"
    assert chromium.visit(file.as_uri(), width=1100, measure=hidden).measured <= 0


def test_without_scripts_the_page_is_the_same(chromium: browser.Browser, report: Path) -> None:
    with_scripts = chromium.visit(report.as_uri(), width=DESKTOP, scripts=True)
    without = chromium.visit(report.as_uri(), width=DESKTOP, scripts=False)
    assert without.screenshot == with_scripts.screenshot


def test_a_report_of_a_thousand_devices_opens_on_a_phone(chromium: browser.Browser, tmp_path: Path) -> None:
    report = html.write_report(tmp_path / "r.html", pages.thousand())
    visit = chromium.visit(report.as_uri(), width=PHONE)
    assert visit.console == []
    assert visit.content_width <= PHONE
    assert visit.small_texts == []


def test_the_dark_is_dark(chromium: browser.Browser, tmp_path: Path) -> None:
    report = html.write_report(tmp_path / "r.html", pages.fleet())
    light, dark = (chromium.visit(report.as_uri(), width=PHONE, dark=dark) for dark in (False, True))
    assert light.screenshot != dark.screenshot


#: Scrolls the table of answers to a share of its way; says where its frame is, where answers begin beside the truth,
#: and whether it holds more than it shows.
SCROLLED = """(() => {
  const e = document.querySelector('.scroll:has(.matrix)'), more = e.scrollWidth > e.clientWidth;
  e.scrollLeft = %s * (e.scrollWidth - e.clientWidth);
  const r = e.getBoundingClientRect(), truth = e.querySelector('tbody th').getBoundingClientRect();
  return {
    frame: r.left, truth: truth.left, left: truth.right, right: r.right, top: r.top + scrollY,
    bottom: r.bottom + scrollY, more: more
  };
})()"""


def shades(visit: browser.Visit) -> tuple[float, float]:
    """Returns how far the edges between which the answers are seen are from the card's colour, of 255."""
    picture = np.asarray(Image.open(io.BytesIO(visit.screenshot)).convert("L"), np.float64)
    frame = {name: round(value) for name, value in visit.measured.items()}
    rows = picture[frame["top"] + 2 : frame["bottom"] - 20]
    card = picture[frame["top"] + 2 : frame["bottom"], frame["right"] + 4 : frame["right"] + 12]
    edges = rows[:, frame["left"] : frame["left"] + 3], rows[:, frame["right"] - 3 : frame["right"]]
    left, right = (abs(float(np.median(edge)) - float(np.median(card))) for edge in edges)
    return left, right


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("scrolled", "signs"), [(0, (False, True)), (0.5, (True, True)), (1, (True, False))])
def test_a_table_that_is_wider_than_a_phone_shows_on_which_side_there_is_more(
    chromium: browser.Browser, tmp_path: Path, dark: bool, scrolled: float, signs: tuple[bool, bool]
) -> None:
    report = html.write_report(tmp_path / "digits.html", pages.digits())
    visit = chromium.visit(report.as_uri(), width=390, dark=dark, measure=SCROLLED % scrolled)
    if folder := os.environ.get("KNNKIT_SCREENSHOTS"):
        browser.save(visit, Path(folder) / f"digits-390-{scrolled}-{'dark' if dark else 'light'}.png")
    assert visit.measured["more"]
    assert visit.measured["truth"] == visit.measured["frame"], "whose row it is stays in sight"
    assert [shade > 30 for shade in shades(visit)] == list(signs), shades(visit)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_table_that_fits_has_no_such_sign(chromium: browser.Browser, tmp_path: Path, dark: bool) -> None:
    report = html.write_report(tmp_path / "digits.html", pages.digits())
    visit = chromium.visit(report.as_uri(), width=DESKTOP, dark=dark, measure=SCROLLED % 0)
    if folder := os.environ.get("KNNKIT_SCREENSHOTS"):
        browser.save(visit, Path(folder) / f"digits-{DESKTOP}-{'dark' if dark else 'light'}.png")
    assert not visit.measured["more"]
    assert shades(visit)[1] < 3


def test_the_browser_sees_what_a_page_does_wrong(chromium: browser.Browser, tmp_path: Path) -> None:
    """The other tests would pass with a browser that sees nothing."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<title>x</title><img src='http://192.0.2.1/x.png'><p style='font-size:6px;width:3000px'>small</p>"
        "<script>console.error('wrong'); document.title = 'owned'</script>"
    )
    visit = chromium.visit(bad.as_uri(), width=PHONE, scripts=True)
    assert "http://192.0.2.1/x.png" in visit.requests
    assert "wrong" in visit.console
    assert visit.title == "owned"
    assert visit.content_width > 2999
    assert visit.small_texts == ["small"]
