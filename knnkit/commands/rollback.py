"""`knnkit rollback`: each device goes back to its previous release, or with a signed order to one under its floor."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

from device_agent.shared.protocol.documents import TrustedKeys
from knnkit.commands import _options, _output, _query, _selection
from knnkit.errors import UsageError

if TYPE_CHECKING:
    from knnkit.fleet.report import DeviceReport, FleetReport
    from knnkit.release.signing import Signer

_SHORTEST = 8


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this command."""
    parser.epilog = "Where each device would go: `before` in `knnkit status`. The same command again goes no further."
    _options.add_fleet(parser)
    back = parser.add_argument_group("further back than the previous release")
    back.add_argument(
        "--to", metavar="DIGEST", help="a release that is still on the device, by its digest or the first digits of it"
    )
    _options.add_signing_key(back, "the order that --to needs")


def run(arguments: argparse.Namespace) -> int:
    """Goes back; a device that is there already is left as it is."""
    if arguments.to is None:
        return _output.finish(arguments, _query.ask_fleet(arguments, "rollback"))
    if len(arguments.to) < _SHORTEST or set(arguments.to) - set("0123456789abcdef"):
        raise UsageError(
            f"--to {arguments.to}: give at least {_SHORTEST} digits of a digest",
            hint="knnkit status shows them in brackets; knnkit status --json names all that a device holds: staged",
        )
    signer = _signer(arguments)
    asked = _query.ask_fleet(arguments, "keys")
    if asked.interrupted:
        return _output.finish(arguments, asked)
    orders = {device.name: _order(device, arguments.to, signer) for device in asked.devices if device.good}
    obeyed = _query.ask_fleet(arguments, "rollback", ("--order", "-"), inputs=orders)
    return _output.finish(arguments, _together(asked, obeyed))


def _signer(arguments: argparse.Namespace) -> Signer:
    from knnkit.release import signing

    config = _selection.load_config(arguments)
    key = arguments.signing_key or _selection.require_config(config, "no signing key").signing.key
    return signing.load_signer(key)


def _order(device: DeviceReport, wanted: str, signer: Signer) -> bytes:
    """Returns the order for one device: it names the device, and the release that it leaves."""
    from knnkit.release import orders

    status = device.status
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
