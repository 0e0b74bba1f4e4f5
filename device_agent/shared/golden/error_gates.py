"""Messages about missed gates on values, label columns and stages.

Device and host apply these gates with this code. No I/O, and no NumPy, so that commands that only show errors start
fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from device_agent.shared.protocol.constants import counted, percent
from device_agent.shared.protocol.model_info import DEFAULT, Gates, TargetError, Targets
from device_agent.shared.protocol.reports import ColumnScore, EmbeddingCheck


def missed(gates: Gates, found: Sequence[TargetError], names: Sequence[str]) -> Iterator[str]:
    """Yields a message for each gate missed; `found` has the errors of each target, `names` are the model's targets."""
    for gate, limits in (("rmse", gates.rmse), ("max_error", gates.max_error)):
        for target in sorted((limits or {}).keys() - {DEFAULT, *names}):
            yield f"{gate} of {target!r}: the model has no such target"
        if limits and not found:
            yield f"{gate}: there is a gate, but no evaluation row has known targets"
        for each in found:
            limit, value = (limits or {}).get(each.target, (limits or {}).get(DEFAULT)), getattr(each, gate)
            if limit is not None and value > limit:
                yield f"{gate} of {each.target!r}: {value:.6g} is above the gate of {limit:g}"


def missed_columns(gates: Gates, found: Sequence[ColumnScore], names: Sequence[str]) -> Iterator[str]:
    """Yields a message for each gate missed; `found` has the accuracy of each label column, `names` are the columns."""
    limits = gates.column_accuracy or {}
    for column in sorted(limits.keys() - {DEFAULT, *names}):
        yield f"accuracy of {column!r}: the model has no such label column"
    if limits and not found:
        yield "accuracy: there is a gate, but no evaluation row has known labels"
    for each in found:
        limit = limits.get(each.column, limits.get(DEFAULT))
        if limit is not None and each.right < limit * each.rows:
            yield f"accuracy of {each.column!r}: {each.right / each.rows:.6g} is below the gate of {limit:g}"


def scores_of(targets: Targets) -> tuple[ColumnScore, ...]:
    """Returns the accuracy of each label column on the held-out rows; () if nothing was measured."""
    counts = ((each.rows, sum(each.right)) for each in targets.evaluations)
    return tuple(ColumnScore(name, *count) for name, count in zip(targets.names, counts))


def described_columns(found: Sequence[ColumnScore]) -> str:
    """Returns the accuracies `found`, one for each label column, as one line of text; "" if there are none."""
    parts = [f"{each.column} {percent(each.right / each.rows)}" for each in found]
    return f"accuracy of {', '.join(parts)} on {counted(found[0].rows, 'row')}" if found else ""


def described(found: Sequence[TargetError], of: int | None = None) -> str:
    """Returns the errors `found`, one for each target, as one line of text; "" if there are none.

    `of` is the number of held-out rows if only some of them, drawn at random, were evaluated.
    """
    parts = [f"{each.target} {each.rmse:.4g} (largest {each.max_error:.4g})" for each in found]
    if not found:
        return ""
    rows = found[0].rows
    drawn = counted(rows, "row") if of is None else f"{rows:,} of {of:,} held-out rows, drawn at random"
    return f"rmse of {', '.join(parts)} on {drawn}"


def stage_failures(found: EmbeddingCheck) -> tuple[str, ...]:
    """Returns a message for each fault in `found`, the check of the rows that a device computed from raw inputs."""
    said = []
    if found.above:
        error = f"the largest error is {found.largest_error:.3g}, the bound {found.bound:g}"
        said.append(f"embedding: {found.above} of {found.rows} rows are too far from the host's: {error}")
    if found.search_different:
        said.append(f"embedding: the search is not exact on {found.search_different} of {found.rows} rows")
    if found.labels_different:
        count = f"{found.labels_different} of {found.rows}"
        said.append(f"embedding: {count} labels differ, which rounding does not explain")
    return tuple(said)
