"""The journal of taught rows: equal to a model in memory, whole after every crash, and nobody else's."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from device_agent.enrolment import journal as module
from device_agent.enrolment.journal import Journal
from device_agent.shared.enrolment.enrolled import LocalRow
from device_agent.shared.protocol.constants import JOURNAL_FILE
from device_agent.shared.protocol.errors import AgentError, DeviceUnfit, Locked
from device_agent.shared.protocol.record import replace
from device_agent.system import durable

STEPS = 100_000


def make_row(number: int, label: str = "a") -> LocalRow:
    return LocalRow(f"{number:016x}", label, number, (number / 4, -1e-7, None, "text ü"), "d" * 64, "c" * 16)


class Model:
    """What a journal holds, in a list; each command has an inverse."""

    def __init__(self) -> None:
        self.rows: list[LocalRow] = []
        self.done: list[Callable[[], None]] = []

    def enrol(self, rows: list[LocalRow]) -> None:
        self.rows += rows
        self.done.append(lambda: self.drop(rows))

    def forget(self, rows: list[LocalRow]) -> None:
        before = list(self.rows)
        self.drop(rows)
        self.done.append(lambda: self.restore(before))

    def drop(self, rows: list[LocalRow]) -> None:
        gone = {row.id for row in rows}
        self.rows = [row for row in self.rows if row.id not in gone]

    def restore(self, rows: list[LocalRow]) -> None:
        self.rows = rows


def test_a_hundred_thousand_commands_leave_what_a_model_in_memory_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable.os, "fsync", lambda descriptor: None)  # the order of calls is another test's
    rng, model, number = random.Random(1), Model(), 0
    journal = Journal(tmp_path)
    with journal.changing("me"):
        for step in range(STEPS):
            chosen = rng.random()
            if (chosen < 0.4 and len(model.rows) < 60) or not model.rows:
                rows = [make_row(number + extra) for extra in range(rng.choice([1, 1, 3]))]
                number += 3
                journal.enrol(rows)
                model.enrol(rows)
            elif chosen < 0.8 or not journal.taught.can_undo:
                rows = rng.sample(model.rows, min(len(model.rows), rng.choice([1, 2])))
                journal.forget([row.id for row in rows])
                model.forget(rows)
                assert journal.taught.can_undo, "forget"
            else:
                journal.undo()
                model.done.pop()()
            undoable = len(journal.taught._done)  # fewer if it was written again
            model.done = model.done[len(model.done) - undoable :]
            if step % 997 == 0:
                assert journal.taught.rows() == model.rows
                assert Journal(tmp_path).read() == model.rows
                assert (tmp_path / JOURNAL_FILE).stat().st_size < 2 * module.SPARE
    assert Journal(tmp_path).read() == model.rows


def test_all_is_undone_back_to_the_beginning(tmp_path: Path) -> None:
    with Journal(tmp_path).changing("me") as journal:
        journal.enrol([make_row(1), make_row(2)])
        journal.forget([make_row(1).id])
    with Journal(tmp_path).changing("me") as journal:
        assert journal.undo() == ("forget", (make_row(1).id,))
        assert journal.taught.rows() == [make_row(1), make_row(2)]
        assert journal.undo()[0] == "enrol"
        assert journal.taught.rows() == []
        with pytest.raises(AgentError, match="nothing to undo"):
            journal.undo()


def test_large_rows_that_were_forgotten_can_be_brought_back(tmp_path: Path) -> None:
    rows = [replace(make_row(number), row=("x" * 1000,) * 40) for number in range(20)]
    for _ in range(3):
        with Journal(tmp_path).changing("me") as journal:
            journal.enrol(rows)
            journal.forget([row.id for row in rows])
        assert (tmp_path / JOURNAL_FILE).stat().st_size < 4 * module.SPARE
        with Journal(tmp_path).changing("me") as journal:
            assert journal.undo()[0] == "forget"
            assert journal.taught.rows() == rows
            rows = [replace(row, id=f"{row.id}{row.id[-1]}") for row in rows]
            journal.forget([row.id for row in journal.taught.rows()])


def test_what_is_erased_is_nowhere_in_the_file(tmp_path: Path) -> None:
    with Journal(tmp_path).changing("me") as journal:
        journal.enrol([make_row(7, "secret"), make_row(8)])
        journal.forget([make_row(7).id])
        assert b"secret" in (tmp_path / JOURNAL_FILE).read_bytes()
        journal.erase()
        assert not journal.taught.can_undo
    assert b"secret" not in (tmp_path / JOURNAL_FILE).read_bytes()
    assert Journal(tmp_path).read() == [make_row(8)]
    assert not Journal(tmp_path).taught.can_undo


def taught(tmp_path: Path) -> tuple[bytes, list[LocalRow]]:
    """Three commands; returns the bytes of the journal, and what it holds."""
    with Journal(tmp_path).changing("me") as journal:
        journal.enrol([make_row(1)])
        journal.enrol([make_row(2), make_row(3)])
        journal.forget([make_row(1).id])
        return (tmp_path / JOURNAL_FILE).read_bytes(), journal.taught.rows()


def test_a_torn_tail_is_cut_back_to_the_last_whole_command(tmp_path: Path) -> None:
    data, rows = taught(tmp_path)
    before = [make_row(1), make_row(2), make_row(3)]
    start = data[:-1].rindex(b"\n") + 1
    for end in range(start, len(data) - 1):
        torn = [data[:end], data[:end].ljust(len(data) + 9, b"\0"), data[:end] + b"\0" * (len(data) - end - 1) + b"\n"]
        for each in torn:
            (tmp_path / JOURNAL_FILE).write_bytes(each)
            assert Journal(tmp_path).read() == before, (end, each)
    with Journal(tmp_path).changing("me") as journal:
        journal.forget([make_row(1).id])
    assert (tmp_path / JOURNAL_FILE).read_bytes() == data
    assert Journal(tmp_path).read() == rows


def changed(data: bytes) -> dict[str, bytes]:
    lines = data.splitlines(keepends=True)
    found = {f"byte {at}": data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(0, len(data) - 1, 7)}
    found |= {f"without line {n}": b"".join(lines[:n] + lines[n + 1 :]) for n in range(len(lines) - 1)}
    found |= {f"zeros in line {n}": b"".join([*lines[:n], bytes(80), b"\n", *lines[n + 1 :]]) for n in range(2)}
    found |= {"zeros, then another line": b"".join([lines[0], bytes(9), *lines[1:]])}
    found |= {"lines in another order": b"".join([lines[1], lines[0], lines[2]])}
    found |= {"a line twice": data + lines[1], "a line of its own": data + b"0" * 64 + b' {"do":"undo"}\n'}
    return found


def test_a_changed_journal_is_refused_with_what_to_type(tmp_path: Path) -> None:
    data, _ = taught(tmp_path)
    for name, wrong in changed(data).items():
        (tmp_path / JOURNAL_FILE).write_bytes(wrong)
        with pytest.raises(DeviceUnfit, match="was changed") as caught:
            Journal(tmp_path).read()
        assert caught.value.reason == "enrolled-damaged", name
        assert "mv " in caught.value.hint, name


@pytest.mark.parametrize("how", ["another key", "no key", "a link", "of another device"])
def test_a_journal_without_its_key_is_refused(tmp_path: Path, how: str) -> None:
    taught(tmp_path)
    key = tmp_path / "enrolled" / "key"
    assert key.stat().st_mode & 0o777 == 0o600
    if how == "another key":
        key.write_bytes(bytes(32))
    elif how == "no key":
        key.unlink()
    elif how == "a link":
        key.rename(tmp_path / "elsewhere")
        key.symlink_to(tmp_path / "elsewhere")
    else:
        with Journal(tmp_path / "other").changing("me") as journal:
            journal.enrol([make_row(9)])
        key.write_bytes((tmp_path / "other" / "enrolled" / "key").read_bytes())
    with pytest.raises(DeviceUnfit, match="was changed"), Journal(tmp_path).changing("me"):
        pass


def test_one_process_writes_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_agent.store.lock.WAIT_SECONDS", 0.0)
    with Journal(tmp_path).changing("ann"), pytest.raises(Locked, match="ann"), Journal(tmp_path).changing("bob"):
        pass


def test_rows_beyond_the_most_bytes_are_refused_and_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal(tmp_path).changing("me") as journal:
        journal.enrol([make_row(1)])
        monkeypatch.setattr(module, "MAX_BYTES", 400)
        before = (tmp_path / JOURNAL_FILE).read_bytes()
        with pytest.raises(AgentError) as caught:
            journal.enrol([make_row(2), make_row(3)])
    assert caught.value.reason == "enrol-full"
    assert (tmp_path / JOURNAL_FILE).read_bytes() == before
