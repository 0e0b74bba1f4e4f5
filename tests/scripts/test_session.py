"""A process that a test leaves in its folder is found; a watchdog ends when its device has nothing pending."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from support import session
from support.device import Device
from support.releases import Releases


def test_a_process_in_a_folder_of_the_session_is_found(tmp_path: Path) -> None:
    (tmp_path / "test0").mkdir()
    with subprocess.Popen(["sleep", "60"], cwd=tmp_path / "test0") as by_place:
        named = subprocess.Popen(["tail", "-f", "/dev/null", "--", str(tmp_path / "test0" / "none")], stderr=-3)
        give_up = time.monotonic() + session.WAIT  # just after exec, /proc may show a process without its words
        while len(session.find(tmp_path)) < 2 and time.monotonic() < give_up:
            time.sleep(0.01)
        assert set(session.find(tmp_path)) == {by_place.pid, named.pid}
        for process in (by_place, named):
            process.kill()
            process.wait()
    assert session.find(tmp_path) == {}


def test_a_watchdog_is_found_and_ends(device: Device, releases: Releases) -> None:
    device.ask("activate", device.stage(releases["iris"]), "--deadline", "600")
    folder = device.root.parent
    left = session.find(folder)
    assert ["activate" in words for words in left.values()] == [True]
    for words in left.values():
        session.switch_off(words)
    give_up = time.monotonic() + session.WAIT
    while session.find(folder):
        assert time.monotonic() < give_up
        time.sleep(0.05)
