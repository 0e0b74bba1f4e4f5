"""Options of `classify` that device and host have alike."""

from __future__ import annotations

import argparse


def add_answers(parser: argparse.ArgumentParser | argparse._ArgumentGroup, json: str = "with --json") -> None:
    """Adds the formats of rows and answers, and what an answer holds; `json` says when answers are JSON lines."""
    add = parser.add_argument
    add(
        "--format",
        choices=("auto", "csv", "jsonl", "npy", "frames"),
        default="auto",
        help="format of the input; frames (only with --stream) are files, each after its length in 4 bytes, big-endian "
        "(default: by the file's name, else by its first byte)",
    )
    add(
        "--output-format",
        choices=("csv", "jsonl", "npy"),
        help=f"format of the answers (default: the format of the input; {json}, jsonl)",
    )
    add("--stream", action="store_true", help="answer each line at once, until the input ends; switch to new releases")
    add("--proba", action="store_true", help="add the probability of each class")
    add(
        "--labels",
        type=float,
        metavar="COVERAGE",
        help="add a set of labels that holds the right one for this share of rows: one of label_sets in deploy.yaml",
    )
    add("--neighbors", action="store_true", help="add the nearest training rows: distance, class or target, row, id")
    add("--digest", action="store_true", help="add the digest of the release that answered")
    add("--ignore-extra", action="store_true", help="ignore columns that the model does not have")
