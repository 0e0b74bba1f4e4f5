"""Divides a fleet into waves; decides when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from knnkit.fleet.report import DeviceReport, Outcome
from knnkit.fleet.targets import Target


@dataclass(frozen=True)
class Wave:
    """Devices that get the release together; `label` is the wave's entry in `waves` of deploy.yaml."""

    label: str
    devices: tuple[str, ...]


def is_tag(wave: int | str) -> bool:
    """Whether a wave is a tag, not a percentage or a count."""
    return isinstance(wave, str) and not wave.endswith("%")


def divide(targets: Sequence[Target], waves: Sequence[int | str]) -> tuple[tuple[Wave, ...], tuple[str, ...]]:
    """Divides devices into waves; a wave keeps the order of `targets`.

    A tag includes all devices that have it. A percentage or a count is cumulative: it counts the devices of the whole
    fleet, those of earlier waves included. Waves without devices are left out.

    Returns:
        The waves, and the names of the devices that are in no wave.
    """
    left = list(targets)
    found: list[Wave] = []
    for label in waves:
        if is_tag(label):
            chosen = [target for target in left if label in target.tags]
        else:
            upto = _amount(label, len(targets), math.ceil)
            chosen = left[: max(0, upto - (len(targets) - len(left)))]
        if chosen:
            found.append(Wave(str(label), tuple(target.name for target in chosen)))
            left = [target for target in left if target not in chosen]
    return tuple(found), tuple(target.name for target in left)


def allowed(max_failures: int | str, total: int) -> int:
    """Returns how many of `total` devices may fail; `max_failures` is a number or a percentage, rounded down."""
    return _amount(max_failures, total, math.floor)


def _amount(said: int | str, total: int, rounded: Callable[[float], int]) -> int:
    if isinstance(said, int):
        return min(said, total)
    return rounded(round(float(said.rstrip("%")) / 100.0 * total, 6))


def overspent(done: Sequence[DeviceReport], budget: int, *, proving: bool) -> str:
    """Returns why a rollout must not begin another device; "" if it may.

    `done` are the reports of finished devices, `budget` is how many may fail. `proving`: this is the first of several
    waves, in which none may fail.
    """
    failed = [report for report in done if report.failed]
    if proving and failed:
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        return f"{failed[0].name}{more} failed in the first wave"
    if len(failed) > budget:
        return f"{len(failed)} device{'s' if len(failed) > 1 else ''} failed; {budget or 'none'} may fail"
    return ""


def unproven(wave: Sequence[DeviceReport]) -> str:
    """Returns why the second wave must not begin: no device of the first (`wave`) runs the release; "" if one does."""
    if any(report.outcome in (Outcome.COMMITTED, Outcome.UNCHANGED) for report in wave):
        return ""
    return "no device of the first wave runs the release, so the wave proves nothing"
