"""Fixtures of the model suite: TensorFlow is in this process, the device is in one of its own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest
from device_process import DeviceProcess

with warnings.catch_warnings():  # TensorFlow's own imports warn about themselves
    warnings.simplefilter("ignore")
    import tensorflow  # noqa: F401


@pytest.fixture(scope="session")
def device() -> Iterator[DeviceProcess]:
    with DeviceProcess() as process:
        yield process
