"""`knnkit rollback`: goes back to the previous release.

With a signed order, a device goes back further, or lowers its floors: the lowest sequence and the earliest time of a
release that it still accepts."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections.abc import Mapping, Sequence

from device_agent.shared.protocol.documents import History, TrustedKeys
from knnkit.commands import _config, _options, _output, _parsers, _query
from knnkit.errors import UsageError
from knnkit.fleet.jobs.query import Kind
from knnkit.fleet.report import DeviceReport, FleetReport
from knnkit.release import orders
from knnkit.release.signing import Signer

#: Fewest digits that name a release by its digest.
_SHORTEST = 8


def run(arguments: argparse.Namespace) -> int:
    """Rolls the selected devices back, except those that have already gone back; returns the exit code."""
    if arguments.reset_floor is not None:
        _options.refuse(arguments, "is for a rollback, not for --reset-floor", "allow_revoked")
    elif arguments.to is None:
        _options.refuse(arguments, "is for --to and --reset-floor", "signing_key")
    allow = ("--allow-revoked",) if arguments.allow_revoked else ()
    if arguments.reset_floor is not None:
        return _ordered(arguments, "floor", ())
    if arguments.to is None:
        return _output.finish(arguments, _query.ask_fleet(arguments, "rollback", allow))
    return _ordered(arguments, "rollback", allow)


def _releases(device: DeviceReport) -> dict[str, str]:
    """Returns digest -> version of every release in the history of a device; {} if the device did not answer."""
    entries = device.answer(History).entries if device.good else ()
    return {entry.release.digest: entry.release.version for entry in entries if entry.release}


def _ordered(arguments: argparse.Namespace, kind: Kind, flags: tuple[str, ...]) -> int:
    """Asks each device for its id, signs an order for this device, and sends it; returns the exit code."""
    signer = _config.order_signer(arguments)
    asked = _query.ask_fleet(arguments, "keys")
    if asked.interrupted:
        return _output.finish(arguments, asked)
    reached = [device for device in asked.devices if device.good]
    if arguments.to is not None:
        known = {device.name: _releases(device) for device in _query.ask_fleet(arguments, "logs").devices}
        sent = {device.name: _order(arguments.to, device, signer, known.get(device.name, {})) for device in reached}
    else:
        sent = {device.name: _floor_order(arguments.reset_floor, device, signer) for device in reached}
    obeyed = _query.ask_fleet(arguments, kind, ("--order", "-", *flags), inputs=sent)
    return _output.finish(arguments, _together(asked, obeyed))


def _floor_order(floor: int, device: DeviceReport, signer: Signer) -> bytes:
    """Returns the order that lowers a device's floors: the lowest sequence and earliest time of releases it accepts.

    `floor` is the new lowest sequence; the constant `CLOCK` stands for the present time as the sequence. The new
    earliest time is now. The order names the device and its present lowest sequence.
    """
    assert device.status is not None
    lowest, held = None if floor == _parsers.CLOCK else floor, device.answer(TrustedKeys)
    return orders.reset_floor(signer, device_id=held.device_id, floor=lowest, leaves=device.status.floor)


def _order(wanted: str, device: DeviceReport, signer: Signer, versions: Mapping[str, str]) -> bytes:
    """Returns the order by which a device goes back to the release `wanted`, a version or the start of a digest.

    `versions` maps the digest of each release on the device to its version.
    """
    status = device.status
    staged = status.staged if status else ()
    if len(wanted) >= _SHORTEST and not set(wanted) - set("0123456789abcdef"):
        found, what = [digest for digest in staged if digest.startswith(wanted)], f"that begins with {wanted}"
    else:
        found, what = [digest for digest in staged if versions.get(digest) == wanted], f"of version {wanted}"
    if status is None or status.committed is None:
        raise UsageError(f"{device.name} runs no release to go back from", hint="knnkit deploy --release RELEASE")
    if len(found) != 1:
        count = f"{len(found)} releases" if found else "no release"
        raise UsageError(f"{device.name} stores {count} {what}", hint=_choice(device, found or staged, versions))
    held = device.answer(TrustedKeys)
    return orders.roll_back(signer, device_id=held.device_id, digest=found[0], leaves=status.committed.digest)


def _choice(device: DeviceReport, held: Sequence[str], versions: Mapping[str, str]) -> str:
    """Returns a hint such as `--to 0123abcd4567 (1.0.0) or --to …`: releases in `held` that the device does not run.

    If there are none, the hint is a deploy. `held` has digests, `versions` maps digests to versions, perhaps not all.
    """
    running = device.status.committed if device.status else None
    others = [digest for digest in held if running is None or digest != running.digest]
    if not others:
        return "knnkit deploy --release RELEASE"
    return " or ".join(
        f"--to {shlex.quote(digest[:12])} ({versions.get(digest, 'unknown version')})" for digest in others
    )


def _together(asked: FleetReport, obeyed: FleetReport) -> FleetReport:
    """Merges two reports: a device that got an order is reported as in `obeyed`, any other device as in `asked`."""
    done = {device.name: device for device in obeyed.devices}
    return dataclasses.replace(
        obeyed,
        started=asked.started,
        seconds=asked.seconds + obeyed.seconds,
        devices=tuple(done.get(device.name, device) for device in asked.devices),
    )
