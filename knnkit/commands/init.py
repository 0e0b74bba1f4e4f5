"""`knnkit init`: writes a commented deploy.yaml to start from. Never overwrites a file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from knnkit.errors import UsageError

_START = """\
# What to build, who signs it, where it goes. Only `model` is required; every key is in
# `knnkit schema`, and in deploy.yaml of knnkit's repository. Relative paths start at this file.

model:
  name: {name}
  data: {data}
  test: 0.3                 # share held out for accuracy and golden rows, or {{file: test.csv}}
  k: 3
  metric: euclidean         # euclidean | sqeuclidean | manhattan | cosine
  weights: uniform          # uniform | distance
  scale: standard           # none | standard | minmax | robust
  reject: 0.99              # share of ordinary rows to accept, the rest is "unknown"; left out: never "unknown"

release: {{dir: dist, version: 1.0.0}}
signing: {{key: keys/signing.pem}}      # knnkit keygen --out keys/signing
gates: {{accuracy: 0.8}}

fleet:
  defaults: {{user: pi, root: ~/.knnkit}}
  targets:
    - {{host: local}}         # the embedded device: this machine
    # - {{host: board-1.example, tags: [canary]}}
    # - {{host: board-2.example, port: 2222}}

rollout: {{max_failures: 0, confirm_within: 60s}}
# rollout: {{waves: [canary, 25%, 100%], max_failures: 1, confirm_within: 60s, concurrency: 16}}
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this command."""
    parser.add_argument(
        "path",
        nargs="?",
        type=Path,
        default=Path("deploy.yaml"),
        metavar="FILE",
        help="where to write it (default: %(default)s)",
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help="your labelled rows: CSV, Parquet or NPZ")
    parser.add_argument(
        "--label", metavar="COLUMN", default="label", help="the column with the labels (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Writes it; returns 0."""
    path: Path = arguments.path
    name, data = "iris", "{sklearn: iris}     # or your own: {file: train.csv, label: species}"
    if arguments.data is not None:
        name = (
            "".join(c if c.isalnum() or c in "._-" else "-" for c in arguments.data.stem).strip("._-")[:64] or "model"
        )
        data = f"{{file: {_quote(_relative(arguments.data, path))}, label: {_quote(arguments.label)}}}"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_START.format(name=name, data=data))
    except FileExistsError:
        raise UsageError(f"{path} exists; it was left as it is", hint="knnkit init OTHER.yaml") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="knnkit init OTHER.yaml") from None
    print(f"{path}: next, `knnkit keygen --out keys/signing`, then `knnkit deploy -c {path}`", file=sys.stderr)
    return 0


def _relative(data: Path, path: Path) -> str:
    """Paths in the file start at the file."""
    try:
        return str(data.absolute().relative_to(path.absolute().parent))
    except ValueError:
        return str(data.absolute())


def _quote(text: str) -> str:
    """Returns `text` as a YAML scalar that cannot be anything else."""
    return "'" + text.replace("'", "''") + "'"
