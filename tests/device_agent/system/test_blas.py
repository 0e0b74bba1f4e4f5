"""NumPy's products use the kernels of the processor, and never ones that it cannot run; threads share work."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agent.system import blas

_AVX512 = "avx512f avx512dq avx512cd avx512bw avx512vl"


@pytest.mark.parametrize(
    ("flags", "kernels"),
    [
        (f"fpu sse2 fma avx2 {_AVX512} amx_tile", "SkylakeX"),
        ("fpu sse2 fma avx2 avx512f avx512cd", "Haswell"),  # a Xeon Phi has a part of AVX-512
        ("fpu sse2 fma avx2", "Haswell"),
        ("fpu sse2 avx2_vnni avx", None),
        ("", None),
    ],
)
def test_kernels_fit_the_processor(
    flags: str, kernels: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: any\nflags\t\t: {flags}\nbugs\t\t: avx2 fma\n")
    monkeypatch.setattr(os, "environ", {})
    blas.prepare(3, str(tmp_path / "cpuinfo"))
    assert (os.environ.get("OPENBLAS_CORETYPE"), os.environ["OPENBLAS_NUM_THREADS"]) == (kernels, "3")


def test_the_environment_comes_first_and_other_boards_have_no_such_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd\nflags\t\t: fma avx2\n")
    for name in ("cpuinfo", "missing"):
        blas.prepare(1, str(tmp_path / name))
    assert (os.environ["OPENBLAS_CORETYPE"], os.environ["OPENBLAS_NUM_THREADS"]) == ("Nehalem", "2")


def test_threads_share_turns_and_products_take_one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    used, turns, both = [2], iter(range(100)), threading.Barrier(3, timeout=30)
    monkeypatch.setattr(blas, "_openblas", lambda: (lambda: used[-1], used.append))

    def work() -> tuple[int, list[int]]:
        both.wait()
        assert used[-1] == 1
        return threading.get_ident(), list(turns)

    found, before = blas.in_threads(3, work), threading.active_count()
    assert found[0][0] == threading.get_ident()
    assert len({thread for thread, _ in found}) == 3
    assert sorted(turn for _, some in found for turn in some) == [*range(100)]
    assert used == [2, 1, 2]
    assert threading.active_count() == before


@pytest.mark.parametrize("caller", [True, False])
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_no_thread_outlives_an_error(caller: bool, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    used, both, ended, own = [2], threading.Barrier(2, timeout=30), [], threading.get_ident()
    monkeypatch.setattr(blas, "_openblas", lambda: (lambda: used[-1], used.append))

    def work() -> None:
        both.wait()
        if (threading.get_ident() == own) is caller:
            raise kind("stop")
        ended.append(True)

    before = threading.active_count()
    with pytest.raises(kind, match="stop"):
        blas.in_threads(2, work)
    assert ended == [True]
    assert used == [2, 1, 2]
    assert threading.active_count() == before
    assert blas.in_threads(1, lambda: "next") == ["next"]


def test_a_system_without_a_thread_to_spare_has_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    def submit(*ignored: Any) -> Any:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit)
    turns = iter(range(5))
    assert blas.in_threads(4, lambda: list(turns)) == [[0, 1, 2, 3, 4]]


def test_openblas_has_its_threads_back() -> None:
    """The wheels of NumPy have an OpenBLAS; a distribution's NumPy may have another library."""
    number, _ = blas._openblas()
    before = number()
    rows = np.ones((300, 300), np.float32)
    assert [int((rows @ rows).sum()) for _ in range(2)] == blas.in_threads(2, lambda: int((rows @ rows).sum()))
    during = blas.in_threads(2, number)
    assert during == [1, 1]
    assert number() == before
