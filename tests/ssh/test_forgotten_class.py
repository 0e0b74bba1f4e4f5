"""A fleet of three keeps its release when the next one forgets a class, and the report names the class."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

from support.board_roots import copy_board
from support.releases import Releases

from device_agent.shared.protocol.model_info import Gates
from knnkit import cli


def deploy(folder: Path, release: Path, *more: str) -> tuple[int, dict[str, Any], str]:
    page, said = folder / "report.html", io.StringIO()
    words = ["deploy", "-c", str(folder / "deploy.yaml"), "--release", str(release), "--report", str(page), "--json"]
    with contextlib.redirect_stdout(said):
        code = cli.main([*words, *more])
    return code, json.loads(said.getvalue()), page.read_text() if page.exists() else ""


def test_a_fleet_of_three_refuses_a_release_that_forgets_a_class(
    prepared: Path, releases: Releases, tmp_path: Path
) -> None:
    targets = []
    for number in range(3):
        root = copy_board(prepared, tmp_path / f"root{number}")
        targets.append(f"    - {{name: d{number}, host: local, root: '{root}'}}\n")
    (tmp_path / "deploy.yaml").write_text("fleet:\n  targets:\n" + "".join(targets) + "rollout: {max_failures: 3}\n")
    key = ("--key", str(releases.public_key))
    code, told, _ = deploy(tmp_path, releases["iris"], *key)
    assert code == 0, told
    first = told["devices"][0]["release"]["digest"]
    for number, gates in enumerate(({"min_recall": 0.8}, {"not_worse_than": "current", "by": 0.01})):
        forgets = releases.variant("iris-forgets", tmp_path / f"b{number}", gates=Gates(**gates), sequence=20 + number)
        code, told, page = deploy(tmp_path, forgets, *key)
        assert code == 4
        for device in told["devices"]:
            assert "'versicolor'" in device["message"]
            assert device["release"]["digest"] == first, "the device stays on A"
        assert "Before and after: d0, d1, d2" in page
        assert "class versicolor, now answered" in page, "the rows that do it"
        if "min_recall" in gates:
            assert "0 (0 of 18 rows) is below the gate of 0.8" in page
    assert "falls from 0.944444 to 0 (17 to 0 of 18 rows)" in told["devices"][0]["message"]
    assert_dry_run_compares(tmp_path, forgets, key)
    lowered = releases.variant("iris-forgets", tmp_path / "lowered", gates=Gates(min_recall=0.0), sequence=30)
    code, told, _ = deploy(tmp_path, lowered, *key)
    assert code == 0
    assert all(device["release"]["digest"] != first for device in told["devices"])


def test_a_gate_that_needs_a_damaged_release_is_missed_until_it_is_repaired(
    prepared: Path, releases: Releases, tmp_path: Path
) -> None:
    root = copy_board(prepared, tmp_path / "root")
    (tmp_path / "deploy.yaml").write_text(f"fleet: {{targets: [{{name: d, host: local, root: '{root}'}}]}}\n")
    key, asked = ("--key", str(releases.public_key)), Gates(not_worse_than="current")
    first = releases.variant("iris", tmp_path / "first", gates=asked)
    code, told, page = deploy(tmp_path, first, *key)
    assert code == 0
    assert "this device has no release yet" in page
    running = told["devices"][0]["release"]["digest"]
    model = root / "releases" / running / "model.tflite"
    model.chmod(0o600)
    model.write_bytes(model.read_bytes()[:-100] + bytes(100))
    better = releases.variant("iris-next", tmp_path / "better", gates=asked, sequence=20)
    assert "does not answer" in deploy(tmp_path, better, *key, "--dry-run")[1]["plans"][0]["warnings"][-1]
    code, told, _ = deploy(tmp_path, better, *key)
    (device,) = told["devices"]
    assert (code, device["release"]["digest"]) == (4, running)
    assert "current release: iris 1.0.0 does not answer" in device["message"]
    assert "knnkit deploy --release RELEASE --verify --target d" in device["hint"]
    assert deploy(tmp_path, first, *key, "--verify", "--target", "d")[0] == 0
    _, told, _ = deploy(tmp_path, better, *key)
    assert told["devices"][0]["certificate"]["compared"]["fits"], "the repaired release answers"


def assert_dry_run_compares(folder: Path, release: Path, key: tuple[str, ...]) -> None:
    """The plan shows before -> after and the rows, from what the devices run, and nothing on them changes."""
    files, said = contents(folder), io.StringIO()
    reports = [folder.parent / f"plan.{kind}" for kind in ("json", "html")]
    words = ["deploy", "-c", str(folder / "deploy.yaml"), "--release", str(release), "--dry-run", *key]
    with contextlib.redirect_stdout(said):
        assert cli.main(words) == 0
        assert cli.main([*words, "--json", *(f"--report={path}" for path in reports)]) == 0
    text = said.getvalue()
    assert text.count("worst class versicolor 94.44 % -> versicolor 0.00 %, against iris 1.0.0") == 3
    assert text.count("class versicolor: recall 94.44 % -> 0.00 % (17 -> 0 of 18 rows)") == 3
    assert text.count("class versicolor, now answered virginica: scikit-learn iris rows ") == 3
    (plan, *_) = json.loads(text.splitlines()[-1])["plans"]
    assert json.loads(json.loads(reports[0].read_text())["devices"][0]["details"]) == plan
    assert "deploy --dry-run" in reports[1].read_text()
    assert [each["label"] for each in plan["compared"]["classes"] if each["after"] < each["before"]] == ["versicolor"]
    assert contents(folder) == files


def contents(folder: Path) -> dict[Path, int]:
    """When each file of the devices was written; a lock notes who held it, also for `status`."""
    found = (path for path in folder.glob("root*/**/*") if path.name != "lock" and not path.is_dir())
    return {path: path.lstat().st_mtime_ns for path in found}
