"""`knnkit schema`: prints the JSON Schema of deploy.yaml, for editors."""

from __future__ import annotations

import argparse
import json

from knnkit.config import parse


def run(arguments: argparse.Namespace) -> int:
    """Prints it."""
    print(json.dumps(parse.json_schema(), indent=2))
    return 0
