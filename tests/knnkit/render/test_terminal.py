"""What a terminal shows: plain where it must be, and never what a device would have it show."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import threading

import pytest

from knnkit.render import sanitize, terminal

HOSTILE = "\x1b[2J\x1b]0;owned\x07[bold red]x[/]\u202egnp.exe\u200b\n\ttail"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")


def test_cleaned_text_is_one_line_of_visible_characters() -> None:
    shown = sanitize.clean(HOSTILE)
    assert shown.isprintable()
    assert shown == "\\x1b[2J\\x1b]0;owned\\x07[bold red]x[/]\\u202egnp.exe\\u200b  tail"


def test_cleaned_text_has_a_longest_length() -> None:
    assert len(sanitize.clean("x" * 10**6)) == sanitize.LONGEST
    assert len(sanitize.clean("\x00" * 10**6)) == sanitize.LONGEST


@pytest.mark.parametrize("make", [io.StringIO, Terminal])
def test_hostile_text_stays_text_in_tables_and_progress(make: type[io.StringIO]) -> None:
    out = make()
    terminal.print_table(["device"], [[HOSTILE], [terminal.Cell(HOSTILE, "bad")]], stream=out)
    with terminal.Progress(stream=out, total=2) as progress:
        progress.step(HOSTILE, HOSTILE, 1, 2)
        progress.end(HOSTILE, HOSTILE, "bad")
        progress.note(HOSTILE)
    shown = out.getvalue()
    assert "[bold red]x[/]" in shown
    for raw in ("\x1b[2J", "\x1b]0;", "\x07", "\u202e", "\u200b"):
        assert raw not in shown


def test_a_pipe_gets_an_aligned_table_without_a_single_escape() -> None:
    out = io.StringIO()
    columns = ["device", terminal.Column("rows", right=True), "outcome"]
    terminal.print_table(columns, [["a", "300", terminal.Cell("committed", "good")], ["longer", "5", "no"]], stream=out)
    assert out.getvalue() == "device  rows  outcome\na        300  committed\nlonger     5  no\n"


def test_a_table_too_wide_for_the_terminal_becomes_blocks_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    out = Terminal()
    columns = [f"column {n}" for n in range(8)]
    terminal.print_table(columns, [[f"{name} {n}" for n in range(8)] for name in ("first", "second")], stream=out)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()
    assert shown[:2] == ["first 0", "  column 1  first 1"]
    assert shown[8:10] == ["second 0", "  column 1  second 1"]


def test_no_color_makes_a_terminal_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    coloured, plain = Terminal(), Terminal()
    terminal.print_table(["device"], [[terminal.Cell("a", "bad")]], stream=coloured)
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.print_table(["device"], [[terminal.Cell("a", "bad")]], stream=plain)
    assert "\x1b[" in coloured.getvalue()
    assert plain.getvalue() == "device\na\n"


def test_a_pipe_gets_one_line_for_each_step_not_for_each_block_sent() -> None:
    out = io.StringIO()
    with terminal.Progress(stream=out, total=2) as progress:
        for done in range(0, 1001, 10):
            progress.step("pi-1", "upload", done, 1000)
        progress.step("pi-1", "confirm")
        progress.end("pi-1", "committed")
        progress.end("pi-1", "rolled back", "bad")  # as when a rollout stops
    shown = ["pi-1: upload (1.0 kB)", "pi-1: confirm", "✓ [1/2] pi-1: committed", "✗ [1/2] pi-1: rolled back"]
    assert out.getvalue().splitlines() == shown


def test_a_terminal_keeps_the_outcomes_and_loses_the_bars() -> None:
    out = Terminal()
    with terminal.Progress(stream=out) as progress:
        progress.step("pi-1", "upload", 10, 100)
        progress.end("pi-1", "committed")
    assert "✓ pi-1: committed" in out.getvalue()


def test_progress_of_many_threads_loses_no_outcome() -> None:
    out = io.StringIO()
    with terminal.Progress(stream=out, total=50) as progress:

        def work(name: str) -> None:
            for step in ("probe", "upload", "activate"):
                progress.step(name, step)
            progress.end(name, "committed")

        threads = [threading.Thread(target=work, args=(f"pi-{n}",)) for n in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = out.getvalue().splitlines()
    assert len(lines) == 50 * 4
    assert sorted(line.split("]")[0] for line in lines if line.startswith("✓")) == sorted(
        f"✓ [{n}/50" for n in range(1, 51)
    )


def test_plain_output_does_not_import_rich() -> None:
    code = (
        "import sys; from knnkit.render import terminal; terminal.print_table(['a'], [['b']]);\n"
        "with terminal.Progress() as p: p.step('d', 's'); p.end('d', 'done')\n"
        "assert 'rich' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0021, "2.1 µs"), (0.46, "0.46 ms"), (19.04, "19 ms"), (999.7, "1 s"), (1630.0, "1.63 s")]
)
def test_times_carry_their_unit(value: float, shown: str) -> None:
    assert sanitize.milliseconds(value) == shown


def test_a_clock_at_the_end_of_the_world_does_not_break_a_report() -> None:
    assert sanitize.moment(0) == "1970-01-01 00:00:00 UTC"
    assert sanitize.moment(2**62).endswith("after 1970")
