"""The rules between the rooms hold, and each of them fails when it is broken on purpose."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import rules
from code_graph import Code, circles
from support import ROOT

CODE = Code.of(ROOT)
Rule = Callable[[Code], list[str]]
#: Modules that are being taken apart.
OWED = ("knnkit.transport.ssh.connection",)
#: Rule -> (module, lines added to it) that break it. A module that is not there yet is made.
MUTANTS: dict[Rule, list[tuple[str, list[str]]]] = {
    rules.module_circles: [
        (
            "device_agent.shared.protocol.record",
            ["import device_agent.shared.protocol.json_codec"],
        ),
        ("knnkit.errors", ["if TYPE_CHECKING:", "    from knnkit.release.build import ReleaseOptions"]),
    ],
    rules.room_circles: [
        ("knnkit.transport.base", ["def f():", "    from knnkit.provision import requirements"]),
        ("device_agent.system.clock", ["import device_agent.store.lock"]),
    ],
    rules.relative_imports: [("knnkit.cli", ["from . import errors"])],
    rules.host_reaches_into_the_agent: [
        ("knnkit.release.verify", ["from device_agent.store import store"]),
        ("knnkit.fleet.report", ["def f():", "    import device_agent.serving.batch"]),
    ],
    rules.layers: [
        ("device_agent.shared.tabular.reader", ["from device_agent.system import memory"]),
        ("device_agent.inference.graph", ["from device_agent.store import state"]),
        ("knnkit.data.files", ["if TYPE_CHECKING:", "    from knnkit.config.parse import Config"]),
        ("knnkit.model.reference.space", ["from knnkit.model.index import grid"]),
        ("knnkit.fleet.decide.plan", ["def f():", "    from knnkit.fleet.jobs import job"]),
        ("knnkit.render.page", ["from knnkit.commands import COMMANDS"]),
        ("knnkit.errors", ["import knnkit"]),
    ],
    rules.unplaced_modules: [("knnkit.elsewhere", ["x = 1"]), ("device_agent.elsewhere", ["x = 1"])],
    rules.agent_imports_the_host: [
        ("device_agent.store.store", ["def f():", "    import knnkit.errors"]),
        ("device_agent.inference.exact", ["import scipy"]),
    ],
    rules.bootstrap_needs_more_than_python: [
        ("device_agent.bootstrap.build", ["import numpy"]),
        ("device_agent.bootstrap.files", ["from device_agent.shared.protocol import constants"]),
        ("device_agent.bootstrap.loader", ["from device_agent.bootstrap import files"]),
        ("knnkit.provision.install", ["from device_agent.bootstrap import files"]),
    ],
    rules.impure_modules: [
        ("device_agent.shared.trust.rules", ["import os"]),
        ("knnkit.fleet.decide.plan", ["def f(path):", "    return path.read_text()"]),
        ("knnkit.config.parse", ["def f():", "    print(1)"]),
        ("knnkit.model.reference.space", ["from random import random"]),
    ],
    rules.heavy_imports_abroad: [
        ("knnkit.model.reference.space", ["def f():", "    import sklearn"]),
        ("knnkit.release.build", ["def f():", "    import tensorflow"]),
        ("knnkit.transport.local", ["import paramiko"]),
    ],
    rules.exits: [("knnkit.commands.deploy", ["def f():", "    sys.exit(1)"])],
    rules.heavy_at_load: [("knnkit.render.page", ["import matplotlib"])],
    rules.releases_enter_the_model: [("knnkit.release.build", ["from knnkit.model.tflite import metadata"])],
    rules.late_imports_of_commands: [
        ("knnkit.commands.status", ["def f():", "    from knnkit.render import html"]),
        ("knnkit.commands._query", ["def f():", "    import device_agent.shared.trust.dsse"]),
    ],
}


@pytest.mark.parametrize("rule", MUTANTS, ids=lambda rule: rule.__name__)
def test_the_rule_holds(rule: Rule) -> None:
    assert rule(CODE) == [], rule.__doc__


@pytest.mark.parametrize(
    ("rule", "module", "lines"),
    [(rule, *mutant) for rule, mutants in MUTANTS.items() for mutant in mutants],
    ids=lambda value: getattr(value, "__name__", None) or ("" if isinstance(value, list) else value),
)
def test_a_broken_rule_fails(rule: Rule, module: str, lines: list[str]) -> None:
    assert set(rule(CODE.mutant(module, *lines))) - set(rule(CODE))


def test_every_rule_has_a_mutant() -> None:
    named = {
        rule for name, rule in vars(rules).items() if callable(rule) and getattr(rule, "__module__", "") == "rules"
    }
    assert {rule for rule in named if not rule.__name__.startswith("_")} == set(MUTANTS)


def test_a_circle_is_found_whatever_its_length() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set()}
    assert circles(edges) == [["a", "b", "c"]]


def test_no_module_is_longer_than_350_lines() -> None:
    assert [name for name, text in CODE.sources.items() if text.count("\n") > 350] == []


def test_the_agent_has_at_most_four_files_at_its_top() -> None:
    assert len(list((ROOT / "device_agent").glob("*.py"))) <= 4
