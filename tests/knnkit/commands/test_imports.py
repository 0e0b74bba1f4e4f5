"""What the command line loads: help comes at once because nothing heavy is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.device import ROOT
from support.imports import loaded_by

from knnkit.commands import COMMANDS

#: What `--help` loads nothing of.
NOT_FOR_HELP = {"tensorflow", "sklearn", "paramiko", "rich", "pydantic", "numpy", "jinja2", "matplotlib", "distributed"}
#: Packages that come with `knnkit[build]`, directly or by way of others.
BUILD_EXTRA = ("flatbuffers", "imblearn", "matplotlib", "pandas", "pyarrow", "scipy", "sklearn", "skops", "tensorflow")
#: Commands that need no deploy.yaml.
ABOUT_KEYS = {"completion", "keygen", "sign", "verify"}
#: Commands that read rows or a model on the host.
ABOUT_MODELS = {"audit", "build", "card", "classify", "demo", "deploy", "diff", "inspect", "label", "parity"}
ABOUT_MODELS |= {"promote", "reject", "tune"}


def test_the_probe_sees_what_is_imported() -> None:
    assert {"knnkit", "argparse", "device_agent"} <= loaded_by("--help")
    assert "pydantic" in loaded_by("schema")


def test_help_loads_nothing_heavy() -> None:
    assert loaded_by("--help") & NOT_FOR_HELP == set()


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_help_of_a_command_loads_nothing_heavy(command: str) -> None:
    assert loaded_by(command, "--help") & NOT_FOR_HELP == set()


def test_init_without_rows_loads_no_numpy(tmp_path: Path) -> None:
    assert loaded_by("init", str(tmp_path / "deploy.yaml")) & NOT_FOR_HELP == set()
    assert (tmp_path / "deploy.yaml").is_file()


def test_a_command_loads_only_what_it_needs_to_begin() -> None:
    """TensorFlow, paramiko and the like are loaded once a model is built or a connection is made."""
    fleet = set(COMMANDS) - ABOUT_MODELS - ABOUT_KEYS
    program = f"""
import importlib, sys
heavy = {NOT_FOR_HELP!r}
for commands in ({sorted(ABOUT_KEYS)!r}, {sorted(fleet)!r}, {sorted(ABOUT_MODELS)!r}):
    for command in commands:
        importlib.import_module("knnkit.commands." + command)
    print(sorted(heavy & set(sys.modules)))
"""
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["[]", "['pydantic']", "['numpy', 'pydantic']"], done.stderr


def test_no_command_needs_the_build_extra_to_begin() -> None:
    """An operator who deploys a finished release has none of these packages."""
    program = f"""
import importlib, sys
for name in {BUILD_EXTRA!r}:
    sys.modules[name] = None
for command in {sorted(COMMANDS)!r}:
    importlib.import_module("knnkit.commands." + command)
"""
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("package", "names"),
    [
        ("knnkit", ["TfKNN", "__version__", "from_sklearn", "from_skops"]),
        ("device_agent", ["TfliteKNN", "__version__"]),
    ],
)
def test_what_a_package_exports_is_this_and_comes_when_it_is_asked_for(package: str, names: list[str]) -> None:
    program = f"""
import sys, {package}
heavy = {{"numpy", "tensorflow", "sklearn", "tflite_runtime", "ai_edge_litert", "typing", "dataclasses"}}
print(sorted(heavy & set(sys.modules)))
print({package}.__all__ == dir({package}) == {names!r})
print([getattr({package}, name) is not None for name in {package}.__all__])
print(sorted({{"tensorflow", "sklearn"}} & set(sys.modules)))
try:
    {package}.nothing
except AttributeError as error:
    print(error)
"""
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == [
        "[]", "True", str([True] * len(names)), "[]", f"module '{package}' has no attribute 'nothing'"
    ], done.stderr  # fmt: skip
