"""An operator chooses the runtime: by the table alone, and on a bare board whose two runtimes are tiny wheels."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.tiny import lock
from support.wheels import make_wheel
from test_interrupted import KEY
from test_requirements import ARMV7, a_board

import device_agent
from device_agent.shared.protocol import constants
from knnkit.errors import DeviceFailed, ParityFailed
from knnkit.provision import environment, requirements
from knnkit.provision.requirements import LITERT, PACKAGES, TFLITE, WHEELS, recipe_for

OLD, NEW, NUMPY = constants.RUNTIMES
BOTH = (OLD, NEW)


def test_runtimes_go_by_the_names_that_the_agent_knows_them_by() -> None:
    assert {name: wheel.partition("==")[0] for name, wheel in PACKAGES.items()} == constants.RUNTIMES
    for pythons in WHEELS.values():
        for found in pythons.values():
            assert all(pins[0] == PACKAGES[name] for name, pins in found.items() if name != NUMPY)
            assert all(requirements.runtime_of(pins) == name for name, pins in found.items())


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize(
    ("python", "numpy", "more"),
    [
        ((3, 10), "2.2.6", {"typing-extensions==4.15.0"}),
        ((3, 11), "2.4.6", set()),
        ((3, 12), "2.4.6", set()),
        ((3, 13), "2.4.6", set()),
        ((3, 14), "2.4.6", set()),
    ],
)
def test_every_64_bit_board_can_have_litert(machine: str, python: tuple[int, int], numpy: str, more: set[str]) -> None:
    found = recipe_for("board", a_board(machine=machine, python=python), NEW)
    assert found.runtime == LITERT
    crypto = {"cryptography==50.0.2", "cffi==2.1.1", "pycparser==2.23"}
    assert set(found.pins) == {LITERT, f"numpy=={numpy}"} | crypto | more
    assert not found.system_site


@pytest.mark.parametrize("said", [{"python": (3, 10)}, {"python": (3, 11), "machine": "x86_64"}, ARMV7])
def test_what_a_bare_board_gets_by_itself_may_be_chosen_as_well(said: dict[str, Any]) -> None:
    board = a_board(**said)
    assert recipe_for("board", board, OLD) == recipe_for("board", board) == recipe_for("board", board, "auto")
    assert recipe_for("board", board, OLD).runtime == TFLITE


@pytest.mark.parametrize(
    ("said", "runtime", "kind", "have"),
    [
        (ARMV7, NEW, "Python 3.11 on armv7l", OLD),
        ({"python": (3, 12)}, OLD, "Python 3.12 on aarch64", NEW),
        ({"python": (3, 13), "machine": "x86_64"}, OLD, "Python 3.13 on x86_64", NEW),
    ],
)
def test_a_runtime_that_a_board_cannot_have_is_refused_with_the_one_that_it_can(
    said: dict[str, Any], runtime: str, kind: str, have: str
) -> None:
    with pytest.raises(DeviceFailed) as caught:
        recipe_for("greenhouse-1", a_board(**said), runtime)
    assert caught.value.reason == "no-runtime"
    assert str(caught.value) == f"greenhouse-1: there is no {runtime} for {kind}; such a board can have {have} or numpy"
    assert f"--runtime {have}" in caught.value.hint
    assert "runtime: auto" in caught.value.hint


@pytest.mark.parametrize("runtime", BOTH)
def test_a_board_without_tflite_wheels_can_have_numpy_alone(runtime: str) -> None:
    with pytest.raises(DeviceFailed, match=rf"no {runtime} for Python 3\.11 on riscv64; such a board can have numpy"):
        recipe_for("board", a_board(machine="riscv64"), runtime)


@pytest.mark.parametrize("held", BOTH)
def test_auto_leaves_the_runtime_that_is_there(held: str) -> None:
    assert recipe_for("board", a_board(runtime=held)).runtime == PACKAGES[held]


def test_auto_takes_another_where_the_one_that_was_there_is_to_be_had_no_more() -> None:
    """The system of a board was brought from Bookworm to Trixie."""
    assert recipe_for("board", a_board(runtime=OLD, python=(3, 13))).runtime == LITERT


def test_a_runtime_that_nobody_knows_is_none() -> None:
    assert recipe_for("board", a_board(runtime=None)).runtime == TFLITE
    assert requirements.runtime_of(["tinyruntime==1.0", "numpy==1.26.4"]) is None
    assert requirements.runtime_of(["numpy==2.4.6", "ai-edge-litert==9.9"]) == NEW


# --- two tiny runtimes --------------------------------------------------------------------------------------------
@pytest.fixture
def two(bare: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A bare board that can have either."""
    for name in BOTH:
        version = PACKAGES[name].partition("==")[2]
        make_wheel(bare.wheels, name, version, {f"{name}/__init__.py": "", "tinyruntime.py": "version = 1\n"})
    lock(monkeypatch, bare.wheels)
    table = {name: (PACKAGES[name], "tinymath==2.0") for name in BOTH}
    monkeypatch.setattr(requirements, "WHEELS", {platform.machine(): {sys.version_info[:2]: table}})
    monkeypatch.setattr(environment, "recipe_for", recipe_for)
    monkeypatch.setattr(requirements, "ROOM", dict.fromkeys(PACKAGES.values(), 1 << 20))
    return bare


def _modules(board: Any) -> set[str]:
    return {path.name for path in board.root.glob("venv/lib/python3*/site-packages/*")} & set(BOTH)


def test_another_runtime_is_another_environment_and_the_way_back_sends_nothing(two: Any) -> None:
    first = two.provision()
    assert (first.runtime, first.notes, _modules(two)) == (TFLITE, (), {OLD})
    second = two.provision(runtime=NEW)
    assert (second.changed, second.runtime, second.previous) == (True, LITERT, first.environment)
    assert second.notes == (f"{NEW} replaces {OLD}: check the board's release with `knnkit parity`",)
    assert _modules(two) == {NEW}
    two.assert_whole(second)
    (one, other) = ((two.root / "venvs" / done.environment).rglob("tinymath.py") for done in (first, second))
    assert next(one).samefile(next(other))  # what both have was not sent again
    back = two.provision(runtime=OLD)
    assert (back.environment, back.sent, _modules(two)) == (first.environment, 0, {OLD})
    two.assert_whole(back)


def test_another_runtime_is_proven_beside_the_one_in_use(two: Any) -> None:
    first = two.provision()
    seen: list[tuple[set[str], set[str]]] = []

    def prove(python: str, what: str) -> None:
        assert what in BOTH
        site = Path(python).parents[1].glob("lib/python3*/site-packages/*")
        seen.append((_modules(two), {path.name for path in site} & set(BOTH)))

    second = two.provision(runtime=NEW, prove=prove)
    assert seen == [({OLD}, {NEW})]
    assert (second.previous, second.notes) == (first.environment, (f"{NEW} replaces {OLD}",))
    assert _modules(two) == {NEW}
    two.assert_whole(second)
    assert two.provision(runtime=OLD, prove=prove).environment == first.environment
    assert seen[1:] == [({NEW}, {OLD})]


def test_a_runtime_that_was_not_proven_is_left_beside_the_one_in_use(two: Any, agent: Callable[[str], None]) -> None:
    before = two.provision().environment
    agent("1.1")
    first = two.provision()

    def prove(_: str, what: str) -> None:
        raise ParityFailed("2 rows differ")

    for sent in (True, False):  # the second time it is there
        two.wire.commands.clear()
        with pytest.raises(ParityFailed):
            two.provision(runtime=NEW, prove=prove)
        assert ("append" in two.wire.commands) == sent
        two.assert_whole(first)
        assert _modules(two) == {OLD}
    assert not (two.root / "venvs" / before).exists()
    assert not two.provision().changed
    assert two.provision(runtime=NEW).sent == 0


def test_another_agent_is_proven_and_neither_the_first_nor_one_that_is_in_use(
    two: Any, agent: Callable[[str], None]
) -> None:
    seen: list[str] = []

    def prove(python: str, what: str) -> None:
        assert what == f"the environment of knnkit {device_agent.__version__}"
        assert not (two.root / "venv").samefile(Path(python).parents[1])
        seen.append(python)

    two.provision(prove=prove)
    assert seen == []
    agent("1.1")
    assert two.provision(prove=prove).changed
    assert len(seen) == 1
    assert two.provision(prove=prove, keys=KEY).keys_added
    assert len(seen) == 1


def test_what_was_chosen_stays_until_another_is(two: Any, agent: Callable[[str], None]) -> None:
    chosen = two.provision(runtime=NEW)
    assert not two.provision(runtime=NEW).changed
    assert not two.provision().changed
    agent("1.1")
    upgraded = two.provision()
    assert (upgraded.changed, upgraded.runtime, upgraded.notes) == (True, LITERT, ())
    assert upgraded.previous == chosen.environment
    assert _modules(two) == {NEW}


def test_what_was_chosen_stays_where_its_environment_is_mended(two: Any) -> None:
    chosen = two.provision(runtime=NEW)
    next((two.root / "venvs").rglob("tinymath.py")).unlink()
    mended = two.provision()
    assert (mended.changed, mended.environment, _modules(two)) == (True, chosen.environment, {NEW})


def test_a_board_that_cannot_have_it_keeps_what_it_has(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = two.provision()
    found = requirements.WHEELS[platform.machine()][sys.version_info[:2]]
    monkeypatch.delitem(found, NEW)
    before = two.tree()
    with pytest.raises(DeviceFailed, match=f"there is no {NEW}.*such a board can have {OLD}"):
        two.provision(runtime=NEW)
    assert two.tree() == before
    two.assert_whole(first)


def test_a_runtime_that_does_not_run_there_never_takes_the_place_of_the_one_that_does(
    two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = two.provision()
    monkeypatch.setattr(environment, "PROBE", "import absent")
    with pytest.raises(DeviceFailed) as caught:
        two.provision(runtime=NEW)
    assert caught.value.reason == "does-not-run"
    two.assert_whole(first)
    assert _modules(two) == {OLD}


@pytest.mark.parametrize("offline", [True, False])
def test_the_chosen_runtime_comes_with_and_without_internet(two: Any, tmp_path: Path, offline: bool) -> None:
    """The board's pip fetches from a folder that stands for the index; offline, the host sends."""
    two.wire.environment = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(two.wheels), "PIP_CONFIG_FILE": "/dev/null"}
    kept = two.wheels if offline else tmp_path / "unused"
    done = two.provision(offline=offline, wheels_dir=kept, runtime=NEW)
    agent = len(environment.agent_wheel()[1])
    assert (done.sent > agent, done.notes) == (offline, ())
    assert _modules(two) == {NEW}
    two.assert_whole(done)
