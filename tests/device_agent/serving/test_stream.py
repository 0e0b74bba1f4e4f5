"""classify --stream: every row answered once, in order, at once, whatever writers, readers and releases do."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.device import Device
from support.device_stream import WAIT, Stream
from support.releases import Releases

from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.release.model_file import read_info
from device_agent.shared.tabular.inputs import MAX_LINE, Lines
from device_agent.store.state import StoreState
from device_agent.system import clock

PIPE = 65536


class Pair:
    """A device with two releases of one model: `old` is committed, `new` staged."""

    def __init__(self, device: Device, releases: Releases) -> None:
        self.device = device
        self.old = device.install(releases["iris"])
        self.new = device.stage(releases["iris-next"])
        rows = Golden.from_bytes((releases["iris"] / constants.GOLDEN_FILE).read_bytes()).rows
        self.lines = [",".join(map(str, row)) for row in rows.tolist()]
        self.labels = {self.old: self.answer(releases["iris"]), self.new: self.answer(releases["iris-next"])}

    def answer(self, release: Path) -> list[str]:
        from device_agent.inference.tflite_knn import TfliteKNN

        model = TfliteKNN(release / constants.MODEL_FILE)
        rows = np.array([line.split(",") for line in self.lines], np.float32)
        return [str(label) for label in model.predict(rows)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, releases: Releases) -> Pair:
    """Never activated by a test: those that do make their own."""
    return Pair(Device(tmp_path_factory.mktemp("pair") / "root", releases), releases)


@pytest.fixture
def own_pair(device: Device, releases: Releases) -> Pair:
    return Pair(device, releases)


def test_each_line_is_answered_before_the_next_is_sent(pair: Pair) -> None:
    with Stream(pair.device) as stream:
        for line, label in zip(pair.lines, pair.labels[pair.old]):
            assert stream.ask(line) == label
        assert stream.finish() == ("", "")


def test_ten_thousand_rows_from_a_writer_that_pauses_keep_their_number_and_order(pair: Pair) -> None:
    chosen = [random.Random(0).randrange(len(pair.lines)) for _ in range(10_000)]
    text = "".join(pair.lines[place] + "\n" for place in chosen).encode()
    with Stream(pair.device) as stream:
        writer = threading.Thread(target=write_in_pieces, args=(stream, text))
        writer.start()
        answers = [stream.line() for _ in chosen]
        writer.join(WAIT)
        assert stream.finish() == ("", "")
    assert answers == [pair.labels[pair.old][place] for place in chosen]


def write_in_pieces(stream: Stream, text: bytes) -> None:
    """Cuts within lines and pauses between: what a serial port does."""
    rng = random.Random(1)
    start = 0
    while start < len(text):
        size = rng.choice((1, 7, 100, 5000, 60_000))
        stream.send(text[start : start + size])
        start += size
        if rng.random() < 0.3:
            time.sleep(0.002)


def test_a_writer_that_dies_within_a_line_costs_nothing_but_that_line(pair: Pair) -> None:
    program = (
        "import os, signal, sys\n"
        "sys.stdout.write(sys.argv[1] * 200); sys.stdout.write('5.1,3.'); sys.stdout.flush()\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    lines = "".join(line + "\n" for line in pair.lines)
    with (
        subprocess.Popen([sys.executable, "-c", program, lines], stdout=subprocess.PIPE) as writer,
        Stream(pair.device, stdin=writer.stdout) as stream,
    ):
        out, err = stream.finish(constants.EXIT_USAGE)
    answers = out.splitlines()
    assert answers[:-1] == pair.labels[pair.old] * 200
    assert answers[-1] == ""
    number = len(pair.lines) * 200 + 1
    assert f"line {number}: expected 4 columns, found 2" in err
    assert f"line {number}: the line does not end with a newline, so it may be incomplete" in err


def test_a_bad_line_is_reported_with_its_number_and_the_others_are_answered(pair: Pair) -> None:
    good, label = pair.lines[0], pair.labels[pair.old][0]
    with Stream(pair.device) as stream:
        stream.send(f"{good}\nrubbish\n{good}\n\n1,2,3\n{good}\n")
        out, err = stream.finish(constants.EXIT_USAGE)
    assert out.splitlines() == [label, "", label, "", label], "line by line, an empty answer for a bad line"
    assert "standard input, line 2: column" in err or "standard input, line 2: expected 4 columns" in err
    assert "standard input, line 5: expected 4 columns, found 3" in err
    with Stream(pair.device, "--output-format", "jsonl") as stream:
        stream.send(f"{good}\nrubbish\n{good}\n")
        records = [json.loads(line) for line in stream.finish(constants.EXIT_USAGE)[0].splitlines()]
    assert [record.get("label") for record in records] == [label, None, label]
    assert records[1]["line"] == 2
    assert "columns" in records[1]["error"]


def test_rubbish_before_the_first_row_is_a_bad_line_like_any_other(pair: Pair) -> None:
    with Stream(pair.device) as stream:
        assert stream.ask("Booting v1.2 ...") == ""
        assert stream.ask(pair.lines[0]) == pair.labels[pair.old][0]
        assert "neither" not in stream.finish(constants.EXIT_USAGE)[1]


def test_a_header_in_a_stream(pair: Pair, releases: Releases) -> None:
    names = read_info(releases["iris"] / constants.MODEL_FILE).feature_names
    with Stream(pair.device, "--digest") as stream:
        stream.send(",".join(names) + "\n")
        assert stream.line() == "label,digest"
        assert stream.ask(pair.lines[0]) == f"{pair.labels[pair.old][0]},{pair.old}"
    with Stream(pair.device) as stream:
        stream.send(",".join(names[:3]) + "\n")
        assert "the header has no column" in stream.finish(constants.EXIT_USAGE)[1]


def test_a_line_without_end_is_dropped_and_takes_no_memory(pair: Pair) -> None:
    with Stream(pair.device) as stream:
        for _ in range(40):
            stream.send(b"7" * 65536)
        stream.send("\n")
        assert stream.line() == ""
        assert stream.ask(pair.lines[0]) == pair.labels[pair.old][0]
        assert resident(stream.process.pid) < 200 * 2**20
        _, err = stream.finish(constants.EXIT_USAGE)
    assert f"line 1: the line has more than {MAX_LINE:,} bytes" in err


def test_lines_are_put_together_from_any_pieces() -> None:
    text = b"".join(b"%d,%d\n" % (n, n * n) for n in range(500)) + b"last"
    rng = random.Random(3)
    for _ in range(50):
        lines, found, start = Lines(), b"", 0
        while start < len(text):
            size = rng.randrange(1, 400)
            found += lines.feed(text[start : start + size])
            start += size
        assert found + lines.finish() == text + b"\n"


def test_a_release_that_is_activated_answers_the_next_row_and_one_that_is_given_up_none(own_pair: Pair) -> None:
    device, line = own_pair.device, own_pair.lines[0]
    with Stream(device, "--digest") as stream:
        assert stream.ask(line).endswith(own_pair.old)
        device.ask("activate", own_pair.new)
        assert stream.ask(line).endswith(own_pair.new)
        device.ask("rollback")
        assert stream.ask(line).endswith(own_pair.old)
        device.ask("activate", own_pair.new)
        device.ask("confirm", own_pair.new)
        assert stream.ask(line).endswith(own_pair.new)
        assert stream.finish() == ("", "")


def test_past_its_deadline_a_release_answers_no_row_of_a_stream(own_pair: Pair) -> None:
    device, line = own_pair.device, own_pair.lines[0]
    file = device.root / constants.STATE_FILE
    device.ask("activate", own_pair.new, "--deadline", "600")
    with Stream(device, "--digest") as stream:
        assert stream.ask(line).endswith(own_pair.new)
        state = json_codec.loads(StoreState, file.read_bytes())
        assert state.pending
        deadline = clock.uptime() + 1.5
        soon = state.pending.__class__(**{**state.pending.__dict__, "deadline": deadline})
        # Replaced as the agent does it, and nobody is there who would revert.
        prepared = file.with_name("prepared")
        prepared.write_bytes(json_codec.dump_file(StoreState(**{**state.__dict__, "pending": soon})))
        prepared.replace(file)
        asked = 0.0
        while asked < deadline:
            asked = clock.uptime()
            digest = stream.ask(line).split(",")[1]
            if asked >= deadline:
                assert digest == own_pair.old
            elif clock.uptime() < deadline:
                assert digest == own_pair.new


def test_a_million_rows_during_fifty_activations_are_answered_once_in_order_and_by_one_release_each(
    own_pair: Pair,
) -> None:
    device, rows, activations = own_pair.device, 1_000_000, 50
    steps = 2 * activations
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(own_pair.lines), rows)
    lines = [line.encode() + b"\n" for line in own_pair.lines]
    pace = Pace()
    with Stream(device, "--digest") as stream:
        answers: list[bytes] = []
        reader = threading.Thread(target=read_all, args=(stream, answers))
        reader.start()
        sent = threading.Thread(target=send_rows, args=(stream, lines, chosen, steps, pace))
        sent.start()
        memory = []
        for _ in range(activations):
            with pace.swap():
                device_does(device, "activate", own_pair.new, "--deadline", "600")
            with pace.swap():
                device_does(device, "rollback", "--leave", own_pair.new)
            memory.append(resident(stream.process.pid))
        sent.join(600)
        reader.join(600)
        assert stream.process.wait(WAIT) == 0
    text = b"".join(answers).decode().splitlines()
    assert len(text) == rows
    labels = {digest: np.array(found) for digest, found in own_pair.labels.items()}
    told = np.array([line.partition(",")[0] for line in text])
    by_new = np.array([line.endswith(own_pair.new) for line in text])
    assert all(line.endswith(own_pair.old) for line, new in zip(text, by_new.tolist()) if not new)
    expected = np.where(by_new, labels[own_pair.new][chosen], labels[own_pair.old][chosen])
    assert (told == expected).all()
    changes = int((by_new[1:] != by_new[:-1]).sum())
    assert changes == steps, f"both releases answered in turn: {changes} changes"
    assert max(memory[10:]) - memory[10] < 8 * 2**20, f"memory stays flat: {memory}"


def read_all(stream: Stream, answers: list[bytes]) -> None:
    assert stream.process.stdout
    while data := os.read(stream.process.stdout.fileno(), 1 << 20):
        answers.append(data)


class Pace:
    """A swap comes when half of a part is sent, the next part after the swap: each release answers some of each.

    Half a part is more than a pipe holds: some of it has been read before the next swap, on any machine.
    """

    def __init__(self) -> None:
        self.part, self.half = threading.Semaphore(1), threading.Semaphore(0)

    @contextlib.contextmanager
    def swap(self) -> Iterator[None]:
        assert self.half.acquire(timeout=WAIT), "the stream takes no rows"
        yield
        self.part.release()


def send_rows(stream: Stream, lines: list[bytes], chosen: np.ndarray, steps: int, pace: Pace) -> None:
    """Spreads the rows over the activations and returns, so that some are sent before, during and after each."""
    share = -(-len(chosen) // (steps + 1))
    assert share // 2 * min(map(len, lines)) > PIPE
    for part in range(steps + 1):
        assert pace.part.acquire(timeout=WAIT)
        places = chosen[part * share : (part + 1) * share]
        for start in range(0, len(places), 500):
            stream.send(b"".join([lines[place] for place in places[start : start + 500]]))
            if start == len(places) // 1000 * 500:
                pace.half.release()
    assert stream.process.stdin
    stream.process.stdin.close()
    stream.process.stdin = None


def device_does(device: Device, *arguments: str) -> None:
    """Runs a command of the agent in a forked child: a hundred of them would spend their time on imports."""
    from support import crashpoints

    from device_agent import cli

    ended = crashpoints.run(lambda: cli.main(["--root", str(device.root), *arguments, "--json"]), device.root)
    assert ended.code == 0, (ended.out, ended.err)


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_sigterm_finishes_what_was_read(pair: Pair) -> None:
    with Stream(pair.device) as stream:
        for line in pair.lines:
            stream.ask(line)
        stream.send(pair.lines[0] + "\n" + pair.lines[1][:5])
        assert stream.line() == pair.labels[pair.old][0]
        stream.process.send_signal(signal.SIGTERM)
        assert stream.process.wait(WAIT) == 0
        out, err = stream.finish()
    assert out == ""
    assert f"line {len(pair.lines) + 2}: the line is incomplete, so it has no answer" in err


def test_sigterm_drops_no_row_that_left_the_pipe(pair: Pair) -> None:
    readable, writable = os.pipe()
    with Stream(pair.device, stdin=readable) as stream:
        for count in range(1, 4):  # the agent waits for rows
            os.write(writable, f"{pair.lines[0]}\n".encode())
            assert stream.line() == pair.labels[pair.old][0], count
        stream.process.send_signal(signal.SIGSTOP)
        os.write(writable, "".join(f"{line}\n" for line in pair.lines).encode())
        stream.process.send_signal(signal.SIGTERM)
        stream.process.send_signal(signal.SIGCONT)
        assert stream.process.wait(WAIT) == 0
        os.close(writable)
        out, err = stream.finish()
        with os.fdopen(readable, "rb") as pipe:
            left = pipe.read().decode().splitlines()
    assert err == ""
    assert [*out.splitlines(), *left] in ([*pair.labels[pair.old]], pair.lines)


def test_sighup_verifies_and_loads_anew_and_goes_on_where_that_fails(own_pair: Pair) -> None:
    device, line, label = own_pair.device, own_pair.lines[0], own_pair.labels[own_pair.old][0]
    with Stream(device) as stream:
        assert stream.ask(line) == label
        stream.process.send_signal(signal.SIGHUP)
        assert stream.ask(line) == label
        model = device.root / constants.RELEASES_DIR / own_pair.old / constants.GOLDEN_FILE
        model.unlink()
        stream.process.send_signal(signal.SIGHUP)
        assert stream.process.stderr
        said = stream.process.stderr.readline().decode()
        assert "no longer verifies" in said
        assert "still answers" in said
        assert stream.ask(line) == label


@pytest.mark.parametrize("damage", ["same size", "longer", "replaced"])
def test_a_stream_ends_where_the_file_that_it_maps_is_damaged(own_pair: Pair, damage: str) -> None:
    device, line, label = own_pair.device, own_pair.lines[0], own_pair.labels[own_pair.old][0]
    file = device.root / constants.RELEASES_DIR / own_pair.old / constants.MODEL_FILE
    data = file.read_bytes()
    with Stream(device) as stream:
        assert stream.ask(line) == label
        file.parent.chmod(0o700)
        file.chmod(0o600)
        if damage == "replaced":  # the bytes that were verified are still those that are mapped
            file.unlink()
            file.write_bytes(data[:-1] + b"!")
        else:
            with file.open("r+b") as model:
                model.seek(0, os.SEEK_SET if damage == "same size" else os.SEEK_END)
                model.write(b"!")
        stream.process.send_signal(signal.SIGHUP)
        if damage == "replaced":
            assert stream.ask(line) == label
        else:
            assert stream.process.wait(WAIT) == constants.EXIT_REFUSED
            assert stream.process.stderr
            assert "no longer verifies" in stream.process.stderr.read().decode()


def test_a_reader_that_leaves_ends_the_stream_quietly(pair: Pair) -> None:
    with Stream(pair.device) as stream:
        assert stream.ask(pair.lines[0]) == pair.labels[pair.old][0]
        assert stream.process.stdout
        assert stream.process.stderr
        stream.process.stdout.close()
        stream.send(pair.lines[0] + "\n")
        assert stream.process.wait(WAIT) == 141
        assert stream.process.stderr.read() == b""


def test_a_reader_that_is_slow_loses_nothing_also_on_a_pipe_that_does_not_block(pair: Pair) -> None:
    readable, writable = os.pipe()
    fcntl.fcntl(writable, fcntl.F_SETFL, os.O_NONBLOCK)
    fcntl.fcntl(writable, fcntl.F_SETPIPE_SZ, 4096)
    with Stream(pair.device, stdout=writable) as stream:
        os.close(writable)
        text = "".join(line + "\n" for line in pair.lines * 500).encode()
        writer = threading.Thread(target=write_in_blocks, args=(stream, text))
        writer.start()
        answers = b""
        while data := os.read(readable, 1000):
            answers += data
        writer.join(WAIT)
        assert stream.process.wait(WAIT) == 0
        os.close(readable)
    assert answers.decode().splitlines() == pair.labels[pair.old] * 500


def write_in_blocks(stream: Stream, text: bytes) -> None:
    assert stream.process.stdin
    with stream.process.stdin as pipe:
        pipe.write(text)
    stream.process.stdin = None


def test_two_streams_and_a_file(pair: Pair, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("".join(line + "\n" for line in pair.lines))
    out = tmp_path / "out.csv"
    for _ in range(2):
        said = pair.device.run("classify", "--stream", "--input", rows, "--output", out)
        assert (said.code, said.err) == (0, "")
    assert out.read_text().splitlines() == pair.labels[pair.old] * 2, "a stream adds to its file"


def test_npy_is_no_stream(pair: Pair) -> None:
    said = pair.device.run("classify", "--stream", "--output-format", "npy", input="1,2,3,4\n")
    assert said.code == constants.EXIT_USAGE
    assert "lines of CSV or JSON" in said.err


def test_a_release_with_other_columns_does_not_take_over_a_stream(
    device: Device, releases: Releases, tmp_path: Path
) -> None:
    from knnkit.release import manifest
    from knnkit.release.signing import FileSigner, sign_release

    other = releases.copy("blobs", tmp_path / "other")
    pair = Pair(device, releases)
    path = other / constants.MANIFEST_FILE
    found = manifest.read_manifest(path.read_bytes())
    path.write_bytes(manifest.write_manifest(found.__class__(**{**found.__dict__, "sequence": 20})))
    sign_release(other, FileSigner.load(releases.private_key))
    # One device, one model name: a release of another model is not even staged.
    assert device.ask("stage", other, code=constants.EXIT_REFUSED)["reason"] == "wrong-name"
    with Stream(device) as stream:
        assert stream.ask(pair.lines[0]) == pair.labels[pair.old][0]


def test_csv_and_json_answers_of_a_stream_are_those_of_batch(pair: Pair) -> None:
    text = "".join(line + "\n" for line in pair.lines)
    for more in ((), ("--proba", "--neighbors", "--digest"), ("--output-format", "jsonl", "--proba")):
        batch = pair.device.run("classify", *more, input=text).out
        assert pair.device.run("classify", "--stream", *more, input=text).out == batch
        assert len(list(csv.reader(batch.splitlines()))) == len(pair.lines)


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    before = set(children())
    yield
    assert set(children()) <= before


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
