"""Kernels and threads of NumPy's matrix products.

OpenBLAS computes NumPy's matrix products. When NumPy is imported, it reads from the environment how many threads and
which kernels (code for one kind of processor) to use. `in_threads` starts threads of our own instead, which also share
what NumPy computes between products; OpenBLAS then computes each product in one thread.
"""

from __future__ import annotations

import _thread  # `threading` would take 1 ms of every command's start
import contextlib
import functools
import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

_T = TypeVar("_T")
_TURN = _thread.allocate_lock()
#: Names of OpenBLAS's functions: of Linux distributions, of the wheels of NumPy 1, and of NumPy 2.
_NAMES = ("openblas_{}_num_threads", "openblas_{}_num_threads64_", "scipy_openblas_{}_num_threads64_")

#: Kernels of OpenBLAS -> the processor features that they need; it does not check them. The fastest come first.
_KERNELS = {
    "SkylakeX": {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma"},
    "Haswell": {"avx2", "fma"},
}


def prepare(threads: int, features: str = "/proc/cpuinfo") -> None:
    """Sets threads and kernels of OpenBLAS in the environment, if not set there. Call it before NumPy is imported.

    On some newer processors, the OpenBLAS of NumPy 1.26 would use kernels for processors of 2004: a matrix product
    would take 4 times as long. `features` names a file whose line "flags: ..." lists what an x86 processor can do;
    without that line, only the threads are set.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", str(threads))
    try:
        with Path(features).open("rb") as file:
            line = file.read(1 << 13).partition(b"\nflags")[2].partition(b"\n")[0]
    except OSError:
        return
    found = {*line.decode("ascii", "replace").split()}
    for kernels, needed in _KERNELS.items():
        if needed <= found:
            os.environ.setdefault("OPENBLAS_CORETYPE", kernels)


def in_threads(threads: int, work: Callable[[], _T]) -> list[_T]:
    """Calls `work` in `threads` threads, one of them the caller's; returns each call's result, the caller's first.

    Meanwhile, OpenBLAS computes each product in one thread. No thread is left when this returns or raises; after Ctrl-C
    while it waits, a thread ends by itself. If the system can start no further thread, fewer do the work.
    """
    if threads == 1:
        return [work()]
    from concurrent.futures import ThreadPoolExecutor

    others = []
    with _TURN:  # the number is of the whole process: two callers could not both put it back
        number, change = _openblas()
        before = number()
        try:
            change(1)
            with ThreadPoolExecutor(threads - 1) as pool:  # waits for its threads
                with contextlib.suppress(RuntimeError):
                    for _ in range(threads - 1):
                        others.append(pool.submit(work))
                own = work()
        finally:
            change(before)
    return [own, *(other.result() for other in others)]


@functools.cache
def _openblas() -> tuple[Callable[[], int], Callable[[int], Any]]:
    """Returns the functions of NumPy's OpenBLAS that return and set its number of threads.

    For another BLAS, or without `ctypes`, returns functions that do nothing.
    """
    with contextlib.suppress(ImportError, OSError):
        import ctypes

        # A name is also looked for in the libraries that this one needs.
        library = ctypes.CDLL(importlib.import_module("numpy.linalg._umath_linalg").__file__)
        for name in _NAMES:
            if hasattr(library, name.format("set")):
                return getattr(library, name.format("get")), getattr(library, name.format("set"))
    return lambda: 1, lambda number: None
