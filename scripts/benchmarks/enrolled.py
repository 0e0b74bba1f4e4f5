"""scripts/bench enrol: a model with 500 taught rows against the same model without, in turns in one process.

The taught rows are of the same kind as the model's own, and lie among them; or they lie far away, with a label of their
own. Both answer the same rows, and so does a model that was built with the 500 rows as training rows. Counts processor
time. `python -m benchmarks.enrolled build FOLDER...` builds the models, in a process of its own, because it loads
TensorFlow; `measure ROUNDS FOLDER...` measures with one thread, as the agent does.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import datasets, models, peers

METRICS = ("euclidean", "cosine", "manhattan")
TAUGHT = 500
#: A batch with taught rows is to take at most so many times as long.
GOAL = 1.2
_SIZES, _QUICK = ("1797x64", "10000x128", "100000x8"), ("1797x64",)


def run(quick: bool) -> list[dict[str, Any]]:
    """Returns milliseconds without and with taught rows, and of a model with all rows, by data set and metric."""
    names = _QUICK if quick else _SIZES
    folders = [datasets.store(size, peers.BUILD / "data") for size in datasets.SIZES if size.name in names]
    command, names = [sys.executable, "-m", "benchmarks.enrolled"], [*map(str, folders)]
    subprocess.run([*command, "build", *names], stderr=subprocess.DEVNULL, env=peers.environment(2), check=True)
    command += ["measure", "5" if quick else "21", *names]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=peers.environment(1), check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def _measure(folder: Path, metric: str, rounds: int) -> list[dict[str, Any]]:
    from device_agent.inference.tflite_knn import TfliteKNN

    table, queries = datasets.load(folder), np.load(folder / "queries.npy").astype(np.float32)
    near = table.rows[-TAUGHT:].astype(np.float32), table.labels[-TAUGHT:].tolist()
    far = (near[0] + 10 * np.ptp(table.rows)).astype(np.float32), [int(table.labels.max()) + 1] * TAUGHT
    cells = []
    for place, (rows, labels) in (("among", near), ("apart", far)):
        signed = TfliteKNN(folder / f"{metric}.tflite")
        models = [signed, _taught(signed, rows, labels)]
        if place == "among":
            models.append(TfliteKNN(folder / f"{metric}-all.tflite"))
        for count, ask in (("one row", _one_by_one(queries[:64])), (f"{len(queries)} rows", _all(queries))):
            taken = _in_turns([lambda model=model, ask=ask: ask(model) for model in models], rounds)  # type: ignore[misc]
            without, having, built = [*taken, None][:3]
            took_part = float((models[1].classify(queries).indices >= signed.info.n_train).any(axis=1).mean())
            cells.append({
                "data": folder.name, "metric": metric, "taught": place, "rows": count, "took_part": took_part,
                "without_ms": without, "with_ms": having, "ratio": having / without,
                "built_with_ms": built, "built_ratio": built and built / without,
            })  # fmt: skip
    return cells


def _taught(signed: Any, rows: np.ndarray, labels: list[int]) -> Any:
    from device_agent.enrolment.joined import JoinedKNN
    from device_agent.shared.enrolment import enrolled, joined
    from device_agent.shared.protocol.model_info import Enrol
    from device_agent.shared.protocol.record import replace

    info = replace(signed.info, enrol=Enrol(TAUGHT))
    columns = enrolled.fingerprint(info)
    made = [
        enrolled.LocalRow(str(number), label, 0, tuple(map(float, row)), "", columns)
        for number, (row, label) in enumerate(zip(rows, labels, strict=True))
    ]
    return JoinedKNN(signed, joined.join(info, made, ""))


def _one_by_one(rows: np.ndarray) -> Callable[[Any], float]:
    chunks = [rows[place : place + 1] for place in range(len(rows))]

    def ask(model: Any) -> float:
        begun = time.process_time()
        for chunk in chunks:
            model.classify(chunk)
        return (time.process_time() - begun) / len(chunks)

    return ask


def _all(rows: np.ndarray) -> Callable[[Any], float]:
    def ask(model: Any) -> float:
        begun = time.process_time()
        model.classify(rows)
        return time.process_time() - begun

    return ask


def _in_turns(asks: list[Callable[[], float]], rounds: int) -> list[float]:
    """Returns the median milliseconds of each; the first round, on cold caches, is left out."""
    taken = [[ask() for ask in asks] for _ in range(rounds + 1)][1:]
    return [1e3 * statistics.median(column) for column in zip(*taken)]


def table(cells: list[dict[str, Any]]) -> str:
    """Returns the cells as text."""
    lines = [
        f"{'data':<12} {'metric':<10} {'taught':<7} {'asked':>9} {'without':>11} {'with':>11}  ratio  "
        "built with them  answers with one"
    ]
    lines += [
        f"{cell['data']:<12} {cell['metric']:<10} {cell['taught']:<7} {cell['rows']:>9} {cell['without_ms']:>8.4f} ms "
        f"{cell['with_ms']:>8.4f} ms {cell['ratio']:>6.2f}  "
        f"{'' if cell['built_ratio'] is None else format(cell['built_ratio'], '.2f'):>15}  {cell['took_part']:.0%}"
        for cell in cells
    ]
    return "\n".join(lines)


def build(folder: Path) -> None:
    """Builds the models of a data set that are missing or older than the sources."""
    from knnkit import TfKNN

    table, digest = datasets.load(folder), models.sources_digest()
    for metric in METRICS:
        stamp = folder / f"{metric}.sources"
        if not stamp.exists() or stamp.read_text() != digest:
            for name, own in ((metric, slice(-TAUGHT)), (f"{metric}-all", slice(None))):
                rows, labels = table.rows[own], table.labels[own]
                model = TfKNN(rows, datasets.K, labels=labels, metric=metric)  # type: ignore[arg-type]
                (folder / f"{name}.tflite").write_bytes(model.build().data)
            stamp.write_text(digest)


if __name__ == "__main__":
    if sys.argv[1] == "build":
        for argument in sys.argv[2:]:
            build(Path(argument))
    else:
        for argument in sys.argv[3:]:
            for metric in METRICS:
                for cell in _measure(Path(argument), metric, int(sys.argv[2])):
                    print(json.dumps(cell), flush=True)
