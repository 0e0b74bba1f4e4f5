"""`knnkit classify --input FILE`: what a device says of the rows, it says of the user's file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.device import ROOT, Device
from support.releases import Releases

GOOD = "5.1,3.5,1.4,0.2\n"


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory, releases: Releases) -> Path:
    """The root of a device that answers, with the Python of this test as its own."""
    device = Device(tmp_path_factory.mktemp("board") / "root", releases)
    device.install(releases["iris"])
    python = device.root / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    # `-I` would leave PYTHONPATH out, and so this clone.
    python.write_text(f'#!/bin/sh\n[ "$1" != -I ] || shift\nexec env PYTHONPATH="{ROOT}" "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return device.root


def classify(board: Path | None, cwd: Path, *arguments: str, input: str = "") -> subprocess.CompletedProcess[str]:
    """Runs `knnkit classify` for the device `board`; None: for those of deploy.yaml in `cwd`."""
    target = [] if board is None else ["--target", "local", "--root", str(board)]
    argv = [sys.executable, "-m", "knnkit", "classify", *target, *arguments]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(argv, cwd=cwd, input=input, capture_output=True, text=True, timeout=120, env=env)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("rows.csv", GOOD + "5.1,3.5,x,0.2\n", "rows.csv, line 2: column 3 ('petal length (cm)'): 'x' is not a number"),
        ("rows.csv", "", "rows.csv: the input has no rows"),
        ("rows.csv", "petal length (cm),b,c,d\n1,2,3,4\n", "rows.csv: line 1: the header has no column"),
        ("rows.jsonl", "[1,2,3]\n", "rows.jsonl, line 1: expected 4 values, found 3"),
        ("rows.npy", "no array", "rows.npy: not an NPY file"),
        ("standard input, x.csv", "1\n", "standard input, x.csv, line 1: expected 4 columns"),
        (r"a\1b.csv", "1\n", r"a\1b.csv, line 1: expected 4 columns"),
    ],
)
def test_an_error_names_the_file_that_the_user_named(
    board: Path, tmp_path: Path, name: str, content: str, says: str
) -> None:
    (tmp_path / name).write_text(content)
    said = classify(board, tmp_path, "--input", name)
    assert said.returncode == 2
    assert said.stderr.startswith(f"device_agent: {says}")


def test_a_stream_names_it_for_each_line_and_for_its_header(board: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(GOOD + "1,2\n" + GOOD + "x,2,3,4\n")
    said = classify(board, tmp_path, "--input", "rows.csv", "--stream")
    places = [line.split(":")[1] for line in said.stderr.splitlines() if line.startswith("device_agent: ")]
    assert places == [" rows.csv, line 2", " rows.csv, line 4"]
    (tmp_path / "rows.csv").write_text("petal length (cm),b,c,d\n1,2,3,4\n")
    said = classify(board, tmp_path, "--input", "rows.csv", "--stream")
    assert said.stderr.startswith("device_agent: rows.csv: line 1: the header has no column")


def test_several_devices_name_it_each(board: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("1,2\n")
    shutil.copytree(board, tmp_path / "other", symlinks=True)
    targets = f"[{{host: local, name: a, root: '{board}'}}, {{host: local, name: b, root: '{tmp_path}/other'}}]"
    (tmp_path / "deploy.yaml").write_text(f"fleet: {{targets: {targets}}}\n")
    said = classify(None, tmp_path, "--input", "rows.csv", "--output", "out")
    assert said.returncode == 1
    assert said.stdout.count("rows.csv, line 1: expected 4 columns") == 2
    assert "standard input" not in said.stdout


def test_rows_that_come_through_a_pipe_are_still_those_of_standard_input(board: Path, tmp_path: Path) -> None:
    said = classify(board, tmp_path, input="1,2\n")
    assert said.stderr.startswith("device_agent: standard input, line 1: expected 4 columns, found 2")


KEPT = "id," + ",".join(f"{name} (cm)" for name in ("sepal length", "sepal width", "petal length", "petal width"))
DEPLOY = "fleet: {targets: [{host: local, root: ROOT}]}\nclassify: {keep: [id]}\n"


def test_columns_are_kept_as_deploy_yaml_says_or_the_command_line(board: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(f"{KEPT}\na b,{GOOD}-x,{GOOD}")
    by_hand = classify(board, tmp_path, "--input", "rows.csv", "--keep", "id", "--keep", "petal width (cm)")
    assert by_hand.stderr == ""
    assert by_hand.stdout.splitlines() == ["id,petal width (cm),label", "a b,0.2,setosa", "-x,0.2,setosa"]
    (tmp_path / "deploy.yaml").write_text(DEPLOY.replace("ROOT", str(board)))
    said = classify(None, tmp_path, "--input", "rows.csv")
    assert said.stdout.splitlines() == ["id,label", "a b,setosa", "-x,setosa"], said.stderr
    said = classify(None, tmp_path, "--input", "rows.csv", "--output", "out", "--report", "x.html")
    assert (tmp_path / "out" / "local.csv").read_text().splitlines() == ["id,label", "a b,setosa", "-x,setosa"]
