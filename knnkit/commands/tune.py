"""`knnkit tune`: finds the best k, metric, weights and scale.

Measures on the training rows, each without itself, or on the held-out rows. Builds nothing; writes deploy.yaml only
with `--write`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, get_args

from device_agent.shared.protocol import constants, json_codec
from knnkit.commands import _config, _output
from knnkit.config import edit
from knnkit.config.parse import Build, GroupSplit, SkopsData, TimeSplit
from knnkit.data.dataset import Dataset
from knnkit.errors import UsageError
from knnkit.evaluation.metrics import percent
from knnkit.evaluation.splits import LEAVE_ONE_OUT
from knnkit.model.reference.spec import require_plain
from knnkit.render import charts
from knnkit.render.charts import Chart, Line
from knnkit.render.sanitize import count
from knnkit.render.terminal import Column, Progress, Table, print_line, print_table
from knnkit.training import source, tuning
from knnkit.training.tuning import SPLIT, Score, Setting, Tuned

#: Settings that the table and the plot show.
_SHOWN, _DRAWN = 20, 8
_WORDS: dict[Score, str] = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "r_squared": "R²"}


def run(arguments: argparse.Namespace) -> int:
    """Measures all settings, shows the table, and returns 0."""
    if arguments.plot is not None:
        _output.check_new_file("--plot", arguments.plot, suffixes=charts.SUFFIXES)
    build = _config.one_build(arguments)
    model = build.model
    if isinstance(model.data, SkopsData):
        said = f"{arguments.config}: the estimator of `skops` decides k, metric, weights and scale"
        raise UsageError(said, hint="data: {file: train.csv, label: species}, or fit another estimator")
    apart = isinstance(model.split, GroupSplit | TimeSplit) or (
        model.input is not None and model.input.window is not None
    )
    how = arguments.by or (SPLIT if apart else LEAVE_ONE_OUT)
    now = Setting(model.scale, model.metric, model.weights)
    material = source.load(build)
    material = material.whole or material
    score = _score(arguments.score, material.training)
    require_plain(material.spec, "tune")
    for warning in material.warnings:
        print_line(f"knnkit: warning: {warning}", "warn", stream=sys.stderr)
    with Progress() as progress:
        tuned = tuning.tune(
            material,
            how,
            max(arguments.k, model.k),
            _settings(arguments, now),
            score=score,
            progress=lambda done, total: progress.step("tune", f"{done} of {total} searches"),
        )
    setting, k = tuned.choose(now, model.k)
    table = _table(tuned, score, now, model.k)
    notes = _notes(tuned, how, _left_out(model.split), score, (now, model.k), (setting, k))
    if model.reject is not None:
        notes += ("every row is answered, as without `reject`",)
    if not arguments.json:
        print_table(table.columns, table.rows)
        for note in notes:
            print_line(note, stream=sys.stderr)
    if arguments.plot is not None:
        charts.write(arguments.plot, _chart(tuned, model.name, score, how), table, notes)
    changed = _write(arguments, build, setting, k) if arguments.write else False
    if arguments.json:
        print(json_codec.dumps(_document(tuned, how, score, (now, model.k), (setting, k), changed)))
        return 0
    if (now, model.k) != (setting, k):
        _say_next(arguments)
    return 0


def _score(asked: Score | None, training: Dataset) -> Score:
    """Returns the score `asked` for; for None, accuracy for labels and R² for targets that are numbers.

    Raises UsageError if the score does not fit what the model predicts.
    """
    by_value = training.targets is not None and not training.target_classes
    score: Score = asked or ("r_squared" if by_value else "accuracy")
    if by_value != (score == "r_squared"):
        what = "numbers" if by_value else "labels"
        raise UsageError(f"--score {score}: the model predicts {what}", hint=f"--score {_score(None, training)}")
    if score == "balanced_accuracy" and training.target_classes:
        raise UsageError(f"--score {score} is for one label column, and the model has several", hint="--score accuracy")
    return score


def _shown(score: Score, value: float | None) -> str:
    return f"{value:.4f}" if score == "r_squared" and value is not None else percent(value)


def _settings(arguments: argparse.Namespace, now: Setting) -> list[Setting]:
    asked: tuple[Any, Any, Any] = (
        arguments.scale or get_args(constants.Scale),
        arguments.metric or constants.GRAPH_METRICS,
        arguments.weights or constants.GRAPH_WEIGHTS,
    )
    return list(dict.fromkeys([*tuning.settings_of(*asked, now), now]))


def _table(tuned: Tuned, score: Score, now: Setting, k: int) -> Table:
    columns = ("scale", "metric", "weights", Column("k", right=True), Column("score", right=True), "")
    best = tuned.curves[:_SHOWN]
    rows = [(*_named(each.setting), str(each.best), _shown(score, max(each.scores)), "") for each in best]
    rows.append((*_named(now), str(k), _shown(score, tuned.score(now, k)), "deploy.yaml"))
    return Table(columns, tuple(rows))


def _named(setting: Setting) -> tuple[str, str, str]:
    return setting.scale, setting.metric, setting.weights


def _left_out(split: object) -> str:
    """Returns in words what leave-one-out leaves out: `itself`, or `the rows of the same COLUMN` (that of `split`)."""
    if isinstance(split, GroupSplit):
        return f"the rows of the same {split.group}"
    return f"the rows of the same {split.time}" if isinstance(split, TimeSplit) else "itself"


def _notes(
    tuned: Tuned, how: str, whom: str, score: Score, before: tuple[Setting, int], after: tuple[Setting, int]
) -> tuple[str, ...]:
    what = "held-out rows" if how == SPLIT else f"each training row without {whom}"
    rows = (
        count(tuned.rows, "row") if tuned.rows == tuned.of else f"{tuned.rows:,} of {tuned.of:,} rows, drawn at random"
    )
    notes = (f"{_WORDS[score]} of {rows} ({what})",)
    if before == after:
        return (*notes, "no setting is better than that of deploy.yaml")
    old, new = (_shown(score, tuned.score(*each)) for each in (before, after))
    return (*notes, f"best: {_text(*after)}: {new}, with {_text(*before)}: {old}")


def _text(setting: Setting, k: int) -> str:
    return ", ".join(f"{key}: {value}" for key, value in _values(setting, k).items())


def _values(setting: Setting, k: int) -> dict[str, str | int]:
    return {"k": k, "metric": setting.metric, "weights": setting.weights, "scale": setting.scale}


def _chart(tuned: Tuned, name: str, score: Score, how: str) -> Chart:
    lines = [
        Line(" ".join(_named(each.setting)), range(1, len(each.scores) + 1), each.scores)
        for each in tuned.curves[:_DRAWN]
    ]
    return Chart(f"{name}: {_WORDS[score]} by k ({how})", "k", _WORDS[score], tuple(lines))


def _write(arguments: argparse.Namespace, build: Build, setting: Setting, k: int) -> bool:
    """Writes `setting` (metric, weights, scale) and `k` into deploy.yaml; returns False if they are there already."""
    model = build.model
    before = _values(Setting(model.scale, model.metric, model.weights), model.k)
    values = {key: value for key, value in _values(setting, k).items() if value != before[key]}
    if not values:
        return False
    path: Path = arguments.config
    _config.rewrite(path, model.name, lambda text, place: edit.with_values(text, place, values, str(path)))
    return True


def _say_next(arguments: argparse.Namespace) -> None:
    said = f"try: knnkit tune --write{_config.flags(arguments)}, which writes the best setting into deploy.yaml"
    if arguments.write:
        said = f"{arguments.config}: written; next: knnkit build{_config.flags(arguments, model=False)}"
    print_line(said, stream=sys.stderr)


def _document(
    tuned: Tuned, how: str, score: str, before: tuple[Setting, int], after: tuple[Setting, int], written: bool
) -> dict[str, Any]:
    def entry(setting: Setting, k: int) -> dict[str, Any]:
        return {**_values(setting, k), "score": tuned.score(setting, k)}

    return {
        "by": how,
        "score": score,
        "rows": tuned.rows,
        "of": tuned.of,
        "now": entry(*before),
        "best": entry(*after),
        "written": written,
        "settings": [
            {**_values(each.setting, each.best), "score": max(each.scores), "scores": list(each.scores)}
            for each in tuned.curves
        ],
    }
