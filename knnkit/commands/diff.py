"""`knnkit diff`: shows which labels change between releases.

Runs the float64 classifiers stored in the two model files; devices give the same answers. Loads no TensorFlow.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from device_agent.shared.enrolment.enrolled import fingerprint
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.release.row_origins import Origins
from device_agent.shared.safe_files import read_small
from knnkit.commands import _options, _output
from knnkit.data import files
from knnkit.data.dataset import Dataset
from knnkit.errors import UsageError, flags_for
from knnkit.evaluation import flips
from knnkit.evaluation.flips import Asked, Comparison, Flip, Neighbour
from knnkit.evaluation.metrics import percent
from knnkit.model.stored import StoredModel, read_model
from knnkit.render.sanitize import count
from knnkit.render.terminal import Column, print_line, print_table
from knnkit.training import table

#: Rows that are printed, at most; `--json` has all.
_SHOWN = 20
#: Neighbours of a row that are printed, at most.
_VOTERS = 5


def run(arguments: argparse.Namespace) -> int:
    """Prints the labels that change; returns 0."""
    if not arguments.data:
        _options.refuse(arguments, "is the label column of --data FILE", "label")
    if arguments.after is None:
        old, new = shlex.quote(f"{arguments.before}.old"), shlex.quote(str(arguments.before))
        hint = f"before a build, keep a copy: cp -r {new} {old}; after it: knnkit diff {old} {new}"
        raise UsageError("diff compares two releases, and a build replaces the old one", hint=hint)
    try:
        before, after = _read(arguments.before), _read(arguments.after)
        asked = _own(arguments, before, after) if arguments.data else _evaluated(arguments, before, after)
        few = [flips.affordable(before, after, each) for each in asked]
        rows, of = sum(map(len, few)), sum(map(len, asked))
        if rows < of:
            print(f"knnkit: {rows:,} of {of:,} rows, drawn at random, are compared: all take too long", file=sys.stderr)
        found = flips.compare(before, after, few)
    except ModelUnusable as error:
        raise UsageError(str(error), hint=error.hint) from None
    if arguments.json:
        named = {"before": (arguments.before, before.info), "after": (arguments.after, after.info)}
        versions = {
            key: {"path": str(path), "name": info.name, "fingerprint": info.fingerprint}
            for key, (path, info) in named.items()
        }
        print(json_codec.dumps({**versions, **json_codec.to_plain(found), "kinds": json_codec.to_plain(found.kinds)}))
    else:
        show(found)
    return 0


def _read(path: Path) -> StoredModel:
    model = _output.model_file(path, "name a release directory, or a model.tflite")
    found = read_model(model)
    if found.info.targets is not None:
        what = "several label columns" if found.info.targets.classes else "values"
        said = f"{model} answers {what}, and diff compares labels"
        raise UsageError(said, hint="name two classifiers with one label column each")
    return found


# --- which rows ---------------------------------------------------------------------------------------------------
def _own(arguments: argparse.Namespace, before: StoredModel, after: StoredModel) -> list[Asked]:
    """Returns one group of rows to compare: those of `--data`, read once for each model, as columns may differ."""
    with flags_for("label"):
        parts = [_read_for(arguments, model) for model in (before, after)]
    truth = tuple(map(str, parts[0].labels.tolist()))
    origins = Origins(arguments.data.name)
    return [Asked(parts[0].rows, parts[1].rows, truth, origins, tuple(range(len(truth))))]


def _read_for(arguments: argparse.Namespace, model: StoredModel) -> Dataset:
    names, plan = model.info.columns, model.info.table
    if model.info.input is not None:
        said = f"--data takes rows, but {model.info.name} takes windows, sounds or pictures"
        raise UsageError(said, hint="leave --data out to compare on the golden rows of both releases")
    label = arguments.label or "label"
    if plan is None:
        return files.load(arguments.data, label, names, wide=True)
    return table.apply(plan, files.load(arguments.data, label, names, table.policy_for(plan)))


def _evaluated(arguments: argparse.Namespace, before: StoredModel, after: StoredModel) -> list[Asked]:
    """Returns three groups of evaluation rows: those that both releases have, only the new one, and only the old one.

    Groups of one release are marked `doubtful`: the other release may have been trained on some of these rows.
    """
    if _meaning(before.info) != _meaning(after.info):
        said = f"{arguments.before} and {arguments.after} have different features; neither can answer the other's rows"
        hint = "--data rows.csv, with the columns of both"
        if before.info.input or after.info.input:
            hint = "knnkit deploy --dry-run, which counts the labels that change on each device"
        raise UsageError(said, hint=hint)
    new, old = evaluated(arguments.after, after), evaluated(arguments.before, before)
    # With an origin, rows are float64.
    keys, others = ([row.tobytes() for row in each.after.astype(np.float64)] for each in (new, old))
    in_new, in_old = set(keys), set(others)
    shared = np.array([key in in_old for key in keys], bool)
    own = np.array([key not in in_new for key in others], bool)
    only = (new.take(np.flatnonzero(~shared)), old.take(np.flatnonzero(own)))
    return [new.take(np.flatnonzero(shared)), *(replace(each, doubtful=True) for each in only)]


def _meaning(info: KnnInfo) -> tuple[object, ...]:
    """Returns what the features of a model are: their names, and the stages or transforms that compute them."""
    return info.feature_names, info.input and fingerprint(info), info.table and info.table.transforms


def evaluated(path: Path, model: StoredModel) -> Asked:
    """Returns the evaluation rows of a release."""
    golden = _golden(path, model)
    truth = tuple(model.labels[code] if code >= 0 else "" for code in golden.truth.tolist())
    return Asked(golden.rows, golden.rows, truth, model.golden, tuple(range(len(truth))))


def _golden(path: Path, model: StoredModel) -> Golden:
    if not path.is_dir():
        said = f"{path} is a model file, which has no evaluation rows"
        raise UsageError(said, hint="--data rows.csv, or name the release directory")
    golden = Golden.from_bytes(read_small(path / constants.GOLDEN_FILE, constants.MAX_GOLDEN))
    if golden.rows.shape[1] != model.info.n_features or golden.truth.max(initial=-1) >= len(model.info.classes):
        raise UsageError(
            f"{path}: the golden rows are not those of its model",
            hint=f"knnkit verify {shlex.quote(str(path))} --key PUB",
        )
    return golden


# --- for people ---------------------------------------------------------------------------------------------------
def show(found: Comparison) -> None:
    """Prints the labels that change, with the neighbours that decided."""
    if found.kinds:
        columns = ("truth", "before", "after", Column("rows", right=True))
        rows = [(kind.truth or "not known", kind.before, kind.after, f"{kind.rows:,}") for kind in found.kinds]
        print_table(columns, rows)
        heads = ("row", "truth", "before", "after", "neighbours before", "neighbours after")
        print_table(heads, [_row(flip) for flip in found.flips[:_SHOWN]])
    if len(found.flips) > _SHOWN:
        print_line(f"{count(len(found.flips) - _SHOWN, 'more row')}: --json has all")
    accuracy = ""
    if found.known:
        shares = percent(found.right_before / found.known), percent(found.right_after / found.known)
        which = " that neither was trained on" if found.known < found.rows else ""
        accuracy = f"; accuracy {shares[0]} -> {shares[1]} on {count(found.known, 'row')}{which}"
    print_line(f"{len(found.flips):,} of {count(found.rows, 'label')} change{accuracy}")


def _row(flip: Flip) -> tuple[str, ...]:
    name = f"{flip.row} of {flip.source}" + (f" ({flip.id})" if flip.id else "")
    voters = (_voters(flip.neighbours_before), _voters(flip.neighbours_after))
    return (name, flip.truth or "not known", flip.before, flip.after, *voters)


def _voters(neighbours: tuple[Neighbour, ...]) -> str:
    shown = [f"{each.label} {each.row}" + (f" ({each.id})" if each.id else "") for each in neighbours[:_VOTERS]]
    return ", ".join(shown) + (f", {len(neighbours) - _VOTERS:,} more" if len(neighbours) > _VOTERS else "")
