"""Parts of NumPy that load at their first use.

NumPy 1.26 loads all its parts when it is imported. Three that the agent hardly uses take a quarter of that time.
NumPy 2 leaves them out by itself.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

_LATE = ("numpy.ma", "numpy.polynomial", "numpy.random")


class _Late(ModuleType):
    """Stands for a module that is loaded when one of its attributes is used."""

    def __getattr__(self, attribute: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), attribute)


def load_late() -> None:
    """Makes the import of NumPy leave out its seldom used parts; does nothing if NumPy is loaded."""
    if "numpy" not in sys.modules:
        sys.modules.update({name: _Late(name) for name in _LATE})
