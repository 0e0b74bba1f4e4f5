"""The quick start of README.md, line by line, as it stands there."""

from __future__ import annotations

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def quick_start() -> list[list[str]]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Quick start", 1)[1]
    block = re.search(r"```\n(.*?)```", section, re.DOTALL)
    assert block
    return [shlex.split(line, comments=True) for line in block[1].splitlines()]


def test_the_quick_start_is_under_one_screen() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Quick start", 1)[1].split("\n## ", 1)[0]
    assert len(section.splitlines()) < 25


def test_the_readme_opens_with_the_two_commands() -> None:
    opening = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## ", 1)[0]
    assert re.search(r"^scripts/demo\b", opening, re.MULTILINE)
    assert re.search(r"^scripts/test\b", opening, re.MULTILINE)


def test_the_quick_start_works_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From `knnkit init` to labels from the embedded device, in a home directory of its own."""
    (tmp_path / "home").mkdir()
    work = tmp_path / "work"
    work.mkdir()
    rows = work / "rows.csv"
    with rows.open("w", newline="") as file:
        csv.writer(file).writerows([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3], [5.9, 2.8, 4.2, 1.3]])
    env = os.environ | {"HOME": str(tmp_path / "home")}
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from knnkit.cli import main; sys.exit(main())"
    commands = quick_start()
    assert [line[1] for line in commands] == ["install", "init", "keygen", "build", "deploy", "classify"]
    for program, *arguments in commands[1:]:
        assert program == "knnkit"
        result = subprocess.run(
            [sys.executable, "-c", start, *arguments], cwd=work, env=env, capture_output=True, text=True, timeout=600
        )
        assert result.returncode == 0, f"{arguments}: {result.stderr}"
    assert result.stdout.split() == ["setosa", "virginica", "versicolor"]
    assert (tmp_path / "home" / ".knnkit" / "current").is_symlink()
