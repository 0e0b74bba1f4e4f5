"""What cannot be written is an error with the file, the cause and what to type; nothing half-written is left."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import ROOT
from support.releases import Releases

from knnkit.commands._config import rewrite
from knnkit.errors import names_path

DEPLOY = "model:\n  name: blobs\n  data: {sklearn: blobs}\n  test: 0.3\n"
WRITES = {
    "init": ("init", "other.yaml"),
    "keygen": ("keygen", "--out", "new/keys/mine"),
    "sign": ("sign", "dist", "--key", "keys/a.pem"),
    "card": ("card", "dist", "-o", "card.md"),
    "build": ("build", "-o", "new/dist"),
    "collect": ("collect", "--target", "local", "--root", "none", "-o", "new/field"),
    "report": ("status", "--target", "local", "--root", "none", "--report", "r.html"),
    "audit": ("audit", "--output", "a.csv"),
}


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def _full() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _run(folder: Path, words: tuple[str, ...], before: Callable[[], None] | None, *more: str) -> tuple[int, str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(folder.parent)}
    done = subprocess.run(
        [*more, sys.executable, "-m", "knnkit", *words],
        cwd=folder, env=env, capture_output=True, text=True, preexec_fn=before, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.fixture
def project(tmp_path: Path, releases: Releases) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(releases["blobs"], folder / "dist")
    (folder / "keys").mkdir()
    (folder / "keys" / "a.pem").write_bytes(releases.private_key.read_bytes())
    (folder / "keys" / "a.pem").chmod(0o600)
    (folder / "deploy.yaml").write_text(DEPLOY + "signing: {key: keys/a.pem}\n")
    return folder


@pytest.mark.parametrize("words", [words for name, words in WRITES.items() if name != "build"], ids=lambda w: w[0])
def test_a_full_disk_leaves_no_half_of_a_file(words: tuple[str, ...], project: Path) -> None:
    before = tree(project)
    code, said = _run(project, words, _full)
    assert tree(project) == before
    assert "Traceback" not in said
    if words[0] == "collect":  # nothing to write: there is no agent
        return
    assert code == 2, said
    assert re.search(r"(other.yaml|mine|model.sig|card.md|r.html|a.csv): File too large\n  try: raise the limit", said)


@pytest.mark.parametrize("words", [words for name, words in WRITES.items() if name != "audit"], ids=lambda w: w[0])
def test_a_folder_that_is_read_only_is_named_with_what_to_do(words: tuple[str, ...], project: Path) -> None:
    before = tree(project)
    for path in (project, *project.rglob("*")):
        path.chmod(path.stat().st_mode & 0o555)
    plain = ("setpriv", "--bounding-set=-all") if os.getuid() == 0 else ()
    code, said = _run(project, words, None, *plain)
    for path in (project, *(path for path in project.rglob("*") if path.is_dir())):
        path.chmod(0o755)
    assert tree(project) == before
    assert (code, "Traceback" in said) == (2, False), said
    assert "Permission denied" in said
    assert "try: chmod u+rwX " in said


def test_a_file_that_is_written_again_keeps_mode_and_owner(tmp_path: Path) -> None:
    path = tmp_path / "deploy.yaml"
    path.write_text(DEPLOY)
    path.chmod(0o640)
    if os.getuid() == 0:
        os.chown(path, 12345, 23456)
    before = path.stat()
    rewrite(path, "blobs", lambda text, place: f"{text}# {place}\n")
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert path.read_text() == DEPLOY + "# ('model',)\n"
    assert list(tmp_path.iterdir()) == [path]


def test_the_table_is_shown_although_deploy_yaml_cannot_be_written(project: Path) -> None:
    words = ("--k", "1", "--scale", "none", "--metric", "euclidean", "--weights", "uniform")
    done = subprocess.run(
        [sys.executable, "-m", "knnkit", "tune", "--write", *words],
        cwd=project, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        preexec_fn=_full, check=False,
    )  # fmt: skip
    assert "File too large" in done.stderr
    assert "euclidean" in done.stdout


@pytest.mark.parametrize(
    ("said", "path", "found"),
    [
        ("/k/id: no such file", "/k/id", True),
        ("cannot read /k/id.", "/k/id", True),
        ("/k/id.pub: no such file", "/k/id", False),
        ("/k/id_rsa is missing", "/k/id", False),
        ("/old/k/id: it", "/k/id", False),
    ],
)
def test_a_message_names_a_path_only_as_a_whole(said: str, path: str, found: bool) -> None:
    assert names_path(said, path) == found
