"""A server for the whole suite, and addresses that use its keys alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import sshd
from support.board_roots import copy_and_deploy, make_board
from support.releases import Releases

from knnkit.transport.address import Address
from knnkit.transport.ssh import keys
from knnkit.transport.ssh.connection import SshTransport

Dial = Callable[..., SshTransport]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    with sshd.running(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(scope="session")
def prepared(releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with agent, runtime and trusted key, and no release, to be copied: what provisioning leaves."""
    return make_board(tmp_path_factory.mktemp("board") / "root", releases)


@pytest.fixture(scope="session")
def first(prepared: Path, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root that runs iris 1.0.0, to be copied."""
    return copy_and_deploy(prepared, tmp_path_factory.mktemp("first") / "root", releases["iris"])


@pytest.fixture(scope="session")
def running(first: Path, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root that runs iris 1.1.0, and ran 1.0.0 before, to be copied."""
    return copy_and_deploy(first, tmp_path_factory.mktemp("running") / "root", releases["iris-next"])


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


@pytest.fixture
def encrypted(server: sshd.Sshd, tmp_path: Path) -> Path:
    """The server's own login key, with a passphrase."""
    path = tmp_path / "encrypted_key"
    shutil.copy(server.identity, path)
    path.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "open sesame", "-f", str(path)], check=True, capture_output=True)
    keys._loaded.clear()
    return path


@pytest.fixture
def agent(server: sshd.Sshd, tmp_path: Path) -> Iterator[Path]:
    """A key agent that holds the server's login key."""
    where = tmp_path / "agent.sock"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(where)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # it listens once it has said where
    env = os.environ | {"SSH_AUTH_SOCK": str(where)}
    subprocess.run(["ssh-add", "-q", str(server.identity)], check=True, env=env, capture_output=True)
    yield where
    process.terminate()
    process.wait(10)
    process.stdout.close()
