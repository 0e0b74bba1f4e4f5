"""Output of a program under the different kernels that a BLAS chooses by processor and threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_MACHINES = ({"OPENBLAS_NUM_THREADS": "1"}, {"OPENBLAS_NUM_THREADS": "2"}, {"OPENBLAS_CORETYPE": "Prescott"})


def said_on_each(program: str) -> set[bytes]:
    """Returns the different outputs of a Python program, whose first argument is this clone; one if all agree."""
    command = [sys.executable, "-c", program, str(ROOT)]
    return {
        subprocess.run(command, env={**os.environ, **machine}, check=True, capture_output=True).stdout
        for machine in _MACHINES
    }
