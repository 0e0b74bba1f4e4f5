"""`knnkit trust HOST`: shows a device's host key and enrols it."""

from __future__ import annotations

import argparse
from pathlib import Path

from knnkit.commands import trust_host


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this command."""
    parser.add_argument("host", metavar="HOST", help="user@host[:port], an ssh_config alias, or a name in deploy.yaml")
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="(default: deploy.yaml, if there is one)")
    trust_host.configure(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: argparse.Namespace) -> int:
    """Enrols the host key after somebody agreed to it."""
    return trust_host.run(arguments, arguments.host)
