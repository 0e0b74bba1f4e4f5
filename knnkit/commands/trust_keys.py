"""Signing keys in `knnkit trust`: shows, rotates, revokes them.

A change is a signed order: a file that a device obeys. The order is written to a file, applied on the selected devices,
or both. Each device verifies the order, so that a lost, repeated or late order does no harm.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.documents import TrustedKeys
from device_agent.shared.safe_files import whole_file
from device_agent.shared.trust import dsse
from device_agent.shared.trust import orders as device_orders
from knnkit.commands import _config, _options, _output, _query, _selection
from knnkit.errors import UsageError, unwritten
from knnkit.fleet.report import DeviceReport, FleetReport
from knnkit.release import keys, orders, signing
from knnkit.render.fleet_report import outcome_line
from knnkit.render.terminal import Table

_CHANGES = ("rotate", "revoke", "apply")


def wanted(arguments: argparse.Namespace) -> bool:
    """Whether the command line has an option about signing keys."""
    return bool(arguments.show or arguments.keys or any(getattr(arguments, name) for name in _CHANGES))


def run(arguments: argparse.Namespace) -> int:
    """Shows or changes signing keys; returns the exit code of the fleet."""
    if not (arguments.rotate or arguments.revoke):
        _options.refuse(arguments, "is for --rotate and --revoke", "signing_key", "out")
    if arguments.show:
        return _show(arguments)
    if arguments.keys:
        return _finish(arguments, _query.ask_fleet(arguments, "keys"))
    selected = bool(arguments.target or arguments.on or arguments.retry_from)
    if not selected and (arguments.apply or not arguments.out):
        hint = "name devices with --target or --on" + ("" if arguments.apply else ", or a file with --out")
        raise UsageError("nobody receives this order", hint=hint)
    if arguments.out:
        mine = [arguments.out] if arguments.out.suffix in (".pem", ".pub", ".yaml") else []
        _output.check_new_file("--out", arguments.out, mine)
    order = _order(arguments)
    if arguments.out:
        _write(arguments.out, order)
    if selected:
        return _send(arguments, order)
    if arguments.json:
        print(json_codec.dumps({"order": str(arguments.out)}))
    return 0


def _show(arguments: argparse.Namespace) -> int:
    found = {path: next(iter(keys.load_public_keys([path]))) for path in arguments.show}
    if arguments.json:
        print(json_codec.dumps({str(path): fingerprint for path, fingerprint in found.items()}))
        return 0
    for path, fingerprint in found.items():
        print(f"{fingerprint}  {path}")
        print(f"{path}: {keys.show_fingerprint(fingerprint)}", file=sys.stderr)
    return 0


def _order(arguments: argparse.Namespace) -> bytes:
    if arguments.apply:
        return _read(arguments.apply)
    signer = _config.order_signer(arguments)
    if arguments.rotate:
        return orders.rotate(signer, signing.load_signer(arguments.rotate))
    return orders.revoke(signer, [_fingerprint(text) for text in arguments.revoke])


def _fingerprint(text: str) -> str:
    typed = dsse.FINGERPRINT_PREFIX + "".join(text.removeprefix(dsse.FINGERPRINT_PREFIX).split())  # or in groups
    if device_orders.is_fingerprint(typed):
        return typed
    return next(iter(keys.load_public_keys([Path(text)])))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(constants.MAX_ORDER + 1)
    except OSError as error:
        hint = f"name a file that `knnkit trust --out {shlex.quote(str(path))}` wrote"
        raise UsageError(f"cannot read the signed order in {path}: {error.strerror}", hint=hint) from None


def _write(path: Path, order: bytes) -> None:
    try:
        with whole_file(path) as file:
            file.write(order)
    except OSError as error:
        raise unwritten(f"cannot write the signed order to {path}", error, hint="choose another --out") from None
    print(f"wrote {path}; knnkit trust --apply {shlex.quote(str(path))} sends it", file=sys.stderr)


def _send(arguments: argparse.Namespace, order: bytes) -> int:
    targets = _selection.select_targets(arguments, _config.load_config(arguments))
    inputs = {target.name: order for target in targets}
    report = _query.ask_fleet(arguments, "keys", ("--apply", "-"), inputs=inputs)
    return _finish(arguments, report)


def _finish(arguments: argparse.Namespace, report: FleetReport) -> int:
    rows = tuple(row for device in report.devices for row in _rows(device))
    return _output.finish(arguments, report, table=Table(("device", "key", "standing"), rows))


def _rows(device: DeviceReport) -> list[tuple[str, str, str]]:
    if not device.good:
        return [(device.name, "-", outcome_line(device))]
    held = device.answer(TrustedKeys)
    trusted = [(device.name, key, "trusted") for key in held.trusted]
    return trusted + [(device.name, key, "revoked") for key in held.revoked] or [(device.name, "-", "trusts nobody")]
