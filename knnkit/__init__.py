"""knnkit: a k-nearest-neighbours classifier on a fleet of small devices, with proof that every device answers as the
host does."""

from device_agent import __version__ as __version__
