"""`knnkit schema`: prints the JSON Schema of deploy.yaml, for editors."""

from __future__ import annotations

import argparse
import json


def configure(parser: argparse.ArgumentParser) -> None:
    """Takes no option: the schema is JSON already."""
    parser.epilog = "In VS Code: put `# yaml-language-server: $schema=FILE` on the first line of deploy.yaml."


def run(arguments: argparse.Namespace) -> int:
    """Prints it."""
    from knnkit.config import parse

    print(json.dumps(parse.json_schema(), indent=2))
    return 0
