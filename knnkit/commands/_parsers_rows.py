"""Parsers of the commands that examine rows."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from device_agent.shared.console.argument_parser import count
from device_agent.shared.protocol import constants
from knnkit.commands import _options
from knnkit.commands._options import DIR, FILE, FLAG


def _tune(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "`--by split` chooses the setting by its score on the held-out rows, which is then optimistic."
    parser.add_argument(
        "--by",
        choices=("leave-one-out", "split"),
        help="leave-one-out: find the neighbours of each training row among the others (of other groups, if "
        "deploy.yaml splits by group); split: measure on the held-out rows (default: split for windows, and if "
        "deploy.yaml splits by group or time; else leave-one-out)",
    )
    parser.add_argument(
        "--score",
        choices=("accuracy", "balanced_accuracy", "r_squared"),
        help="the figure to maximise; balanced_accuracy counts each class alike (default: accuracy; r_squared for a "
        "model that predicts numbers)",
    )
    parser.add_argument("--k", type=count, default=50, metavar="N", help="try k from 1 to N (default: 50)")
    known = {"metric": constants.GRAPH_METRICS, "weights": constants.GRAPH_WEIGHTS, "scale": get_args(constants.Scale)}
    for key, kind in known.items():
        parser.add_argument(
            f"--{key}", choices=kind, action="append", help="try only this value; repeat it for more (default: all)"
        )
    parser.add_argument("--write", **FLAG, help="write the best setting into deploy.yaml")
    _options.add_plot(parser)
    _options.add_model(parser)


def _reject(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--strangers", **FILE, help="rows that belong to no class: CSV with a header, JSON lines or NPY"
    )
    wanted = parser.add_mutually_exclusive_group()
    wanted.add_argument(
        "--accept",
        type=share,
        metavar="SHARE",
        help="find a value for `reject` in deploy.yaml with which at most this share of --strangers gets a label",
    )
    wanted.add_argument(
        "--reject",
        type=share,
        metavar="SHARE",
        help="find a value for `reject` in deploy.yaml with which at most this share of the rows is rejected",
    )
    _options.add_plot(parser)
    _options.add_model(parser)


def _audit(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Rows are numbered from 0, as in the file. k, metric, weights and scale are those of deploy.yaml."
    parser.add_argument("--output", **FILE, help="write all findings as CSV, with the rows")
    _options.add_model(parser)


def _collect(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "The same command again copies only new rows. Labels that you gave stay."
    parser.add_argument(
        "-o",
        "--output",
        **DIR,
        default=Path("collected"),
        help="folder with a Parquet file for each model (default: %(default)s)",
    )
    _options.add_fleet(parser)


def _label(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Keys on the page: 1 to 9 choose a label, / types another label, s skips, u undoes, q ends."
    parser.add_argument("file", **FILE, help="a file that knnkit collect wrote")
    parser.add_argument("--terminal", **FLAG, help="ask on the terminal instead of a browser")
    parser.add_argument(
        "--release",
        **DIR,
        help="show the nearest rows of this release beside each row (default: that of deploy.yaml, if it is built)",
    )
    parser.add_argument(
        "--port", type=_options.whole, default=0, metavar="N", help="port of the page (default: any free port)"
    )
    _options.add_config(parser)


def _promote(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "The rows go into field/MODEL.csv beside the configuration. Your own files are never written."
    parser.add_argument("file", **FILE, help="a file that knnkit collect wrote")
    parser.add_argument("--dry-run", **FLAG, help="only show which rows would be added, and their effect")
    _options.add_model(parser)


def share(text: str) -> float:
    """Parses a share of rows: a number from 0 to 1, with 1 excluded."""
    found = float(text)
    if not 0.0 <= found < 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 1 (1 excluded)")
    return found


#: Command -> adds its flags and arguments to a parser.
CONFIGURE = {
    "tune": _tune,
    "reject": _reject,
    "audit": _audit,
    "collect": _collect,
    "label": _label,
    "promote": _promote,
}
