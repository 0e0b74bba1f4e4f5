"""Finds classes with too few rows to win a vote.

Counts votes only; reads no rows. Each of k neighbours has one vote. If several classes have most votes, the first in
sorted order wins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from knnkit.model.reference.spec import KnnSpec

#: Most classes that one warning names.
_NAMED = 4


def find(spec: KnnSpec, classes: Sequence[int | str], counts: Sequence[int]) -> tuple[str, ...]:
    """Returns a warning that names classes with too few training rows to win any vote; () if none, or with weights.

    `counts` has the number of training rows of each class.
    """
    others = (spec.radius, spec.class_weight, spec.offset)
    if spec.weights != "uniform" or any(each is not None for each in others) or spec.k > sum(counts):
        return ()
    found = list(_outvoted(spec.k, counts))
    if not found:
        return ()
    named = [f"{classes[code]!r} has {counts[code]:,} of {least:,}" for code, least in found[:_NAMED]]
    more = f", and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
    said = f"no row can get these classes, as k: {spec.k} needs more training rows to win a vote"
    return (f"{spec.name}: {said}: {', '.join(named)}{more}; k: 1, weights: distance, or more rows",)


def _outvoted(k: int, counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yields (class index, number of rows with which it could win) of each class that never wins with its `counts`."""
    for code, rows in enumerate(counts):
        if rows and not _can_win(k, counts, code, min(rows, k)):
            yield code, next(votes for votes in range(rows + 1, k + 1) if _can_win(k, counts, code, votes))


def _can_win(k: int, counts: Sequence[int], code: int, votes: int) -> bool:
    """Whether class `code` wins with `votes` of k votes if others share the other votes as evenly as they can."""
    before = sum(min(count, votes - 1) for count in counts[:code])
    return k - votes <= before + sum(min(count, votes) for count in counts[code + 1 :])
