"""`knnkit demo`: an experiment on this machine, with pictures.

A small one by default; spoken words with `--sound`, handwritten digits with `--picture`.
"""

from __future__ import annotations

import argparse

from knnkit.commands import _demo_article, _demo_inputs


def run(arguments: argparse.Namespace) -> int:
    """Runs the experiment; returns 0 when the device answered as the host does.

    Raises:
        MissingDependency: a package or program of the experiment is not installed.
        ParityFailed: the device answers otherwise.
        UsageError: the folder holds files that are not of a demo.
    """
    if arguments.sound or arguments.picture:
        return _demo_inputs.run(arguments)
    return _demo_article.run(arguments)
