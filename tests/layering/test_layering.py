"""Who may import whom. The sources are parsed, never imported, so that an import inside a function counts as well."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("knnkit", "device_agent")

#: What knnkit may take from the device side: only what both sides must agree on.
SHARED = {
    "device_agent.arrays",  # reads the arrays of a stranger's file for `inspect`
    "device_agent.archive",  # looks at a stranger's zip archive before it is opened
    "device_agent.cells",  # label maps on the device, lists in a model: proven by the same bounds
    "device_agent.codec",
    "device_agent.contract",
    "device_agent.csv_dialect",  # a table is read alike when it trains and when it is classified
    "device_agent.csv_rows",
    "device_agent.errors",
    "device_agent.interrupts",  # both command lines end of a signal alike
    "device_agent.judge",
    "device_agent.modelfile",  # reads knn.json for `inspect`, and to see whether a release is up to date
    "device_agent.parsing",  # both command lines answer what is typed wrong alike
    "device_agent.release_files",  # walks and hashes a release: the host verifies with the code that the device runs
    "device_agent.standard",  # both command lines make their standard streams safe
    "device_agent.trust",
    "device_agent.trust.dsse",
    "device_agent.trust.oms",
    "device_agent.trust.orders",
    "device_agent.utc",  # dates as people read them, also those that no calendar reaches
    "device_agent.versions",
}
#: What the device side may take from outside the standard library.
AGENT_THIRD_PARTY = {"numpy", "cryptography", "tflite_runtime", "ai_edge_litert"}

#: What is sent to a bare board; and its head, which imports the rest from memory.
ONBOARD, LOADER = "knnkit.provision.onboard", "knnkit.provision.onboard.loader"

#: Third-party package -> the only modules that import it (a prefix with `*` stands for a whole room).
HOMES: dict[str, tuple[str, ...]] = {
    "tensorflow": ("knnkit.model.*",),
    "sklearn": ("knnkit.model.*",),
    "skops": ("knnkit.model.*",),
    "pandas": (),
    "pyarrow": ("knnkit.model.*",),
    "matplotlib": ("knnkit.render.plots",),
    "paramiko": ("knnkit.transport.ssh*", "knnkit.transport.hostkeys"),
    "rich": ("knnkit.render.*",),
    "jinja2": ("knnkit.render.*",),
    "pydantic": ("knnkit.config*",),
    "pydantic_core": ("knnkit.config*",),
    "distributed": ("knnkit.fleet.*",),
    "dask": ("knnkit.fleet.*",),
    "tflite_runtime": ("device_agent.interpreter",),
    "ai_edge_litert": ("device_agent.interpreter",),
}

#: Room of knnkit -> rooms that it never reaches for. Rooms further up call rooms further down.
FORBIDDEN: dict[str, tuple[str, ...]] = {
    "knnkit.transport": ("knnkit.fleet", "knnkit.render", "knnkit.commands", "knnkit.cli", "knnkit.model"),
    "knnkit.fleet": ("knnkit.render", "knnkit.commands", "knnkit.cli", "knnkit.model"),
    "knnkit.release": ("knnkit.fleet", "knnkit.transport", "knnkit.render", "knnkit.commands", "knnkit.cli"),
    "knnkit.model": ("knnkit.fleet", "knnkit.transport", "knnkit.render", "knnkit.commands", "knnkit.cli"),
    "knnkit.render": ("knnkit.transport", "knnkit.commands", "knnkit.cli", "knnkit.model"),
    "knnkit.commands": ("knnkit.cli",),
    "knnkit.config": ("knnkit.fleet", "knnkit.transport", "knnkit.render", "knnkit.commands", "knnkit.cli"),
    "knnkit.provision": ("knnkit.fleet", "knnkit.render", "knnkit.commands", "knnkit.cli", "knnkit.model"),
    "knnkit.errors": ("knnkit",),
}

#: Modules that compute and never touch the world.
PURE = (
    "device_agent.cells",  # label maps on the device, lists in a model: proven by the same bounds
    "device_agent.codec",
    "device_agent.contract",
    "device_agent.csv_dialect",
    "device_agent.documents",
    "device_agent.errors",
    "device_agent.fingerprints",
    "device_agent.state",
    "device_agent.transitions",
    "device_agent.trust",
    "device_agent.trust.*",
    "device_agent.versions",
    "knnkit.config*",
    "knnkit.errors",
    "knnkit.fleet.aftermath",
    "knnkit.fleet.plan",
    "knnkit.fleet.report",
    "knnkit.provision.environment",
    "knnkit.provision.recipe",
)
#: Standard modules that reach the world; `pathlib` is held to its pure half below.
WORLDLY = {"asyncio", "http", "io", "multiprocessing", "os", "shutil", "socket", "ssl", "subprocess", "tempfile"}
WORLDLY |= {"threading", "time", "urllib", "signal", "select", "fcntl", "mmap", "random", "secrets", "datetime", "glob"}
WORLDLY_CALLS = {"open", "print", "input", "exec", "eval"}
WORLDLY_METHODS = {"read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "unlink", "iterdir", "exists"}
WORLDLY_METHODS |= {"is_file", "is_dir", "stat", "resolve", "expanduser", "glob", "rglob", "touch", "rename", "now"}


@dataclass(frozen=True)
class Import:
    """One import statement: `at_load` where it runs as soon as its module is loaded."""

    source: str
    target: str
    line: int
    at_load: bool

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


def modules() -> dict[str, ast.Module]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


MODULES = modules()


def _walk(node: ast.AST, at_load: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            inside = False
        else:
            inside = at_load and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield child, inside
        yield from _walk(child, inside)


def _targets(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        names = [f"{base}.{alias.name}" for alias in node.names]
        return [name if name in MODULES else base for name in names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")) and node.args:
        first = node.args[0]
        return [str(first.value)] if isinstance(first, ast.Constant) else []
    return []


def imports() -> list[Import]:
    return [
        Import(name, target, getattr(node, "lineno", 0), at_load)
        for name, tree in MODULES.items()
        for node, at_load in _walk(tree, True)
        for target in dict.fromkeys(_targets(node))
    ]


IMPORTS = imports()


def within(module: str, room: str) -> bool:
    if room.endswith(".*"):
        return module == room[:-2] or module.startswith(room[:-1])
    if room.endswith("*"):
        return module.startswith(room[:-1])
    return module == room or module.startswith(room + ".")


def top(module: str) -> str:
    return module.split(".")[0]


def test_the_sources_were_found_and_their_imports_read() -> None:
    assert {"knnkit.cli", "device_agent.contract"} <= set(MODULES)
    assert any(i.source == "knnkit.cli" and i.target == "device_agent.contract" for i in IMPORTS)


def test_relative_imports_are_not_used() -> None:
    relative = [
        f"{name}:{node.lineno}"
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


def test_the_device_side_never_imports_the_host_side() -> None:
    assert [str(i) for i in IMPORTS if i.source.startswith("device_agent") and top(i.target) == "knnkit"] == []


def test_the_device_side_needs_only_numpy_a_tflite_runtime_and_cryptography() -> None:
    known = AGENT_THIRD_PARTY | set(sys.stdlib_module_names) | {"device_agent"}
    strangers = [str(i) for i in IMPORTS if top(i.source) == "device_agent" and top(i.target) not in known]
    assert strangers == []


def test_what_is_sent_to_a_bare_board_needs_nothing_but_its_python() -> None:
    sent = [i for i in IMPORTS if within(i.source, ONBOARD)]
    assert any(within(i.target, ONBOARD) for i in sent)
    strangers = [i for i in sent if top(i.target) not in sys.stdlib_module_names and not within(i.target, ONBOARD)]
    assert [str(i) for i in strangers] == []
    assert [str(i) for i in sent if i.source == LOADER and within(i.target, ONBOARD)] == []


def test_the_host_takes_from_the_device_side_only_what_both_must_agree_on() -> None:
    taken = [i for i in IMPORTS if top(i.source) == "knnkit" and top(i.target) == "device_agent"]
    assert taken
    astray = [i for i in taken if not any(within(i.target, room) for room in SHARED)]
    package = "device_agent"  # itself: its version, and where its files lie
    assert [str(i) for i in astray if i.target != package] == []


@pytest.mark.parametrize("package", sorted(HOMES))
def test_a_heavy_package_is_imported_only_at_home(package: str) -> None:
    homes = HOMES[package]
    astray = [str(i) for i in IMPORTS if top(i.target) == package and not any(within(i.source, home) for home in homes)]
    assert astray == []


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_a_room_never_reaches_up(room: str) -> None:
    up = [
        str(i)
        for i in IMPORTS
        if within(i.source, room) and any(within(i.target, other) and i.target != "knnkit" for other in FORBIDDEN[room])
    ]
    assert up == []


def test_only_the_entry_point_imports_the_command_line() -> None:
    users = {i.source for i in IMPORTS if within(i.target, "knnkit.cli")}
    assert users <= {"knnkit.__main__"}


def test_only_the_command_lines_exit_the_process() -> None:
    allowed = {"knnkit.cli", "knnkit.__main__", "device_agent.cli", "device_agent.__main__"}
    exits = [
        f"{name}:{node.lineno}"
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"sys.exit", "exit", "quit"} and name not in allowed
    ]
    assert exits == []


@pytest.mark.parametrize("module", [name for name in MODULES if any(within(name, room) for room in PURE)])
def test_a_pure_module_does_no_io(module: str) -> None:
    wrong = [str(i) for i in IMPORTS if i.source == module and top(i.target) in WORLDLY]
    for node in ast.walk(MODULES[module]):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in WORLDLY_CALLS:
            wrong.append(f"{module}:{node.lineno} calls {node.func.id}()")
        if isinstance(node.func, ast.Attribute) and node.func.attr in WORLDLY_METHODS:
            wrong.append(f"{module}:{node.lineno} calls .{node.func.attr}()")
    assert wrong == []


def test_tensorflow_is_imported_only_when_a_model_is_built() -> None:
    """No module that other rooms load may load TensorFlow or scikit-learn as a side effect."""
    heavy = {"tensorflow", "sklearn", "matplotlib", "pyarrow", "skops"}
    loads: dict[str, set[str]] = {}
    for i in IMPORTS:
        if i.at_load:
            loads.setdefault(i.source, set()).add(i.target)

    def closure(start: str) -> set[str]:
        seen: set[str] = set()
        queue = [start]
        while queue:
            module = queue.pop()
            if module not in seen:
                seen.add(module)
                queue += loads.get(module, ())
        return seen

    for name in MODULES:
        if within(name, "knnkit.model") or name == "knnkit.render.plots":
            continue
        assert not {top(target) for target in closure(name)} & heavy, f"{name} loads something heavy"
