"""What provisioning runs on a board: `python3 -I - COMMAND ORDER < this file`; one JSON document on stdout.

The board has nothing but its own Python, so this uses the standard library alone, and it never imports knnkit or
device_agent. It never changes the environment in use: a new one is made beside it, proven, and put in its place by
renaming a link. Killed at any step it leaves the old environment or the new one; what lies about is cleared by the
next run.

    state    what is here: Python, architecture, C library, disk, environments, trusted keys
    prepare  which wheels of an order the environments hold already
    claim    a place of this connection's own for the wheels that it sends
    build    make an environment from wheels, prove it; to use it, switch to it and add trusted keys
    remove   take everything away
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MARKER = "knnkit.json"  # in an environment: what it was made of; written last, so that it says "complete"
CONTENTS = "wheels"  # in an environment: NAME.json for each wheel, its files and their SHA-256
VENVS = "venvs"
INCOMING = "incoming"  # in VENVS: INCOMING.PROCESS.START.TOKEN, wheels under way from one connection
LINK = "venv"
TRUST = "trust"
LOCK = "lock"
PART = ".part"
ASIDE = ".bad"  # what the agent adds to the name of a file that was in the way
TEMPORARY = ".tmp"  # likewise, with a dot before the name, of a file that it is writing
#: Environments that stay: the one in use, and the one before it, which may still be running something.
KEPT = 2
#: Bytes that must stay free.
MARGIN = 16 << 20
#: Seconds after which a connection that is there, and sends nothing, is taken for one that broke without a word.
SILENT = 30
PIP = (
    "-m",
    "pip",
    "download",
    "--quiet",
    "--no-deps",
    "--only-binary=:all:",
    "--require-hashes",
    "--no-input",
    "--retries=1",
    "--timeout=20",
)
#: What pip says of bytes that have none of the digests it was told.
OTHER_BYTES = "DO NOT MATCH THE HASHES"


class Trouble(Exception):
    """What stops the work: a stable word for programs, a sentence for people, and what to do next."""

    def __init__(self, reason: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.hint = hint


# --- state --------------------------------------------------------------------------------------------------------
def state(order: dict[str, Any]) -> dict[str, Any]:
    """Says what is on the board; changes nothing."""
    root = resolved(order["root"])
    nearest = existing(root)
    disk = os.statvfs(nearest)
    bits = struct.calcsize("P") * 8
    return {
        "root": str(root),
        "python": list(sys.version_info[:3]),
        "executable": os.path.realpath(sys.executable),
        "machine": os.uname().machine,
        "bits": bits,
        "glibc": glibc(),
        "venv": importlib.util.find_spec("venv") is not None,
        "pip": importlib.util.find_spec("pip") is not None,
        # Only 32-bit boards use the distribution's packages, and asking takes longer than all the rest.
        "system": {name: system_version(name) for name in ("numpy", "cryptography") if bits == 32},
        "read_only": bool(disk.f_flag & os.ST_RDONLY),
        "writable": os.access(nearest, os.W_OK | os.X_OK),
        "nearest": str(nearest),
        "disk_free": disk.f_bavail * disk.f_frsize,
        "current": current(root),
        "linked": linked(root),
        "environments": environments(root),
        "tidy": tidy(root),
        "trusted": trusted(root),
    }


def resolved(name: str) -> Path:
    """The real path of the root; refuses the places that can never be one."""
    home = Path.home().resolve()
    root = Path(name).expanduser().resolve()
    if root == home or root in home.parents:
        raise Trouble("bad-root", f"{root} cannot be a folder of knnkit's own", "choose another, such as ~/.knnkit")
    return root


def existing(path: Path) -> Path:
    """The nearest folder at or above `path` that exists."""
    while not path.is_dir():
        if os.path.lexists(path):
            raise Trouble("bad-root", f"{path} is not a folder", "move it away, or choose another root")
        path = path.parent
    return path


def glibc() -> str:
    """The GNU C library's version; "" with another library."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        return version if name == "glibc" else ""
    return ""


def system_version(name: str) -> str | None:
    """The version of a package that the distribution brings; None without it."""
    try:
        from importlib import metadata

        return metadata.version(name)
    except ImportError:
        return None


def current(root: Path) -> str | None:
    """The digest of the environment in use; None without one that can start."""
    digest = link(root)
    return digest if digest is not None and works(root, digest) else None


def linked(root: Path) -> dict[str, Any] | None:
    """What the environment in use was made of, also where it cannot start any more."""
    digest = link(root)
    return marker(root, digest) if digest is not None else None


def link(root: Path) -> str | None:
    """The digest that ROOT/venv names, whatever is there."""
    try:
        return Path(os.readlink(root / LINK)).name  # noqa: PTH115 - Path.readlink came with 3.9
    except OSError:
        return None


def works(root: Path, digest: str) -> bool:
    """Whether a finished environment can start: its Python may have gone with an upgrade, a file with a bad card."""
    environment = root / VENVS / digest
    finished = marker(root, digest) is not None and os.access(environment / "bin" / "python", os.X_OK)
    return finished and all(map(os.path.lexists, unpacked(environment)))


def unpacked(environment: Path) -> Iterator[str]:
    """Every file that its wheels put there; as text, for there are thousands."""
    for site in (environment / "lib").glob("python3*/site-packages"):  # one: that of the Python it was made with
        for record in listed(environment / CONTENTS):
            for name in files_in(read_json(record)) or ():
                yield f"{site}/{name}"


def environments(root: Path) -> dict[str, dict[str, Any]]:
    """Digest -> what it was made of, for every finished environment that can start."""
    names = [path.name for path in listed(root / VENVS) if works(root, path.name)]
    return {name: marker(root, name) or {} for name in names}


def tidy(root: Path) -> bool:
    """Whether no interrupted run left anything behind."""
    finished = environments(root)
    strays = [
        path for path in listed(root / VENVS) if path.name not in finished and not (is_place(path) and busy(path))
    ]
    return not strays and len(finished) <= KEPT and not os.path.lexists(root / (LINK + PART))


def marker(root: Path, digest: str) -> dict[str, Any] | None:
    """What an environment was made of; None when it is not finished."""
    made_of = read_json(root / VENVS / digest / MARKER)
    return made_of if made_of is not None and made_of.get("digest") == digest and well_formed(made_of) else None


def well_formed(made_of: dict[str, Any]) -> bool:
    """Whether a marker names wheels as this script does; a person or a bad card may have changed it."""
    wheels, pins = made_of.get("wheels", []), made_of.get("pins", [])
    if not isinstance(wheels, list) or not isinstance(pins, list):
        return False
    named = [wheel for wheel in wheels if isinstance(wheel, dict)]
    return named == wheels and all(isinstance(wheel.get(key), str) for wheel in named for key in ("name", "sha256"))


def trusted(root: Path) -> dict[str, str]:
    """File name -> SHA-256 of every file in the trust folder."""
    return {path.name: sha256(path) for path in listed(root / TRUST) if path.is_file()}


# --- prepare and build --------------------------------------------------------------------------------------------
def prepare(order: dict[str, Any]) -> dict[str, Any]:
    """Says which wheels of the order an environment holds, every file unchanged."""
    root = resolved(order["root"])
    return {"here": [wheel["name"] for wheel in order["wheels"] if holder_of(root, wheel)]}


def claim(order: dict[str, Any]) -> dict[str, Any]:
    """Makes a place for what this connection sends, with what another has left: one that is gone, or silent."""
    root = resolved(order["root"])
    own = new_place(root, os.getppid())
    for path in sorted(filter(is_place, listed(root / VENVS)), key=size_of, reverse=True):
        if path.is_dir() and not path.is_symlink() and (not busy(path) or silent(path)):
            try:
                path.rename(own)
                break
            except OSError:  # another was quicker
                continue
    make_folder(own)
    return {"place": own.name}


def build(order: dict[str, Any]) -> dict[str, Any]:
    """Makes the environment that the order names and proves it; to `use` it, switches to it and adds trusted keys."""
    root, digest = resolved(order["root"]), order["digest"]
    place = take(root, order["place"]) if order["place"] else None
    with locked(root, order["wait"], place):
        clear_leftovers(root)
        made = not works(root, digest)
        try:
            if made:
                make_environment(root, order, place)
        except BaseException:
            clear_leftovers(root)
            raise
        before = switch(root, digest) if order["use"] else current(root)
        added = add_keys(root, order["trust"]) if order["use"] else []
        prune(root, digest)
    return {"made_of": marker(root, digest), "made": made, "before": before, "added": added}


@contextlib.contextmanager
def locked(root: Path, wait: float, place: Path | None) -> Iterator[None]:
    """One provisioning at a time; `place` goes in the end, and on a bare board that stays bare, every folder."""
    handle = None
    try:
        handle = lock(root, wait)
        yield
    finally:
        if place:
            remove_tree(place)
        if handle is not None:
            os.close(handle)
        with contextlib.suppress(OSError):  # a folder that holds something stays
            (root / VENVS).rmdir()
            root.rmdir()


def lock(root: Path, wait: float) -> int:
    """The descriptor of VENVS, locked; another host that provisions this board is waited for so many seconds."""
    until = time.monotonic() + wait
    while True:
        make_folder(root / VENVS)
        handle = os.open(root / VENVS, os.O_RDONLY)
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(root / VENVS)):  # noqa: PTH116 - else it was removed just now
                return handle
        os.close(handle)
        if time.monotonic() >= until:
            raise Trouble("locked", f"{root} is being provisioned by somebody else", "wait, then try again")
        time.sleep(0.1)


def clear_leftovers(root: Path) -> None:
    """Removes environments that were never finished or cannot start, and places that nobody sends into any more."""
    for path in listed(root / VENVS):
        if is_place(path):
            drop_place(path)
        elif not works(root, path.name):
            remove_tree(path)
    remove_tree(root / (LINK + PART))


# --- places: where a connection sends wheels to -------------------------------------------------------------------
def new_place(root: Path, process: int) -> Path:
    """A name that nobody has, and that says which process it belongs to, also after a restart of the board."""
    return root / VENVS / f"{INCOMING}.{process}.{started(process)}.{os.urandom(4).hex()}"


def is_place(path: Path) -> bool:
    """Whether it is one."""
    return path.name.partition(".")[0] == INCOMING


def busy(place: Path) -> bool:
    """Whether the process that it belongs to is there; not where that is this very connection's."""
    _, process, start, _ = (place.name + "...").split(".")[:4]
    return process != str(os.getppid()) and start != "" and started(process) == start


def silent(place: Path) -> bool:
    """Whether nothing has come for a while of what is still under way; files that have arrived are being used."""
    try:
        files = listed(place)
        newest = max(path.stat().st_mtime for path in (place, *files))
    except OSError:
        return False
    return all(path.name.endswith(PART) for path in files) and time.time() - newest >= SILENT


def started(process: int | str) -> str:
    """When a process started, as the kernel counts; "" when there is none."""
    try:
        state, *fields = Path("/proc", str(process), "stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else fields[18]


def drop_place(place: Path) -> None:
    """Removes one that nobody sends into; by another name, since a host that comes now may take it up."""
    if not busy(place):
        gone = place.with_name("gone" + PART)
        with contextlib.suppress(FileNotFoundError):
            place.rename(gone)
        remove_tree(gone)


def size_of(place: Path) -> int:
    """The bytes that lie there."""
    return sum(path.lstat().st_size for path in listed(place) if path.is_file())


def take(root: Path, name: str) -> Path:
    """Makes a place this very process's: it may outlive the connection, and nobody shall take its wheels then."""
    own = new_place(root, os.getpid())
    with contextlib.suppress(FileNotFoundError):  # said below, if the wheels are needed
        (root / VENVS / safe(name)).rename(own)
    return own


# --- environments -------------------------------------------------------------------------------------------------
def make_environment(root: Path, order: dict[str, Any], place: Path | None) -> None:
    """venvs/<digest>, complete or not at all."""
    import venv

    if place is None:
        raise Trouble("missing-wheel", f"another host has changed {root / VENVS} meanwhile", "run the command again")
    wheels = [dict(wheel, path=str(place / safe(wheel["name"]))) for wheel in order["wheels"]]
    wheels += download(place / "pip", order["pip"]) if order["pip"] else []
    holders = {wheel["name"]: holder_of(root, wheel) for wheel in wheels}
    for wheel in wheels:
        if not holders[wheel["name"]] and not same(Path(wheel["path"]), wheel["sha256"]):
            raise Trouble("missing-wheel", f"{wheel['name']} did not arrive whole", "run the command again")
    check_space(root, [wheel for wheel in wheels if not holders[wheel["name"]]])
    final = root / VENVS / order["digest"]
    part = root / VENVS / (order["digest"] + PART)
    venv.EnvBuilder(system_site_packages=order["system_site"], symlinks=True, with_pip=False).create(part)
    for path in listed(part / "bin"):
        if not path.name.startswith("python"):  # activation scripts name this folder, which is renamed below
            path.unlink()
    for wheel in wheels:
        put(wheel, holders[wheel["name"]], part)
    made_of = dict(order["made_of"], digest=order["digest"], versions=prove(part, order["probe"]))
    made_of["wheels"] = [{"name": wheel["name"], "sha256": wheel["sha256"]} for wheel in wheels]
    write(part / MARKER, json.dumps(made_of, sort_keys=True).encode())
    sync_tree(part)
    part.rename(final)
    sync(final.parent)


def download(folder: Path, lines: list[str]) -> list[dict[str, str]]:
    """Wheels that the board's own pip fetches: requirements with the SHA-256 of each, and no other bytes."""
    remove_tree(folder)
    make_folder(folder)
    wanted = folder.with_name("requirements.txt")
    write(wanted, "\n".join(lines).encode())
    command = [sys.executable, *PIP, "--dest", str(folder), "--requirement", str(wanted)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    said = done.stdout.decode(errors="replace").strip()
    if OTHER_BYTES in said:
        names = " ".join(sorted(set(re.findall(r"[^/\s#]+\.whl", said)))) or "of a wheel"
        raise Trouble("wheel-differs", f"the board's index has other bytes than PyPI: {names}", "use --offline")
    if done.returncode:
        pins, last = " ".join(line.split()[0] for line in lines), said.splitlines()[-1:] or ["no message"]
        raise Trouble("no-download", f"the board's pip could not fetch {pins}: {last[0]}", "use --offline")
    found = [{"name": path.name, "sha256": sha256(path), "path": str(path)} for path in listed(folder)]
    for wheel in found:
        if f"--hash=sha256:{wheel['sha256']}" not in " ".join(lines).split():  # a pip that did not look
            raise Trouble("wheel-differs", f"the board's pip brought another {wheel['name']}", "use --offline")
    return found


def check_space(root: Path, wheels: list[dict[str, str]]) -> None:
    """Refuses before a file is written when the disk cannot hold what the wheels unpack to."""
    need = MARGIN
    for wheel in wheels:
        with archive(wheel) as content:
            need += sum(entry.file_size for entry in content.infolist())
    disk = os.statvfs(root)
    free = disk.f_bavail * disk.f_frsize
    if free < need:
        message = f"{root} has {free >> 20} MB free and the environment needs {need >> 20} MB"
        raise Trouble("no-space", message, "free some space on the board, or choose a root on another disk")


def put(wheel: dict[str, str], holder: Path | None, environment: Path) -> None:
    """One wheel into site-packages: linked from an environment that has it, or unpacked."""
    site = site_packages(environment)
    files = (contents(holder, wheel) if holder else None) or {}
    for name in files:
        make_folder((site / name).parent)
        os.link(site_packages(holder or environment) / name, site / name)
    record = {"sha256": wheel["sha256"], "files": files or unpack_same(wheel, site)}
    make_folder(environment / CONTENTS)
    write(environment / CONTENTS / (wheel["name"] + ".json"), json.dumps(record).encode())


def holder_of(root: Path, wheel: dict[str, str]) -> Path | None:
    """A finished environment of this Python that holds every file of this very wheel, unchanged; None without one."""
    for digest in environments(root):
        environment = root / VENVS / digest
        files = contents(environment, wheel)
        if files and all(same(site_packages(environment) / name, value) for name, value in files.items()):
            return environment
    return None


def contents(environment: Path, wheel: dict[str, str]) -> dict[str, str] | None:
    """File -> SHA-256 of a wheel that was unpacked in an environment; None when it was not."""
    record = read_json(environment / CONTENTS / (wheel["name"] + ".json"))
    return files_in(record) if record is not None and record.get("sha256") == wheel["sha256"] else None


def files_in(record: dict[str, Any] | None) -> dict[str, str] | None:
    """File -> SHA-256 of what a record says; None where it makes no sense, or leads out of the environment."""
    files = record.get("files") if record else None
    if not isinstance(files, dict) or not all(isinstance(value, str) for value in files.values()):
        return None
    return None if any(".." in name.split("/") or name.startswith("/") for name in files) else files


def site_packages(environment: Path) -> Path:
    """Where this Python looks for packages in an environment."""
    return environment / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def archive(wheel: dict[str, str]) -> zipfile.ZipFile:
    """The wheel, open."""
    try:
        return zipfile.ZipFile(wheel["path"])
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise Trouble("bad-wheel", f"{wheel['name']}: {error}", "remove it from the wheel cache") from None


def unpack_same(wheel: dict[str, str], site: Path) -> dict[str, str]:
    """Unpacks, and looks whether it was that wheel: whose place was taken up in error still holds its files open."""
    try:
        files = unpack(wheel, site)
    except FileExistsError as error:
        raise Trouble("bad-wheel", f"{wheel['name']} holds two by one name: {error.filename}", "make it anew") from None
    except (Trouble, OSError):
        raise
    except Exception as error:  # of zipfile and what it unpacks with, there are many kinds
        raise Trouble("bad-wheel", f"{wheel['name']}: {error}", "make it anew") from None
    if not same(Path(wheel["path"]), wheel["sha256"]):
        raise Trouble("missing-wheel", f"{wheel['name']} changed while it was unpacked", "run the command again")
    return files


def unpack(wheel: dict[str, str], site: Path) -> dict[str, str]:
    """The library part of a wheel into site-packages; scripts and data files are of no use to the agent."""
    files = {}
    with archive(wheel) as content:
        for entry in content.infolist():
            name = wanted(entry.filename)
            if name is None or entry.filename.endswith("/"):
                continue
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise Trouble("bad-wheel", f"{wheel['name']} holds a link: {entry.filename}", "do not use this wheel")
            target = site / safe(name)
            make_folder(target.parent)
            with content.open(entry) as source, target.open("xb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
            files[name] = sha256(target)
    return files


def wanted(name: str) -> str | None:
    """Where an entry of a wheel goes in site-packages; None for what does not go there."""
    top, _, rest = name.partition("/")
    if not top.endswith(".data"):
        return name
    kind, _, inner = rest.partition("/")
    return inner if kind in ("purelib", "platlib") and inner else None


def safe(name: str) -> str:
    """The name, when it stays inside the folder that it is put in."""
    if "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise Trouble("bad-wheel", f"an unsafe path: {name!r}", "do not use this wheel")
    return name


def prove(environment: Path, probe: str) -> dict[str, Any]:
    """Runs the new environment's Python: what cannot import what it needs never becomes the one in use."""
    command = [str(environment / "bin" / "python"), "-I", "-c", probe]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    answer = done.stdout.decode(errors="replace").strip().splitlines()[-1:]
    if done.returncode or not answer:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise Trouble("does-not-run", f"the new environment does not run here: {last[0]}", "the old one stays in use")
    found: dict[str, Any] = json.loads(answer[0])
    return found


def switch(root: Path, digest: str) -> str | None:
    """Makes `digest` the environment in use; returns the digest of the one before."""
    before = current(root)
    if before != digest:
        if (root / LINK).is_dir() and not (root / LINK).is_symlink():
            raise Trouble("bad-root", f"{root / LINK} is a folder, and must be a link of knnkit's own", "move it away")
        if before is not None:
            os.utime(root / VENVS / before / MARKER)  # `prune` keeps the one that was in use last
        part = root / (LINK + PART)
        part.symlink_to(Path(VENVS) / digest)
        part.rename(root / LINK)
        sync(root)
    return before


def add_keys(root: Path, keys: dict[str, str]) -> list[str]:
    """Writes the trusted keys that are not there yet; never takes one away."""
    make_folder(root / TRUST)
    added = []
    for name, text in sorted(keys.items()):
        path, part = root / TRUST / safe(name), root / TRUST / (name + PART)
        if not same(path, hashlib.sha256(text.encode()).hexdigest()):
            write(part, text.encode())
            part.rename(path)
            added.append(name)
    sync(root / TRUST)
    return added


def prune(root: Path, digest: str) -> None:
    """Removes environments other than `digest` and the one in use; where that is the same, and the one before it."""
    kept = {digest, current(root)}
    others = [root / VENVS / name for name in environments(root) if name not in kept]
    others.sort(key=lambda path: (path / MARKER).stat().st_mtime_ns, reverse=True)
    for path in others[KEPT - len(kept) :]:
        part = path.with_name(path.name + PART)
        path.rename(part)  # whole or gone, never half
        remove_tree(part)


# --- remove -------------------------------------------------------------------------------------------------------
def remove(order: dict[str, Any]) -> dict[str, Any]:
    """Takes the root away; refuses one that holds something that is not knnkit's, or that is being changed."""
    root = resolved(order["root"])
    gone = root.with_name(root.name + ".removed" + PART)
    remove_tree(gone)
    if not root.is_dir():
        return {"removed": False}
    strangers = sorted(path.name for path in listed(root) if own_name(path) not in order["known"])
    if strangers:
        message = f"{root} also holds {', '.join(strangers[:5])}; nothing was removed"
        raise Trouble("not-ours", message, "move that away first")
    for path in (root / LOCK, root / VENVS):
        refuse_if_held(path)
    root.rename(gone)
    link = Path(order["root"]).expanduser()
    if link.is_symlink():
        link.unlink()
    sync(root.parent)
    remove_tree(gone)
    return {"removed": True}


def own_name(path: Path) -> str:
    """What a file would be called if it were neither half-written nor set aside by the agent."""
    name = path.name
    if name.startswith(".") and name.endswith(TEMPORARY):  # a power cut came before the agent renamed it
        return name[1 : -len(TEMPORARY)]
    return name.split(PART)[0].split(ASIDE)[0]


def refuse_if_held(path: Path) -> None:
    """Refuses while somebody deploys or provisions."""
    if path.exists():
        handle = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Trouble("locked", f"{path} is held: a deploy is under way", "wait, then try again") from None
        finally:
            os.close(handle)


# --- files --------------------------------------------------------------------------------------------------------
def listed(folder: Path) -> list[Path]:
    """What is in a folder, sorted; nothing when there is none."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


def make_folder(path: Path) -> None:
    """A folder for its owner alone, and those above it as far as they are missing."""
    while not path.is_dir():
        make_folder(path.parent)
        with contextlib.suppress(FileNotFoundError):  # another host that failed has just removed the one above
            path.mkdir(0o700, exist_ok=True)


def remove_tree(path: Path) -> None:
    """Whatever is at `path` goes; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file; None when there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def sha256(path: Path) -> str:
    """The file's digest in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def same(path: Path, digest: str) -> bool:
    """Whether a file is there and has this SHA-256."""
    try:
        return path.is_file() and sha256(path) == digest  # a pipe would be waited for
    except OSError:
        return False


def write(path: Path, content: bytes) -> None:
    """A file that is on the disk when this returns."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_tree(top: Path) -> None:
    """Every file and folder under `top` on the disk; one sync first, so that each fsync only has to report."""
    os.sync()
    for folder, _, names in os.walk(top):
        for path in (Path(folder), *(Path(folder, name) for name in names)):
            if not path.is_symlink():
                sync(path)


def sync(path: Path) -> None:
    """A file or a folder on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def main(command: str, order: str) -> int:
    """Runs one command; prints its answer, or what stopped it."""
    os.umask(0o077)
    try:
        commands = {"state": state, "prepare": prepare, "claim": claim, "build": build, "remove": remove}
        answer = commands[command](json.loads(order))
    except Trouble as trouble:
        answer = {"problem": trouble.reason, "message": str(trouble), "hint": trouble.hint}
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        denied = isinstance(error, PermissionError)
        hint = "choose a root that the login user may write" if denied else "check the board's disk and rights"
        answer = {"problem": "os-error", "message": message, "hint": hint}
    print(json.dumps(answer))
    return 1 if "problem" in answer else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
