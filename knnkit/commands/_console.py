"""Shows a run as it goes, on stderr: a `Watch` of the fleet. Decides nothing."""

from __future__ import annotations

from knnkit.fleet.report import DeviceReport
from knnkit.fleet.rollout.waves import Wave
from knnkit.render.fleet_report import device_tone, outcome_line
from knnkit.render.terminal import Progress


def wave_line(wave: Wave, number: int, total: int) -> str:
    """Returns a wave as a line above its devices names it."""
    devices = f"{len(wave.devices)} device{'s' if len(wave.devices) > 1 else ''}"
    return f"wave {number} of {total} ({wave.label}): {devices}"


class Console:
    """Shows a run as it goes, on stderr; a `Watch` of the fleet."""

    def __init__(self, total: int) -> None:
        self._progress: Progress = Progress(total=total)

    def __enter__(self) -> Console:
        self._progress.__enter__()
        return self

    def __exit__(self, *failure: object) -> None:
        self._progress.__exit__(None, None, None)

    def wave(self, wave: Wave, number: int, total: int) -> None:
        """A wave begins."""
        if total > 1:
            self._progress.note(wave_line(wave, number, total))

    def step(self, device: str, step: str, done: int | None, total: int | None) -> None:
        """A device is at a step."""
        self._progress.step(device, step, done, total)

    def finish(self, report: DeviceReport) -> None:
        """A device is finished."""
        self._progress.finish(report.name, outcome_line(report), device_tone(report))

    def note(self, text: str) -> None:
        """Something that concerns the whole run."""
        self._progress.note(text, "warn")
