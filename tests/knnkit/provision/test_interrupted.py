"""Whatever interrupts provisioning, and wherever: the board has the old environment or the new one, whole, and the next
run puts everything right. The board's process is killed before every single change that it makes to the disk."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_damaged import truncate

from device_agent.bootstrap.environments import CONTENTS, current, site_packages
from device_agent.bootstrap.files import same
from knnkit.errors import KnnkitError, Unreachable
from knnkit.provision.remote_python import script

KEY = {"sha256:" + "a" * 64: b"first key\n"}

#: Kills what runs on the board with SIGKILL at its Nth change of the disk, or start of a process.
_KILLER = """
import os, signal, sys
_left = {at}
_names = "os.mkdir os.rename os.link os.symlink os.remove os.rmdir os.utime subprocess.Popen".split()
def _watch(event, args, names=frozenset(_names), os=os, kill=os.kill, pid=os.getpid(), sig=signal.SIGKILL):
    global _left
    creates = event == "open" and isinstance(args[2], int) and args[2] & os.O_CREAT
    if event in names or (creates and "pycache" not in str(args[0])):
        _left -= 1
        if _left == 0:
            kill(pid, sig)
sys.addaudithook(_watch)
"""


def _kill_at(bare: Any, command: str, at: int) -> None:
    """Arms the killer for one command on the board."""
    bare.wire.prelude = ""

    def before(step: str) -> None:
        bare.wire.prelude = _KILLER.format(at=at) if step == command else ""

    bare.wire.before = before


def _disarm(bare: Any) -> None:
    bare.wire.before = bare.wire.after = lambda step: None
    bare.wire.prelude = ""


def _survives(bare: Any, before: str | None) -> None:
    """What is in use is the environment that was before, or a whole new one, or (on a bare board) nothing."""
    in_use = current(bare.root)
    if in_use is None:
        assert before is None
        assert not os.path.lexists(bare.root / "venv")
        return
    records = list((bare.root / "venv" / CONTENTS).iterdir())
    assert len(records) == 3
    for record in records:
        files = json.loads(record.read_text())["files"]
        site = site_packages(bare.root / "venv")
        assert files
        assert all(same(site / name, digest) for name, digest in files.items()), record.name


def _assert_whole(bare: Any, done: Any) -> None:
    bare.assert_whole(done)
    _survives(bare, done.environment)


def _build_killed_at(at: int, order: str) -> bool:
    """Runs `build` as the board would; whether it was killed."""
    program = f"{_KILLER.format(at=at)}\nimport sys; exec(compile(sys.stdin.read(), '<stdin>', 'exec'))"
    command = [sys.executable, "-I", "-c", program, "build", order]
    done = subprocess.run(command, input=script(), capture_output=True, timeout=60, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stdout + done.stderr
    return done.returncode != 0


@pytest.mark.parametrize("what", ["a bare board", "an upgrade", "a repair"])
def test_killed_at_any_step_of_building(bare: Any, agent: Callable[[str], None], tmp_path: Path, what: str) -> None:
    """The wheels lie there and the order is given: killed before its first change, before its second, and so on."""
    before = None if what == "a bare board" else bare.provision(keys=KEY).environment
    pristine, staged = tmp_path / "pristine", tmp_path / "staged"
    if what == "an upgrade":
        agent("1.1")
    if what == "a repair":
        truncate(site_packages(bare.root / "venv") / "tinymath.py")
    if before:
        shutil.copytree(bare.root, pristine, symlinks=True)

    def keep(step: str) -> None:
        if step == "build":
            (place,) = bare.root.glob("venvs/incoming.*")
            shutil.copytree(place, staged)

    bare.wire.before = keep
    bare.provision(keys=KEY)
    _disarm(bare)
    order = bare.wire.orders["build"]
    for at in itertools.count(1):
        if at % 4 == 1:  # in between, what one kill left lies about when the next one comes
            shutil.rmtree(bare.root)
            if before:
                shutil.copytree(pristine, bare.root, symlinks=True)
        shutil.copytree(staged, bare.root / "venvs" / json.loads(order)["place"], dirs_exist_ok=True)
        if not _build_killed_at(at, order):
            break  # it makes fewer changes than that: every step has had its turn
        if what != "a repair":
            _survives(bare, before)
        if at % 4 == 0:
            _assert_whole(bare, bare.provision(keys=KEY))
    assert at > 30
    _assert_whole(bare, bare.provision(keys=KEY))
    assert (bare.root / "trust" / ("a" * 64 + ".pem")).read_bytes() == b"first key\n"


def test_killed_at_any_step_of_removing(bare: Any) -> None:
    for at in itertools.count(1):
        bare.provision(keys=KEY)
        _kill_at(bare, "remove", at)
        try:
            bare.remove()
            break
        except KnnkitError:
            _disarm(bare)
        # Taken away by one rename: what is in its place works, or is gone altogether.
        assert not bare.root.exists() or (bare.root / "venv" / "knnkit.json").is_file()
        bare.remove()
        assert list(bare.root.parent.iterdir()) == []
        if at > 12:
            break  # from here on it only deletes what has been renamed
    assert at > 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_connection_that_breaks_at_any_step(bare: Any, agent: Callable[[str], None], when: str) -> None:
    before = bare.provision(keys=KEY).environment
    for at in itertools.count(1):
        agent(f"2.{at}")
        left = itertools.count(at, -1)

        def cut(step: str, left: Any = left) -> None:
            if next(left) == 1:
                raise Unreachable("board: the connection broke", reason="connection-lost")

        setattr(bare.wire, when, cut)
        try:
            bare.provision(keys=KEY)
            break
        except Unreachable:
            _survives(bare, before)
        _disarm(bare)
        done = bare.provision(keys=KEY)
        bare.assert_whole(done)
        before = done.environment
    assert at >= 5


def test_an_upload_that_was_cut_goes_on_where_it_was(bare: Any) -> None:
    """Half a wheel arrives; the next run sends the other half."""
    real = bare.wire.inner.append
    sent = []

    def half(source: Any, remote: str, *, offset: int, size: int, timeout: float, progress: Any = None) -> None:
        sent.append((remote.rpartition("/")[2], offset))
        if len(sent) == 1:
            real(source, remote, offset=0, size=size, timeout=timeout)
            os.truncate(remote, size // 2)
            raise Unreachable("board: the connection broke", reason="connection-lost")
        real(source, remote, offset=offset, size=size, timeout=timeout, progress=progress)

    bare.wire.inner.append = half
    with pytest.raises(Unreachable):
        bare.provision()
    done = bare.provision()
    assert sent[0] == ("tinyruntime-1.0-py3-none-any.whl.part", 0)
    assert sent[1][0] == sent[0][0]
    assert sent[1][1] > 0
    bare.assert_whole(done)
