"""scripts/bench compares answers before times: a wrong or missing one is told, and so is a graph without XNNPACK."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import datasets, fleet, peers, report, speed, stream
from benchmarks.contenders import CONTENDERS
from benchmarks.datasets import Table
from support.device import Device
from support.releases import Releases

K = datasets.K


@pytest.fixture(scope="module")
def table() -> Table:
    """More rows than are looked at in one go, one of them twice."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(datasets._CHUNK + 5, 4)).astype(np.float32)
    rows[-1] = rows[0]
    queries = np.concatenate([rows[:1] + 1e-3, rng.normal(size=(70, 4)).astype(np.float32)])
    return Table(rows, np.zeros(len(rows), np.int64), queries)


@pytest.fixture(scope="module")
def nearest(table: Table) -> np.ndarray:
    return datasets.reference(table)


@pytest.fixture
def right(table: Table) -> np.ndarray:
    away = np.linalg.norm(table.rows.astype(np.float64)[None] - table.queries[:, None], axis=2)
    return np.argsort(away, axis=1, kind="stable")[:, :K]


def test_the_reference_is_what_the_definition_says(table: Table, nearest: np.ndarray, right: np.ndarray) -> None:
    for query, chosen, best in zip(table.queries, right, nearest, strict=True):
        assert np.linalg.norm(table.rows[chosen].astype(np.float64) - query, axis=1) == pytest.approx(best, abs=1e-12)


def test_the_nearest_rows_are_right_in_any_order_and_either_of_two_that_are_tied(
    table: Table, nearest: np.ndarray, right: np.ndarray
) -> None:
    assert datasets.wrong_rows(table, right[:, ::-1], nearest) == 0
    twin = np.where(right == 0, len(table.rows) - 1, np.where(right == len(table.rows) - 1, 0, right))
    assert (twin != right).any()
    assert datasets.wrong_rows(table, twin, nearest) == 0


@pytest.mark.parametrize("place", [0, K - 1])
def test_a_row_that_is_not_among_the_nearest_is_wrong(
    table: Table, nearest: np.ndarray, right: np.ndarray, place: int
) -> None:
    far = int(np.argmax(((table.rows - table.queries[7]) ** 2).sum(axis=1)))
    right[7, place] = far
    assert datasets.wrong_rows(table, right, nearest) == 1


@pytest.mark.parametrize("index", [-1, 10**6])
def test_what_is_no_row_is_wrong(table: Table, nearest: np.ndarray, right: np.ndarray, index: int) -> None:
    right[3, 1] = index
    assert datasets.wrong_rows(table, right, nearest) == 1


def test_one_row_twice_is_wrong_and_so_is_a_query_without_an_answer(
    table: Table, nearest: np.ndarray, right: np.ndarray
) -> None:
    assert datasets.wrong_rows(table, right[:-2], nearest) == 2
    assert datasets.wrong_rows(table, right[:0], nearest) == len(table.queries)
    right[0, 1] = right[0, 0]
    assert datasets.wrong_rows(table, right, nearest) == 1


class Child:
    """A contender that answers what it is told to."""

    def __init__(self, key: str, answer: dict[str, Any]) -> None:
        self.kind, self._answer = CONTENDERS[key], answer

    def ask(self, order: str) -> dict[str, Any]:
        assert order == "answer"
        return self._answer


def answer(right: np.ndarray, delegate: str | None = None) -> dict[str, Any]:
    return {"batch": right.tolist(), "one": right[: datasets.ALONE].tolist(), "delegate": delegate}


def check(children: list[Child], table: Table, nearest: np.ndarray) -> tuple[dict[str, int], dict[str, str | None]]:
    return speed.check(children, table, nearest)  # type: ignore[arg-type]


def test_each_runtime_says_what_runs_its_graphs_and_none_speaks_for_another(
    table: Table, nearest: np.ndarray, right: np.ndarray
) -> None:
    children = [
        Child("tflite", answer(right)),
        Child("litert", answer(right, "XNNPACK")),
        Child("faiss", answer(right)),
    ]
    wrong, delegates = check(children, table, nearest)
    assert set(wrong.values()) == {0}
    assert delegates == {"TfliteKNN": None, "TfliteKNN, LiteRT": "XNNPACK"}


def test_rows_one_by_one_are_compared_as_well_as_a_batch(table: Table, nearest: np.ndarray, right: np.ndarray) -> None:
    short, other = answer(right), answer(right)
    short["one"] = short["one"][:-1]
    other["one"][5][0] = other["one"][6][0]
    wrong, _ = check([Child("faiss", short), Child("scan.onnx", other)], table, nearest)
    assert wrong == {"faiss flat": 1, "onnxruntime": 1}


def test_a_limit_finds_nothing_and_one_that_failed_is_not_called_right(
    table: Table, nearest: np.ndarray, right: np.ndarray
) -> None:
    children = [Child("graph", {"batch": None}), Child("faiss", {"error": "the process ended"})]
    assert check(children, table, nearest) == ({}, {})


def test_the_program_that_is_timed_answers_a_file_by_a_release_that_it_has_loaded(
    device: Device, releases: Releases, tmp_path: Path
) -> None:
    device.install(releases["blobs"])
    rows, answers = tmp_path / "rows.csv", tmp_path / "answers.csv"
    rows.write_text("0.5,4.5\n-9.0,-8.0\n")
    command = [sys.executable, "-c", stream.AGENT_WHOLE, str(device.root), str(answers)]
    done = subprocess.run(command, input=f"{rows}\n" * 2, capture_output=True, text=True, env=device.env())
    assert len([float(line) for line in done.stdout.splitlines()]) == 2, done.stderr
    assert answers.read_text() == device.run("classify", "--input", rows).out


# --- stream and fleet ---------------------------------------------------------------------------------------------
def figures(**said: float) -> stream.Figures:
    found = stream.Figures()
    found.rows_per_second = {"agent": 30.0, "scikit-learn loop": 1.0}
    found.rows_per_cpu_second, found.p99_ms = dict(found.rows_per_second), {"agent": 1.0, "scikit-learn loop": 2.0}
    found.p50_ms = {"agent": said.get("p50", 0.2), "scikit-learn loop": 1.0}
    for size, times in (("700x2", 3.0), ("1797x64", 1.0)):
        found.file_rows_per_second[size] = {"agent": times, "pandas + scikit-learn": 1.0}
        found.file_seconds[size] = {"agent": 1.0, "pandas + scikit-learn": times}
    found.peak_bytes = {"agent, stream": 50_000_000}
    found.installed_bytes = {"agent": 88_000_000}
    found.labels_that_differ = {"stream": 0}
    return found


def test_a_streams_goals_are_reached_at_their_limits_and_shown_one_a_line() -> None:
    assert [goal["reached"] for goal in stream.goals(figures())] == [True] * 4
    assert [goal["reached"] for goal in stream.goals(figures(p50=0.201))] == [True, False, True, True]
    shown = stream.show(figures(p50=0.201))
    assert shown.count("\n  reached  ") == 3
    assert "  missed   p50 of one digits row, ms: 0.201 (limit 0.2)" in shown
    assert shown.splitlines()[-1] == "labels that differ: {'stream': 0}"
    assert [line.split()[-2:] for line in shown.splitlines() if line.startswith("agent, stream")] == [["50", "88"]]


def run(seconds: float) -> dict[str, float]:
    return {"seconds": seconds, "host_cpu_seconds": 1.0, "devices_cpu_seconds": 5.0, "peak_bytes": 64e6}


def deployed(**said: Any) -> dict[str, Any]:
    tools = {name: {"first": run(20.0), "answering": 10} for name in ("ansible", "pyinfra")}
    own = {"first": run(10.0), "again": run(said.get("again", 2.0)), "answering": said.get("answering", 10)}
    versions = {"pyinfra": "3.1", "ansible-core": "2.17"}
    return {"devices": 10, "at a time": 16, "knnkit": own, **tools, "versions": versions}


def test_a_fleets_goals_name_what_was_missed() -> None:
    assert fleet.goals(deployed()) == []
    assert fleet.goals(deployed(again=2.1)) == ["a second deploy takes more than a fifth of the first"]
    assert fleet.goals(deployed(answering=9)) == ["knnkit did not reach every device"]
    slow = deployed()
    slow["pyinfra"]["first"]["seconds"] = 10.0
    assert fleet.goals(slow) == ["not faster than pyinfra"]


def test_the_pages_fleet_table_is_made_of_what_was_saved() -> None:
    docs = Path(report.__file__).parents[2] / "docs" / "benchmarks"
    saved = json.loads((docs / "results.json").read_text())["fleet"]
    page = (docs / "README.md").read_text(encoding="utf-8")
    assert page.partition("<!-- fleet -->\n")[2].partition("\n<!-- /fleet -->")[0] == fleet.markdown(saved)


def test_a_machine_is_described_without_its_name() -> None:
    said = peers.machine()
    assert said["cores"]
    assert socket.gethostname() not in map(str, said.values())


def test_data_is_made_once_and_anew_where_what_made_it_has_changed(tmp_path: Path) -> None:
    size = datasets.SIZES[0]
    folder = datasets.store(size, tmp_path)
    (folder / "model.tflite").write_text("a contender's")
    assert datasets.store(size, tmp_path) == folder
    assert (folder / "model.tflite").exists()
    (folder / "data.sources").write_text("others")
    datasets.store(size, tmp_path)
    assert not (folder / "model.tflite").exists()
    assert len(datasets.load(folder).rows) == size.rows


def test_no_measured_process_inherits_the_environment() -> None:
    """`peers.environment` pins threads, and names the kernels of this processor for NumPy's OpenBLAS."""
    sources = {path.name: path.read_text() for path in (peers.ROOT / "scripts" / "benchmarks").glob("*.py")}
    assert {name for name, text in sources.items() if "os.environ |" in text} == set()
    assert "env=peers.environment(1)" in sources["enrolled.py"]
