"""`python -m device_agent`. Looks for garbage seldom and ends without taking Python apart: a quarter of `status`."""

import _signal  # type: ignore[import-not-found]  # what `signal` is made of, without the modules that it loads
import gc

_signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # while nothing is begun, there is nothing to say
# What is loaded stays: as often as Python would have it, a tenth of the time goes into looking.
gc.set_threshold(20_000)

from device_agent import interrupts  # noqa: E402
from device_agent.cli import main  # noqa: E402

interrupts.end(main())
