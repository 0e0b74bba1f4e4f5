"""An agent in odd surroundings: umask, rights, a full disk. What is wrong is said, and nothing is left unreadable."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest
from support.device import Device
from support.releases import Releases

from device_agent import cli as agent
from device_agent.diagnostics import doctor
from device_agent.serving.outputs import Sink
from device_agent.shared.os_errors import explain
from device_agent.shared.protocol.errors import AgentError
from device_agent.store import store
from device_agent.system import durable


def test_no_umask_locks_the_owner_out(device: Device, releases: Releases) -> None:
    install = ["sh", "-c", 'umask 777; exec "$@"', "sh", *device.argv("install", releases["iris"])]
    assert subprocess.run(install, env=device.env(), timeout=60, check=False).returncode == 0
    modes = {path.name: path.stat().st_mode & 0o777 for path in device.root.iterdir()}
    assert modes["state.json"] == modes["lock"] == 0o600
    assert modes["incoming"] == modes["releases"] == 0o700


def test_a_doctor_who_may_not_look_says_so_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: store.Store) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "state.json")

    monkeypatch.setattr(store.Store, "load", refuse)
    monkeypatch.setattr(doctor.board, "governor", lambda: "ondemand")
    found = {finding.name: finding for finding in doctor.diagnose(store.Store(tmp_path)).findings}
    assert (found["clock"].level, found["clock"].message) == ("error", "state.json: Permission denied")
    assert "chmod" in found["clock"].mend
    assert found["state"].level == "error"
    assert {"python", "disk", "governor"} <= set(found)
    monkeypatch.setattr(doctor.board, "governor", lambda: "powersave")
    for level, can_rise in (("warning", True), ("ok", False)):  # of Intel's drivers, it rises by itself
        monkeypatch.setattr(doctor.board, "has_ondemand", lambda said=can_rise: said)
        levels = {each.name: each.level for each in doctor.diagnose(store.Store(tmp_path)).findings}
        assert levels["governor"] == level
    monkeypatch.setattr(doctor.board, "governor", lambda: None)
    assert "governor" not in {finding.name for finding in doctor.diagnose(store.Store(tmp_path)).findings}


def test_an_output_that_may_not_be_looked_at_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(AgentError, match=r"answers\.csv: Permission denied"):
        Sink(str(tmp_path / "answers.csv"))


def test_a_full_disk_is_told_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(OSError, match="No space") as caught:
        durable.write_atomic(tmp_path / "state.json", b"{}")
    assert str(tmp_path / "state.json") in explain(caught.value)[1]
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_too_long_is_a_wrong_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "x" * 256
    assert agent.main(["verify", name, "--root", str(tmp_path)]) == 2
    assert f"{name}: File name too long\n  try: a shorter name" in capsys.readouterr().err


def test_modules_of_the_folder_that_it_is_started_in_are_not_the_agent_s(
    device: Device, releases: Releases, tmp_path: Path
) -> None:
    """Which is the login's, for a person and for a service; what lies there would run instead of what is known."""
    device.install(releases["iris"])
    for name in ("json", "numpy", "queue", "zipfile"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('somebody else')\n")
    argv, row = device.argv("classify", "--format", "csv"), b"5.1,3.5,1.4,0.2\n"
    done = subprocess.run(argv, cwd=tmp_path, env=device.env(), input=row, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, b"setosa\n"), done.stderr
