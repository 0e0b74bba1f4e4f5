"""Kills a process, or fails its disk, at every effect it has on a folder; the effects are found by tracing.

`trace` runs an action in a forked child and lists its effects under a folder, in order: every `os` call of this process
that creates, writes, syncs, renames, links, unlinks or removes there. `run` repeats it with a fault at the n-th. No
list of places is written by hand: an effect that is added to the agent is a new crash point by itself.

`Disk` replays a trace as a disk that forgets whatever was not synced: what a SIGKILL cannot show, because the kernel
keeps its cache.
"""

# ruff: noqa: PTH100, PTH115, PTH118, PTH119, PTH120
from __future__ import annotations

import contextlib
import errno
import importlib
import os
import pickle
import pkgutil
import signal
import stat
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import device_agent
from device_agent.system import board

#: Calls that change something, and where their path or descriptor is among the arguments.
EFFECTS = (
    "open", "write", "pwrite", "fsync", "ftruncate", "rename", "replace", "unlink", "mkdir", "rmdir", "symlink", "link",
    "chmod",
)  # fmt: skip
SIGNALLED = -signal.SIGKILL


@dataclass(frozen=True)
class Effect:
    """One call: its name, the paths under the folder that it touches, and what it wrote where."""

    call: str
    paths: tuple[str, ...]
    data: bytes = b""
    offset: int = 0
    flags: int = 0

    def __str__(self) -> str:
        return f"{self.call} {' -> '.join(self.paths)}"

    @property
    def same_if_killed(self) -> bool:
        """Whether a kill leaves the same before it and after it: the kernel keeps what was not synced."""
        return self.call in ("fsync", "nothing")


@dataclass(frozen=True)
class Fault:
    """What happens at the effect number `at`: `before` and `after` kill, an errno fails; `lasting` to the end."""

    at: int
    kind: str
    lasting: bool = False


@dataclass(frozen=True)
class Ended:
    """How the child ended: exit code (SIGNALLED when killed), what it printed, and its effects."""

    code: int
    out: str
    err: str
    effects: tuple[Effect, ...]


def run(action: Callable[[], int], folder: Path, fault: Fault | None = None) -> Ended:
    """Runs `action` in a forked child, with at most one fault among its effects under `folder`."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as trace:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _child(action, folder, fault, out.fileno(), err.fileno(), trace.fileno())
        _, status = os.waitpid(child, 0)
        for file in (out, err, trace):
            file.seek(0)
        data = trace.read()
        effects = pickle.loads(data) if data else ()
        return Ended(os.waitstatus_to_exitcode(status), out.read().decode(), err.read().decode(), effects)


def preload() -> None:
    """Imports the agent and what it loads late: once here, instead of in every child."""
    from cryptography.hazmat.backends.openssl import backend

    assert backend
    for module in pkgutil.walk_packages(device_agent.__path__, "device_agent."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    runtime = (board.runtime_version() or "no runtime").split()[0]
    importlib.import_module(f"{runtime}.interpreter")


def trace(action: Callable[[], int], folder: Path) -> tuple[Effect, ...]:
    """Returns the effects of an action that succeeds."""
    ended = run(action, folder)
    assert ended.code == 0, (ended.code, ended.out, ended.err)
    return ended.effects


def _child(action: Callable[[], int], folder: Path, fault: Fault | None, out: int, err: int, report: int) -> None:
    code = 99
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        tracer = _Tracer(folder, fault)
        tracer.install()
        code = action()
        sys.stdout.flush()
        tracer.remove()
        os.write(report, pickle.dumps(tuple(tracer.effects)))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


class _Tracer:
    def __init__(self, folder: Path, fault: Fault | None) -> None:
        self.effects: list[Effect] = []
        self._folder = str(folder.resolve())
        self._fault = fault
        self._pid = os.getpid()
        self._real = {name: getattr(os, name) for name in (*EFFECTS, "close", "lseek")}

    def install(self) -> None:
        for name in EFFECTS:
            setattr(os, name, self._wrap(name))

    def remove(self) -> None:
        for name in EFFECTS:
            setattr(os, name, self._real[name])

    def _wrap(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def call(*args: Any, **kwargs: Any) -> Any:
            effect = self._effect(name, args, kwargs)
            if effect is None:
                return real(*args, **kwargs)
            number = len(self.effects)
            self.effects.append(effect)
            fault = self._fault
            if fault is None or not (number == fault.at or (fault.lasting and number > fault.at)):
                return self._do(number, real, args, kwargs)
            if fault.kind == "after":
                with contextlib.suppress(OSError):
                    real(*args, **kwargs)
            if fault.kind in ("before", "after"):
                os.kill(os.getpid(), signal.SIGKILL)
            code = getattr(errno, fault.kind)
            raise OSError(code, os.strerror(code), effect.paths[0])

        return call

    def _do(self, number: int, real: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return real(*args, **kwargs)
        except OSError:
            self.effects[number] = replace(self.effects[number], call="nothing")
            raise

    def _effect(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Effect | None:
        if os.getpid() != self._pid:
            return None
        if name in ("write", "pwrite", "fsync", "ftruncate"):
            paths = [self._of_descriptor(args[0])]
        elif name in ("rename", "replace", "link"):
            paths = [self._of_path(args[0]), self._of_path(args[1])]
        elif name == "symlink":
            paths = [self._of_path(args[1])]
        elif name == "open":
            flags = args[1] if len(args) > 1 else kwargs.get("flags", 0)
            if not flags & (os.O_CREAT | os.O_TRUNC) or "dir_fd" in kwargs:
                return None
            paths = [self._of_path(args[0])]
        else:
            paths = [self._of_path(args[0])]
        if any(path is None for path in paths):
            return None
        return Effect(name, tuple(str(path) for path in paths), *self._content(name, args))

    def _content(self, name: str, args: tuple[Any, ...]) -> tuple[bytes, int, int]:
        if name == "write":
            return bytes(args[1]), os.lseek(args[0], 0, os.SEEK_CUR), 0
        if name == "pwrite":
            return bytes(args[1]), args[2], 0
        if name == "ftruncate":
            return b"", args[1], 0
        if name == "symlink":
            return os.fsencode(args[0]), 0, 0
        return b"", 0, args[1] if name == "open" else 0

    def _of_path(self, path: Any) -> str | None:
        full = os.path.abspath(os.fsdecode(path))
        full = os.path.join(os.path.realpath(os.path.dirname(full)), os.path.basename(full))
        return self._under(full)

    def _of_descriptor(self, descriptor: int) -> str | None:
        try:
            return self._under(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:
            return None

    def _under(self, full: str) -> str | None:
        if full == self._folder:
            return "."
        return full[len(self._folder) + 1 :] if full.startswith(self._folder + "/") else None


@dataclass
class _Node:
    """A file, a link or a directory: the state that programs see, and the state on the disk."""

    kind: str
    data: bytes = b""
    kept: bytes = b""
    entries: dict[str, _Node] = field(default_factory=dict)
    kept_entries: dict[str, _Node] = field(default_factory=dict)


def _listed(
    node: _Node, name: str, data: Callable[[_Node], bytes], entries: Callable[[_Node], dict[str, _Node]]
) -> dict[str, Any]:
    """Returns the paths below a directory with their content; None: a directory."""
    found: dict[str, Any] = {}
    for child, below in entries(node).items():
        path = f"{name}/{child}".lstrip("/")
        if below.kind == "directory":
            found |= {path: None} | _listed(below, path, data, entries)
        elif path != "lock":
            found[path] = os.fsdecode(below.data) if below.kind == "link" else data(below)
    return found


class Disk:
    """A folder whose unsynced changes are lost when the power goes.

    Args:
        folder: what is on the disk at the start, durable but for the files below `unsynced`.
        unsynced: a folder in it that was written and never synced, as an upload is.
    """

    def __init__(self, folder: Path, unsynced: str = "\0") -> None:
        self._top = self._read(folder, "", unsynced)

    def play(self, effect: Effect) -> None:
        """Repeats the effect on the model of the disk."""
        getattr(self, f"do_{effect.call}")(effect)

    def write_to(self, folder: Path, *, entries_survive: bool) -> None:
        """Writes what a power cut would leave: no unsynced content; unsynced names only if `entries_survive`."""
        self._write(self._top, folder, entries_survive)

    def files(self) -> dict[str, Any]:
        """Returns what programs see, as `snapshot` does."""
        return _listed(self._top, "", lambda node: node.data, lambda node: node.entries)

    def kept(self, *, entries_survive: bool) -> dict[str, Any]:
        """Returns what `write_to` writes."""
        return _listed(
            self._top, "", lambda node: node.kept, lambda node: node.entries if entries_survive else node.kept_entries
        )

    def _read(self, path: Path, name: str, unsynced: str) -> _Node:
        if path.is_symlink():
            target = os.fsencode(os.readlink(path))
            return _Node("link", target, target)
        if path.is_file():
            data = path.read_bytes()
            return _Node("file", data, b"" if name.startswith(unsynced + "/") else data)
        entries = {
            child.name: self._read(child, f"{name}/{child.name}".lstrip("/"), unsynced) for child in path.iterdir()
        }
        return _Node("directory", entries=entries, kept_entries=dict(entries))

    def _write(self, node: _Node, path: Path, entries_survive: bool) -> None:
        if node.kind == "link":
            path.symlink_to(os.fsdecode(node.data))
        elif node.kind == "file":
            path.write_bytes(node.kept)
            path.chmod(0o600)
        else:
            path.mkdir(mode=0o700)
            for name, child in (node.entries if entries_survive else node.kept_entries).items():
                self._write(child, path / name, entries_survive)

    def _find(self, path: str) -> _Node:
        node = self._top
        for part in path.split("/") if path != "." else []:
            node = node.entries[part]
        return node

    def _parent(self, path: str) -> tuple[dict[str, _Node], str]:
        folder, _, name = path.rpartition("/")
        return self._find(folder or ".").entries, name

    def do_open(self, effect: Effect) -> None:
        entries, name = self._parent(effect.paths[0])
        node = entries.setdefault(name, _Node("file"))
        if effect.flags & os.O_TRUNC:
            node.data = b""

    def do_write(self, effect: Effect) -> None:
        node = self._find(effect.paths[0])
        head = node.data[: effect.offset].ljust(effect.offset, b"\0")
        node.data = head + effect.data + node.data[effect.offset + len(effect.data) :]

    do_pwrite = do_write

    def do_ftruncate(self, effect: Effect) -> None:
        node = self._find(effect.paths[0])
        node.data = node.data[: effect.offset].ljust(effect.offset, b"\0")

    def do_fsync(self, effect: Effect) -> None:
        node = self._find(effect.paths[0])
        node.kept, node.kept_entries = node.data, dict(node.entries)

    def do_rename(self, effect: Effect) -> None:
        source, old = self._parent(effect.paths[0])
        target, new = self._parent(effect.paths[1])
        target[new] = source.pop(old)

    do_replace = do_rename

    def do_unlink(self, effect: Effect) -> None:
        entries, name = self._parent(effect.paths[0])
        entries.pop(name, None)

    do_rmdir = do_unlink

    def do_mkdir(self, effect: Effect) -> None:
        entries, name = self._parent(effect.paths[0])
        entries[name] = _Node("directory")

    def do_symlink(self, effect: Effect) -> None:
        entries, name = self._parent(effect.paths[0])
        entries[name] = _Node("link", effect.data, effect.data)

    def do_link(self, effect: Effect) -> None:
        entries, name = self._parent(effect.paths[1])
        entries[name] = self._find(effect.paths[0])

    def do_nothing(self, effect: Effect) -> None:
        """The call failed: nothing happened."""

    def do_chmod(self, effect: Effect) -> None:
        """Permissions are not modelled."""


def modes(folder: Path) -> dict[str, int]:
    """Returns the mode of every path below `folder`, which `snapshot` leaves out."""
    return {str(path.relative_to(folder)): path.lstat().st_mode for path in folder.rglob("*")}


def snapshot(folder: Path) -> dict[str, Any]:
    """Returns every path below `folder` with its content (a directory: None); locks and times are left out."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        name = str(path.relative_to(folder))
        if stat.S_ISDIR(mode):
            found[name] = None
        elif stat.S_ISLNK(mode):
            found[name] = os.readlink(path)
        elif stat.S_ISREG(mode) and name != "lock":
            found[name] = path.read_bytes()
    return found
