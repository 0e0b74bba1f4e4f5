"""A fixed few of the wild problems; `python tests/support/wild.py` goes on for as long as it is told to."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.device_process import DeviceProcess
from support.wild import solve


@pytest.mark.filterwarnings("ignore")  # scikit-learn's, about the data
@pytest.mark.parametrize("seed", range(12))
def test_a_wild_problem_is_answered_as_plain_float64_answers_it(
    seed: int, device: DeviceProcess, tmp_path: Path
) -> None:
    ended, wrong = solve(seed, device, tmp_path)
    assert wrong == []
    assert ended.startswith("answered"), "all of these can be built"
