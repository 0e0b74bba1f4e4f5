"""Reports and exit code of a command; paths of files."""

from __future__ import annotations

import argparse
import contextlib
import functools
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agent.shared.console import signals
from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.model_info import Gates
from device_agent.shared.safe_files import whole_file
from knnkit.errors import UsageError, unwritten
from knnkit.fleet.report import FleetReport
from knnkit.render.changes import Rows, no_rows
from knnkit.render.fleet_report import page_of, print_report, tone, verdict
from knnkit.render.html import write_report as write_html
from knnkit.render.page import Page, Section
from knnkit.render.sanitize import count
from knnkit.render.terminal import Progress, Table, is_plain, print_line, print_table

if TYPE_CHECKING:
    from knnkit.render.decision_regions import Regions  # numpy is for a page that is drawn

#: Commands that show a device's warnings among their answers.
_SHOWS_WARNINGS = frozenset({"status", "doctor"})


def finish(
    arguments: argparse.Namespace,
    report: FleetReport,
    gates: Gates | None = None,
    *,
    shown: bool = False,
    table: Table | None = None,
    regions: tuple[Regions, str] | None = None,
    rows: Rows = no_rows,
    cards: Sequence[Section] = (),
) -> int:
    """Prints the result, writes the reports that the user wants, and returns the exit code.

    Args:
        arguments: `--report` (files to write) and `--json`.
        report: what happened on each device; it decides the exit code.
        gates: the limits of the release, for an HTML report; None: it shows none.
        shown: whether the command has printed the report already; then only warnings, hints and a summary follow.
        table: the result, to print in place of the report, and for an HTML report.
        regions: decision regions, and the name of the device that computed them.
        rows: maps a release's digest to its evaluation rows (None: not on this host), to list wrongly answered rows.
        cards: model cards, for the end of an HTML report.
    """
    signals.deafen()  # the report is printed completely
    surveyed, by = regions or (None, "")
    how: dict[str, Any] = {"gates": gates, "regions": surveyed, "regions_from": by, "table": table, "rows": rows}
    if table and not arguments.json:
        print_table(table.columns, table.rows)
    if not arguments.json and not shown and not table:
        print_report(report, sys.stdout, rows)
    elif not arguments.json:
        _say_what_to_do(report)
    write_reports(arguments, report, lambda: replace(page_of(report, **how), cards=tuple(cards)))
    if arguments.json:
        print(json_codec.dumps(report))
    else:
        _say_how_to_go_on(arguments, report)
    return report.exit_code


def _say_how_to_go_on(arguments: argparse.Namespace, report: FleetReport) -> None:
    """Prints how to continue a deploy that succeeded on some of its devices, but not on all."""
    left = [device for device in report.devices if not device.good and device.reason != "no-wave"]
    if report.command == "deploy" and 0 < len(left) < len(report.devices):
        written = next((path for path in arguments.report if path.suffix == ".json"), None)
        how = f"with --retry-from {shlex.quote(str(written))}" if written else "again"
        print_line(f"the same command {how} continues with {count(len(left), 'device')}", stream=sys.stdout)


def _say_what_to_do(report: FleetReport) -> None:
    for device in report.devices:
        for warning in device.warnings if report.command not in _SHOWS_WARNINGS else ():
            print_line(f"{device.name}: {warning}", "warn", stream=sys.stderr)
        if device.hint and not device.good:
            print_line(f"{device.name}: try: {device.hint}", stream=sys.stderr)
    print_line(verdict(report), tone(report), stream=sys.stderr)


def write_reports(arguments: argparse.Namespace, report: FleetReport, make_page: Callable[[], Page]) -> None:
    """Writes the files of `--report`: JSON, or HTML of the page that `make_page` returns, by the suffix of each.

    Raises:
        UsageError: a file cannot be written.
    """
    failed = []  # the other files are written all the same: one of them may be needed for --retry-from
    for path in arguments.report:
        try:
            if path.suffix == ".json":
                data = json_codec.dump_file(report, limit=_MAX_REPORT)
                with whole_file(path) as file:
                    file.write(data)
            else:
                write_html(path, make_page())
        except OSError as error:
            failed.append(unwritten(f"--report {path}", error))
        except json_codec.TooLarge as error:
            failed.append(UsageError(f"--report {path}: {error}", hint=f"--report {path.stem}.html"))
    if failed:
        raise failed[0]


def model_file(path: Path, hint: str = "knnkit build") -> Path:
    """Returns the model file at `path`, which may also be its release directory.

    Raises:
        UsageError: there is no such file; the error has the hint `hint`.
    """
    model = path / constants.MODEL_FILE if path.is_dir() else path
    if not model.is_file():
        inside = next((each.parent for each in sorted(path.glob(f"*/{constants.MODEL_FILE}"))), None)
        hint = f"name one of the releases in it: {shlex.quote(str(inside))}" if inside else hint
        raise UsageError(f"{model}: no such file", hint=hint)
    return model


@contextlib.contextmanager
def building(name: str, again: str) -> Iterator[Callable[[str], None]]:
    """Yields a function to call with the name of each step of building the model `name`.

    The first call says on standard error that a model is being built; a terminal also shows each step while it lasts.
    `again`: the version of the new release, if the release that is there has the same version; else "".
    """
    more = f"; a release {again} is there already: another release.version would tell the two apart" if again else ""
    with contextlib.ExitStack() as shown:

        @functools.cache
        def begin() -> Progress | None:
            print(f"knnkit: building {name} (this can take a minute){more}", file=sys.stderr, flush=True)
            return None if is_plain(sys.stderr) else shown.enter_context(Progress())

        def step(text: str) -> None:
            if (progress := begin()) is not None:
                progress.step(name, text)

        yield step


def draws(arguments: argparse.Namespace) -> bool:
    """Whether the user wants an HTML report."""
    return any(path.suffix in (".html", ".htm") for path in arguments.report)


def check_report_paths(arguments: argparse.Namespace) -> None:
    """Checks the paths of reports before the command starts its work.

    Raises:
        UsageError: a suffix is neither .json nor .html, or a folder does not exist.
    """
    for path in arguments.report:
        check_new_file("--report", path, suffixes=(".json", ".html", ".htm"))


def check_new_file(option: str, path: Path, mine: Iterable[Path] = (), suffixes: Sequence[str] = ()) -> None:
    """Checks the path of a file that a command will write, before it starts its work.

    Args:
        option: the option that names the file, for messages.
        path: the file.
        mine: files of the user that must not be replaced.
        suffixes: ends that the file's name may have; messages show the first two. (): any.

    Raises:
        UsageError: there is no such folder, it is a release, the path is a folder or -, the suffix is wrong, or the
            file is one of `mine`.
    """
    if str(path) == "-":
        raise UsageError(
            f"{option} - would write a file that is called -", hint=f"{option} NAME{''.join(suffixes[:1])}"
        )
    if suffixes and path.suffix not in suffixes:
        said = f"{option} {path}: the file name must end in {' or '.join(suffixes[:2])}"
        name = path.with_suffix(".html") if path.name else f"{option[2:]}.html"
        raise UsageError(said, hint=f"{option} {shlex.quote(str(name))}")
    parent = path.absolute().parent
    if not parent.is_dir():
        said = f"{option} {path}: there is no directory {parent}"
        raise UsageError(said, hint=f"mkdir -p {shlex.quote(str(parent))}")
    if (parent / constants.MANIFEST_FILE).is_file() and path.name not in constants.POSSIBLE_FILES:
        said = f"{option} {path} would add a file to the release in {path.parent}, and devices refuse such a release"
        raise UsageError(said, hint=f"{option} {shlex.quote(str(parent.parent / path.name))}")
    if path.is_dir():
        raise UsageError(f"{option} {path} is a folder", hint=f"{option} {shlex.quote(str(path / 'NAME'))}")
    if path.is_file() and any(each.is_file() and path.samefile(each) for each in mine):
        raise UsageError(f"{option} {path} is a file that this command reads", hint="name another file")


def read_report(path: Path) -> FleetReport:
    """Reads a report that `--report FILE.json` or `--json` wrote.

    Raises:
        UsageError: the file is missing or is not a report.
    """
    try:
        with path.open("rb") as file:
            return json_codec.loads(FleetReport, file.read(_MAX_REPORT + 1), limit=_MAX_REPORT)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint=_A_REPORT) from None
    except json_codec.MalformedDocument as error:
        raise UsageError(f"{path} is not a report of knnkit: {error}", hint=_A_REPORT) from None


_A_REPORT = "name a file that --report FILE.json wrote"


#: Largest report that is read back, in bytes: a thousand devices take about five million.
_MAX_REPORT = 1 << 28
