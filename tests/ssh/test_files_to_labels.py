"""Sounds in a folder on the host, labels from the board over real SSH: files are sent as lines, answers name them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from support.board_roots import copy_board
from support.releases import Releases
from support.sshd import Sshd
from support.stages import PITCHES, tone, write_wav

ROOT = Path(__file__).parents[2]


def test_a_folder_of_sounds_answers_over_ssh_with_the_label_of_each_file(
    server: Sshd, no_ssh_config: Path, releases: Releases, prepared: Path, tmp_path: Path
) -> None:
    board = copy_board(prepared, tmp_path / "board")
    (tmp_path / "deploy.yaml").write_text(
        f"fleet:\n  known_hosts: '{server.known_hosts}'\n  ssh_config: '{no_ssh_config}'\n"
        f"  targets: [{{host: '{server.host}', user: '{server.user}', port: {server.port}, root: '{board}'}}]\n"
    )

    def knnkit(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "knnkit", *words, "-i", str(server.identity)]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, check=False)

    done = knnkit("deploy", "--release", str(releases["tones"]), "--key", str(releases.public_key), "--json")
    assert done.returncode == 0, done.stderr
    own = json.loads(done.stdout)["devices"][0]["certificate"]["embedding"]
    assert (own["above"], own["search_different"], own["labels_different"]) == (0, 0, 0)
    assert own["labels_same"] == own["rows"]
    rng = np.random.default_rng(3)
    for label, pitch in PITCHES.items():
        (tmp_path / "heard" / label).mkdir(parents=True)
        write_wav(tmp_path / "heard" / label / "a b.wav", tone(pitch, 22_050, rng), 22_050)
    said = knnkit("classify", "--input", "heard")
    assert said.returncode == 0, said.stderr
    answers = [json.loads(line) for line in said.stdout.splitlines()]
    assert answers == [{"file": f"{label}/a b.wav", "label": label} for label in sorted(PITCHES)]
    one = knnkit("classify", "--input", "heard/low/a b.wav", "--output-format", "csv")
    assert one.stdout == "low\n"
    (tmp_path / "heard" / "low" / "broken.wav").write_bytes(b"RIFF....WAVE")
    broken = knnkit("classify", "--input", "heard", "--output", "answers.jsonl")
    assert broken.returncode != 0
    assert "device_agent: heard/low/broken.wav: the WAV file has no" in broken.stderr
    for where in ("heard", "heard/low/broken.wav"):
        report = knnkit("classify", "--input", where, "--output", "answers", "--report", "report.html")
        assert report.returncode != 0
        assert "heard/low/broken.wav: the WAV file has no" in report.stdout + report.stderr
        assert "line" not in report.stdout + report.stderr
    assert not (tmp_path / "answers.jsonl").exists()
    table = knnkit("parity")
    assert table.returncode == 0, table.stderr
    assert "searched" in table.stdout
