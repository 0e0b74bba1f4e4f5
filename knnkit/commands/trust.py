"""`knnkit trust`: a device's host key, or the signing keys that devices trust."""

from __future__ import annotations

import argparse

from knnkit.commands import _options, trust_host, trust_keys
from knnkit.errors import UsageError


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this command."""
    parser.add_argument(
        "host", metavar="HOST", nargs="?", help="user@host[:port], an ssh_config alias, or a name in deploy.yaml"
    )
    trust_host.configure(parser)
    trust_keys.configure(parser)
    _options.add_fleet(parser)


def run(arguments: argparse.Namespace) -> int:
    """Enrols a host key after somebody agreed to it, or changes who may sign."""
    about_keys = trust_keys.wanted(arguments)
    if about_keys and arguments.host is not None:
        raise UsageError("HOST is for its host key; signing keys take --target", hint="knnkit trust --help")
    if about_keys:
        return trust_keys.run(arguments)
    if arguments.host is None:
        hint = f"knnkit trust {arguments.target[0]}" if arguments.target else "knnkit trust --help"
        raise UsageError("name a HOST to enrol its host key, or say what to do with signing keys", hint=hint)
    return trust_host.run(arguments, arguments.host)
