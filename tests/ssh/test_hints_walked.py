"""Each hint is typed: the fault is provoked, the command is taken out of what was printed, and typing it leads out.

The devices are real: an agent behind sshd. After the command, the one that failed says something else, or succeeds.
`HINTS` in tests/support/hints.py names the walk of each hint, or why nobody can type it here.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import sshd
from support.board_roots import copy_board
from support.releases import Releases

from device_agent.shared.protocol import constants
from knnkit.cli import main
from knnkit.release import keys

ROWS = "5.1,3.5,1.4,0.2\n"
_COMMAND = re.compile(
    r"knnkit [a-z]+(?: [^\s`;,]+)*|(?:'[^']+/python'|\S*python) -m device_agent [a-z]+(?: [^\s`;,.…]+)*"
)


@dataclass(frozen=True)
class Said:
    """What a command came to; `hints` are the commands that it names."""

    code: int
    reason: str
    text: str
    hint: str


class Site:
    """A folder without deploy.yaml, and a device that is named by options alone."""

    def __init__(
        self, server: sshd.Sshd, config: Path, releases: Releases, capsys: pytest.CaptureFixture[str], root: Path
    ) -> None:
        self.server, self.root, self.releases, self._capsys = server, root, releases, capsys
        self.where: list[object] = [
            *("--target", f"{server.user}@{server.host}:{server.port}", "-i", server.identity),
            *("--ssh-config", config, "--root", root),
        ]
        self.known_hosts: list[object] = ["--known-hosts", server.known_hosts]

    def type(self, *words: object) -> Said:
        """Types a command as it stands."""
        self._capsys.readouterr()
        try:
            code = main([*map(str, words)])
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = self._capsys.readouterr()
        (device,) = json.loads(out).get("devices", [{}]) if out.startswith("{") else ({},)
        found = json.loads(device["details"]) if device.get("details") else {}
        mends = [each["mend"] for each in found.get("findings", ()) if each["level"] != "ok"]
        said = re.findall(r"try: (.*)", err)
        hint = "; ".join([device.get("hint", ""), *mends, *said])
        return Said(code, device.get("reason", ""), f"{out}\n{err}", hint)

    def ask(self, *words: object) -> Said:
        """Types a command for the device."""
        report = [] if words[0] == "classify" else ["--json"]
        return self.type(*words, *self.where, *self.known_hosts, *report)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask("status").text.splitlines()[0])["devices"][0]
        return found

    def agent(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Types a command on the board."""
        command = [self.root / "venv/bin/python", "-m", "device_agent", "--root", self.root, *words]
        return subprocess.run([*map(str, command)], capture_output=True, text=True)


def commands(hint: str, **filled: object) -> list[list[str]]:
    """The commands in a hint, as a shell splits them; a word of a sentence ends one."""
    found = []
    for text in _COMMAND.findall(hint):
        words = shlex.split(text)
        end = 4 if words[0].endswith("python") else 2
        while end < len(words) and (words[end - 1].startswith("-") or not re.fullmatch("[a-z]+", words[end])):
            end += 1
        found.append([str(filled.get(word, word)) for word in words[:end]])
    return found


@pytest.fixture
def make(
    server: sshd.Sshd, no_ssh_config: Path, releases: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[[Path | None], Site]:  # fmt: skip
    """Makes the site of a board; None: of a machine without one."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    Path("rows.csv").write_text(ROWS)

    def site(prepared: Path | None) -> Site:
        root = tmp_path / "a root"
        if prepared:
            copy_board(prepared, root)
        return Site(server, no_ssh_config, releases, capsys, root)

    return site


def walk(site: Site, asked: Sequence[object], reason: str, *more: object, pick: int = 0, **filled: object) -> Said:
    """Provokes a fault, types the command `pick` of its hint with `more`, and asks again: it must say another thing."""
    before = site.ask(*asked)
    assert before.code != 0, before
    assert before.reason == reason or (not before.reason and reason in before.text), before
    named = commands(before.hint, **filled)
    assert named, f"no command is named: {before}"
    known = [] if "--known-hosts" in named[pick] else site.known_hosts
    typed = site.type(*named[pick][1:], *known, *more)
    assert typed.reason != reason, (named[pick], typed)
    assert typed.code == 0 or typed.hint, (named[pick], typed)
    after = site.ask(*asked)
    assert (after.code, after.reason) != (before.code, before.reason) or (after.text != before.text), (named, after)
    return after


CLASSIFY = ("classify", "--input", "rows.csv")


# --- reaching a device --------------------------------------------------------------------------------------------
def follow(site: Site, asked: Sequence[object], most: int = 4, more: Sequence[object] = ()) -> Said:
    """Types what is printed (with `more`) until the command succeeds."""
    said = site.type(*asked, *site.where, *more)
    for _ in range(most):
        if said.code == 0:
            return said
        (command, *_) = commands(said.hint)
        said = site.type(*command[1:], *more)
        if said.code == 0:
            said = site.type(*asked, *site.where, *more)
    raise AssertionError(said)


def test_an_unknown_host_key(make: Callable[..., Site], running: Path, no_ssh_config: Path) -> None:
    site = make(running)
    no_ssh_config.write_text("")
    assert follow(site, ["status"]).code == 0


def test_an_unknown_host_key_where_ssh_config_reads_no_known_hosts(make: Callable[..., Site], running: Path) -> None:
    site = make(running)
    (trust,) = commands(site.type("status", *site.where).hint)
    said = site.type(*trust[1:])
    assert "--known-hosts FILE" in said.hint
    assert follow(site, ["status"], more=["--known-hosts", "FILE"]).code == 0


def test_a_host_key_that_has_changed(
    make: Callable[..., Site], running: Path, tmp_path: Path, no_ssh_config: Path
) -> None:
    site = make(running)
    no_ssh_config.write_text("")
    sshd.make_key(tmp_path / "other")
    home = Path(os.environ["HOME"]) / ".ssh" / "known_hosts"
    kind, key = (tmp_path / "other.pub").read_text().split()[:2]
    home.write_text(f"[{site.server.host}]:{site.server.port} {kind} {key}\n")
    assert follow(site, ["status"]).code == 0


# --- a bare or broken board ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("asked", ["status", "logs", "bench", "parity", "rollback", "doctor"])
def test_a_device_without_an_agent(make: Callable[..., Site], prepared: Path, asked: str, tmp_path: Path) -> None:
    site = make(None)
    reason = "unfit" if asked == "doctor" else "no-agent"
    before = site.ask(asked)
    assert before.reason == reason
    (command, *_) = commands(before.hint)
    assert command[:3] == ["knnkit", "provision", "--target"]
    assert str(site.root) in command, "the same root"
    if asked == "status":  # the others name the same command
        typed = site.type(*command[1:], *site.known_hosts, "--offline", "--json")
        assert typed.code == 0, typed
        assert site.ask(asked).code == 0


def test_a_deploy_that_must_not_provision(make: Callable[..., Site]) -> None:
    site = make(None)
    asked = ["deploy", "--release", site.releases["iris"], "--key", site.releases.public_key, "--provision", "never"]
    after = walk(site, asked, "no-agent", "--offline", "--key", site.releases.public_key)
    assert after.code == 0


@pytest.mark.parametrize("asked", [CLASSIFY, ("parity",), ("bench",)], ids=lambda words: words[0])
def test_a_device_without_a_release(make: Callable[..., Site], prepared: Path, asked: tuple[str, ...]) -> None:
    site = make(prepared)
    release = site.releases["iris"]
    if asked[0] == "classify":
        after = walk(site, asked, "no release", "--release", release)
        assert after.text.startswith("setosa")
        return
    before = site.ask(*asked)
    assert before.code != 0
    (command, *_) = commands(before.hint)
    assert site.type(*command[1:], *site.known_hosts, "--release", release).code == 0
    after = site.ask(*asked)
    assert after.code == 0 or after.reason != before.reason, after


@pytest.mark.parametrize("what", ["link", "python", "package", "library"])
def test_an_agent_that_does_not_answer(make: Callable[..., Site], running: Path, what: str) -> None:
    site = make(running)
    (venv,) = (site.root / "venvs").iterdir()
    (packages,) = venv.glob("lib/python3*/site-packages")
    if what == "link":
        (site.root / "venv").unlink()
    elif what == "python":
        (venv / "bin" / "python").unlink()
        (venv / "bin" / "python").symlink_to("/nowhere")
    elif what == "package":
        (packages / "device_agent" / "cli.py").unlink()
    else:
        (library, *_) = packages.glob("cryptography/hazmat/bindings/_rust*.so")
        library.unlink()
        library.write_bytes(b"")
    for asked in (["status"], ["doctor"]):
        before = site.ask(*asked)
        if before.code:
            (command, *_) = commands(before.hint)
            assert command[1] in ("provision", "doctor"), before
    found = site.ask("doctor")
    (command, *_) = commands(found.hint)
    assert command[1] == "provision"
    assert site.type(*command[1:], *site.known_hosts, "--offline").code == 0
    assert site.ask("status").code == 0
    assert site.ask(*CLASSIFY).text.startswith("setosa")


@pytest.mark.parametrize("folder", [constants.INCOMING_DIR, constants.RELEASES_DIR])
def test_a_folder_of_the_root_that_is_a_file(
    make: Callable[..., Site], running: Path, folder: str, tmp_path: Path
) -> None:
    """What a deploy says leads to doctor, which names the file."""
    site = make(running)
    shutil.rmtree(site.root / folder, ignore_errors=True)
    (site.root / folder).write_text("not a folder")
    newer = site.releases.variant("iris", tmp_path / "newer", sequence=50, version="5.0.0")
    before = site.ask("deploy", "--release", newer)
    assert before.code != 0
    for command in commands(before.hint):
        said = site.type(*command[1:], *site.known_hosts)
        assert said.code != 0, (before, said)
        assert folder in said.text, (before, said)


# --- another project, other keys ----------------------------------------------------------------------------------
def test_a_device_of_another_model(make: Callable[..., Site], running: Path) -> None:
    site = make(running)
    asked = ["deploy", "--release", site.releases["wine"], "--key", site.releases.public_key, "--offline"]
    assert walk(site, asked, "wrong-name").code == 0


def signed_by_another(site: Site, **changes: Any) -> tuple[keys.KeyPair, Path]:
    other = keys.generate(Path("other"))
    release = site.releases.variant("iris", Path("theirs").absolute(), **changes)
    assert main(["sign", str(release), "--key", str(other.private)]) == 0
    return other, release


def test_a_key_that_the_device_does_not_trust(make: Callable[..., Site], running: Path) -> None:
    site = make(running)
    other, release = signed_by_another(site, sequence=50, version="5.0.0")
    filled = {"NEW.pem": other.private, "OLD.pem": site.releases.private_key}
    assert walk(site, ["deploy", "--release", release], "untrusted-key", pick=1, **filled).code == 0


def revoke(site: Site, fingerprint: str) -> None:
    words = ("trust", "--revoke", fingerprint, "--signing-key", "other.pem")
    assert site.ask(*words).code == 0


def enrolled(site: Site) -> tuple[keys.KeyPair, str]:
    """Makes the device trust another key, too; returns it, and the fingerprint of the first."""
    other = keys.generate(Path("other"))
    shutil.copy(other.public, site.root / constants.TRUST_DIR / "other.pem")
    from device_agent.shared.trust import dsse

    return other, dsse.fingerprint(site.releases.public_key.read_bytes())


def test_a_release_whose_key_was_revoked(make: Callable[..., Site], running: Path) -> None:
    site = make(running)
    other, first = enrolled(site)
    release = site.releases.variant("iris", Path("mine").absolute(), sequence=50, version="5.0.0")
    revoke(site, first)
    before = site.ask("deploy", "--release", release)
    assert before.reason == "revoked-key", before
    sign = next(words for words in commands(before.hint, RELEASE=release) if words[1] == "sign")
    assert site.type(*sign[1:], *([] if "--key" in sign else ["--key", other.private])).code == 0
    assert site.ask("deploy", "--release", release).code == 0


def test_the_running_release_s_key_was_revoked(make: Callable[..., Site], running: Path) -> None:
    site = make(running)
    other, first = enrolled(site)
    release = site.releases.copy("iris-next", Path("mine").absolute())
    revoke(site, first)
    said = site.ask("parity")
    assert said.code == 4
    filled = {"RELEASE": release, "TRUSTED": other.private}
    (doctor,) = commands(said.hint)
    found = site.type(*doctor[1:], *site.known_hosts, "--json")
    for command in commands(found.hint, **filled):
        known = site.known_hosts if command[1] == "deploy" else []
        assert site.type(*command[1:], *known).code == 0, command
    assert site.ask("parity").code == 0
    assert site.ask("doctor").hint.strip("; ") == ""


def test_a_key_that_nobody_named(make: Callable[..., Site], running: Path) -> None:
    site = make(running)
    enrolled(site)
    Path("deploy.yaml").write_text(f"fleet: {{targets: [local]}}\nsigning: {{key: '{site.releases.private_key}'}}\n")
    before = site.ask("doctor", "-c", "deploy.yaml")
    revoking = [words for words in commands(before.hint) if "--revoke" in words]
    assert revoking, before
    (command, *_) = revoking
    assert site.type(*command[1:], "-c", "deploy.yaml", *site.known_hosts).code == 0
    assert "foreign-key" not in site.ask("doctor", "-c", "deploy.yaml").text


# --- sequences and floors -----------------------------------------------------------------------------------------
def test_an_older_release_that_is_on_the_device(make: Callable[..., Site], running: Path) -> None:
    site = make(running)
    asked = ["deploy", "--release", site.releases["iris"]]
    after = walk(site, asked, "older", "--signing-key", site.releases.private_key)
    assert after.code == 0


def test_a_floor_ahead_of_the_clock(make: Callable[..., Site], running: Path, tmp_path: Path) -> None:
    site = make(running)
    ahead = site.releases.variant("iris", tmp_path / "ahead", sequence=int(time.time()) + 10**7, version="8.0.0")
    assert site.ask("deploy", "--release", ahead).code == 0
    plain = site.releases.variant("iris", tmp_path / "plain", sequence=int(time.time()), version="9.0.0")
    before = site.ask("deploy", "--release", plain)
    assert before.reason == "older"
    (lower,) = [words for words in commands(before.hint) if words[1] == "rollback"]
    assert site.type(*lower[1:], *site.known_hosts, "--signing-key", site.releases.private_key).code == 0
    built = site.releases.variant("iris", tmp_path / "built", sequence=int(time.time()) + 5, version="9.0.0")
    assert site.ask("deploy", "--release", built).code == 0, "a release that is built now is accepted"


def test_a_release_that_nobody_is_ahead_of(make: Callable[..., Site], running: Path, tmp_path: Path) -> None:
    """Older than the floor, and not there: the hint is to build, or to go back to one that is there."""
    site = make(running)
    old = site.releases.variant("iris", tmp_path / "old", sequence=3, version="0.1.0")
    before = site.ask("deploy", "--release", old)
    assert before.reason == "older", before
    staged = site.status()["previous"]["digest"]
    back = next(words for words in commands(before.hint, RELEASE=staged) if words[1] == "rollback")
    assert site.type(*back[1:], *site.known_hosts, "--signing-key", site.releases.private_key).code == 0


def test_an_activation_that_waits(make: Callable[..., Site], running: Path, tmp_path: Path) -> None:
    site = make(running)
    newer = site.releases.variant("iris", tmp_path / "newer", sequence=50, version="5.0.0")
    staged = site.agent("stage", newer, "--json")
    digest = json.loads(staged.stdout)["release"]["digest"]
    assert site.agent("activate", digest, "--deadline", "600").returncode == 0
    asked = ["deploy", "--release", site.releases.variant("iris", tmp_path / "newest", sequence=60, version="6.0.0")]
    assert walk(site, [*asked, "--wait", "0"], "locked").code == 0


def test_a_version_that_the_device_lacks(make: Callable[..., Site], running: Path) -> None:
    site = make(running)
    for absent in ("7.7.7", "0123456789abcdef"):
        said = site.ask("rollback", "--to", absent, "--signing-key", site.releases.private_key)
        assert said.code == 2
        found = re.search(r"--to ([0-9a-f]{12}) \(1\.0\.0\)$", said.hint)
        assert found, "what is there, and not what runs"
    back = site.ask("rollback", "--to", found[1], "--signing-key", site.releases.private_key)
    assert (back.code, site.status()["release"]["version"]) == (0, "1.0.0")


def test_a_version_where_the_device_holds_no_other(make: Callable[..., Site], prepared: Path) -> None:
    site = make(prepared)
    assert site.ask("deploy", "--release", site.releases["iris"]).code == 0
    rollback = ("rollback", "--to", "7.7.7", "--signing-key", site.releases.private_key)
    (deploy,) = commands(site.ask(*rollback).hint, RELEASE=site.releases["iris-next"])
    assert site.ask(*deploy[1:]).code == 0
    assert "(1.0.0)" in site.ask(*rollback).hint


# --- what the agent says on the board -----------------------------------------------------------------------------
def test_a_release_whose_files_are_damaged(make: Callable[..., Site], running: Path) -> None:
    site = make(running)
    model = (site.root / "current").resolve() / constants.MODEL_FILE
    data = model.read_bytes()
    model.unlink()
    model.write_bytes(data[:-1] + b"x")
    said = site.ask(*CLASSIFY)
    assert said.code == 4, said
    (deploy, back) = commands(said.hint, RELEASE=site.releases["iris-next"])
    assert site.type(*deploy[1:], *site.known_hosts).code == 0
    assert site.ask(*CLASSIFY).text.startswith("setosa")
    model.unlink()
    model.write_bytes(data[:-1] + b"x")
    assert (site.ask(*CLASSIFY).code, back[:2]) == (4, ["knnkit", "rollback"])
    assert site.type(*back[1:], *site.known_hosts).code == 0
    assert site.ask(*CLASSIFY).text.startswith("setosa")


def test_what_the_agent_says_of_digests_and_pending_releases(
    make: Callable[..., Site], running: Path, tmp_path: Path
) -> None:
    site = make(running)
    said = site.agent("activate", "0" * 64)
    assert said.returncode != 0
    (listed, *_) = commands(said.stderr)
    shown = site.agent(*listed[3:])
    assert shown.returncode == 0
    newer = site.releases.variant("iris", tmp_path / "newer", sequence=50, version="5.0.0")
    digest = json.loads(site.agent("stage", newer, "--json").stdout)["release"]["digest"]
    assert digest[:12] in site.agent("status").stdout
    said = site.agent("confirm", digest)
    (activate,) = commands(said.stderr)
    assert site.agent(*activate[3:]).returncode == 0
    other = site.status()["previous"]
    said = site.agent("activate", other["digest"] if other else "0" * 64)
    if named := [words for words in commands(said.stderr) if words[3] == "rollback"]:
        assert site.agent(*named[0][3:]).returncode == 0


def test_history_and_state_that_are_damaged(make: Callable[..., Site], running: Path) -> None:
    site = make(running)
    (site.root / constants.STATE_FILE).write_text("rubbish")
    for words in (["status"], ["doctor"], list(CLASSIFY)):
        said = site.ask(*words)
        for command in [each for each in commands(said.hint + said.text) if each[0].endswith("python")]:
            assert site.agent(*command[3:]).returncode in (0, 1)
    assert site.ask("doctor").hint
