"""Tables and live progress on a terminal.

Uses rich on a terminal. In a file or a pipe, or with NO_COLOR or TERM=dumb, prints plain lines, one per event, and does
not import rich. Cleans all text: callers pass the text of devices unchanged. Never reads or decides anything.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TextIO, TypeVar

from knnkit.render.sanitize import clean, size

if TYPE_CHECKING:
    import rich.console
    import rich.progress

Tone = Literal["", "good", "warn", "bad", "dim"]
P = TypeVar("P", bound="Progress")

_STYLES: dict[str, str] = {"": "", "good": "green", "warn": "yellow", "bad": "bold red", "dim": "dim"}
#: A narrow terminal folds tables of up to this many columns; a wider table becomes one block of lines per row.
_FITTING = 5
_MARKS: dict[str, str] = {"": " ", "good": "✓", "warn": "!", "bad": "✗", "dim": "–"}


@dataclass(frozen=True)
class Cell:
    """One entry of a table: its text, and a tone that only sets the colour."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Column:
    """A column of a table; `right` aligns numbers to the right."""

    title: str
    right: bool = False


@dataclass(frozen=True)
class Table:
    """A table with columns and rows, for the terminal and for a report."""

    columns: tuple[Column | str, ...]
    rows: tuple[tuple[Cell | str, ...], ...]


def is_plain(stream: TextIO) -> bool:
    """Whether `stream` gets plain text: it is not a terminal, or NO_COLOR or TERM=dumb is set."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb" or not stream.isatty()


def print_table(
    columns: Sequence[Column | str], rows: Sequence[Sequence[Cell | str]], *, stream: TextIO | None = None
) -> None:
    """Prints a table; `stream` defaults to standard output."""
    out = stream or sys.stdout
    heads = list(map(head, columns))
    cells = [[cell(entry) for entry in row] for row in rows]
    if is_plain(out):
        out.write(_plain_table(heads, cells))
    else:
        _rich_table(heads, cells, out)


def print_line(text: str, tone: Tone = "", *, stream: TextIO | None = None) -> None:
    """Prints one line; `stream` defaults to standard output."""
    out = stream or sys.stdout
    if is_plain(out):
        out.write(clean(text) + "\n")
        return
    from rich.text import Text

    _console(out).print(Text(clean(text), style=_STYLES[tone]))


def head(column: Column | str) -> Column:
    """Returns a column unchanged; for a text, a column with this title, aligned to the left."""
    return column if isinstance(column, Column) else Column(column)


def cell(entry: Cell | str) -> Cell:
    """Returns an entry of a table with its text cleaned; for a text, an entry without a tone."""
    return Cell(clean(entry.text), entry.tone) if isinstance(entry, Cell) else Cell(clean(entry))


def _plain_table(columns: list[Column], rows: list[list[Cell]]) -> str:
    lines = [[column.title for column in columns], *([cell.text for cell in row] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    shown = [
        "  ".join(
            text.rjust(width) if column.right else text.ljust(width) for text, width, column in zip(*parts)
        ).rstrip()
        for parts in ((line, widths, columns) for line in lines)
    ]
    return "\n".join(shown) + "\n"


def _rich_table(columns: list[Column], rows: list[list[Cell]], out: TextIO) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = _console(out)
    widths = [max([len(each.title), *(len(row[index].text) for row in rows)]) for index, each in enumerate(columns)]
    if sum(widths) + 3 * len(columns) > console.width and len(columns) > _FITTING:
        _rich_records(columns, rows, console)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell.text, style=_STYLES[cell.tone]) for cell in row))
    console.print(table)


def _rich_records(columns: list[Column], rows: list[list[Cell]], console: rich.console.Console) -> None:
    """Prints a table that is wider than the terminal: each row's first entry, below it a line for each other entry."""
    from rich.text import Text

    width = max(len(column.title) for column in columns)
    for row in rows:
        console.print(Text(row[0].text, style="bold"))
        for column, cell in zip(columns[1:], row[1:]):
            if cell.text:
                value = Text(cell.text, style=_STYLES[cell.tone])
                console.print(Text.assemble((f"  {column.title:<{width}}  ", "dim"), value))


def _console(out: TextIO) -> rich.console.Console:
    from rich.console import Console

    return Console(file=out, highlight=False, markup=False, emoji=False)


class Progress:
    """Live progress of many devices on standard error; a thread-safe context manager.

    On a terminal, each active device has a line, with a bar during an upload. In a file or a pipe, each new step is a
    line of text. `end` prints one permanent line for a device.
    """

    def __init__(self, *, total: int = 0, stream: TextIO | None = None) -> None:
        self._out = stream or sys.stderr
        self._plain = is_plain(self._out)
        self._total = total
        self._finished: set[str] = set()
        self._lock = threading.Lock()
        self._steps: dict[str, str] = {}
        self._tasks: dict[str, rich.progress.TaskID] = {}
        self._bars: rich.progress.Progress | None = None

    def __enter__(self: P) -> P:
        if not self._plain:
            self._bars = _bars(_console(self._out))
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def step(self, device: str, step: str, done: int | None = None, total: int | None = None) -> None:
        """Shows that `device` is at `step`; for an upload, `done` of `total` bytes."""
        with self._lock:
            if self._bars is not None:
                self._draw(self._bars, device, step, done, total)
            elif self._steps.get(device) != step:
                self._line(f"{clean(device)}: {clean(step)}" + (f" ({size(total)})" if total else ""))
            self._steps[device] = step

    def end(self, device: str, outcome: str, tone: Tone = "good") -> None:
        """Replaces the live line of `device` with a permanent line with its outcome."""
        with self._lock:
            self._finished.add(device)  # a device that goes back when a rollout stops ends twice
            self._steps.pop(device, None)
            counter = f"[{len(self._finished)}/{self._total}] " if self._total > 1 else ""
            if self._bars is not None and device in self._tasks:
                self._bars.remove_task(self._tasks.pop(device))
            self._line(f"{_MARKS[tone]} {counter}{clean(device)}: {clean(outcome)}", tone)

    def note(self, text: str, tone: Tone = "warn") -> None:
        """Prints a permanent line about the whole run, such as why it stops."""
        with self._lock:
            self._line(clean(text), tone)

    def _line(self, text: str, tone: Tone = "") -> None:
        if self._bars is not None:
            from rich.text import Text

            self._bars.console.print(Text(text, style=_STYLES[tone]))
        else:
            print(text, file=self._out, flush=True)

    def _draw(self, bars: rich.progress.Progress, device: str, step: str, done: int | None, total: int | None) -> None:
        if device not in self._tasks:
            self._tasks[device] = bars.add_task(clean(device, 40), total=None, step="")
        amount = f" {size(done or 0)} of {size(total)}" if total else ""
        what: dict[str, Any] = {"completed": done or 0, "total": total, "step": clean(step, 60) + amount}
        bars.update(self._tasks[device], **what, refresh=self._steps.get(device) != step)


def _bars(console: rich.console.Console) -> rich.progress.Progress:
    from rich import progress

    return progress.Progress(
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}: {task.fields[step]}", markup=False),
        progress.BarColumn(bar_width=24),
        progress.TimeElapsedColumn(),
        console=console,
        transient=True,
    )
