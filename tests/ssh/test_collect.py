"""Rows come home from a fleet: each once, named by its device, and a device that fails costs nobody else's."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from support.board_roots import copy_board
from support.releases import Releases

from device_agent.shared.enrolment.enrolled import cells_id
from device_agent.shared.protocol import constants
from knnkit import cli
from knnkit.data.collected import Columns, FieldRow, merge, read


class Fleet:
    """Boards with a root each on this machine, in one deploy.yaml."""

    def __init__(self, folder: Path, prepared: Path, release: Path, key: Path, count: int) -> None:
        self.folder, self.out = folder, folder / "collected"
        self.out.mkdir()
        self.roots = {f"d{number}": copy_board(prepared, folder / f"root{number}") for number in range(count)}
        targets = [f"    - {{name: {name}, host: local, root: '{root}'}}\n" for name, root in self.roots.items()]
        (folder / "deploy.yaml").write_text("fleet:\n  targets:\n" + "".join(targets))
        assert self.run("deploy", "--release", str(release), "--key", str(key))[0] == 0

    def run(self, *words: str) -> tuple[int, str]:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            return cli.main([words[0], "-c", str(self.folder / "deploy.yaml"), *words[1:]]), said.getvalue()

    def collect(self) -> tuple[int, dict[str, Any]]:
        code, text = self.run("collect", "-o", str(self.out), "--json")
        return code, json.loads(text)

    def agent(self, name: str, *words: str, input: bytes = b"") -> bytes:
        python = self.roots[name] / constants.VENV_LINK / "bin" / "python"
        argv = [str(python), "-m", "device_agent", "--root", str(self.roots[name]), *words]
        env = os.environ | {"PYTHONPATH": ""}
        return subprocess.run(argv, input=input, capture_output=True, check=True, timeout=60, env=env).stdout

    def make_hostile(self, name: str) -> Path:
        """Returns a file that this board prints from now on in place of its ring."""
        printed, python = self.folder / "printed", self.roots[name] / constants.VENV_LINK / "bin" / "python"
        own = python.rename(python.with_name("own-python"))
        said = f"case \" $* \" in *' ring --json '*) exec cat '{printed}';; esac\n"
        python.write_text(f"#!/bin/sh\n{said}exec '{own}' \"$@\"\n")
        python.chmod(0o755)
        return printed

    def classify(self, name: str, seed: int, count: int = 120) -> None:
        self.agent(name, "classify", "--format", "jsonl", input=some_rows(seed, count))

    def rows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = pyarrow.parquet.read_table(self.out / "plants.parquet").to_pylist()
        return found

    def ids(self, name: str) -> set[str]:
        return {json.loads(line)["id"] for line in self.agent(name, "ring", "--json").splitlines()}


def some_rows(seed: int, count: int) -> bytes:
    draw = random.Random(seed)
    return b"".join(
        json.dumps({
            "length": round(draw.uniform(-2, 9), 3), "width": round(draw.uniform(-1, 3), 3),
            "soil": draw.choice(["sand", "clay", "loam \u00e9", "gravel"]), "size": draw.choice(["small", "large"]),
        }).encode() + b"\n"
        for _ in range(count)
    )  # fmt: skip


@pytest.fixture
def fleet(prepared: Path, releases: Releases, tmp_path: Path) -> Fleet:
    return Fleet(tmp_path, prepared, releases["watched"], releases.public_key, 3)


def test_rows_come_home_once_and_a_broken_device_costs_nobody_elses(fleet: Fleet) -> None:
    for seed, name in enumerate(fleet.roots):
        fleet.classify(name, seed)
    (fleet.roots["d1"] / constants.RING_FILE).unlink()
    (fleet.roots["d1"] / constants.RING_FILE).mkdir()
    code, told = fleet.collect()
    assert code == 1
    assert [device["outcome"] for device in told["devices"]] == ["answered", "failed", "answered"]
    assert "ring.jsonl" in told["devices"][1]["message"]
    wanted = {name: fleet.ids(name) for name in ("d0", "d2")}
    rows = fleet.rows()
    assert {name: {row["id"] for row in rows if row["device"] == name} for name in wanted} == wanted
    assert {row["kind"] for row in rows} == {"unknown", "uncertain", "random"}
    assert all(row["label"] is None and row["soil"] in ("sand", "clay", "loam \u00e9", None) for row in rows)
    before = (fleet.out / "plants.parquet").read_bytes()
    assert fleet.collect()[0] == 1
    assert (fleet.out / "plants.parquet").read_bytes() == before, "nothing is new"
    (fleet.roots["d1"] / constants.RING_FILE).rmdir()
    fleet.classify("d1", 1)
    fleet.classify("d0", 0)  # the same rows again are the same rows
    code, told = fleet.collect()
    assert code == 0
    after = fleet.rows()
    assert after[: len(rows)] == rows, "rows that are home stay"
    assert fleet.ids("d1") <= {row["id"] for row in after}
    assert len({row["id"] for row in after}) == len(after)
    assert json.loads(told["devices"][1]["details"])["unknown"] == 5
    assert "soil" not in json.dumps(told), "a report holds numbers of rows, and no row"


def test_a_hostile_device_s_rows_are_refused(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.classify("d0", 0)
    printed = fleet.make_hostile("d1")
    cells = [1.0, 1.0, "sand", "small"]
    row = {"id": cells_id(cells), "kind": "unknown", "time": 1, "answer": "a", "distance": 1.0, "row": cells}
    for change in (
        {"id": "\x1b[2J"},
        {"id": fleet.ids("d0").pop()},
        {"row": [[]]},
        {"row": [True]},
        {"time": "now"},
        {"answer": "a\nb"},
        {"digest": 3},
    ):
        printed.write_text(json.dumps(row | {"digest": "d"} | change) + "\n")
        code, told = fleet.collect()
        assert code == 1
        assert [device["reason"] for device in told["devices"]] == ["", "bad-answer", ""]
        assert {row["device"] for row in fleet.rows()} == {"d0"}
    (columns,) = {
        json.loads(line)["fingerprint"] for line in fleet.agent("d1", "ring", "--columns", "--json").splitlines()
    }
    printed.write_text(json.dumps(row | {"digest": "d", "columns": columns}) + "\n")
    assert fleet.collect()[0] == 0
    assert {row["device"] for row in fleet.rows()} == {"d0", "d1"}


def test_a_release_with_other_columns_gets_another_file(fleet: Fleet) -> None:
    fleet.classify("d0", 0)
    other = Columns("plants", ("length", "depth"))
    merge(fleet.out / "plants.parquet", other, [FieldRow("a", "d9", 1, "random", None, "k0", 1.0, "d", (1.0, 2.0))])
    for new in (len(fleet.ids("d0")), 0):
        code, text = fleet.run("collect", "-o", str(fleet.out))
        assert code == 0
        assert f"plants-2.parquet: {new} new row" in text
    assert [row.id for row in read(fleet.out / "plants.parquet").rows] == ["a"]
    assert {row.id for row in read(fleet.out / "plants-2.parquet").rows} == fleet.ids("d0")
    (fleet.out / "plants.parquet").write_bytes(b"")
    code, told = fleet.collect()
    assert code == 2
    assert "plants.parquet.bad, and collect again" in told["devices"][0]["hint"]
    assert fleet.run("collect", "-o", str(fleet.folder / "other"))[0] == 0
