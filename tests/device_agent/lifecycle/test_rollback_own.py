"""rollback --own: a host takes back what it began itself and nothing else, and is told what became of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.device import Device
from support.releases import Releases

from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.documents import Status
from device_agent.shared.protocol.reports import TakenBack
from device_agent.system import clock


def take_back(device: Device, holder: str) -> TakenBack:
    return json_codec.from_plain(TakenBack, device.ask("rollback", "--own", "--holder", holder))


def status(device: Device) -> Status:
    return json_codec.from_plain(Status, device.ask("status"))


def test_what_a_host_began_it_takes_back_once_and_is_told_the_same_again(device: Device, releases: Releases) -> None:
    old = device.install(releases["iris"])
    new = device.stage(releases["iris-next"])
    device.ask("activate", new, "--holder", "ann 1")
    for taken in (True, False):
        found = take_back(device, "ann 1")
        assert found.taken is taken
        assert found.became is not None
        assert (found.became.what, found.became.why) == ("reverted", "given up by ann 1")
        assert found.became.release is not None
        assert found.became.release.digest == new
        assert found.committed is not None
        assert (found.committed.digest, found.pending, found.lock) == (old, None, None)
    assert device.answering() == old


def test_what_another_host_began_stays_and_is_told(device: Device, releases: Releases) -> None:
    device.install(releases["iris"])
    new = device.stage(releases["iris-next"])
    device.ask("activate", new, "--holder", "ann 1")
    found = take_back(device, "ben 2")
    assert (found.taken, found.became) == (False, None)
    assert found.pending is not None
    assert found.lock is not None
    assert (found.pending.digest, found.lock.holder) == (new, "ann 1")
    assert device.answering() == new
    device.ask("confirm", new, "--holder", "ann 1")


def test_what_was_confirmed_meanwhile_is_not_taken_back(device: Device, releases: Releases) -> None:
    """A rollback without --own would go back one release further."""
    device.install(releases["iris"])
    new = device.stage(releases["iris-next"])
    device.ask("activate", new, "--holder", "ann 1")
    device.ask("confirm", new, "--holder", "somebody")
    found = take_back(device, "ann 1")
    assert found.became is not None
    assert (found.taken, found.became.what) == (False, "confirmed")
    assert found.committed is not None
    assert found.committed.digest == device.answering() == new


def test_who_comes_late_is_told_what_became_of_it_however_much_happened_since(
    device: Device, releases: Releases
) -> None:
    old = device.install(releases["iris"])
    new = device.stage(releases["iris-next"])
    device.ask("activate", new, "--holder", "ann 1", "--deadline", "600")
    file = device.root / constants.STATE_FILE
    file.write_text(file.read_text().replace(clock.now().boot, "00000000-0000-4000-8000-000000000000"))
    device.ask("activate", new, "--holder", "ben 2")
    device.ask("confirm", new, "--holder", "ben 2")
    device.ask("rollback", "--holder", "eve")
    found = take_back(device, "ann 1")
    assert found.became is not None
    assert (found.became.what, found.became.why) == (
        "reverted",
        "the board restarted before the confirmation",
    )
    late = take_back(device, "ben 2")
    assert late.became is not None
    assert late.became.what == "confirmed"
    assert late.committed is not None
    assert late.committed.digest == old, "what was confirmed answers no more, and the answer says so"
    assert take_back(device, "eve").became is None, "going back from a committed release is no activation"


def test_the_first_release_taken_back_leaves_nothing_and_is_no_error(device: Device, releases: Releases) -> None:
    digest = device.stage(releases["iris"])
    device.ask("activate", digest, "--holder", "ann 1")
    found = take_back(device, "ann 1")
    assert (found.taken, found.committed) == (True, None)
    assert device.answering() is None


def test_a_history_that_is_lost_does_not_hide_what_happened_last(device: Device, releases: Releases) -> None:
    digest = device.stage(releases["iris"])
    device.ask("activate", digest, "--holder", "ann 1")
    device.ask("confirm", digest)
    history = device.root / constants.HISTORY_FILE
    history.unlink()
    history.mkdir()
    found = take_back(device, "ann 1")
    assert found.became is not None
    assert found.became.what == "confirmed"


def test_a_name_of_strange_characters_is_still_the_same_holder(device: Device, releases: Releases) -> None:
    digest = device.stage(releases["iris"])
    name = "ann\x1b[31m@laptop " + "x" * 300
    device.ask("activate", digest, "--holder", name)
    assert take_back(device, name).taken
    assert constants.one_line(name) == "ann?[31m@laptop " + "x" * 184


def test_the_status_names_who_began_what_is_pending_also_while_another_command_runs(
    device: Device, releases: Releases
) -> None:
    digest = device.stage(releases["iris"])
    device.ask("activate", digest, "--holder", "ann 1")
    program = (
        "import sys, time; from pathlib import Path; from device_agent.store.store import Store\n"
        "with Store(Path(sys.argv[1])).changing('ben 2', 'stage'):\n"
        "    print('held', flush=True); time.sleep(600)"
    )
    argv = [sys.executable, "-c", program, str(device.root)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=device.env()) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        found = status(device)
        other.kill()
    device.ask("rollback", "--own", "--holder", "ann 1")
    assert found.pending is not None
    assert found.lock is not None
    assert (found.pending.digest, found.lock.holder, found.lock.pid) == (digest, "ann 1", 0)
    assert found.lock.reason.endswith("not yet confirmed")


@pytest.mark.parametrize("other", [("--leave", "0" * 64), ("--order", "order.json")])
def test_own_goes_with_nothing_else(device: Device, other: tuple[str, str]) -> None:
    assert device.ask("rollback", "--own", *other, code=constants.EXIT_USAGE)["reason"] == "bad-arguments"


def test_in_words_it_says_what_became_of_it(device: Device, releases: Releases, tmp_path: Path) -> None:
    assert "not activated a release here" in device.run("rollback", "--own", "--holder", "ann 1").out
    digest = device.stage(releases["iris"])
    device.ask("activate", digest, "--holder", "ann 1")
    assert "ann 1 holds this device" in device.run("rollback", "--own", "--holder", "ben 2").out
    assert "reverted now" in device.run("rollback", "--own", "--holder", "ann 1").out
    assert "given up by ann 1" in device.run("rollback", "--own", "--holder", "ann 1").out
