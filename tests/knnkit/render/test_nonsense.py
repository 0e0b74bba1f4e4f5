"""A hostile device answers with documents of the right types and any values: the report of the fleet shows them."""

from __future__ import annotations

import dataclasses
import enum
import io
import random
import types
import typing
from typing import Any

import pytest
from support.simulation import make_package

from device_agent.shared.protocol import documents, json_codec, reports
from device_agent.shared.protocol.record import shape
from knnkit.commands import bench, logs, parity, status, trust_keys
from knnkit.fleet.decide import doctor, plan
from knnkit.fleet.decide.certificate import disbelieved, missed
from knnkit.fleet.device.probe import Facts
from knnkit.fleet.device.recorder import Recorder, nobody
from knnkit.fleet.report import DeviceReport, FleetReport, Outcome
from knnkit.fleet.targets import Target
from knnkit.render import fleet_report, html

PACKAGE, ROOF = make_package(), Target("roof", None)
VALUES: dict[Any, tuple[Any, ...]] = {
    int: (0, 1, -1, 5, 2**31, 2**63 - 1, 1 - 2**63),
    float: (0.0, 1.0, -1.0, 0.5, 1e308, -1e308, 1e-308),
    str: (
        "",
        "a",
        "unknown",
        "x\n\x1b[2J",
        "é" * 300,
        "sha256:" + "0" * 64,
        "0" * 64,
        "\u202e",
        "1.0.0",
        "9" * 30,
        "x:",
    ),
    bool: (True, False),
    type(None): (None,),
}


def anything(draw: random.Random, hint: Any) -> Any:
    """Returns a value of a type that a document of the protocol has."""
    origin, items = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return anything(draw, draw.choice(items))
    if origin is tuple and items[-1] is Ellipsis:
        return tuple(anything(draw, items[0]) for _ in range(draw.choice((0, 0, 1, 2, 3))))
    if origin is tuple:
        return tuple(anything(draw, item) for item in items)
    if origin is typing.Literal:
        return draw.choice(items)
    if origin is dict:
        return {draw.choice(VALUES[str]): anything(draw, items[1]) for _ in range(draw.choice((0, 1, 2)))}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return draw.choice(list(hint))
    if fields := shape(hint):
        hints = typing.get_type_hints(hint)
        return hint(**{name: anything(draw, hints[name]) for name in fields if name != "schema"})
    return draw.choice(VALUES[hint])


def answered(report: DeviceReport, document: Any) -> DeviceReport:
    details = json_codec.dumps(document)
    return dataclasses.replace(report, outcome=Outcome.ANSWERED, exit_code=0, details=details)


@pytest.mark.parametrize("seed", range(3))
def test_one_device_does_not_cost_the_others_their_report(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(15):
        proof, found = anything(draw, reports.Certificate), anything(draw, documents.Status)
        recorder = Recorder(ROOF, nobody)
        recorder.know(certificate=proof, status=found, release=found.committed, previous=found.previous)
        recorder.warn(*found.warnings)
        report = recorder.end(draw.choice(list(Outcome)), exit_code=draw.choice((0, 1, 3, 4, 5)), message="roof: x")
        fleet = FleetReport(draw.choice(("deploy", "parity")), 1e9, 1.0, (report, report))
        assert "roof" in html.render(fleet_report.page_of(fleet))
        fleet_report.print_report(fleet, io.StringIO())
        assert json_codec.loads(FleetReport, json_codec.dumps(fleet), limit=1 << 24).unfinished() == fleet.unfinished()
        assert status._row(report)[0] == parity._row(report)[0] == "roof"
        parity._differences(report)
        assert bench._row(answered(report, anything(draw, reports.Bench)))[0] == "roof"
        logs.rows_of(answered(report, anything(draw, documents.History)))
        trust_keys._rows(answered(report, anything(draw, documents.TrustedKeys)))
        assert disbelieved(proof, proof.nonce, proof.release) or missed(proof, PACKAGE, found.committed) is not None
        facts = Facts("/h", "/h/.knnkit", "aarch64", "Linux", None, None, 10**9, True, None, found)
        plan.plan_device(ROOF, facts, PACKAGE, plan.PlanOptions())
        assert all(each.message for each in doctor.findings_of(ROOF, facts, ("sha256:1",), ("iris",)))


def test_a_hint_quotes_the_words_of_a_device() -> None:
    draw = random.Random(0)
    found = dataclasses.replace(anything(draw, documents.Status), trusted=("sha256:1", "$(reboot)"))
    facts = Facts("/h", "/h/.knnkit", "aarch64", "Linux", None, None, 10**9, True, None, found)
    (hint,) = [each.mend for each in doctor.findings_of(ROOF, facts, ("sha256:1",)) if each.name == "trust"]
    assert hint.startswith("knnkit trust --revoke '$(reboot)' --target HOST")
