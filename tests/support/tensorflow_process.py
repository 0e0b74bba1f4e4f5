"""Fixtures for a test process that has TensorFlow, with the device in a separate process.

A suite's conftest takes both with `from support.tensorflow_process import device`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

from support.device_process import DeviceProcess

with warnings.catch_warnings():  # TensorFlow's own imports warn about themselves
    warnings.simplefilter("ignore")
    import tensorflow

    tensorflow.lite.TFLiteConverter  # noqa: B018 (loads the converter, before `session` keeps what is loaded)


@pytest.fixture(scope="session")
def device() -> Iterator[DeviceProcess]:
    with DeviceProcess() as process:
        yield process
