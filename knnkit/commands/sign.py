"""`knnkit sign`: signs a release directory. Writes `model.sig` and nothing else."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from device_agent import codec, contract
from knnkit.commands import _options
from knnkit.release import keys, passphrase
from knnkit.release.signing import sign_release


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this command."""
    parser.add_argument("directory", metavar="DIR", type=Path, help="the release directory")
    parser.add_argument(
        "--key",
        metavar="PEM",
        type=Path,
        default=keys.DEFAULT_PREFIX.with_suffix(keys.PRIVATE_SUFFIX),
        help="the private key (default: %(default)s)",
    )
    _options.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Signs; returns 0."""
    verdict = sign_release(arguments.directory, passphrase.load_signer(arguments.key))
    print(f"signed {arguments.directory} with {keys.show_fingerprint(verdict.signed_by)}", file=sys.stderr)
    if arguments.json:
        print(codec.dumps(contract.Staged(verdict.ref, verdict.signed_by, False, verdict.warnings)))
    else:
        print(verdict.digest)
    return 0
