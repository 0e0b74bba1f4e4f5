"""How much memory a model takes: when XNNPACK may hold copies of the weights, and that it does as it is told."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.releases import CREATED, Releases
from support.runtimes import TFLITE

from device_agent.inference.graph_selection import PACK_AFTER
from device_agent.inference.interpreter import Loader
from device_agent.inference.tflite_knn import TfliteKNN
from device_agent.lifecycle import check
from device_agent.lifecycle.check import answer_unpacked
from device_agent.serving.load import load_model
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.golden.judge import judge
from device_agent.shared.protocol import constants, model_info
from device_agent.shared.protocol.json_codec import MalformedDocument
from device_agent.shared.release.directory import open_release
from device_agent.shared.release.model_file import read_info
from device_agent.shared.trust import rules
from device_agent.store import trust_store
from device_agent.system import memory

MB = 1 << 20


@pytest.mark.parametrize(
    ("size", "available", "packs"),
    [
        (memory.SMALL, 0, True),  # small: packed wherever it is
        (memory.SMALL + 1, 4 * (memory.SMALL + 1), True),  # two copies take just half of what is free
        (memory.SMALL + 1, 4 * (memory.SMALL + 1) - 2, False),
        (180 * MB, 8 << 30, True),
        (180 * MB, 512 * MB, False),
        (180 * MB, None, True),  # the system does not say
    ],
)
def test_a_large_model_is_packed_where_half_of_the_free_memory_stays_free(
    size: int, available: int | None, packs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: available)
    assert memory.may_pack(size) is packs


def test_a_stream_packs_a_small_model_as_ever(releases: Releases) -> None:
    assert TfliteKNN(releases["digits"] / constants.MODEL_FILE, stream=True).runtime.delegate == "XNNPACK"


@pytest.mark.parametrize(
    ("meminfo", "found"),
    [
        ("MemTotal:        1014920 kB\nMemFree:  1 kB\nMemAvailable:     524288 kB\n", 512 * MB),
        ("MemTotal:        1014920 kB\n", None),  # a kernel before 3.14
        ("MemAvailable:\n", None),
        ("MemAvailable: plenty\n", None),
        (None, None),  # no /proc
    ],
)
def test_free_memory_is_what_the_kernel_says_or_not_known(
    meminfo: str | None, found: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_text(path: Path, **_: Any) -> str:
        if path != Path("/proc/meminfo") or meminfo is None:
            raise FileNotFoundError(path)
        return meminfo

    monkeypatch.setattr(Path, "read_text", read_text)
    assert memory.available_bytes() == found


def test_this_machine_says_how_much_is_free() -> None:
    found = memory.available_bytes()
    assert found is not None
    assert 0 < found < 1 << 50


@pytest.mark.parametrize(("packed", "delegate"), [(True, "XNNPACK"), (False, None)])
def test_xnnpack_runs_where_the_model_is_packed_and_nowhere_else(
    packed: bool, delegate: str | None, releases: Releases
) -> None:
    assert TfliteKNN(releases["digits"] / constants.MODEL_FILE, packed=packed).runtime.delegate == delegate


def test_what_is_not_said_is_decided_by_the_free_memory(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    path = releases["digits"] / constants.MODEL_FILE
    asked: list[int] = []

    def may_pack(weights: int) -> bool:
        asked.append(weights)
        return False

    monkeypatch.setattr(memory, "may_pack", may_pack)
    assert TfliteKNN(path).runtime.delegate is None
    assert asked == [path.stat().st_size]


@pytest.mark.parametrize(("quantized", "each"), [(None, 4), (64, 5)])
def test_a_projection_is_counted_with_its_eight_bits(
    quantized: int | None, each: int, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LiteRT packs both."""
    path = releases["spectra"] / constants.MODEL_FILE
    info = replace(read_info(path), searched=8, quantized=quantized)
    asked: list[int] = []
    monkeypatch.setattr("device_agent.inference.tflite_knn.read_info", lambda path: info)
    monkeypatch.setattr(memory, "may_pack", lambda weights: asked.append(weights) is None)
    TfliteKNN(path)
    assert asked == [each * 8 * info.n_train]


@pytest.fixture
def large(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> TfliteKNN:
    """A model that counts as large, with memory to spare."""
    monkeypatch.setattr(memory, "SMALL", 1000)
    monkeypatch.setattr(memory, "AT_ONCE", 1000)
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 50)
    return TfliteKNN(releases["digits"] / constants.MODEL_FILE)


def test_a_large_model_answers_at_once_and_is_packed_when_it_has_been_asked_enough(
    large: TfliteKNN, releases: Releases, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = Golden.from_bytes((releases["digits"] / constants.GOLDEN_FILE).read_bytes()).rows[: 2 * PACK_AFTER]
    answers, delegates = [], []
    for row in rows:
        answers.append(large.classify(row[None]))
        delegates.append(large.runtime.delegate)
    assert delegates == [None] * (PACK_AFTER - 1) + ["XNNPACK"] * (PACK_AFTER + 1)
    expected = TfliteKNN(releases["digits"] / constants.MODEL_FILE, packed=False).classify(rows)
    assert np.array_equal(np.concatenate([answer.label for answer in answers]), expected.label)
    assert np.array_equal(np.concatenate([answer.indices for answer in answers]), expected.indices)
    assert "XNNPACK" not in capfd.readouterr().err


@pytest.mark.parametrize("name", ["digits", "spectra"])
def test_a_model_over_4_mb_is_packed_after_its_first_rows(
    name: str, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "AT_ONCE", 1000)
    path = releases[name] / constants.MODEL_FILE
    model, rows = TfliteKNN(path), Golden.from_bytes((releases[name] / constants.GOLDEN_FILE).read_bytes()).rows
    delegates = []
    for row in rows[: PACK_AFTER + 1]:
        model.classify(row[None])
        delegates.append(model.runtime.delegate)
    assert delegates == [None] * (PACK_AFTER - 1) + ["XNNPACK"] * 2  # also where the search in eight bits answers
    assert TfliteKNN(path, stream=True).runtime.delegate == "XNNPACK"


def test_a_large_model_is_packed_for_a_batch(large: TfliteKNN, releases: Releases) -> None:
    rows = Golden.from_bytes((releases["digits"] / constants.GOLDEN_FILE).read_bytes()).rows
    large.classify(rows[: PACK_AFTER - 1])
    assert large.runtime.delegate is None
    large.neighbors(rows[:PACK_AFTER])
    assert large.runtime.delegate == "XNNPACK"


def test_a_large_model_is_not_packed_when_memory_has_become_short(
    large: TfliteKNN, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Golden.from_bytes((releases["digits"] / constants.GOLDEN_FILE).read_bytes()).rows
    monkeypatch.setattr(memory, "available_bytes", lambda: 0)
    before = large.classify(rows)
    assert large.runtime.delegate is None
    assert np.array_equal(large.classify(rows).indices, before.indices)


BOTH = pytest.mark.parametrize("runtime", TFLITE)


@BOTH
@pytest.mark.parametrize("packed", [True, False])
def test_candidates_are_searched_in_eight_bits_where_that_is_faster_or_memory_is_short(
    packed: bool, runtime: str, releases: Releases
) -> None:
    path = releases["spectra"] / constants.MODEL_FILE
    rows = Golden.from_bytes((releases["spectra"] / constants.GOLDEN_FILE).read_bytes()).rows
    model = TfliteKNN(path, runtime=runtime, packed=packed)
    assert (model.search == "quantized") is (runtime == "ai_edge_litert" or not packed)
    told, asked = TfliteKNN(path, search="full"), TfliteKNN(path, search="quantized", runtime=runtime, packed=packed)
    assert (told.search, asked.search) == ("full", "quantized")
    for rows_at_once in (rows, rows[:1]):
        expected = told.classify(rows_at_once)
        for answers in (model.classify(rows_at_once), asked.classify(rows_at_once)):
            assert np.array_equal(answers.label, expected.label)
            assert np.array_equal(answers.indices, expected.indices)
            assert np.allclose(answers.distances, expected.distances, rtol=1e-5, atol=1e-6)


def test_a_model_without_a_search_in_eight_bits_is_not_asked_for_one(releases: Releases) -> None:
    assert TfliteKNN(releases["iris"] / constants.MODEL_FILE, search="quantized").search == "full"


@BOTH
def test_single_rows_do_not_pack_what_is_as_fast_where_it_is_mapped(
    runtime: str, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "SMALL", 1000)
    monkeypatch.setattr(memory, "AT_ONCE", 1000)
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 50)
    model = TfliteKNN(releases["spectra"] / constants.MODEL_FILE, runtime=runtime)
    rows = Golden.from_bytes((releases["spectra"] / constants.GOLDEN_FILE).read_bytes()).rows
    assert model.search == "quantized"
    for row in rows[: PACK_AFTER + 1]:
        model.classify(row[None])
    assert model.runtime.delegate is None
    model.classify(rows[:PACK_AFTER])
    assert model.runtime.delegate == "XNNPACK"
    assert (model.search == "quantized") is (runtime == "ai_edge_litert")
    assert model.search_alone == "quantized"
    expected = TfliteKNN(model.path, search="full").classify(rows[:100])
    assert np.array_equal(model.classify(rows[:100]).indices, expected.indices)
    assert np.array_equal(np.concatenate([model.classify(row[None]).indices for row in rows[:100]]), expected.indices)


@pytest.mark.parametrize("name", ["iris", "digits", "wine", "spectra"])
def test_packed_or_not_the_answers_are_the_same(name: str, releases: Releases) -> None:
    folder = releases[name]
    rows = Golden.from_bytes((folder / constants.GOLDEN_FILE).read_bytes()).rows
    packed, mapped = (TfliteKNN(folder / constants.MODEL_FILE, packed=how) for how in (True, False))
    one, other = packed.classify(rows), mapped.classify(rows)
    assert np.array_equal(one.label, other.label)
    assert np.array_equal(one.indices, other.indices)
    assert np.allclose(one.distances, other.distances, rtol=1e-5, atol=1e-6)
    assert np.allclose(one.probabilities, other.probabilities, atol=1e-5)


@pytest.mark.parametrize("name", ["iris", "digits", "spectra"])
@pytest.mark.parametrize("threads", [2, 3])
def test_a_batch_that_is_divided_among_threads_has_the_same_answers(
    name: str, threads: int, releases: Releases
) -> None:
    folder = releases[name]
    rows = np.tile(Golden.from_bytes((folder / constants.GOLDEN_FILE).read_bytes()).rows, (5, 1))[:777]
    alone, together = (TfliteKNN(folder / constants.MODEL_FILE, num_threads=count) for count in (1, threads))
    for one, other in zip(alone.classify(rows), together.classify(rows)):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(("stream", "delegate"), [(False, "XNNPACK"), (True, None)])
def test_a_stream_leaves_the_copies_of_a_larger_model_out(
    stream: bool, delegate: str | None, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "SMALL", 1000)
    monkeypatch.setattr(memory, "AT_ONCE", 1000)
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 50)
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(open_release(releases["digits"]))
        model = load_model(opened, stream=stream)
        model.neighbors(np.zeros((PACK_AFTER, model.info.n_features), np.float32))
        assert model.runtime.delegate == delegate


def test_a_model_goes_with_its_last_user_and_does_not_wait_for_the_garbage(releases: Releases) -> None:
    gc.collect()
    gc.disable()
    try:
        model = TfliteKNN(
            releases["iris"] / constants.MODEL_FILE
        )  # labels of text: the first that is tried is a number
        model.classify(np.zeros((100, 4), np.float32))
        gone = weakref.ref(model)
        del model
        assert gone() is None
    finally:
        gc.enable()


def test_what_was_tried_in_vain_while_reading_is_not_kept(releases: Releases) -> None:
    gc.collect()
    gc.disable()
    try:
        read_info(releases["iris"] / constants.MODEL_FILE)
        assert [each for each in gc.get_objects() if isinstance(each, MalformedDocument)] == []
    finally:
        gc.enable()


def test_a_check_proves_the_unpacked_graph_too(releases: Releases) -> None:
    pytest.importorskip("tflite_runtime.interpreter")
    path = releases["spectra"] / constants.MODEL_FILE
    golden = Golden.from_bytes((releases["spectra"] / constants.GOLDEN_FILE).read_bytes())
    packed, mapped = TfliteKNN(path, packed=True, runtime=TFLITE[0]), TfliteKNN(path, packed=False)
    answers = packed.classify(golden.rows)
    assert all(np.array_equal(*pair) for pair in zip(answer_unpacked(mapped, packed, golden, answers), answers))

    class Wrong:
        """A stream whose graph gives every row the next class."""

        search_alone, runtime = mapped.search_alone, mapped.runtime

        def classify(self, rows: np.ndarray) -> Any:
            told = mapped.classify(rows)
            return told._replace(label=(told.label + 1) % 6)

    shown = answer_unpacked(Wrong(), packed, golden, answers)  # type: ignore[arg-type]
    assert 32 <= (shown.label != answers.label).sum() <= 64
    assert shown.label[0] != answers.label[0]
    info = read_info(path)
    assert judge(golden, answers, info, model_info.Gates()).different == 0
    assert judge(golden, shown, info, model_info.Gates()).different == (shown.label != answers.label).sum()


@pytest.mark.parametrize(("large", "loads"), [(False, 1), (True, 2)])
def test_a_large_model_is_also_checked_unpacked(
    large: bool, loads: int, releases: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(releases.public_key, tmp_path / "signing.pem")
    keys = trust_store.read(tmp_path).sets.keys
    monkeypatch.setattr(memory, "AT_ONCE", 1000 if large else memory.AT_ONCE)
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 50)
    asked: list[bool | None] = []

    def load(opened: Any, runtime: str, *, packed: bool | None = None) -> TfliteKNN:
        asked.append(packed)
        return load_model(opened, runtime, packed=packed)

    monkeypatch.setattr(check, "load_model", load)
    with open_release(releases["spectra"]) as opened:
        verdict = opened.verify(rules.TrustState(keys=keys), now=CREATED)
        certificate = check._certify(opened, verdict, "n", "auto", None, None, None)
    assert asked == [None, False][:loads]
    assert certificate.different == 0


def test_a_model_that_cannot_be_packed_any_more_goes_on_as_it_is(
    large: TfliteKNN, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Golden.from_bytes((releases["digits"] / constants.GOLDEN_FILE).read_bytes()).rows

    def fail(self: Any, packed: bool) -> Any:
        raise RuntimeError("no memory")

    monkeypatch.setattr(Loader, "load", fail)
    assert len(large.classify(rows).label) == len(rows)
    assert large.runtime.delegate is None


def test_of_a_model_that_verifying_read_from_the_disk_little_is_mapped_around_what_is_looked_at(
    releases: Releases, tmp_path: Path
) -> None:
    """A kernel that keeps what it read ahead in pieces of 2 MB maps each whole; where it keeps pages, nothing shows."""
    release = Path(shutil.copytree(releases["iris"], tmp_path / "release"))
    model = release / constants.MODEL_FILE
    with model.open("wb") as file:
        file.write(os.urandom(64 * MB))
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with open_release(release) as opened:
        path = opened.path(constants.MODEL_FILE)
        with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            _ = [mapped[place] for place in range(MB, 64 * MB, 2 * MB)]
            assert resident(str(model)) < 16 * MB


def resident(name: str) -> int:
    """Bytes of a mapped file that are in memory for this process."""
    part = Path("/proc/self/smaps").read_text().split(f"{name}\n", 1)[1]
    return int(part.split("Rss:", 1)[1].split()[0]) * 1024
