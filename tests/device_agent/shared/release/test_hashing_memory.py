"""A release is hashed as it lies on the disk, never read into memory."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

from support import forge

from device_agent.shared.protocol import constants


def test_a_release_of_188_mb_is_verified_in_less_than_2_mib_of_memory(tmp_path: Path) -> None:
    release = forge.write(tmp_path / "release")
    os.truncate(release / constants.MODEL_FILE, 188_402_904)
    forge.sign(release)
    tracemalloc.start()
    try:
        forge.verify(release)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * 2**20
