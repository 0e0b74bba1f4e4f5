"""Report page as plain values: bars, lanes, tiles, ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from device_agent.shared.console.lists import first_of
from device_agent.shared.protocol.documents import ReleaseRef
from device_agent.shared.protocol.model_info import Gates
from device_agent.shared.protocol.reports import Certificate
from knnkit.evaluation.metrics import percent
from knnkit.fleet.report import DeviceReport, Outcome, Step
from knnkit.render.sanitize import count, milliseconds
from knnkit.render.terminal import Table, Tone

if TYPE_CHECKING:
    from knnkit.render.decision_regions import Regions  # numpy is for a page that is drawn

#: Ticks of a plot's horizontal axis: position in percent of the width, and text.
Axis: TypeAlias = tuple[tuple[float, str], ...]
#: Most devices in a plot; of more, the worst are shown.
PLOTTED = 40
#: Most figures of targets or label columns in one cell of a table.
_FIGURES = 3
_SHORTEST_MS, _LONGEST_MS = 1e-6, 1e9
TONES: dict[Outcome, Tone] = {
    Outcome.COMMITTED: "good",
    Outcome.UNCHANGED: "good",
    Outcome.ANSWERED: "good",
    Outcome.UNREACHABLE: "warn",
    Outcome.LOCKED: "warn",
    Outcome.FAILED: "bad",
    Outcome.ROLLED_BACK: "bad",
    Outcome.SKIPPED: "dim",
}


@dataclass(frozen=True)
class Page:
    """Content of a report page. `classes`: labels in the order of the confusion matrices; `started`: Unix time."""

    title: str
    verdict: str
    tone: Tone
    devices: tuple[DeviceReport, ...]
    release: ReleaseRef | None = None
    gates: Gates | None = None
    classes: tuple[str, ...] = ()
    regions: Regions | None = None
    regions_from: str = ""
    started: float | None = None
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    cards: tuple[Section, ...] = ()  # of the releases, at the end


@dataclass(frozen=True)
class Section:
    """A part of a page: lines of text, then tables; each table has a heading, which may be empty."""

    title: str
    lines: tuple[tuple[str, Tone], ...] = ()
    tables: tuple[tuple[str, Table], ...] = ()


@dataclass(frozen=True)
class Tile:
    """One number at the top of the page, with its label."""

    value: str
    label: str
    tone: Tone = ""


@dataclass(frozen=True)
class Bar:
    """A bar in a plot: `left` edge and `width` in percent of the plot's width."""

    kind: str
    left: float
    width: float
    title: str


@dataclass(frozen=True)
class Lane:
    """The line of one device in a plot, with its bars."""

    name: str
    bars: tuple[Bar, ...]
    note: str


def device_tone(device: DeviceReport) -> Tone:
    """Returns the tone (colour) of one device: that of its outcome, but bad if it misses a gate."""
    return "bad" if TONES[device.outcome] == "good" and not device.good else TONES[device.outcome]


def release_text(ref: ReleaseRef | None) -> str:
    """Returns a release as `name version (digest)`; "-" for None."""
    return f"{ref.name} {ref.version} ({ref.digest[:8]})" if ref else "-"


def checked(device: DeviceReport) -> str:
    """Returns name, version and digest of the release that the device's golden check is about; "-" without a check."""
    proof = device.certificate
    return f"{proof.name} {proof.version} ({proof.release[:8]})" if proof else "-"


def score(proof: Certificate) -> str:
    """Returns what a golden check measured, short: the accuracy, that of each label column, or each target's rmse."""
    if proof.errors:
        return f"rmse {first_of([f'{each.rmse:.4g}' for each in proof.errors], _FIGURES)}"
    return first_of([percent(each.right / each.rows) for each in proof.columns], _FIGURES) or percent(proof.accuracy)


def certified(page: Page) -> list[DeviceReport]:
    """Returns the devices that have a certificate, the result of a golden check."""
    return [device for device in page.devices if device.certificate is not None]


def tiles(page: Page) -> list[Tile]:
    """Returns the numbers at the top of the page: devices by outcome, golden rows by verdict, accuracy."""
    outcomes: dict[str, tuple[int, Tone]] = {}
    for device in page.devices:
        outcomes[device.word] = (outcomes.get(device.word, (0, ""))[0] + 1, device_tone(device))
    found = [Tile(f"{number:,}", outcome, tone) for outcome, (number, tone) in outcomes.items()]
    proofs = [device.certificate for device in page.devices if device.certificate is not None]
    if not proofs:
        return found
    found.append(Tile(f"{sum(proof.identical for proof in proofs):,}", "rows identical", "good"))
    found.append(Tile(f"{sum(proof.equivalent for proof in proofs):,}", "rows equivalent"))
    different = sum(proof.different for proof in proofs)
    found.append(Tile(f"{different:,}", "rows different", "bad" if different else ""))
    accuracies = [proof.accuracy for proof in proofs if proof.accuracy is not None]
    if accuracies:
        low, high = percent(min(accuracies)), percent(max(accuracies))
        found.append(Tile(high if low == high else f"{low.removesuffix(' %')}–{high}", "accuracy"))
    return found


def _worst(devices: Sequence[DeviceReport]) -> list[DeviceReport]:
    def rank(device: DeviceReport) -> tuple[int, int, float]:
        proof = device.certificate
        missed = len(proof.failures) if proof else 0
        slow = proof.latency.p99_ms if proof and proof.latency else 0.0
        return -missed, -(proof.different if proof else 0), -slow

    if len(devices) <= PLOTTED:
        return list(devices)
    kept = set(sorted(range(len(devices)), key=lambda index: rank(devices[index]))[:PLOTTED])
    return [device for index, device in enumerate(devices) if index in kept]


def parity_lanes(page: Page) -> list[Lane]:
    """Returns a lane for each device with a certificate (the worst, if there are many).

    Its bars are the identical, equivalent and different golden rows, wide enough to see.
    """
    lanes = []
    for device in _worst(certified(page)):
        proof = device.certificate
        assert proof is not None
        counts = {"identical": proof.identical, "equivalent": proof.equivalent, "different": proof.different}
        total = sum(counts.values()) or 1
        widths = {kind: max(number / total * 100, 1.0) if number else 0.0 for kind, number in counts.items()}
        scale = 100 / (sum(widths.values()) or 1)
        bars, left = [], 0.0
        for kind, number in counts.items():
            if number:
                bars.append(Bar(kind, round(left, 2), round(widths[kind] * scale, 2), f"{count(number, 'row')} {kind}"))
                left += widths[kind] * scale
        lanes.append(Lane(device.name, tuple(bars), " / ".join(f"{number:,}" for number in counts.values())))
    return lanes


def latency_plot(page: Page) -> tuple[list[Lane], Axis, float | None] | None:
    """Returns a plot of latencies, lanes of devices on a logarithmic axis in ms, with the gate `latency_ms`.

    The bar of a device goes from its median to its 99th percentile. The gate's position is in percent of the plot's
    width; None without the gate. Returns None if no latency was measured.
    """
    timed = [(device, device.certificate.latency) for device in _worst(certified(page)) if device.certificate]
    measured = [(device, latency) for device, latency in timed if latency and _sane(latency.p50_ms, latency.p99_ms)]
    if not measured:
        return None
    budget = page.gates.latency_ms if page.gates and _sane(page.gates.latency_ms or 0.0) else None
    values = [value for _, latency in measured for value in (latency.p50_ms, max(latency.p99_ms, latency.p50_ms))]
    values += [budget] if budget else []
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)

    def place(value: float) -> float:
        return round((math.log10(value) - low) / (high - low) * 100, 2)

    lanes = []
    for device, latency in measured:
        left, right = place(latency.p50_ms), place(max(latency.p99_ms, latency.p50_ms))
        label = f"median {milliseconds(latency.p50_ms)}, 99th percentile {milliseconds(latency.p99_ms)}"
        lanes.append(
            Lane(device.name, (Bar("latency", left, max(right - left, 0.6), label),), milliseconds(latency.p50_ms))
        )
    stride = 1 + (high - low) // 6
    ticks = tuple((place(10.0**power), milliseconds(10.0**power)) for power in range(low, high + 1, stride))
    return lanes, ticks, place(budget) if budget else None


def _sane(*times: float) -> bool:
    """Whether all `times`, latencies in ms, are plausible: an absurd value of a device would distort the axis."""
    return all(_SHORTEST_MS <= time <= _LONGEST_MS for time in times)


def timeline(page: Page) -> tuple[list[Lane], Axis] | None:
    """Returns a lane for each device with its steps, and an axis in seconds; None if no step was timed."""
    timed = [device for device in page.devices if device.steps]
    if not timed:
        return None
    shown = timed if len(timed) <= PLOTTED else sorted(timed, key=lambda device: -_end(device))[:PLOTTED]
    begin = page.started or 0.0
    end = max(0.001, *(_offset(step, begin) + step.seconds for device in timed for step in device.steps))
    lanes = []
    for device in sorted(shown, key=lambda device: (device.wave or 0, device.steps[0].started)):
        bars = tuple(_stretch(step, begin, end) for step in device.steps)
        lanes.append(Lane(device.name, bars, f"{sum(step.seconds for step in device.steps):.1f} s"))
    return lanes, _seconds(end)


def _seconds(end: float) -> Axis:
    """Returns an axis with at most five ticks at round numbers of seconds, from 0 to `end`."""
    decade = 10.0 ** math.floor(math.log10(end / 4))
    stride = next(factor * decade for factor in (1, 2, 5, 10) if factor * decade >= end / 4 * 0.999)
    return tuple(
        (round(at * stride / end * 100, 2), f"{at * stride:.6g} s") for at in range(int(end / stride + 1e-9) + 1)
    )


def _stretch(step: Step, begin: float, end: float) -> Bar:
    left, width = _offset(step, begin) / end * 100, max(step.seconds / end * 100, 0.15)
    return Bar(step.name.replace(" ", "-"), round(left, 2), round(width, 2), f"{step.name}: {step.seconds:.2f} s")


def _offset(step: Step, begin: float) -> float:
    """Returns when a step started, in seconds after `begin`; 0 if the host's clock jumped back in between."""
    return max(0.0, step.started - begin)


def _end(device: DeviceReport) -> float:
    return max(step.started + step.seconds for step in device.steps)
