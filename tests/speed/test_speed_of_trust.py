"""What verifying costs, at every start and every activation: nothing for a small release, SHA-256 for a large one."""

from __future__ import annotations

import hashlib
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from support import forge

from device_agent import contract

#: The model of 60,000 rows of 784 features.
LARGE = 188_402_904


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    release = forge.write(tmp_path_factory.mktemp("large") / "release")
    os.truncate(release / contract.MODEL_FILE, LARGE)
    forge.sign(release)
    return release


def seconds(work: Callable[[], object]) -> float:
    """Processor time: the files are in memory, and other work on the machine does not count."""
    started = time.process_time()
    work()
    return time.process_time() - started


def test_a_small_release_is_verified_in_less_than_50_ms(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    release = forge.write(tmp_path / "release")
    best = min(seconds(lambda: forge.verify(release)) for _ in range(20))
    record_property("milliseconds", round(best * 1000, 2))
    assert best < 0.050


def test_a_large_release_is_verified_at_the_speed_of_sha256(
    large: Path, record_property: Callable[[str, object], None]
) -> None:
    data = (large / contract.MODEL_FILE).read_bytes()
    pairs = [(seconds(lambda: hashlib.sha256(data).digest()), seconds(lambda: forge.verify(large))) for _ in range(7)]
    raw, verified = min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)
    record_property("ratio", round(verified / raw, 3))
    assert verified < 1.5 * raw


def test_a_large_release_is_verified_in_little_memory(large: Path) -> None:
    tracemalloc.start()
    try:
        forge.verify(large)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * 2**20
