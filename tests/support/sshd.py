"""A real sshd on 127.0.0.x, an ordinary process of the current user, with its own host key and login key.

Its sessions have an empty home directory. The startup files of the current user would cost time in each session, and
could change a test.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SSHD = Path("/usr/sbin/sshd")
#: Of sessions: their python3 is this Python, from which the roots of the tests are made.
PATH = f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"

_CONFIG = """\
ListenAddress {host}:{port}
HostKey {directory}/host_key
PidFile none
AuthorizedKeysFile {directory}/authorized_keys
SetEnv "HOME={directory}/home" "PATH={path}"
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
LogLevel VERBOSE
{sftp}
{extra}
"""


def make_key(path: Path, *, kind: str = "ed25519", passphrase: str = "", bits: int | None = None) -> Path:
    """Makes a key pair with ssh-keygen; returns the private half."""
    size = ["-b", str(bits)] if bits else []
    command = ["ssh-keygen", "-q", "-t", kind, *size, "-N", passphrase, "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def free_port(host: str) -> int:
    """Returns a port that nothing listens at now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Sshd:
    """A running server; `known_hosts` holds its key, `identity` logs in."""

    directory: Path
    host: str
    port: int
    user: str
    process: subprocess.Popen[str]
    log: list[str] = field(default_factory=list)

    @property
    def identity(self) -> Path:
        return self.directory / "login_key"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def host_key(self) -> str:
        """Kind and base64 of the public host key."""
        return " ".join((self.directory / "host_key.pub").read_text().split()[:2])

    def count(self, text: str) -> int:
        """Returns how many lines of the server's log have `text`."""
        return sum(text in line for line in self.log)

    def stop(self) -> None:
        """Ends the server and the sessions under it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, 15)
        self.process.wait(10)


def start(
    directory: Path,
    *,
    host: str = "127.0.0.2",
    port: int = 0,
    extra: str = "",
    sftp: bool = True,
    login: Sequence[str] = (),
) -> Sshd:
    """Starts a server with its files in `directory`; keeps keys that are there already.

    `login` is what `own_login` returned, for another login shell.
    """
    (directory / "home").mkdir(parents=True, exist_ok=True)
    port = port or free_port(host)
    for name in ("host_key", "login_key"):
        if not (directory / name).exists():
            make_key(directory / name)
    (directory / "authorized_keys").write_text((directory / "login_key.pub").read_text())
    subsystem = "Subsystem sftp internal-sftp" if sftp else ""
    config = directory / "sshd_config"
    settings = {"host": host, "port": port, "directory": directory, "sftp": subsystem, "extra": extra, "path": PATH}
    config.write_text(_CONFIG.format(**settings))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    return _run(directory, host, port, [*login, str(SSHD), "-D", "-e", "-f", str(config)], "Server listening on")


def start_dropbear(directory: Path, login: Sequence[str], *, host: str = "127.0.0.2") -> Sshd:
    """Starts a Dropbear, the SSH server of small boards, for the account of `own_login`."""
    port = free_port(host)
    key = directory / "host_key"
    made = ["dropbearkey", "-t", "ed25519", "-f", str(key)]
    said = subprocess.run(made, check=True, capture_output=True, text=True).stdout
    key.with_suffix(".pub").write_text(next(line for line in said.splitlines() if line.startswith("ssh-ed25519")))
    make_key(directory / "login_key")
    keys = directory / "home/.ssh/authorized_keys"
    keys.parent.mkdir(mode=0o700)
    keys.write_text((directory / "login_key.pub").read_text())
    command = ["dropbear", "-F", "-E", "-s", "-r", str(key), "-p", f"{host}:{port}", "-P", str(directory / "pid")]
    return _run(directory, host, port, [*login, *command], "Not backgrounding")


def _run(directory: Path, host: str, port: int, command: Sequence[str], ready: str) -> Sshd:
    """Starts a server, waits until its log says `ready`, and writes its known_hosts."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    server = Sshd(directory, host, port, getpass.getuser(), process)
    _await_log(server, ready)
    (directory / "known_hosts").write_text(f"[{host}]:{port} {server.host_key}\n")
    return server


def own_login(directory: Path, shell: str) -> list[str]:
    """Returns the beginning of a command that runs with another login shell, and another home, for this user.

    Needs root: /etc/passwd is replaced in a mount namespace that ends with the command.
    """
    (directory / "home").mkdir(parents=True)
    name = f"{getpass.getuser()}:"
    lines = Path("/etc/passwd").read_text().splitlines()
    own = next(line for line in lines if line.startswith(name)).split(":")
    own[5:] = [str(directory / "home"), shell]
    users, shells = directory / "passwd", directory / "shells"
    users.write_text("".join(f"{line}\n" for line in (":".join(own), *lines) if line))
    shells.write_text(f"{shell}\n")  # Dropbear asks whether it is one
    program = 'mount --bind "$1" /etc/passwd && mount --bind "$2" /etc/shells && shift 2 && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", program, "sh", str(users), str(shells)]


def _await_log(server: Sshd, text: str) -> None:
    stderr = server.process.stderr
    assert stderr is not None
    for line in stderr:
        server.log.append(line)
        if text in line:
            break
    else:
        raise RuntimeError(f"the server did not start: {''.join(server.log)}")

    def drain() -> None:
        with stderr:
            server.log.extend(stderr)

    threading.Thread(target=drain, daemon=True).start()


@contextlib.contextmanager
def running(directory: Path, **options: object) -> Iterator[Sshd]:
    """A server for the length of a with block; takes what `start` takes."""
    server = start(directory, **options)  # type: ignore[arg-type]
    try:
        yield server
    finally:
        server.stop()
