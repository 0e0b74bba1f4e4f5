"""NumPy's products use the kernels of the processor, and never ones that it cannot run."""

from __future__ import annotations

import os
from pathlib import Path

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
