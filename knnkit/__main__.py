"""Entry point of `python -m knnkit` and of `knnkit`.

Ctrl-C during the imports ends the process at once, without Python's traceback; then the command line handles signals.
"""

import _signal  # type: ignore[import-not-found]  # the C part of `signal`, which loads no further modules
import sys

_signal.signal(_signal.SIGINT, _signal.SIG_DFL)

from knnkit.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
