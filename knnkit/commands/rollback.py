"""`knnkit rollback`: goes back to the previous release.

With a signed order, a device goes back further, or lowers its floors: the lowest sequence and the earliest time of a
release that it still accepts."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

from device_agent.shared.protocol.documents import History, ReleaseRef, TrustedKeys
from knnkit.commands import _config, _output, _parsers, _query
from knnkit.errors import UsageError
from knnkit.fleet.jobs.query import Kind
from knnkit.fleet.report import DeviceReport, FleetReport
from knnkit.release import orders
from knnkit.release.signing import Signer

#: Device -> the releases that it has had.
_Known: TypeAlias = Mapping[str, Collection[ReleaseRef]]
_SHORTEST = 8


def run(arguments: argparse.Namespace) -> int:
    """Rolls the selected devices back, except those that have already gone back; returns the exit code."""
    allow = ("--allow-revoked",) if arguments.allow_revoked else ()
    if arguments.reset_floor is not None:
        return _ordered(arguments, "floor", _floor_order, ())
    if arguments.to is None:
        return _output.finish(arguments, _query.ask_fleet(arguments, "rollback", allow))
    return _ordered(arguments, "rollback", _order, allow)


def _releases(device: DeviceReport) -> frozenset[ReleaseRef]:
    """Returns every release in the history of a device."""
    entries = device.answer(History).entries if device.good else ()
    return frozenset(entry.release for entry in entries if entry.release)


def _ordered(
    arguments: argparse.Namespace,
    kind: Kind,
    make: Callable[[argparse.Namespace, DeviceReport, Signer, _Known], bytes],
    flags: tuple[str, ...],
) -> int:
    """Asks each device for its id, signs the order that `make` returns, and sends it; returns the exit code.

    The agent's command `kind` receives the order, with the arguments `flags`.
    """
    signer = _config.order_signer(arguments)
    asked = _query.ask_fleet(arguments, "keys")
    if asked.interrupted:
        return _output.finish(arguments, asked)
    known: _Known = {}
    if arguments.to:
        known = {device.name: _releases(device) for device in _query.ask_fleet(arguments, "logs").devices}
    orders = {device.name: make(arguments, device, signer, known) for device in asked.devices if device.good}
    obeyed = _query.ask_fleet(arguments, kind, ("--order", "-", *flags), inputs=orders)
    return _output.finish(arguments, _together(asked, obeyed))


def _floor_order(arguments: argparse.Namespace, device: DeviceReport, signer: Signer, _: _Known) -> bytes:
    """Returns the order that lowers the floors of one device; the order names the device and its present floor."""
    assert device.status is not None
    floor = None if arguments.reset_floor == _parsers.CLOCK else arguments.reset_floor
    held = device.answer(TrustedKeys)
    return orders.reset_floor(signer, device_id=held.device_id, floor=floor, leaves=device.status.floor)


def _order(arguments: argparse.Namespace, device: DeviceReport, signer: Signer, known: _Known) -> bytes:
    """Returns the order by which one device goes back; the order names the device and the release that it runs now.

    `known` maps the name of a device to the releases in its history.
    """
    status, wanted = device.status, arguments.to
    staged = status.staged if status else ()
    versions = {each.digest: each.version for each in known.get(device.name, ())}
    if len(wanted) >= _SHORTEST and not set(wanted) - set("0123456789abcdef"):
        found, what = [digest for digest in staged if digest.startswith(wanted)], f"that begins with {wanted}"
    else:
        found, what = [digest for digest in staged if versions.get(digest) == wanted], f"of version {wanted}"
    if status is None or status.committed is None or len(found) != 1:
        count = f"{len(found)} releases" if found else "no release"
        raise UsageError(f"{device.name} stores {count} {what}", hint=_choice(device, found or staged, versions))
    held = device.answer(TrustedKeys)
    return orders.roll_back(signer, device_id=held.device_id, digest=found[0], leaves=status.committed.digest)


def _choice(device: DeviceReport, held: Sequence[str], versions: Mapping[str, str]) -> str:
    """Returns a hint: `--to` with each release in `held` that the device does not run; a deploy if there are none.

    `versions` maps digest -> version.
    """
    running = device.status.committed if device.status else None
    others = [digest for digest in held if running is None or digest != running.digest]
    if not others:
        return "knnkit deploy --release RELEASE"
    return " or ".join(f"--to {digest[:12]} ({versions.get(digest, 'unknown version')})" for digest in others)


def _together(asked: FleetReport, obeyed: FleetReport) -> FleetReport:
    """Merges two reports: a device that got an order is reported as in `obeyed`, any other device as in `asked`."""
    done = {device.name: device for device in obeyed.devices}
    return dataclasses.replace(
        obeyed,
        started=asked.started,
        seconds=asked.seconds + obeyed.seconds,
        devices=tuple(done.get(device.name, device) for device in asked.devices),
    )
