"""scripts/bench stream: the agent fed with rows, against the few lines of scikit-learn that it replaces.

One child process at a time, threads pinned to one, rounds in turns. Both classify the same CSV with the same training
rows, and their labels are compared. Needs a release, which it builds and activates under build/.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import datasets, report
from benchmarks.contenders import Tflite
from benchmarks.peers import BUILD, environment, installed

#: What people write today: one row read, one answer flushed.
LOOP = """
import sys, joblib, numpy as np
model = joblib.load(sys.argv[1])
for line in sys.stdin:
    row = np.array([line.split(",")], dtype=np.float64)
    print(model.predict(row)[0], flush=True)
"""
TRAIN = """
import sys, joblib, pandas
from sklearn.neighbors import KNeighborsClassifier
table = pandas.read_csv(sys.argv[1])
model = KNeighborsClassifier(int(sys.argv[3])).fit(table.iloc[:, :-1].to_numpy(), table["label"])
joblib.dump(model, sys.argv[2])
"""
#: A whole file, each side with its model loaded before the clock runs; one line in, its name, one line out, seconds.
WHOLE = """
import sys, time, joblib, pandas
model = joblib.load(sys.argv[1])
for name in sys.stdin:
    start = time.perf_counter()
    labels = model.predict(pandas.read_csv(name.strip()).to_numpy())
    pandas.DataFrame({"label": labels}).to_csv(sys.argv[2], index=False)
    print(time.perf_counter() - start, flush=True)
"""
AGENT_WHOLE = """
import sys, time
from pathlib import Path
from device_agent.serving import batch, columns, in_flight, load
from device_agent.store.starts import Start
from device_agent.store.store import Store
store = Store(Path(sys.argv[1]))
loaded = load.load_accepted(store, load.answering(store).release)
begun, lines = Start(store), in_flight.InFlight(store.root)
for name in sys.stdin:
    start = time.perf_counter()
    batch.answer(loaded, batch.Request(name.strip(), sys.argv[2], "csv", None, columns.Columns()), begun, lines)
    print(time.perf_counter() - start, flush=True)
"""


@dataclass(frozen=True)
class Amount:
    """Numbers of rows: streamed at full speed, one by one, and in a file of 2 and of 64 features."""

    flat_out: int
    loop_flat_out: int
    one_by_one: int
    files: dict[str, int]
    rounds: int


FULL = Amount(100_000, 3_000, 3_000, {"700x2": 400_000, "1797x64": 60_000}, 5)
QUICK = Amount(30_000, 1_000, 1_000, {"700x2": 100_000, "1797x64": 20_000}, 3)


#: What each has to have installed.
STACKS = {
    "agent": Tflite.packages,
    "scikit-learn loop": ("scikit-learn", "joblib"),
    "pandas + scikit-learn": ("scikit-learn", "joblib", "pandas"),
}


@dataclass
class Figures:
    """Medians over the rounds; for memory the peak of a process, for disk the installed size of a contender."""

    rows_per_second: dict[str, float] = field(default_factory=dict)
    rows_per_cpu_second: dict[str, float] = field(default_factory=dict)
    p50_ms: dict[str, float] = field(default_factory=dict)
    p99_ms: dict[str, float] = field(default_factory=dict)
    file_rows_per_second: dict[str, dict[str, float]] = field(default_factory=dict)
    file_seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    installed_bytes: dict[str, int] = field(default_factory=dict)
    labels_that_differ: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """One data set: the device root that answers it, scikit-learn's model, and lines to send."""

    root: Path
    joblib: Path
    folder: Path
    python: Path

    def agent(self, *arguments: str | Path) -> list[str | Path]:
        return [self.python, "-m", "device_agent", "--root", self.root, *arguments]

    def loop(self) -> list[str | Path]:
        return [self.python, "-c", LOOP, self.joblib]


def make(python: Path, size: datasets.Size, data: Path) -> Bench:
    """Builds a release of the data set, commits it on a device root, and trains scikit-learn on the same rows."""
    folder = BUILD / "stream" / size.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    table = datasets.load(data)
    _write_csv(folder / "train.csv", table.rows, table.labels)
    _write_csv(folder / "test.csv", table.rows[: size.batch], table.labels[: size.batch])
    (folder / "deploy.yaml").write_text(
        textwrap.dedent(f"""\
            model:
              name: bench
              data: {{file: train.csv, label: label}}
              test: {{file: test.csv, label: label}}
              k: {datasets.K}
            signing: {{key: keys/signing.pem}}
            """)
    )
    knnkit = [sys.executable, "-m", "knnkit"]
    _run([*knnkit, "keygen", "--out", folder / "keys" / "signing"], folder)
    _run([*knnkit, "build", "-c", folder / "deploy.yaml", "-o", folder / "release"], folder)
    bench = Bench(folder / "root", folder / "model.joblib", folder, python)
    (bench.root / "trust").mkdir(parents=True, mode=0o700)
    bench.root.chmod(0o700)
    shutil.copy(folder / "keys" / "signing.pub", bench.root / "trust" / "signing.pem")
    staged = json.loads(_run(bench.agent("stage", folder / "release", "--json"), folder))
    for command in ("activate", "confirm"):
        _run(bench.agent(command, staged["release"]["digest"], "--json"), folder)
    _run([python, "-c", TRAIN, folder / "train.csv", bench.joblib, str(datasets.K)], folder)
    return bench


def _write_csv(path: Path, rows: Any, labels: Any | None = None) -> None:
    names = [f"feature_{column}" for column in range(rows.shape[1])]
    with path.open("w") as file:
        file.write(",".join(names + ["label"] * (labels is not None)) + "\n")
        for number, row in enumerate(rows):
            cells = [f"{value:.7g}" for value in row] + ([str(labels[number])] if labels is not None else [])
            file.write(",".join(cells) + "\n")


def _run(command: list[Any], folder: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=folder, env=environment(1), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))[:200]}\n{done.stderr[-2000:]}")
    return done.stdout


class Fed:
    """A child process that answers lines; it has answered one row already, as a warm-up."""

    def __init__(self, command: list[Any], first: bytes) -> None:
        self.process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(1), bufsize=0
        )
        assert self.process.stdin
        assert self.process.stdout
        self.to, self.answers = self.process.stdin, os.fdopen(os.dup(self.process.stdout.fileno()), "rb", 1 << 16)
        self.to.write(first)
        self.answers.readline()

    def one_by_one(self, lines: list[bytes]) -> list[float]:
        """Returns milliseconds from line in to line out, of each line."""
        taken = []
        for line in lines:
            start = time.perf_counter()
            self.to.write(line)
            self.answers.readline()
            taken.append((time.perf_counter() - start) * 1e3)
        return taken

    def flat_out(self, lines: list[bytes]) -> tuple[float, float, list[bytes]]:
        """Returns rows per second, rows per second of processor time, and the answers, at full speed."""
        text = b"".join(lines)
        on_cpu, start = self._on_cpu(), time.perf_counter()
        writer = threading.Thread(target=self._send, args=(text,))
        writer.start()
        answers = [self.answers.readline() for _ in lines]
        seconds = time.perf_counter() - start
        writer.join()
        return len(lines) / seconds, len(lines) / (self._on_cpu() - on_cpu), answers

    def _on_cpu(self) -> float:
        """Returns the processor time of the child's main thread in seconds; other work does not count."""
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0]) / 1e9

    def _send(self, text: bytes) -> None:
        view = memoryview(text)
        while view:
            view = view[os.write(self.to.fileno(), view) :]

    def peak_bytes(self) -> int:
        """Returns the peak memory of the child in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def close(self) -> None:
        self.to.close()
        self.process.wait(60)
        self.answers.close()


def measure_stream(bench: Bench, queries: Any, amount: Amount, figures: Figures) -> None:
    """Streams rows of digits through both, in turns."""
    lines = [(",".join(f"{value:.7g}" for value in row) + "\n").encode() for row in queries]
    commands = {"agent": bench.agent("classify", "--stream", "--format", "csv"), "scikit-learn loop": bench.loop()}
    rates: dict[str, list[float]] = {name: [] for name in commands}
    cpu_rates: dict[str, list[float]] = {name: [] for name in commands}
    taken: dict[str, list[float]] = {name: [] for name in commands}
    labels: dict[str, list[bytes]] = {}
    for _ in range(amount.rounds):
        for name, command in commands.items():
            fed = Fed(command, lines[0])
            count = amount.flat_out if name == "agent" else amount.loop_flat_out
            taken[name] += fed.one_by_one([lines[i % len(lines)] for i in range(amount.one_by_one)])
            rate, cpu_rate, answers = fed.flat_out([lines[i % len(lines)] for i in range(count)])
            rates[name].append(rate)
            cpu_rates[name].append(cpu_rate)
            labels[name] = [answer.split(b",")[0].strip() for answer in answers[: len(lines)]]
            figures.peak_bytes[f"{name}, stream"] = fed.peak_bytes()
            fed.close()
    for name in commands:
        figures.rows_per_second[name] = statistics.median(rates[name])
        figures.rows_per_cpu_second[name] = statistics.median(cpu_rates[name])
        figures.p50_ms[name] = statistics.median(taken[name])
        figures.p99_ms[name] = float(np.percentile(taken[name], 99))
    ours, theirs = labels.values()
    figures.labels_that_differ["stream"] = sum(a != b for a, b in zip(ours, theirs))


def measure_file(bench: Bench, size: datasets.Size, queries: Any, amount: Amount, figures: Figures) -> None:
    """Classifies a whole CSV file with both, in turns, with loaded models; the fastest round counts."""
    count = amount.files[size.name]
    file = bench.folder / "rows.csv"
    _write_csv(file, np.resize(queries, (count, queries.shape[1])))
    outputs = {name: bench.folder / f"{name.split()[0]}.csv" for name in ("agent", "pandas + scikit-learn")}
    programs = {"agent": (AGENT_WHOLE, bench.root), "pandas + scikit-learn": (WHOLE, bench.joblib)}
    question = f"{file}\n".encode()
    fed = {
        name: Fed([bench.python, "-c", program, model, outputs[name]], question)
        for name, (program, model) in programs.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in fed}
    for _ in range(amount.rounds):
        for name, child in fed.items():
            child.to.write(question)
            seconds[name].append(float(child.answers.readline()))
    for name, child in fed.items():
        figures.peak_bytes[f"{name}, file of {size.features} features"] = child.peak_bytes()
        child.close()
        figures.file_seconds.setdefault(size.name, {})[name] = min(seconds[name])
        figures.file_rows_per_second.setdefault(size.name, {})[name] = count / min(seconds[name])
    ours, theirs = ([line.split(",")[0] for line in output.read_text().splitlines()[1:]] for output in outputs.values())
    figures.labels_that_differ[size.name] = sum(a != b for a, b in zip(ours, theirs)) + abs(len(ours) - len(theirs))


def run(python: Path, amount: Amount) -> tuple[str, dict[str, Any]]:
    """Measures; returns the text to show and the results to keep."""
    figures = Figures()
    for size in datasets.SIZES[:2]:
        data = datasets.store(size, BUILD / "data")
        bench, queries = make(python, size, data), datasets.load(data).queries
        measure_file(bench, size, queries, amount, figures)
        if size.features == 64:
            measure_stream(bench, queries, amount, figures)
    found = installed(python, STACKS)["stacks"]
    figures.installed_bytes = {name: found[name]["bytes"] for name in STACKS}
    return show(figures), asdict(figures) | {"goals": goals(figures)}


def goals(figures: Figures) -> list[dict[str, Any]]:
    """Returns each goal with its figure."""
    rate, files = figures.rows_per_second, figures.file_rows_per_second
    times = {size: files[size]["agent"] / files[size]["pandas + scikit-learn"] for size in ("700x2", "1797x64")}
    return [
        report.goal("stream, times the loop's rows/s", rate["agent"] / rate["scikit-learn loop"], 30.0, at_least=True),
        report.goal("p50 of one digits row, ms", figures.p50_ms["agent"], 0.2),
        report.goal("2 features, times pandas' rows/s", times["700x2"], 3.0, at_least=True),
        report.goal("64 features, times pandas' rows/s", times["1797x64"], 1.0, at_least=True),
    ]


def show(figures: Figures) -> str:
    """Returns the tables as text, then the goals."""
    lines = [
        [name, f"{figures.rows_per_second[name]:,.0f}", f"{figures.rows_per_cpu_second[name]:,.0f}",
         f"{1000 / figures.p50_ms[name]:,.0f}", f"{figures.p50_ms[name]:.3f}", f"{figures.p99_ms[name]:.3f}"]
        for name in figures.rows_per_second
    ]  # fmt: skip
    head = ["stream of digits rows", "rows/s flat out", "of CPU", "rows/s one by one", "p50 ms", "p99 ms"]
    tables = [report.table(head, lines)]
    for size, found in figures.file_rows_per_second.items():
        lines = [[name, f"{rate:,.0f}", f"{figures.file_seconds[size][name]:.2f}"] for name, rate in found.items()]
        tables.append(report.table([f"CSV file, {size.partition('x')[2]} features", "rows/s", "s"], lines))
    lines = [
        [what, f"{peak / 1e6:.0f}", f"{figures.installed_bytes[what.partition(', ')[0]] / 1e6:.0f}"]
        for what, peak in figures.peak_bytes.items()
    ]
    tables.append(report.table(["memory and disk", "peak MB", "installed MB"], lines))
    said = [*report.goal_lines(goals(figures)), f"labels that differ: {figures.labels_that_differ}"]
    return "\n\n".join(tables) + "\n" + "\n".join(said)
