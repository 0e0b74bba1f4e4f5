"""A committed release whose starts never reach an answer is left for the one before; any other end counts nothing."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from support import crashpoints
from support.device import ROOT, Device, Said
from support.releases import Releases

from device_agent import cli
from device_agent.serving.in_flight import InFlight
from device_agent.shared.protocol import constants, json_codec
from device_agent.store import starts, trust_dir
from device_agent.store.store import Store

ROW = "5.1,3.5,1.4,0.2\n"
#: Kills the process as the out-of-memory killer does, when the model `iris-next` (k = 11) has been loaded.
KILLER = """
import os, signal
from device_agent.inference.tflite_knn import TfliteKNN
load = TfliteKNN.__init__
def init(self, *arguments, **more):
    load(self, *arguments, **more)
    if self.info.k == 11:
        os.kill(os.getpid(), signal.SIGKILL)
TfliteKNN.__init__ = init
"""
#: Kills the process as a fault in the runtime does, when a row begins with 666.
POISON = """
import os, signal
from device_agent.inference.tflite_knn import TfliteKNN
def killing(ask):
    def wrapped(self, rows):
        if (rows[:, 0] == 666).any():
            os.kill(os.getpid(), signal.SIGSEGV)
        return ask(self, rows)
    return wrapped
TfliteKNN.classify, TfliteKNN.labels = killing(TfliteKNN.classify), killing(TfliteKNN.labels)
"""
#: Kills the process as a fault in the runtime does, when a stage runs.
DEADLY_STAGE = """
import os, signal
from device_agent.shared.embedding.stage import StageRunner
StageRunner.run = lambda *_: os.kill(os.getpid(), signal.SIGSEGV)
"""
MANY = constants.FAILED_STARTS


class Board:
    """A device that has committed `iris` and then `iris-next`, which dies at its start if `dying`."""

    def __init__(self, device: Device, releases: Releases, folder: Path) -> None:
        self.device, self.folder = device, folder
        self.old, self.new = device.install_all(releases["iris"], releases["iris-next"])
        (folder / "sitecustomize.py").write_text(KILLER)

    def classify(self, *more: str, dying: bool = True, rows: str = ROW) -> Said:
        env = {"PYTHONPATH": f"{self.folder}:{ROOT}"} if dying else {}
        return self.device.run("classify", "--digest", *more, input=rows, **env)

    def failed(self, digest: str = "") -> int:
        return starts.failed(Store(self.device.root), digest or self.new)


@pytest.fixture
def board(device: Device, releases: Releases, tmp_path: Path) -> Board:
    folder = tmp_path / "site"
    folder.mkdir()
    return Board(device, releases, folder)


@pytest.mark.parametrize("how", [(), ("--stream",)], ids=["batch", "stream"])
def test_a_release_whose_starts_die_is_left_and_everybody_is_told(board: Board, how: tuple[str, ...]) -> None:
    for number in range(MANY):
        assert board.failed() == number
        assert board.classify(*how).code == -signal.SIGKILL
    assert any(
        text.startswith(f"starts-failed: the last {MANY} starts") for text in board.device.ask("status")["warnings"]
    )
    said = board.classify(*how)
    assert (said.code, said.out) == (0, f"setosa,{board.old}\n")
    assert f"{MANY} starts of {board.new[:12]} in a row ended without an answer" in said.err
    status = board.device.ask("status")
    assert (status["committed"]["digest"], status["previous"], status["answering"]) == (board.old, None, board.old)
    assert any(text.startswith("fell-back: iris 1.1.0") for text in status["warnings"])
    last = board.device.ask("history")["entries"][-1]
    assert (last["what"], last["release"]["digest"], last["answering"]["digest"]) == (
        "rolled-back",
        board.new,
        board.old,
    )
    assert last["why"] == f"{MANY} starts in a row ended without an answer"
    assert board.classify(*how).err == "", "it is said once"


def test_an_answer_sets_the_count_back(board: Board) -> None:
    for _ in range(3):
        for _ in range(MANY - 1):
            assert board.classify().code == -signal.SIGKILL
        assert board.classify(dying=False).out == f"setosa,{board.new}\n"
        assert board.failed() == 0


@pytest.mark.parametrize("how", [(), ("--stream",)], ids=["batch", "stream"])
def test_rows_and_readers_that_are_wrong_count_nothing(board: Board, how: tuple[str, ...]) -> None:
    assert board.classify().code == -signal.SIGKILL
    for rows in ("rubbish\n", "", "sepal length (cm),b\n1,2\n"):
        board.classify(*how, dying=False, rows=rows)
        assert board.failed() == 1, "neither more nor less"
    board.classify(*how, "--input", "nothing.csv", dying=False)
    board.classify(*how, "--output", "/nowhere/at/all", dying=False)
    assert board.failed() == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_start_that_somebody_ends_counts_nothing(board: Board, number: int) -> None:
    process = board.device.popen("classify", stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdin
    wait_until(lambda: (board.device.root / constants.STARTS_FILE).exists())
    time.sleep(0.3)
    process.send_signal(number)
    process.wait(60)
    process.stdin.close()
    assert board.failed() == 0


def test_a_stream_that_waits_for_its_first_row_counts_nothing(board: Board) -> None:
    process = board.device.popen("classify", "--stream", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    file = board.device.root / constants.STARTS_FILE
    wait_until(lambda: file.exists() and file.read_text() == f"{board.new} 000\n")
    os.write(process.stdin.fileno(), ROW.encode())
    assert process.stdout.readline() == b"setosa\n"
    wait_until(lambda: file.read_text() == f"{board.new} 000\n")
    process.kill()
    process.communicate()
    assert board.failed() == 0


def test_a_stream_that_dies_in_a_stage_after_it_has_waited_counts(
    device: Device, releases: Releases, tmp_path: Path
) -> None:
    digest = device.install(releases["tones"])
    (tmp_path / "sitecustomize.py").write_text(DEADLY_STAGE)
    environment = device.env(PYTHONPATH=f"{tmp_path}:{ROOT}")
    argv = device.argv("classify", "--stream", "--format", "frames")
    process = subprocess.Popen(argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    file = device.root / constants.STARTS_FILE
    wait_until(lambda: file.exists() and file.read_text() == f"{digest} 000\n")
    sound = io.BytesIO()
    np.save(sound, np.ones(800, np.int16))
    process.communicate(len(sound.getvalue()).to_bytes(4, "big") + sound.getvalue(), timeout=60)
    assert process.returncode == -signal.SIGSEGV
    assert starts.failed(Store(device.root), digest) == 1


def wait_until(holds: object, seconds: float = 60.0) -> None:
    give_up = time.monotonic() + seconds
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_starts_at_the_same_time_are_not_counted_as_one_after_the_other(board: Board) -> None:
    store = Store(board.device.root)
    several = [starts.Start(store) for _ in range(5)]
    assert board.failed() == 0, "all of them are under way"
    for start in several:
        start.answered()
    assert board.failed() == 0


def test_without_a_release_before_it_a_release_is_tried_again(device: Device, releases: Releases) -> None:
    digest = device.install(releases["iris"])
    (device.root / constants.STARTS_FILE).write_text(f"{digest} {MANY:03}\n")
    said = device.run("classify", "--digest", input=ROW)
    assert (said.code, said.out) == (0, f"setosa,{digest}\n")


def test_a_release_is_not_left_for_one_that_is_damaged(board: Board) -> None:
    (board.device.root / constants.STARTS_FILE).write_text(f"{board.new} {MANY:03}\n")
    golden = board.device.root / constants.RELEASES_DIR / board.old / constants.GOLDEN_FILE
    golden.unlink()
    said = board.classify(dying=False)
    assert (said.code, said.out) == (0, f"setosa,{board.new}\n")
    assert "the device cannot go back to the previous release" in said.err
    assert board.device.answering() == board.new


def test_a_damaged_release_is_left_too(board: Board) -> None:
    golden = board.device.root / constants.RELEASES_DIR / board.new / constants.GOLDEN_FILE
    golden.unlink()
    codes = [board.classify(dying=False).code for _ in range(MANY + 1)]
    assert codes == [constants.EXIT_REFUSED] * MANY + [0]
    assert board.device.answering() == board.old


def test_a_revoked_key_does_not_stop_the_return(board: Board) -> None:
    trusted = board.device.ask("status")["trusted"]
    (board.device.root / constants.STARTS_FILE).write_text(f"{board.new} {MANY:03}\n")
    revoke(board.device, trusted[0])
    said = board.classify(dying=False)
    assert (said.code, said.out) == (0, f"setosa,{board.old}\n")
    assert "revoked" in said.err


def revoke(device: Device, fingerprint: str) -> None:
    file = device.root / constants.TRUST_DIR / trust_dir.DEVICE_FILE
    file.write_bytes(json_codec.dump_file(trust_dir.DeviceTrust("d" * 32, (fingerprint,))))


def test_a_root_of_somebody_else_is_read_and_nothing_more(board: Board) -> None:
    root = board.device.root
    if os.geteuid() == 0:
        os.chown(root, 12345, -1)
    else:
        root.chmod(0o500)
    assert board.classify(dying=False).out == f"setosa,{board.new}\n"
    assert not (root / constants.STARTS_FILE).exists()
    root.chmod(0o700)


@pytest.mark.parametrize("content", ["", "rubbish", "\x00" * 70, "a" * 64 + " -01\n", "a" * 5000])
def test_a_count_that_is_damaged_is_none(board: Board, content: str) -> None:
    (board.device.root / constants.STARTS_FILE).write_text(content)
    assert board.failed() == 0
    assert board.classify(dying=False).out == f"setosa,{board.new}\n"
    assert board.failed() == 0


@pytest.mark.parametrize("how", [(), ("--stream",)], ids=["batch", "stream"])
def test_a_start_writes_twice_however_many_rows_come(board: Board, tmp_path: Path, how: tuple[str, ...]) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text(ROW * 50_000)
    argv = ["--root", str(board.device.root), "classify", *how, "--input", str(rows), "--output", str(tmp_path / "out")]
    effects = crashpoints.trace(lambda: cli.main(argv), board.device.root)
    assert [effect.call for effect in effects] == ["open", "pwrite", "fsync", "pwrite", "fsync"]


@pytest.fixture
def poisoned(board: Board) -> Board:
    (board.folder / "sitecustomize.py").write_text(POISON)
    return board


BAD = "666,3.5,1.4,0.2\n"


@pytest.mark.parametrize("before", [0, 2, 1000])
def test_a_row_that_kills_a_batch_is_named_and_the_release_stays(poisoned: Board, before: int) -> None:
    rows = ROW * before + "\n" + BAD + ROW * 3
    assert poisoned.classify(rows=rows).code == -signal.SIGSEGV
    for _ in range(MANY + 2):
        said = poisoned.classify(rows=rows)
        assert said.code == constants.EXIT_USAGE
        assert f"standard input, line {before + 2}: this row kills the model: the model crashed" in said.err
    assert poisoned.device.answering() == poisoned.new
    assert poisoned.classify(rows=ROW).out == f"setosa,{poisoned.new}\n"
    assert poisoned.failed() == 0


def test_a_row_beyond_the_first_block_of_a_batch_is_named(poisoned: Board) -> None:
    rows = ROW * 30_000 + BAD + ROW
    codes = [poisoned.classify(rows=rows).code for _ in range(MANY + 2)]
    assert set(codes) <= {-signal.SIGSEGV, constants.EXIT_USAGE}
    assert poisoned.device.answering() == poisoned.new


LATE = 90_000


def test_a_row_that_kills_a_stream_late_is_named_and_all_other_rows_are_answered(poisoned: Board) -> None:
    """Sent again from the start; 100,000 rows, two of which kill the model."""
    lines = [ROW] * 100_000
    for number in (30_000, LATE):
        lines[number - 1] = BAD
    rows, answer = "".join(lines), f"setosa,{poisoned.new}"
    for dies_at in (30_000, LATE):
        died = poisoned.classify("--stream", rows=rows)
        assert died.code == -signal.SIGSEGV
        given = died.out.splitlines()
        expected = [answer] * (dies_at - 1)
        if dies_at == LATE:
            expected[29_999] = ","
        assert given == expected[: len(given)]
        assert len(given) > dies_at - 5_000, "the earlier answers stand"
    said = poisoned.classify("--stream", rows=rows)
    assert said.code == constants.EXIT_USAGE
    assert [number for number, line in enumerate(said.out.splitlines(), 1) if line != answer] == [30_000, LATE]
    assert said.out.count("\n") == 100_000
    for number in (30_000, LATE):
        assert f"line {number}: this row kills the model: the model crashed the runtime: SIGSEGV" in said.err
    assert poisoned.device.answering() == poisoned.new
    assert poisoned.failed() == 0
    assert poisoned.classify("--stream").err == "", "a stream that ended well leaves nothing behind"


def test_a_live_stream_goes_on_after_a_row_that_kills_and_says_where_it_was(poisoned: Board) -> None:
    assert poisoned.classify("--stream", rows=ROW * LATE + BAD + ROW).code == -signal.SIGSEGV
    again = poisoned.classify("--stream", rows=ROW * 40 + BAD + ROW)
    assert (again.code, again.out.count("setosa")) == (-signal.SIGSEGV, 40), "few rows are answered one by one"
    said = poisoned.classify("--stream", rows=ROW * 3)
    assert (said.code, said.out.count("setosa")) == (0, 3)
    found = re.search(
        r"a process died while it answered lines (\d+) to (\d+), 41; a child process tries these lines first", said.err
    )
    assert found
    assert int(found[1]) <= LATE + 1 <= int(found[2])
    assert int(found[2]) - int(found[1]) < 4_000


@pytest.mark.parametrize("more", [(), ("--proba",)], ids=["labels", "answers"])
def test_a_row_that_kills_a_batch_late_is_named(poisoned: Board, tmp_path: Path, more: tuple[str, ...]) -> None:
    rows = ROW * LATE + BAD + ROW * 9_999
    assert poisoned.classify(*more, rows=rows).code == -signal.SIGSEGV
    for _ in range(2):
        said = poisoned.classify(*more, rows=rows)
        assert said.code == constants.EXIT_USAGE
        assert f"standard input, line {LATE + 1}: this row kills the model: the model crashed" in said.err
    assert poisoned.classify(*more, rows=ROW).err == ""


def test_two_streams_on_one_root_do_not_take_each_other_for_dead(poisoned: Board) -> None:
    with poisoned.device.popen("classify", "--stream", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdin
        assert first.stdout
        os.write(first.stdin.fileno(), ROW.encode())
        assert first.stdout.readline() == b"setosa\n"
        said = poisoned.classify("--stream", rows=ROW + BAD)
        assert said.code == -signal.SIGSEGV
        first.stdin.close()
        assert first.wait(60) == 0
    assert "died while" not in poisoned.classify("--stream").err


@pytest.mark.parametrize("kind", ["link", "folder", "fifo", "rubbish"])
def test_what_stands_where_lines_in_work_are_recorded_stops_no_answer(
    poisoned: Board, tmp_path: Path, kind: str
) -> None:
    place = InFlight(poisoned.device.root)._path
    place.unlink(missing_ok=True)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    make = {
        "link": lambda: place.symlink_to(victim),
        "folder": place.mkdir,
        "fifo": lambda: os.mkfifo(place),
        "rubbish": lambda: place.write_bytes(b"\xff -1 1e9\n1 2 3\n" * 500),
    }
    make[kind]()
    try:
        assert poisoned.classify("--stream").out == f"setosa,{poisoned.new}\n"
        assert victim.read_text() == "mine"
    finally:
        place.rmdir() if place.is_dir() and not place.is_symlink() else place.unlink(missing_ok=True)


def test_rows_that_kill_a_stream_are_bad_lines_and_the_others_are_answered(poisoned: Board) -> None:
    rows = ROW + BAD + "rubbish\n" + BAD + ROW
    assert poisoned.classify("--stream", rows=rows).code == -signal.SIGSEGV
    said = poisoned.classify("--stream", rows=rows)
    answer = f"setosa,{poisoned.new}"
    assert said.out.splitlines() == [answer, ",", ",", ",", answer]
    assert said.code == constants.EXIT_USAGE
    for line in (2, 4):
        assert f"line {line}: this row kills the model: the model crashed the runtime: SIGSEGV" in said.err
    assert poisoned.failed() == 0
