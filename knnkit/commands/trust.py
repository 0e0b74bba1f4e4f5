"""`knnkit trust`: manages host keys and trusted signing keys."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from device_agent.shared.protocol import json_codec
from knnkit.commands import _config, _options, _selection, trust_keys
from knnkit.config.parse import RolloutConfig
from knnkit.errors import HostKeyError, UsageError
from knnkit.fleet.jobs.enrol_host_key import enrol_host
from knnkit.fleet.targets import select
from knnkit.transport.address import Typed


def run(arguments: argparse.Namespace) -> int:
    """Adds a host key to known_hosts after a person agreed, or changes signing keys; returns the exit code."""
    about_keys = trust_keys.wanted(arguments)
    if about_keys and arguments.host is not None:
        raise UsageError("HOST is only for host keys; for signing keys, use --target", hint="knnkit trust --help")
    if about_keys:
        _options.refuse(arguments, "is for host keys, not for signing keys", "fingerprint", "yes", "replace")
        return trust_keys.run(arguments)
    if arguments.host is None:
        hint = f"knnkit trust {arguments.target[0]}" if arguments.target else "knnkit trust --help"
        raise UsageError("name a HOST to add its host key, or give an option for signing keys", hint=hint)
    _options.refuse(arguments, "is for signing keys, not for host keys", "signing_key", "out")
    _options.refuse(arguments, f"has no use beside HOST, {arguments.host}", "target", "on", "retry_from", "report")
    return _enrol(arguments, arguments.host)


def _enrol(arguments: argparse.Namespace, host: str) -> int:
    """Shows the fingerprint of `host`, and adds its key to known_hosts if a person agrees; returns 0."""
    config = _config.load_config(arguments)
    found = select(config, named=[host], overrides=_selection.overrides(arguments), called="HOST")
    target = _selection.agreed(found)[0]
    typed = target.address.typed if target.address else None
    done = enrol_host(
        target,
        agree=lambda name, kind, found: _agree(arguments, typed, name, kind, found),
        timeout=_selection.connect_timeout(arguments, config.rollout if config else RolloutConfig()),
        known_hosts=Path(arguments.known_hosts) if arguments.known_hosts else None,
        replace=arguments.replace,
    )
    if arguments.json:
        print(json_codec.dumps(done))
    state = "was known" if done.known else f"enrolled in {done.known_hosts}"
    print(f"{done.host}:{done.port}: {done.kind} {done.fingerprint}: {state}", file=sys.stderr)
    return 0


def _agree(arguments: argparse.Namespace, typed: Typed | None, name: str, kind: str, found: str) -> bool:
    print(f"{name} offers {kind}\n  {found}", file=sys.stderr)
    if arguments.fingerprint:
        if arguments.fingerprint.strip().rstrip("=") != found:
            raise HostKeyError(
                f"{name}: the fingerprint of its host key is not {arguments.fingerprint}",
                reason="host-key-changed",
                hint="on the device: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
            )
        return True
    if arguments.yes:
        return True
    if not sys.stdin.isatty():
        again = ("--replace",) if arguments.replace else ()
        raise HostKeyError(
            f"{name}: there is no terminal on which to compare the fingerprint",
            reason="host-key-unknown",
            hint=f"knnkit trust {(typed or Typed(name)).words('--fingerprint', found, *again)}",
        )
    print("Compare this fingerprint with the output of this command on the device:", file=sys.stderr)
    print("  ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub", file=sys.stderr)
    return _selection.agrees("Are the fingerprints the same?")
