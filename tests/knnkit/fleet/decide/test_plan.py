"""Facts in, plan out, as golden JSON: what `--dry-run` prints is what a deploy does."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from support.simulation import BOARD, Board, make_package

from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.documents import ReleaseRef
from device_agent.shared.trust.reasons import Reason
from knnkit.fleet.decide.plan import DevicePlan, PlanOptions, plan_device
from knnkit.fleet.device.probe import Facts
from knnkit.fleet.targets import Target
from knnkit.transport.address import Address

GOLDEN = Path(__file__).with_name("plans.json")
NEW = make_package()
OLD = make_package("1.0.0", 10)
NEWER = make_package("2.0.0", 20)
NEEDS_2_14 = make_package(runtime="2.14.0")
NEEDS_2_15 = make_package(runtime="2.15.0")
PICTURES = dataclasses.replace(NEW, pictures=True)
ARMV7L = dataclasses.replace(BOARD, machine="armv7l")
TFLITE_2_5 = "tflite_runtime 2.5.0"
BARE = Facts(
    home="/home/pi",
    root="/home/pi/.knnkit",
    machine="aarch64",
    system="Linux",
    python=(3, 11, 2),
    python_path="/usr/bin/python3",
    disk_free_bytes=8 << 30,
    writable=True,
    venv=None,
)


def running(ref: ReleaseRef | None, **status: Any) -> Facts:
    board = Board("board", committed=ref, staged={ref.digest} if ref else set())
    return dataclasses.replace(BARE, venv="venvs/1", agent=dataclasses.replace(board.status(), **status))


CASES: dict[str, tuple[Facts, dict[str, Any]]] = {
    "a bare board gets everything": (BARE, {}),
    "the first release": (running(None), {}),
    "an update": (running(OLD.ref), {}),
    "nothing to do": (running(NEW.ref), {}),
    "staged before": (running(OLD.ref, staged=(NEW.digest, OLD.digest)), {}),
    "an older agent": (running(OLD.ref, agent="0.0.9"), {}),
    "an older agent, left alone": (running(OLD.ref, agent="0.0.9"), {"provisioning": "never"}),
    "a runtime that is gone": (running(OLD.ref, runtime=None), {}),
    "provisioned because it was asked for": (running(NEW.ref), {"provisioning": "always"}),
    "an agent that does not answer": (dataclasses.replace(BARE, venv="venvs/1", agent_problem="no numpy"), {}),
    "our own activation is still pending": (running(OLD.ref, pending=NEW.ref, staged=(NEW.digest,)), {}),
    "no agent, and none may be put there": (BARE, {"provisioning": "never"}),
    "no key to trust": (BARE, {"has_keys": False}),
    "no python": (dataclasses.replace(BARE, python=None), {}),
    "an old python": (dataclasses.replace(BARE, python=(3, 9, 2)), {}),
    "not linux": (dataclasses.replace(BARE, system="Darwin"), {}),
    "not writable": (dataclasses.replace(BARE, writable=False), {}),
    "a full disk": (dataclasses.replace(running(OLD.ref), disk_free_bytes=1 << 20), {}),
    "a full bare board": (dataclasses.replace(BARE, disk_free_bytes=64 << 20), {}),
    "a release older than the floor": (running(NEWER.ref, floor=20), {}),
    "the newest release again, after a rollback": (
        running(OLD.ref, floor=NEW.ref.sequence, staged=(NEW.digest, OLD.digest)),
        {},
    ),
    "a key that is not trusted": (running(OLD.ref, trusted=("sha256:" + "cd" * 32,)), {}),
    "a key that was revoked": (running(OLD.ref, trusted=("sha256:" + "cd" * 32,), revoked=(NEW.signed_by,)), {}),
    "another signer": (running(NEW.ref, trusted=(NEW.signed_by,), signed_by="sha256:" + "cd" * 32), {}),
    "the same signer": (running(NEW.ref, signed_by=NEW.signed_by), {}),
    "another signer, and a signature that the device would not take": (
        running(NEW.ref, trusted=("sha256:" + "cd" * 32,), signed_by="sha256:" + "cd" * 32),
        {},
    ),
    "an older release that is there, perhaps with another signature": (
        running(NEWER.ref, floor=20, staged=(NEW.digest, NEWER.digest)),
        {},
    ),
    "a floor ahead of the clock": (running(NEWER.ref, floor=2_026_112_901, clock=1_800_000_000), {}),
    "a floor behind the clock": (running(NEWER.ref, floor=1_700_000_000, clock=1_800_000_000), {}),
    "what the device warns of": (running(OLD.ref, warnings=("trust-writable: it is",)), {}),
    "a key that nobody here names": (
        running(OLD.ref, trusted=(NEW.signed_by, "sha256:" + "ef" * 32)),
        {"named": frozenset({NEW.signed_by})},
    ),
    "no key is trusted yet": (running(OLD.ref, trusted=()), {}),
    "another activation is pending": (running(OLD.ref, pending=NEWER.ref, seconds_left=42.0), {}),
    "another class": (running(OLD.ref), {"device_class": "any", "package": make_package(device_class="zero")}),
    "a runtime older than the release needs": (running(OLD.ref, runtime=TFLITE_2_5), {"package": NEEDS_2_14}),
    "a runtime older than the release needs, left alone": (
        running(OLD.ref, runtime=TFLITE_2_5),
        {"package": NEEDS_2_14, "provisioning": "never"},
    ),
    "a runtime that suffices exactly": (running(OLD.ref), {"package": NEEDS_2_14, "provisioning": "never"}),
    "a need that only the other runtime meets": (running(OLD.ref), {"package": NEEDS_2_15}),
    "a need that no runtime for this board meets": (running(OLD.ref, device=ARMV7L), {"package": NEEDS_2_15}),
    "a need that the chosen runtime meets": (running(OLD.ref), {"package": NEEDS_2_15, "runtime": "ai_edge_litert"}),
    "a need that the chosen runtime does not meet": (
        running(NEEDS_2_15.ref, runtime="ai_edge_litert 2.3.0"),
        {"package": NEEDS_2_15, "runtime": "tflite_runtime"},
    ),
    "another runtime was chosen": (running(NEW.ref), {"runtime": "ai_edge_litert"}),
    "another runtime was chosen, left alone": (
        running(NEW.ref),
        {"runtime": "ai_edge_litert", "provisioning": "never"},
    ),
    "the chosen runtime is there": (running(NEW.ref), {"runtime": "tflite_runtime"}),
    "a runtime that was chosen before stays": (running(NEW.ref, runtime="ai_edge_litert 2.3.0"), {}),
    "a runtime for a bare board": (BARE, {"runtime": "ai_edge_litert"}),
    "a runtime that this bare board cannot have": (
        dataclasses.replace(BARE, python=(3, 13, 5)),
        {"runtime": "tflite_runtime"},
    ),
    "a need that LiteRT meets": (running(OLD.ref, runtime="ai_edge_litert 2.3.0"), {"package": NEEDS_2_15}),
    "a runtime of no known version": (
        running(OLD.ref, runtime="tflite_runtime unknown"),
        {"package": NEEDS_2_14, "provisioning": "never"},
    ),
    "a model of pictures, and no Pillow": (running(OLD.ref), {"package": PICTURES}),
    "a model of pictures, and Pillow": (running(PICTURES.ref, pictures=True), {"package": PICTURES}),
    "a model of pictures, and no wheel of Pillow": (running(PICTURES.ref, device=ARMV7L), {"package": PICTURES}),
    "a release that runs already, whatever it says it needs": (running(NEEDS_2_15.ref), {"package": NEEDS_2_15}),
}


def plan(name: str) -> DevicePlan:
    facts, options = CASES[name]
    options = dict(options)
    package = options.pop("package", NEW)
    said = {name: options.pop(name) for name in ("device_class", "runtime") if name in options}
    return plan_device(Target("board", Address("board"), **said), facts, package, PlanOptions(**options))


@pytest.mark.parametrize("name", CASES)
def test_plan(name: str) -> None:
    """To make the file anew after a change that is meant: python tests/knnkit/fleet/decide/test_plan.py"""
    assert json_codec.to_plain(plan(name)) == json.loads(GOLDEN.read_text())[name]


def test_the_embedded_device_runs_the_python_of_knnkit_and_not_the_system_s() -> None:
    facts = dataclasses.replace(BARE, python=(3, 15, 0))
    for address, refused in ((None, False), (Address("board"), True)):
        found = plan_device(Target("board", address), facts, NEW, PlanOptions())
        assert (found.refusal is not None) is refused


def test_what_the_plan_refuses_for_its_runtime_the_device_refuses_too() -> None:
    refusal = plan("a runtime older than the release needs, left alone").refusal
    assert refusal is not None
    assert refusal.reason == Reason.RUNTIME_TOO_OLD.value
    assert refusal.exit_code == constants.EXIT_REFUSED


def test_the_file_holds_these_cases_and_no_others() -> None:
    assert set(json.loads(GOLDEN.read_text())) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_plan_confirms_last_and_only_what_it_activates(name: str) -> None:
    found = plan(name)
    actions = [step.action for step in found.steps]
    order = ["provision", "sign", "upload", "stage", "activate", "confirm"]
    assert actions == [action for action in order if action in actions]
    assert ("activate" in actions) == ("confirm" in actions)
    assert not found.refusal or actions in ([], ["sign"])
    assert json_codec.loads(DevicePlan, json_codec.dumps(found)) == found


if __name__ == "__main__":
    GOLDEN.write_text(
        json.dumps({name: json_codec.to_plain(plan(name)) for name in CASES}, indent=1, sort_keys=True) + "\n"
    )
