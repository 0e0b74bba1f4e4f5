"""`knnkit init`: writes a commented deploy.yaml to start from.

Never overwrites a file, and writes nothing if a model cannot be built from the rows."""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
import shlex
import sys
import unicodedata
from pathlib import Path

from device_agent.shared.protocol import constants
from device_agent.shared.safe_files import write_new
from knnkit.commands import _options
from knnkit.config import yaml_reader
from knnkit.data import has_column, warnings_of_file
from knnkit.data.patterns import inside, split
from knnkit.errors import UsageError, flags_for, unwritten

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

release: {{dir: {dist}, version: 1.0.0}}
signing: {{key: keys/signing.pem}}      # knnkit keygen --out keys/signing
gates: {{accuracy: 0.8}}

fleet:
  defaults: {{user: pi, root: ~/.knnkit}}
  targets:
    - {{host: local, root: {root}}}   # the embedded device: this machine
    # - {{host: board-1.example, tags: [canary]}}
    # - {{host: board-2.example, port: 2222}}

rollout: {{max_failures: 0, confirm_within: 60s}}
# rollout: {{waves: [canary, 25%, 100%], max_failures: 1, confirm_within: 60s, concurrency: 16}}
"""
#: Suffixes of sounds and pictures.
_OTHERS = (".wav", ".png", ".jpg", ".jpeg")
#: Options that need --data.
_OF_ROWS = ("label", "features", "drop", "missing", "categories", "thousands")


def run(arguments: argparse.Namespace) -> int:
    """Writes deploy.yaml; returns 0."""
    path: Path = arguments.path
    last = (arguments.features or [""])[-1]
    if last.endswith((".yaml", ".yml")):
        said = f"--features takes all words that follow it as columns, also {last!r}"
        raise UsageError(said, hint=f"knnkit init {shlex.quote(last)} --data ROWS.csv, with FILE first")
    option = next((f"--{key}" for key in _OF_ROWS if getattr(arguments, key)), None)
    if arguments.data is None and path.suffix not in (".yaml", ".yml") and (option or path.exists()):
        said = f"{path} is the deploy.yaml to write; rows need --data"
        raise UsageError(said, hint=f"--data {shlex.quote(str(path))}")
    if path.exists():
        raise _exists(path)
    if not path.absolute().parent.is_dir():
        parent = path.parent
        raise UsageError(f"{path}: there is no directory {parent}", hint=f"mkdir -p {shlex.quote(str(parent))}")
    name, data = "iris", "{sklearn: iris}     # or your own: {file: train.csv, label: species}"
    if arguments.data is not None:
        name, data = _own(arguments, path)
    elif option:
        raise UsageError(f"{option} needs --data, the file with the rows", hint="--data train.csv")
    try:
        write_new(path, _START.format(name=name, data=data, dist=_dist(path, name), root=_root(path, name)).encode())
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise unwritten(str(path), error, hint="knnkit init OTHER.yaml") from None
    key, file = (shlex.quote(str(each)) for each in (path.parent / _options.KEY_PREFIX, path))
    print(f"{path}: next, `knnkit keygen --out {key}`, then `knnkit deploy -c {file}`", file=sys.stderr)
    return 0


def _exists(path: Path) -> UsageError:
    hint = "knnkit init OTHER.yaml with the same options"
    return UsageError(f"{path} exists; it was not changed", hint=hint)


def _own(arguments: argparse.Namespace, path: Path) -> tuple[str, str]:
    """Returns the values of `name` and `data` for deploy.yaml, as YAML text; first reads the rows as a build does."""
    file: Path = arguments.data
    label: str = arguments.label or "label"
    if path.suffix not in (".yaml", ".yml") and has_column(file, str(path)):
        said = f"{path} is a column of {file}, and would be the file to write: --label names one column"
        then = f"; for two label columns, then write label: [{_quote(label)}, {_quote(str(path))}] in the file"
        raise UsageError(said, hint=f"knnkit init --data {shlex.quote(str(file))} --label {shlex.quote(label)}{then}")
    found = file if file.exists() else _first_match(file)
    if found and found.suffix.lower() in _OTHERS:
        then = "then write `data` and `input` as docs/guide.md shows for sounds and pictures"
        raise UsageError(f"--data takes a table; {found} is not one", hint=f"knnkit init; {then}")
    if file.is_dir():
        files = _quote(inside(file, (".csv", ".parquet", ".npz")))
        then = f"then write data: {{files: {files}, ...}} as docs/guide.md shows for windows, sounds and pictures"
        raise UsageError(f"--data takes one file of labelled rows, not the folder {file}", hint=f"knnkit init; {then}")
    if found and not file.exists():
        then = f"; then write files: {_quote(str(file))} in place of file: in {path}"
        raise UsageError(
            f"--data takes one file, not the pattern {file}", hint=f"--data {shlex.quote(str(found))}{then}"
        )
    names = arguments.features or []
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"--features names {twice!r} twice", hint="each column once")
    categories = dict.fromkeys(arguments.categories or (), "one-hot")
    how = (arguments.drop or (), arguments.missing or "refuse", categories, arguments.thousands or "")
    with flags_for("label", *_OF_ROWS):
        warnings = warnings_of_file(file, label, arguments.features, *how)
    for warning in warnings:
        print(f"knnkit: warning: {warning}", file=sys.stderr)
    chosen = "".join(
        f", {key}: [{', '.join(map(_quote, words))}]"
        for key in ("features", "drop")
        if (words := getattr(arguments, key))
    )
    chosen += f", missing: {arguments.missing}" if arguments.missing else ""
    chosen += f", categories: {{{', '.join(f'{_quote(name)}: one-hot' for name in categories)}}}" if categories else ""
    chosen += f", thousands: {_quote(arguments.thousands)}" if arguments.thousands else ""
    return _name(file.stem), f"{{file: {_quote(_relative(file, path))}, label: {_quote(label)}{chosen}}}"


def _first_match(source: Path) -> Path | None:
    """Returns the first file, by name, that the pattern `source` matches; None if there is none."""
    folder, pattern = split(source)
    names = glob.glob(pattern, root_dir=folder, recursive=True)  # noqa: PTH207 (may be "**.csv")
    return min((path for name in names if (path := folder / name).is_file()), default=None)


def _name(stem: str) -> str:
    """Returns a name for the model in YAML, made from `stem`, the name of its data file."""
    letters = unicodedata.normalize("NFKD", stem)  # an accent stands by itself, and is left out
    kept = [c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in letters if not unicodedata.combining(c)]
    name = "".join(kept).strip("._-")[:64] or "model"
    return name if yaml_reader.read(f"name: {name}", "").data == {"name": name} else _quote(name)


def _dist(path: Path, name: str) -> str:
    """Returns the release directory: `dist` for deploy.yaml, `dist-x` for x.yaml, so that each file has its own.

    If there is a `dist` already, that of deploy.yaml is `dist-NAME`.
    """
    if path.name != yaml_reader.FILE_NAME:
        name = _name(path.stem)
    elif not (path.parent / "dist").exists():
        return "dist"
    return f"dist-{name.strip(chr(39))}"


def _root(path: Path, name: str) -> str:
    """Returns a root for the embedded device that no other project has: `~/.knnkit-NAME-` and six digits of a hash."""
    project = hashlib.sha256(bytes(path.absolute())).hexdigest()[:6]
    return f"{constants.DEFAULT_ROOT}-{name.strip(chr(39))}-{project}"


def _relative(data: Path, path: Path) -> str:
    """Returns the path of `data` relative to the folder of the deploy.yaml `path`; absolute if it lies elsewhere."""
    try:
        return str(data.absolute().relative_to(path.absolute().parent))
    except ValueError:
        return str(data.absolute())


def _quote(text: str) -> str:
    if not text.isprintable():
        return json.dumps(text)
    return "'" + text.replace("'", "''") + "'"
