"""The agent's `trust` command: shows trusted keys, applies signed orders."""

from __future__ import annotations

import argparse

from device_agent.commands.options import command, read_file, show, store_of
from device_agent.shared.protocol import constants, documents


def _configure_trust(parser: argparse.ArgumentParser) -> None:
    text = "a signed order that rotates or revokes a key (`knnkit trust` makes it); - reads it from standard input"
    parser.add_argument("--apply", metavar="FILE", help=text)


def _run_trust(arguments: argparse.Namespace) -> int:
    from device_agent.store import trust_store

    store = store_of(arguments)
    if arguments.apply:
        order = read_file(arguments.apply, constants.MAX_ORDER)
        with store.changing("trust", "a signed order"):
            trust_store.apply_order(store.trust, order)
    held = trust_store.read(store.trust)
    if not held.device.device_id:  # the host may be about to make an order, which must name the device
        with store.changing("trust", "the device's id"):
            trust_store.ensure_device_id(store.trust)
        held = trust_store.read(store.trust)
    found = documents.TrustedKeys(held.sets.trusted, tuple(sorted(held.sets.revoked)), held.device.device_id)
    lines = [f"trusted {key}" for key in found.trusted] + [f"revoked {key}" for key in found.revoked]
    return show(arguments, found, "\n".join([*lines, f"device  {found.device_id}"]))


TRUST = command("show the trusted signing keys; apply a signed order", _configure_trust, _run_trust)
