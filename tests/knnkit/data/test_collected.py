"""The file of rows that came home: each once, labels kept through crashes, columns of any name."""

from __future__ import annotations

import os
import random
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest

from knnkit.data.collected import Columns, FieldRow, change_label, merge, read
from knnkit.errors import DataError, UsageError

PLANTS = Columns("plants", ("id", "label", "_id", "soil"), ("soil",))


def row(name: str, draw: random.Random) -> FieldRow:
    answers = ("k0", draw.random()) if draw.random() < 0.7 else (None, None)
    cells = (draw.random(), None, 5.1, draw.choice(["sand", None, "loam \u00e9,\"'"]))
    return FieldRow(name, "board-1", draw.randrange(2**40), "random", None, *answers, "d" * 64, cells)


def give(path: Path, name: str, label: str | None) -> None:
    before = next(each.label for each in read(path).rows if each.id == name)
    assert change_label(path, name, before, label) == label


@pytest.mark.parametrize("seed", range(3))
def test_the_file_holds_what_a_dictionary_would(seed: int, tmp_path: Path) -> None:
    draw, path = random.Random(seed), tmp_path / "plants.parquet"
    wanted: dict[str, FieldRow] = {}
    assert merge(path, PLANTS, []) == 0
    for _ in range(60):
        if wanted and draw.random() < 0.6:
            name, label = draw.choice(sorted(wanted)), draw.choice(["k1", "n\u00e9w", "5", None])
            give(path, name, label)
            wanted[name] = replace(wanted[name], label=label)
        else:
            rows = [row(f"{draw.randrange(30)}", draw) for _ in range(draw.randrange(4))]
            new = {each.id: each for each in reversed(rows) if each.id not in wanted}
            assert merge(path, PLANTS, rows) == len(new)
            wanted |= {each.id: each for each in rows if new.get(each.id) is each}
        if path.exists():
            assert {each.id: each for each in read(path).rows} == wanted
            assert (read(path).columns, stat.S_IMODE(path.stat().st_mode)) == (PLANTS, 0o600)


def test_a_crash_while_a_label_is_written_loses_that_label_alone(tmp_path: Path) -> None:
    path, draw = tmp_path / "plants.parquet", random.Random(1)
    merge(path, PLANTS, [row("a", draw), row("b", draw)])
    give(path, "a", "k1")
    journal = next(tmp_path.glob("*.jsonl"))
    first = journal.read_bytes()
    give(path, "b", "k2")
    whole = journal.read_bytes()
    for cut in range(len(first), len(whole)):
        journal.write_bytes(whole[:cut])
        assert [each.label for each in read(path).rows] in (["k1", None], ["k1", "k2"])
        give(path, "b", "k3")
        assert [each.label for each in read(path).rows] == ["k1", "k3"]


def test_what_is_written_is_private_and_on_the_disk_before_it_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced, fsync = tmp_path / "plants.parquet", list[str](), os.fsync

    def note(descriptor: int) -> None:
        mode = os.fstat(descriptor).st_mode
        synced.append("folder" if stat.S_ISDIR(mode) else f"{stat.S_IMODE(mode):o}")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    merge(path, PLANTS, [row("a", random.Random(4))])
    give(path, "a", "k1")
    assert synced == ["600", "folder", "600", "folder"]


def test_other_files_and_other_columns_are_refused_and_stay(tmp_path: Path) -> None:
    path = tmp_path / "plants.parquet"
    with pytest.raises(UsageError, match="no such file"):
        read(path)
    merge(path, PLANTS, [row("a", random.Random(2))])
    before = path.read_bytes()
    with pytest.raises(DataError, match="other columns"):
        merge(path, replace(PLANTS, names=("id", "label", "_id", "clay")), [row("b", random.Random(3))])
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["noise", "empty", "cut", "a folder", "another table"])
def test_the_hint_for_a_damaged_file_lets_rows_come_home_again(kind: str, tmp_path: Path) -> None:
    path, rows = tmp_path / "the plants.parquet", [row("a", random.Random(2))]
    merge(path, PLANTS, rows)
    whole = path.read_bytes()
    path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind == "another table":
        pyarrow.parquet.write_table(pyarrow.table({"id": ["a"]}), path)
    else:
        path.write_bytes({"noise": b"PAR1" + os.urandom(100), "empty": b"", "cut": whole[:-9]}[kind])
    said = "is not an ordinary file" if kind == "a folder" else "is not a file of knnkit collect"
    with pytest.raises(UsageError, match=said) as caught:
        read(path)
    assert "name a .parquet file" in caught.value.hint
    assert "NoneType" not in str(caught.value)
    with pytest.raises(UsageError) as caught:
        merge(path, PLANTS, rows)
    subprocess.run(caught.value.hint.partition(",")[0], shell=True, check=True)
    assert merge(path, PLANTS, rows) == 1


def test_a_wrong_file_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "fruit-clean.parquet").touch()
    with pytest.raises(UsageError) as error:
        read(tmp_path / "fruit.parquet")
    assert error.value.hint == "did you mean fruit-clean.parquet?"
