"""`knnkit keygen`: makes a signing key, prints its fingerprint."""

from __future__ import annotations

import argparse
import sys

from device_agent.shared.protocol import json_codec
from knnkit.commands import _options
from knnkit.errors import UsageError
from knnkit.release import keys, signing


def run(arguments: argparse.Namespace) -> int:
    """Makes a signing key; returns 0."""
    if not arguments.out.name:
        raise UsageError(f"--out {arguments.out} names no file", hint=f"--out {_options.KEY_PREFIX}")
    if arguments.out.is_dir():
        raise UsageError(f"--out {arguments.out} is a folder", hint=f"--out {arguments.out / _options.KEY_PREFIX.name}")
    secret = signing.choose() if arguments.passphrase else None
    known = arguments.out.suffix in (keys.PRIVATE_SUFFIX, keys.PUBLIC_SUFFIX)  # as deploy.yaml names the file
    pair = keys.generate(arguments.out.with_suffix("") if known else arguments.out, secret)
    print(f"private key: {pair.private} (keep it; it never leaves this machine)", file=sys.stderr)
    print(f"public key:  {pair.public}", file=sys.stderr)
    print(f"fingerprint: {keys.show_fingerprint(pair.fingerprint)}", file=sys.stderr)
    if arguments.json:
        document = {"private": str(pair.private), "public": str(pair.public), "fingerprint": pair.fingerprint}
        print(json_codec.dumps(document))
    else:
        print(pair.fingerprint)
    return 0
