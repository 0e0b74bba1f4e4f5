"""Nearest-neighbour classifiers on a fleet of small devices.

With proof that every device answers as the host does."""

from __future__ import annotations

from device_agent import __version__ as __version__

TYPE_CHECKING = False  # type checkers take it as True; to import `typing` takes time, in which signals are not handled
if TYPE_CHECKING:
    from knnkit.api import TfKNN as TfKNN
    from knnkit.api import from_sklearn as from_sklearn
    from knnkit.api import from_skops as from_skops

__all__ = ["TfKNN", "__version__", "from_sklearn", "from_skops"]


def __getattr__(name: str) -> object:
    # Imported at first use: most commands do not build a model.
    if name in __all__:
        from knnkit import api

        return getattr(api, name)
    raise AttributeError(f"module 'knnkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
