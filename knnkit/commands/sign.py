"""`knnkit sign`: signs a release directory.

Writes `model.sig` and nothing else."""

from __future__ import annotations

import argparse
import sys

from device_agent.shared.protocol import documents, json_codec
from knnkit.commands import _config, _options
from knnkit.release import keys, signing
from knnkit.release.signing import sign_release

_KEY = _options.KEY_PREFIX.with_suffix(keys.PRIVATE_SUFFIX)


def run(arguments: argparse.Namespace) -> int:
    """Signs a release directory; returns 0."""
    config = None if arguments.key else _config.load_config(arguments)
    with _config.line_in_errors(config):
        signer = signing.load_signer(config.signing.key if config else arguments.key or _KEY)
    verdict = sign_release(arguments.directory, signer)
    print(f"signed {arguments.directory} with {keys.show_fingerprint(verdict.signed_by)}", file=sys.stderr)
    if arguments.json:
        print(json_codec.dumps(documents.Staged(verdict.ref, verdict.signed_by, False, verdict.warnings)))
    else:
        print(verdict.digest)
    return 0
