"""The quick start of README.md, line by line, as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def quick_start() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Quick start", 1)[1]
    block = re.search(r"```\n(.*?)```", section, re.DOTALL)
    assert block
    return block[1].splitlines()


def test_the_quick_start_is_under_one_screen() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Quick start", 1)[1].split("\n## ", 1)[0]
    assert len(section.splitlines()) < 25


def test_the_readme_opens_with_the_two_commands() -> None:
    opening = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## ", 1)[0]
    assert re.search(r"^scripts/demo\b", opening, re.MULTILINE)
    assert re.search(r"^scripts/test\b", opening, re.MULTILINE)


def test_the_quick_start_works_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a clone, which has a deploy.yaml, to labels from the embedded device, in a home directory of its own."""
    (tmp_path / "home").mkdir()
    clone = tmp_path / "clone"
    clone.mkdir()
    shutil.copy(ROOT / "deploy.yaml", clone)
    env = os.environ | {"HOME": str(tmp_path / "home")}
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from knnkit.cli import main; sys.exit(main())"
    knnkit = f'knnkit() {{ {shlex.quote(sys.executable)} -c {shlex.quote(start)} "$@"; }}'
    environment, install, *commands = quick_start()
    assert environment.startswith("python3 -m venv ")
    assert install.startswith("pip install ")
    assert [line.split()[1] for line in commands if line.startswith("knnkit")] == [
        "init", "keygen", "build", "deploy", "classify"
    ]  # fmt: skip
    result = subprocess.run(
        ["bash", "-e", "-c", "\n".join([knnkit, *commands])],
        cwd=clone, env=env, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "setosa"
    (root,) = (tmp_path / "home").glob(".knnkit*")
    assert (root / "current").is_symlink()


def python_lines() -> tuple[list[str], list[str]]:
    """The two blocks of Python in README.md: seven lines, and what compares them with the host."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first, second = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return first.splitlines(), second.splitlines()


@pytest.mark.parametrize("before", ["", "import tensorflow", "import sklearn.neighbors, device_agent, knnkit"])
def test_the_seven_lines_print_what_the_readme_says(before: str, tmp_path: Path) -> None:
    """And nothing on standard error, with every warning an error: TensorFlow's own are its own."""
    seven, further = python_lines()
    assert sum(map(bool, seven)) == 7
    printed = [line.split("  # ")[1] for line in seven + further if line.startswith("print")]
    lines = "\n".join(seven + further)
    program = f"""
import os, sys, warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    {before or "pass"}
os.write(2, b"from here on\\n")
{lines}"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("from here on\n")
    assert done.stdout.splitlines() == printed == ["0.9433333333333334", "0.9433333333333334", "True"]
    assert [each.name for each in tmp_path.iterdir()] == ["knn.tflite"]
