"""Parsers of the commands that examine rows."""

from __future__ import annotations

import argparse
from typing import get_args

from device_agent.shared.protocol import constants
from knnkit.commands import _options


def tune(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `knnkit tune`."""
    parser.epilog = "Held-out rows that chose the setting no longer show how good it is on new rows."
    parser.add_argument(
        "--by",
        choices=("leave-one-out", "split"),
        help="measure each training row without itself, or the held-out rows (default: leave-one-out; split if "
        "deploy.yaml splits by group or time)",
    )
    parser.add_argument(
        "--score",
        choices=("accuracy", "balanced_accuracy"),
        default="accuracy",
        help="what is best; balanced_accuracy for classes with few rows (default: %(default)s)",
    )
    parser.add_argument("--k", type=_options.count, default=50, metavar="N", help="try k from 1 to N (default: 50)")
    for key, kind in (("metric", constants.Metric), ("weights", constants.Weights), ("scale", constants.Scale)):
        parser.add_argument(
            f"--{key}", choices=get_args(kind), action="append", help="try only this; repeat it for more (default: all)"
        )
    parser.add_argument("--write", action="store_true", help="write the best setting into the file")
    _options.add_plot(parser)
    _options.add_model(parser)
