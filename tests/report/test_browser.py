"""The report in a real browser: phone and desktop, light and dark, without scripts and without a network.

KNNKIT_SCREENSHOTS=DIR keeps the pictures for a person to look at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import browser, pages

from knnkit.render import html

PHONE, DESKTOP = 360, 1280


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


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_nothing_sticks_out_sideways_and_no_text_is_too_small(
    chromium: browser.Browser, report: Path, width: int
) -> None:
    visit = chromium.visit(report.as_uri(), width=width)
    assert visit.content_width <= width
    assert visit.small_texts == []


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
