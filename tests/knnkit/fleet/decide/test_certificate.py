"""A certificate counts only for this question, with numbers that agree; the gates are applied again on the host."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from support.simulation import difference, make_certificate, make_package

from device_agent.shared.protocol.model_info import Gates
from device_agent.shared.protocol.record import replace
from device_agent.shared.protocol.reports import Certificate, Latency, TaughtCheck
from knnkit.fleet.decide.certificate import disbelieved, missed
from knnkit.release.package import Package

PACKAGE = make_package()
NONCE = "5e" * 16
TAUGHT = TaughtCheck("0" * 64, 3, {"a": 2, "b": 1}, 100, "1" * 64)


def certificate(**changes: Any) -> Certificate:
    """Of 100 rows, all of which measure accuracy."""
    return dataclasses.replace(make_certificate(PACKAGE, NONCE), **changes)


def why_not(proof: Certificate, **asked: Any) -> str:
    return disbelieved(proof, NONCE, PACKAGE.digest, **{"model_sha256": PACKAGE.model_sha256, "rows": 100} | asked)


def test_an_honest_certificate_is_believed() -> None:
    assert why_not(certificate()) == ""
    assert why_not(certificate(accuracy=None, accuracy_rows=0)) == ""
    assert why_not(certificate(identical=97, equivalent=1, different=2, differences=(difference(7),))) == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"nonce": ""}, "another nonce"),
        ({"nonce": "5f" * 16}, "another nonce"),
        ({"release": "0" * 64}, "for release 000000000000, not"),
        ({"model_sha256": "0" * 64}, "another model file"),
        ({"identical": 101, "different": -2}, "contradict"),
        ({"identical": -1, "equivalent": 101}, "contradict"),
        ({"accuracy_rows": -1}, "contradict"),
        ({"accuracy_rows": 101}, "contradict"),
        ({"accuracy_rows": 0}, "contradict"),
        ({"accuracy": None}, "contradict"),
        ({"accuracy": 1.01}, "contradict"),
        ({"accuracy": -0.01}, "contradict"),
        ({"differences": (difference(7),)}, "contradict"),
        ({"confusion": ((1,), (2, 3))}, "contradict"),
        ({"confusion": ((1, 2, 3),)}, "contradict"),
        ({"confusion": ((-1, 0), (0, 1))}, "contradict"),
        ({"confusion": ((), ())}, "contradict"),
        ({"identical": 98, "accuracy_rows": 99}, "covers 99 rows of 100"),
        ({"identical": 100}, "covers 101 rows of 100"),
    ],
)
def test_a_certificate_that_is_no_answer_is_not_believed(changes: dict[str, Any], said: str) -> None:
    assert said in why_not(certificate(**changes))


def test_a_certificate_of_no_rows_proves_nothing_however_many_were_asked_for() -> None:
    nothing = certificate(identical=0, equivalent=0, accuracy=None, accuracy_rows=0)
    assert "covers no rows" in why_not(nothing, rows=None)


def gated(**gates: Any) -> Package:
    return dataclasses.replace(PACKAGE, manifest=dataclasses.replace(PACKAGE.manifest, gates=Gates(**gates)))


@pytest.mark.parametrize(
    ("changes", "gates", "said"),
    [
        ({"identical": 98, "different": 1}, {}, "1 row differs from the reference"),
        ({"accuracy": 0.899}, {"accuracy": 0.9}, "accuracy 0.899 is under 0.9"),
        ({"accuracy": None, "accuracy_rows": 0}, {"accuracy": 0.9}, "accuracy was not measured"),
        ({"latency": Latency(5.1, 9.0, 100)}, {"latency_ms": 5.0}, "latency 5.1 ms is over 5 ms"),
        ({"latency": None}, {"latency_ms": 5.0}, "latency was not measured"),
        ({"failures": ("anything",)}, {}, "anything"),
    ],
)
def test_a_gate_that_is_missed_is_told_whatever_the_device_concluded(
    changes: dict[str, Any], gates: dict[str, Any], said: str
) -> None:
    assert missed(certificate(**changes), gated(**gates)) == (said,)


def test_a_gate_is_kept_at_its_limit_and_told_once_where_it_is_missed() -> None:
    kept = certificate(accuracy=0.9, latency=Latency(5.0, 9.0, 100))
    assert missed(kept, gated(accuracy=0.9, latency_ms=5.0)) == ()
    told = (
        "parity: 1 of 100 golden rows are answered differently",
        "accuracy: 0.5 is under the floor of 0.9",
        "latency: 6 ms",
    )
    lost = certificate(identical=98, different=1, accuracy=0.5, latency=Latency(6.0, 9.0, 9), failures=told)
    assert missed(lost, gated(accuracy=0.9, latency_ms=5.0)) == told
    assert missed(lost, None) == told


@pytest.mark.parametrize(
    "changes",
    [
        {"latency": Latency(-1.0, 9.0, 100)},
        {"latency": Latency(1e308, 1e308, 100)},
        {"latency": Latency(9.0, 1.0, 100)},
        {"largest_distance_error": 1e308},
        {"largest_distance_error": -1.0},
        {"accepted": 1.5},
        {"taught": replace(TAUGHT, changed=101)},
        {"taught": replace(TAUGHT, changed=-1)},
        {"taught": replace(TAUGHT, labels={"a": 4})},
        {"taught": replace(TAUGHT, labels={"a": 4, "b": -1})},
        {"taught": replace(TAUGHT, labels={})},
        {"taught": replace(TAUGHT, digest="0")},
        {"taught": replace(TAUGHT, answers="x" * 64)},
    ],
)
def test_numbers_that_no_device_measures_are_not_believed(changes: dict[str, Any]) -> None:
    found = certificate(**changes)
    assert "no device can measure" in disbelieved(found, found.nonce, found.release)
    assert disbelieved(certificate(), found.nonce, found.release) == ""
    assert disbelieved(certificate(taught=TAUGHT), found.nonce, found.release) == ""
