"""A fleet's report as a page or terminal table."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TextIO

from device_agent.shared.protocol.model_info import Gates
from device_agent.shared.protocol.reports import Certificate
from knnkit.evaluation.metrics import percent
from knnkit.fleet.report import DeviceReport, FleetReport
from knnkit.render import terminal
from knnkit.render.changes import Rows, evaluation_lines, no_rows, sections
from knnkit.render.page import TONES, Page, Section, checked, device_tone, score
from knnkit.render.sanitize import count, milliseconds, seconds
from knnkit.render.terminal import Cell, Column, Table, Tone

if TYPE_CHECKING:
    from knnkit.render.decision_regions import Regions  # numpy is for a page that is drawn

_TITLES = {
    "deploy": "Deployment", "parity": "Parity", "status": "Status", "rollback": "Rollback", "floor": "Lower floors",
    "bench": "Benchmark", "logs": "History", "doctor": "Findings", "keys": "Signing keys", "provision": "Provisioning",
}  # fmt: skip


def page_of(
    report: FleetReport,
    *,
    gates: Gates | None = None,
    regions: Regions | None = None,
    regions_from: str = "",
    table: Table | None = None,
    rows: Rows = no_rows,
) -> Page:
    """Returns the HTML report of a run as values.

    `regions` are the answers of the device `regions_from` on a grid, for a model with two features. `table` is shown
    under the heading "Answers". `rows` maps a release's digest to its evaluation rows (None: not on this host), to list
    wrongly answered rows.
    """
    release = report.releases[0] if len(report.releases) == 1 else None
    title, link = _TITLES.get(report.command, report.command), "to" if report.command == "rollback" else "of"
    return Page(
        title=f"{title} {link} {release.name} {release.version}" if release else title,
        verdict=verdict(report),
        tone=tone(report),
        devices=report.devices,
        release=release,
        gates=gates,
        classes=_classes(report),
        regions=regions,
        regions_from=regions_from,
        started=report.started,
        seconds=report.seconds,
        notes=_notes(report),
        sections=((Section("Answers", tables=(("", table),)),) if table else ()) + sections(report, rows),
    )


def _classes(report: FleetReport) -> tuple[str, ...]:
    """Returns the labels of the classes in the devices' golden checks, in order; () if devices have different ones."""
    found = {device.certificate.classes for device in report.devices if device.certificate}
    return found.pop() if len(found) == 1 else ()


def verdict(report: FleetReport) -> str:
    """Returns the result of a run as one line."""
    total = len(report.devices)
    good = sum(device.good for device in report.devices)
    one = total == 1
    summary = (report.devices[0].word if one else report.summary()) + _releases(report)
    if total and good == total:
        every = "The device" if one else f"All {total:,} devices"
        proofs = [device.certificate for device in report.devices if device.certificate]
        if len(proofs) == total and all(proof.passed and not proof.different for proof in proofs):
            return f"{every} give{'s' if one else ''} the same answers as the host: {summary}"
        return f"{every}: {summary}"
    if one:
        return f"The device is not as it should be: {summary}"
    return f"{good:,} of {total:,} devices are as they should be: {summary}"


def _releases(report: FleetReport) -> str:
    """Returns text to append to the verdict: how many devices run which release; "" if all run the same one."""
    running = Counter(f"{d.release.name} {d.release.version}" for d in report.devices if d.release)
    digests = {device.release.digest for device in report.devices if device.release}
    if len(digests) < 2:
        return ""
    if len(running) == 1:
        return f"; they run {len(digests)} different releases called {next(iter(running))}"
    return "; " + ", ".join(f"{number:,} run{'s' if number == 1 else ''} {name}" for name, number in running.items())


def tone(report: FleetReport) -> Tone:
    """Returns the tone of a run: `good`; `bad` if a device failed or the rollout stopped; else `warn`."""
    if report.devices and all(device.good for device in report.devices):
        return "good"
    bad = any(TONES[device.outcome] == "bad" or device.exit_code not in (0, 3, 5) for device in report.devices)
    return "bad" if bad or report.stopped else "warn"


def _notes(report: FleetReport) -> tuple[str, ...]:
    notes = [f"The run stopped early: {report.stopped}"] if report.stopped else []
    notes += ["The run was interrupted."] if report.interrupted else []
    notes += [f"Wave {number}: {wave.label}, {count(len(wave.devices), 'device')}, {seconds(wave.seconds)}" +
              ("" if wave.started is not None else " (not begun)")
              for number, wave in enumerate(report.waves, 1) if len(report.waves) > 1]  # fmt: skip
    return tuple(notes)


def _mixed(report: FleetReport) -> bool:
    """Whether any device now runs another release than the one that its golden check is about."""
    return any(d.certificate and d.release and d.certificate.release != d.release.digest for d in report.devices)


def outcome_line(device: DeviceReport) -> str:
    """Returns the outcome of one device as text, with the reason if the outcome is not good."""
    text = device.word
    return text if device.good or not device.message else f"{text}: {device.said}"


def print_report(report: FleetReport, out: TextIO, rows: Rows = no_rows) -> None:
    """Prints a table of the devices, then figures, warnings, hints and the verdict.

    `rows` maps a release's digest to its evaluation rows (None: not on this host), to list wrongly answered rows.
    """
    proven = any(device.certificate for device in report.devices)
    mixed = _mixed(report)
    columns: list[Column | str] = ["device", "outcome", "runs" if mixed else "release"]
    if proven:
        columns += ["checked"] if mixed else []
        columns += ["identical/equivalent/different", Column("accuracy", right=True), Column("one row", right=True)]
    columns.append("says" if any(device.said for device in report.devices) else "")
    terminal.print_table(columns, [_row(device, proven, mixed) for device in report.devices], stream=out)
    for line, tone_of_line in evaluation_lines(report, rows):
        terminal.print_line(line, tone_of_line, stream=out)
    for device in report.devices:
        for warning in device.warnings:
            terminal.print_line(f"{device.name}: {warning}", "warn", stream=out)
        if device.hint and not device.good:
            terminal.print_line(f"{device.name}: try: {device.hint}", stream=out)
    if report.stopped:
        terminal.print_line(f"stopped: {report.stopped}", "bad", stream=out)
    terminal.print_line(verdict(report), tone(report), stream=out)


def _row(device: DeviceReport, proven: bool, mixed: bool) -> list[Cell | str]:
    release = f"{device.release.name} {device.release.version}" if device.release else "–"
    row: list[Cell | str] = [device.name, Cell(device.word, device_tone(device)), release]
    row += [checked(device)] if mixed else []
    return [*row, *(_proof(device.certificate) if proven else []), device.said]


def _proof(proof: Certificate | None) -> list[Cell | str]:
    if proof is None:
        return ["–", "–", "–"]
    counts = f"{proof.identical}/{proof.equivalent}/{proof.different}"
    median = milliseconds(proof.latency.p50_ms if proof.latency else None)
    return [Cell(counts, "bad" if proof.different else ""), _accuracy(proof), median]


def _accuracy(proof: Certificate) -> str:
    """Returns the accuracy as text; `before -> after` if the release was compared with the one before."""
    classes = proof.compared.classes if proof.compared else ()
    rows = sum(each.rows for each in classes)
    if rows <= 0 or abs(sum(each.after for each in classes) / rows - (proof.accuracy or 0.0)) > 1e-9:
        return score(proof)  # of golden rows that were drawn by class, the accuracy before is not known
    return f"{percent(sum(each.before for each in classes) / rows)} -> {score(proof)}"
