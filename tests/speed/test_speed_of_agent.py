"""classify against scikit-learn, on the same machine, in the same run, on the same CSV.

Rounds are interleaved and the best of each side counts, because the machine has other work; what is compared is
ratios. Both sides use one thread and have loaded their model before the clock runs, unless a start is measured.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support.device import Device
from support.releases import Releases

from device_agent import contract
from device_agent.judge import Golden

Record = Callable[[str, object], None]
ROUNDS = 5
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

#: The same classifier in scikit-learn, over the training rows that the release was built from.
FIT = """
import sys, time
import numpy as np
from sklearn.datasets import load_digits, make_blobs
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
X, y = load_digits(return_X_y=True) if sys.argv[1] == "digits" else make_blobs(1000, 2, centers=5, random_state=0)
X, _, y, _ = train_test_split(X, y, test_size=0.3, random_state=0)
model = KNeighborsClassifier(5 if sys.argv[1] == "digits" else 3).fit(X, y)
"""
#: What people write today: a loop over lines, each answer flushed.
LINE_LOOP = (
    FIT
    + """
sys.stdin.readline(), print("ready", flush=True)
for line in sys.stdin:
    row = np.array(line.split(","), float).reshape(1, -1)
    print(model.predict(row)[0], flush=True)
"""
)
BATCH = (
    FIT
    + """
import pandas
for name in sys.stdin:
    start = time.perf_counter()
    rows = pandas.read_csv(name.strip(), header=None).to_numpy()
    labels = model.predict(rows)
    with open(name.strip() + ".sklearn", "w") as file:
        file.write("\\n".join(map(str, labels)) + "\\n")
    print(time.perf_counter() - start, flush=True)
"""
)
AGENT_BATCH = """
import sys, time
from pathlib import Path
from device_agent import answers, classify, loading
from device_agent.sinks import Sink
from device_agent.sources import open_source
from device_agent.store import Store
store = Store(Path(sys.argv[1]))
loaded = loading.load_kept(store, loading.answering(store).release)
for name in sys.stdin:
    start = time.perf_counter()
    request = classify.Request(name.strip(), name.strip() + ".agent", "csv", None, answers.Columns())
    renderer = classify.make_renderer(loaded, request.columns, "csv")
    sink = Sink(request.output)
    sink.finish(classify._run(loaded, open_source(request.input, "csv"), request, renderer, sink))
    print(time.perf_counter() - start, flush=True)
"""


def lines_of(release: Path) -> list[bytes]:
    golden = Golden.from_bytes((release / contract.GOLDEN_FILE).read_bytes())
    return [",".join(map("{:.6g}".format, row)).encode() + b"\n" for row in golden.rows.tolist()]


class Server:
    """A program that answers lines, kept running."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env | ONE_THREAD)
        assert self.process.stdin
        assert self.process.stdout
        self.into, self.out = self.process.stdin.fileno(), self.process.stdout.fileno()

    def ask(self, line: bytes) -> bytes:
        os.write(self.into, line)
        data = b""
        while not data.endswith(b"\n"):
            ready, _, _ = select.select([self.out], [], [], 120)
            assert ready
            data += self._read()
        return data

    def _read(self) -> bytes:
        block = os.read(self.out, 1 << 20)
        assert block, f"the program ended: {self.process.args!r:.200}"
        return block

    def seconds_for(self, text: bytes) -> float:
        """Feeds all of `text` as fast as it is taken; returns how long until the last answer is there."""
        count = text.count(b"\n")
        start = time.perf_counter()
        sent = answers = 0
        while answers < count:
            into = [self.into] if sent < len(text) else []
            readable, writable, _ = select.select([self.out], into, [], 120)
            assert readable or writable
            if writable:
                sent += os.write(self.into, text[sent : sent + 4096])
            if readable:
                answers += self._read().count(b"\n")
        return time.perf_counter() - start

    def close(self) -> None:
        self.process.communicate(timeout=60)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(argv: list[str], env: dict[str, str]) -> Server:
        servers.append(Server(argv, env))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def scikit_learn(program: str, name: str) -> list[str]:
    return [sys.executable, "-c", program, name]


def test_a_stream_has_thirty_times_the_rows_of_a_scikit_learn_loop_each_row_flushed(
    device: Device, releases: Releases, serve: Callable[..., Server], record_property: Record
) -> None:
    device.install(releases["blobs"])
    lines = lines_of(releases["blobs"])
    loop = serve(scikit_learn(LINE_LOOP, "blobs"), device.env())
    agent = serve(device.argv("classify", "--stream"), device.env())
    assert loop.ask(b"\n") == b"ready\n"
    agent.ask(lines[0])
    theirs = min(loop.seconds_for(b"".join(lines[:200])) / 200 for _ in range(ROUNDS))
    ours = min(agent.seconds_for(b"".join(lines * 20)) / (len(lines) * 20) for _ in range(ROUNDS))
    record_property("rows_per_second", {"scikit-learn": round(1 / theirs), "device_agent": round(1 / ours)})
    record_property("ratio", round(theirs / ours, 1))
    assert theirs >= 30 * ours


def test_one_row_takes_less_than_a_fifth_of_a_millisecond_from_line_in_to_line_out(
    device: Device, releases: Releases, serve: Callable[..., Server], record_property: Record
) -> None:
    device.install(releases["digits"])
    lines = lines_of(releases["digits"])
    agent = serve(device.argv("classify", "--stream"), device.env())
    agent.ask(lines[0])
    times = []
    for number in range(3000):
        start = time.perf_counter()
        agent.ask(lines[number % len(lines)])
        times.append(time.perf_counter() - start)
    p50, p99 = np.percentile(times, [50, 99]) * 1e3
    record_property("milliseconds", {"p50": round(p50, 4), "p99": round(p99, 4)})
    assert p50 < 0.2


@pytest.mark.parametrize(("name", "copies", "times"), [("blobs", 1, 0.0), ("blobs", 200, 0.0), ("digits", 20, 1.0)])
def test_batch_from_a_csv_file_against_pandas_and_scikit_learn(
    device: Device,
    releases: Releases,
    serve: Callable[..., Server],
    record_property: Record,
    tmp_path: Path,
    name: str,
    copies: int,
    times: float,
) -> None:
    """Faster for 64 features. For 2, scikit-learn walks a tree and the graph looks at every row: measured only."""
    device.install(releases[name])
    file = tmp_path / "rows.csv"
    file.write_bytes(b"".join(lines_of(releases[name])) * copies)
    theirs_server = serve(scikit_learn(BATCH, name), device.env())
    ours_server = serve([sys.executable, "-c", AGENT_BATCH, str(device.root)], device.env())
    question = f"{file}\n".encode()
    pairs = [(float(theirs_server.ask(question)), float(ours_server.ask(question))) for _ in range(ROUNDS * 3)]
    theirs, ours = (min(pair[side] for pair in pairs) for side in (0, 1))
    same = [path.read_text().splitlines() for path in (Path(f"{file}.sklearn"), Path(f"{file}.agent"))]
    assert len(same[0]) == len(same[1])
    rows = len(same[0])
    record_property("rows_per_second", {"scikit-learn": round(rows / theirs), "device_agent": round(rows / ours)})
    record_property("ratio", round(theirs / ours, 2))
    if name == "blobs":
        assert same[0] == same[1]
    assert theirs >= times * ours


def test_the_first_answer_comes_within_three_tenths_of_a_second(
    device: Device, releases: Releases, record_property: Record
) -> None:
    device.install(releases["iris"])
    line = lines_of(releases["iris"])[0]
    times = []
    for _ in range(ROUNDS * 2):
        start = time.perf_counter()
        done = subprocess.run(
            device.argv("classify"), input=line, capture_output=True, env=device.env() | ONE_THREAD, check=True
        )
        times.append(time.perf_counter() - start)
        assert done.stdout.count(b"\n") == 1
    record_property("seconds", round(min(times), 3))
    assert min(times) <= 0.3
