"""The results as a table on standard output, as JSON, and as a plot. Computes ratios and goals; measures nothing."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmarks import datasets
from benchmarks.contenders import CONTENDERS
from benchmarks.speed import Cell

#: The same model on tflite-runtime 2.14 and on LiteRT.
OURS = ("TfliteKNN", "TfliteKNN, LiteRT")
_RUNTIME = dict(zip(OURS, ("tflite-runtime 2.14", "LiteRT")))
GEMM = "NumPy GEMM alone"
#: What must be reached, from the project's goals.
START_SECONDS, START_FACTOR, MEMORY_SHARE, GEMM_FACTOR, NEAR_PRODUCT = 0.3, 5.0, 0.4, 1.5, 1.15


def table(head: list[str], lines: list[list[str]]) -> str:
    """Returns aligned text: the first column to the left, the others to the right."""
    widths = [max(len(line[column]) for line in [head, *lines]) for column in range(len(head))]
    rule = ["-" * width for width in widths]
    shown = (
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths))
        )
        for line in [head, rule, *lines]
    )
    return "\n".join(line.rstrip() for line in shown)


def milliseconds(value: float) -> str:
    """Returns milliseconds as text with three significant digits."""
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def speed_table(cells: list[Cell]) -> str:
    """Returns the table: median / p99 in milliseconds of every contender, and how far ahead TfliteKNN is."""
    names = [kind.name for kind in CONTENDERS.values()]
    head = ["data, rows, threads", *names, "best peer", *(word for _ in OURS for word in ("ratio", "at best"))]
    lines = []
    for cell in cells:
        figures = [
            f"{milliseconds(cell.median[name])}/{milliseconds(cell.p99[name])}" if name in cell.median else "-"
            for name in names
        ]
        marks = []
        for ours in OURS:
            if ours not in cell.median:
                marks += ["-", "-"]
                continue
            ratio = cell.ratio(ours)
            marks += [f"{ratio:.2f}x" + ("" if ratio >= 1 else " BEHIND"), f"{cell.ratio_at_best(ours):.2f}x"]
        lines.append([f"{cell.size}, {cell.rows}, {cell.threads}", *figures, cell.best_peer, *marks])
    return table(head, lines)


def markdown(cells: list[Cell]) -> str:
    """Returns the tables of docs/benchmarks for one class of processors, and how many cells are reached.

    A cell is reached if TfliteKNN is the fastest, or takes at most `NEAR_PRODUCT` times as long as NumPy's product.
    """
    order = [size.name for size in datasets.SIZES]
    text = []
    for threads, words in ((1, "one thread"), (2, "two threads")):
        head = [
            "median ms, " + words,
            "on 2.14",
            "on LiteRT",
            "best peer",
            "product alone",
            "times as fast, 2.14",
            "LiteRT",
        ]
        text += [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
        for cell in sorted(cells, key=lambda cell: (order.index(cell.size), cell.rows)):
            if cell.threads == threads:
                what = f"{_spelt(cell.size)}, {'one row' if cell.rows == 1 else f'{cell.rows} rows'}"
                taken = [milliseconds(cell.median[ours]) for ours in OURS]
                peer = f"{cell.best_peer} {milliseconds(cell.median[cell.best_peer])}"
                times = [f"**{ratio:.2f}**" if ratio >= 1 else f"{ratio:.2f}" for ratio in map(cell.ratio, OURS)]
                text.append(f"| {' | '.join([what, *taken, peer, milliseconds(cell.median[GEMM]), *times])} |")
        text.append("")
    first = [sum(cell.ratio(ours) >= 1 for cell in cells) for ours in OURS]
    near = [sum(_is_reached(cell, ours) for cell in cells) for ours in OURS]
    text.append(f"LiteRT is the fastest in {first[1]} of {len(cells)} cells, 2.14 in {first[0]}.")
    text.append(f"With those within {NEAR_PRODUCT} of NumPy's product, {near[1]} and {near[0]}.")
    return "\n".join(text)


def _spelt(size: str) -> str:
    rows, _, rest = size.partition("x")
    return f"{int(rows):,} x {rest.replace('-', ' ')}"


def _is_reached(cell: Cell, ours: str) -> bool:
    return cell.ratio(ours) >= 1 or cell.median[ours] <= NEAR_PRODUCT * cell.median[GEMM]


def _measured(cell: Cell) -> list[str]:
    return [ours for ours in OURS if ours in cell.median]


def failures(cells: list[Cell]) -> list[str]:
    """Returns the contenders that were not measured, and why: without one, the best peer may be slower than it is."""
    found = []
    for cell in cells:
        found += [f"{cell.size}, {cell.rows}, {cell.threads}: {name}: {why}" for name, why in cell.failed.items()]
    return found


def start_table(starts: dict[str, Any], on_disk: dict[str, int], stacks: dict[str, Any]) -> str:
    """Returns one data set's starts, memory, and bytes on disk."""
    head = [
        "contender",
        "first answer s",
        "RSS MB",
        "anonymous",
        "mapped",
        "after a batch RSS",
        "anonymous",
        "model MB",
        "installed MB",
    ]
    lines = []
    for name, found in starts.items():
        one, batch = found["memory"]["one row"], found["memory"]["batch"]
        figures = [one["rss"], one["anonymous"], one["mapped"], batch["rss"], batch["anonymous"], on_disk[name]]
        stack = stacks[name]["bytes"]
        lines.append(
            [name, f"{found['seconds']:.3f}", *(f"{value / 1e6:.1f}" for value in figures), f"{stack / 1e6:.0f}"]
        )
    return table(head, lines)


def goals(cells: list[Cell], starts: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns each goal with its figure and whether it was reached."""
    found = []
    for cell in cells:
        for ours in _measured(cell):
            what = f"{cell.size}, {cell.rows} {'row' if cell.rows == 1 else 'rows'}, threads {cell.threads}: {ours}"
            found.append(goal(f"fastest: {what}", cell.ratio(ours), 1.0, at_least=True, note=_profile(cell, ours)))
            if cell.size == "60000x784" and cell.rows > 1:
                factor = cell.median[ours] / cell.median[GEMM]
                found.append(goal(f"within {GEMM_FACTOR} of GEMM: {what}", factor, GEMM_FACTOR))
    for size, each in starts.items():
        theirs = each["scikit-learn brute"]
        for ours, own in ((name, each[name]) for name in OURS if name in each):
            what = f"{size}: {ours}"
            if not size.startswith("60000x784"):
                found.append(goal(f"start to first answer, s: {what}", own["seconds"], START_SECONDS))
            times = theirs["seconds"] / own["seconds"]
            found.append(goal(f"start, times scikit-learn: {what}", times, START_FACTOR, at_least=True))
            for moment in ("one row", "batch"):
                share = own["memory"][moment]["rss"] / theirs["memory"][moment]["rss"]
                found.append(goal(f"memory, share of scikit-learn, {moment}: {what}", share, MEMORY_SHARE))
    return found


def goal(what: str, figure: float, limit: float, *, at_least: bool = False, note: str = "") -> dict[str, Any]:
    """Returns a goal with its figure; `note` explains a missed goal."""
    reached = figure >= limit if at_least else figure <= limit
    said = {"note": note} if note and not reached else {}
    return {"goal": what, "figure": round(figure, 3), "limit": limit, "reached": reached} | said


def goal_lines(goals: list[dict[str, Any]]) -> list[str]:
    """Returns a line for each goal."""
    return [
        f"  {'reached' if one['reached'] else 'missed '}  {one['goal']}: {one['figure']} (limit {one['limit']})"
        + (f"  {one['note']}" if "note" in one else "")
        for one in goals
    ]


def _profile(cell: Cell, ours: str) -> str:
    graph, gemm = (cell.median.get(name, float("nan")) for name in ("graph alone", GEMM))
    return (
        f"{cell.best_peer} {milliseconds(cell.median[cell.best_peer])} ms; ours {milliseconds(cell.median[ours])}; "
        f"float32 graph alone on 2.14 {milliseconds(graph)}, NumPy's GEMM alone {milliseconds(gemm)}"
    )


def write_json(path: Path, results: dict[str, Any]) -> None:
    """Writes the results into a file; each part measured now replaces the same part in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | results, indent=1) + "\n")


def with_earlier(path: Path, results: dict[str, Any], sizes: list[str]) -> dict[str, Any]:
    """Returns the results of some `sizes` together with those that a file has of the other ones."""
    before = json.loads(path.read_text()).get("speed", {}) if path.exists() else {}
    cells = [cell for cell in before.get("cells", []) if cell["size"] not in sizes] + results["cells"]
    start, model_bytes = ({**before.get(part, {}), **results[part]} for part in ("start", "model_bytes"))
    return results | {"cells": cells, "start": start, "model_bytes": model_bytes}


def cells_of(results: dict[str, Any]) -> list[Cell]:
    """Returns the cells of saved results."""
    return [Cell(**{one.name: cell[one.name] for one in fields(Cell)}) for cell in results["cells"]]


def write_section(path: Path, name: str, text: str) -> None:
    """Replaces the text between `<!-- name -->` and `<!-- /name -->` of a page."""
    before, begin, rest = path.read_text().partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    if not begin or not end:
        raise ValueError(f"{path} has no section {name}")
    path.write_text(f"{before}{begin}{text}\n{end}{after}")


def plot(cells: list[Cell], path: Path) -> None:
    """Draws how many times as long as TfliteKNN each takes, one panel for one row and one for a batch.

    TfliteKNN on 2.14 is what the others are compared with; on LiteRT, where no cell has 2.14.
    """
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "knnkit"
    from matplotlib import pyplot

    one_thread = [cell for cell in cells if cell.threads == 1]
    base = next(ours for ours in OURS if any(ours in cell.median for cell in one_thread))
    others = [kind.name for kind in CONTENDERS.values() if kind.peer or (kind.name in OURS and kind.name != base)]
    figure, panels = pyplot.subplots(1, 2, figsize=(13, 5.6), sharey=True, layout="constrained")
    width = 0.85 / len(others)
    for panel, title in zip(panels, ("one row", "a batch")):
        shown = [cell for cell in one_thread if (cell.rows == 1) == (title == "one row") and base in cell.median]
        for number, name in enumerate(others):
            places = [place + (number - len(others) / 2 + 0.5) * width for place in range(len(shown))]
            heights = [cell.median.get(name, float("nan")) / cell.median[base] for cell in shown]
            # From the line that stands for `base`: up is slower, down is faster.
            panel.bar(places, [height - 1.0 for height in heights], width, bottom=1.0, label=name)
        panel.axhline(1.0, color="black", linewidth=1)
        panel.set_yscale("log")
        labels = [cell.size if cell.rows == 1 else f"{cell.size}, {cell.rows} rows" for cell in shown]
        panel.set_xticks(range(len(shown)), labels, rotation=35, ha="right")
        panel.set_title(f"{title}, one thread")
        panel.grid(axis="y", alpha=0.3)
    panels[0].set_ylabel(f"times as long as TfliteKNN on {_RUNTIME[base]} (median)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
