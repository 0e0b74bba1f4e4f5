"""What scripts/bench says follows from what it measured: ratios, goals, the table, the plot. No test measures time."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from benchmarks import report
from benchmarks.contenders import CONTENDERS
from benchmarks.report import GEMM, OURS
from benchmarks.speed import Cell

PEERS = tuple(kind.name for kind in CONTENDERS.values() if kind.peer)


def cell(size: str = "700x2", rows: int = 1, threads: int = 1, **said: float) -> Cell:
    """All contenders at 10 ms, but for those that are said: `ours`, `litert`, `faiss`, `gemm`."""
    names = {"ours": OURS[0], "litert": OURS[1], "faiss": "faiss flat", "gemm": GEMM, "graph": "graph alone"}
    median = {kind.name: 10.0 for kind in CONTENDERS.values()} | {names[key]: value for key, value in said.items()}
    return Cell(
        size, rows, threads, median, {k: 2 * v for k, v in median.items()}, {k: v / 2 for k, v in median.items()}
    )


def by_name(goals: list[dict[str, object]]) -> dict[str, dict[str, object]]:
    return {str(goal["goal"]): goal for goal in goals}


# --- who is compared with whom ------------------------------------------------------------------------------------
def test_a_ratio_is_the_best_peers_time_over_ours() -> None:
    found = cell(ours=2.0, litert=8.0, faiss=4.0)
    assert found.best_peer == "faiss flat"
    assert found.ratio(OURS[0]) == 2.0
    assert found.ratio(OURS[1]) == 0.5


def test_no_limit_and_none_of_ours_is_a_peer_however_fast() -> None:
    found = cell(ours=5.0, litert=0.001, gemm=0.001, graph=0.001)
    assert found.best_peer in PEERS
    assert found.ratio(OURS[0]) == 2.0
    assert not set(PEERS) & {*OURS, GEMM, "graph alone"}


def test_at_best_the_fastest_call_of_any_peer_counts_not_that_of_the_best_at_the_median() -> None:
    found = cell(ours=4.0, faiss=4.0)
    found.least["onnxruntime"] = 1.0
    assert found.best_peer == "faiss flat"
    assert found.ratio_at_best(OURS[0]) == 0.5


# --- goals --------------------------------------------------------------------------------------------------------
def test_being_as_fast_as_the_best_peer_is_enough_and_being_slower_is_not() -> None:
    for ours, reached in ((10.0, True), (10.001, False)):
        goals = by_name(report.goals([cell(ours=ours)], {}))
        goal = goals[f"fastest: 700x2, 1 row, threads 1: {OURS[0]}"]
        assert goal["reached"] is reached
        assert ("note" in goal) is not reached


def test_each_runtime_that_was_measured_has_goals_of_its_own_and_one_that_was_not_has_none() -> None:
    behind = cell(ours=1.0, litert=20.0)
    assert [goal["reached"] for goal in report.goals([behind], {})] == [True, False]
    del behind.median[OURS[1]]
    assert [goal["reached"] for goal in report.goals([behind], {})] == [True]


def test_the_product_alone_is_a_limit_for_batches_of_the_largest_data_set() -> None:
    large = [cell("60000x784", rows=64, ours=3.0, litert=3.1, gemm=2.0), cell("60000x784", rows=1, gemm=0.1)]
    found = {name: goal for name, goal in by_name(report.goals(large, {})).items() if name.startswith("within")}
    assert [goal["figure"] for goal in found.values()] == [1.5, 1.55]
    assert [goal["reached"] for goal in found.values()] == [True, False]


def start(seconds: float, one: float, batch: float) -> dict[str, object]:
    return {"seconds": seconds, "memory": {"one row": {"rss": one}, "batch": {"rss": batch}}}


def test_starts_and_memory_are_compared_with_scikit_learn() -> None:
    starts = {"1797x64": {"scikit-learn brute": start(1.5, 100.0, 100.0), OURS[0]: start(0.3, 40.0, 41.0)}}
    goals = by_name(report.goals([], starts))
    what = f"1797x64: {OURS[0]}"
    assert goals[f"start to first answer, s: {what}"]["reached"]
    times = goals[f"start, times scikit-learn: {what}"]
    assert (times["figure"], times["reached"]) == (5.0, True)
    assert goals[f"memory, share of scikit-learn, one row: {what}"]["reached"]
    assert not goals[f"memory, share of scikit-learn, batch: {what}"]["reached"]


def test_a_goal_is_judged_by_the_figure_that_was_measured_not_by_the_one_that_is_shown() -> None:
    missed = report.goal("fastest", 0.9999, 1.0, at_least=True, note="faiss 1.2 ms")
    assert missed == {"goal": "fastest", "figure": 1.0, "limit": 1.0, "reached": False, "note": "faiss 1.2 ms"}
    kept = report.goal("p50, ms", 0.2, 0.2, note="unseen")
    assert kept["reached"]
    assert report.goal_lines([missed, kept]) == [
        "  missed   fastest: 1.0 (limit 1.0)  faiss 1.2 ms",
        "  reached  p50, ms: 0.2 (limit 0.2)",
    ]


# --- tables -------------------------------------------------------------------------------------------------------
def test_the_table_says_where_we_are_behind_and_what_was_not_measured() -> None:
    ahead, behind = cell(ours=4.0), cell("10000x128", rows=256, threads=2, ours=20.0)
    for one in (ahead, behind):
        del one.median[OURS[1]]
    lines = report.speed_table([ahead, behind]).splitlines()
    assert "2.50x" in lines[2]
    assert "BEHIND" not in lines[2]
    assert "0.50x BEHIND" in lines[3]
    assert lines[3].startswith("10000x128, 256, 2")
    assert lines[2].split()[-2:] == ["-", "-"]
    assert "20.0/40.0" in lines[3]


def test_columns_are_aligned_the_first_to_the_left() -> None:
    assert report.table(["name", "ms"], [["a", "10.0"], ["longer", "2"]]).splitlines() == [
        "name      ms",
        "------  ----",
        "a       10.0",
        "longer     2",
    ]


def test_a_contender_that_failed_is_told() -> None:
    found = cell(rows=300)
    found.failed["faiss flat"] = "MemoryError"
    assert report.failures([cell(), found]) == ["700x2, 300, 1: faiss flat: MemoryError"]


@pytest.mark.parametrize(("value", "shown"), [(0.00444, "0.0044"), (0.1, "0.100"), (9.99, "9.990"), (15.44, "15.4")])
def test_milliseconds_have_the_digits_that_matter(value: float, shown: str) -> None:
    assert report.milliseconds(value) == shown


# --- files --------------------------------------------------------------------------------------------------------
def test_a_part_that_is_measured_again_takes_the_place_of_its_own_and_of_no_other(tmp_path: Path) -> None:
    file = tmp_path / "new" / "results.json"
    report.write_json(file, {"speed": 1, "fleet": 2})
    report.write_json(file, {"fleet": 3})
    assert json.loads(file.read_text()) == {"speed": 1, "fleet": 3}


def test_sizes_that_were_not_measured_again_keep_their_figures(tmp_path: Path) -> None:
    file, first, other = tmp_path / "results.json", asdict(cell()), asdict(cell(size="1797x64"))
    parts: dict[str, Any] = {"start": {}, "model_bytes": {}}
    report.write_json(file, {"speed": {"cells": [first, other], **parts}})
    again = asdict(cell(ours=9.0))
    together = report.with_earlier(file, {"cells": [again], **parts}, ["700x2"])
    assert together["cells"] == [other, again]
    assert [asdict(each) for each in report.cells_of(together)] == [other, again]


def test_a_section_of_a_page_is_replaced_and_nothing_around_it(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- fleet -->\nold\n<!-- /fleet -->\nafter\n")
    report.write_section(page, "fleet", "new")
    assert page.read_text() == "before\n<!-- fleet -->\nnew\n<!-- /fleet -->\nafter\n"
    with pytest.raises(ValueError, match="no section stream"):
        report.write_section(page, "stream", "new")


# --- the plot -----------------------------------------------------------------------------------------------------
def drawn(cells: list[Cell], path: Path) -> str:
    report.plot(cells, path)
    return path.read_text()


def test_the_plot_shows_every_peer_and_is_the_same_each_time(tmp_path: Path) -> None:
    cells = [cell(ours=2.0), cell(rows=300, ours=2.0), cell(rows=300, threads=2)]
    first = drawn(cells, tmp_path / "a.svg")
    assert first == drawn(cells, tmp_path / "b.svg")
    for said in (*PEERS, OURS[1], "TfliteKNN on tflite-runtime 2.14"):
        assert f"<!-- {said} -->" in first or f"{said} (median)" in first
    assert first != drawn([cell(ours=4.0), cell(rows=300, ours=2.0)], tmp_path / "c.svg")


def test_the_plot_says_what_the_others_are_compared_with_where_there_is_no_2_14(tmp_path: Path) -> None:
    cells = [cell(), cell(rows=300)]
    for one in cells:
        del one.median[OURS[0]]
    shown = drawn(cells, tmp_path / "a.svg")
    assert "as TfliteKNN on LiteRT (median)" in shown
    assert "tflite-runtime" not in shown
    assert f"<!-- {OURS[1]} -->" not in shown  # it is the line, and no bar


# --- the page -----------------------------------------------------------------------------------------------------
DOCS = Path(report.__file__).parents[2] / "docs" / "benchmarks"
CLASSES = sorted(path.stem.removeprefix("results-") for path in DOCS.glob("results-*.json"))


@pytest.mark.parametrize("processors", CLASSES)
def test_the_page_has_the_figures_that_were_saved(processors: str) -> None:
    page = (DOCS / "README.md").read_text(encoding="utf-8")
    shown = page.partition(f"<!-- speed-{processors} -->\n")[2].partition(f"\n<!-- /speed-{processors} -->")[0]
    assert shown == report.markdown(report.cells_of(_saved(processors)))


def test_the_page_counts_the_cells_that_are_reached() -> None:
    cells = [cell(ours=12.0, litert=5.0, gemm=11.0), cell(ours=12.0, litert=12.0, gemm=9.0), cell(threads=2, ours=8.0)]
    text = report.markdown(cells)
    assert text.endswith("fastest in 2 of 3 cells, 2.14 in 1.\nWith those within 1.15 of NumPy's product, 2 and 2.")
    assert text.count("| 700 x 2, one row |") == 3
    assert "| 12.0 | 5.000 |" in text
    assert text.count("**2.00**") == 1


@pytest.mark.parametrize("processors", CLASSES)
def test_the_saved_ratios_are_those_of_the_saved_times(processors: str) -> None:
    for saved in _saved(processors)["cells"]:
        one = Cell(*(saved[name] for name in ("size", "rows", "threads", "median", "p99", "least", "failed")))
        assert one.best_peer == saved["best_peer"]
        assert {ours: one.ratio(ours) for ours in saved["ratio"]} == pytest.approx(saved["ratio"])
        assert {ours: one.ratio_at_best(ours) for ours in saved["ratio"]} == pytest.approx(saved["ratio_at_best"])


@pytest.mark.parametrize("processors", CLASSES)
def test_every_contender_was_measured_in_what_is_saved_and_none_disagreed(processors: str) -> None:
    speed = _saved(processors)
    assert not [cell["failed"] for cell in speed["cells"] if cell["failed"]]
    assert not speed["disagreements"]
    measured = {(cell["size"], frozenset(cell["median"])) for cell in speed["cells"]}
    assert len(measured) == len({size for size, _ in measured})  # sizes can come from different runs
    assert set().union(*(names for _, names in measured)) <= {kind.name for kind in CONTENDERS.values()}


def _saved(processors: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / f"results-{processors}.json").read_text())["speed"]
    return found
