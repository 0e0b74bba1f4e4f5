"""A model card, as Markdown and as a page.

Shows data, split, classes, figures, thresholds, known weaknesses, licence, notes and tools. Measures nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from device_agent.shared.protocol.model_info import Gates, KnnInfo
from knnkit.evaluation.metrics import Figures, of_evaluation, percent
from knnkit.release.card import Card
from knnkit.render import figures
from knnkit.render.page import Section
from knnkit.render.sanitize import clean, count
from knnkit.render.terminal import Cell, Column, Table, Tone, head

#: Recall below this is named as a weakness.
_WEAK = 0.8
#: Characters that mean something in Markdown, or begin HTML.
_SPECIAL = re.compile(r"([\\`*_\[\]#|~])")


def markdown(card: Card) -> str:
    """Returns the model card as Markdown text."""
    first, *rest = _parts(card)
    found = [f"# {_escaped(first.title)}", *_body(first)]
    for section in rest:
        found += [f"## {_escaped(section.title)}", *_body(section)]
    return "\n\n".join(found) + "\n"


def section(card: Card) -> Section:
    """Returns the model card as one section of the HTML report."""
    first, *rest = _parts(card)
    lines = [line for part in (first, *rest) for line in part.lines]
    return Section(f"Model card: {first.title}", tuple(lines), tuple(table for part in rest for table in part.tables))


def _parts(card: Card) -> Iterator[Section]:
    info, manifest = card.info, card.manifest
    version = f" {manifest.version}" if manifest else ""
    what = "classifier"
    if info.targets is not None:
        what = f"{'classifier' if info.targets.classes else 'regression'} of {', '.join(info.targets.names)}"
    kind = (
        f"k-nearest-neighbours {what}: {info.how}, scale {info.scale}; "
        f"{count(info.n_train, 'training row')} x {count(info.n_features, 'feature')}: {', '.join(info.feature_names)}"
    )
    yield _text(f"{info.name}{version}", kind)
    yield _text("Data", *_data(card))
    measured = of_evaluation(info.evaluation, info.classes)
    how = info.evaluation.how if info.evaluation else ""
    overall = (
        figures.lines(measured, how, most=0)[:-1] + figures.sets_lines(info) if measured else figures.lines_of(info)
    )
    tables = (("Classes", _classes(card, measured)),) if info.targets is None else ()
    yield Section("Figures", _lines(overall or ["nothing was measured: no held-out rows"]), tables)
    yield _text("Thresholds", *_thresholds(info, manifest.gates if manifest else None))
    yield _text("Known weaknesses", *_weaknesses(card, measured))
    facts = card.facts
    yield _text("Licence and notes", f"licence: {facts.licence if facts and facts.licence else 'not stated'}",
                *([facts.notes] if facts and facts.notes else []))  # fmt: skip
    tools = ", ".join(f"{tool} {number}" for tool, number in sorted(info.versions.items()))
    yield _text("Provenance", f"built with {tools}", f"training rows: SHA-256 {info.fingerprint}")


def _text(title: str, *lines: str) -> Section:
    return Section(title, _lines(lines))


def _lines(lines: Sequence[str]) -> tuple[tuple[str, Tone], ...]:
    return tuple((line, "") for line in lines)


def _data(card: Card) -> Iterator[str]:
    if card.training.source:
        yield f"training rows: from {card.training.source}"
    if reduced := card.info.reduced:
        before = f"of all {reduced.rows:,}, with which the accuracy is {percent(reduced.accuracy)}"
        yield f"reduce: {reduced.how} chose {card.info.n_train:,} training rows {before}"
    evaluation, facts = card.info.evaluation, card.facts
    if evaluation and card.golden.source:
        drawn = "" if evaluation.of is None else f" of {evaluation.of:,}, drawn at random,"
        yield f"evaluation: {count(evaluation.rows, 'row')}{drawn} from {card.golden.source}, split: {evaluation.how}"
    if facts and facts.split:
        yield f"split in deploy.yaml: {facts.split}"


def _classes(card: Card, measured: Figures | None) -> Table:
    counts = dict(zip(map(str, card.info.classes), card.facts.counts)) if card.facts else {}
    found = {each.label: each for each in measured.classes} if measured else {}
    order = [*found] or [str(label) for label in card.info.classes]
    rows = tuple(
        (
            label,
            f"{counts[label]:,}" if label in counts else "–",
            f"{found[label].support:,}" if label in found else "–",
            percent(found[label].recall if label in found else None),
            percent(found[label].precision if label in found and found[label].answered else None),
        )
        for label in order
    )
    numbers = ("training rows", "evaluation rows", "recall", "precision")
    return Table(("class", *(Column(name, right=True) for name in numbers)), rows)


def _thresholds(info: KnnInfo, gates: Gates | None) -> Iterator[str]:
    targets = info.targets
    if not info.may_be_unknown:
        what = "a class" if targets is None else "a label of each column" if targets.classes else "values"
        yield f'every row gets {what}; the model never answers "unknown"'
    elif info.reject is None:
        yield '"unknown" for rows without a training row near enough'
    else:
        where = f"for rows farther away than {figures.accepted(info.reject)}"
        names = info.classes if targets is None else ("distance",)
        yield f'"unknown" {where}: ' + ", ".join(
            f"{_quoted(label)} {threshold:.6g}" for label, threshold in zip(names, info.reject.thresholds)
        )
    if gates is not None:
        yield f"gates: {gates_line(gates)}"


def gates_line(gates: Gates) -> str:
    """Returns the gates with a limit as text: `accuracy 0.9, latency_ms 20.0`; `only parity` if there are none."""
    asked = {name: value for name, value in vars(gates).items() if value not in (None, 0.0) and name != "margin"}
    return ", ".join(f"{name} {_gate(value)}" for name, value in asked.items()) or "only parity"


def _gate(value: Any) -> str:
    """Returns the limit of a gate as text: `0.9`, or `(setosa 0.9, virginica 0.8)` if its value is a dict."""
    return (
        f"({', '.join(f'{_quoted(name)} {each}' for name, each in value.items())})"
        if isinstance(value, dict)
        else f"{value}"
    )


def _quoted(label: object) -> str:
    """Returns a label as text, in quotes if it has a comma."""
    return repr(label) if "," in str(label) else str(label)


def _weaknesses(card: Card, measured: Figures | None) -> Iterator[str]:
    found = list(card.facts.warnings) if card.facts else []
    parts = [("", measured)]
    if (targets := card.info.targets) is not None:
        columns = zip(targets.names, targets.evaluations, targets.classes)
        parts = [(f"{name}: ", of_evaluation(each, labels)) for name, each, labels in columns]
    for where, each in [(where, each) for where, part in parts if part for each in part.classes]:
        if each.recall is None:
            found.append(f"{where}class {each.label} was not measured: it has no evaluation row")
        elif each.recall < _WEAK:
            found.append(f"{where}class {each.label}: {each.right:,} of {each.support:,} rows were recognised")
    yield from found or ["the build found none"]


# --- Markdown -----------------------------------------------------------------------------------------------------
def _body(part: Section) -> Iterator[str]:
    if part.lines:
        yield "\n".join(f"- {_escaped(line)}" for line, _ in part.lines)
    for _, table in part.tables:
        heads = list(map(head, table.columns))
        lines = [[each.title for each in heads], ["--:" if each.right else "---" for each in heads]]
        lines += [[_escaped(each.text if isinstance(each, Cell) else each) for each in row] for row in table.rows]
        yield "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", clean(text).replace("&", "&amp;")).replace("<", "&lt;")
