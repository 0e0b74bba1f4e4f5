"""Closed, full and missing standard streams: no file of the store takes their place, and no word ends what is done."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from support.device import Device
from support.releases import Releases

from device_agent.shared.console.streams import hint_missing
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.documents import ReleaseRef
from device_agent.store import transitions
from device_agent.store.store import Store
from device_agent.system import clock

ROW = "5.1,3.5,1.4,0.2\n"
DOUBTFUL = ROW + "no row\n" + ROW


def run(device: Device, redirections: str, *arguments: str, input: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the agent as a shell does that closes or redirects its streams."""
    shell = ["sh", "-c", f'exec "$@" {redirections}', "sh", *device.argv(*arguments)]
    return subprocess.run(shell, input=input, capture_output=True, text=True, timeout=60, env=device.env())


#: Files of ROOT that a command which changes nothing else may write.
KEPT = (constants.STARTS_FILE, constants.SEARCHES_FILE)


def contents(root: Path) -> dict[str, bytes]:
    """All files but the count of starts, which each `classify` writes, and the times of searches."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.name not in KEPT)
    return {str(path): path.read_bytes() for path in files}


@pytest.fixture
def answering(device: Device, releases: Releases) -> Device:
    device.install(releases["iris"])
    return device


def hold(device: Device, holder: str) -> None:
    """Begins an activation of `holder`, which waits for its confirmation."""
    store, release = Store(device.root), ReleaseRef("ab" * 32, "fruit", "2.0", 99)
    begin = {"created": 0, "holder": holder, "connection": "", "seconds": 600.0}
    with store.changing(holder, "a test") as current:
        store.commit(transitions.begin(current, release, **begin, moment=clock.now()))


@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full"])
def test_a_stream_goes_on_where_nobody_can_be_told_of_a_bad_line(answering: Device, where: str) -> None:
    said = run(answering, where, "classify", "--stream", input=DOUBTFUL)
    assert (said.returncode, said.stdout) == (2, "setosa\n\nsetosa\n")


def test_without_standard_error_a_release_is_checked_and_activated_all_the_same(answering: Device) -> None:
    digest = answering.answering()
    assert digest
    before = contents(answering.root)
    said = run(answering, "2>&-", "activate", digest, "--json")
    assert json.loads(said.stdout)["certificate"]["failures"] == []
    assert contents(answering.root) == before


@pytest.mark.parametrize(
    ("command", "where"),
    [
        (["status"], ">&-"),
        (["status", "--json"], ">/dev/full"),
        (["classify", "--input", "ROWS"], "<&- >&-"),
        (["classify", "--input", "ROWS"], ">/dev/full"),
    ],
)
def test_an_answer_that_cannot_be_given_is_said_and_written_nowhere_else(
    answering: Device, tmp_path: Path, command: list[str], where: str
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text(ROW)
    before = contents(answering.root)
    said = run(answering, where, *[str(rows) if word == "ROWS" else word for word in command])
    assert said.returncode == 1
    assert said.stderr.startswith("device_agent: standard output: ")
    assert ("> FILE output" if ">&-" in where else "try: make room") in said.stderr
    assert "Traceback" not in said.stderr
    assert contents(answering.root) == before


def test_without_standard_input_there_are_no_rows_to_read(answering: Device) -> None:
    said = run(answering, "<&-", "classify")
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.splitlines()[0].endswith("standard input: it is closed")
    assert "< FILE gives it input" in said.stderr


def test_a_locale_spoils_no_document(answering: Device) -> None:
    """The host reads UTF-8, whatever the login's locale is."""
    hold(answering, "Jörg")
    said = run(answering, "", "status", "--json")
    assert said.stdout.isascii()
    assert json.loads(said.stdout)["lock"]["holder"] == "Jörg"


@pytest.mark.parametrize(
    "locale",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["chosen", "C"],
)
def test_what_an_encoding_does_not_have_is_escaped_and_the_rest_is_printed(
    answering: Device, locale: dict[str, str]
) -> None:
    hold(answering, "Jörg")
    env = answering.env() | locale
    said = subprocess.run(answering.argv("status"), capture_output=True, text=True, timeout=60, env=env)
    assert (said.returncode, said.stderr) == (0, "")
    assert "lock       J\\xf6rg: activation of fruit 2.0" in said.stdout


def test_since_when_a_device_is_held_is_a_time_of_day(answering: Device) -> None:
    hold(answering, "ann")
    said = run(answering, "", "status").stdout
    assert re.search(
        r"^lock       ann: activation of fruit 2.0, not yet confirmed \(since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\)$",
        said,
        re.MULTILINE,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["classify", "--threads", "0"],
        ["classify", "--threads", "99999999999"],
        ["classify", "--output", ""],
        ["status", "--root", ""],
        ["rollback", "--leave", ""],
        ["check", "--golden", ""],
        ["history", "--last", "-5"],
        ["prune", "--keep", "0"],
        ["bench", "--seconds", "nan"],
        ["bench", "--seconds", "inf"],
    ],
)
def test_a_value_that_makes_no_sense_is_refused_before_anything_is_done(device: Device, arguments: list[str]) -> None:
    said = device.run(*arguments, input=ROW)
    assert said.code == 2
    assert f"argument {arguments[1]}" in said.err
    assert said.out == ""


def test_a_holder_of_any_length_leaves_a_history_that_can_be_read(device: Device, releases: Releases) -> None:
    device.ask("stage", releases["iris"], "--holder", "x" * 100_000 + "\x1b[2J")
    assert [len(entry["holder"]) for entry in device.ask("history")["entries"]] == [200]


def test_a_directory_that_is_no_release_is_not_to_be_deleted(device: Device, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    said = device.run("stage", tmp_path)
    assert said.code == 4
    assert "delete" not in said.err
    assert "is it the directory of a release?" in said.err


def test_a_file_that_cannot_be_opened_is_not_the_one_to_type(tmp_path: Path) -> None:
    """A link to nothing, or a folder, has the name that was typed; other names may hold control characters."""
    (tmp_path / "rows.csv").symlink_to("nowhere")
    (tmp_path / "rows\x1b.csv").touch()
    assert hint_missing(str(tmp_path / "rows.csv")).startswith("check the path")
    (tmp_path / "row.csv").touch()
    assert hint_missing(str(tmp_path / "rows.csv")) == f"did you mean {tmp_path / 'row.csv'}?"
