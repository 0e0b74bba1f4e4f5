"""A device under a directory, driven through its command line, with a clock that a test sets."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from device_agent.cli import main
from device_agent.shared.protocol import constants
from device_agent.shared.release import directory
from device_agent.shared.trust import rules
from device_agent.shared.trust.reasons import Reason
from device_agent.store import trust_store
from device_agent.system import clock as device_clock
from knnkit.release import orders as issue
from support import forge
from support.forge import NOW, fingerprint, signer
from support.releases import Releases

ROW = "5.1,3.5,1.4,0.2\n"


@dataclass(frozen=True)
class Board:
    """A device under a directory, driven through its command line."""

    root: Path
    capture: pytest.CaptureFixture[str]

    def run(self, *words: object) -> tuple[int, dict[str, Any]]:
        self.capture.readouterr()
        code = main(["--root", str(self.root), *map(str, words), "--json"])
        return code, json.loads(self.capture.readouterr().out)

    def classify(self) -> str:
        rows, answers = self.root.parent / "row.csv", self.root.parent / "answers.csv"
        rows.write_text(ROW)
        words = ["classify", "--input", rows, "--output", answers, "--neighbors", "--digest"]
        assert main(["--root", str(self.root), *map(str, words)]) == 0
        text = answers.read_text()
        assert text.startswith("setosa,")
        return text

    def upload(self, release: Path, name: str = "upload") -> Path:
        place = self.root / constants.INCOMING_DIR / name
        return forge.copy(release, place)

    def commit(self, release: Path) -> str:
        code, staged = self.run("stage", release)
        assert code == 0, staged
        digest: str = staged["release"]["digest"]
        assert self.run("activate", digest)[0] == 0
        assert self.run("confirm", digest)[0] == 0
        return digest

    def apply(self, order: bytes) -> None:
        """Applies a rotation or a revocation."""
        path = self.root.parent / "order"
        path.write_bytes(order)
        code, said = self.run("trust", "--apply", path)
        assert code == 0, said

    def revoke(self, name: str, by: str) -> None:
        """Revokes the key `name` by an order of the key `by`, which is trusted from now on."""
        enrol(self.root, by)
        self.apply(issue.revoke(signer(by), [fingerprint(name)], issued=NOW))

    def place(self, digest: str) -> Path:
        return self.root / constants.RELEASES_DIR / digest

    def refuses(self, reason: Reason, *words: object) -> None:
        before = self.state()
        code, problem = self.run(*words)
        assert (code, problem["reason"]) == (constants.EXIT_REFUSED, reason.value), problem
        assert problem["message"]
        assert self.state() == before

    def state(self) -> tuple[object, ...]:
        """State that a refusal must not change: the answering release, its answers, the stored releases."""
        _, status = self.run("status")
        kept = ("committed", "previous", "pending", "answering", "floor", "staged", "trusted", "revoked")
        assert status["answering"]
        return (*(json.dumps(status[key]) for key in kept), self.classify())


@pytest.fixture(scope="module")
def prepared(releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root that has committed the release `iris`, sequence NOW - 2000, signed by the owner."""
    folder = tmp_path_factory.mktemp("prepared")
    root = folder / "root"
    root.mkdir(mode=0o700)  # as `provision` does
    (root / constants.TRUST_DIR).mkdir(mode=0o700)
    enrol(root, "owner")
    release = sign_copy(releases["iris"], folder / "iris", sequence=NOW - 2000, created=NOW - 2000)
    for words in (["stage", release], ["activate", digest_of(release)], ["confirm", digest_of(release)]):
        assert main(["--root", str(root), *map(str, words)]) == 0
    return root


@pytest.fixture
def board(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], clock: Clock) -> Board:
    shutil.copytree(prepared, tmp_path / "root", symlinks=True)
    return Board(tmp_path / "root", capsys)


@pytest.fixture
def newer(releases: Releases, tmp_path: Path) -> Callable[..., Path]:
    """Makes a release that the board would accept, apart from the caller's changes."""

    def make(name: str = "newer", by: str = "owner", source: str = "iris-next", **changes: Any) -> Path:
        values = {"sequence": NOW - 1000, "created": NOW - 1000, **changes}
        return sign_copy(releases[source], tmp_path / name, by=by, **values)

    return make


def sign_copy(source: Path, target: Path, by: str = "owner", **changes: Any) -> Path:
    forge.copy(source, target)
    forge.change_manifest(target, **changes)
    forge.sign(target, by=by)
    return target


def enrol(root: Path, name: str) -> None:
    """Puts a key into ROOT/trust, as provisioning does."""
    path = root / constants.TRUST_DIR / trust_store.key_file_name(fingerprint(name))
    path.write_bytes(signer(name).public_pem)
    path.chmod(0o600)


def digest_of(release: Path) -> str:
    """Returns the digest of a release of `owner` or `new`."""
    known = rules.TrustState(keys=forge.keys("owner", "new"))
    return forge.verify(release, known, now=0).digest


class Clock:
    """Replaces the module `time`, with a date that the test sets."""

    now = NOW

    def time(self) -> float:
        return float(self.now)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    for module in (directory, device_clock):
        monkeypatch.setattr(module, "time", fake)
    return fake
