"""`python -m device_agent`: fast start and exit of the agent."""

import _signal  # type: ignore[import-not-found]  # the C part of `signal`, which loads no further modules
import gc
import sys

_signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # Ctrl-C during the start ends the process without a traceback
# A full disk or a power cut can leave half a .pyc file, which ends each later start. Provisioning writes all of them.
sys.dont_write_bytecode = sys.dont_write_bytecode or "/site-packages/" in __file__
# Loaded modules are never garbage: at Python's default threshold, collection takes a tenth of the time of `status`.
gc.set_threshold(20_000)
# A json.py in the current folder must not shadow the standard library's. In a clone this folder holds the agent itself.
_isolated = sys.flags.isolated or getattr(sys.flags, "safe_path", False)
if sys.argv[0] == __file__ and not _isolated and sys.path[0] != __file__.rpartition("/device_agent/")[0]:
    del sys.path[0]

from device_agent.cli import main  # noqa: E402
from device_agent.shared.console import signals  # noqa: E402

signals.end(main())
