"""Shows the progress of a run on stderr."""

from __future__ import annotations

from knnkit.fleet.report import DeviceReport
from knnkit.fleet.rollout.waves import Wave
from knnkit.render.fleet_report import device_tone, outcome_line
from knnkit.render.sanitize import count
from knnkit.render.terminal import Progress, Tone


def wave_line(wave: Wave, number: int, total: int) -> str:
    """Returns the line that announces a wave; the lines of its devices follow."""
    return f"wave {number} of {total} ({wave.label}): {count(len(wave.devices), 'device')}"


class Console(Progress):
    """Shows a run on stderr while it runs; implements the `Watch` of a rollout."""

    def wave(self, wave: Wave, number: int, total: int) -> None:
        """Announces that a wave begins."""
        if total > 1:
            self.note(wave_line(wave, number, total), "")

    def note(self, text: str, tone: Tone = "warn") -> None:
        """Prints a text about the whole run."""
        super().note(text, tone)

    def finish(self, report: DeviceReport) -> None:
        """Prints the outcome of a device that is finished."""
        self.end(report.name, outcome_line(report), device_tone(report))
