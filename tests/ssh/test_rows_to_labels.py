"""The main job over real SSH: rows in a CSV on the host, labels from the board, asked for with the plain ssh client."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from support.board_roots import copy_board
from support.releases import Releases
from support.sshd import Sshd

ROOT = Path(__file__).parents[2]
K = 3
NAMES = np.array(["apple", "pear", "quince"])


def make_rows(count: int, seed: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Three classes that overlap, so that neighbours matter."""
    random = np.random.default_rng(seed)
    classes = random.integers(0, 3, count)
    return np.round(random.normal(size=(count, 4)) + classes[:, None] * 0.8, 4), classes


def write_csv(path: Path, rows: npt.NDArray[np.float64], labels: npt.NDArray[np.str_]) -> None:
    lines = [",".join([*map(str, row), label]) for row, label in zip(rows.tolist(), labels)]
    path.write_text("a,b,c,d,fruit\n" + "\n".join(lines) + "\n")


def expected(
    train: npt.NDArray[np.float64], classes: npt.NDArray[np.int64], rows: npt.NDArray[np.float64]
) -> list[str]:
    """Brute force in float64; votes tie to the lowest class."""
    distances = ((rows[:, None] - train[None]) ** 2).sum(axis=2)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :K]
    votes = np.stack([(classes[nearest] == number).sum(axis=1) for number in range(len(NAMES))], axis=1)
    return [str(name) for name in NAMES[votes.argmax(axis=1)]]


def test_a_model_of_a_csv_answers_over_ssh_what_a_float64_search_answers_for_every_row(
    server: Sshd, no_ssh_config: Path, releases: Releases, prepared: Path, tmp_path: Path
) -> None:
    train, classes = make_rows(500, seed=1)
    rows, truth = make_rows(400, seed=2)
    write_csv(tmp_path / "train.csv", train, NAMES[classes])
    write_csv(tmp_path / "test.csv", rows, NAMES[truth])
    board = copy_board(prepared, tmp_path / "board")
    config = tmp_path / "deploy.yaml"
    config.write_text(
        "model:\n  name: fruit\n  data: {file: train.csv, label: fruit}\n"
        f"  test: {{file: test.csv, label: fruit}}\n  k: {K}\n"
        f"signing: {{key: '{releases.private_key}'}}\n"
        f"fleet: {{known_hosts: '{server.known_hosts}', ssh_config: '{no_ssh_config}'}}\n"
    )
    target = f"{server.user}@{server.host}:{server.port}"
    deploy = [
        sys.executable,
        "-m",
        "knnkit",
        "deploy",
        "-c",
        str(config),
        "--target",
        target,
        "-i",
        str(server.identity),
        "--root",
        str(board),
    ]
    done = subprocess.run(
        deploy, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False
    )
    assert done.returncode == 0, done.stderr
    options = ["-F", "none", "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={server.known_hosts}"]
    login = ["ssh", *options, "-i", str(server.identity), "-p", str(server.port), f"{server.user}@{server.host}"]
    agent = [f"{board}/venv/bin/python", "-m", "device_agent", "--root", str(board), "classify"]
    lines = "".join(",".join(map(str, row)) + "\n" for row in rows.tolist())
    answered = subprocess.run([*login, *agent], input=lines, capture_output=True, text=True, check=True).stdout
    labels = expected(train, classes, rows)
    assert len(set(labels)) == 3
    assert answered.split() == labels
