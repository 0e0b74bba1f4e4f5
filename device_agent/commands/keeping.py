"""The commands that go back, make room, and keep others out: rollback, prune, lock and unlock."""

from __future__ import annotations

import argparse

from device_agent import contract
from device_agent.commands.shared import (
    add_holder,
    add_runtime,
    command,
    count,
    describe,
    filled,
    holder_of,
    read_order,
    show,
    store_of,
)
from device_agent.errors import AgentError


def _configure_rollback(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--leave",
        type=filled,
        metavar="DIGEST",
        help="the release to go back from, or its first digits; if it does not answer any more, nothing happens",
    )
    parser.add_argument(
        "--order",
        type=filled,
        metavar="FILE",
        help="a signed order to go back to any release (`knnkit rollback --to`); - reads it from standard input",
    )
    parser.add_argument(
        "--own",
        action="store_true",
        help="only an activation that --holder began and that still waits; says what became of it, if it does not",
    )
    add_holder(parser)
    add_runtime(parser, threads=False)


def _run_rollback(arguments: argparse.Namespace) -> int:
    if arguments.own:
        return _run_take_back(arguments)
    from device_agent import activation

    store = store_of(arguments)
    holder = holder_of(arguments)
    order = read_order(arguments.order) if arguments.order else None
    leave = store.find(arguments.leave) if arguments.leave else None
    with store.changing(holder, "rollback"):
        if order is None:
            found = activation.roll_back(store, holder, arguments.runtime, leave)
        else:
            found = activation.obey_rollback(store, order, holder, arguments.runtime)
    text = f"{describe(found.release)}: answers again"
    if found.already and order:
        text = f"{describe(found.release)}: is committed; nothing was done"
    elif found.already:
        text = (
            f"{describe(found.release)}: answers since the last return; nothing was done\n"
            f"  try: --leave {found.release.digest[:12]} to go back from it as well"
        )
    return show(arguments, found, text)


def _run_take_back(arguments: argparse.Namespace) -> int:
    from device_agent import withdrawal

    if arguments.order or arguments.leave:
        raise AgentError("--own goes with neither --order nor --leave", hint="leave them out")
    store = store_of(arguments)
    holder = holder_of(arguments)
    with store.changing(holder, "rollback"):
        found = withdrawal.take_back(store, holder)
    return show(arguments, found, withdrawal.render(found, holder))


def _configure_lock(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reason", default="a deployment", metavar="TEXT", help="told to whoever is kept out (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=120.0, metavar="SECONDS", help="how long, at most (default: %(default)g)"
    )
    add_holder(parser)


def _run_lock(arguments: argparse.Namespace) -> int:
    from device_agent import activation

    store = store_of(arguments)
    holder, reason = holder_of(arguments), contract.one_line(arguments.reason)
    with store.changing(holder, "lock"):
        found = activation.reserve(store, holder, reason, arguments.seconds)
    return show(arguments, found, f"{found.holder} holds this device for {arguments.seconds:g} s: {found.reason}")


def _configure_unlock(parser: argparse.ArgumentParser) -> None:
    add_holder(parser)


def _run_unlock(arguments: argparse.Namespace) -> int:
    from device_agent import activation, status

    store = store_of(arguments)
    holder = holder_of(arguments)
    with store.changing(holder, "unlock"):
        activation.release(store, holder)
    return show(arguments, status.status(store), f"{holder} holds this device no more")


def _configure_prune(parser: argparse.ArgumentParser) -> None:
    text = "releases to keep, the current and the previous one among them (default: %(default)s)"
    parser.add_argument("--keep", type=count, default=contract.KEEP_RELEASES, metavar="N", help=text)
    add_holder(parser)


def _run_prune(arguments: argparse.Namespace) -> int:
    from device_agent import staging

    store = store_of(arguments)
    holder = holder_of(arguments)
    with store.changing(holder, "prune"):
        removed = staging.prune(store, number=arguments.keep)
    return show(arguments, contract.Pruned(tuple(removed)), f"{len(removed)} releases removed")


ROLLBACK = command(
    "go back to the release before",
    _configure_rollback,
    _run_rollback,
    "Gives up an activation that waits; without one, the previous release is verified, checked and committed. "
    "After a return, by hand or by itself, there is nothing to do until something else is committed.",
)
LOCK = command("reserve this device for a deployment of several commands", _configure_lock, _run_lock)
UNLOCK = command("end a reservation", _configure_unlock, _run_unlock)
PRUNE = command("remove old releases", _configure_prune, _run_prune)
