"""The program itself: `python -m knnkit`, and the command `knnkit`. Whoever imports knnkit never comes here.

Until the command line takes the signals, Ctrl-C ends the process as it ends a process of the system: nothing is begun,
and there is nothing to say. Python would print where it was among its imports.
"""

import _signal  # type: ignore[import-not-found]  # what `signal` is made of, without the modules that it loads
import sys

_signal.signal(_signal.SIGINT, _signal.SIG_DFL)

from knnkit.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
