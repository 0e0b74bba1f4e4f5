"""The agent's `ring` command: lists and erases kept rows."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from device_agent.commands.options import command, show, store_of
from device_agent.shared.console.lists import first_of
from device_agent.shared.os_errors import explain
from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.errors import DeviceUnfit

if TYPE_CHECKING:
    from device_agent.store.store import Store

_CELLS = 8


def _configure(parser: argparse.ArgumentParser) -> None:
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--wipe", action="store_true", help="remove all rows that this device keeps")
    either.add_argument(
        "--columns", action="store_true", help="print the columns of the releases on this device instead"
    )


def _run(arguments: argparse.Namespace) -> int:
    from device_agent.store import ring_file

    store = store_of(arguments)
    if arguments.columns:
        return _print(arguments, _columns(store), lambda line: f"{line['digest'][:12]} {', '.join(line['columns'])}")
    try:
        return wipe(arguments) if arguments.wipe else _print(arguments, ring_file.read(store.ring_file), _describe)
    except OSError as error:
        raise _broken(store, error) from None


def wipe(arguments: argparse.Namespace) -> int:
    """Removes all rows that are kept for labelling, and prints how many there were; returns 0."""
    from device_agent.store import ring_file

    store = store_of(arguments)
    try:
        wiped = ring_file.wipe(store.ring_file)
    except OSError as error:
        raise _broken(store, error) from None
    are = "is" if wiped == 1 else "are"
    return show(arguments, {"wiped": wiped}, f"{constants.counted(wiped, 'row')} {are} removed")


def _broken(store: Store, error: OSError) -> DeviceUnfit:
    said = f"{store.ring_file}: {error.strerror or error}"
    hint = explain(error)[2] or f"inspect {store.ring_file}, then remove it"
    return DeviceUnfit(said, reason="ring-broken", hint=hint)


def _print(arguments: argparse.Namespace, lines: list[dict[str, Any]], text: Any) -> int:
    for line in lines:
        print(json_codec.dumps(line) if arguments.json else text(line))
    return constants.EXIT_OK


def _describe(entry: dict[str, Any]) -> str:
    from device_agent.shared.protocol.versions import utc

    cells = first_of([*map(str, entry["row"])], _CELLS)
    words = (entry["id"], entry["kind"], utc(entry["time"]), str(entry["answer"]), f"{entry['distance']:.6g}", cells)
    return "  ".join(constants.one_line(word) for word in words)


def _columns(store: Store) -> list[dict[str, Any]]:
    """Returns a dict about each readable release.

    Its keys are `digest`, `name`, `columns` (names), `categories` (names of text columns) and `fingerprint` (of the
    columns, as in taught and kept rows).
    """
    from device_agent.shared.enrolment.enrolled import fingerprint
    from device_agent.shared.protocol.errors import ModelUnusable
    from device_agent.shared.release.model_file import read_info

    found = []
    for digest in store.staged():
        try:
            info = read_info(store.release_path(digest) / constants.MODEL_FILE)
        except ModelUnusable:
            continue
        categories = [column.name for column in info.table.columns if column.encoding != "number"] if info.table else []
        of = {"columns": info.columns, "categories": categories, "fingerprint": fingerprint(info)}
        found.append({"digest": digest, "name": info.name, **of})
    return found


RING = command(
    "show the rows that this device keeps for people to label",
    _configure,
    _run,
    "With --json, each line is one JSON document: id, kind, time, answer, distance of the k-th neighbour, row, digest, "
    "columns (a fingerprint of their names).",
)
