"""`knnkit label`: asks a person to label collected rows.

Asks in a browser on this machine, or on the terminal.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import ModelUnusable
from knnkit.commands import _config
from knnkit.commands._label_server import LabelServer
from knnkit.commands._selection import agrees
from knnkit.data import collected
from knnkit.errors import KnnkitError, UsageError
from knnkit.model.stored import StoredModel, read_model
from knnkit.render.label_page import View, lines, number
from knnkit.render.sanitize import clean, count, moment
from knnkit.render.terminal import Column, print_line, print_table
from knnkit.training.labelling import Labelling

_HELP = "s or Enter to skip, u to undo, q to end"
_DIGITS = 9  # of the number of a label


def run(arguments: argparse.Namespace) -> int:
    """Asks a person for the label of each row that has none; returns 0."""
    found = collected.read(arguments.file)
    model, why = _model(arguments, found.columns.model)
    work = Labelling(found, model)
    if work.row is None:
        print_line(f"{arguments.file}: every row has a label")
        return constants.EXIT_OK
    if arguments.terminal:
        _ask(work)
    else:
        _serve(work, why, arguments.port)
    rows = f"{count(work.waiting, 'row')} {'has' if work.waiting == 1 else 'have'}"
    print_line(f"{arguments.file}: {count(work.given, 'label')} given, {rows} none")
    return constants.EXIT_OK


def _model(arguments: argparse.Namespace, name: str) -> tuple[StoredModel | None, str]:
    """Returns the model whose training rows are shown beside each row, and a message for when they cannot be shown.

    The model is that of `--release`, else the model `name` of deploy.yaml; None if its release is not built.
    """
    folder: Path | None = arguments.release
    if folder is None:
        config = _config.load_config(arguments)
        folder = (
            next((build.release.dir for build in config.builds() if build.model.name == name), None) if config else None
        )
        if folder is None or not (folder / constants.MODEL_FILE).is_file():
            return None, "to see training rows, name a release with --release"
    try:
        return read_model(folder / constants.MODEL_FILE), "the model cannot read this row"
    except (ModelUnusable, OSError) as error:
        said = f"{folder}: {error}" if arguments.release is None else f"--release {folder}: {error}"
        raise UsageError(said, hint="--release DIR, a directory that knnkit build wrote") from None


def _serve(work: Labelling, why: str, port: int) -> None:
    try:
        server = LabelServer(work, why, port)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"--port {port}: {getattr(error, 'strerror', error)}", hint="leave --port out to use any free port"
        ) from None
    with server, contextlib.suppress(KeyboardInterrupt):
        print(f"open {server.url} (Ctrl-C ends)", flush=True)
        server.serve_forever(poll_interval=0.1)


def _ask(work: Labelling) -> None:
    """Shows one row at a time on the terminal, and reads its label from standard input."""
    while work.row is not None:
        _show(work)
        print(f"label ({'a number or ' * work.numbered}a label, {_HELP}): ", end="", flush=True)
        text = sys.stdin.readline()
        word = text.strip()
        if not text or word == "q":
            print()
            return
        choices = work.labels
        try:
            if word in ("", "s", "u"):
                (work.undo if word == "u" else work.skip)()
                continue
            place = int(word) if work.numbered and word.isdecimal() and len(word) < _DIGITS else 0
            label = choices[place - 1] if 0 < place <= len(choices) else work.label_for(word)
            if label in choices or agrees(f"{clean(label)!r} is a new label; make it?"):
                work.give(label)
        except KnnkitError as error:
            print_line(f"{error}: {error.hint}", "bad", stream=sys.stderr)


def _show(work: Labelling) -> None:
    row, beside = work.row, work.beside()
    assert row is not None
    answer = "" if row.answer is None else f", answered {clean(row.answer)}"
    print_line(f"\n{row.id}: {row.kind}, {clean(row.device)}, {moment(row.time)}{answer}; {work.waiting:,} left")
    heads = [Column(f"{each.label}, {each.name}, {number(each.distance)}", right=True) for each in beside]
    view = View(row, work.columns, work.labels, beside, "")
    print_table(("column", Column("this row", right=True), *heads), lines(view))
    print_line("  ".join(f"{place} " * work.numbered + clean(label) for place, label in enumerate(work.labels, 1)))
