"""A build warns of a sequence after which the numbers that builds get by themselves are refused."""

from __future__ import annotations

import dataclasses
import time

import pytest
from support import forge

from knnkit.release import build

DAY = 24 * 3600


@pytest.mark.parametrize("sequence", [1, 20_261_129, int(time.time()), int(time.time()) + DAY - 600])
def test_a_sequence_that_the_clock_reaches_soon_is_no_warning(sequence: int) -> None:
    assert build._far_ahead(dataclasses.replace(forge.MANIFEST, created=0, sequence=sequence)) == ()


@pytest.mark.parametrize("sequence", [int(time.time()) + 2 * DAY, 20_261_129_01, 2**53 - 1])
def test_a_sequence_far_ahead_names_the_next_one(sequence: int) -> None:
    (said,) = build._far_ahead(dataclasses.replace(forge.MANIFEST, created=0, sequence=sequence))
    assert f"release.sequence: {sequence + 1}" in said


def test_a_pinned_clock_in_the_future_is_a_clock() -> None:
    later = int(time.time()) + 300 * DAY
    assert build._far_ahead(dataclasses.replace(forge.MANIFEST, created=later, sequence=later)) == ()
