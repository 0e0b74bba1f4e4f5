"""A class that is recognised less than its gate asks for is named, at build and to the device's certificate."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from device_agent.shared.golden import class_gates
from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.documents import ReleaseRef
from device_agent.shared.protocol.errors import Refused
from device_agent.shared.protocol.model_info import Gates, Manifest
from device_agent.shared.protocol.record import record
from device_agent.shared.protocol.reports import ClassChange, Compared
from device_agent.shared.trust import manifest as rules
from knnkit.release import manifest

CLASSES = ("fall", "sit", "walk")


@record
class OldGates:
    """The gates that the first agents know."""

    margin: float = 1.0e-5
    accuracy: float | None = None
    latency_ms: float | None = None


def made(**gates: Any) -> bytes:
    document = Manifest("a", "1", 1, 1, None, "any", "0.1.0", "2.5", 1, 1, "0" * 64, Gates(**gates))
    data = manifest.write_manifest(document)
    manifest.read_manifest(data)
    return data


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        ({"min_recall": 0.8}, ["recall of 'fall': 0.1 (1 of 10 rows) is below the gate of 0.8"]),
        ({"min_recall": 0.95}, ["recall of 'fall'", "recall of 'sit': 0.9"]),
        ({"recall": {"fall": 0.9}}, ["recall of 'fall': 0.1"]),
        ({"recall": {"fall": 0.05}, "min_recall": 0.8}, []),
        ({"recall": {"sit": 0.95}, "min_recall": 0.05}, ["recall of 'sit': 0.9"]),
        ({"recall": {"run": 0.5}}, ["recall of 'run': the gate is 0.5, but the model has no such class"]),
        ({"balanced_accuracy": 0.7}, ["balanced accuracy: 0.666667 is below the gate of 0.7"]),
        ({"balanced_accuracy": 0.66}, []),
        ({}, []),
    ],
)
def test_the_class_below_its_gate_is_named(gates: dict[str, Any], said: list[str]) -> None:
    found = class_gates.failures(Gates(**gates), CLASSES, (10, 10, 10), (1, 9, 10))
    assert len(found) == len(said)
    assert all(text.startswith(begin) for text, begin in zip(found, said))


def test_a_class_without_rows_cannot_keep_its_gate() -> None:
    found = class_gates.failures(Gates(min_recall=0.1), CLASSES, (10, 0, 10), (10, 0, 10))
    assert found == ("recall of 'sit': the gate is 0.1, but no evaluation row is of this class",)


@pytest.mark.parametrize(
    ("by", "after", "named"), [(0.0, 11, True), (0.1, 11, False), (0.1, 10, True), (0.0, 12, False)]
)
def test_a_class_that_falls_is_named_with_both_recalls(by: float, after: int, named: bool) -> None:
    compared = Compared("d", "a", "1", True, (ClassChange("fall", 13, 12, after), ClassChange("sit", 0, 0, 0)))
    found = class_gates.worse(Gates(not_worse_than="current", by=by), compared)
    assert bool(found) == named
    if named:
        assert f"recall of 'fall' falls from 0.923077 to {after / 13:.6g} (12 to {after} of 13 rows)" in found[0]
    assert class_gates.worse(Gates(), compared) == ()


def test_a_class_without_rows_cannot_be_no_worse() -> None:
    asked = Gates(not_worse_than="current")
    (said,) = class_gates.failures(asked, CLASSES, (10, 0, 0), (0, 0, 0))
    assert "no evaluation row is of class 'sit', nor of 1 more" in said
    assert class_gates.failures(asked, CLASSES, (10, 1, 1), (0, 0, 0)) == ()


def test_without_a_comparison_the_gate_is_missed_if_a_release_runs() -> None:
    asked, running = Gates(not_worse_than="current"), ReleaseRef("d", "gait", "1.2.0", 3)
    (said,) = class_gates.worse(asked, None, running)
    assert "gait 1.2.0 does not answer" in said
    assert class_gates.worse(asked, None) == ()
    assert class_gates.worse(Gates(), None, running) == ()


def test_of_many_classes_the_worst_are_named() -> None:
    classes = [f"p{n}" for n in range(100)]
    found = class_gates.failures(Gates(min_recall=0.9), classes, [100] * 100, list(range(100)))
    assert [text.split(":")[0] for text in found[:2]] == ["recall of 'p0'", "recall of 'p1'"]
    assert found[5:] == ("recall of 85 more classes is below the gate or not measured",)
    changes = tuple(ClassChange(label, 100, 50, n) for n, label in enumerate(classes))
    found = class_gates.worse(Gates(not_worse_than="current"), Compared("d", "a", "1", True, changes))
    assert "'p0' falls from 0.5 to 0 " in found[0]
    assert found[5:] == ("not worse than current: 45 more classes are worse",)


def test_a_class_that_is_gone_is_named() -> None:
    gates = Gates(not_worse_than="current", by=0.9)
    assert class_gates.worse(gates, Compared("d", "a", "1", True, (), ("fall",))) == (
        "not worse than current: the class 'fall' no longer exists",
    )
    (said,) = class_gates.worse(gates, Compared("d", "a", "1", False))
    assert "cannot be compared" in said


NEW: list[dict[str, Any]] = [
    {"balanced_accuracy": 0.8},
    {"min_recall": 0.8},
    {"recall": {"fall": 0.9}},
    {"not_worse_than": "current"},
    {"by": 0.1},
]


@pytest.mark.parametrize("gates", NEW)
def test_an_older_agent_refuses_a_gate_that_it_cannot_check(gates: dict[str, Any]) -> None:
    document = json_codec.parse(made(**gates))["gates"]
    with pytest.raises(json_codec.MalformedDocument, match="unknown key"):
        json_codec.from_plain(OldGates, document, extra="refuse")
    assert dataclasses.asdict(rules.read_manifest(made(**gates)).gates).items() >= gates.items()


def test_a_release_without_new_gates_reads_as_before() -> None:
    document = json_codec.parse(made(accuracy=0.9))["gates"]
    assert json_codec.from_plain(OldGates, document, extra="refuse") == OldGates(accuracy=0.9)


@pytest.mark.parametrize(
    "gates", [{"balanced_accuracy": 1.5}, {"min_recall": -0.1}, {"recall": {"a": 2.0}}, {"by": 1.0}, {"by": -0.1}]
)
def test_a_gate_without_sense_is_refused(gates: dict[str, Any]) -> None:
    document = json_codec.parse(made())
    document["gates"] |= gates
    ((gate, value),) = gates.items()
    with pytest.raises(Refused, match=re.escape(f"gates.{gate} is {json_codec.dumps(value)}; expected ")):
        rules.read_manifest(json_codec.dumps(document).encode())
