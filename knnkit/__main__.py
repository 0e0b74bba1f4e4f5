"""`python -m knnkit`."""

import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)  # while nothing is begun, there is nothing to say

from knnkit.cli import main  # noqa: E402

sys.exit(main())
