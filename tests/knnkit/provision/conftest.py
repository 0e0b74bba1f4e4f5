"""A bare board on this machine whose recipe is two tiny wheels: every step can be tried in a fraction of a second."""

from __future__ import annotations

import ast
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from support.tiny import PROBE, make_tiny_wheels, want_tiny_wheels
from support.wheels import make_wheel

import device_agent
from knnkit.provision import Provisioned, environment, provision, remove
from knnkit.transport.base import MAX_OUTPUT, Completed, Progress
from knnkit.transport.local import LocalTransport


@dataclass(frozen=True)
class HasPython:
    """Facts of a board: its Python."""

    python: tuple[int, int, int] | None = (3, 11, 2)
    python_path: str | None = sys.executable


class Wire:
    """A transport that is not the embedded device's: counts what goes over it, and may break at any step."""

    def __init__(self) -> None:
        self.inner = LocalTransport("board")
        self.commands: list[str] = []
        self.orders: dict[str, str] = {}  # command of the script -> the last order for it
        self.before: Callable[[str], None] = lambda step: None
        self.after: Callable[[str], None] = lambda step: None
        self.prelude = ""  # Python that runs before the script
        self.environment: dict[str, str] = {}

    @property
    def name(self) -> str:
        return "board"

    def run(
        self, argv: Sequence[str], *, timeout: float, input: bytes = b"", max_output: int = MAX_OUTPUT
    ) -> Completed:
        step = argv[3] if "-I" in argv else argv[0]
        self.commands.append(step)
        self.before(step)
        if "-I" in argv:
            self.orders[step] = ast.literal_eval(input.decode().splitlines()[-1].removesuffix("))"))
        if "-I" in argv and self.prelude:
            program = f"{self.prelude}\nimport sys; exec(compile(sys.stdin.read(), '<stdin>', 'exec'))"
            argv = [argv[0], "-I", "-c", program, *argv[3:]]
        argv = ["env", *(f"{name}={value}" for name, value in self.environment.items()), *argv]
        done = self.inner.run(argv, timeout=timeout, input=input, max_output=max_output)
        self.after(step)
        return done

    def pipe(self, argv: Sequence[str], source: BinaryIO, sink: BinaryIO, *, idle: float | None) -> Completed:
        raise AssertionError("provisioning has no use for it")

    def append(
        self, source: BinaryIO, remote: str, *, offset: int, size: int, timeout: float, progress: Progress | None = None
    ) -> None:
        self.commands.append("append")
        self.before("append")
        self.inner.append(source, remote, offset=offset, size=size, timeout=timeout, progress=progress)
        self.after("append")

    def close(self) -> None:
        self.inner.close()


@dataclass
class Bare:
    """A board out of its box: `root` does not exist yet."""

    root: Path
    wheels: Path
    wire: Wire = field(default_factory=Wire)
    facts: HasPython = field(default_factory=HasPython)

    def provision(self, **options: Any) -> Provisioned:
        options = {"offline": True, "wheels_dir": self.wheels, **options}
        return provision(self.wire, self.facts, root=str(self.root), **options)

    def remove(self) -> bool:
        return remove(self.wire, self.facts, root=str(self.root))

    @property
    def python(self) -> Path:
        return self.root / "venv" / "bin" / "python"

    def tree(self) -> dict[str, tuple[int, int, int, int]]:
        """Path -> what `stat` says of everything under the root, compiled modules left out."""
        found = {}
        for path in [self.root, *sorted(self.root.rglob("*"))]:
            if "__pycache__" not in path.parts:
                seen = path.lstat()
                found[str(path.relative_to(self.root))] = (seen.st_ino, seen.st_mode, seen.st_size, seen.st_mtime_ns)
        return found

    def folders(self) -> dict[str, int]:
        """Folder -> permissions."""
        return {path: stat.S_IMODE(mode) for path, (_, mode, _, _) in self.tree().items() if stat.S_ISDIR(mode)}

    def assert_whole(self, done: Provisioned) -> None:
        """The environment in use runs, and nothing else lies about."""
        assert (self.root / "venv").readlink() == Path("venvs", done.environment)
        assert {path.name for path in self.root.iterdir()} <= {"venv", "venvs", "trust"}
        kept = list((self.root / "venvs").iterdir())
        assert len(kept) <= 2
        assert all((path / "knnkit.json").is_file() for path in kept)
        assert not list(self.root.rglob("*.part"))
        assert LocalTransport().run([str(self.python), "-I", "-c", PROBE], timeout=30).exit_code == 0


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the version of the agent that this knnkit brings."""

    def use(version: str) -> None:
        text = f"__version__ = {version!r}\n"

        def wheel() -> tuple[str, bytes]:
            import tempfile

            with tempfile.TemporaryDirectory() as folder:
                path = make_wheel(Path(folder), "knnkit_device_agent", version, {"device_agent/__init__.py": text})
                return path.name, path.read_bytes()

        made = wheel()
        monkeypatch.setattr(environment, "agent_wheel", lambda: made)
        monkeypatch.setattr(device_agent, "__version__", version)

    use("1.0")
    return use


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agent: Callable[[str], None]) -> Bare:
    """A bare board and the two wheels that it wants."""
    wheels = make_tiny_wheels(tmp_path / "wheels")
    want_tiny_wheels(monkeypatch, wheels)
    return Bare(tmp_path / "home" / "knnkit", wheels)
