"""Parts of NumPy that the agent hardly uses are loaded at their first use, and then are what they always are."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.device import ROOT

_PROGRAM = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from device_agent.system import numpy_parts
numpy_parts.load_late()
import numpy as np
assert not {{"numpy.ma.core", "numpy.random.mtrand", "numpy.polynomial.polynomial"}} & set(sys.modules)
USE
assert not isinstance(sys.modules["numpy.PART"], numpy_parts._Late)
import numpy.PART
assert np.PART is sys.modules["numpy.PART"]
"""


@pytest.mark.parametrize(
    ("part", "use"),
    [
        ("random", "assert 0.0 <= np.random.default_rng(0).random() < 1.0"),
        ("random", "from numpy.random import default_rng"),
        ("random", "import numpy.random.mtrand"),
        ("ma", "assert np.ma.array([1, 2], mask=[True, False]).sum() == 2"),
        ("polynomial", "assert np.polynomial.Polynomial([1, 2])(3) == 7"),
    ],
)
def test_a_part_of_numpy_is_loaded_where_it_is_used(part: str, use: str) -> None:
    program = _PROGRAM.replace("PART", part).replace("USE", use)
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_numpy_that_is_loaded_stays_as_it_is() -> None:
    import numpy as np

    from device_agent.system import numpy_parts

    numpy_parts.load_late()
    assert sys.modules["numpy.random"] is np.random
    assert not isinstance(np.random, numpy_parts._Late)
