"""Whatever lies in a board's root is cleared away or refused: never followed, never waited for, never in the way."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from knnkit.errors import DeviceFailed

WHEEL = "tinymath-2.0-py3-none-any.whl"
SOON = 20.0


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A board that waits for a pipe is given up."""
    monkeypatch.setattr("knnkit.provision.remote_python.LOOK_SECONDS", SOON)
    monkeypatch.setattr("knnkit.provision.install.BUILD_SECONDS", SOON)


def link(path: Path) -> None:
    elsewhere = path.parents[2] / "elsewhere"
    elsewhere.mkdir()
    path.symlink_to(elsewhere)


@pytest.mark.parametrize("make", [link, os.mkfifo, Path.touch], ids=["link", "pipe", "file"])
def test_what_is_no_folder_is_no_place_for_wheels(bare: Any, make: Callable[[Path], None]) -> None:
    stray = bare.root / "venvs" / "incoming.1.1.aaaaaaaa"
    stray.parent.mkdir(parents=True)
    make(stray)
    bare.assert_whole(bare.provision())
    elsewhere = bare.root.parent / "elsewhere"
    assert not elsewhere.exists() or not list(elsewhere.iterdir())


def test_a_folder_in_the_place_of_the_link_is_named(bare: Any, agent: Callable[[str], None]) -> None:
    bare.provision()
    (bare.root / "venv").unlink()
    (bare.root / "venv").mkdir()
    agent("1.1")
    with pytest.raises(DeviceFailed, match=r"/venv is a folder") as caught:
        bare.provision()
    assert caught.value.reason == "bad-root"


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "harm",
    [
        lambda environment: rewrite(environment / "knnkit.json", wheels=5),
        lambda environment: rewrite(environment / "knnkit.json", wheels=[5]),
        lambda environment: rewrite(environment / "knnkit.json", wheels=[{"name": 5, "sha256": []}]),
        lambda environment: rewrite(environment / "knnkit.json", pins=5),
        lambda environment: (environment / "knnkit.json").write_text("[" * 100_000),
        lambda environment: pipe(environment / "knnkit.json"),
        lambda environment: rewrite(environment / "wheels" / f"{WHEEL}.json", files=5),
        lambda environment: rewrite(environment / "wheels" / f"{WHEEL}.json", files=["tinymath.py"]),
        lambda environment: rewrite(environment / "wheels" / f"{WHEEL}.json", files={"tinymath.py": 5}),
        lambda environment: rewrite(environment / "wheels" / f"{WHEEL}.json", files={"../../tinymath.py": "a"}),
        lambda environment: (environment / "wheels" / f"{WHEEL}.json").write_text("{}"),
        lambda environment: pipe(environment / "wheels" / f"{WHEEL}.json"),
        lambda environment: pipe(next(environment.rglob("tinymath.py"))),
    ],
    ids=[
        *("wheels", "wheel", "name", "pins", "deep", "marker is a pipe"),
        *("files", "list of files", "digest", "outside", "no files", "record is a pipe", "module is a pipe"),
    ],
)
def test_an_environment_that_is_not_as_it_was_made_is_in_nobody_s_way(
    bare: Any, agent: Callable[[str], None], harm: Callable[[Path], None]
) -> None:
    first = bare.provision()
    harm(bare.root / "venvs" / first.environment)
    agent("1.1")
    done = bare.provision()
    bare.assert_whole(done)
    (module,) = (bare.root / "venvs" / done.environment).rglob("tinymath.py")
    assert module.read_text() == "pi = 3\n"


def test_a_wheel_that_is_written_to_while_it_is_unpacked_is_not_used(bare: Any, tmp_path: Path) -> None:
    """By a host whose connection was taken for a broken one: it still holds the file open."""
    evil = tmp_path / "evil"
    shutil.copytree(bare.wheels, evil)
    import zipfile

    with zipfile.ZipFile(evil / WHEEL, "a") as archive:
        archive.writestr("smuggled.py", "")
    bare.wire.prelude = (
        "import shutil, zipfile\n"
        "class Meddled(zipfile.ZipFile):\n"
        "    def __init__(self, path):\n"
        f"        if path.endswith({WHEEL!r}): shutil.copy({str(evil / WHEEL)!r}, path)\n"
        "        super().__init__(path)\n"
        "zipfile.ZipFile = Meddled\n"
    )
    with pytest.raises(DeviceFailed, match=f"{WHEEL} changed while it was unpacked") as caught:
        bare.provision()
    assert caught.value.reason == "missing-wheel"
    assert not bare.root.exists()
