"""`knnkit rollback`: each device goes back to its previous release; with a signed order further, or its floors do."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable

from device_agent.shared.protocol.documents import TrustedKeys
from knnkit.commands import _config, _output, _parsers, _query
from knnkit.errors import UsageError
from knnkit.fleet.jobs.query import Kind
from knnkit.fleet.report import DeviceReport, FleetReport
from knnkit.release import orders, signing
from knnkit.release.signing import Signer

_SHORTEST = 8


def run(arguments: argparse.Namespace) -> int:
    """Goes back; a device that is there already is left as it is."""
    allow = ("--allow-revoked",) if arguments.allow_revoked else ()
    if arguments.reset_floor is not None:
        return _ordered(arguments, "floor", _floor_order, ())
    if arguments.to is None:
        return _output.finish(arguments, _query.ask_fleet(arguments, "rollback", allow))
    if len(arguments.to) < _SHORTEST or set(arguments.to) - set("0123456789abcdef"):
        raise UsageError(
            f"--to {arguments.to}: give at least {_SHORTEST} digits of a digest",
            hint="knnkit status shows them in brackets; knnkit status --json names all that a device holds: staged",
        )
    return _ordered(arguments, "rollback", _order, allow)


def _ordered(
    arguments: argparse.Namespace,
    kind: Kind,
    make: Callable[[argparse.Namespace, DeviceReport, Signer], bytes],
    flags: tuple[str, ...],
) -> int:
    """Asks each device who it is, and sends it an order of its own."""
    signer = _signer(arguments)
    asked = _query.ask_fleet(arguments, "keys")
    if asked.interrupted:
        return _output.finish(arguments, asked)
    orders = {device.name: make(arguments, device, signer) for device in asked.devices if device.good}
    obeyed = _query.ask_fleet(arguments, kind, ("--order", "-", *flags), inputs=orders)
    return _output.finish(arguments, _together(asked, obeyed))


def _signer(arguments: argparse.Namespace) -> Signer:
    config = _config.load_config(arguments)
    key = arguments.signing_key or _config.require_config(config, "no signing key").signing.key
    return signing.load_signer(key)


def _floor_order(arguments: argparse.Namespace, device: DeviceReport, signer: Signer) -> bytes:
    """Returns the order for one device: it names the device, and the floor that it leaves."""
    assert device.status is not None
    floor = None if arguments.reset_floor == _parsers.CLOCK else arguments.reset_floor
    held = device.answer(TrustedKeys)
    return orders.reset_floor(signer, device_id=held.device_id, floor=floor, leaves=device.status.floor)


def _order(arguments: argparse.Namespace, device: DeviceReport, signer: Signer) -> bytes:
    """Returns the order for one device: it names the device, and the release that it leaves."""
    status, wanted = device.status, arguments.to
    found = [digest for digest in (status.staged if status else ()) if digest.startswith(wanted)]
    if status is None or status.committed is None or len(found) != 1:
        what = "holds no release" if not found else f"holds {len(found)} releases"
        raise UsageError(f"{device.name} {what} that begins with {wanted}", hint="knnkit status --json: staged")
    held = device.answer(TrustedKeys)
    return orders.roll_back(signer, device_id=held.device_id, digest=found[0], leaves=status.committed.digest)


def _together(asked: FleetReport, obeyed: FleetReport) -> FleetReport:
    """One report: devices that could not even be asked stay as they came out."""
    done = {device.name: device for device in obeyed.devices}
    return dataclasses.replace(
        obeyed,
        started=asked.started,
        seconds=asked.seconds + obeyed.seconds,
        devices=tuple(done.get(device.name, device) for device in asked.devices),
    )
