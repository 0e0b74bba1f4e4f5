"""`knnkit verify`: checks a release by the device's rules.

The verdict is that of a device that trusts the given keys. Changes nothing."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from device_agent.shared.protocol import documents, json_codec
from knnkit.commands import _config, _options
from knnkit.errors import UsageError
from knnkit.release import keys
from knnkit.release.verify import verify_release

if TYPE_CHECKING:
    from knnkit.config.parse import Config


def run(arguments: argparse.Namespace) -> int:
    """Verifies a release; returns 0."""
    config = None if arguments.key else _config.load_config(arguments)
    with _config.line_in_errors(config):
        verdict = verify_release(arguments.directory, arguments.key or _own(arguments, config))
    for warning in verdict.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    manifest = verdict.manifest
    print(f"{manifest.name} {manifest.version}, sequence {manifest.sequence}: verified", file=sys.stderr)
    print(f"signed by {keys.show_fingerprint(verdict.signed_by)}", file=sys.stderr)
    if arguments.json:
        print(json_codec.dumps(documents.Staged(verdict.ref, verdict.signed_by, False, verdict.warnings)))
    else:
        print(verdict.digest)
    return 0


def _own(arguments: argparse.Namespace, config: Config | None) -> list[Path]:
    found = _config.own_public_keys(config)
    if not found:
        public = _options.KEY_PREFIX.with_suffix(keys.PUBLIC_SUFFIX)
        said = "there is no public key to verify with: --key was not given, and deploy.yaml names no key that exists"
        raise UsageError(said, hint=f"knnkit verify {shlex.quote(str(arguments.directory))} --key {public}")
    return found
