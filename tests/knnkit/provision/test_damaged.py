"""An environment that is damaged in any of its files is never called unchanged, and is repaired where it lies."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from knnkit.transport.local import LocalTransport


def truncate(path: Path) -> None:
    replace(path, path.read_bytes()[:-3])


def turn_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    replace(path, bytes(data))


def empty(path: Path) -> None:
    replace(path, b"")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace(path: Path, data: bytes) -> None:
    """Another file of that name: environments share the bytes of theirs."""
    path.unlink()
    path.write_bytes(data)


HARMS = (truncate, turn_a_bit, empty, Path.unlink, make_folder, os.mkfifo)


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("name", ["tinymath.py", "tinyruntime/core.py", "device_agent/__init__.py"])
def test_a_damaged_file_is_seen_and_repaired(bare: Any, harm: Callable[[Path], None], name: str) -> None:
    first = bare.provision()
    (site,) = (bare.root / "venv" / "lib").glob("python*/site-packages")
    sound = (site / name).read_bytes()
    if harm is os.mkfifo:
        (site / name).unlink()
    harm(site / name)
    again = bare.provision()
    assert again.changed
    assert again.environment == first.environment
    assert (site / name).read_bytes() == sound
    bare.assert_whole(again)
    assert not bare.provision().changed


def test_an_environment_that_does_not_run_is_repaired(bare: Any) -> None:
    """A compiled module is in no wheel, and Python believes it."""
    bare.provision()
    LocalTransport().run([str(bare.python), "-I", "-c", "import tinymath"], timeout=30)
    (compiled,) = (bare.root / "venv").resolve().rglob("tinymath.*.pyc")
    compiled.write_bytes(compiled.read_bytes()[:16] + b"\xff")
    done = bare.provision()
    assert done.changed
    assert any("was damaged and will be repaired" in note for note in done.notes)
    bare.assert_whole(done)
    assert not bare.provision().changed


def test_a_damaged_environment_is_repaired_before_it_is_used(bare: Any, agent: Callable[[str], None]) -> None:
    first = bare.provision()
    agent("1.1")
    bare.provision()
    agent("1.0")
    (module,) = (bare.root / "venvs" / first.environment).rglob("tinymath.py")
    truncate(module)
    done = bare.provision()
    assert done.environment == first.environment
    assert module.read_text() == "pi = 3\n"
    bare.assert_whole(done)


def test_who_runs_the_environment_meanwhile_is_not_disturbed(bare: Any) -> None:
    bare.provision()
    (module,) = (bare.root / "venv").resolve().rglob("tinymath.py")
    truncate(module)
    with module.open() as reader:
        bare.provision()
        assert reader.read() == "pi ="
    assert (bare.root / "venv").is_symlink()
