"""`knnkit promote`: adds labelled rows to the training data.

Shows how the answers of the current release would change, for its evaluation rows and for the added rows.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.protocol.record import replace as with_changes
from device_agent.shared.release.row_origins import Origins
from device_agent.shared.tabular.csv_dialect import short
from knnkit.commands import _config
from knnkit.commands.diff import evaluated, show
from knnkit.config import edit
from knnkit.config.parse import Build, FileData
from knnkit.data import collected, patterns
from knnkit.data.dataset import Dataset, label_array
from knnkit.errors import DataError, UsageError
from knnkit.evaluation import faults, flips
from knnkit.evaluation.flips import Asked, Comparison
from knnkit.model.build import make_reference, origins_of
from knnkit.model.stored import StoredModel, read_model
from knnkit.release.up_to_date import manifest_in
from knnkit.render.sanitize import count
from knnkit.render.terminal import Column, print_line, print_table
from knnkit.training import outvoted, promote, rows
from knnkit.training.promote import Promotion
from knnkit.training.source import Material


def run(arguments: argparse.Namespace) -> int:
    """Adds the labelled rows of a collected file to the training data, and prints which answers change; returns 0."""
    found = collected.read(arguments.file)
    if arguments.model is None:
        arguments.model = found.columns.model
    folder = arguments.config.absolute().parent  # as for the paths in the file, also through a link
    written = _config.one_build(arguments)
    promote.check(written, found)
    build, material = promote.load(written, folder)
    promotion = promote.plan(build, material, found, folder)
    gain, unknown, warnings = None, "", list[str]()
    labels = material.training.targets is None  # `diff` compares no values
    try:
        if promotion.rows:
            new = _read(material, build, promotion)
            warnings += _far(material, new, promotion)
            gain = _gain(build, material, new, promotion) if labels else None
    except DataError as error:  # such as a category that no training row had
        unknown = str(error)
    listed = False
    if not arguments.dry_run and promotion.rows:
        promote.write(promotion)
    if not arguments.dry_run and promotion.path.exists():
        listed = _list(arguments.config, written, promotion)
    if arguments.json:
        print(json_codec.dumps(_document(promotion, gain)))
    else:
        _show(arguments, build, promotion, gain, listed)
        for warning in (*warnings, *(_outvoted(material, promotion) if labels else ())):
            print_line(warning, "warn", stream=sys.stderr)
        if unknown:
            print_line(f"cannot show what the new rows change: {unknown}", "warn", stream=sys.stderr)
    return constants.EXIT_OK


def _document(promotion: Promotion, gain: Comparison | None) -> dict[str, object]:
    rows = [{"id": row.id, "label": row.label, "device": row.device, "time": row.time} for row in promotion.rows]
    numbers: dict[str, object] = {"already": promotion.there, "without_label": promotion.waiting}
    numbers |= {"no_cell": dict(promotion.gaps), "differing": promotion.differing}
    numbers["contradicting"] = tuple(row.id for row in promotion.contradicting)
    return {"file": str(promotion.path), "rows": rows, **numbers, "gain": json_codec.to_plain(gain)}


def _list(config: Path, build: Build, promotion: Promotion) -> bool:
    """Adds the CSV file with the new rows to `files` in deploy.yaml; returns False if it was listed there already."""
    data = build.model.data
    assert isinstance(data, FileData)
    there = {path.resolve() for path in patterns.expand(data.sources)}
    name = promotion.id_column if data.id is None else None
    if promotion.path.resolve() in there:
        return False
    file = f"{rows.FIELD}/{promotion.path.name}"
    _config.rewrite(
        config, build.model.name, lambda text, at: edit.with_file(text, (*at, "data"), file, name, str(config))
    )
    return True


# --- what the next model gains --------------------------------------------------------------------------------------
def _gain(build: Build, material: Material, new: Dataset, promotion: Promotion) -> Comparison | None:
    """Compares the current release's answers with those of the same model plus the rows `new`.

    Both answer the release's evaluation rows and the new rows. Returns None if there is no release, or if its features
    are not those of the training data.
    """
    path = build.release.dir / constants.MODEL_FILE
    if not path.is_file():
        return None
    try:
        before = read_model(path)
    except (ModelUnusable, OSError) as error:
        raise UsageError(str(error), hint="knnkit build --force") from None
    if before.info.feature_names != material.training.feature_names:
        return None
    after = _with_rows(before, material, new)
    truth = tuple(map(str, new.labels.tolist()))
    origins = with_changes(origins_of(new), source=f"{rows.FIELD}/{promotion.path.name}")
    fresh = Asked(new.rows, new.rows, truth, origins, tuple(range(len(truth))), measures=False)
    changed = before.info.fingerprint != material.fingerprint  # other rows may be held out now
    asked = (replace(evaluated(build.release.dir, before), doubtful=changed), fresh)
    return flips.compare(before, after, [flips.affordable(before, after, each) for each in asked])


def _read(material: Material, build: Build, promotion: Promotion) -> Dataset:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / promotion.path.name
        file.write_bytes(promotion.fresh)
        try:
            return replace(material.read(file, rows.answers_of(build)), source=str(promotion.path))
        except DataError as error:
            raise DataError(str(error).replace(str(file), str(promotion.path))) from None


def _with_rows(before: StoredModel, material: Material, new: Dataset) -> StoredModel:
    """Returns the model `before`, with the new rows added to its training rows."""
    training = material.training
    labels = label_array([*training.labels.tolist(), *new.labels.tolist()], training.source)
    rows = np.concatenate([training.rows, new.rows.astype(training.rows.dtype)])
    both = Dataset(rows, labels, training.feature_names, training.source)
    enrolment = replace(material, training=both, whole=None, spare=None).enrol(before.info.scale, before.info.metric)
    reference = make_reference(material.spec, enrolment)
    origins = Origins("training and field rows", row_numbers(material, len(new.rows)))
    return replace(
        before, info=with_changes(before.info, classes=enrolment.classes), reference=reference, training=origins
    )


def row_numbers(material: Material, added: int) -> NDArray[np.int64]:
    """Returns the numbers of the training rows in the user's files, then the next `added` numbers, for the new rows."""
    rows = material.training
    parts = (rows, material.held_out, material.spare)
    numbers = [
        np.arange(len(part.rows)) if part.places is None else part.places
        for part in parts
        if part is not None and part.source == rows.source
    ]
    end = 1 + max(int(part.max()) for part in numbers if len(part))
    return np.concatenate([numbers[0], np.arange(end, end + added)])


def _far(material: Material, new: Dataset, promotion: Promotion) -> list[str]:
    """Returns a warning for each of the rows `new` with a value that alone would decide the scale of its column."""
    old = material.training
    found = faults.far_values(np.concatenate([old.rows, new.rows]), old.feature_names, material.spec.scale)
    added = [(promotion.rows[new.place(far.row - len(old.rows))], far) for far in found if far.row >= len(old.rows)]
    return [f"row {row.id} ({row.device}): {far.said}" for row, far in added]


# --- for people -----------------------------------------------------------------------------------------------------
def _outvoted(material: Material, promotion: Promotion) -> tuple[str, ...]:
    """Returns a warning about classes that even with the new rows are too small to win a vote; () if there are none."""
    old = material.training.labels
    added = [int(str(row.label)) if old.dtype.kind in "iu" else str(row.label) for row in promotion.rows]
    counts = Counter([*old.tolist(), *added])
    classes = sorted(counts)
    return outvoted.find(material.spec, classes, [counts[each] for each in classes])


def _show(
    arguments: argparse.Namespace, build: Build, promotion: Promotion, gain: Comparison | None, listed: bool
) -> None:
    if promotion.rows:
        counts = Counter((row.label or "", row.device) for row in promotion.rows)
        print_table(
            ("label", "device", Column("rows", right=True)), [(*key, f"{n:,}") for key, n in sorted(counts.items())]
        )
    if gain is not None:
        show(gain)
        if gain.known:
            print_line("the accuracy is that of the evaluation rows alone: an added row would be its own neighbour")
    done = "would be added to" if arguments.dry_run else "added to"
    print_line(f"{count(len(promotion.rows), 'row')} {done} {promotion.path}; {promotion.there:,} added earlier")
    if promotion.waiting:
        label = f"knnkit label {shlex.quote(str(arguments.file))}{_config.flags(arguments, model=False)}"
        print_line(f"{count(promotion.waiting, 'row')} without a label: {label}", "warn")
    for column, number in promotion.gaps.items():
        said = (
            f"{count(number, 'row')} left out: no cell in {short(column)} (a device keeps no category that its release"
        )
        print_line(f"{said} does not have); teach such rows, which keeps their cells: enrol", "warn")
    if promotion.differing:
        some = ", ".join(promotion.differing[:5])
        keep = "keeps" if len(promotion.differing) == 1 else "keep"
        print_line(f"{count(len(promotion.differing), 'row')} added earlier {keep} another label: {some}", "warn")
    if promotion.contradicting:
        some = ", ".join(f"{row.label} ({row.device}, {row.id})" for row in promotion.contradicting[:4])
        have = "has" if len(promotion.contradicting) == 1 else "have"
        twins = f"{count(len(promotion.contradicting), 'row')} {have} the same cells as another row, but another label"
        print_line(f"{twins}: {some}", "warn")
    if listed:
        print_line(f"{arguments.config} names {rows.FIELD}/{promotion.path.name} now")
    if listed or (promotion.rows and not arguments.dry_run):
        old, version = manifest_in(build.release.dir), build.release.version
        if old is not None and old.version == version:
            raised = re.sub(r"\d+(?=\D*$)", lambda found: str(int(found[0]) + 1), version)
            told = f"such as to {raised}: {version} is built already"
            print_line(f"first: change `version` of `release` in {arguments.config}, {told}")
        print_line(f"next: knnkit deploy{_config.flags(arguments, model=False)}")
