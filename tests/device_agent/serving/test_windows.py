"""Windows of a stream on a device: the labels that the host's model gives to the same windows, whatever happens."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import signals
from support.device import Device
from support.device_stream import WAIT, Stream
from support.releases import Releases
from support.signals import Line

from device_agent.serving.columns import Columns
from device_agent.serving.load import load_model
from device_agent.serving.rows import Request
from device_agent.serving.stream_rows import StreamRows
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.input_info import Input, Window
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.release.directory import open_release
from device_agent.shared.release.model_file import read_info
from device_agent.shared.tabular.inputs import Source

ROWS, HOP, GAP = 32, 16, 0.1
SAME, LONG = (ROWS, HOP, GAP), (40, 40, GAP)


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, releases: Releases) -> Device:
    made = Device(tmp_path_factory.mktemp("motion") / "root", releases)
    made.install(releases["motion"])
    return made


def text_of(lines: Sequence[Line]) -> bytes:
    return "".join(f"{text}\n" for text in (signals.HEADER, *(line.text for line in lines))).encode()


def answers(release: Path, lines: Sequence[Line], how: tuple[int, int, float] = SAME) -> list[str]:
    """Returns the CSV lines that a host answers for the windows of lines."""
    windows, marks = signals.windows(lines, *how)
    rows = windows.astype(np.float32)
    with open_release(release) as opened:
        model = load_model(opened)
        if model.chain is not None:
            rows = np.array([model.chain.embed(row) for row in rows])
        return signals.answers(marks, [str(label) for label in model.predict(rows)] if marks else [])


def feed(stream: Stream, text: bytes, count: int) -> list[str]:
    """Sends a text in pieces; returns the `count` lines that it makes."""
    writer = threading.Thread(target=lambda: [stream.send(piece) for piece in signals.pieces(text, 2)])
    writer.start()
    got = [stream.line() for _ in range(count)]
    writer.join(WAIT)
    return got


def test_the_window_is_in_the_model(releases: Releases) -> None:
    info = read_info(releases["motion"] / constants.MODEL_FILE)
    assert info.window is not None
    assert (info.window.numbers, info.n_features) == (("ax", "ay", "az", "t"), ROWS * 3)
    assert info.evaluation is not None
    assert info.evaluation.how == "group"


def test_a_stream_and_a_recording_get_the_host_s_labels(device: Device, releases: Releases, tmp_path: Path) -> None:
    lines = signals.stream(1, 6, 400)
    expected = answers(releases["motion"], lines)
    assert len({line.rpartition(",")[2] for line in expected}) == 3
    with Stream(device) as stream:
        got = feed(stream, text_of(lines), len(expected) + 1)
        _, err = stream.finish(constants.EXIT_USAGE)
    assert got == ["first_line,last_line,first_time,last_time,label", *expected]
    assert "where lines are bad or missing" in err
    assert "where the time jumps" in err
    recording = tmp_path / "recording.csv"
    recording.write_bytes(text_of(lines))
    batch = device.run("classify", "--input", recording)
    assert (batch.code, batch.out.splitlines()) == (0, got)
    bad = sum(line.sample is None for line in lines)
    assert batch.err.count("expected 4 columns") == min(bad, 3)
    worse = device.run("classify", input=text_of(lines) + b"1,2\n" * 299)
    assert (worse.out, worse.err.count("expected 4 columns")) == (batch.out, 3)
    assert f"standard input: {bad + 296:,} more bad lines; a sample has ax, ay, az, t\n" in worse.err
    objects = device.run("classify", "--input", recording, "--json", "--digest").out.splitlines()
    assert [",".join(map(str, [*json.loads(line).values()][:5])) for line in objects] == expected
    array = io.BytesIO()
    np.save(array, np.array([(*(line.sample or [np.nan] * 3), line.time) for line in lines]))
    said = device.run("classify", "--output-format", "csv", input=array.getvalue())
    assert [line.split(",")[4] for line in said.out.splitlines()] == [line.split(",")[4] for line in expected]


@pytest.mark.parametrize(("after", "how"), [("motion-next", SAME), ("motion-long", LONG)])
def test_a_release_activated_meanwhile(
    after: str, how: tuple[int, int, float], releases: Releases, tmp_path: Path
) -> None:
    """Windows go on where they are the same; else they begin at the first sample that the new release sees."""
    own = Device(tmp_path / "root", releases)
    own.install(releases["motion"])
    digest = own.stage(releases[after])
    lines = [line for line in signals.stream(5, 3, 150) if line.sample]
    lines = [Line(place + 2, place / 50, line.sample) for place, line in enumerate(lines)]
    cut = 200
    before = answers(releases["motion"], lines[:cut])
    seen = lines if how == SAME else lines[cut:]
    later = answers(releases[after], seen, how)[len(before) if how == SAME else 0 :]
    assert before
    assert later
    with Stream(own) as stream:
        stream.send(text_of(lines[:cut]))
        got = [stream.line() for _ in range(len(before) + 1)][1:]
        own.ask("activate", digest)
        stream.send(b"".join(f"{line.text}\n".encode() for line in lines[cut:]))
        got += [stream.line() for _ in later]
        assert stream.finish() == ("", "")
    assert got == [*before, *later]


def rows_of_a_pipe() -> StreamRows:
    window = Window(("ax", "ay", "az"), ROWS, HOP, "t", GAP)
    info = KnnInfo(
        name="n", k=1, n_features=96, feature_names=window.feature_names, classes=(0, 1), metric="euclidean",
        weights="uniform", scale="none", n_train=2, batch=8, fingerprint="", minimum_runtime="1", versions={},
        input=Input(window=window),
    )  # fmt: skip
    return StreamRows(info, Source(0, "a pipe", "auto", b""), Request(None, None, "auto", None, Columns()))


@pytest.mark.parametrize(
    ("line", "has_names"),
    [("[0.1, 0.2, 0.3, {}]", False), ('{{"ax": 0.1, "ay": 0.2, "az": 0.3, "t": {}}}', True)],
)
def test_the_order_of_columns_matters_only_without_names(line: str, has_names: bool) -> None:
    rows = rows_of_a_pipe()
    for row in range(20):
        list(rows.parse(f"{line.format(row % 2)}\n".encode()))
    said = rows.take_gaps(at_end=True)
    assert said.startswith("19 gaps break windows: 19 where the time jumps")
    assert ("a line without names" in said) != has_names


def test_samples_in_a_wrong_order_are_reported_as_they_arrive() -> None:
    rows, said = rows_of_a_pipe(), {}
    for row in range(20):
        assert not [parsed for parsed in rows.parse(f"{row / 50},0.1,0.2,{row % 2}\n".encode()) if len(parsed.rows)]
        if text := rows.take_gaps(at_end=False):
            said[row] = text
    assert [*said] == [1, 2, 4, 8, 16]
    assert "1 where the time jumps" in said[1]
    assert said[16].endswith("; a line without names has the columns ax, ay, az, t")
    assert rows.take_gaps(at_end=True).startswith("19 gaps break windows: 19 where the time jumps")
    assert rows.take_gaps(at_end=True) == "", "reported already"


def test_a_restart_begins_with_an_empty_window(device: Device, releases: Releases) -> None:
    lines = [line for line in signals.stream(7, 2, 100) if line.sample]
    for part in (lines[:70], lines[70:]):
        numbered = [Line(place + 2, place / 50, line.sample) for place, line in enumerate(part)]
        with Stream(device) as stream:
            stream.send(text_of(numbered))
            assert stream.finish()[0].splitlines()[1:] == answers(releases["motion"], numbered)


def test_a_long_stream_with_gaps_a_restart_and_two_activations(releases: Releases, tmp_path: Path) -> None:
    """`KNNKIT_SAMPLES=100000 pytest tests/device_agent/serving/test_windows.py -k long` sends more."""
    count = int(os.environ.get("KNNKIT_SAMPLES", "6000"))
    own, lines = Device(tmp_path / "root", releases), signals.stream(9, 6, count // 6)
    own.install(releases["motion"])
    first, rest = (
        lines[: count // 3],
        [replace(line, number=place + 2) for place, line in enumerate(lines[count // 3 :])],
    )
    expected = answers(releases["motion"], first)
    with Stream(own) as stream:
        assert feed(stream, text_of(first), len(expected) + 1)[1:] == expected
        stream.process.kill()
    _, marks = signals.windows(rest, *SAME)
    ends = [marks[len(marks) * part // 3][1] - 1 for part in (1, 2)]  # lines of `rest` up to the end of a window
    parts = [rest[start:stop] for start, stop in zip((0, *ends), (*ends, None))]
    before = len(signals.windows(parts[0], *SAME)[1])
    later = len(signals.windows([*parts[0], *parts[1]], *SAME)[1])
    expected = [
        *answers(releases["motion"], rest)[:before],
        *answers(releases["motion-next"], rest)[before:later],
        *answers(releases["motion-long"], parts[2], LONG),
    ]
    got = []
    with Stream(own) as stream:
        for part, name, size in zip(parts, ("motion-next", "motion-long", ""), (before + 1, later - before, None)):
            text = text_of(part) if not got else text_of(part).partition(b"\n")[2]
            got += feed(stream, text, len(expected) + 1 - len(got) if size is None else size)
            if name:
                own.install(releases[name])
        rest_of_answers, said = stream.finish(constants.EXIT_USAGE)
    assert (got[1:], rest_of_answers) == (expected, "")
    print(f"{len(lines):,} samples, {len(expected):,} windows after the restart; {said.splitlines()[-1]}")
    assert "gaps break windows" in said
    counted = own.ask("status")["cells"]
    assert counted["gaps"]["lines"] + counted["gaps"]["times"] > 0


def test_too_few_samples_are_no_rows(device: Device) -> None:
    said = device.run("classify", input=text_of(signals.stream(1, 1, ROWS - 1, faults=0.0001)))
    assert said.code == constants.EXIT_USAGE
    assert f"no window of {ROWS} samples is complete: the input has {ROWS - 1}" in said.err
    assert f"try: give at least {ROWS} samples without a gap" in said.err
    folder = device.run("classify", "--input", ".")
    assert folder.code == constants.EXIT_USAGE
    assert "Is a directory\n  try: --input takes one file" in folder.err


def test_kept_columns_are_those_of_the_last_sample(device: Device) -> None:
    text = "note,t,ax,ay,az\n" + "".join(f"n{row},{row / 50},0.1,0.2,9.8\n" for row in range(50))
    said = device.run("classify", "--keep", "note", input=text)
    assert said.out.splitlines() == [
        "first_line,last_line,first_time,last_time,note,label",
        "2,33,0.0,0.62,n31,stand",
        "18,49,0.32,0.94,n47,stand",
    ]
    said = device.run("classify", "--keep", "last_line", input=text.replace("note", "last_line"))
    assert said.code == constants.EXIT_USAGE


def test_the_golden_windows_are_judged_as_rows_are(device: Device) -> None:
    assert device.run("bench", "--seconds", "0.1").code == 0
    assert device.ask("check")["different"] == 0
