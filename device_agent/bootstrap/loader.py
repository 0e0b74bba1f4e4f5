"""Imports modules from their sources in memory. The head of the script that a board runs; the rest is what it loads.

A traceback names the file and the line that a module has in knnkit. Writes nothing, compiled modules neither.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from types import ModuleType


class Loader:
    """Finds and loads the modules whose sources it has, by their full names."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self.sources = sources

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Returns None for every module that is not its own."""
        if name not in self.sources:
            return None
        # Not by inheritance: importlib.abc imports a lot, and starts slowly.
        return ModuleSpec(name, self, is_package=self.is_package(name))  # type: ignore[arg-type]

    def is_package(self, name: str) -> bool:
        """Returns whether it has modules of that one."""
        return any(other.startswith(name + ".") for other in self.sources)

    def create_module(self, spec: ModuleSpec) -> None:
        """Leaves it to Python: an ordinary one will do."""

    def exec_module(self, module: ModuleType) -> None:
        """Fills a module that has just been made."""
        name = module.__name__
        file = name.replace(".", "/") + ("/__init__.py" if self.is_package(name) else ".py")
        exec(compile(self.sources[name], file, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - knnkit's own

    def get_source(self, name: str) -> str:
        """Returns a module's text: newer Pythons show its lines in tracebacks."""
        return self.sources[name]


def run(sources: Mapping[str, str], program: str, *order: str) -> int:
    """Returns the exit code of `program`, a module among the sources, for the arguments of this process and `order`."""
    sys.meta_path.insert(0, Loader(sources))  # first: this Python may have a knnkit of its own
    return int(importlib.import_module(program).main(*sys.argv[1:], *order))
