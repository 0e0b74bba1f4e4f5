"""The rules between the rooms: each takes the code and returns what breaks it."""

from __future__ import annotations

import ast
import sys

from code_graph import Code, circles, top, within

#: From the lowest layer up: a room imports its own layer's room itself, and layers below it.
AGENT_LAYERS = (
    ("device_agent.shared",),
    ("device_agent.system",),
    ("device_agent.inference", "device_agent.store"),
    ("device_agent.enrolment",),
    ("device_agent.serving",),
    ("device_agent.lifecycle",),
    ("device_agent.diagnostics",),
    ("device_agent.commands",),
    ("device_agent.cli",),
    ("device_agent.__main__",),
)
HOST_LAYERS = (
    ("knnkit.errors", "knnkit.kernels"),
    ("knnkit.config", "knnkit.data"),
    ("knnkit.transport", "knnkit.model.reference"),
    ("knnkit.model.index",),
    ("knnkit.model.graph",),
    ("knnkit.model.tflite",),
    ("knnkit.model",),
    ("knnkit.evaluation",),
    ("knnkit.training", "knnkit.provision"),
    ("knnkit.release",),
    ("knnkit.api", "knnkit.fleet.targets", "knnkit.fleet.report"),
    ("knnkit.fleet.device",),
    ("knnkit.fleet.decide",),
    ("knnkit.fleet.jobs",),
    ("knnkit.fleet.rollout",),
    ("knnkit.render",),
    ("knnkit.commands",),
    ("knnkit.cli",),
    ("knnkit.__main__",),
)
#: Exports names of the rooms above it, each when it is asked for.
FACADES = ("knnkit", "device_agent")
#: Runs on a bare board: the standard library alone. Its head imports the rest from memory.
BOOTSTRAP = "device_agent.bootstrap"
LOADER = "device_agent.bootstrap.loader"

#: Package -> the only rooms that import it.
HOMES: dict[str, tuple[str, ...]] = {
    "tensorflow": ("knnkit.model.graph", "knnkit.model.tflite"),
    "sklearn": ("knnkit.training", "knnkit.data.dataset", "knnkit.evaluation.splits", "knnkit.model.scaling"),
    "scipy": ("knnkit.training",),
    "imblearn": ("knnkit.training",),
    "skops": ("knnkit.training",),
    "pandas": (),
    "pyarrow": ("knnkit.data",),
    "matplotlib": ("knnkit.render.plots",),
    "paramiko": ("knnkit.transport.ssh",),
    "rich": ("knnkit.render",),
    "jinja2": ("knnkit.render",),
    "pydantic": ("knnkit.config",),
    "pydantic_core": ("knnkit.config",),
    "distributed": ("knnkit.fleet.rollout",),
    "dask": ("knnkit.fleet.rollout",),
    "tflite_runtime": ("device_agent.inference.interpreter",),
    "ai_edge_litert": ("device_agent.inference.interpreter",),
    "PIL": ("device_agent.shared.embedding.picture",),
}
#: What the agent may take from outside the standard library.
AGENT_NEEDS = {"numpy", "cryptography", "tflite_runtime", "ai_edge_litert", "device_agent"}
#: The same, only where pictures are decoded.
AGENT_NEEDS |= {"PIL"}
#: Rooms that compute and never touch the world, and the one module in them that reads a file.
PURE = (
    "device_agent.shared.protocol",
    "device_agent.shared.trust",
    "device_agent.shared.golden",
    "knnkit.fleet.decide",
    "knnkit.model.reference",
    "knnkit.config",
    "knnkit.errors",
)
IMPURE = ("knnkit.config.load",)
#: They compute from what they are given.
PURE_NAMES = {"time.gmtime", "time.strftime"}
#: Standard modules that reach the world.
WORLDLY = {"asyncio", "http", "multiprocessing", "os", "shutil", "socket", "ssl", "subprocess", "tempfile", "glob"}
WORLDLY |= {"threading", "time", "urllib", "signal", "select", "fcntl", "mmap", "random", "secrets", "datetime"}
WORLDLY_CALLS = {"open", "print", "input", "exec", "eval"}
WORLDLY_METHODS = {"read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "unlink", "iterdir", "exists"}
WORLDLY_METHODS |= {"is_file", "is_dir", "stat", "resolve", "expanduser", "glob", "rglob", "touch", "rename", "now"}


def module_circles(code: Code) -> list[str]:
    """No module imports itself by way of others."""
    return [" <-> ".join(circle) for circle in circles(code.edges)]


def room_circles(code: Code) -> list[str]:
    """No folder imports itself by way of others."""
    rooms = {name: name if name in code.packages else name.rpartition(".")[0] or name for name in code.sources}
    edges: dict[str, set[str]] = {}
    for source, targets in code.edges.items():
        if source not in FACADES:
            room = rooms[source]
            # A room may use its own folders, and they its modules: the layers say in which order.
            others = {rooms[t] for t in targets if not within(rooms[t], room) and not within(room, rooms[t])}
            edges.setdefault(room, set()).update(others)
    return [" <-> ".join(circle) for circle in circles(edges)]


def relative_imports(code: Code) -> list[str]:
    """Every import names its module in full."""
    return [
        f"{name}:{node.lineno}"
        for name, tree in code.trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]


def host_reaches_into_the_agent(code: Code) -> list[str]:
    """knnkit imports `device_agent.shared`, the version, and the package itself to find its files."""
    allowed = ("device_agent.shared", "device_agent.__version__")
    return [
        str(i)
        for i in code.imports
        if top(i.source) == "knnkit" and top(i.target) == "device_agent" and i.target != "device_agent"
        if not within(i.target, allowed)
    ]


def layers(code: Code) -> list[str]:
    """A module imports its own layer and those below; two rooms of one layer know nothing of each other."""
    return [str(i) for i in code.imports if i.source not in FACADES and _points_up(i.source, i.target)]


def _points_up(source: str, target: str) -> bool:
    for stack in (AGENT_LAYERS, HOST_LAYERS):
        here, there = _place(stack, source), _place(stack, target)
        if here is not None and there is not None and here != there:
            return there[0] >= here[0]
    return target in FACADES and target != "device_agent" and not within(source, "knnkit.__main__")


def _place(stack: tuple[tuple[str, ...], ...], module: str) -> tuple[int, str] | None:
    rooms = [(len(room), level, room) for level, layer in enumerate(stack) for room in layer if within(module, room)]
    return max(rooms)[1:] if rooms else None


def unplaced_modules(code: Code) -> list[str]:
    """Every module has a layer."""
    known = (*FACADES, BOOTSTRAP)
    return [
        name
        for name in code.sources
        if not _place(AGENT_LAYERS, name) and not _place(HOST_LAYERS, name)
        if name not in ("knnkit.fleet",) and not (name in known or within(name, BOOTSTRAP))
    ]


def agent_imports_the_host(code: Code) -> list[str]:
    """The agent never imports knnkit, nor anything that a board does not have."""
    known = AGENT_NEEDS | set(sys.stdlib_module_names)
    return [str(i) for i in code.imports if top(i.source) == "device_agent" and top(i.target) not in known]


def bootstrap_needs_more_than_python(code: Code) -> list[str]:
    """What is sent to a bare board imports the standard library and itself; nothing else imports it."""
    inside = [i for i in code.imports if within(i.source, BOOTSTRAP)]
    known = set(sys.stdlib_module_names)
    wrong = [i for i in inside if top(i.target) not in known and not within(i.target, BOOTSTRAP)]
    wrong += [i for i in inside if i.source == LOADER and within(i.target, BOOTSTRAP)]
    wrong += [i for i in code.imports if within(i.target, BOOTSTRAP) and not within(i.source, BOOTSTRAP)]
    return [str(i) for i in wrong]


def impure_modules(code: Code) -> list[str]:
    """A pure room does no I/O, asks no clock and draws no random number."""
    wrong = []
    for module, tree in code.trees.items():
        if not within(module, PURE) or within(module, IMPURE):
            continue
        for node in ast.walk(tree):
            wrong += [f"{module}:{node.lineno} imports {name}" for name in _worldly_names(node)]
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in WORLDLY_CALLS:
                wrong.append(f"{module}:{node.lineno} calls {node.func.id}()")
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in WORLDLY_METHODS
            ):
                wrong.append(f"{module}:{node.lineno} calls .{node.func.attr}()")
    return wrong


def _worldly_names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if top(alias.name) in WORLDLY]
    if isinstance(node, ast.ImportFrom) and top(node.module or "") in WORLDLY:
        return [name for alias in node.names if (name := f"{node.module}.{alias.name}") not in PURE_NAMES]
    return []


def heavy_imports_abroad(code: Code) -> list[str]:
    """A heavy package is imported only in its own rooms."""
    return [str(i) for i in code.imports if top(i.target) in HOMES and not within(i.source, HOMES[top(i.target)])]


def exits(code: Code) -> list[str]:
    """Only the command lines end the process."""
    allowed = {"knnkit.cli", "knnkit.__main__", "device_agent.cli", "device_agent.__main__"}
    return [
        f"{name}:{node.lineno}"
        for name, tree in code.trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"sys.exit", "exit", "quit"} and name not in allowed
    ]


def heavy_at_load(code: Code) -> list[str]:
    """Loading a module outside the model's rooms loads no TensorFlow, no scikit-learn, nothing heavy."""
    heavy = {"tensorflow", "sklearn", "matplotlib", "pyarrow", "skops"}
    loads: dict[str, set[str]] = {}
    for i in code.imports:
        if i.at_load:
            loads.setdefault(i.source, set()).add(i.target)
    rooms = ("knnkit.model", "knnkit.training", "knnkit.data", "knnkit.render.plots")
    return [
        f"{name} loads {', '.join(sorted(found))}"
        for name in code.sources
        if not within(name, rooms) and (found := {top(module) for module in _closure(loads, name)} & heavy)
    ]


def late_imports_of_commands(code: Code) -> list[str]:
    """A command's module imports at its top."""
    return [
        str(i)
        for i in code.imports
        if within(i.source, "knnkit.commands") and top(i.target) in ("knnkit", "device_agent")
        if not i.at_load and not i.typing
    ]


def releases_enter_the_model(code: Code) -> list[str]:
    """A release is written from what `training` made: rows become a model, a model becomes a release."""
    return [str(i) for i in code.imports if within(i.source, "knnkit.release") and within(i.target, "knnkit.model")]


def _closure(edges: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    queue = [start]
    while queue:
        module = queue.pop()
        if module not in seen:
            seen.add(module)
            queue += edges.get(module, ())
    return seen
