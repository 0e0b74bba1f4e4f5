"""Text about the classes and rows that a release changes.

The certificate of a device (its report of a golden check) and the plan of a dry run compare the release that the device
ran with the new one. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from device_agent.shared.console.lists import first_of
from device_agent.shared.golden.error_gates import described, described_columns
from device_agent.shared.protocol.reports import Certificate, ClassChange, Compared, Flip
from knnkit.evaluation import metrics
from knnkit.evaluation.metrics import percent
from knnkit.fleet.report import FleetReport
from knnkit.render.figures import lines
from knnkit.render.page import Section
from knnkit.render.sanitize import count
from knnkit.render.terminal import Cell, Column, Table, Tone

if TYPE_CHECKING:
    from knnkit.release.evaluation_rows import EvaluationRows  # numpy is for a release that is there

#: Returns the evaluation rows of a release by its digest; None where the host does not have it.
Rows = Callable[[str], "EvaluationRows | None"]
#: Classes and changes that one device's text names, at most.
_NAMED = 5
#: Classes that a table of the page shows, at most.
_SHOWN = 25


def no_rows(_: str) -> None:
    """Returns None for any digest: the default of parameters `rows`, for commands without evaluation rows."""


def evaluation_lines(report: FleetReport, rows: Rows = no_rows) -> list[tuple[str, Tone]]:
    """Returns (line, colour): what golden checks measured, how it changed, and which rows are wrong.

    Devices with equal figures share their lines. `rows` maps a release's digest to its evaluation rows.
    """
    found: list[tuple[str, Tone]] = []
    for names, proof in alike(report):
        figures = metrics.of_confusion(proof.confusion, proof.classes)
        who = names[0] if len(names) == 1 else f"{len(names):,} devices"
        found += [
            (f"{who}: {line}", "") for line in (lines(figures, most=3, accuracy=proof.accuracy) if figures else ())
        ]
        measured = described(proof.errors) or described_columns(proof.columns)
        found += [(f"{who}: {measured}", "")] if measured else []
        found += [(f"{who}: {line}", tone) for line, tone in change_lines(proof.compared)]
        found += [(f"{who}: {line}", "warn") for line in row_lines(proof, rows)]
    return found


def sections(report: FleetReport, rows: Rows = no_rows) -> tuple[Section, ...]:
    """Returns a section of the HTML report for each group of devices with the same figures and changes."""
    found = []
    for names, proof in alike(report):
        lines = (*change_lines(proof.compared)[:1], *((line, "bad") for line in row_lines(proof, rows)))
        tables = _tables(proof.compared, rows(proof.release)) if proof.compared and proof.compared.fits else ()
        if lines:
            found.append(Section(f"Before and after: {first_of(names)}", lines, tables))
    return tuple(found)


def _tables(compared: Compared, rows: EvaluationRows | None) -> tuple[tuple[str, Table], ...]:
    worst = sorted((each for each in compared.classes if each.rows > 0), key=lambda each: (_change(each), each.after))
    by_class = tuple(
        (
            each.label,
            f"{each.rows:,}",
            percent(each.before / each.rows),
            Cell(percent(each.after / each.rows), "bad" if each.after < each.before else ""),
        )
        for each in worst[:_SHOWN]
    )
    flips = tuple(
        (each.truth or "not known", each.before, each.after, f"{each.count:,}", _listed(each, rows))
        for each in compared.flips
    )
    more = f" (the {_SHOWN} classes that fall most, of {len(worst):,})" if len(worst) > _SHOWN else ""
    numbers = [Column(name, right=True) for name in ("rows", "recall before", "recall after")]
    decided = ("row", "truth", "before", "after", "neighbours that decide now")
    found = (
        (f"Recall by class{more}", Table(("class", *numbers), by_class)),
        ("Labels that change", Table(("truth", "before", "after", numbers[0], "which"), flips)),
        ("Rows whose label changes", Table(decided, tuple(_rows(compared, rows))[:_SHOWN])),
    )
    return tuple((heading, table) for heading, table in found if table.rows)


def _rows(compared: Compared, known: EvaluationRows | None) -> Iterator[tuple[str, ...]]:
    """Yields (row, true label, old answer, new answer, neighbours now) for each row of `known` whose answer changes."""
    for flip in compared.flips if known else ():
        for row in flip.rows:
            if known and 0 <= row < len(known.voters):
                yield known.origins.name(row), flip.truth or "not known", flip.before, flip.after, known.voters[row]


def _listed(flip: Flip, rows: EvaluationRows | None) -> str:
    return count(flip.count, "row") if rows is None else rows.listed(flip.rows, flip.count)


def alike(report: FleetReport) -> list[tuple[list[str], Certificate]]:
    """Returns (names of devices, certificate of the first) of each group whose golden checks have equal figures."""
    shared: dict[tuple[Any, ...], tuple[list[str], Certificate]] = {}
    for device in report.devices:
        proof = device.certificate
        if proof and (proof.confusion or proof.compared or proof.errors or proof.columns):
            key = (proof.release, proof.confusion, proof.classes, proof.compared, proof.errors, proof.columns)
            shared.setdefault(key, ([], proof))[0].append(device.name)
    return list(shared.values())


def change_lines(compared: Compared | None) -> list[tuple[str, Tone]]:
    """Returns (line "before -> after", colour): overall, then each class whose recall changed, largest loss first."""
    if compared is None:
        return []
    against = f"{compared.name} {compared.version}"
    if not compared.fits:
        return [(f"{against} takes other columns, so the new release cannot be compared with it", "warn")]
    measured = [each for each in compared.classes if each.rows > 0]
    changed = sorted((each for each in measured if each.before != each.after), key=_change)
    found: list[tuple[str, Tone]] = []
    if measured:
        found.append((f"{overall(measured)}, against {against}", "warn" if changed and _change(changed[0]) < 0 else ""))
    found += [(f"the class {label!r} of {against} no longer exists", "warn") for label in compared.gone[:_NAMED]]
    for each in changed:
        recall = f"{percent(each.before / each.rows)} -> {percent(each.after / each.rows)}"
        counts = f"{each.before:,} -> {each.after:,} of {each.rows:,} rows"
        found.append((f"class {each.label}: recall {recall} ({counts})", "warn" if each.after < each.before else ""))
    return found


def _change(each: ClassChange) -> float:
    return (each.after - each.before) / each.rows


def overall(measured: list[ClassChange]) -> str:
    """Returns a line: accuracy, balanced accuracy and worst class of the classes `measured`, each "before -> after"."""
    rows = sum(each.rows for each in measured)
    shares = [(each.before / each.rows, each.after / each.rows, each.label) for each in measured]
    accuracy = [sum(each.before for each in measured) / rows, sum(each.after for each in measured) / rows]
    balanced = [sum(column) / len(shares) for column in ([each[0] for each in shares], [each[1] for each in shares])]
    before, after = min(shares), min(shares, key=lambda share: (share[1], share[2]))
    return (
        f"accuracy {_pair(accuracy)} on {count(rows, 'golden row')}, balanced accuracy {_pair(balanced)}, "
        f"worst class {before[2]} {percent(before[0])} -> {after[2]} {percent(after[1])}"
    )


def _pair(values: list[float]) -> str:
    return " -> ".join(map(percent, values))


def row_lines(proof: Certificate, rows: Rows) -> Iterator[str]:
    """Yields lines with the rows that a golden check (`proof`) found wrongly answered, by class and answer.

    For a class that got worse, lists the rows that were right before; for another class that misses a gate, all its
    wrong rows. Yields nothing if `rows` gives None.
    """
    fallen = _fallen(proof.compared) if proof.compared else set()
    known = rows(proof.release) if fallen or proof.failures else None
    if known is None:
        return
    yield from flip_lines(proof.compared, known) if proof.compared else ()
    said = "; ".join(proof.failures)
    for label in [each for each in dict.fromkeys(known.truth) if each not in fallen and repr(each) in said][:_NAMED]:
        for answer, missed in known.missed(label)[:_NAMED]:
            yield f"class {label}, answered {answer}: {known.listed(missed)}"


def flip_lines(compared: Compared, known: EvaluationRows | None) -> Iterator[str]:
    """Yields, for each class that got worse, a line per wrong answer, with the rows whose answers were right before.

    `known` has the names of these rows; None: the line only counts them.
    """
    fallen = _fallen(compared)
    for flip in [each for each in compared.flips if each.before == each.truth and each.truth in fallen][:_NAMED]:
        yield f"class {flip.truth}, now answered {flip.after}: {_listed(flip, known)}"


def _fallen(compared: Compared) -> set[str]:
    return {each.label for each in compared.classes if each.after < each.before}
