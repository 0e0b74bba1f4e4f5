"""Commands for taught rows: enrol, forget, undo, enrolled."""

from __future__ import annotations

import argparse
import json

from device_agent.commands import ring
from device_agent.commands.options import add_holder, command, holder_of, no_options, show, store_of
from device_agent.shared.console import streams
from device_agent.shared.console.argument_parser import count
from device_agent.shared.console.lists import first_of
from device_agent.shared.file_hints import named_in_hints
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.constants import counted
from device_agent.shared.protocol.documents import Taught
from device_agent.shared.protocol.errors import AgentError
from device_agent.shared.protocol.versions import utc

#: Characters of a row that are printed.
_SHOWN = 60


def _configure_enrol(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    meaning = parser.add_mutually_exclusive_group(required=True)
    meaning.add_argument("--label", metavar="NAME", help="label of the rows: a label of the model, or a new one")
    help = "value of the rows, for a regression, or TARGET=VALUE for one of its targets; repeat it for more"
    meaning.add_argument("--value", metavar="VALUE", action="append", default=[], help=help)
    add("--input", metavar="FILE", help="rows, sound, picture or folder (default: -, stdin)")
    add(
        "--format",
        choices=("auto", "csv", "jsonl", "npy"),
        default="auto",
        help="format of the input (default: by the file's name, else by its first byte)",
    )
    add("--ignore-extra", action="store_true", help="ignore columns that the model does not have")
    help = "teach the last N rows that a running stream answered, instead of an input (default: 1, at most 16)"
    add("--last", type=count, nargs="?", const=1, metavar="N", help=help)
    add_holder(parser)


def _run_enrol(arguments: argparse.Namespace) -> int:
    from device_agent.serving import teach
    from device_agent.serving.columns import Columns
    from device_agent.serving.rows import Request

    if arguments.last and arguments.input:
        raise AgentError("--last and --input cannot be combined", hint="--last, or --input FILE")
    if arguments.input in (None, "-") and not arguments.last:
        streams.say_if_waiting("device_agent")
    request = Request(arguments.input, None, arguments.format, None, Columns(), ignore_extra=arguments.ignore_extra)
    meaning = teach.Meaning(arguments.label, tuple(arguments.value))
    with named_in_hints(arguments.input):
        found = teach.teach(store_of(arguments), meaning, request, holder_of(arguments), arguments.last)
    return show(arguments, found, f"taught {found.label}: {first_of(found.ids)}\n{_totals(found)}")


def _configure_forget(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--label", metavar="NAME", help="forget the rows of this label")
    add(
        "--id",
        metavar="ID",
        action="append",
        default=[],
        help="forget the row with this id; repeat it for more",
    )
    add("--last", type=count, metavar="N", help="forget the last N rows; with --label, of this label")
    add("--all", action="store_true", help="forget all rows")
    help = "also erase forgotten rows from the journal at once; then nothing can be undone"
    add("--erase", action="store_true", help=help)
    help = "instead, remove the rows that this device keeps for people to label; the same as `ring --wipe`"
    add("--ring", action="store_true", help=help)
    add_holder(parser)


def _run_forget(arguments: argparse.Namespace) -> int:
    from device_agent.serving import teach

    taught = arguments.label or arguments.id or arguments.last or arguments.all
    if arguments.ring and not (taught or arguments.erase):
        return ring.wipe(arguments)
    if arguments.ring:
        raise AgentError("--ring cannot be combined with other options", hint="python -m device_agent forget --ring")
    if arguments.all and (arguments.label or arguments.id or arguments.last):
        raise AgentError(
            "--all cannot be combined with --label, --id or --last", hint="forget --all, or leave out --all"
        )
    if not taught:
        raise AgentError("forget: which rows?", hint="--label NAME, --id ID, --last N, or --all; or --ring alone")
    found = teach.forget(
        store_of(arguments),
        holder_of(arguments),
        label=arguments.label,
        ids=arguments.id,
        last=arguments.last,
        erase=arguments.erase,
    )
    return show(arguments, found, f"forgot {len(found.ids):,}\n{_totals(found)}")


def _run_undo(arguments: argparse.Namespace) -> int:
    from device_agent.serving import teach

    found = teach.undo(store_of(arguments), holder_of(arguments))
    done = {"undo enrol": "forgot", "undo forget": "restored"}[found.did]
    return show(arguments, found, f"{done} {first_of(found.ids)}\n{_totals(found)}")


def _run_enrolled(arguments: argparse.Namespace) -> int:
    from device_agent.enrolment.journal import Journal
    from device_agent.shared.enrolment import enrolled

    store = store_of(arguments)
    rows = Journal(store.root).read()
    if arguments.json:
        for row in rows:
            print(enrolled.line_of(row))
        return constants.EXIT_OK
    from device_agent.serving import teach

    answers = teach.taking_part(store, rows) if rows else frozenset()
    print(f"{'id':<32}  {'time':<20}  {'answers':<7}  label, row")
    for row in rows:
        cells = json.dumps(row.row)
        short = cells if len(cells) <= _SHOWN else f"{cells[:_SHOWN]}..."
        print(f"{row.id:<32}  {utc(row.time):<20}  {'yes' if row.id in answers else 'no':<7}  {row.label}, {short}")
    labels = len({row.label for row in rows})
    used = f"{counted(len(answers), 'row')} used in answers"
    print(f"{counted(len(rows), 'row')}, {counted(labels, 'label')}, {used}")
    return constants.EXIT_OK


def _totals(found: Taught) -> str:
    labels = ", ".join(f"{label} {number:,}" for label, number in found.labels.items())
    are = "is" if found.rows == 1 else "are"
    return f"{counted(found.rows, 'row')} {are} taught now" + (f": {labels}" if labels else "")


ENROL = command(
    "teach rows to this device: CSV, JSON lines or NPY",
    _configure_enrol,
    _run_enrol,
    "If the release allows it, answers use these rows at once, including answers of a running stream.",
)
FORGET = command("forget taught rows", _configure_forget, _run_forget)
UNDO = command("undo the last enrol or forget", add_holder, _run_undo)
ENROLLED = command(
    "list the taught rows; with --json, a JSON line for each",
    no_options,
    _run_enrolled,
    "Answers do not use a row that the release contains already or does not allow.",
)
