"""ProxyCommand of ssh_config, against a real server: it connects, it is ended, and it says why it could not."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from knnkit.errors import Unreachable
from knnkit.transport.address import Address
from knnkit.transport.ssh.config import resolve
from knnkit.transport.ssh.connection import SshTransport
from knnkit.transport.ssh.proxy_command import ProxySocket

#: As `nc %h %p`; writes its process id first.
RELAY = """
import os, pathlib, select, socket, sys
pathlib.Path(sys.argv[3]).write_text(str(os.getpid()))
far = socket.create_connection((sys.argv[1], int(sys.argv[2])))
while True:
    for ready in select.select([0, far], [], [])[0]:
        data = os.read(0, 65536) if ready == 0 else far.recv(65536)
        if not data:
            sys.exit()
        far.sendall(data) if ready == 0 else os.write(1, data)
"""


@pytest.fixture
def pid(tmp_path: Path) -> Path:
    return tmp_path / "pid"


@pytest.fixture
def relay(tmp_path: Path, pid: Path) -> str:
    script = tmp_path / "relay.py"
    script.write_text(RELAY)
    return f"{sys.executable} {script} %h %p {pid}"


def configured(path: Path, command: str, more: str = "") -> str:
    path.write_text(f"UserKnownHostsFile none\nGlobalKnownHostsFile none\nProxyCommand {command}\n{more}")
    return str(path)


def is_gone(pid: int) -> bool:
    """Whether it ended; what is left of a grandchild waits for init to take note."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state in "ZX"


def assert_goes(pid: int) -> None:
    """What was killed is gone in no time, but not at once."""
    give_up = time.monotonic() + 60
    while not is_gone(pid):
        assert time.monotonic() < give_up, "it lives on"
        time.sleep(0.01)


def test_a_device_is_reached_through_the_command_which_ends_with_the_connection(
    address: Address, no_ssh_config: Path, relay: str, pid: Path
) -> None:
    transport = SshTransport.connect("board", replace(address, config=configured(no_ssh_config, relay)), timeout=20)
    assert transport.run(["echo", "in"], timeout=10).stdout == b"in\n"
    process = int(pid.read_text())
    assert not is_gone(process)
    transport.close()
    transport.close()
    assert_goes(process)


def test_the_command_is_told_the_port_and_the_user_that_were_written(no_ssh_config: Path) -> None:
    config = configured(no_ssh_config, "relay %h %p %r", "Host alias\n HostName 192.0.2.1\n Port 22\n User nobody\n")
    assert resolve(Address("alias", "pi", 2222, config=config)).proxy == "relay 192.0.2.1 2222 pi"
    found = resolve(Address("alias", config=config))
    assert found.proxy == "relay 192.0.2.1 22 nobody"
    assert found.by_hand("ssh") == "ssh -o 'ProxyCommand=relay 192.0.2.1 22 nobody' -p 22 nobody@192.0.2.1"


@pytest.mark.parametrize("more", ["none", "None"])
def test_none_is_no_command(no_ssh_config: Path, more: str) -> None:
    assert resolve(Address("board", config=configured(no_ssh_config, more))).proxy is None


def test_jump_hosts_that_were_written_come_before_the_command(no_ssh_config: Path) -> None:
    config = configured(no_ssh_config, "relay %h %p")
    assert resolve(Address("board", jump="none", config=config)).proxy is None
    through = resolve(Address("board", jump="gate", config=config))
    assert through.proxy is None
    assert through.jumps[0].proxy == "relay gate 22"  # it is how this machine reaches anything


def test_what_the_command_complains_of_is_said(address: Address, no_ssh_config: Path) -> None:
    config = configured(no_ssh_config, "sh -c 'echo no way to %h >&2; exit 3'")
    with pytest.raises(Unreachable, match=f"ProxyCommand sh .*: no way to {address.host}") as caught:
        SshTransport.connect("board", replace(address, config=config), timeout=20)
    assert caught.value.reason == "connect"


def test_a_command_that_says_nothing_and_ends_is_told_by_its_code(address: Address, no_ssh_config: Path) -> None:
    with pytest.raises(Unreachable, match="ended with exit code 7"):
        SshTransport.connect("board", replace(address, config=configured(no_ssh_config, "sh -c 'exit 7'")), timeout=20)


def test_a_command_that_is_silent_for_ever_is_given_up_and_ended(
    address: Address, no_ssh_config: Path, pid: Path
) -> None:
    """It ignores being asked, and so does what it started."""
    command = f"sh -c 'trap \"\" TERM HUP; sleep 300 & echo $! > {pid}; wait'"
    for seconds in (1, 5, 25):  # a busy machine may not have come to that within a second
        with pytest.raises(Unreachable, match=f"no connection within {seconds} s"):
            SshTransport.connect("board", replace(address, config=configured(no_ssh_config, command)), timeout=seconds)
        if pid.exists() and (started := pid.read_text()):
            break
    assert_goes(int(started))


def test_a_command_that_dies_later_is_a_lost_connection(
    address: Address, no_ssh_config: Path, relay: str, pid: Path
) -> None:
    transport = SshTransport.connect("board", replace(address, config=configured(no_ssh_config, relay)), timeout=20)
    os.kill(int(pid.read_text()), 9)
    with pytest.raises(Unreachable):
        transport.run(["echo", "in"], timeout=10)
    transport.close()


def test_nothing_stays_open() -> None:
    before = opened()
    proxy = ProxySocket("cat")
    proxy.sendall(b"round")
    assert proxy.recv(5) == b"round"
    assert opened() - before
    proxy.close()
    assert opened() - before == set()


def opened() -> set[str]:
    """What this process has open, by names that no other file has: another thread may close something meanwhile."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(path.readlink()))
    return {name for name in found if not name.startswith("/proc/")}
