"""The import graph of knnkit and device_agent, parsed from the sources.

Nothing is imported, so an import inside a function or under TYPE_CHECKING counts as well. `Code.of` reads the clone;
`Code.mutant` adds lines to one module, to show that a rule fails when somebody breaks it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

PACKAGES = ("knnkit", "device_agent")


@dataclass(frozen=True)
class Import:
    """One import: `at_load` if it runs as soon as its module is loaded, `typing` if only type checkers see it."""

    source: str
    target: str
    line: int
    at_load: bool
    typing: bool

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


@dataclass(frozen=True)
class Code:
    """Module name -> source text."""

    sources: Mapping[str, str]
    packages: frozenset[str] = field(default=frozenset())

    @classmethod
    def of(cls, root: Path) -> Code:
        """Reads both packages of a clone."""
        sources, packages = {}, set()
        for package in PACKAGES:
            for path in sorted((root / package).rglob("*.py")):
                parts = path.relative_to(root).with_suffix("").parts
                name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
                sources[name] = path.read_text(encoding="utf-8")
                if parts[-1] == "__init__":
                    packages.add(name)
        return cls(sources, frozenset(packages))

    def mutant(self, module: str, *lines: str) -> Code:
        """Returns the same code with `lines` at the end of one module, which may be new."""
        text = "\n".join([self.sources.get(module, ""), *lines, ""])
        return Code({**self.sources, module: text}, self.packages)

    @cached_property
    def trees(self) -> dict[str, ast.Module]:
        """Module name -> syntax tree."""
        return {name: _parse(text) for name, text in self.sources.items()}

    @cached_property
    def imports(self) -> list[Import]:
        """Every import of both packages."""
        modules = frozenset(self.sources)
        return [i for name, text in self.sources.items() for i in _imports(name, text, modules)]

    @cached_property
    def edges(self) -> dict[str, set[str]]:
        """Module -> modules of ours that it imports, wherever the import stands."""
        edges: dict[str, set[str]] = {name: set() for name in self.sources}
        for i in self.imports:
            if i.target in edges and i.target != i.source:
                edges[i.source].add(i.target)
        return edges


@cache
def _parse(text: str) -> ast.Module:
    return ast.parse(text)


@cache
def _imports(name: str, text: str, modules: frozenset[str]) -> list[Import]:
    return [
        Import(name, target, getattr(node, "lineno", 0), at_load, typing)
        for node, at_load, typing in _walk(_parse(text), True, False)
        for target in dict.fromkeys(_targets(node, modules))
    ]


def _targets(node: ast.AST, modules: frozenset[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        names = [(f"{base}.{alias.name}", alias.name) for alias in node.names]
        # The version is a constant of the package and loads nothing.
        return [full if full in modules or name == "__version__" else base for full, name in names]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return [str(node.args[0].value)] if function in ("import_module", "__import__") else []
    return []


def _walk(node: ast.AST, at_load: bool, typing: bool) -> Iterator[tuple[ast.AST, bool, bool]]:
    for child in ast.iter_child_nodes(node):
        checked = typing or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test))
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        inside = at_load and not checked and not function
        yield child, inside, checked
        yield from _walk(child, inside, checked)


def within(module: str, rooms: str | Iterable[str]) -> bool:
    """Whether `module` is one of `rooms`, or lies in one."""
    return any(
        module == room or module.startswith(room + ".") for room in ([rooms] if isinstance(rooms, str) else rooms)
    )


def top(module: str) -> str:
    """Returns the package that a module belongs to."""
    return module.split(".")[0]


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Returns the strongly connected components of more than one node (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            members = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(members) > 1:
                found.append(sorted(members))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found
