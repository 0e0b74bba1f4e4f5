"""Windows are the same however the samples arrive, and none has samples from both sides of a gap."""

from __future__ import annotations

import datetime
import itertools
import json

import numpy as np
import pytest
from support import signals
from support.signals import Line

from device_agent.shared.embedding.chain import Chain
from device_agent.shared.embedding.stage import StageRunner
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.input_info import Input, Stage, Window
from device_agent.shared.tabular.reader import without_rows
from device_agent.shared.windows.cutter import Cutter, Gaps
from device_agent.shared.windows.window_parser import WindowParser


@pytest.mark.parametrize("seed", range(60))
def test_windows_do_not_depend_on_how_samples_arrive(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, hop, count = int(rng.integers(1, 12)), int(rng.integers(1, 20)), int(rng.integers(0, 120))
    lines, number, time = [], 0, 0.0
    for _ in range(count):
        number += int(rng.choice([1, 1, 1, 1, 1, 1, 1, 2]))  # a line that is bad or missing
        time += float(rng.choice([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.0, 5.0, -5.0]))
        lines.append(Line(number, time, tuple(rng.normal(size=3).tolist())))
    whole = [*lines]
    pairs = [*itertools.pairwise(lines)]
    for before, after in pairs:  # the one-sample cutter sees a missing line as a bad one
        if after.number != before.number + 1:
            whole.insert(whole.index(after), Line(after.number - 1, after.time, None))
    expected, marks = signals.windows(whole, rows, hop, 1.0)

    samples = np.array([line.sample for line in lines]).reshape(-1, 3)
    cutter, gaps = Cutter(rows, hop), Gaps(1.0)
    cuts = np.sort(rng.integers(0, count + 1, int(rng.integers(0, 12))))
    found, last = [np.empty((0, rows, 3))], []
    for part in np.split(np.arange(count), cuts):
        chosen = [lines[place] for place in part.tolist()]
        breaks = gaps.find([line.number for line in chosen], np.array([line.time for line in chosen]))
        windows, ends = cutter.feed(samples[part], breaks)
        found.append(windows)
        last += [chosen[end].number for end in ends.tolist()]
    assert np.array_equal(np.concatenate(found).reshape(-1, rows * 3), expected)
    assert last == [mark[1] for mark in marks]
    jumps = [(after.number != before.number + 1, after.time - before.time) for before, after in pairs]
    assert gaps.lines == sum(missing for missing, _ in jumps)
    assert gaps.times == sum(not missing and not 0.0 <= step <= 1.0 for missing, step in jumps)


def iso(seconds: float, zone: str) -> str:
    """Returns a time near a change of the year, some seconds after its beginning; `zone` is where clocks show it."""
    east = -5.5 if zone == "-05:30" else 0.0
    moment = datetime.datetime(2027, 12, 31, 23, 59, 50) + datetime.timedelta(hours=east, seconds=seconds)
    return moment.isoformat() + zone


WINDOW = Window(("ax", "ay", "az"), 8, 3, "t", 0.1, "walk")


@pytest.mark.parametrize("format", ["csv", "jsonl"])
@pytest.mark.parametrize(("seed", "zone"), [*((seed, None) for seed in range(4)), (4, ""), (5, "Z"), (6, "-05:30")])
def test_parsed_windows_and_their_marks(format: str, seed: int, zone: str | None) -> None:
    """With a zone, times are text."""
    lines = signals.stream(seed, 3, 60, faults=0.05)
    expected, marks = signals.windows(lines, 8, 3, 0.1)
    if zone is not None:
        marks = [(*mark[:2], *(iso(time, "Z" if zone else "") for time in mark[2:])) for mark in marks]
    parser = WindowParser(WINDOW, format, keep=["t"])
    texts = [signals.HEADER] * (format == "csv")
    for line in lines:
        time = line.time if zone is None else iso(line.time, zone)
        values = dict(zip(signals.HEADER.split(","), (time, *(line.sample or ()))))
        csv = line.text.replace(f"{line.time:.2f}", str(time), 1)
        texts.append(csv if format == "csv" else json.dumps(values) if line.sample else "{")
    first = 2 if format == "csv" else 1
    rows, found, bad = [np.empty((0, 24))], [], []
    for start in range(0, len(texts), 7):
        for part in parser.blocks("".join(text + "\n" for text in texts[start : start + 7]).encode()):
            parsed = parser.parse(part)
            assert parsed.count == len(parsed.rows) == len(parsed.lines)
            rows.append(parsed.rows)
            found += list(zip(*parsed.kept[:4]))
            bad += [number for number, _ in parsed.bad]
    assert np.array_equal(np.concatenate(rows), expected)
    assert found == [(one - 2 + first, two - 2 + first, *times) for one, two, *times in marks]
    assert bad == [line.number - 2 + first for line in lines if line.sample is None]


def test_another_recording_breaks_a_window_without_being_a_gap() -> None:
    text = "walk,ax,ay,az,t\n" + "".join(f"{'abc'[row // 10]},1,2,3,{row / 50}\n" for row in range(30))
    parser = WindowParser(WINDOW, "csv")
    assert parser.parse(text.encode()).kept[1] == [9, 19, 29]
    assert (parser.gaps.recordings, parser.gaps.describe()) == (2, "")


def test_a_stream_of_one_recording_needs_no_column_for_it() -> None:
    text = "ax,ay,az,t\n" + "".join(f"1,2,3,{row / 50}\n" for row in range(30))
    assert len(WindowParser(WINDOW, "csv").parse(text.encode()).rows) == 8
    rows = "".join(f"[1, 2, 3, {row / 50}]\n" for row in range(30))
    assert len(WindowParser(WINDOW, "jsonl").parse(rows.encode()).rows) == 8


def test_samples_without_a_header_may_have_semicolons_and_dates() -> None:
    text = "".join(f"1,5;2;3;2026-01-31T12:00:{row:02}\n" for row in range(8))
    found = WindowParser(Window(("ax", "ay", "az"), 8, 8, "t", 1.0), "csv").parse(text.encode())
    assert (found.bad, found.rows.tolist()) == ([], [[1.5, 2.0, 3.0] * 8])


def test_bad_samples_are_still_reported_where_a_window_is_taken_out() -> None:
    parsed = WindowParser(Window(("x",), 2, 2), "csv").parse(b"1\n2\noops\n3\n4\n")
    left = without_rows(parsed, {0: BadInput("this row kills the model")})
    assert (left.rows.tolist(), left.lines, left.bad, left.samples) == ([[3.0, 4.0]], [5], parsed.bad, 4)
    assert parsed.bad


def test_blocks_bound_the_memory_of_windows_that_overlap() -> None:
    parser = WindowParser(Window(("x",), 4096, 1), "csv")
    block = b"1\n" * 20_000
    parts = [*parser.blocks(block)]
    assert b"".join(parts) == block
    assert max(len(parser.parse(part).rows) for part in parts) * 4096 * 8 <= 1 << 23


class Doubles(StageRunner):
    """A stage that refuses what it cannot double."""

    def __init__(self) -> None:
        self.stage = Stage("stage-1.tflite", "")

    def run(self, values: np.ndarray) -> np.ndarray:
        if values.max() > 1e38:
            raise BadInput("the stages answer with a number that is not finite")
        return values[:2] * 2


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_a_window_that_the_stages_refuse_is_a_bad_line_and_the_others_are_answered(format: str) -> None:
    values = [1.0, 2.0, 3.0, 3e38, 5.0, 6.0, 7.0, 3e38, 9.0, 10.0]
    lines = [f"[{value}]" if format == "jsonl" else f"{value}" for value in values]
    window, doubles = Window(("a",), 2, 1, None, 0.0, None), Chain(Input(), [Doubles()])
    parser = WindowParser(window, format, dtype=np.float32, chain=doubles)
    found = parser.parse("".join(f"{line}\n" for line in (lines if format == "jsonl" else ["a", *lines])).encode())
    whole = [place for place in range(1, len(values)) if max(values[place - 1 : place + 1]) < 1e38]
    first = 1 if format == "jsonl" else 2
    assert found.rows.tolist() == [[2 * values[place - 1], 2 * values[place]] for place in whole]
    assert list(found.lines) == list(found.kept[1]) == [place + first for place in whole]
    assert [line for line, _ in found.bad] == [place + first for place in range(1, 10) if place not in whole]
    with pytest.raises(BadInput, match=r"rows\[3\]: the window that ends in this line"):
        [*parser.arrays([np.array(values)[:, None]])]
