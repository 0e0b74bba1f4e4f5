"""A deploy that some devices did not finish names the way to the rest."""

from __future__ import annotations

import argparse
import errno
from pathlib import Path
from typing import Any

import pytest
from support import pages
from support.simulation import make_package

from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.documents import ReleaseRef
from knnkit.commands import _output, _selection, deploy, status
from knnkit.errors import UsageError
from knnkit.fleet.report import DeviceReport, FleetReport, Outcome
from knnkit.render.page import Page


def asked(name: str, version: str, sequence: int, model: str = "fruit") -> DeviceReport:
    ref = ReleaseRef(str(sequence) * 64, model, version, sequence) if version else None
    state: Any = object()
    return DeviceReport(name, name, Outcome.ANSWERED, release=ref, status=state)


def device(name: str, outcome: Outcome) -> DeviceReport:
    reason = "no-wave" if outcome is Outcome.SKIPPED else ""
    return DeviceReport(
        name, name, outcome, 0 if outcome is Outcome.COMMITTED else 3, reason=reason, release=pages.RELEASE
    )


@pytest.mark.parametrize(
    ("command", "outcomes", "files", "said"),
    [
        ("deploy", "CCU", ["r.html", "my r.json"], "with --retry-from '{}/my r.json' continues with 1 device"),
        ("deploy", "CUU", ["r.html"], "the same command again continues with 2 devices"),
        ("deploy", "CUS", ["r.html"], "the same command again continues with 1 device"),  # no wave contains the third
        ("deploy", "CS", ["r.json"], ""),
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
    kinds = {"C": Outcome.COMMITTED, "U": Outcome.UNREACHABLE, "S": Outcome.SKIPPED}
    devices = tuple(device(f"pi-{n}", kinds[kind]) for n, kind in enumerate(outcomes))
    report = FleetReport(command, 0.0, 1.0, devices, releases=(pages.RELEASE,))
    _output.finish(argparse.Namespace(json=False, report=[tmp_path / file for file in files]), report)
    last = capsys.readouterr().out.splitlines()[-1]
    assert (said.format(tmp_path) in last) if said else ("continues" not in last)


def test_status_names_the_devices_that_are_behind() -> None:
    new, other = asked("a", "1.1.0", 2), asked("x", "3.0.0", 9, "leaf")
    late = [asked(name, "1.0.0", 1) for name in ("b", "c", "d")]
    lost = DeviceReport("u", "u", Outcome.UNREACHABLE, 3)
    fleets = {
        (new, other, lost): "",
        (new, asked("e", "", 0)): "1 device is behind: e (no release)",
        (*late, new, asked("e", "", 0), other): "4 devices are behind: b (fruit 1.0.0), c (fruit 1.0.0), "
        "d (fruit 1.0.0) and 1 more",
        (lost, asked("e", "", 0)): "",
    }
    for devices, said in fleets.items():
        assert status.behind(FleetReport("status", 0.0, 1.0, devices)) == said


def test_the_command_for_those_behind_selects_the_same_devices(tmp_path: Path) -> None:
    given: dict[str, Any] = {"config": tmp_path / "my fleet.yaml", "target": ["pi@b"], "on": ["canary"], "root": "~/k"}
    arguments = argparse.Namespace(**given, identity=None, jump="gate", ssh_config=None, known_hosts=None)
    said = f" -c '{tmp_path}/my fleet.yaml' --target pi@b --on canary --root '~/k' --jump gate"
    assert _selection.words(arguments) == said


def test_a_report_of_another_release_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, path = make_package("1.0.0"), make_package("1.1.0"), tmp_path / "r.json"
    path.write_bytes(json_codec.dump_file(FleetReport("deploy", 0.0, 1.0, (), releases=(old.ref,))))
    deploy._warn_of_other_release(path, [old])
    assert capsys.readouterr().err == ""
    deploy._warn_of_other_release(path, [old, new])
    said = capsys.readouterr().err
    assert f"r.json is a report of fruit 1.0.0 ({old.digest[:12]}), which its other devices keep" in said
    assert said.endswith(f"; this deploys fruit 1.1.0 ({new.digest[:12]})\n")


def test_a_report_that_cannot_be_written_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, _: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(_output, "write_html", full)
    files = [tmp_path / "r.html", tmp_path / "r.json"]
    report, page = FleetReport("deploy", 0.0, 1.0, ()), lambda: Page("", "", "", ())
    with pytest.raises(UsageError, match=f"--report {files[0]}: No space left") as caught:
        _output.write_reports(argparse.Namespace(report=files), report, page)
    assert "df -h" in caught.value.hint
    assert _output.read_report(files[1]) == report
