"""`knnkit reject`: measures what each value of `reject` costs.

Shows for each value how many ordinary rows the model rejects, and how many strangers it accepts. Strangers are rows of
no class, to which the model should answer "unknown". A larger `reject` in deploy.yaml accepts more rows of either kind.
Measures the float64 reference, which gives the same answers as devices. Builds nothing, changes nothing.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.console.lists import listed
from device_agent.shared.protocol import json_codec
from knnkit.commands import _config, _output
from knnkit.data import unlabelled
from knnkit.data.bad_cells import quoted
from knnkit.data.dataset import drawn
from knnkit.errors import UsageError
from knnkit.evaluation.metrics import percent
from knnkit.evaluation.strangers import SHARES, Level, Measured, Trade
from knnkit.model.build import Options, calibration_rows, make_reference, most_calibrated
from knnkit.model.reference.calibration import MIN_CLASS_ROWS
from knnkit.model.reference.classifier import Reference
from knnkit.model.reference.enrolment import codes_of
from knnkit.model.reference.spec import DEFAULT, own_shares
from knnkit.render import charts
from knnkit.render.charts import Chart, Line
from knnkit.render.sanitize import clean, count
from knnkit.render.terminal import Column, Table, print_line, print_table
from knnkit.training import source
from knnkit.training.source import Material

#: Points of a curve, and classes with a curve of their own.
_POINTS = np.concatenate([np.arange(0.5, 0.95, 0.05), np.arange(0.95, 1.0, 0.005), [0.999]])
_CURVES = 8


def run(arguments: argparse.Namespace) -> int:
    """Measures the values of `reject`, shows the tables, and returns 0."""
    if arguments.plot is not None:
        _output.check_new_file("--plot", arguments.plot, suffixes=charts.SUFFIXES)
    if arguments.accept is not None and arguments.strangers is None:
        raise UsageError("--accept is a share of strangers: it needs --strangers FILE", hint="--strangers FILE")
    build = _config.one_build(arguments)
    material = source.load(build)
    if material.spec.radius is not None:
        raise UsageError("reject needs exactly k neighbours, not a radius", hint="leave radius out")
    enrolment = material.enrol(build.model.scale, build.model.metric)
    labels = tuple(map(str, enrolment.classes))
    reference = make_reference(replace(material.spec, reject=None), enrolment, None, Options(groups=material.groups))
    trade = _measure(arguments, material, reference, enrolment.classes, build.model.seed)
    level = _wanted(arguments, trade, material, enrolment.classes)
    table, by_class = _table(trade), _class_table(level, labels, trade.strangers is not None)
    notes = _notes(material, trade, level, labels)
    if arguments.plot is not None:
        charts.write(arguments.plot, _chart(trade, build.model.name, labels), table, notes)
    if arguments.json:
        print(json_codec.dumps(_document(trade, level, labels)))
        return 0
    for each in (table, by_class) if len(labels) > 1 else (table,):  # only classes are listed
        print_table(each.columns, each.rows)
    for note in notes:
        print_line(note, stream=sys.stderr)
    return 0


def _measure(
    arguments: argparse.Namespace, material: Material, reference: Reference, classes: tuple[int | str, ...], seed: int
) -> Trade:
    label, kth = calibration_rows(reference, seed, material.spare)
    every = len(reference.enrolled) + (0 if material.spare is None else len(material.spare.rows))
    calibration = Measured(label, kth, label, every)
    ordinary = calibration
    if material.held_out is not None:
        held_out = material.held_out.take(drawn(len(material.held_out.rows), most_calibrated(reference), seed))
        truth = codes_of(classes, held_out.labels)
        ordinary = replace(_ask(reference, held_out.rows), truth=truth, of=len(material.held_out.rows))
    strangers = None
    if arguments.strangers is not None:
        if material.window is not None:
            said = "--strangers takes rows, and the model takes windows"
            raise UsageError(said, hint="leave --strangers out: the held-out recordings are measured")
        if material.embedder is not None:
            said = "--strangers takes rows, and the model takes inputs for its stages"
            raise UsageError(said, hint="leave --strangers out: the held-out inputs are measured")
        rows = unlabelled.load(arguments.strangers, material.training, material.table)
        strangers = _ask(reference, rows[drawn(len(rows), most_calibrated(reference), seed)])
        strangers = replace(strangers, of=len(rows))
    return Trade(calibration, ordinary, strangers, reference.n_classes)


def _ask(reference: Reference, rows: NDArray[Any]) -> Measured:
    answers = reference.answer(rows)
    return Measured(answers.label, answers.distances[:, reference.k - 1], answers.label)


def _wanted(arguments: argparse.Namespace, trade: Trade, material: Material, classes: tuple[int | str, ...]) -> Level:
    """Returns the figures of one value of `reject`: the best that keeps to the limit --accept or --reject.

    Without these options, the value is that of deploy.yaml, or else 0.99. `trade` measures values of `reject`.

    Raises:
        UsageError: no value achieves what the option asks for.
    """
    found: Level | None
    if arguments.accept is not None:
        found, asked = trade.widest(arguments.accept), f"--accept {arguments.accept:g}"
    elif arguments.reject is not None:
        found, asked = trade.strictest(arguments.reject), f"--reject {arguments.reject:g}"
    else:
        default = material.spec.shares.get(DEFAULT, 0.99)
        return trade.level(default, own_shares(material.spec, classes))
    if found is None:
        said = f"{asked}: no value of `reject` achieves that; the tables show what is possible"
        raise UsageError(said, hint=f"knnkit reject{_config.flags(arguments)}")
    return found


def _table(trade: Trade) -> Table:
    columns = [Column("reject", right=True), Column("ordinary rows rejected", right=True)]
    columns += [Column("strangers accepted", right=True)] if trade.strangers is not None else []
    rows = []
    for level in map(trade.level, SHARES):
        rows.append((f"{level.share:g}", percent(level.rejected), percent(level.accepted))[: len(columns)])
    return Table(tuple(columns), tuple(rows))


def _class_table(level: Level, labels: tuple[str, ...], strangers: bool) -> Table:
    titles = ("reject", "threshold", "rows", "rejected", "strangers")
    columns: tuple[Column | str, ...] = ("class", *(Column(each, right=True) for each in titles[: 4 + strangers]))
    rows = []
    for label, each in zip(labels, level.classes):
        share = percent(each.rejected / each.rows) if each.rows else "–"
        shown = (f"{each.share:g}", f"{each.threshold:.6g}", f"{each.rows:,}", f"{each.rejected:,} ({share})")
        rows.append((clean(label), *shown, *([f"{each.strangers:,}"] if strangers else [])))
    return Table(columns, tuple(rows))


def _notes(material: Material, trade: Trade, level: Level, labels: tuple[str, ...]) -> tuple[str, ...]:
    ordinary = "held-out rows" if material.held_out is not None else "training rows, each without itself"
    notes = [f"ordinary rows: {_counted(trade.ordinary)} ({ordinary})"]
    if trade.strangers is not None:
        notes.append(f"strangers: {_counted(trade.strangers)}")
    rare = [label for code, label in enumerate(labels) if int((trade.calibration.label == code).sum()) < MIN_CLASS_ROWS]
    if rare and len(rare) < len(labels):
        said = listed(list(map(clean, rare)))
        notes.append(
            f"fewer than {MIN_CLASS_ROWS} rows calibrate {said}: their threshold is that of all classes together"
        )
    accepted = "" if level.accepted is None else f", accepts {percent(level.accepted)} of strangers"
    notes.append(f"reject: {_written(level, labels)} rejects {percent(level.rejected)} of ordinary rows{accepted}")
    return tuple(notes)


def _counted(found: Measured) -> str:
    rows = len(found.label)
    return count(rows, "row") if found.of <= rows else f"{rows:,} of {found.of:,} rows, drawn at random"


def _written(level: Level, labels: tuple[str, ...]) -> str:
    """Returns the value of `reject` for deploy.yaml: a share, or a share for each label."""
    own = [
        f"{quoted(label)}: {each.share:g}" for label, each in zip(labels, level.classes) if each.share != level.share
    ]
    return "{" + ", ".join([*own, f"default: {level.share:g}"]) + "}" if own else f"{level.share:g}"


def _chart(trade: Trade, name: str, labels: tuple[str, ...]) -> Chart:
    levels = [trade.level(float(share)) for share in _POINTS]
    if trade.strangers is None:
        lines = [Line("all", _POINTS.tolist(), [level.rejected for level in levels])]
        for code, label in list(enumerate(labels))[:_CURVES]:
            shares = [level.classes[code].rejected / max(1, level.classes[code].rows) for level in levels]
            lines.append(Line(label, _POINTS.tolist(), shares))
        return Chart(f"{name}: ordinary rows that are unknown", "reject", "rejected ordinary rows", tuple(lines))
    lines = [Line("all", [level.rejected for level in levels], [level.accepted or 0.0 for level in levels])]
    total = len(trade.strangers.label)
    for code, label in list(enumerate(labels))[:_CURVES]:
        own = [level.classes[code] for level in levels]
        lines.append(Line(f"{label}", [c.rejected / max(1, c.rows) for c in own], [c.strangers / total for c in own]))
    return Chart(f"{name}: strangers and ordinary rows", "rejected ordinary rows", "accepted strangers", tuple(lines))


def _document(trade: Trade, level: Level, labels: tuple[str, ...]) -> dict[str, Any]:
    def entry(each: Level) -> dict[str, Any]:
        classes = [{"label": label, **asdict(one)} for label, one in zip(labels, each.classes)]
        return {"reject": each.share, "rejected": each.rejected, "accepted": each.accepted, "classes": classes}

    return {
        "ordinary": len(trade.ordinary.label),
        "strangers": None if trade.strangers is None else len(trade.strangers.label),
        "wanted": entry(level),
        "levels": [entry(trade.level(share)) for share in SHARES],
    }
