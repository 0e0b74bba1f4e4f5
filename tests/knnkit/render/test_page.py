"""The report as text: what it says, and that nothing a device says can become part of the page."""

from __future__ import annotations

import os
import stat
import threading
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support import pages

from device_agent.shared.protocol.reports import Latency
from knnkit.fleet.report import Outcome, Step
from knnkit.render import confusion, html, page

ATTRIBUTES_THAT_LOAD = {"src", "srcset", "action", "formaction", "data", "poster", "background", "ping"}


class Reader(HTMLParser):
    """Collects the tags, the attributes and the visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in {"meta", "link", "img", "input", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)


def read(shown: page.Page) -> Reader:
    return Reader(html.render(shown))


EVERY_PAGE = {"fleet": pages.fleet, "thousand": pages.thousand, "hostile": pages.hostile}


@pytest.mark.parametrize("name", sorted(EVERY_PAGE))
def test_every_tag_is_closed_and_nothing_is_loaded(name: str) -> None:
    found = read(EVERY_PAGE[name]())
    assert found.open == []
    assert not {"script", "iframe", "object", "embed", "img", "form", "base"} & set(found.tags)
    assert not [entry for entry in found.attributes if entry[1] in ATTRIBUTES_THAT_LOAD or entry[1].startswith("on")]
    links = {value for _, name, value in found.attributes if name in {"href", "xlink:href"}}
    assert all(value == "data:," or value.startswith("#shape") for value in links)


def test_a_hostile_device_adds_no_tag_to_the_page() -> None:
    """The same page told by an honest and by a hostile device has the very same tags."""
    attacked = pages.hostile()
    harmless = html.render(attacked).replace("owned", "")
    honest_text = "honest"
    honest = replace(
        attacked,
        title=honest_text,
        verdict=honest_text,
        devices=(replace(attacked.devices[0], name=honest_text, message=honest_text, hint="x"),),
    )
    assert Reader(harmless).tags == read(honest).tags
    assert "<script" not in html.render(attacked)


def test_every_fact_of_a_certificate_is_on_the_page() -> None:
    text = read(pages.fleet()).text
    proof = pages.certificate()
    facts = [proof.nonce, proof.release, proof.model_sha256, "94.33 % on 300 rows", "tflite_runtime 2.14.0", "XNNPACK"]
    facts += ["Python 3.11.2", "NumPy 1.26.4", "Cortex-A72", "4 cores", "4.0 GB", "armv7l", "ai_edge_litert 2.3.0"]
    facts += ["2026-03-01 12:00:00 UTC", "271 identical, 6 equivalent, 23 different"]
    for fact in facts:
        assert fact in text, fact


def test_each_outcome_and_its_reason_is_on_the_page() -> None:
    text = read(pages.fleet()).text
    for device in pages.fleet().devices:
        for fact in (device.name, device.word, device.message, device.hint):
            assert fact in text, fact


def test_the_rows_that_differ_are_listed_and_the_rest_is_counted() -> None:
    text = read(pages.fleet()).text
    assert "the first 20 of 23" in text
    assert "4, 230, 17" in text


def test_devices_with_the_same_confusion_share_one_matrix() -> None:
    found = confusion.matrices(pages.fleet())
    assert [len(matrix.devices) for matrix in found] == [3, 1]
    assert found[0].cells == ((98, 2, 0, 0), (3, 91, 4, 2), (0, 5, 94, 1))
    assert found[0].shares[0] == (98, 2, 0, 0)


def test_the_unknown_column_is_left_out_where_nothing_is_unknown() -> None:
    proof = pages.certificate(confusion=((5, 0, 0), (1, 4, 0)))
    one = page.Page("t", "v", "good", (pages.device("d", Outcome.COMMITTED, certificate=proof),), classes=("a", "b"))
    assert confusion.matrices(one)[0].cells == ((5, 0), (1, 4))
    assert "unknown" not in read(one).text


def test_of_very_many_classes_the_commonest_mistakes_are_listed() -> None:
    names = tuple(f"class {number}" for number in range(100))
    cells = [[0] * 101 for _ in names]
    for truth in range(100):
        cells[truth][truth] = 50
        cells[truth][(truth + 1) % 101] = truth
    proof = pages.certificate(confusion=tuple(map(tuple, cells)))
    one = page.Page("t", "v", "good", (pages.device("d", Outcome.COMMITTED, certificate=proof),), classes=names)
    text = read(one).text
    assert "5,000 of 9,950 rows are answered right. The commonest mistakes among 100 classes:" in text
    assert "class 99 unknown 99 66.44 %" in text, "99 of 149 rows"
    assert "class 80 class 81 80 61.54 %" in text
    assert "class 79 class 80" not in text
    assert "The worst class first (25 of 100): Class Recall" in text
    assert "79 more pairs of classes are mixed up" in text


def test_no_figure_of_the_page_is_rounded_up_to_all() -> None:
    cells = tuple((*(30_000 * (other == own) for other in range(30)), int(own == 0)) for own in range(30))
    proof = pages.certificate(accuracy=0.999999, accuracy_rows=1, confusion=cells)
    text = read(page.Page("t", "v", "good", (pages.device("d", Outcome.COMMITTED, certificate=proof),))).text
    assert "99.99 % accuracy" in text, "the tile"
    assert "99.99 % on 1 row;" in text, "the certificate"
    assert "0 unknown 1 0.01 %" in text, "the mistake"
    assert "100.00 % on" not in text


def test_one_different_row_among_thousands_is_drawn() -> None:
    proof = pages.certificate(identical=99_999, different=1)
    shown = page.Page("t", "v", "bad", (pages.device("d", Outcome.FAILED, certificate=proof),))
    bars = page.parity_lanes(shown)[0].bars
    assert [bar.kind for bar in bars] == ["identical", "different"]
    assert bars[1].width >= 0.9
    assert sum(bar.width for bar in bars) == pytest.approx(100)


def test_plots_of_a_large_fleet_show_the_device_that_departs() -> None:
    lanes = page.parity_lanes(pages.thousand())
    assert len(lanes) == page.PLOTTED
    assert "pi-0617" in {lane.name for lane in lanes}
    assert "40 of 1000 devices that stand out" in read(pages.thousand()).text


def test_the_budget_stands_at_its_place_between_the_ticks() -> None:
    plot = page.latency_plot(pages.fleet())
    assert plot is not None
    lanes, axis, budget = plot
    assert [text for _, text in axis] == ["1 µs", "10 µs", "0.1 ms", "1 ms", "10 ms"]
    assert budget == 75.0
    assert all(0 <= bar.left <= 100 and bar.left + bar.width <= 100.7 for lane in lanes for bar in lane.bars)


@pytest.mark.parametrize(
    ("seconds", "ticks"),
    [
        (2.1, [(0, "0 s"), (47.62, "1 s"), (95.24, "2 s")]),
        (24.8, [(0, "0 s"), (40.32, "10 s"), (80.65, "20 s")]),
        (0.4, [(0, "0 s"), (25, "0.1 s"), (50, "0.2 s"), (75, "0.3 s"), (100, "0.4 s")]),
        (0.3, [(0, "0 s"), (33.33, "0.1 s"), (66.67, "0.2 s"), (100, "0.3 s")]),
        (0.0, [(0, "0 s"), (50, "0.0005 s"), (100, "0.001 s")]),
    ],
)
def test_the_timeline_counts_in_round_numbers(seconds: float, ticks: list[tuple[float, str]]) -> None:
    step = Step("probe", 0.0, seconds)
    plot = page.timeline(page.Page("t", "v", "good", (pages.device("d", Outcome.ANSWERED, steps=(step,)),)))
    assert plot is not None
    assert list(plot[1]) == ticks


@pytest.mark.parametrize("jump", [-3600.0, -1.0, 0.0, 3600.0])
def test_a_clock_that_jumps_draws_no_bar_beyond_its_lane(jump: float) -> None:
    steps = (Step("connect", 10.0, 0.5), Step("upload", 10.5 + jump, 2.0), Step("confirm", 12.5 + jump, 1.0))
    page_of = page.Page("t", "v", "good", (pages.device("d", Outcome.ANSWERED, steps=steps),), started=10.0)
    plot = page.timeline(page_of)
    assert plot is not None
    (lane,) = plot[0]
    assert all(bar.left >= 0.0 and bar.left + bar.width <= 100.2 for bar in lane.bars)
    assert lane.note == "3.5 s"


@pytest.mark.parametrize(
    "claimed", [Latency(5e-324, 1.0, 1), Latency(1.0, 1.7976931348623157e308, 1), Latency(-1.0, 1.0, 1)]
)
def test_a_device_that_claims_times_which_no_clock_measures_bends_no_plot(claimed: Latency) -> None:
    shown = pages.fleet()
    liar = replace(shown.devices[0], name="liar", certificate=pages.certificate("liar", latency=claimed))
    told = replace(shown, devices=(*shown.devices, liar))
    assert page.latency_plot(told) == page.latency_plot(shown)
    assert "liar" in read(told).text


def test_a_page_without_certificates_says_what_it_knows() -> None:
    shown = page.Page("t", "nobody answered", "warn", (pages.device("cellar", Outcome.UNREACHABLE, "no route"),))
    text = read(shown).text
    assert "no route" in text
    assert "Certificates" not in text
    assert "Latency" not in text


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("the last report")
    monkeypatch.setattr(html, "render", lambda _: "\ud800")
    with pytest.raises(UnicodeEncodeError):
        html.write_report(path, pages.fleet())
    assert path.read_text() == "the last report"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"], "no part of one is left"


def test_a_report_to_a_named_pipe_goes_into_the_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "report.html"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text(encoding="utf-8")))
    reader.start()
    html.write_report(pipe, pages.fleet())
    reader.join(30)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert got[0].endswith("</html>\n")
