"""What a person meets on the command line when a device cannot be reached or trusted; and how it is enrolled."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support import sshd
from support.releases import Releases

from knnkit.cli import main
from knnkit.commands import deploy
from knnkit.fleet.device.recorder import report_on
from knnkit.fleet.jobs.job import DeviceJob
from knnkit.fleet.report import FleetReport, Outcome
from knnkit.fleet.targets import Target
from knnkit.transport.ssh import known_hosts

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_ssh_config: Path
) -> Run:
    """Runs knnkit in an empty directory, without anybody's ssh_config."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        code = main([*map(str, words), "--ssh-config", str(no_ssh_config)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def target(server: sshd.Sshd) -> str:
    return f"{server.user}@{server.host}:{server.port}"


def test_an_unreachable_device_is_exit_3(run: Run, server: sshd.Sshd) -> None:
    with socket.socket() as deaf:
        deaf.bind((server.host, 0))  # nobody else takes the port meanwhile
        gone = f"{server.host}:{deaf.getsockname()[1]}"
        code, out, _ = run("status", "--target", gone, "--connect-retries", 0)
    assert code == 3
    assert "nothing listens there" in out


def test_an_unknown_host_key_is_exit_3_and_names_the_command(
    run: Run, target: str, server: sshd.Sshd, no_ssh_config: Path
) -> None:
    code, out, _ = run("status", "--target", target, "-i", server.identity, "--json")
    device = json.loads(out)["devices"][0]
    assert (code, device["outcome"], device["reason"]) == (3, "unreachable", "host-key-unknown")
    assert device["hint"] == f"knnkit trust {target} --ssh-config {no_ssh_config}"
    assert device["connections"] == 1


def test_trust_shows_the_fingerprint_and_enrols_only_the_one_that_was_named(
    run: Run, target: str, server: sshd.Sshd, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    fingerprint = known_hosts.load([server.known_hosts]).lookup(server.host, server.port)[0].fingerprint
    code, _, err = run("trust", target, "--known-hosts", known)
    assert code == 3  # nobody is at a terminal to compare it
    assert f"knnkit trust {target} --fingerprint {fingerprint}" in err
    assert not known.exists()
    code, _, err = run("trust", target, "--known-hosts", known, "--fingerprint", "SHA256:" + "A" * 43)
    assert code == 3
    assert not known.exists()
    code, out, _ = run("trust", target, "--known-hosts", known, "--fingerprint", fingerprint, "--json")
    assert code == 0
    assert json.loads(out)["changed"]
    assert known.read_text() == server.known_hosts.read_text()
    assert run("trust", target, "--known-hosts", known)[0] == 0  # known already: nothing to agree to
    bare = ("--target", target, "--root", tmp_path / "root")  # whoever runs this may have an agent at home
    code, out, err = run("status", *bare, "-i", server.identity, "--known-hosts", known)
    assert "there is no agent" in out
    how, root = f"try: knnkit provision --target {target} -i {server.identity} ", f" --root {tmp_path / 'root'}\n"
    assert how in err
    assert root in err  # it is reached, and it is bare


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("typed", "code"), [("n\n", 3), ("", 3), ("yes\n", 0)])
def test_trust_asks_a_person_at_a_terminal_apart_from_the_result(
    run: Run, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, code: int
) -> None:
    known = tmp_path / "known_hosts"
    monkeypatch.setattr(sys, "stdin", Terminal(typed))  # "": Ctrl-D
    found, out, err = run("trust", target, "--known-hosts", known, "--json")
    assert (found, known.exists()) == (code, code == 0)
    assert json.loads(out)["changed" if code == 0 else "reason"] in (True, "host-key-unknown")
    assert "Are the fingerprints the same? [y/N] " in err


def test_a_changed_host_key_is_enrolled_only_with_replace(
    run: Run, target: str, server: sshd.Sshd, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    other = sshd.make_key(tmp_path / "other")
    line = " ".join(Path(f"{other}.pub").read_text().split()[:2])
    known.write_text(f"[{server.host}]:{server.port} {line}\n")
    code, _, err = run("trust", target, "--known-hosts", known, "--yes")
    assert code == 3
    assert "another host key" in err
    assert "--replace" in err
    assert run("trust", target, "--known-hosts", known, "--yes", "--replace")[0] == 0
    assert known.read_text() == server.known_hosts.read_text()


def test_a_key_revoked_for_every_host_hinders_no_other_and_is_never_enrolled(
    run: Run, target: str, server: sshd.Sshd, tmp_path: Path
) -> None:
    known, mine = tmp_path / "known_hosts", server.known_hosts.read_text()
    public = Path(f"{sshd.make_key(tmp_path / 'other')}.pub").read_text()
    known.write_text(f"@revoked * {public}")
    assert run("trust", target, "--known-hosts", known, "--yes")[0] == 0
    assert known.read_text() == f"@revoked * {public}{mine}"
    known.write_text(f"@revoked somebody {mine.partition(' ')[2]}")
    code, _, err = run("trust", target, "--known-hosts", known, "--yes", "--replace")
    assert code == 3
    assert "offers a revoked host key" in err
    assert known.read_text().count("\n") == 1


def test_trust_writes_to_the_users_own_file_or_the_fleets(
    run: Run, target: str, server: sshd.Sshd, tmp_path: Path
) -> None:
    (tmp_path / "deploy.yaml").write_text(
        "model: {name: a, data: {sklearn: iris}}\nfleet: {known_hosts: fleet_hosts}\n"
    )
    assert run("trust", target, "--yes")[0] == 0
    assert (tmp_path / "fleet_hosts").read_text() == server.known_hosts.read_text()
    assert not (Path(os.environ["HOME"]) / ".ssh" / "known_hosts").exists()


def test_a_report_is_written_although_a_build_has_replaced_the_release(
    run: Run, releases: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, made = releases.variant("iris", tmp_path / "dist"), []

    def roll_out(targets: Sequence[Target], make_job: Callable[[Target], DeviceJob], *_: object) -> FleetReport:
        made.append(make_job(targets[0]))
        shutil.rmtree(release)
        return FleetReport("deploy", 0.0, 1.0, (report_on(targets[0], Outcome.COMMITTED),))

    monkeypatch.setattr(deploy, "roll_out", roll_out)
    reports = ("--report", "r.html", "--report", "r.json")
    assert run("deploy", "--target", "local", "--release", release, *reports)[0] == 0
    assert "Model card: iris" in (tmp_path / "r.html").read_text()
    assert (tmp_path / "r.json").exists()
    assert deploy._rows_of([job.package for job in made])(made[0].package.digest) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("status",), "no device is named"),
        (("status", "--target", "a b"), "is not an address"),
        (("status", "--on", "canary"), "there is no deploy.yaml here, so no target has that tag"),
        (("status", "--target", "a", "--target", "a"), "given twice"),
        (("deploy", "--target", "local"), "there is no deploy.yaml here"),
        (("deploy", "--target", "local", "--release", "nowhere"), "nowhere: there is no such directory"),
        (("status", "--target", "a", "--report", "x.pdf"), "must end in .json or .html"),
        (("status", "--target", "a", "--report", "no/such/x.json"), "there is no directory"),
        (("status", "--target", "a", "--retry-from", "gone.json"), "No such file"),
        (("status", "--target", "a", "--connect-timeout", "soon"), "is not a duration"),
        (("status", "--target", "a", "--command-timeout", "99999999999999"), "a hundred years"),
        (("status", "--target", "a", "--concurrency", "-1"), "expected a whole number from 1 to 1024"),
        (("status", "--target", "a", "--connect-retries", "-1"), "expected a whole number from 0 to 20"),
        (("status", "-c", "other.yaml"), "there is no such file"),
        (("rollback", "--target", "local", "--to", "xyz"), "no --signing-key"),
        (("classify", "--target", "a", "--target", "b"), "name --input FILE and --output DIRECTORY"),
        (("classify", "--target", "a", "--report", "r.json"), "name --input FILE and --output DIRECTORY"),
    ],
)
def test_what_the_command_line_cannot_mean_is_exit_2_and_touches_nothing(
    run: Run, tmp_path: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    code, _, err = run(*words)
    assert code == 2
    assert said in err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_nothing_is_left_to_try_again(run: Run, tmp_path: Path) -> None:
    from device_agent.shared.protocol import json_codec
    from device_agent.shared.protocol.documents import ReleaseRef
    from knnkit.fleet.report import DeviceReport, FleetReport, Outcome

    devices = (DeviceReport("a", "a", Outcome.COMMITTED),)
    report = FleetReport("deploy", 0.0, 1.0, devices, releases=(ReleaseRef("0" * 64, "iris", "1.0.0", 7),))
    (tmp_path / "r.json").write_bytes(json_codec.dump_file(report))
    code, out, err = run("deploy", "--target", "a", "--retry-from", "r.json", "--json")
    assert code == 0, "`until` ends there"
    assert "every device succeeded with iris 1.0.0; there is nothing to try again" in err
    assert json.loads(out)["reason"] == "nothing-to-do"
    report = FleetReport("deploy", 0.0, 1.0, (DeviceReport("b", "b", Outcome.FAILED),))
    (tmp_path / "r.json").write_bytes(json_codec.dump_file(report))
    code, _, err = run("deploy", "--target", "a", "--retry-from", "r.json")
    assert code == 2
    assert "'b', which is not among the targets" in err
