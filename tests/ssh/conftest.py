"""A server for the whole suite, and addresses that use its keys alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import sshd

from knnkit.transport.address import Address
from knnkit.transport.ssh.connection import SshTransport

Dial = Callable[..., SshTransport]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    with sshd.running(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def address(server: sshd.Sshd, no_ssh_config: Path) -> Address:
    return Address(
        server.host,
        server.user,
        server.port,
        identity=str(server.identity),
        config=str(no_ssh_config),
        known_hosts=(str(server.known_hosts),),
    )


@pytest.fixture
def no_ssh_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keeps the ssh_config, the keys and the agent of whoever runs the tests out of them."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.delenv("KNNKIT_SSH_PASSPHRASE", raising=False)
    config = tmp_path / "no_ssh_config"
    config.write_text("UserKnownHostsFile none\nGlobalKnownHostsFile none\n")
    return config


@pytest.fixture
def dial(address: Address) -> Iterator[Dial]:
    """Opens connections that are closed when the test ends."""
    opened: list[SshTransport] = []

    def connect(to: Address = address, timeout: float = 10.0) -> SshTransport:
        opened.append(SshTransport.connect("board", to, timeout=timeout))
        return opened[-1]

    yield connect
    for transport in opened:
        transport.close()
