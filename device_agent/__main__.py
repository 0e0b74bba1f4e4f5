"""`python -m device_agent`. Looks for garbage seldom and ends without taking Python apart: a quarter of `status`."""

import contextlib
import gc
import os
import sys

# What is loaded stays: as often as Python would have it, a tenth of the time goes into looking.
gc.set_threshold(20_000)

from device_agent.cli import main  # noqa: E402

code = main()
for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError, ValueError):
        stream.flush()
os._exit(code)
