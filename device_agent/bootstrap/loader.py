"""Imports modules from sources in memory.

Begins the script that the host sends to a board; the modules to load follow it. Tracebacks show each module's file and
line in knnkit. Writes no file, not even compiled modules.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from types import ModuleType


class Loader:
    """Finds and loads the modules in `sources`, a mapping from full name to source text."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self.sources = sources

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Returns the spec of a module in `sources`; None for any other module."""
        if name not in self.sources:
            return None
        # Does not inherit from importlib.abc.Loader: importing that is slow.
        return ModuleSpec(name, self, is_package=self.is_package(name))  # type: ignore[arg-type]

    def is_package(self, name: str) -> bool:
        """Whether there are modules below this name."""
        return any(other.startswith(name + ".") for other in self.sources)

    def create_module(self, spec: ModuleSpec) -> None:
        """Returns None: Python then makes an ordinary module."""

    def exec_module(self, module: ModuleType) -> None:
        """Runs the source of a new module."""
        name = module.__name__
        file = name.replace(".", "/") + ("/__init__.py" if self.is_package(name) else ".py")
        exec(compile(self.sources[name], file, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - knnkit's own

    def get_source(self, name: str) -> str:
        """Returns a module's text: newer Pythons show its lines in tracebacks."""
        return self.sources[name]


def run(sources: Mapping[str, str], program: str, *request: str) -> int:
    """Calls `main` of the module `program`, which is one of `sources`, and returns the exit code.

    `main` gets the arguments of the process and `request`: the command's arguments as JSON.
    """
    sys.meta_path.insert(0, Loader(sources))  # first, since this Python may have knnkit installed
    return int(importlib.import_module(program).main(*sys.argv[1:], *request))
