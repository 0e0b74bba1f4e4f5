"""`knnkit demo`: an experiment on this machine, with pictures.

By default a small experiment with points; spoken words with `--sound`, handwritten digits with `--picture`.
"""

from __future__ import annotations

import argparse

from knnkit.commands import _demo_article, _demo_inputs


def run(arguments: argparse.Namespace) -> int:
    """Builds a model and deploys it to an embedded device; returns 0 if the device gave the host's answers."""
    if arguments.sound or arguments.picture:
        return _demo_inputs.run(arguments)
    return _demo_article.run(arguments)
