"""A board that needs two tiny wheels instead of a TFLite runtime, so that provisioning takes little time."""

from __future__ import annotations

from pathlib import Path

import pytest

from knnkit.provision import environment, pinned_hashes
from knnkit.provision import requirements as table
from knnkit.provision.requirements import Board, Recipe
from support.wheels import digest, make_wheel

PINS = ("tinyruntime==1.0", "tinymath==2.0")
PROBE = "import json, tinyruntime, tinymath, device_agent; print(json.dumps({'tinyruntime': tinyruntime.version}))"


def make_tiny_wheels(folder: Path) -> Path:
    """Writes the two wheels; returns the folder."""
    folder.mkdir()
    files = {"tinyruntime/__init__.py": "version = '1.0'\n", "tinyruntime/core.py": "a = 1\n"}
    make_wheel(folder, "tinyruntime", "1.0", files)
    make_wheel(folder, "tinymath", "2.0", {"tinymath.py": "pi = 3\n"})
    return folder


def lock(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Makes the wheels in the folder the known ones, by their present SHA-256."""
    known = {path.name: digest(path) for path in folder.glob("*.whl")}
    monkeypatch.setattr(pinned_hashes, "known", lambda: known)


def want_tiny_wheels(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Makes every board need the tiny wheels from now on, with their present SHA-256."""

    def recipe(name: str, board: Board, runtime: str) -> Recipe:
        return Recipe("x86_64", board.python, (2, 36), PINS)

    lock(monkeypatch, folder)
    monkeypatch.setattr(environment, "recipe_for", recipe)
    monkeypatch.setattr(table, "ROOM", {PINS[0]: 1 << 20})
    monkeypatch.setattr(environment, "PROBE", PROBE)
