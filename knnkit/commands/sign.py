"""`knnkit sign`: signs a release directory. Writes `model.sig` and nothing else."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from device_agent import codec, contract
from knnkit.release import keys, passphrase
from knnkit.release.signing import sign_release


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this command."""
    parser.add_argument("directory", type=Path, help="the release directory")
    parser.add_argument(
        "--key",
        type=Path,
        default=keys.DEFAULT_PREFIX.with_suffix(keys.PRIVATE_SUFFIX),
        help="the private key (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: argparse.Namespace) -> int:
    """Signs; returns 0."""
    verdict = sign_release(arguments.directory, passphrase.load_signer(arguments.key))
    print(f"signed {arguments.directory} with {keys.show_fingerprint(verdict.signed_by)}", file=sys.stderr)
    if arguments.json:
        print(codec.dumps(contract.Staged(verdict.ref, verdict.signed_by, False, verdict.warnings)))
    else:
        print(verdict.digest)
    return 0
