"""Emulated boards: real ARM programs under qemu, reached by SSH on 127.0.0.x, as bare as a board out of its box.

    scripts/emulated-device aarch64 bookworm            start it (made in seconds the first time)
    scripts/emulated-device aarch64 bookworm stop       pull the plug: every process on it dies at once
    scripts/emulated-device aarch64 bookworm remove     stop it and forget what was on it
    scripts/emulated-device aarch64 bookworm run        start it; stop and remove it when standard input ends

A board has a process, mount and host name space of its own, so that nothing of it outlives it and nothing on this
machine is changed: its user `pi` exists only there. Its root file system is cached and never written; what the board
writes lies in a folder of its own. It shares this machine's network. Needs root, and from the distribution mmdebstrap,
qemu-user-static, binfmt-support and openssh-server. Time nothing there: emulation is slow. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from emulated_system import (
    DEBIAN,
    DISTS,
    PROCESSORS,
    UID,
    USER,
    Trouble,
    check_machine,
    cpuinfo,
    locked,
    make_system,
    run,
)

ACTIONS = ("start", "stop", "remove", "run", "make", "inside")
PATIENCE = 60.0


@dataclass(frozen=True)
class Board:
    """A running board: its address and login, and the process whose end stops it."""

    name: str
    arch: str
    dist: str
    user: str
    address: str
    port: int
    identity: str
    known_hosts: str
    ssh_config: str
    pid: int  # of what keeps it; with `started` it is sure to be that process
    started: str
    first: int  # its own first process: gone when everything on it is
    first_started: str


def boards_folder() -> Path:
    """Under sudo, the folder is that of the user who typed it: root's own could not be read afterwards."""
    user = os.environ.get("SUDO_USER", "") if os.geteuid() == 0 else ""
    return Path(os.environ.get("KNNKIT_BOARDS") or f"~{user}/.cache/knnkit/boards").expanduser().resolve()


def give_back(*paths: Path) -> None:
    """Under sudo, gives files to the user who typed it: ssh refuses a key and a configuration of somebody else."""
    if os.geteuid() == 0 and "SUDO_UID" in os.environ:
        owner, group = int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"])
        for path in paths:
            os.chown(path, owner, group, follow_symlinks=False)


def make_folder(path: Path) -> None:
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    give_back(*missing)


def start(folder: Path, words: argparse.Namespace, name: str) -> Board:
    arch, dist, address, port = words.arch, words.dist, words.address, words.port
    check_machine(arch)
    home = folder / "boards" / name
    make_folder(home)
    system = make_system(folder, arch, dist)
    with locked(home):
        board = running(folder, name)
        if board:
            return board
        for part in ("upper", "work"):
            (home / part).mkdir(exist_ok=True)
        identity, host_key = make_key(folder / "id_ed25519"), make_key(home / "host_key")
        address = address or free_address(folder)
        port = port or free_port(address)
        write_settings(home, arch, address, port)
        command = [sys.executable, __file__, arch, dist, "inside", "--name", name]
        env = {"KNNKIT_BOARDS": str(folder), "BOARD_SYSTEM": str(system), "BOARD_DISK": words.disk}
        process = launch(command, env, home / "log", mortal=words.action == "run")
        wait_for(process, address, port, home / "log")
        board = Board(
            name,
            arch,
            dist,
            USER,
            address,
            port,
            str(identity),
            str(home / "known_hosts"),
            str(home / "ssh_config"),
            process.pid,
            age_of(process.pid),
            first := first_child(process.pid),
            age_of(first),
        )
        describe(home, board, host_key)
    return board


def launch(command: list[str], env: dict[str, str], log: Path, *, mortal: bool) -> subprocess.Popen[bytes]:
    """Runs a command in its own name spaces; a `mortal` one ends with this process, even if this is killed."""
    apart = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", *command]
    with log.open("wb") as sink:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *apart] if mortal else apart,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
            env=os.environ | env,
        )


def make_key(path: Path) -> Path:
    if not path.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "emulated-device", "-f", str(path))
    return path


def free_address(folder: Path) -> str:
    taken = {board.address for board in all_boards(folder)}
    return next(address for number in range(41, 255) if (address := f"127.0.0.{number}") not in taken)


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def write_settings(home: Path, arch: str, address: str, port: int) -> None:
    processor = f"SetEnv QEMU_CPU={PROCESSORS[arch][0]}" if arch in PROCESSORS else ""
    (home / "sshd_config").write_text(f"""\
ListenAddress {address}
Port {port}
HostKey {home}/host_key
PidFile none
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowUsers {USER}
StrictModes no
AuthorizedKeysFile /run/board/authorized_keys
ChrootDirectory /run/board/system
Subsystem sftp internal-sftp
MaxStartups 100
MaxSessions 50
PrintMotd no
PrintLastLog no
{processor}
""")


def wait_for(process: subprocess.Popen[bytes], address: str, port: int, log: Path) -> None:
    give_up = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < give_up:
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
            return
        time.sleep(0.05)
    process.kill()
    process.wait()
    raise Trouble(f"the board did not start: {log.read_text(errors='replace').strip()[-500:]}")


def describe(home: Path, board: Board, host_key: Path) -> None:
    """Writes what ssh and this script need to find the board again."""
    key = host_key.with_suffix(".pub").read_text().split()
    (home / "known_hosts").write_text(f"[{board.address}]:{board.port} {key[0]} {key[1]}\n")
    (home / "ssh_config").write_text(
        f"Host {board.name}\n  HostName {board.address}\n  Port {board.port}\n  User {board.user}\n"
        f"  IdentityFile {board.identity}\n  IdentitiesOnly yes\n  UserKnownHostsFile {board.known_hosts}\n"
    )
    part = home / "board.json.part"
    part.write_text(json.dumps(asdict(board), indent=2) + "\n")
    part.rename(home / "board.json")
    give_back(*map(Path, (board.identity, f"{board.identity}.pub", board.known_hosts, board.ssh_config)))


def inside(folder: Path, name: str, arch: str) -> None:
    """Runs in the board's own name spaces, as its first process; becomes its sshd."""
    home, system = folder / "boards" / name, os.environ["BOARD_SYSTEM"]
    run("mount", "--make-rprivate", "/")
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    root = Path("/run/board/system")
    for path in (root, Path("/run/sshd")):
        path.mkdir(parents=True)
    shutil.copy(folder / "id_ed25519.pub", "/run/board/authorized_keys")
    layers = f"lowerdir={system},upperdir={home}/upper,workdir={home}/work"
    run("mount", "-t", "overlay", "-o", layers, "overlay", str(root))
    run("mount", "-t", "proc", "proc", str(root / "proc"))
    run("mount", "--bind", "/dev/pts", str(root / "dev/pts"))
    # Without it XNNPACK finds no processor, and leaves every graph to the plain kernels.
    (root / "sys").mkdir(exist_ok=True)
    run("mount", "--bind", "/sys", str(root / "sys"))
    run("mount", "-o", "remount,bind,ro", str(root / "sys"))
    if arch in PROCESSORS:
        Path("/run/board/cpuinfo").write_text(cpuinfo(arch, os.cpu_count() or 1))
        run("mount", "--bind", "/run/board/cpuinfo", str(root / "proc/cpuinfo"))
    if os.environ["BOARD_DISK"]:
        options = f"size={os.environ['BOARD_DISK']},mode=700,uid={UID},gid={UID}"
        run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(root / "home" / USER))
    lend_user()
    socket.sethostname(name)
    os.execv("/usr/sbin/sshd", ["/usr/sbin/sshd", "-D", "-e", "-f", str(home / "sshd_config")])


def lend_user() -> None:
    """Makes the board's user known to its sshd, and to nobody else on this machine.

    Mounts over the whole of /etc: a mount over a single file would be lost when this machine replaces that file, which
    happens at every change of its users.
    """
    for part in ("upper", "work"):
        Path("/run/board/etc", part).mkdir(parents=True)
    run(
        "mount",
        "-t",
        "overlay",
        "-o",
        "lowerdir=/etc,upperdir=/run/board/etc/upper,workdir=/run/board/etc/work",
        "overlay",
        "/etc",
    )
    entries = {"passwd": f"{USER}:x:{UID}:{UID}::/home/{USER}:/bin/bash", "shadow": f"{USER}:*:::::::"}
    for name, entry in entries.items():
        path = Path("/etc", name)
        kept = [line for line in path.read_text().splitlines() if not line.startswith(f"{USER}:")]
        path.write_text("\n".join([*kept, entry]) + "\n")


def running(folder: Path, name: str) -> Board | None:
    """Returns the board if it is on; removes the record of one that died."""
    try:
        board = Board(**json.loads((folder / "boards" / name / "board.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return board if age_of(board.pid) == board.started else None


def all_boards(folder: Path) -> list[Board]:
    names = [path.parent.name for path in sorted(folder.glob("boards/*/board.json"))]
    return [board for name in names if (board := running(folder, name))]


def first_child(pid: int) -> int:
    """Returns the id, on this machine, of the board's first process."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def age_of(pid: int) -> str:
    """Returns when a process began, in ticks since the machine started; with its number, this identifies a process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def stop(folder: Path, name: str) -> bool:
    board = running(folder, name)
    if board is None:
        return False
    os.kill(board.pid, signal.SIGKILL)  # the board's first process dies with it, and with that all others
    with contextlib.suppress(ChildProcessError):
        os.waitpid(board.pid, 0)
    give_up = time.monotonic() + PATIENCE
    while age_of(board.first) == board.first_started and time.monotonic() < give_up:
        time.sleep(0.02)
    (folder / "boards" / name / "board.json").unlink(missing_ok=True)
    return True


def main() -> int:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="emulated-device", description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("arch", metavar="ARCH", choices=sorted(DEBIAN), help=f"processor: {', '.join(sorted(DEBIAN))}")
    parser.add_argument("dist", metavar="DIST", choices=DISTS, help=f"Debian release: {', '.join(DISTS)}")
    actions = ", ".join(action for action in ACTIONS if action != "inside")
    parser.add_argument(
        "action",
        metavar="ACTION",
        nargs="?",
        default="start",
        choices=ACTIONS,
        help=f"{actions} (default: %(default)s)",
    )
    parser.add_argument("--name", metavar="NAME", help="tells boards of a kind apart (default: ARCH-DIST)")
    parser.add_argument("--address", metavar="ADDRESS", help="where it listens (default: a free 127.0.0.x)")
    parser.add_argument("--port", metavar="PORT", type=int, default=0, help="on which port (default: a free one)")
    parser.add_argument("--disk", metavar="SIZE", default="", help="of its home, such as 64M; empty after every start")
    parser.add_argument("--json", action="store_true", help="print how to reach the board as JSON")
    words = parser.parse_args()
    name, folder = words.name or f"{words.arch}-{words.dist}".replace("_", "-"), boards_folder()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}", name):
        parser.error(f"{name!r} cannot be a host name")
    try:
        return act(words, folder, name)
    except Trouble as trouble:
        print(f"emulated-device: {trouble}", file=sys.stderr)
        return 1


def act(words: argparse.Namespace, folder: Path, name: str) -> int:
    if words.action == "inside":
        inside(folder, name, words.arch)
    elif words.action == "make":
        check_machine(words.arch)
        make_folder(folder)
        make_system(folder, words.arch, words.dist)
    elif words.action in ("start", "run"):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        board = start(folder, words, name)
        login = f"ssh -F {board.ssh_config} {board.name}"
        print(
            json.dumps(asdict(board)) if words.json else f"{board.user}@{board.address}:{board.port}   {login}",
            flush=True,
        )
        if words.action == "run":
            with contextlib.suppress(KeyboardInterrupt):
                sys.stdin.read()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            remove(folder, name)
    elif words.action == "stop":
        print(f"{name}: {'stopped' if stop(folder, name) else 'was not running'}", file=sys.stderr)
    else:
        remove(folder, name)
    return 0


def remove(folder: Path, name: str) -> None:
    stop(folder, name)
    shutil.rmtree(folder / "boards" / name, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
