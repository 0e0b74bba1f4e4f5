"""The beginning of a stream: a line that is not a row decides nothing."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from support.device import Device
from support.releases import Releases

from device_agent.serving.columns import Columns
from device_agent.serving.rows import Request
from device_agent.serving.stream_rows import StreamRows
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants
from device_agent.shared.release.model_file import read_info
from device_agent.shared.tabular.inputs import Source

#: Lines that are not rows of four numbers, in either format.
RUBBISH = {
    "online": "online",
    "unavailable": "unavailable",
    "empty": "",
    "blank": " \r",
    "bad row": "5.1,abc,1.4,0.2",
    "half a row": "1.4,0.2",
    "words with commas": "time,light,rain,wind",
    "number": "1",
    "bad object": '{"status": "online"}',
    "half an object": '{"sepal',
    "array of words": '["online"]',
    "null": "null",
    "empty object": "{}",
    "no text": "\x00\x01",
    "quote": '"',
}


class Ready:
    """A device with `iris`, and its golden rows in every way a line can be written."""

    def __init__(self, device: Device, release: Path) -> None:
        self.device = device
        device.install(release)
        self.info = read_info(release / constants.MODEL_FILE)
        golden = Golden.from_bytes((release / constants.GOLDEN_FILE).read_bytes())
        self.rows = golden.rows
        self.labels = [str((*self.info.classes, constants.UNKNOWN_LABEL)[label]) for label in golden.label]
        names = self.info.feature_names
        numbers = golden.rows.tolist()
        backwards = [",".join(reversed(names)), *(",".join(map(str, reversed(row))) for row in numbers)]
        self.lines = {
            "csv": [",".join(map(str, row)) for row in numbers],
            "csv with a header": [",".join(names), *(",".join(map(str, row)) for row in numbers)],
            "csv in another order": backwards,
            "json arrays": [json.dumps(row) for row in numbers],
            "json objects": [json.dumps(dict(zip(names, row))) for row in numbers],
        }


WAYS = ("csv", "csv with a header", "csv in another order", "json arrays", "json objects")


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, releases: Releases) -> Ready:
    return Ready(Device(tmp_path_factory.mktemp("ready") / "root", releases), releases["iris"])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("first", sorted(RUBBISH))
def test_a_line_that_is_not_a_row_decides_nothing(ready: Ready, first: str, way: str) -> None:
    answered = _rows_of(ready, [RUBBISH[first], *ready.lines[way]])
    np.testing.assert_array_equal(answered, ready.rows)


@pytest.mark.parametrize("way", WAYS)
def test_three_lines_that_are_not_rows_decide_nothing(ready: Ready, way: str) -> None:
    for lines in itertools.permutations(("online", "bad row", "bad object", "half an object", "empty"), 3):
        answered = _rows_of(ready, [*(RUBBISH[name] for name in lines), *ready.lines[way]], size=7)
        np.testing.assert_array_equal(answered, ready.rows)


def _rows_of(ready: Ready, lines: list[str], size: int = 1000) -> np.ndarray:
    """Returns the rows that a stream of these lines has, `size` lines at a time."""
    request = Request(None, None, "auto", None, Columns())
    rows = StreamRows(ready.info, Source(0, "standard input", "auto", b""), request)
    found = []
    for start in range(0, len(lines), size):
        block = "".join(line + "\n" for line in lines[start : start + size]).encode()
        found += [parsed.rows for parsed in rows.parse(block) if len(parsed.rows)]
    return np.concatenate(found)


@pytest.mark.parametrize("format", ["csv", "jsonl"])
@pytest.mark.parametrize("first", ["online", "unavailable", "empty", "bad row", "bad object"])
def test_the_answers_after_such_a_line_are_those_without_it(ready: Ready, first: str, format: str) -> None:
    lines = ready.lines["csv" if format == "csv" else "json objects"]
    for more in ([], ["--output-format", "jsonl"]):
        said = ready.device.run("classify", "--stream", *more, input="\n".join([RUBBISH[first], *lines, ""]))
        answers = said.out.splitlines()[-len(lines) :]
        labels = answers if format == "csv" and not more else [json.loads(line)["label"] for line in answers]
        assert labels == ready.labels
        assert said.code == (0 if first == "empty" else constants.EXIT_USAGE)


def test_a_header_after_such_a_line_is_a_header(ready: Ready) -> None:
    lines = ["online", *ready.lines["csv in another order"]]
    said = ready.device.run("classify", "--stream", input="\n".join([*lines, ""]))
    assert said.out.splitlines() == ["", "label", *ready.labels]


def test_a_row_decides_the_format(ready: Ready) -> None:
    lines = [ready.lines["csv"][0], ready.lines["json arrays"][1], ready.lines["csv"][2]]
    said = ready.device.run("classify", "--stream", input="\n".join([*lines, ""]))
    assert said.out.splitlines() == [ready.labels[0], "", ready.labels[2]]
    assert "line 2: " in said.err


def test_npy_is_not_taken_for_a_bad_line(ready: Ready, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ready.rows)
    for data in ((tmp_path / "rows.npy").read_bytes(), b"online\n" + (tmp_path / "rows.npy").read_bytes()):
        said = ready.device.run("classify", "--stream", input=data)
        assert said.code == constants.EXIT_USAGE
        assert "--stream reads and writes lines of CSV or JSON" in said.err
