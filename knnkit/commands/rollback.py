"""`knnkit rollback`: each device goes back to its previous release; with a signed order further, or its floors do."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from device_agent.shared.protocol.documents import History, ReleaseRef, TrustedKeys
from knnkit.commands import _options, _output, _query, _selection
from knnkit.errors import UsageError

if TYPE_CHECKING:
    from knnkit.fleet.jobs.query import Kind
    from knnkit.fleet.report import DeviceReport, FleetReport
    from knnkit.release.signing import Signer

#: Device -> the releases that it has had.
_Known: TypeAlias = Mapping[str, Collection[ReleaseRef]] | None
_SHORTEST = 8
_CLOCK = -1


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this command."""
    parser.epilog = "Where each device would go: `before` in `knnkit status`. The same command again goes no further."
    _options.add_fleet(parser)
    parser.add_argument(
        "--allow-revoked", action="store_true", help="go back also to a release whose signing key was revoked"
    )
    back = parser.add_argument_group("further back than the previous release")
    what = back.add_mutually_exclusive_group()
    what.add_argument(
        "--to",
        metavar="RELEASE",
        help="a release that is still on the device: its version, its digest, or at least 8 digits of that",
    )
    what.add_argument(
        "--reset-floor",
        metavar="SEQUENCE",
        nargs="?",
        type=_sequence,
        const=_CLOCK,
        help="change no release: lower the floor of sequences to this one, so that the next release must lie above it "
        "(default: the time, as for sequences that nobody set), and the floor of time to now",
    )
    _options.add_signing_key(back, "the order that --to and --reset-floor need")


def _sequence(text: str) -> int:
    """A sequence number on the command line."""
    number = int(text)
    if not 0 <= number < 2**63:
        raise argparse.ArgumentTypeError(f"{text} is not a sequence: a whole number from 0")
    return number


def run(arguments: argparse.Namespace) -> int:
    """Goes back; a device that is there already is left as it is."""
    allow = ("--allow-revoked",) if arguments.allow_revoked else ()
    if arguments.reset_floor is not None:
        return _ordered(arguments, "floor", _floor_order, ())
    if arguments.to is None:
        return _output.finish(arguments, _query.ask_fleet(arguments, "rollback", allow))
    return _ordered(arguments, "rollback", _order, allow)


def _is_digest(text: str) -> bool:
    return len(text) >= _SHORTEST and not set(text) - set("0123456789abcdef")


def _releases(device: DeviceReport) -> frozenset[ReleaseRef]:
    """Returns every release that a device has had, as its history names them."""
    entries = device.answer(History).entries if device.good else ()
    return frozenset(entry.release for entry in entries if entry.release)


def _ordered(
    arguments: argparse.Namespace,
    kind: Kind,
    make: Callable[[argparse.Namespace, DeviceReport, Signer, _Known], bytes],
    flags: tuple[str, ...],
) -> int:
    """Asks each device who it is, and sends it an order of its own."""
    signer = _signer(arguments)
    asked = _query.ask_fleet(arguments, "keys")
    if asked.interrupted:
        return _output.finish(arguments, asked)
    known: _Known = None
    if arguments.to and not _is_digest(arguments.to):
        known = {device.name: _releases(device) for device in _query.ask_fleet(arguments, "logs").devices}
    orders = {device.name: make(arguments, device, signer, known) for device in asked.devices if device.good}
    obeyed = _query.ask_fleet(arguments, kind, ("--order", "-", *flags), inputs=orders)
    return _output.finish(arguments, _together(asked, obeyed))


def _signer(arguments: argparse.Namespace) -> Signer:
    from knnkit.release import signing

    config = _selection.load_config(arguments)
    key = arguments.signing_key or _selection.require_config(config, "no signing key").signing.key
    return signing.load_signer(key)


def _floor_order(arguments: argparse.Namespace, device: DeviceReport, signer: Signer, _: _Known) -> bytes:
    """Returns the order for one device: it names the device, and the floor that it leaves."""
    from knnkit.release import orders

    assert device.status is not None
    floor = None if arguments.reset_floor == _CLOCK else arguments.reset_floor
    held = device.answer(TrustedKeys)
    return orders.reset_floor(signer, device_id=held.device_id, floor=floor, leaves=device.status.floor)


def _order(arguments: argparse.Namespace, device: DeviceReport, signer: Signer, known: _Known) -> bytes:
    """Returns the order for one device: it names the device, and the release that it leaves.

    `known` has the releases of each device, where `--to` is a version.
    """
    from knnkit.release import orders

    status, wanted = device.status, arguments.to
    staged = status.staged if status else ()
    if known is None:
        found, what = [digest for digest in staged if digest.startswith(wanted)], f"that begins with {wanted}"
    else:
        found = sorted({each.digest for each in known.get(device.name, ()) if each.version == wanted} & set(staged))
        what = f"of version {wanted}"
    if status is None or status.committed is None or len(found) != 1:
        count = f"{len(found)} releases" if found else "no release"
        raise UsageError(f"{device.name} holds {count} {what}", hint=_choice(device.name, found))
    held = device.answer(TrustedKeys)
    return orders.roll_back(signer, device_id=held.device_id, digest=found[0], leaves=status.committed.digest)


def _choice(device: str, found: Sequence[str]) -> str:
    if found:
        return " or ".join(f"--to {digest[:12]}" for digest in found[:3])
    return f"knnkit logs --target {device} shows versions; knnkit status --json lists what it holds: staged"


def _together(asked: FleetReport, obeyed: FleetReport) -> FleetReport:
    """One report: devices that could not even be asked stay as they came out."""
    done = {device.name: device for device in obeyed.devices}
    return dataclasses.replace(
        obeyed,
        started=asked.started,
        seconds=asked.seconds + obeyed.seconds,
        devices=tuple(done.get(device.name, device) for device in asked.devices),
    )
