"""Figures of a classifier as text: overall, then by class."""

from __future__ import annotations

from device_agent.shared.golden.error_gates import described
from device_agent.shared.protocol.model_info import KnnInfo, LabelSets, Reject
from knnkit.evaluation.metrics import Figures, of_evaluation, percent
from knnkit.render.sanitize import count


def lines(figures: Figures, how: str = "", most: int = 10, accuracy: float | None = None) -> list[str]:
    """Returns figures as lines: overall, then the `most` worst classes. `how`: text about the split; "": not shown.

    `accuracy` is that of a certificate. If it differs from the one in `figures`, golden rows were drawn by class, and
    say nothing about precision and coverage.
    """
    low, high = figures.interval
    rows = count(figures.rows, "held-out row")
    if figures.of is not None:
        rows = f"{figures.rows:,} of {figures.of:,} held-out rows, drawn at random"
    found = [
        f"accuracy {percent(figures.accuracy)} on {rows}{f' ({how})' if how else ''}, "
        f"95 % interval {percent(low)} to {percent(high)}; balanced accuracy {percent(figures.balanced_accuracy)}"
    ]
    by_class = accuracy is not None and abs(accuracy - figures.accuracy) > 1e-9
    if by_class:
        rows = f"{figures.rows:,} golden rows, each class by its share of all held-out rows"
        found = [f"accuracy {percent(accuracy)} on {rows}; balanced accuracy {percent(figures.balanced_accuracy)}"]
    if figures.answered < figures.rows:
        right = "" if figures.answered_accuracy is None else f", {percent(figures.answered_accuracy)} of them right"
        shares = "" if by_class else f" ({percent(figures.coverage)}){right}"
        found.append(f"answered {figures.answered:,} of {figures.rows:,} rows{shares}")
    for each in figures.classes[:most]:
        recall = f"recall {percent(each.recall)} ({each.right:,} of {count(each.support, 'row')})"
        precision = f", precision {percent(each.precision)}" if each.answered and not by_class else ""
        found.append(f"class {each.label}: {recall if each.support else 'not measured (no held-out row)'}{precision}")
    if others := figures.classes[most:]:
        least, lost = others[0].recall, sum(each.recall is None for each in others)
        better = "not measured" if least is None else f"recall {percent(least)}{' or more' if least < 1 else ''}"
        better += f", {lost:,} of them not measured" if 0 < lost < len(others) else ""
        found.append(f"the other {f'{len(others):,} classes' if len(others) > 1 else 'class'}: {better}")
    return found


def answers_of(info: KnnInfo) -> str:
    """Returns what a model answers as text: `3 classes`, `labels species, health`, or `targets east, north`."""
    if info.targets is None:
        return count(len(info.classes), "class", "classes")
    what = "label" if info.targets.classes else "target"
    return f"{what}{'s' * (len(info.targets.names) > 1)} {', '.join(info.targets.names)}"


def lines_of(info: KnnInfo) -> list[str]:
    """Returns lines of text with the figures that the build measured; [] if it measured nothing."""
    figures = of_evaluation(info.evaluation, info.classes)
    found = lines(figures, info.evaluation.how) if figures and info.evaluation else []
    if info.targets is not None and info.targets.errors:
        found.append(f"{described(info.targets.errors, info.targets.of)} ({info.targets.how})")
    if info.targets is not None:
        for name, each, labels in zip(info.targets.names, info.targets.evaluations, info.targets.classes):
            figures = of_evaluation(each, labels)
            found += [f"{name}: {line}" for line in lines(figures, each.how, most=3)] if figures else []
    return found + sets_lines(info)


def sets_lines(info: KnnInfo) -> list[str]:
    """Returns a line for each coverage (promised share of label sets with the true label); [] without label sets."""
    return [_sets_line(each, info.classes) for each in info.label_sets or ()]


def accepted(reject: Reject) -> str:
    """Returns what share of rows gets a label, overall and by class: `99.00 % of ordinary rows, 90.00 % of fault`."""
    own = "".join(f", {percent(share)} of {label}" for label, share in (reject.by_class or {}).items())
    return f"{percent(reject.acceptance)} of ordinary rows{own}"


def _sets_line(sets: LabelSets, classes: tuple[int | str, ...]) -> str:
    """Returns a line: how often label sets hold the right label of held-out rows, overall and for the worst class."""
    measured = [(held / rows, rows, label) for held, rows, label in zip(sets.covered, sets.rows, classes) if rows]
    if not measured:
        return f"label sets with coverage {percent(sets.coverage)}, not measured"
    share, rows, label = min(measured, key=lambda each: each[0])
    held, total = percent(sum(sets.covered) / sum(sets.rows)), count(sum(sets.rows), "held-out row")
    return (
        f"label sets with coverage {percent(sets.coverage)}: they hold the right label for {held} of {total}, least "
        f"often for class {label} ({percent(share)} of {rows:,}); {sets.size or 0.0:.2f} labels in a set on average"
    )
