"""`knnkit demo`, as a person runs it: real TensorFlow, a real device environment, everything in one folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.imports import loaded_by

from device_agent.shared.protocol import constants

ROOT = Path(__file__).parents[2]
ACCURACY = 0.9433333333333334


@dataclass(frozen=True)
class Run:
    folder: Path
    stdout: str
    stderr: str


def demo(cwd: Path, *arguments: str) -> Run:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from knnkit.cli import main; sys.exit(main())"
    result = subprocess.run(
        [sys.executable, "-c", code, "demo", *arguments], cwd=cwd, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr
    return Run(cwd / "knnkit-demo", result.stdout, result.stderr)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return demo(tmp_path_factory.mktemp("demo"))


def test_host_and_device_find_the_neighbours_of_the_float64_search_on_every_row(first: Run) -> None:
    lines = first.stdout.splitlines()
    same = "the neighbours of all 300 test rows are identical to the float64 search's; accuracy 0.9433333333333334"
    assert [line.split(":")[0] for line in lines] == ["TfKNN on the host", "TfliteKNN on the device"]
    assert all(line.endswith(same) for line in lines)


def test_it_leaves_a_picture_a_report_and_a_signed_release(first: Run) -> None:
    picture = (first.folder / "experiment.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 50_000
    report = (first.folder / "report.html").read_text(encoding="utf-8")
    assert "300 identical, 0 equivalent, 0 different" in report
    assert "Decision regions" in report
    assert {path.name for path in (first.folder / "release").iterdir()} == set(constants.RELEASE_FILES)


def test_the_device_has_a_python_of_its_own_and_answers_there(first: Run) -> None:
    python = first.folder / "device" / "venv" / "bin" / "python"
    command = [str(python), "-m", "device_agent", "--root", str(first.folder / "device"), "status", "--json"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    status = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60, env=clean, cwd="/").stdout)
    assert status["committed"]["name"] == "blobs"
    assert status["pending"] is None
    probe = "import device_agent; print(device_agent.__file__)"
    where = subprocess.run([str(python), "-c", probe], capture_output=True, text=True, check=True, env=clean, cwd="/")
    assert where.stdout.startswith(str(first.folder / "device"))


def test_the_second_run_builds_nothing_deploys_nothing_and_says_the_same(first: Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in (first.folder / "release").iterdir()}
    again = demo(first.folder.parent, "--json")
    assert {path: path.stat().st_mtime_ns for path in (first.folder / "release").iterdir()} == before
    document = json.loads(again.stdout)
    assert document["identical"] is True
    assert document["rows"] == 300
    assert set(document["accuracy"].values()) == {ACCURACY}
    assert "unchanged" in again.stderr


def test_it_writes_nothing_beside_its_folder(first: Run) -> None:
    assert [path.name for path in first.folder.parent.iterdir()] == ["knnkit-demo"]


def test_what_tensorflow_says_of_processors_is_not_shown(first: Run) -> None:
    assert "oneDNN" not in first.stderr
    assert "cuda" not in first.stderr.lower()


@pytest.mark.parametrize("command", [("status",), ("deploy",), ("parity",), ("doctor",), ("verify", "release")])
def test_an_operator_needs_neither_tensorflow_nor_scikit_learn(first: Run, command: tuple[str, ...]) -> None:
    key = ["--key", "keys/signing.pub"] if command[0] == "verify" else []
    loaded = loaded_by(*command, *key, cwd=first.folder)
    assert "cryptography" in loaded
    assert loaded & {"tensorflow", "sklearn", "pyarrow", "matplotlib", "skops"} == set()


@pytest.mark.parametrize("command", ["deploy", "parity"])
def test_the_report_of_a_model_of_two_features_shows_where_the_device_answers_what(first: Run, command: str) -> None:
    """Without TensorFlow or matplotlib: an operator gets the same report."""
    loaded = loaded_by(command, "--report", "again.html", "--report", "again.json", cwd=first.folder)
    assert loaded & {"tensorflow", "sklearn", "matplotlib"} == set()
    report = (first.folder / "again.html").read_text(encoding="utf-8")
    assert "answered by embedded" in report
    assert report.count('class="wrong"') == 17
    assert json.loads((first.folder / "again.json").read_bytes())["devices"][0]["name"] == "embedded"
