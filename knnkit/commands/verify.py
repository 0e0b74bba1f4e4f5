"""`knnkit verify`: says whether a device that trusts the given keys would accept a release. Changes nothing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from device_agent import codec, contract
from knnkit.commands import _options
from knnkit.release import keys
from knnkit.release.verify import verify_release


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this command."""
    parser.add_argument("directory", metavar="DIR", type=Path, help="the release directory")
    parser.add_argument(
        "--key",
        metavar="PUB",
        type=Path,
        action="append",
        required=True,
        help="a trusted public key; repeat it for more",
    )
    _options.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Verifies; returns 0, or 4 through the exception that says why not."""
    verdict = verify_release(arguments.directory, arguments.key)
    for warning in verdict.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    manifest = verdict.manifest
    print(f"{manifest.name} {manifest.version}, sequence {manifest.sequence}: verified", file=sys.stderr)
    print(f"signed by {keys.show_fingerprint(verdict.signed_by)}", file=sys.stderr)
    if arguments.json:
        print(codec.dumps(contract.Staged(verdict.ref, verdict.signed_by, False, verdict.warnings)))
    else:
        print(verdict.digest)
    return 0
