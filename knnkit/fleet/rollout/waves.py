"""Who goes when, and when to stop: waves and the failure budget. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from knnkit.fleet.report import FAILURES, DeviceReport, Outcome
from knnkit.fleet.targets import Target


@dataclass(frozen=True)
class Wave:
    """Devices that go together; `label` as deploy.yaml writes it."""

    label: str
    devices: tuple[str, ...]


def is_tag(wave: int | str) -> bool:
    """Whether a wave takes the devices with a tag, and not a share of them or a count."""
    return isinstance(wave, str) and not wave.endswith("%")


def divide(targets: Sequence[Target], waves: Sequence[int | str]) -> tuple[tuple[Wave, ...], tuple[str, ...]]:
    """Divides devices into waves, in their order.

    A tag takes the devices that have it; a percentage or a count is of the whole fleet so far, those that went before
    included. Waves without devices are left out.

    Returns:
        The waves, and the devices that no wave takes.
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
    """Returns how many of `total` devices may fail."""
    return _amount(max_failures, total, math.floor)


def _amount(said: int | str, total: int, rounded: Callable[[float], int]) -> int:
    if isinstance(said, int):
        return min(said, total)
    return rounded(round(float(said.rstrip("%")) / 100.0 * total, 6))


def overspent(done: Sequence[DeviceReport], budget: int, *, proving: bool) -> str:
    """Returns why a rollout must begin nothing new, or an empty string; asked after every device.

    Args:
        done: all devices that are finished.
        budget: failures that are tolerated.
        proving: whether this is the first of several waves: it must be flawless.
    """
    failed = [report for report in done if report.outcome in FAILURES]
    if proving and failed:
        return f"{failed[0].name} failed in the first wave"
    if len(failed) > budget:
        return f"{len(failed)} device{'s' if len(failed) > 1 else ''} failed; {budget or 'none'} may"
    return ""


def unproven(wave: Sequence[DeviceReport]) -> str:
    """Returns why the wave after the first must not begin, or an empty string; asked when the first has ended."""
    if any(report.outcome in (Outcome.COMMITTED, Outcome.UNCHANGED) for report in wave):
        return ""
    return "no device of the first wave runs the release: it proves nothing"
