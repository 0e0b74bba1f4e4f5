"""`python -m knnkit`."""

import sys

from knnkit.cli import main

sys.exit(main())
