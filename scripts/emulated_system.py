"""The root file system of an emulated board, and what this machine needs to run its programs. See emulated_device.py.

Made by unpacking the distribution's packages without running them, so that little happens under emulation. Cached, and
never written again. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

#: How the distribution calls an architecture, and its programs' handler in binfmt_misc.
DEBIAN = {"aarch64": "arm64", "armv7l": "armhf", "x86_64": "amd64"}
HANDLER = {"aarch64": "qemu-aarch64", "armv7l": "qemu-arm", "x86_64": "qemu-x86_64"}
DISTS = ("bookworm", "trixie")
#: What a board has before knnkit comes: Python with venv but no pip, and the usual small tools.
PACKAGES = (
    "base-files bash coreutils dash findutils grep gzip hostname libc-bin libgomp1 libstdc++6 mawk python3 sed tar"
)
#: 32-bit ARM has no wheels of NumPy and Pillow, so there the distribution's are what a user installs.
EXTRA = {"armv7l": "python3-numpy python3-cryptography python3-pil"}
#: What tells a system from an earlier one in the cache, which had other packages.
EDITION = {"armv7l": "-2"}
NEEDS = {
    "mmdebstrap": "mmdebstrap",
    "unshare": "util-linux",
    "/usr/sbin/sshd": "openssh-server",
    "update-binfmts": "binfmt-support",
}
#: What qemu makes of an architecture, what the kernel of such a board says of each of its processors, and which board
#: it is: libraries choose their kernels by the first two, and what this machine says of its own would lead them astray.
PROCESSORS = {
    "aarch64": (
        "cortex-a72",
        {
            "BogoMIPS": "108.00",
            "Features": "fp asimd evtstrm crc32 cpuid",
            "CPU implementer": "0x41",
            "CPU architecture": "8",
            "CPU variant": "0x0",
            "CPU part": "0xd08",
            "CPU revision": "3",
        },
        "Raspberry Pi 4 Model B Rev 1.4",
    ),
    "armv7l": (
        "cortex-a7",
        {
            "model name": "ARMv7 Processor rev 5 (v7l)",
            "BogoMIPS": "38.40",
            "Features": "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm",
            "CPU implementer": "0x41",
            "CPU architecture": "7",
            "CPU variant": "0x0",
            "CPU part": "0xc07",
            "CPU revision": "5",
        },
        "Raspberry Pi 2 Model B Rev 1.1",
    ),
}
USER, UID = "pi", 1000
BINFMT = Path("/proc/sys/fs/binfmt_misc")


class Trouble(Exception):
    """An error that ends the work: the message says what is wrong and what to do."""


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
    """Returns the Debian mirror that this machine installs from; None if its sources name none."""
    texts = [path.read_text() for path in sorted(Path("/etc/apt").glob("sources.list*")) if path.is_file()]
    texts += [path.read_text() for path in sorted(Path("/etc/apt/sources.list.d").glob("*")) if path.is_file()]
    for text in texts:
        for address in re.findall(r"^(?:URIs:|deb(?:\s+\[[^]]*\])?)\s+(\S+)", text, re.MULTILINE):
            if re.search(r"/debian/?$", address):
                return str(address)
    return None


def cpuinfo(arch: str, cores: int) -> str:
    """Returns /proc/cpuinfo of a board with so many processors."""
    _, each, model = PROCESSORS[arch]
    texts = [
        "".join(f"{key}\t: {value}\n" for key, value in {"processor": str(number), **each}.items())
        for number in range(cores)
    ]
    return "\n".join([*texts, f"Model\t\t: {model}\n"])


# --- the root file system -----------------------------------------------------------------------------------------
def make_system(folder: Path, arch: str, dist: str) -> Path:
    """Returns the cached root file system, made by unpacking packages: nothing of them runs under emulation."""
    system = folder / "systems" / f"{arch}-{dist}{EDITION.get(arch, '')}"
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
    """Does the work of the packages' own scripts, as far as a board needs it."""
    (system / "etc/passwd").write_text(f"root:x:0:0::/root:/bin/sh\n{USER}:x:{UID}:{UID}::/home/{USER}:/bin/bash\n")
    (system / "etc/group").write_text(f"root:x:0:\n{USER}:x:{UID}:\n")
    (system / "usr/bin/awk").symlink_to("mawk")
    for library in ("blas", "lapack"):
        for path in (system / "usr/lib").glob(f"*/{library}/lib{library}.so.3"):
            (path.parents[1] / path.name).symlink_to(f"{library}/{path.name}")
    for name in ("mnt", "proc", "sys", "dev/pts", "run", f"home/{USER}"):
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
def locked(folder: Path) -> Iterator[None]:
    """Holds a lock on the folder, so that one process at a time works in it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
