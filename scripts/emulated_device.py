"""Emulated boards: real ARM programs under qemu, reached by SSH on 127.0.0.x, as bare as a board out of its box.

    scripts/emulated-device aarch64 bookworm            start it (made in seconds the first time)
    scripts/emulated-device aarch64 bookworm stop       pull the plug: every process on it dies at once
    scripts/emulated-device aarch64 bookworm remove     stop it and forget what was on it

A board has a process, mount and host name space of its own, so that nothing of it outlives it and nothing on this
machine is changed: its user `pi` exists only there. Its root file system is cached and never written; what the board
writes lies in a folder of its own. It shares this machine's network. Needs root, and from the distribution mmdebstrap,
qemu-user-static, binfmt-support and openssh-server. Time nothing there: emulation is slow. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
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

#: How the distribution calls an architecture, and its programs' handler in binfmt_misc.
DEBIAN = {"aarch64": "arm64", "armv7l": "armhf", "x86_64": "amd64"}
HANDLER = {"aarch64": "qemu-aarch64", "armv7l": "qemu-arm", "x86_64": "qemu-x86_64"}
DISTS = ("bookworm", "trixie")
#: What a board has before knnkit comes: Python with venv but no pip, and the usual small tools.
PACKAGES = (
    "base-files bash coreutils dash findutils grep gzip hostname libc-bin libgomp1 libstdc++6 mawk python3 sed tar"
)
#: 32-bit ARM has no NumPy wheel, so there the distribution's are what a user installs.
EXTRA = {"armv7l": "python3-numpy python3-cryptography"}
NEEDS = {
    "mmdebstrap": "mmdebstrap",
    "unshare": "util-linux",
    "/usr/sbin/sshd": "openssh-server",
    "update-binfmts": "binfmt-support",
}
USER, UID = "pi", 1000
BINFMT = Path("/proc/sys/fs/binfmt_misc")
PATIENCE = 30.0


@dataclass(frozen=True)
class Board:
    """A running board: how to reach it, and the process whose end ends it."""

    name: str
    arch: str
    dist: str
    user: str
    address: str
    port: int
    identity: str
    known_hosts: str
    ssh_config: str
    pid: int
    started: str


class Trouble(Exception):
    """What stops the work, in words, and what to do."""


def boards_folder() -> Path:
    return Path(os.environ.get("KNNKIT_BOARDS") or "~/.cache/knnkit/boards").expanduser().resolve()


def run(*command: str, **options: object) -> None:
    done = subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-4:])
        raise Trouble(f"{command[0]} failed:\n{last}")


# --- what the machine needs ---------------------------------------------------------------------------------------
def check_machine(arch: str) -> None:
    if os.geteuid() != 0:
        raise Trouble("this needs root: it mounts, and it gives the board a user of its own")
    missing = [package for probe, package in NEEDS.items() if shutil.which(probe) is None]
    if arch != os.uname().machine and shutil.which(f"{HANDLER[arch]}-static") is None:
        missing.append("qemu-user-static")
    if missing:
        raise Trouble(f"missing: apt-get install --no-install-recommends {' '.join(missing)}")
    if arch != os.uname().machine:
        enable_emulation(arch)


def enable_emulation(arch: str) -> None:
    """Lets the kernel run the architecture's programs; the machine may have started without binfmt_misc."""
    handler = BINFMT / HANDLER[arch]
    if not (BINFMT / "register").exists():
        run("mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT))
    if not handler.exists():
        run("update-binfmts", "--enable", HANDLER[arch])
    if not handler.exists() or "enabled" not in handler.read_text():
        raise Trouble(f"the kernel does not run {arch} programs: see {handler}")


def mirror() -> str | None:
    """The Debian mirror that this machine itself installs from; None where its sources name none."""
    texts = [path.read_text() for path in sorted(Path("/etc/apt").glob("sources.list*")) if path.is_file()]
    texts += [path.read_text() for path in sorted(Path("/etc/apt/sources.list.d").glob("*")) if path.is_file()]
    for text in texts:
        for address in re.findall(r"^(?:URIs:|deb(?:\s+\[[^]]*\])?)\s+(\S+)", text, re.MULTILINE):
            if re.search(r"/debian/?$", address):
                return str(address)
    return None


# --- the root file system -----------------------------------------------------------------------------------------
def make_system(folder: Path, arch: str, dist: str) -> Path:
    """Returns the cached root file system, made by unpacking packages: nothing of them runs under emulation."""
    system = folder / "systems" / f"{arch}-{dist}"
    if system.is_dir():
        return system
    native = None if arch == os.uname().machine else make_system(folder, os.uname().machine, dist)
    system.parent.mkdir(parents=True, exist_ok=True)
    with locked(system.parent):
        if system.is_dir():
            return system
        print(f"making {arch} {dist} (once)", file=sys.stderr)
        part = system.with_name(f"{system.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        packages = ",".join(f"{PACKAGES} {EXTRA.get(arch, '')}".split())
        found = mirror()
        lines = [f"deb {found} {dist} main"] if found else []
        command = ["mmdebstrap", "--quiet", "--variant=extract", f"--arch={DEBIAN[arch]}", f"--include={packages}"]
        try:
            run(*command, dist, str(part), *lines)
            settle(part, arch)
            compile_library(part, native or part)
            run("chroot", str(part), "/usr/bin/python3", "-c", "import venv")
            part.rename(system)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return system


def settle(system: Path, arch: str) -> None:
    """What the packages' own scripts would have done, as far as a board needs it."""
    (system / "etc/passwd").write_text(f"root:x:0:0::/root:/bin/sh\n{USER}:x:{UID}:{UID}::/home/{USER}:/bin/bash\n")
    (system / "etc/group").write_text(f"root:x:0:\n{USER}:x:{UID}:\n")
    (system / "usr/bin/awk").symlink_to("mawk")
    for library in ("blas", "lapack"):
        for path in (system / "usr/lib").glob(f"*/{library}/lib{library}.so.3"):
            (path.parents[1] / path.name).symlink_to(f"{library}/{path.name}")
    for name in ("mnt", "proc", "dev/pts", "run", f"home/{USER}"):
        (system / name).mkdir(parents=True, exist_ok=True)
    os.chown(system / "home" / USER, UID, UID)
    (system / "tmp").chmod(0o1777)


def compile_library(system: Path, native: Path) -> None:
    """Compiles the board's standard library, as its packages would have; by this machine's own architecture, since
    emulation takes minutes for it, and without it every start of Python on the board takes seconds."""
    script = 'mount --bind "$1/usr/lib" "$2/mnt" && exec chroot "$2" python3 -m compileall -q -s /mnt -p /usr/lib "$3"'
    for python in (system / "usr/lib").glob("python3*"):
        run("unshare", "--mount", "sh", "-ec", script, "sh", str(system), str(native), f"/mnt/{python.name}")


@contextlib.contextmanager
def locked(folder: Path):  # type: ignore[no-untyped-def]
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


# --- a board ------------------------------------------------------------------------------------------------------
def start(folder: Path, arch: str, dist: str, name: str, address: str | None, port: int) -> Board:
    check_machine(arch)
    system = make_system(folder, arch, dist)
    home = folder / "boards" / name
    home.mkdir(parents=True, exist_ok=True)
    with locked(home):
        board = running(folder, name)
        if board:
            return board
        for part in ("upper", "work"):
            (home / part).mkdir(exist_ok=True)
        identity, host_key = make_key(folder / "id_ed25519"), make_key(home / "host_key")
        address = address or free_address(folder)
        port = port or free_port(address)
        write_settings(home, address, port)
        command = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
        command += [sys.executable, __file__, arch, dist, "inside", "--name", name]
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "KNNKIT_BOARDS": str(folder), "BOARD_SYSTEM": str(system)},
            )
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
        )
        describe(home, board, host_key)
    return board


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


def write_settings(home: Path, address: str, port: int) -> None:
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


def inside(folder: Path, name: str) -> None:
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
    lend_user()
    socket.sethostname(name)
    os.execv("/usr/sbin/sshd", ["/usr/sbin/sshd", "-D", "-e", "-f", str(home / "sshd_config")])


def lend_user() -> None:
    """Makes the board's user known to its sshd, and to nobody else on this machine.

    /etc as a whole is laid over: a file that were mounted over by itself would come off when this machine replaces its
    own, as every change of its users does.
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
    """The board, if it is on; one that died is forgotten."""
    try:
        board = Board(**json.loads((folder / "boards" / name / "board.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return board if age_of(board.pid) == board.started else None


def all_boards(folder: Path) -> list[Board]:
    names = [path.parent.name for path in sorted(folder.glob("boards/*/board.json"))]
    return [board for name in names if (board := running(folder, name))]


def age_of(pid: int) -> str:
    """When a process began, in ticks since the machine did: with its number, who it is."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def stop(folder: Path, name: str) -> bool:
    board = running(folder, name)
    if board is None:
        return False
    os.kill(board.pid, signal.SIGKILL)  # the board's first process dies with it, and with that all others
    give_up = time.monotonic() + PATIENCE
    while age_of(board.pid) == board.started and time.monotonic() < give_up:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(board.pid, os.WNOHANG)
        time.sleep(0.02)
    (folder / "boards" / name / "board.json").unlink(missing_ok=True)
    return True


def main() -> int:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="emulated-device", description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("arch", choices=sorted(DEBIAN))
    parser.add_argument("dist", choices=DISTS)
    parser.add_argument("action", nargs="?", default="start", choices=("start", "stop", "remove", "make", "inside"))
    parser.add_argument("--name", help="for several boards of a kind; ARCH-DIST when left out")
    parser.add_argument("--address", help="a free 127.0.0.x when left out")
    parser.add_argument("--port", type=int, default=0, help="a free one when left out")
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
        inside(folder, name)
    if words.action == "make":
        check_machine(words.arch)
        make_system(folder, words.arch, words.dist)
    elif words.action == "start":
        board = start(folder, words.arch, words.dist, name, words.address, words.port)
        login = f"ssh -F {board.ssh_config} {board.name}"
        print(json.dumps(asdict(board)) if words.json else f"{board.user}@{board.address}:{board.port}   {login}")
    else:
        stopped = stop(folder, name)
        print(f"{name}: {'stopped' if stopped else 'was not running'}", file=sys.stderr)
        if words.action == "remove":
            shutil.rmtree(folder / "boards" / name, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
