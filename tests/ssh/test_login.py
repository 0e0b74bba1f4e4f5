"""Logging in: keys, agents, ssh_config and jump hosts, against real servers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support import sshd

from knnkit.errors import HostKeyError, Unreachable
from knnkit.fleet.jobs.enrol_host_key import enrol_host
from knnkit.fleet.targets import Target
from knnkit.transport.address import Address
from knnkit.transport.ssh.config import resolve
from knnkit.transport.ssh.connection import SshTransport

ROOT = Path(__file__).parents[2]


def enter(to: Address) -> str:
    transport = SshTransport.connect("board", to, timeout=15)
    try:
        return transport.run(["echo", "in"], timeout=10).stdout.decode().strip()
    finally:
        transport.close()


def test_a_named_key_lets_in(address: Address) -> None:
    assert enter(address) == "in"


def test_a_key_that_the_server_does_not_know_is_told_with_what_was_tried(address: Address, tmp_path: Path) -> None:
    stranger = sshd.make_key(tmp_path / "stranger")
    with pytest.raises(Unreachable, match=r"none of the keys for \w+ \(.*stranger\)") as caught:
        enter(replace(address, identity=str(stranger)))
    assert caught.value.reason == "authentication"
    assert caught.value.hint.startswith(f"ssh-copy-id -i {stranger} -p ")  # without -i, it takes another key


def test_a_server_that_wants_a_password_is_told_how_it_could_take_a_key(address: Address, tmp_path: Path) -> None:
    only = "Match all\n PubkeyAuthentication no\n PasswordAuthentication yes"
    with sshd.running(tmp_path / "strict", host="127.0.0.5", extra=only) as strict:
        there = replace(
            address,
            host=strict.host,
            port=strict.port,
            identity=str(strict.identity),
            known_hosts=(str(strict.known_hosts),),
        )
        with pytest.raises(Unreachable, match=r"accepts no keys from \w+, only .*password") as caught:
            enter(there)
    assert caught.value.hint.startswith("knnkit sends no password: set `PubkeyAuthentication yes`")
    assert caught.value.hint.endswith(f"ssh-copy-id -i {strict.identity} -p {strict.port} {strict.user}@{strict.host}")


def test_a_key_file_that_others_may_read_is_not_used(address: Address, server: sshd.Sshd, tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    shutil.copy(server.identity, loose)
    loose.chmod(0o644)
    with pytest.raises(Unreachable, match=f"may be read by other users: chmod 600 {loose}"):
        enter(replace(address, identity=str(loose)))


@pytest.mark.parametrize("content", ["", "not a key", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH"])
def test_a_file_that_is_no_key_is_named(address: Address, tmp_path: Path, content: str) -> None:
    path = tmp_path / "no_key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(Unreachable, match="no_key"):
        enter(replace(address, identity=str(path)))


def test_a_missing_named_key_is_named(address: Address, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="gone does not exist") as caught:
        enter(replace(address, identity=str(tmp_path / "gone")))
    assert caught.value.hint.startswith("--identity FILE"), "the board is not what is wrong"
    (tmp_path / "gona").touch()
    with pytest.raises(Unreachable, match=r"gone does not exist; did you mean gona\?"):
        enter(replace(address, identity=str(tmp_path / "gone")))


def test_the_passphrase_comes_from_the_environment(
    address: Address, encrypted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unreachable, match="has a passphrase: ssh-add it, or set KNNKIT_SSH_PASSPHRASE"):
        enter(replace(address, identity=str(encrypted)))
    monkeypatch.setenv("KNNKIT_SSH_PASSPHRASE", "wrong")
    with pytest.raises(Unreachable, match="encrypted_key: the passphrase is wrong"):
        enter(replace(address, identity=str(encrypted)))
    monkeypatch.setenv("KNNKIT_SSH_PASSPHRASE", "open sesame")
    assert enter(replace(address, identity=str(encrypted))) == "in"


def test_the_agent_lets_in(address: Address, agent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    assert enter(replace(address, identity=None)) == "in"


def test_with_a_named_key_the_agents_keys_are_not_offered(
    address: Address, agent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    stranger = sshd.make_key(tmp_path / "stranger")
    with pytest.raises(Unreachable, match="accepts none of the keys"):
        enter(replace(address, identity=str(stranger)))


def test_an_encrypted_key_that_the_agent_holds_needs_no_passphrase(
    address: Address, server: sshd.Sshd, encrypted: Path, agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    shutil.copy(f"{server.identity}.pub", f"{encrypted}.pub")
    assert enter(replace(address, identity=str(encrypted))) == "in"


def test_an_agent_that_is_gone_is_said(address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "nowhere"))
    with pytest.raises(Unreachable, match="no agent at"):
        enter(replace(address, identity=None))


# --- ssh_config ---------------------------------------------------------------------------------------------------
def write_config(path: Path, text: str) -> str:
    path.write_text("GlobalKnownHostsFile none\n" + text)
    return str(path)


def test_an_alias_brings_host_port_user_key_and_known_hosts(server: sshd.Sshd, no_ssh_config: Path) -> None:
    config = write_config(
        no_ssh_config,
        f"Host greenhouse\n HostName {server.host}\n Port {server.port}\n User {server.user}\n"
        f" IdentityFile {server.identity}\n IdentitiesOnly yes\n UserKnownHostsFile {server.known_hosts}\n",
    )
    assert enter(Address("greenhouse", config=config)) == "in"


def test_what_the_user_wrote_comes_before_ssh_config(server: sshd.Sshd, no_ssh_config: Path, tmp_path: Path) -> None:
    config = write_config(no_ssh_config, "Host board\n HostName 192.0.2.1\n Port 9\n User nobody\n IdentityFile ~/no\n")
    found = resolve(Address("board", "pi", 2222, identity="/key", config=config, known_hosts=("/fleet",)))
    assert (found.host, found.user, found.port, found.identities) == ("192.0.2.1", "pi", 2222, ("/key",))
    assert found.identities_only
    assert found.known_hosts[0] == "/fleet"


def test_includes_are_followed_and_later_blocks_fill_in(no_ssh_config: Path, tmp_path: Path) -> None:
    home = Path(os.environ["HOME"])
    (home / ".ssh" / "conf.d").mkdir()
    (home / ".ssh" / "conf.d" / "a.conf").write_text("Host board\n Port 2200\n")
    (tmp_path / "other.conf").write_text("Host board\n User pi\n Port 1\n")
    config = write_config(no_ssh_config, f"Include conf.d/*.conf\nInclude = {tmp_path}/other.conf\n")
    found = resolve(Address("board", config=config))
    assert (found.port, found.user) == (2200, "pi")


def test_a_match_by_command_is_followed(no_ssh_config: Path) -> None:
    config = write_config(no_ssh_config, "Match exec true\n Port 2200\nMatch exec false\n User nobody\n")
    assert resolve(Address("board", "pi", config=config)).port == 2200


def test_connecting_does_not_wait_for_what_runs_tasks() -> None:
    """It would take a third of the time in which knnkit is ready to connect."""
    script = (
        "import sys, knnkit.transport.ssh.connection; assert not {'invoke', 'unittest'} & set(sys.modules);"
        "assert 'paramiko' in sys.modules; import invoke"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


def test_identity_agent_is_taken_or_left(
    server: sshd.Sshd, no_ssh_config: Path, agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = f" HostName {server.host}\n Port {server.port}\n UserKnownHostsFile {server.known_hosts}\n"
    config = write_config(no_ssh_config, f"Host a\n IdentityAgent {agent}\n{rest}Host b\n IdentityAgent none\n{rest}")
    assert enter(Address("a", server.user, config=config)) == "in"
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    with pytest.raises(Unreachable, match="there is no key to offer"):
        enter(Address("b", server.user, config=config))


def test_a_host_key_alias_is_what_known_hosts_knows_whatever_the_port_as_in_ssh(
    server: sshd.Sshd, no_ssh_config: Path, tmp_path: Path
) -> None:
    known = tmp_path / "alias_known"
    known.write_text(f"the-board {server.host_key}\n")
    config = write_config(no_ssh_config, f"Host {server.host}\n HostKeyAlias the-board\n UserKnownHostsFile {known}\n")
    assert server.port != 22
    login = [*("-i", str(server.identity), "-p", str(server.port)), f"{server.user}@{server.host}", "echo in"]
    command = ["ssh", "-F", config, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", *login]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "in\n"
    to = Address(server.host, server.user, server.port, identity=str(server.identity), config=config)
    assert enter(to) == "in"
    known.write_text(f"[the-board]:{server.port} {server.host_key}\n")
    assert subprocess.run(command, capture_output=True, text=True).returncode == 255
    with pytest.raises(HostKeyError, match=r"the-board is not in known_hosts"):
        enter(to)


def test_a_host_is_enrolled_under_its_alias(server: sshd.Sshd, no_ssh_config: Path, tmp_path: Path) -> None:
    known = tmp_path / "alias_known"
    config = write_config(no_ssh_config, f"Host {server.host}\n HostKeyAlias the-board\n UserKnownHostsFile {known}\n")
    to = Address(server.host, server.user, server.port, identity=str(server.identity), config=config)
    enrol_host(Target("board", to), agree=lambda *_: True, timeout=10.0)
    assert known.read_text().split()[0] == "the-board"
    assert enter(to) == "in"


def test_strict_host_key_checking_cannot_be_switched_off(server: sshd.Sshd, no_ssh_config: Path) -> None:
    config = write_config(no_ssh_config, "Host *\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n")
    to = Address(server.host, server.user, server.port, identity=str(server.identity), config=config)
    with pytest.raises(HostKeyError, match="not in known_hosts"):
        enter(to)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Host *\n ProxyJump -oX\n", "is not an address"),
        ("Host *\n ProxyJump *bad host*\n", r"via \*bad"),
        ("Host a\n ProxyJump b\nHost b\n ProxyJump a\n", "more than 8 hosts"),
        ("Host 'x\n", ":2: .*quotes"),
        ("Host *\n Port board\n", "Bad port 'board'"),
        ("Host *\n Port 65536\n", "Bad port '65536'"),
    ],
)
def test_an_ssh_config_that_cannot_be_followed_is_named(no_ssh_config: Path, text: str, said: str) -> None:
    with pytest.raises(Unreachable, match=said) as caught:
        resolve(Address("a", config=write_config(no_ssh_config, text)))
    assert caught.value.reason == "ssh-config"


# --- jump hosts ---------------------------------------------------------------------------------------------------
@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[sshd.Sshd]:
    with sshd.running(tmp_path / "gateway", host="127.0.0.3") as running:
        yield running


def test_through_a_jump_host_both_host_keys_are_checked(
    server: sshd.Sshd, gateway: sshd.Sshd, no_ssh_config: Path, tmp_path: Path
) -> None:
    (gateway.directory / "authorized_keys").write_text(Path(f"{server.identity}.pub").read_text())
    known = tmp_path / "both"
    known.write_text(server.known_hosts.read_text() + gateway.known_hosts.read_text())
    to = Address(
        server.host,
        server.user,
        server.port,
        identity=str(server.identity),
        jump=f"{gateway.user}@{gateway.host}:{gateway.port}",
        config=str(no_ssh_config),
        known_hosts=(str(known),),
    )
    assert enter(to) == "in"
    assert gateway.count("Accepted publickey") == 1
    with pytest.raises(HostKeyError, match=r"127\.0\.0\.3"):
        enter(replace(to, known_hosts=(str(server.known_hosts),)))
    with pytest.raises(HostKeyError, match=r"127\.0\.0\.2"):
        enter(replace(to, known_hosts=(str(gateway.known_hosts),)))
    with pytest.raises(Unreachable, match="the jump host cannot reach the device"):
        enter(replace(to, port=sshd.free_port(server.host)))


def test_a_jump_host_that_is_not_there_is_named_and_not_the_device(server: sshd.Sshd, no_ssh_config: Path) -> None:
    to = Address(server.host, server.user, server.port, jump="ann@gate.invalid", config=str(no_ssh_config))
    with pytest.raises(Unreachable, match=rf"{server.port}\): jump host gate\.invalid:22: the name does not") as caught:
        enter(to)
    assert caught.value.hint.endswith("ssh -v -p 22 ann@gate.invalid")
    port = sshd.free_port("127.0.0.3")
    with pytest.raises(Unreachable, match=rf"jump host 127\.0\.0\.3:{port}: nothing listens there"):
        enter(replace(to, jump=f"127.0.0.3:{port}"))


def test_proxy_jump_of_ssh_config_and_none_to_switch_it_off(
    server: sshd.Sshd, gateway: sshd.Sshd, no_ssh_config: Path
) -> None:
    config = write_config(
        no_ssh_config,
        f"Host gate\n HostName {gateway.host}\n Port {gateway.port}\n User {gateway.user}\n"
        f" IdentityFile {gateway.identity}\n IdentitiesOnly yes\n UserKnownHostsFile {gateway.known_hosts}\n"
        f"Host board\n HostName {server.host}\n Port {server.port}\n User {server.user}\n ProxyJump gate\n"
        f" IdentityFile {server.identity}\n IdentitiesOnly yes\n UserKnownHostsFile {server.known_hosts}\n",
    )
    assert enter(Address("board", config=config)) == "in"
    assert gateway.count("Accepted publickey") == 1
    assert enter(Address("board", jump="none", config=config)) == "in"
    assert gateway.count("Accepted publickey") == 1
