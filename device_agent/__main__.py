"""`python -m device_agent`. Looks for garbage seldom and ends without taking Python apart: a quarter of `status`."""

import _signal  # type: ignore[import-not-found]  # what `signal` is made of, without the modules that it loads
import gc
import sys

_signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # while nothing is begun, there is nothing to say
# What is loaded stays: as often as Python would have it, a tenth of the time goes into looking.
gc.set_threshold(20_000)
# The folder that it is started in, such as the login's, is none of its modules' but in a clone: json.py may lie there.
_isolated = sys.flags.isolated or getattr(sys.flags, "safe_path", False)
if sys.argv[0] == __file__ and not _isolated and sys.path[0] != __file__.rpartition("/device_agent/")[0]:
    del sys.path[0]

from device_agent.cli import main  # noqa: E402
from device_agent.shared.console import signals  # noqa: E402

signals.end(main())
