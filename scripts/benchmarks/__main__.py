"""scripts/bench: the command line. Prints tables on standard output, progress on standard error."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import datasets, models, peers, report, speed, stream
from benchmarks.contenders import CONTENDERS

DOCS = peers.ROOT / "docs" / "benchmarks"


def _results() -> Path:
    """Returns the file of this class of processors: no class overwrites another."""
    return DOCS / f"results-{peers.processor_class()}.json"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run_speed(options: argparse.Namespace) -> int:
    """Measures the model against its peers; returns non-zero if contenders disagree or XNNPACK does not run."""
    started, effort = time.monotonic(), speed.QUICK if options.quick else speed.FULL
    python = peers.peers_python(options.peers)
    sizes = [size for size in datasets.SIZES if size.name in options.sizes]
    say("making data and models")
    folders = {size.name: datasets.store(size, peers.BUILD / "data") for size in sizes}
    models.ensure(list(folders.values()))
    on_disk = {name: speed.prepare(python, folder, say) for name, folder in folders.items()}
    measured = []
    for size in sizes:
        for threads in options.threads:
            say(f"{size.name}, {threads} thread{'s' * (threads > 1)}: {time.monotonic() - started:.0f} s")
            measured.append(speed.measure(python, size, folders[size.name], threads, effort))
    begun = {}
    for size in sizes:
        if size.name in ("1797x64", "60000x784", "60000x784-strokes"):
            say(f"{size.name}, starts: {time.monotonic() - started:.0f} s")
            begun[size.name] = speed.starts(python, folders[size.name], effort)
    installed = peers.installed(python, {kind.name: kind.packages for kind in CONTENDERS.values() if kind.packages})
    return _show(options, measured, begun, on_disk, installed)


def _show(
    options: argparse.Namespace,
    measured: list[speed.Measured],
    begun: dict[str, Any],
    on_disk: dict[str, dict[str, int]],
    installed: dict[str, Any],
) -> int:
    cells = [cell for one in measured for cell in one.cells]
    print("median/p99 in ms; ratios: the best peer's median over TfliteKNN's, on 2.14 and on LiteRT")
    print("(at best: of the fastest calls)\n")
    print(report.speed_table(cells))
    for size, found in begun.items():
        print(f"\n{size}\n{report.start_table(found, on_disk[size], installed['stacks'])}")
    goals = report.goals(cells, begun)
    missed = [goal for goal in goals if not goal["reached"]]
    print(f"\ngoals reached: {len(goals) - len(missed)} of {len(goals)}")
    print(*report.goal_lines(missed), sep="\n", end="\n" if missed else "")
    for failure in report.failures(cells):
        print(f"not measured: {failure}")
    wrong = {f"{one.cells[0].size}: {name}": rows for one in measured for name, rows in one.wrong.items() if rows}
    delegates = {(ours, run_by) for one in measured for ours, run_by in one.delegates.items()}
    print(f"neighbours: {'every contender gives the same, up to ties' if not wrong else f'rows that differ: {wrong}'}")
    print("delegate:", ", ".join(sorted(f"{ours}: {run_by}" for ours, run_by in delegates)) or "TfliteKNN did not run")
    if options.save:
        results = {
            "machine": peers.machine() | {"versions": installed["versions"]},
            "k": datasets.K,
            "data": {size.name: size.about for size in datasets.SIZES},
            "cells": [
                asdict(cell)
                | {
                    "best_peer": cell.best_peer,
                    "ratio": {ours: cell.ratio(ours) for ours in report.OURS if ours in cell.median},
                    "ratio_at_best": {ours: cell.ratio_at_best(ours) for ours in report.OURS if ours in cell.least},
                }
                for cell in cells
            ],
            "start": begun,
            "model_bytes": on_disk,
            "installed": installed["stacks"],
            "disagreements": wrong,
            "goals": goals,
        }
        together = report.with_earlier(_results(), results, options.sizes)
        report.write_json(_results(), {"speed": together})
        name = f"speed-{peers.processor_class()}"
        report.plot(report.cells_of(together), DOCS / f"{name}.svg")
        try:
            report.write_section(DOCS / "README.md", name, report.markdown(report.cells_of(together)))
        except ValueError as error:  # the first results of this class of processors
            say(f"{error}: add <!-- {name} --> and <!-- /{name} -->")
        say(f"written: {DOCS.relative_to(peers.ROOT)}")
    return 1 if wrong or {run_by for _, run_by in delegates} != {"XNNPACK"} else 0


def run_stream(options: argparse.Namespace) -> int:
    """Measures the agent's stream and batch; returns non-zero if a label differs from scikit-learn's."""
    text, results = stream.run(peers.peers_python(options.peers), stream.QUICK if options.quick else stream.FULL)
    print(text)
    if options.save:
        report.write_json(_results(), {"stream": results | {"machine": peers.machine()}})
    return 1 if any(results["labels_that_differ"].values()) else 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure knnkit against what people use today, side by side on this machine.",
        epilog=f"data sets: {', '.join(size.name for size in datasets.SIZES)}",
    )
    parser.add_argument("what", nargs="?", default="speed", choices=COMMANDS, help="what to measure (default: speed)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: rough figures in a minute or two")
    parser.add_argument(
        "--peers", metavar="VENV", help="an environment that has the contenders (default: one under build/)"
    )
    parser.add_argument(
        "--save", action="store_true", help="write docs/benchmarks: JSON, plot, the fleet's table; other SIZEs stay"
    )
    names = [size.name for size in datasets.SIZES]
    parser.add_argument(
        "--sizes", metavar="SIZE", nargs="+", choices=names, default=names, help="only these data sets (default: all)"
    )
    parser.add_argument(
        "--threads", metavar="N", nargs="+", type=int, default=[1, 2], help="thread counts (default: 1 2)"
    )
    parser.add_argument("--devices", metavar="N", type=int, default=50, help="fleet: devices (default: %(default)s)")
    parser.add_argument(
        "--rivals", metavar="VENV", help="fleet: an environment with Ansible and pyinfra (default: one under build/)"
    )
    return parser.parse_args(argv)


def run_fleet(options: argparse.Namespace) -> int:
    """Measures a deploy to many devices against Ansible and pyinfra; returns non-zero if a goal is missed."""
    from benchmarks import fleet

    results = fleet.run(options.devices, options.rivals, say)
    print(fleet.table(results))
    missed = fleet.goals(results)
    for goal in missed:
        print(f"  missed  {goal}")
    if options.save:
        report.write_json(DOCS / "results.json", {"fleet": results | {"machine": peers.machine()}})
        report.write_section(DOCS / "README.md", "fleet", fleet.markdown(results))
        say(f"written: {DOCS.relative_to(peers.ROOT)}")
    return 1 if missed else 0


def run_verify(options: argparse.Namespace) -> int:
    """Measures the time to verify a release; returns non-zero if a goal is missed."""
    from benchmarks import verifying

    results = verifying.run(rounds=3 if options.quick else 9)
    print(verifying.table(results))
    if options.save:
        report.write_json(_results(), {"verify": results | {"machine": peers.machine()}})
    return 0 if all(goal["reached"] for goal in results["goals"]) else 1


def run_growth(options: argparse.Namespace) -> int:
    """Measures one row against the number of training rows; returns non-zero if a contender answers rows wrong."""
    from benchmarks import growth

    effort = speed.QUICK if options.quick else speed.FULL
    counts = growth.COUNTS[:5] if options.quick else growth.COUNTS
    results = growth.run(peers.peers_python(options.peers), effort, counts, say)
    print(growth.text(results))
    wrong = {rows: each["wrong"] for rows, each in results.items() if each["wrong"]}
    print(f"rows that differ: {wrong}" if wrong else "every contender gives the same neighbours, up to ties")
    if options.save:
        report.write_json(_results(), {"growth": results | {"machine": peers.machine()}})
        report.write_section(DOCS / "README.md", "growth", growth.markdown(results))
        say(f"written: {growth.plot(results, DOCS).relative_to(peers.ROOT)}")
    return 1 if wrong else 0


def run_tune(options: argparse.Namespace) -> int:
    """Measures `knnkit tune` against GridSearchCV; returns non-zero if it is not 20 times faster."""
    from benchmarks import tuning

    results = tuning.run(options.quick)
    print(tuning.table(results))
    if options.save:
        report.write_json(_results(), {"tune": results | {"machine": peers.machine()}})
    return 0 if results["reached"] else 1


def run_embed(options: argparse.Namespace) -> int:
    """Measures sounds, pictures and windows against plain Python; returns non-zero if a goal is missed."""
    from benchmarks import embedding

    results = {kind: embedding.run(kind, 1 if options.quick else 5) for kind in ("window", "picture", "sound")}
    print(embedding.table(results))
    if options.save:
        report.write_json(_results(), {"embed": results | {"machine": peers.machine()}})
    return 1 if any(ratio < least for _, ratio, least in embedding.goals(results)) else 0


def run_enrol(options: argparse.Namespace) -> int:
    """Measures a model with 500 taught rows against the same one without; returns non-zero if a batch takes longer."""
    from benchmarks import enrolled

    cells = enrolled.run(options.quick)
    print(enrolled.table(cells))
    if options.save:
        report.write_json(_results(), {"enrol": {"cells": cells, "machine": peers.machine()}})
    return 0 if all(cell["ratio"] <= enrolled.GOAL for cell in cells if cell["rows"] != "one row") else 1


COMMANDS = {"speed": run_speed, "stream": run_stream, "fleet": run_fleet, "verify": run_verify, "tune": run_tune}
COMMANDS |= {"embed": run_embed, "enrol": run_enrol, "growth": run_growth}


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    if not Path("/proc/self/smaps_rollup").exists():
        say("scripts/bench reads memory from Linux's /proc; this system has none")
        return 2
    return COMMANDS[options.what](options)


if __name__ == "__main__":
    sys.exit(main())
