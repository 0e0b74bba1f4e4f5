"""A device in a folder: the real agent under a root of its own, run as the host would run it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from device_agent.shared.protocol import constants
from support.releases import Releases

ROOT = Path(__file__).resolve().parents[2]


#: Devices by the releases that were installed there, and their digests; never one that a test has.
_INSTALLED: dict[tuple[Path, ...], tuple[Path, list[str]]] = {}
_FOLDER = tempfile.TemporaryDirectory(prefix="knnkit-installed-")


@dataclass(frozen=True)
class Said:
    """The output of one command of the agent, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on standard output."""
        found: dict[str, Any] = json.loads(self.out)
        return found


class Device:
    """An agent root that trusts the key of `releases`."""

    def __init__(self, root: Path, releases: Releases) -> None:
        self.root = root
        self.releases = releases
        (root / constants.TRUST_DIR).mkdir(parents=True, mode=0o700)
        root.chmod(0o700)
        shutil.copy(releases.public_key, root / constants.TRUST_DIR / "signing.pem")

    def argv(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "device_agent", "--root", str(self.root), *map(str, arguments)]

    def env(self, **more: str) -> dict[str, str]:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return env | {"PYTHONPATH": str(ROOT)} | more

    def run(self, *arguments: str | Path, input: str | bytes = b"", **env: str) -> Said:
        data = input.encode() if isinstance(input, str) else input
        done = subprocess.run(
            self.argv(*arguments), input=data, capture_output=True, timeout=120, env=self.env(**env), check=False
        )
        return Said(done.returncode, done.stdout.decode(), done.stderr.decode())

    def ask(self, *arguments: str | Path, code: int = 0, **env: str) -> dict[str, Any]:
        """Runs a command with --json, expects its exit code, and returns its document."""
        said = self.run(*arguments, "--json", **env)
        assert said.code == code, (said.code, said.out, said.err)
        return said.document

    def popen(self, *arguments: str | Path, **more: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.argv(*arguments), env=self.env(), **more)

    def stage(self, release: Path) -> str:
        digest: str = self.ask("stage", release)["release"]["digest"]
        return digest

    def install(self, release: Path) -> str:
        """Stages, activates and confirms; returns the digest."""
        return self.install_all(release)[0]

    def install_all(self, *releases: Path) -> list[str]:
        """Installs one after another; returns the digests. A new device becomes a copy of one that has done so."""
        shared = self.releases.public_key.parents[1] / "releases"
        if not self._is_new() or {path.parent for path in releases} != {shared}:
            return [self._install(release) for release in releases]
        if releases not in _INSTALLED:
            root = Path(_FOLDER.name, str(len(_INSTALLED)))
            made = Device(root, self.releases)
            _INSTALLED[releases] = root, [made._install(release) for release in releases]
        root, digests = _INSTALLED[releases]
        shutil.copytree(root, self.root, symlinks=True, dirs_exist_ok=True)
        return digests

    def _is_new(self) -> bool:
        files = [path for path in self.root.rglob("*") if not path.is_dir()]
        return len(files) == 1 and files[0].read_bytes() == self.releases.public_key.read_bytes()

    def _install(self, release: Path) -> str:
        digest = self.stage(release)
        self.ask("activate", digest)
        self.ask("confirm", digest)
        return digest

    def answering(self) -> str | None:
        digest: str | None = self.ask("status")["answering"]
        return digest


@pytest.fixture
def device(tmp_path: Path, releases: Releases) -> Iterator[Device]:
    """A device without a release."""
    made = Device(tmp_path / "root", releases)
    yield made
    with contextlib.suppress(OSError):
        (made.root / constants.STATE_FILE).unlink()  # nothing is pending any more: its watchdog ends
