"""Entry point of `python -m knnkit` and of `knnkit`.

Until the command line handles signals, Ctrl-C ends the process at once: Python would print a traceback of its imports.
"""

import _signal  # type: ignore[import-not-found]  # the C part of `signal`, which loads no further modules
import sys

_signal.signal(_signal.SIGINT, _signal.SIG_DFL)

from knnkit.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
