"""Teaches rows: checks what a release allows, then stores.

Checks and writes in one step, while it holds the lock of the journal (the file of taught rows). Nothing is changed if a
check fails.
"""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from device_agent.enrolment import golden_answers, local
from device_agent.enrolment.joined import JoinedExact, JoinedKNN
from device_agent.enrolment.journal import FORGET_SOME, Journal
from device_agent.serving import last_rows, taught_rows
from device_agent.serving.load import Loaded, answering, load_accepted
from device_agent.serving.rows import Request
from device_agent.shared.console.lists import listed
from device_agent.shared.console.root_hints import with_root_of
from device_agent.shared.enrolment import enrolled
from device_agent.shared.enrolment.enrolled import LocalRow
from device_agent.shared.enrolment.joined import Joined
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.documents import Taught
from device_agent.shared.protocol.errors import AgentError, BadInput, Refused
from device_agent.shared.protocol.model_info import Enrol, KnnInfo
from device_agent.shared.protocol.record import record, replace
from device_agent.shared.raw_rows import own_golden
from device_agent.store.store import Store
from device_agent.system import clock

_MAX_LABEL = 256
_ASKED = 64  # taught rows of the label, the last ones, that the model answers after `enrol`
_LIST, _UNDO = "python -m device_agent enrolled", "python -m device_agent undo"


@record
class Meaning:
    """What the taught rows mean: a label; or for a regression, values as the user typed them (`3.5`, `height=3.5`)."""

    label: str | None = None
    values: tuple[str, ...] = ()


def teach(store: Store, meaning: Meaning, request: Request, holder: str, last: int | None = None) -> Taught:
    """Teaches all rows of the input of `request`, or the `last` rows that a stream answered, with this `meaning`.

    `holder` names who teaches, for others who find the journal locked.

    Raises:
        Refused: the release does not allow these rows.
        BadInput: a row or the label cannot be read.
        AgentError, DeviceUnfit: the journal is locked, full or damaged, or no release answers.
    """
    loaded = load_accepted(store, answering(store).release, request.runtime)
    try:
        allowed = _allowed(loaded, store)
        label, values = _read(loaded.signed.info, meaning, allowed)
        if last is None:
            cells = taught_rows.read(loaded, request, allowed.rows)
        else:
            cells = taught_rows.cells_of(last_rows.read(store.root, loaded.signed.info, last), loaded.signed.info)
            if any(None in row for row in cells):
                said = "--last: a row has a category that the model does not have, and a stream does not store its text"
                raise BadInput(said, reason="no-rows", hint="give the rows with --input FILE")
        with Journal(store.root).changing(holder) as journal:
            _require_plain(cells, loaded.signed.info.columns)
            before = journal.taught.rows()
            classes, taught = loaded.signed.info.classes, [row.label for row in before]
            if not values:
                label = enrolled.label_of(str(label), classes, taught) or label
            rows = _made(loaded, label, values, cells)
            missed = _check(loaded, before, rows, allowed)
            journal.enrol(rows)
            if missed:
                _warn(missed)
            _warn_of_alike(store, label, [*classes, *taught])
            _warn_of_equal(store, before, rows)
            return replace(_document("enrol", [row.id for row in rows], journal), label=str(label))
    finally:
        loaded.close()


def forget(
    store: Store, holder: str, *, label: str | None, ids: Sequence[str], last: int | None, erase: bool
) -> Taught:
    """Forgets the taught rows with this `label` (None: any) and one of these `ids` ((): any).

    Of these rows, forgets only the last `last` (None: all). With `erase`, all rows forgotten so far are also erased
    from the journal, so that nothing can be undone. `holder` names who does it, for others who find the journal locked.

    Raises:
        AgentError: a row of `ids` is not among the rows to forget; or no row is to be forgotten, and `erase` is False.
        DeviceUnfit: the journal is damaged.
    """
    with Journal(store.root).changing(holder) as journal:
        rows = journal.taught.rows()
        meant = None if label is None else enrolled.text_of(label)
        found = [row.id for row in rows if meant in (None, enrolled.text_of(row.label)) and (not ids or row.id in ids)]
        found = found if last is None else found[-last:]
        strange = sorted(set(ids) - set(found))
        if strange or not (found or erase):
            which = f"no taught row has the id {strange[0]}" if strange else "no taught row matches the options"
            near = None if meant is None or strange else enrolled.alike(meant, (row.label for row in rows))
            hint = _LIST if near is None else f"did you mean --label {shlex.quote(str(near))}?"
            raise AgentError(which, reason="not-enrolled", hint=hint)
        if found:
            journal.forget(found)
        if erase:
            journal.erase()
        return _document("forget", found, journal)


def _warn_of_alike(store: Store, label: int | str, known: Sequence[int | str]) -> None:
    near = None if label in known else enrolled.alike(label, known)
    if near is not None:
        said = f"the label {label} is new, and differs only {enrolled.difference(label, near)} from {near}"
        _warn(f"{said}; if both mean one class: {with_root_of(_UNDO, store.root)}")


def _warn_of_equal(store: Store, before: Sequence[LocalRow], rows: Sequence[LocalRow]) -> None:
    known = {(row.label, row.row) for row in before}
    if again := sum((row.label, row.row) in known for row in rows):
        said = f"{again:,} of {constants.counted(len(rows), 'row')} had been taught before with this label"
        _warn(f"{said}, and now vote{'s' * (again == 1)} twice; {with_root_of(_UNDO, store.root)}")


def _warn(said: str) -> None:
    print(f"device_agent: warning: {said}", file=sys.stderr, flush=True)


def undo(store: Store, holder: str) -> Taught:
    """Undoes the last `enrol` or `forget` that is still in effect; `holder` names who does it, for the journal's lock.

    Raises:
        AgentError: there is nothing to undo.
        DeviceUnfit: the journal is damaged.
    """
    with Journal(store.root).changing(holder) as journal:
        what, ids = journal.undo()
        return _document(f"undo {what}", ids, journal)


def taking_part(store: Store, rows: list[LocalRow]) -> frozenset[str]:
    """Returns the ids of the taught rows that the current release uses; an empty set if no release answers."""
    try:
        loaded = load_accepted(store, answering(store).release)
    except AgentError:
        return frozenset()
    try:
        return frozenset(loaded.taught.ids if loaded.taught else ())
    finally:
        loaded.close()


def _allowed(loaded: Loaded, store: Store) -> Enrol:
    allowed, release = loaded.signed.info.enrol, loaded.verdict.ref
    if allowed is None:
        said = f"the release {release.name} {release.version} in {store.root} does not allow rows to be taught"
        hint = "enrol: {rows: 500} under model: in deploy.yaml, then: knnkit deploy; or --root DIR for another folder"
        raise Refused(said, reason="enrol-not-allowed", hint=hint)
    return allowed


def _read(info: KnnInfo, meaning: Meaning, allowed: Enrol) -> tuple[int | str, tuple[float, ...]]:
    """Returns what `meaning` says: ("anna", ()); for a regression, text and numbers: ("a=1, b=2", (1.0, 2.0)).

    Raises Refused if the label is new and `allowed` forbids that, BadInput if `meaning` cannot be read.
    """
    if info.targets is None:
        if meaning.label is None:
            raise BadInput("--value: the model answers labels, not values", hint=_option("--label", meaning.values[0]))
        return _label(info, meaning.label, allowed), ()
    names, sign = info.targets.names, info.table.thousands if info.table else ""
    if not meaning.values:
        raise BadInput(
            "--label: the model answers values, not labels", hint=_value_hint(names, meaning.label, sign=sign)
        )
    pairs = [text.rpartition("=")[::2] for text in meaning.values]
    hint = _value_hint(names, *(value for _, value in pairs), sign=sign)
    found = dict(pairs) if len(names) > 1 else {name or names[0]: value for name, value in pairs}
    if found.keys() != set(names) or len(pairs) != len(names):
        said = f"--value {' --value '.join(meaning.values)}: give one value of each target: {', '.join(names)}"
        raise BadInput(said, hint=hint)
    numbers = tuple(_number(found[name], hint, sign) for name in names)
    return ", ".join(
        f"{value:.17g}" if len(names) == 1 else f"{n}={value:.17g}" for n, value in zip(names, numbers)
    ), numbers


def _number(text: str, hint: str, sign: str) -> float:
    value = _finite(text, sign)
    if value is None:
        why = f"; {sign!r} separates thousands, as in the rows of this model" if sign and sign in text else ""
        raise BadInput(f"--value {text[:40]}: not a finite number{why}", hint=hint)
    return value


def _finite(text: str, sign: str = "") -> float | None:
    """Returns a finite number; with a `sign` between thousands, `1.234,5` is read as in a row. None for other texts."""
    if sign:
        from device_agent.shared.features.cells import without_thousands

        text = without_thousands(text.strip(), sign) or ""
        text = text.replace(",", ".") if sign == "." else text
    try:
        value = math.nan if "_" in text or not text.isascii() else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _value_hint(names: Sequence[str], *typed: str | None, sign: str = "") -> str:
    """Returns the options to type, such as `--value a=2 --value b=3.5`: numbers in `typed`, else 3.5 as an example."""
    example = "3,5" if sign == "." else "3.5"
    values = [example if text is None or _finite(text, sign) is None else text for text in (*typed, *names)]
    texts = values[:1] if len(names) == 1 else [f"{name}={value}" for name, value in zip(names, values)]
    return " ".join(_option("--value", text) for text in texts)


def _option(option: str, value: str) -> str:
    return shlex.quote(f"{option}={value}") if value.startswith("-") else f"{option} {shlex.quote(value)}"


def _label(info: KnnInfo, text: str, allowed: Enrol) -> int | str:
    if not (text and text == text.strip() and text.isprintable() and len(text) <= _MAX_LABEL):
        said = f"--label: {text[:40]!r} is not plain text on one line, of at most {_MAX_LABEL} characters"
        raise BadInput(said, hint="--label NAME")
    found = enrolled.label_of(text, info.classes)
    if found is None:
        value = _finite(text)
        meant = int(value) if value is not None and value.is_integer() and abs(value) < 2**53 else info.classes[0]
        raise BadInput(
            f"--label {text}: the labels of the model are whole numbers", hint=_option("--label", str(meant))
        )
    if text == constants.UNKNOWN_LABEL:
        raise BadInput("--label unknown: that is the answer for rejected rows", hint="--label NAME")
    if found not in info.classes and not allowed.new_labels:
        known = listed([*map(str, info.classes)], 6)
        hint = f"--label with one of: {known}; or enrol: {{new_labels: true}} in deploy.yaml"
        said = f"the release has no label {text}, and does not allow new labels"
        raise Refused(said, reason="label-not-allowed", hint=hint)
    return found


def _require_plain(rows: Sequence[taught_rows.Cells], columns: Sequence[str]) -> None:
    """Raises BadInput for a cell whose text `knnkit collect` would refuse; `columns` are the names of the cells."""
    for row in rows:
        for name, cell in zip(columns, row):
            if isinstance(cell, str) and not enrolled.is_plain(cell):
                said = (
                    f"{name}: {cell[:40]!r} is not plain text on one line, of at most {enrolled.MOST_TEXT:,} characters"
                )
                raise BadInput(said, hint="correct that cell, or leave that row out")


def _made(
    loaded: Loaded, label: int | str, values: tuple[float, ...], cells: Sequence[taught_rows.Cells]
) -> list[LocalRow]:
    now, columns = clock.now().wall, enrolled.fingerprint(loaded.signed.info)
    rows = [LocalRow("", label, now, row, loaded.digest, columns, os.urandom(8).hex(), values) for row in cells]
    return [replace(row, id=enrolled.id_of(row)) for row in rows]


def _check(loaded: Loaded, before: list[LocalRow], rows: list[LocalRow], allowed: Enrol) -> str:
    """Checks that the release allows `rows` in addition to those taught `before`; `allowed` are its limits.

    Returns a warning if the model still answers taught rows of the label of `rows` with another label; else "".
    """
    signed = loaded.signed
    old = local.taking_part(signed, before, loaded.digest)
    _require_room(Counter(map(enrolled.counted_as, (*old.rows, *rows))), allowed, rows)
    new = local.taking_part(signed, [*before, *rows], loaded.digest)
    exact = JoinedExact(signed.path, signed.info, new)
    used = {row.id for row, kept in zip(new.rows, exact.kept) if kept}
    lost = next((number for number, row in enumerate(rows, 1) if row.id not in used), None)
    if lost is not None:
        raise BadInput(f"row {lost} is out of the range of float32 in the model", hint="leave that row out")
    if not allowed.may_override:
        _require_golden_answers(loaded, exact, old)
    return "" if rows[0].values else _missed(JoinedKNN(signed, new, exact), new)


def _missed(model: JoinedKNN, new: Joined) -> str:
    info, code = model.info, int(new.codes[-1])
    alike = np.flatnonzero(model.exact.kept & (new.codes == code))
    found = model.labels(new.features[alike[-_ASKED:]])
    wrong = found[found != code]
    if not len(wrong):
        return ""
    of = f"of {'the last ' if len(alike) > len(found) else ''}{constants.counted(len(found), 'taught row')}"
    answers = ", ".join(_answer(info, each) for each in np.unique(wrong))
    said = f"{len(wrong)} {of} of {info.classes[code]} {'is' if len(wrong) == 1 else 'are'} still answered {answers}"
    k = info.k
    need = f"k {k}, at least {k // 2 + 1}" if info.reject is None else f"k {k} and `reject`, at least {k}"
    enough = f" (with {need}, better {2 * k})" if len(alike) < 2 * k else ""
    return f"{said}: teach more rows of it{enough}"


def _require_room(counts: Counter[str], allowed: Enrol, rows: Sequence[LocalRow]) -> None:
    most, total, label = allowed.per_label, counts.total(), enrolled.counted_as(rows[0])
    if total > allowed.rows:
        said = f"there would be {constants.counted(total, 'taught row')}; the release allows {allowed.rows:,}"
    elif most is not None and counts[label] > most:
        there = constants.counted(counts[label], "taught row")
        said = f"there would be {there} of {label}; the release allows {most:,}"
    else:
        return
    alone = len(rows) > min(allowed.rows, most or allowed.rows)  # to forget others is not enough
    raise Refused(said, reason="enrol-full", hint="teach fewer rows" if alone else FORGET_SOME)


def _require_golden_answers(loaded: Loaded, exact: JoinedExact, old: Joined) -> None:
    """Checks that new taught rows change no answer to a golden row.

    `exact` has all taught rows, `old` those of earlier commands. Answers that `old` has changed already may differ.
    """
    signed, info = loaded.signed, exact.info
    golden = own_golden(Golden.from_bytes(loaded.opened.read(constants.GOLDEN_FILE)), signed.info)
    found = golden_answers.with_taught(exact, golden)
    changed = set(golden_answers.changed(found, golden, info))
    if changed and old.rows:
        earlier = golden_answers.with_taught(JoinedExact(signed.path, signed.info, old), golden)
        changed -= set(golden_answers.changed(earlier, golden, info))
    if changed:
        row = min(changed)
        before = _answer(info, (golden.label if golden.values is None else golden.values)[row])
        said = f"golden row {row} would be answered {_answer(info, found[row])} instead of {before}"
        more = f", and {len(changed) - 1} more would change" if len(changed) > 1 else ""
        hint = "teach rows that differ more from the others; or enrol: {may_override: true} in deploy.yaml"
        raise Refused(f"{said}{more}; the release does not allow that", reason="row-overrides", hint=hint)


def _answer(info: KnnInfo, found: Any) -> str:
    if info.targets is not None:
        return ", ".join(f"{value:.6g}" for value in found.tolist())
    return str([*info.classes, constants.UNKNOWN_LABEL][found])


def _document(did: str, ids: Sequence[str], journal: Journal) -> Taught:
    rows = journal.taught.rows()
    return Taught(did, tuple(ids), len(rows), enrolled.counts(rows), enrolled.digest_of(rows))
