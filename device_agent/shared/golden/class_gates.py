"""Gates on single classes: recall, and no worse than before.

A gate is a figure that a release must reach. The host applies the gates at build and to certificates, a device at every
activation, with the same code, from counts of rows. A message names each class that misses its gate, and by how much.
No I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from device_agent.shared.protocol.constants import counted
from device_agent.shared.protocol.documents import ReleaseRef
from device_agent.shared.protocol.model_info import Gates
from device_agent.shared.protocol.reports import ClassChange, Compared

#: Classes that one message names, at most.
_NAMED = 5


def failures(gates: Gates, classes: Sequence[str], support: Sequence[int], right: Sequence[int]) -> tuple[str, ...]:
    """Returns a message for each class gate that is missed; a class without evaluation rows misses its gate.

    Args:
        gates: the gates of the release.
        classes: the labels, as text.
        support: number of evaluation rows of each class.
        right: number of rows of each class with the right answer.
    """
    measured = (*_balanced(gates, support, right), *_recalls(gates, classes, support, right))
    return (*measured, *_unseen(gates, classes, support))


def _balanced(gates: Gates, support: Sequence[int], right: Sequence[int]) -> Iterator[str]:
    if gates.balanced_accuracy is None:
        return
    recalls = [found / rows for found, rows in zip(right, support) if rows]
    mean = sum(recalls) / len(recalls) if recalls else 0.0
    if mean < gates.balanced_accuracy:
        yield f"balanced accuracy: {mean:.6g} is below the gate of {gates.balanced_accuracy:g}"


def _recalls(gates: Gates, classes: Sequence[str], support: Sequence[int], right: Sequence[int]) -> Iterator[str]:
    floors = gates.recall or {}
    for label in floors:
        if label not in classes:
            yield f"recall of {label!r}: the gate is {floors[label]:g}, but the model has no such class"
    found = []
    for label, rows, count in zip(classes, support, right):
        floor = floors.get(label, gates.min_recall)
        if floor is None:
            continue
        if not rows:
            found.append((-1.0, f"recall of {label!r}: the gate is {floor:g}, but no evaluation row is of this class"))
        elif count / rows < floor:
            recall = count / rows
            text = f"recall of {label!r}: {recall:.6g} ({count} of {rows} rows) is below the gate of {floor:g}"
            found.append((recall, text))
    yield from (text for _, text in sorted(found)[:_NAMED])
    if len(found) > _NAMED:
        yield f"recall of {_more(len(found))} is below the gate or not measured"


def _unseen(gates: Gates, classes: Sequence[str], support: Sequence[int]) -> Iterator[str]:
    found = [label for label, rows in zip(classes, support) if not rows]
    if gates.not_worse_than and found:
        more = f", nor of {len(found) - 1} more" if len(found) > 1 else ""
        yield f"not worse than current: no evaluation row is of class {found[0]!r}{more}; use `split: stratified`"


def worse(gates: Gates, compared: Compared | None, running: ReleaseRef | None = None) -> tuple[str, ...]:
    """Returns a message for each failure of the gate `not_worse_than`; () without this gate or a running release.

    The gate fails for each class whose recall is lower than in the running release, by more than the gate allows, and
    for each class that is gone. It also fails if the releases cannot be compared: the running one takes other columns,
    or (`compared` is None) does not answer.
    """
    if gates.not_worse_than is None or (compared is None and running is None):
        return ()
    if compared is None:
        before = f"{running.name} {running.version}" if running else ""
        return (f"current release: {before} does not answer, so the new one cannot be compared with it",)
    if not compared.fits:
        before = f"{compared.name} {compared.version}"
        return (f"not worse than current: {before} takes other columns, so the two cannot be compared",)
    gone = [f"not worse than current: the class {label!r} no longer exists" for label in compared.gone]
    lower = [each for each in compared.classes if each.rows and each.before - each.after > gates.by * each.rows + 1e-9]
    lower.sort(key=lambda each: (each.after - each.before) / each.rows)
    found = (*gone, *map(_fall, lower))
    are = "is" if len(found) == _NAMED + 1 else "are"
    more = (f"not worse than current: {_more(len(found))} {are} worse",) if len(found) > _NAMED else ()
    return (*found[:_NAMED], *more)


def _more(number: int) -> str:
    return counted(number - _NAMED, "more class", "more classes")


def _fall(each: ClassChange) -> str:
    before, after = each.before / each.rows, each.after / each.rows
    counts = f"{each.before} to {each.after} of {each.rows} rows"
    return f"not worse than current: recall of {each.label!r} falls from {before:.6g} to {after:.6g} ({counts})"
