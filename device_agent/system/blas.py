"""Kernels and threads of NumPy's matrix products.

OpenBLAS computes NumPy's matrix products. When NumPy is imported, it reads from the environment how many threads and
which kernels (code for one kind of processor) to use.
"""

from __future__ import annotations

import os
from pathlib import Path

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
