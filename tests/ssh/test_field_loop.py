"""The loop: what one board did not know, or was taught, is labelled, promoted, built, deployed, and known on all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from support.board_roots import copy_board
from support.device import ROOT
from support.releases import Releases

from device_agent.shared.protocol import constants

YAML = """\
model:
  name: plants
  data: {{file: plants.csv, label: kind, drop: [when], missing: {{length: median, soil: constant}},
    categories: {{soil: one-hot, size: [small, large]}}}}   # as we measured them
  k: 3
  scale: standard
  reject: 0.95
  test: 0
  keep: {{unknown: 20}}
  enrol: {{rows: 20}}
signing: {{key: {key}}}
fleet:
  targets:
    - {{name: north, host: local, root: {north}}}
    - {{name: south, host: local, root: {south}}}
"""
NEW = [f'{{"length": {12 + n / 7:.3f}, "width": 6.5, "soil": "clay", "size": "large"}}' for n in range(8)]
TAUGHT = [f'{{"length": {-9 - n / 7:.3f}, "width": -5.5, "soil": "sand", "size": "small"}}' for n in range(3)]


def test_what_one_board_saw_is_known_on_all(prepared: Path, releases: Releases, tmp_path: Path) -> None:
    roots = {name: copy_board(prepared, tmp_path / name) for name in ("north", "south")}
    table = (releases.folder / "plants.csv").read_bytes()
    (tmp_path / "plants.csv").write_bytes(table)
    (tmp_path / "deploy.yaml").write_text(YAML.format(key=releases.private_key, **roots))

    def run(*words: str, input: str = "") -> str:
        env = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        argv = [sys.executable, "-m", "knnkit", *words]
        done = subprocess.run(
            argv, cwd=tmp_path, env=env, input=input, capture_output=True, text=True, timeout=400, check=False
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def agent(name: str, *words: str, input: list[str]) -> str:
        python = roots[name] / constants.VENV_LINK / "bin" / "python"
        argv = [str(python), "-m", "device_agent", "--root", str(roots[name]), *words]
        lines, env = "".join(f"{line}\n" for line in input), os.environ | {"PYTHONPATH": ""}
        return subprocess.run(argv, input=lines, capture_output=True, text=True, check=True, env=env).stdout

    def answers(name: str, rows: list[str], *more: str) -> list[dict[str, object]]:
        found = agent(name, "classify", "--output-format", "jsonl", *more, input=rows)
        return [json.loads(line) for line in found.splitlines()]

    run("deploy")
    assert [answer["label"] for answer in answers("north", NEW)] == ["unknown"] * 8
    agent("south", "enrol", "--label", "moss", input=TAUGHT)
    assert [answer["label"] for answer in answers("south", TAUGHT)] == ["moss"] * 3
    run("collect")
    run("label", "collected/plants.parquet", "--terminal", input="fern\ny\n" + "fern\n" * 5 + "q\n")
    told = json.loads(run("promote", "collected/plants.parquet", "--json"))
    ways = sorted((row["label"], row["device"]) for row in told["rows"])
    assert ways == [("fern", "north")] * 6 + [("moss", "south")] * 3
    assert told["without_label"] == 2
    assert told["gain"]["known"] == 0, "rows that are added measure nothing"
    assert {flip["after"] for flip in told["gain"]["flips"]} >= {"fern", "moss"}
    assert json.loads(run("promote", "collected/plants.parquet", "--json"))["rows"] == [], "each id once"
    assert (tmp_path / "plants.csv").read_bytes() == table
    run("deploy")
    promoted = {row["id"] for row in told["rows"]}
    for name in roots:
        found = answers(name, [*NEW, *TAUGHT], "--neighbors")
        assert [answer["label"] for answer in found] == ["fern"] * 8 + ["moss"] * 3
        near = {each.get("id") for answer in found for each in answer["neighbors"]}  # type: ignore[attr-defined]
        assert near >= {row["id"] for row in told["rows"] if row["label"] == "moss"}
        assert near & promoted, "an answer leads back to the row that a board saw"
    assert "3 rows, 1 label, 0 rows used in answers" in agent("south", "enrolled", input=[]), "the release has them"
