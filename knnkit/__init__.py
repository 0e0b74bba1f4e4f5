"""knnkit: a k-nearest-neighbours classifier on a fleet of small devices, with proof that every device answers as the
host does."""

from __future__ import annotations

from device_agent import __version__ as __version__

TYPE_CHECKING = False  # as type checkers know it: `typing` would be loaded before a signal is heard
if TYPE_CHECKING:
    from typing import Any

__all__ = ["__version__", "from_sklearn", "from_skops"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: a model is built on one machine, and knnkit runs on many.
    if name in ("from_sklearn", "from_skops"):
        from knnkit.training import sklearn_importer

        return getattr(sklearn_importer, name)
    raise AttributeError(f"module 'knnkit' has no attribute {name!r}")
