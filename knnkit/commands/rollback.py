"""`knnkit rollback`: each device goes back to its previous release, or with a signed order to an older one."""

from __future__ import annotations

import argparse

from knnkit.commands import _asking, _fleet


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this command."""
    _fleet.add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Goes back; a device that is there already is left as it is."""
    return _fleet.finish(arguments, _asking.ask_fleet(arguments, "rollback"))
