"""No name reaches a shell: every entrance refuses what one would obey, before ssh_config is looked at."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from knnkit.cli import main
from knnkit.errors import KnnkitError, Unreachable
from knnkit.transport import foreign_config
from knnkit.transport.address import Address
from knnkit.transport.ssh.config import resolve

#: {} is a command that makes a file.
PAYLOADS = (
    "z$({})",
    "z`{}`",
    "z;{}",
    "z|{}",
    "z&{}",
    "z>{}",
    "z<{}",
    "z'{}'",
    'z"{}"',
    "z\\",
    "z({})",
    "z{{{}}}",
    "z\n{}",
    "z\t{}",
    "z {}",
    "-oProxyCommand={}",
    "z/../../{}",
)
CONFIGS = {
    "ProxyCommand": "ProxyCommand true %h %n %r; exit 1\n",
    "Match exec": 'Match exec "true %h %n %r"\n  Port 22\n',
    "key files": "IdentityFile ~/.ssh/%h-%n-%r\nUserKnownHostsFile ~/kh/%k\n",
}
#: Keys of deploy.yaml that name a host or a user, with what the name stands in.
YAML = {
    "host": ("host", "{}"),
    "user": ("user", "{}"),
    "jump": ("jump", "{}"),
    "jump's user": ("jump", "{}@gate"),
    "second jump": ("jump", "gate,{}"),
}
#: The words of a command line, and the place that the message must name.
WORDS: dict[str, tuple[tuple[str, ...], str]] = {
    "--target": (("status", "--target", "{}"), "--target"),
    "--target's user": (("status", "--target", "{}@board"), "--target"),
    "--jump": (("status", "--target", "board", "-J", "{}"), "--jump"),
    "--jump's user": (("status", "--target", "board", "-J", "gate,{}@gate2"), "--jump"),
    "trust": (("trust", "{}"), "HOST"),
    "trust's jump": (("trust", "board", "--jump", "{}"), "--jump"),
    "bench": (("bench", "--target", "{}"), "--target"),
    "provision": (("provision", "--target", "{}"), "--target"),
    "classify": (("classify", "--target", "{}", "--input", "rows.csv"), "--target"),
}

Outcome = tuple[int, str]


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest, no_ssh_config: Path) -> Path:
    no_ssh_config.write_text(CONFIGS[request.param])
    return no_ssh_config


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "made"


def run(capsys: pytest.CaptureFixture[str], *words: object) -> Outcome:
    try:
        code = main([str(word) for word in words])
    except SystemExit as error:
        code = int(error.code or 0)
    said = capsys.readouterr()
    return code, said.out + said.err


def payloads(made: Path) -> list[str]:
    return [payload.format(f"touch${{IFS}}{made}") for payload in PAYLOADS]


@pytest.mark.parametrize("entrance", WORDS)
def test_the_command_line_refuses_it(
    entrance: str, config: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, place = WORDS[entrance]
    for payload in payloads(made):
        if payload.startswith("-"):  # argparse would take it for an option
            words = tuple(word if word != "{}" else "x@{}" for word in words)
        code, said = run(capsys, *(word.replace("{}", payload) for word in words), "--ssh-config", config)
        assert (code, place in said) == (2, True), (payload, said)
        assert not made.exists(), payload


@pytest.mark.parametrize("part", YAML)
@pytest.mark.parametrize("where", ["targets", "defaults"])
def test_deploy_yaml_refuses_it_with_file_and_line(
    part: str, where: str, config: Path, made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    key, around = YAML[part]
    if (where, key) == ("defaults", "host"):
        where = "targets"  # hosts have no default
    host = "" if key == "host" else "host: board, "
    for payload in payloads(made):
        value = json.dumps(around.replace("{}", payload))
        line = f"targets: [{{{host}{key}: {value}}}]" if where == "targets" else f"defaults: {{{key}: {value}}}"
        (tmp_path / "deploy.yaml").write_text(f"fleet:\n  ssh_config: {config}\n  {line}\n")
        code, said = run(capsys, "status", "--ssh-config", config)
        assert (code, f"deploy.yaml:3: fleet.{where}" in said) == (2, True), (payload, said)
        assert not made.exists(), payload


def test_the_short_form_of_a_target_refuses_it(
    config: Path, made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for payload in payloads(made):
        for text in (payload, f"{payload}@board", f"pi@{payload}"):
            (tmp_path / "deploy.yaml").write_text(f"fleet:\n  targets:\n    - {json.dumps(text)}\n")
            code, said = run(capsys, "status", "--ssh-config", config)
            assert (code, "deploy.yaml:3: " in said) == (2, True), (payload, said)
            assert not made.exists(), payload


def test_a_report_with_such_a_name_is_refused(
    config: Path, made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for payload in payloads(made):
        device = {"name": payload, "address": payload, "outcome": "unreachable"}
        report = {"command": "deploy", "started": 0.0, "seconds": 0.0, "devices": [device]}
        (tmp_path / "report.json").write_text(json.dumps(report))
        words = ("status", "--target", "local", "--retry-from", "report.json")
        code, said = run(capsys, *words, "--ssh-config", config)
        assert (code, "report.json" in said) == (2, True), (payload, said)
        assert not made.exists(), payload


@pytest.mark.parametrize("part", ["host", "user", "jump"])
def test_an_address_made_in_python_is_refused(part: str, config: Path, made: Path) -> None:
    for payload in payloads(made):
        address = {"host": Address(payload), "user": Address("b", payload), "jump": Address("b", jump=payload)}[part]
        with pytest.raises(Unreachable) as caught:
            resolve(Address(address.host, address.user, jump=address.jump, config=str(config)))
        assert caught.value.reason in ("bad-name", "ssh-config")
        assert not made.exists(), payload


@pytest.mark.parametrize("name", ["board", "Board-1.example", "192.0.2.1", "fe80::1%eth0", "a_b", "home/board", "x#y"])
def test_names_that_people_have_pass(name: str, config: Path) -> None:
    assert resolve(Address(name, "p.i-1_x", 22, config=str(config))).user == "p.i-1_x"


# --- an ssh_config that a stranger wrote --------------------------------------------------------------------------
WAYS = {
    "Match exec": 'Match exec "touch {}"\n  Port 1\n',
    "lower case": 'match host * exec="touch {}"\n  Port 1\n',
    "quoted keyword": '"Match" exec "touch {}"\n  Port 1\n',
    "quote within": 'Ma"tch" ex"ec" "touch {}"\n  Port 1\n',
    "equals": 'Match=exec "touch {}"\n',
    "ProxyCommand": "ProxyCommand touch {}\n",
    "proxycommand": "Host *\n\tproxycommand=touch {}\n",
    "Include": "Include {}.inc\n",
    "Include of all": 'Host *\n  "include" {}.*\n',
}


@pytest.fixture(params=WAYS)
def strange(request: pytest.FixtureRequest, tmp_path: Path, made: Path, no_ssh_config: Path) -> Path:
    """A folder with a deploy.yaml of a stranger."""
    Path(f"{made}.inc").write_text(f'Match exec "touch {made}"\n')
    Path(f"{made}.inc").chmod(0o600)
    (tmp_path / "ssh_config").write_text(WAYS[request.param].format(made))
    (tmp_path / "deploy.yaml").write_text("fleet:\n  ssh_config: ssh_config\n  targets: [board.invalid]\n")
    return tmp_path


COMMANDS = (
    ("status",),
    ("status", "--target", "pi@other.invalid"),
    ("trust", "board.invalid"),
    ("trust", "other.invalid"),
    ("logs",),
    ("doctor",),
    ("provision",),
)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_strangers_ssh_config_runs_nothing(
    words: tuple[str, ...], strange: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run(capsys, *words, "--connect-retries", "0", "--connect-timeout", "2s")
    assert code == 2, said
    assert f"{strange}/ssh_config:" in said
    assert f"--ssh-config {strange}/ssh_config" in said
    assert not made.exists()


def test_a_strangers_ssh_config_under_the_home_runs_nothing(
    strange: Path, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """People clone what strangers wrote into their home."""
    monkeypatch.setenv("HOME", str(strange))
    code, said = run(capsys, "status", "--connect-retries", "0")
    assert (code, made.exists()) == (2, False), said


def test_it_runs_once_the_user_named_it(strange: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("status", "--connect-retries", "0", "--connect-timeout", "2s", "--ssh-config", strange / "ssh_config")
    code, said = run(capsys, *words)
    assert code == 3
    assert made.exists() or "ssh_config" in said, "neither obeyed nor refused"


def test_an_agreement_holds_for_the_very_file(tmp_path: Path, no_ssh_config: Path) -> None:
    file = tmp_path / "theirs"
    file.write_text("ProxyCommand true\n")
    to = Address("board", config=str(file), foreign=True)
    with pytest.raises(KnnkitError, match="may run a command here"):
        resolve(to)
    foreign_config.agree(file)
    assert resolve(to).proxy == "true"
    file.write_text("ProxyCommand false\n")
    with pytest.raises(KnnkitError, match=r"theirs:1: ProxyCommand false"):
        resolve(to)


def test_an_agreement_is_not_kept_for_a_file_that_brings_in_others(tmp_path: Path, no_ssh_config: Path) -> None:
    file = tmp_path / "theirs"
    file.write_text('"Inc"lude other\n')
    foreign_config.agree(file)
    assert not foreign_config.is_agreed(file)


def test_what_runs_no_command_needs_no_agreement(tmp_path: Path, no_ssh_config: Path) -> None:
    file = tmp_path / "theirs"
    file.write_text("# Match exec\nHost board\n  HostName 192.0.2.7\n")
    assert resolve(Address("board", config=str(file), foreign=True)).host == "192.0.2.7"


def test_the_users_own_needs_no_agreement(no_ssh_config: Path) -> None:
    own = Path(os.environ["HOME"]) / ".ssh" / "fleet"
    own.write_text("Host board\n ProxyCommand true\n")
    assert resolve(Address("board", config=str(own), foreign=True)).proxy == "true"
    assert pwd.getpwuid(os.getuid()).pw_dir != os.environ["HOME"]


@pytest.mark.parametrize("answer", ["y", "n"])
def test_a_person_at_a_terminal_is_asked_once(
    answer: str, tmp_path: Path, made: Path, no_ssh_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ssh_config").write_text(f"ProxyCommand touch {made}\n")
    (tmp_path / "deploy.yaml").write_text("fleet:\n  ssh_config: ssh_config\n  targets: [board.invalid]\n")
    words = ("status", "--connect-retries", "0", "--connect-timeout", "5s")
    ours, theirs = pty.openpty()
    program = [sys.executable, "-m", "knnkit", *words]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(program, stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs, env=env) as process:
        os.close(theirs)
        said = b""
        while b"[y/N]" not in said:
            said += os.read(ours, 4096)
        os.write(ours, f"{answer}\n".encode())
        with contextlib.suppress(OSError):  # a terminal whose last user is gone
            while os.read(ours, 4096):
                pass
    os.close(ours)
    assert f"{tmp_path}/ssh_config:1: ProxyCommand touch" in said.decode()
    assert (process.returncode, made.exists()) == ((3, True) if answer == "y" else (2, False))
    made.unlink(missing_ok=True)
    code, _ = run(capsys, *words)
    assert (code, made.exists()) == ((3, True) if answer == "y" else (2, False)), "the answer is kept"
