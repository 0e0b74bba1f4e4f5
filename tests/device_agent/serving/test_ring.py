"""Rows kept for people to label: the right ones, bounded, private, and whole after a kill at any byte."""

from __future__ import annotations

import itertools
import json
import random
import stat
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.device import Device
from support.device_stream import Stream
from support.releases import Releases

from device_agent.inference.tflite_knn import Answers, TfliteKNN
from device_agent.serving.ring import Ring
from device_agent.shared.features.coder import Coder, collapse
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import Keep
from device_agent.shared.raw_rows import raw_parser
from device_agent.shared.release.model_file import read_info
from device_agent.store import ring_file

KEEP = Keep(unknown=5, uncertain=4, random=6)


@pytest.fixture
def device(tmp_path: Path, releases: Releases) -> Device:
    made = Device(tmp_path / "root", releases)
    made.install(releases["watched"])
    return made


def some_rows(count: int, seed: int) -> list[str]:
    """Rows between and around the three classes, so that each kind occurs."""
    draw = random.Random(seed)
    return [
        json.dumps({
            "length": round(draw.uniform(-2, 9), 3), "width": round(draw.uniform(-1, 3), 3),
            "soil": draw.choice(["sand", "clay", "loam \u00e9", "gravel"]), "size": draw.choice(["small", "large"]),
        })
        for _ in range(count)
    ]  # fmt: skip


def expected(releases: Releases, lines: list[str]) -> dict[str, list[list[Any]]]:
    """The rows that each kind must hold, written again from the definition."""
    model = TfliteKNN(releases["watched"] / constants.MODEL_FILE)
    info = model.info
    assert info.reject is not None
    assert info.keep == KEEP
    answers = model.classify(raw_parser(info).parse("".join(f"{line}\n" for line in lines).encode()).rows)
    found: dict[str, list[list[Any]]] = {"unknown": [], "uncertain": []}
    for line, label, shares, distances in zip(lines, answers.label, answers.probabilities, answers.distances):
        row = [None if cell == "gravel" else cell for cell in json.loads(line).values()]
        second, first = sorted(shares.tolist())[-2:]
        if label < 0:
            found["unknown"].append(row)
        elif first - second < 2 / 3 - 1e-5 or distances[-1] >= 0.9 * info.reject.thresholds[label]:
            found["uncertain"].append(row)
    assert min(map(len, found.values())) > 5, "each kind occurs"
    return {kind: rows[-KEEP.sizes[kind] :] for kind, rows in found.items()}


def listed(device: Device) -> list[dict[str, Any]]:
    said = device.run("ring", "--json")
    assert said.code == 0, said.err
    return [json.loads(line) for line in said.out.splitlines()]


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_the_ring_holds_the_newest_rows_of_each_kind(stream: list[str], device: Device, releases: Releases) -> None:
    lines = some_rows(900, 1)
    rest = [Path(device.root / "in.jsonl")]
    rest[0].write_text("".join(f"{line}\n" for line in lines))
    said = device.run("classify", "--input", rest[0], *stream, "--output-format", "jsonl")
    assert said.code == 0, said.err
    found = listed(device)
    wanted = expected(releases, lines)
    for kind, rows in wanted.items():
        assert [entry["row"] for entry in found if entry["kind"] == kind] == rows
    drawn = [entry["row"] for entry in found if entry["kind"] == "random"]
    assert len(drawn) == KEEP.random
    every = [[None if cell == "gravel" else cell for cell in json.loads(line).values()] for line in lines]
    assert all(row in every for row in drawn)
    answers = {tuple(row): json.loads(answer)["label"] for row, answer in zip(every, said.out.splitlines())}
    assert all(entry["answer"] == answers[tuple(entry["row"])] for entry in found)
    assert {entry["digest"] for entry in found} == {device.run("status", "--json").document["answering"]}
    assert stat.S_IMODE((device.root / constants.RING_FILE).stat().st_mode) == 0o600
    columns = json.loads(device.run("ring", "--columns", "--json").out)
    assert (columns["columns"], columns["categories"]) == (["length", "width", "soil", "size"], ["soil", "size"])
    assert {entry["columns"] for entry in found} == {columns["fingerprint"]}
    assert "unknown" in device.run("ring").out


def test_a_release_without_keep_keeps_nothing(tmp_path: Path, releases: Releases) -> None:
    own = Device(tmp_path / "root", releases)
    own.install(releases["iris"])
    assert own.run("classify", input="1,2,3,4\n").code == 0
    assert not (own.root / constants.RING_FILE).exists()
    assert listed(own) == []
    assert own.run("ring", "--wipe").out == "0 rows are removed\n"


def test_wiped_rows_do_not_come_back_from_a_running_stream(device: Device) -> None:
    lines = some_rows(50, 2)
    with Stream(device) as stream:
        for line in lines:
            stream.ask(line)
        assert device.run("ring", "--wipe", "--json").code == 0
        stream.finish()
    assert listed(device) == []
    assert device.run("classify", input="".join(f"{line}\n" for line in lines)).code == 0
    assert listed(device), "the next process keeps rows again"
    both = device.run("forget", "--ring", "--all")
    assert (both.code, "--ring cannot be combined with other options" in both.err) == (constants.EXIT_USAGE, True)
    assert device.run("forget", "--ring").code == 0
    assert listed(device) == []


@pytest.mark.parametrize("what", [Path.mkdir, lambda path: path.symlink_to("/dev/null"), lambda path: path.touch()])
def test_what_lies_in_the_rings_place_stops_no_answer(what: Any, device: Device) -> None:
    what(device.root / constants.RING_FILE)
    said = device.run("classify", input=some_rows(1, 3)[0] + "\n")
    assert (said.code, len(said.out.splitlines())) == (0, 1)


class Book:
    """What the file must hold, written again as plainly as possible."""

    def __init__(self) -> None:
        self.newest: dict[str, list[str]] = {"unknown": [], "uncertain": []}
        self.seats: dict[int, str] = {}

    def add(self, entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            if entry["kind"] == "random":
                self.seats[entry["seat"]] = entry["id"]
            else:
                there = self.newest[entry["kind"]]
                there[:] = [id for id in there if id != entry["id"]] + [entry["id"]]
                del there[: -KEEP.sizes[entry["kind"]]]

    def __eq__(self, found: object) -> bool:
        assert isinstance(found, list)
        newest = {kind: [entry["id"] for entry in found if entry["kind"] == kind] for kind in self.newest}
        seats = {entry["seat"]: entry["id"] for entry in found if entry["kind"] == "random"}
        return (newest, seats) == (self.newest, self.seats)

    __hash__ = None  # type: ignore[assignment]


def some_entries(draw: random.Random, time: int) -> list[dict[str, Any]]:
    kinds = draw.choices(["unknown", "uncertain", "random"], k=draw.randrange(4))
    return [
        {"id": f"{draw.randrange(12):x}", "kind": kind, "time": time, "answer": "a", "distance": 1.0, "digest": "d"}
        | {"row": [draw.random(), "\u00e9"]} | ({"seat": draw.randrange(6)} if kind == "random" else {})
        for kind in kinds
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_the_file_holds_what_a_list_in_memory_would(seed: int, tmp_path: Path) -> None:
    draw, book, path = random.Random(seed), Book(), tmp_path / "ring"
    generation, _ = ring_file.begin(path, KEEP)
    largest = 0
    for step in range(400):
        if draw.random() < 0.01:
            assert ring_file.wipe(path) == sum(map(len, book.newest.values())) + len(book.seats)
            assert not ring_file.add(path, generation, KEEP, some_entries(draw, step), step)
            book = Book()
            generation, seen = ring_file.begin(path, KEEP)
            assert seen == 0
        else:
            entries = some_entries(draw, step)
            assert ring_file.add(path, generation, KEEP, entries, step)
            book.add(entries)
            assert ring_file.begin(path, KEEP) == (generation, step)
        assert book == ring_file.read(path)
        largest = max(largest, path.read_bytes().count(b"\n"))
    assert largest <= 2 * (sum(KEEP.sizes.values()) + 8), "the file is bounded"


def test_a_file_cut_at_any_byte_is_read_and_continued(tmp_path: Path) -> None:
    path, draw = tmp_path / "ring", random.Random(4)
    generation, _ = ring_file.begin(path, KEEP)
    for step in range(6):
        ring_file.add(path, generation, KEEP, some_entries(draw, step), step)
    whole = path.read_bytes()
    rows = ring_file.read(path)
    head = whole.index(b"\n") + 1
    new = [{"id": "new", "kind": "unknown", "time": 9, "answer": "a", "distance": 1.0, "row": [1.0], "digest": "d"}]
    for cut in (*range(head + 1), *draw.sample(range(len(whole)), 40), *range(len(whole) - 40, len(whole))):
        path.write_bytes(whole[:cut])
        assert all(row in rows or row["kind"] == "random" for row in ring_file.read(path))
        found, _ = ring_file.begin(path, KEEP)
        assert (found == generation) == (cut >= head - 1)
        assert ring_file.add(path, found, KEEP, new, 9)
        assert ring_file.read(path)[-1]["id"] == "new" or any(row["id"] == "new" for row in ring_file.read(path))
        assert all(json.loads(line) for line in path.read_bytes().splitlines()[-2:])


def test_a_damaged_line_counts_for_nothing_and_stops_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    good = {"id": "1", "kind": "random", "time": 1, "answer": 1, "distance": 1.0, "row": [1], "digest": "d", "seat": 0}
    generation, _ = ring_file.begin(path, KEEP)
    ring_file.add(path, generation, KEEP, [good], 1)
    wrong = [{**good, key: value} for key in good for value in ([], {}, None)]
    lines = [json.dumps(each) for each in wrong if each["row"] != []]
    lines += [json.dumps({**good, "row": [number]}).replace('"1e999"', "1e999") for number in (np.nan, "1e999")]
    with path.open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))
    assert ring_file.read(path) == [good]
    for step in range(60):  # the file is written again
        assert ring_file.add(path, generation, KEEP, [good], step)
    assert ring_file.read(path) == [good]


def test_processes_that_write_at_the_same_time_lose_no_row(tmp_path: Path) -> None:
    path, keep = tmp_path / "ring", Keep(unknown=150)
    generation, _ = ring_file.begin(path, keep)

    def work(name: str) -> None:
        for number in range(50):
            entry = {"id": f"{name}{number}", "kind": "unknown", "time": number, "row": [1.0] * 40}
            entry |= {"answer": "a", "distance": 1.0, "digest": "d"}
            assert ring_file.add(path, generation, keep, [entry], 0)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({row["id"] for row in ring_file.read(path)}) == 150


def test_each_row_is_as_likely_to_be_in_the_sample(tmp_path: Path, releases: Releases) -> None:
    info = read_info(releases["iris"] / constants.MODEL_FILE)
    counts: Counter[float] = Counter()
    for repeat in range(200):
        path = tmp_path / str(repeat)
        for parts in ((0, 3, 10), (10, 17, 30), (30, 31, 40)):  # three processes, each with two blocks
            ring = Ring(path, info, Keep(random=5), "d")
            for part in itertools.starmap(range, itertools.pairwise(parts)):
                rows = np.array([[number] * 4 for number in part], np.float32)
                ones = np.ones((len(part), 1), np.float32)
                ring.note(rows, Answers(np.zeros(len(part), np.int32), ones, ones, ones))
            ring.save()
        found = [row["row"][0] for row in ring_file.read(path)]
        assert len(found) == 5
        counts.update(found)
    assert len(counts) == 40
    assert all(abs(count - 25) < 6 * 25**0.5 for count in counts.values()), counts  # six standard deviations


def test_a_row_of_features_comes_back_as_it_was_read(releases: Releases) -> None:
    info = read_info(releases["watched"] / constants.MODEL_FILE)
    assert info.table is not None
    lines = [line.replace("gravel", "clay") for line in some_rows(50, 5)]
    parser = raw_parser(info)
    rows = parser.parse("".join(f"{line}\n" for line in lines).encode()).rows
    cells = [collapse(info.table.columns, [float(str(value)) for value in row]) for row in rows]
    assert cells == [list(json.loads(line).values()) for line in lines]
    assert Coder(info.table).names == ("length", "width", "soil", "size")
