"""ssh_config means to knnkit what it means to ssh, with an OpenSSH client and without one."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from support import sshd

from knnkit.cli import main
from knnkit.errors import HostKeyError, Unreachable
from knnkit.fleet.jobs.enrol_host_key import enrol_host
from knnkit.fleet.targets import Overrides, Target, select
from knnkit.transport.address import Address
from knnkit.transport.ssh import config as ssh_config
from knnkit.transport.ssh import openssh
from knnkit.transport.ssh.config import Resolved
from knnkit.transport.ssh.connection import SshTransport

Resolve = Callable[..., Resolved]


@pytest.fixture
def resolve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """Resolves a host by the text of an ssh_config."""
    monkeypatch.setenv("HOME", pwd.getpwuid(os.getuid()).pw_dir)

    def call(text: str, host: str = "board", **said: object) -> Resolved:
        config = tmp_path / "config"
        config.write_text(text)
        return ssh_config.resolve(Address(host, config=str(config), **said))  # type: ignore[arg-type]

    return call


# --- values ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "part", "value"),
    [
        ("Port 2231 # forwarded\n", "port", 2231),
        ("HostName 192.0.2.9 # by dhcp\n", "host", "192.0.2.9"),
        ("HostName=%h.example\n", "host", "board.example"),
        ('User "the user"\n', "user", "the user"),
        ("Match host=board\n Port 7\n", "port", 7),
        ("Match host=other\n Port 7\n", "port", 22),
        ("Host other\n Port 7\nMatch final all\n Port 8\n", "port", 8),
        ("Host never\nMatch !host board\n Port 7\nMatch all\n Port 9\n", "port", 9),
        ('Match exec "test %n = board"\n Port 7\n', "port", 7),
        ("ProxyCommand nc %h %p %n %r %%\nUser u\n", "proxy", "nc board 22 board u %"),
        ("ProxyCommand none\nProxyJump gw\n", "jumps", ()),
        ("HostKeyAlias The-Board\nPort 99\n", "key_name", "the-board"),
        ("IdentityAgent none\n", "agent", None),
        ("IdentityFile none\n", "identities", ()),
    ],
)
def test_a_value_is_what_ssh_takes(resolve: Resolve, text: str, part: str, value: object) -> None:
    assert getattr(resolve(text), part) == value


def test_files_of_keys_have_tokens_variables_and_quotes(
    resolve: Resolve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BK", str(tmp_path))
    home = pwd.getpwuid(os.getuid()).pw_dir
    lines = ("${BK}/k", "~/.ssh/id_%n", '"/my keys/%h"', "/%k-%r-%p", "/100%%")
    found = resolve("HostName x.example\nUser u\n" + "".join(f"IdentityFile {line}\n" for line in lines))
    assert found.identities == (
        f"{tmp_path}/k",
        f"{home}/.ssh/id_board",
        "/my keys/x.example",
        "/board-u-22",
        "/100%",
    )


def test_files_of_host_keys_have_tokens_quotes_and_are_several(
    resolve: Resolve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BK", str(tmp_path))
    home = pwd.getpwuid(os.getuid()).pw_dir
    text = 'HostName x.example\nUserKnownHostsFile ~/.ssh/kh/%k "/my hosts/%h" ${BK}/z\nGlobalKnownHostsFile none\n'
    assert resolve(text).known_hosts == (f"{home}/.ssh/kh/board", "/my hosts/x.example", f"{tmp_path}/z")


@pytest.fixture
def without_openssh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openssh, "client", lambda: None)


@pytest.mark.parametrize(
    ("text", "part", "value"),
    [
        ("HostName=192.0.2.9\r\n", "host", "192.0.2.9"),
        ("HostName 127.1\n", "host", "127.0.0.1"),
        ("Host never b*\n\tPort = 7\nMatch all\n Port 9\n", "port", 7),
        ("Host * !board\n Port 7\nMatch all\n Port 9\n", "port", 9),
        ("ProxyCommand nc %h %p %n %r %%\nUser u\n", "proxy", "nc board 22 board u %"),
        ("HostKeyAlias The-Board\nPort 99\n", "key_name", "the-board"),
        ("IdentityAgent none\n", "agent", None),
        ("IdentityFile none\n", "identities", ()),
        (
            "IdentityFile /k-%n-%p\nHost b*\nIdentityFile /b%%\nIdentityFile /b%%\n",
            "identities",
            ("/k-board-22", "/b%"),
        ),
        ("SendEnv LANG LC_*\nInclude /nowhere/*.conf\nUser u\n", "user", "u"),
        ("UserKnownHostsFile none\nGlobalKnownHostsFile /g\n", "known_hosts", ("/g",)),
    ],
)
def test_without_openssh_a_plain_value_is_what_ssh_takes(
    resolve: Resolve, text: str, part: str, value: object, request: pytest.FixtureRequest
) -> None:
    assert getattr(resolve(text), part) == value
    request.getfixturevalue("without_openssh")
    assert getattr(resolve(text), part) == value


@pytest.mark.parametrize("has_openssh", [True, False])
@pytest.mark.parametrize(
    "condition",
    ["localnetwork 198.51.100.0/24", "tagged lab", "sessiontype shell", "version OpenSSH_1*", 'command "x"', "zzz y"],
)
def test_a_condition_that_cannot_be_followed_never_applies_by_guess(
    resolve: Resolve, tmp_path: Path, condition: str, has_openssh: bool, request: pytest.FixtureRequest
) -> None:
    """Newer versions of OpenSSH know some of them, and then none holds here."""
    if not has_openssh:
        request.getfixturevalue("without_openssh")
    text = f"Host board\n Port 9\nMatch {condition}\n ProxyJump gw\n"
    word = condition.split()[0]
    said = ""
    try:
        assert resolve(text).jumps == ()
    except Unreachable as error:
        said = f"{error.reason}: {error}"
    assert said == "" or said.startswith(f"ssh-config: {tmp_path}/config:3: ")
    assert said == "" or word in said


# --- Include --------------------------------------------------------------------------------------------------------
def included(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_a_block_ends_with_the_file_that_is_included(resolve: Resolve, tmp_path: Path) -> None:
    inc = included(tmp_path / "inc", "Host other\n User wrong\n")
    assert resolve(f"Include {inc}\nUser pi\n").user == "pi"


def test_an_include_within_a_block_applies_only_with_it(resolve: Resolve, tmp_path: Path) -> None:
    inc = included(tmp_path / "inc2", "Host board\n Port 1111\n")
    assert resolve(f"Host never\n Include {inc}\nHost board\n Port 2200\n").port == 2200
    assert resolve(f"Host b*\n Include {inc}\nHost board\n Port 2200\n").port == 1111


def test_an_include_in_quotes_with_a_space_is_found(resolve: Resolve, tmp_path: Path) -> None:
    (tmp_path / "my configs").mkdir()
    included(tmp_path / "my configs" / "a", "Port 2200\n")
    assert resolve(f'Include "{tmp_path}/my configs/*"\n').port == 2200


def test_an_include_of_itself_is_said(resolve: Resolve, tmp_path: Path) -> None:
    (tmp_path / "config").touch(0o600)
    with pytest.raises(Unreachable, match=rf"{tmp_path}/config.*(within each other|recursive)"):
        resolve(f"Include {tmp_path}/config\n")


def test_an_include_that_others_may_write_is_refused(resolve: Resolve, tmp_path: Path) -> None:
    included(tmp_path / "inc", "Port 2200\n").chmod(0o666)
    with pytest.raises(Unreachable, match=f"{tmp_path}/inc"):
        resolve(f"Include {tmp_path}/inc\n")


# --- wrong ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("has_openssh", [True, False])
@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("Frobnicate yes", "frobnicate"),
        ("Port 70000", "70000"),
        ("Port", "port"),
        ("User a b", "user"),
        ('User "x', ""),
        ("IdentitiesOnly perhaps", ""),
        ("UserKnownHostsFile none /x", "none"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(
    resolve: Resolve, tmp_path: Path, line: str, word: str, has_openssh: bool, request: pytest.FixtureRequest
) -> None:
    if not has_openssh:
        request.getfixturevalue("without_openssh")
    with pytest.raises(Unreachable) as caught:
        resolve(f"Host other\n {line}\n")
    assert str(caught.value).startswith(f"{tmp_path}/config:2: "), caught.value
    assert word in str(caught.value).lower()
    assert caught.value.reason == "ssh-config"


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("CanonicalizeHostname yes", "canonicalizehostname"),
        ("CertificateFile /c", "certificatefile"),
        ("UserKnownHostsFile ~/%C", "~/%C"),
        ("UserKnownHostsFile /a /b", "/b"),
        ("Include ${HOME}/x", "${HOME}/x"),
        ("Include /etc/*", "/etc/*"),
        ("Match tagged lab", "tagged"),
        ("Match host board", "host"),
        ("Host b[o]ard", "b[o]ard"),
        ("Port 2231 # forwarded", "#"),
        ("HostName %h.example", "%h.example"),
        ('User "the user"', '"the'),
        ("User ann\u00e9", "ann\\xc3\\xa9"),
        ("IdentityFile ~ann/k", "~ann/k"),
        ("IdentityFile /k%C", "/k%C"),
        ("ProxyCommand sh -c 'nc x'", "'nc"),
        ("ProxyJump gw\n ProxyCommand nc", "proxycommand"),
        ("ProxyCommand None", "None"),
        ("Ciphers a\\b", "a\\b"),
        ("\u00a0# Port 7", "\\xc2\\xa0#"),
        ('"Port" 7', '"Port"'),
    ],
)
def test_what_only_openssh_can_follow_is_refused_without_it(
    line: str, word: str, tmp_path: Path, without_openssh: None
) -> None:
    config = tmp_path / "config"
    config.write_text(f"\n{line}\n")
    said = rf"{config}:[23]: {re.escape(word)}.*: knnkit cannot follow .* without OpenSSH's ssh"
    with pytest.raises(Unreachable, match=said):
        ssh_config.resolve(Address("board", config=str(config)))


# --- whose ssh_config -----------------------------------------------------------------------------------------------
@pytest.fixture
def system_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "system_config"
    monkeypatch.setattr("knnkit.transport.ssh.config_file.SYSTEM_CONFIG", str(path))
    return path


def test_the_systems_ssh_config_comes_after_the_users(
    no_ssh_config: Path, system_config: Path, without_openssh: None
) -> None:
    system_config.write_text("Port 2200\nHost board\n Port 2200\n User nobody\n")
    (Path(os.environ["HOME"]) / ".ssh" / "config").write_text("Host board\n User pi\nHost other\n")
    found = ssh_config.resolve(Address("board"))
    assert (found.user, found.port) == ("pi", 2200)


@pytest.mark.parametrize("has_openssh", [True, False])
def test_the_users_folder_is_that_of_home(
    no_ssh_config: Path, system_config: Path, has_openssh: bool, request: pytest.FixtureRequest
) -> None:
    """Where $HOME is not the account's, with a file in it and without one."""
    if not has_openssh:
        request.getfixturevalue("without_openssh")
    folder = Path(os.environ["HOME"]) / ".ssh"
    known = (f"{folder}/known_hosts", f"{folder}/known_hosts2")
    first = ssh_config.resolve(Address("board"))
    (folder / "config").write_text("Host board\n Port 2200\n")
    second = ssh_config.resolve(Address("board"))
    assert (first.port, second.port) == (22, 2200)
    assert first.known_hosts[:2] == second.known_hosts[:2] == known
    assert all(path.startswith(f"{folder}/") for path in second.identities)


def test_a_named_ssh_config_stands_alone(no_ssh_config: Path, system_config: Path) -> None:
    system_config.write_text("Port 2200\n")
    assert ssh_config.resolve(Address("board", config=str(no_ssh_config))).port == 22


@pytest.mark.skipif(os.geteuid() != 0, reason="writes /etc/ssh")
def test_openssh_reads_the_systems_ssh_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", pwd.getpwuid(0).pw_dir)
    extra = Path("/etc/ssh/ssh_config.d/knnkit-test.conf")
    extra.write_text("Host knnkit-test.invalid\n Port 2299\n")
    try:
        assert ssh_config.resolve(Address("knnkit-test.invalid")).port == 2299
    finally:
        extra.unlink()


def test_a_command_that_waits_for_ever_is_ended_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", pwd.getpwuid(os.getuid()).pw_dir)
    monkeypatch.setattr(openssh, "_SECONDS", 1.0)
    config = tmp_path / "config"
    config.write_text('Match exec "sleep 300"\n')
    with pytest.raises(Unreachable, match="did not end within 1 s: find the command of `Match exec`"):
        ssh_config.resolve(Address("board", config=str(config)))


def test_what_a_command_leaves_in_the_background_is_not_waited_for(resolve: Resolve, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    found = resolve(f'Match exec "setsid sleep 300 & echo $! > {pid}"\n Port 7\n')
    os.kill(int(pid.read_text()), 9)
    assert found.port == 7


def test_each_host_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", pwd.getpwuid(os.getuid()).pw_dir)
    count = tmp_path / "count"
    config = tmp_path / "config"
    config.write_text(f'Match originalhost gw exec "echo x >> {count}"\nHost board-*\n ProxyJump gw\n')
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: ssh_config.resolve(Address(f"board-{n}", config=str(config))), range(24)))
    assert {one.jumps[0].host for one in found} == {"gw"}
    assert count.read_text() == "x\n"


# --- a hint names what the user typed ---------------------------------------------------------------------------------
def typed(text: str, **said: str) -> Address:
    address = select(None, named=[text], overrides=Overrides(**said))[0].address
    assert address is not None
    return address


def test_an_unknown_key_names_the_target_as_it_was_typed(
    server: sshd.Sshd, no_ssh_config: Path, tmp_path: Path
) -> None:
    config = tmp_path / "fleet config"
    config.write_text(
        f"GlobalKnownHostsFile none\nUserKnownHostsFile {tmp_path}/kh\n"
        f"Host green*\n HostName {server.host}\n Port {server.port}\n User {server.user}\n"
    )
    to = typed("greenhouse", ssh_config=str(config))
    with pytest.raises(HostKeyError) as caught:
        SshTransport.connect("greenhouse", to, timeout=10)
    assert caught.value.hint == f"knnkit trust greenhouse --ssh-config '{config}'"


def test_behind_a_jump_host_each_hint_leads_to_the_next(
    server: sshd.Sshd,
    no_ssh_config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Typing each hint, with nothing else, ends with a login at the right machine."""
    monkeypatch.chdir(tmp_path)
    with sshd.running(tmp_path / "gateway", host="127.0.0.3") as gateway:
        (gateway.directory / "authorized_keys").write_text(Path(f"{server.identity}.pub").read_text())
        jump = f"{gateway.user}@{gateway.host}:{gateway.port}"
        known = tmp_path / "kh"
        no_ssh_config.write_text(f"GlobalKnownHostsFile none\nUserKnownHostsFile {known}\n")
        config, identity = str(no_ssh_config), str(server.identity)
        to = typed(f"{server.user}@{server.host}:{server.port}", jump=jump, identity=identity, ssh_config=config)
        for said in (
            f"knnkit trust {jump} --ssh-config {config}",
            f"knnkit trust {server.user}@{server.host}:{server.port} -J {jump} -i {identity} --ssh-config {config}",
        ):
            with pytest.raises(HostKeyError) as caught:
                SshTransport.connect("board", to, timeout=15)
            assert caught.value.hint == said
            assert main([*shlex.split(said)[1:], "--yes"]) == 0, capsys.readouterr().err
        SshTransport.connect("board", to, timeout=15).close()
        assert [line.split()[0] for line in known.read_text().splitlines()] == [
            f"[{gateway.host}]:{gateway.port}",
            f"[{server.host}]:{server.port}",
        ]


@pytest.mark.parametrize("hashed", ["yes", "no"])
def test_trust_writes_the_file_that_ssh_reads(
    hashed: str, server: sshd.Sshd, no_ssh_config: Path, tmp_path: Path
) -> None:
    no_ssh_config.write_text(
        f"GlobalKnownHostsFile none\nUserKnownHostsFile {tmp_path}/kh/%k\nHashKnownHosts {hashed}\n"
        f"Host board\n HostName {server.host}\n Port {server.port}\n"
    )
    to = Address("board", server.user, identity=str(server.identity), config=str(no_ssh_config))
    enrol_host(Target("board", to), agree=lambda *_: True, timeout=10)
    (path,) = (tmp_path / "kh").iterdir()
    assert path.name == "board"
    SshTransport.connect("board", replace(to), timeout=10).close()
    assert (server.host in path.read_text()) == (hashed == "no")
    name = f"[{server.host}]:{server.port}"
    found = subprocess.run(["ssh-keygen", "-F", name, "-f", path], check=True, capture_output=True, text=True).stdout
    assert f"Host {name} found" in found, "OpenSSH finds the name, plain or hashed"
