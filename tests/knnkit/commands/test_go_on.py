"""A deploy that some devices did not finish names the way to the rest."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from support import pages

from knnkit.commands import _output
from knnkit.fleet.report import DeviceReport, FleetReport, Outcome


def device(name: str, outcome: Outcome) -> DeviceReport:
    return DeviceReport(name, name, outcome, 0 if outcome is Outcome.COMMITTED else 3, release=pages.RELEASE)


@pytest.mark.parametrize(
    ("command", "outcomes", "files", "said"),
    [
        ("deploy", "CCU", ["r.html", "my r.json"], "with --retry-from '{}/my r.json' continues with 1 device"),
        ("deploy", "CUU", ["r.html"], "the same command again continues with 2 devices"),
        ("deploy", "CC", ["r.json"], ""),
        ("deploy", "U", ["r.json"], ""),
        ("status", "CU", ["r.json"], ""),
    ],
)
def test_an_unfinished_deploy_names_how_to_go_on(
    command: str,
    outcomes: str,
    files: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(_output.signals, "deafen", lambda: None)
    kinds = {"C": Outcome.COMMITTED, "U": Outcome.UNREACHABLE}
    devices = tuple(device(f"pi-{n}", kinds[kind]) for n, kind in enumerate(outcomes))
    report = FleetReport(command, 0.0, 1.0, devices, releases=(pages.RELEASE,))
    _output.finish(argparse.Namespace(json=False, report=[tmp_path / file for file in files]), report)
    last = capsys.readouterr().out.splitlines()[-1]
    assert (said.format(tmp_path) in last) if said else ("continues" not in last)
