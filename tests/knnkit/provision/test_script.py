"""What is sent to a board: one text for a bare Python, which leaves nothing there and says where it failed."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import ROOT

from device_agent.bootstrap import paths, remove
from device_agent.bootstrap.examine import prove
from device_agent.shared.protocol import constants
from device_agent.system import durable
from knnkit.errors import DeviceFailed, Unreachable
from knnkit.provision.remote_python import ask, onboard, script
from knnkit.transport.local import LocalTransport

REPOSITORY = ROOT
#: Stands for whatever lies where a Python looks for packages.
STRANGER = "raise ImportError('this is another knnkit')\n"


def _run(folder: Path, *words: str, **request: Any) -> subprocess.CompletedProcess[bytes]:
    """Runs `state` where nothing else can be imported: without site-packages, and in an empty folder."""
    command = [sys.executable, "-I", *(words or ("-S", "-")), "state", json.dumps(request)]
    return subprocess.run(command, input=script(), capture_output=True, timeout=60, check=False, cwd=folder)


def test_it_needs_nothing_but_a_python_and_leaves_nothing(tmp_path: Path) -> None:
    done = _run(tmp_path, root=str(tmp_path / "root"))
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["root"] == str(tmp_path / "root")
    assert list(tmp_path.iterdir()) == []


def test_a_knnkit_that_a_board_has_is_not_taken_for_it(tmp_path: Path) -> None:
    for name in ("knnkit", "device_agent"):
        (tmp_path / f"{name}.py").write_text(STRANGER)
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); exec(compile(sys.stdin.read(), '<stdin>', 'exec'))"
    done = _run(tmp_path, "-c", program, root=str(tmp_path / "root"))
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_traceback_names_the_module_and_its_line(tmp_path: Path) -> None:
    done = _run(tmp_path)  # a request without a root
    found = re.findall(r'File "(device_agent/\S+)", line (\d+), in (\w+)', done.stderr.decode())
    assert found
    name, line, function = found[-1]
    assert (name, function) == ("device_agent/bootstrap/inspect.py", "state")
    assert 'request["root"]' in (REPOSITORY / name).read_text().splitlines()[int(line) - 1]


def test_so_does_the_message() -> None:
    with pytest.raises(DeviceFailed, match=r"KeyError: 'root' \(device_agent/bootstrap/inspect\.py:\d+\)"):
        ask(LocalTransport(), sys.executable, "state", {}, timeout=60)


def test_the_same_sources_are_the_same_bytes_and_few_of_them() -> None:
    """It goes over the line with each of the four questions."""
    program = "import sys; from knnkit.provision.remote_python import script; sys.stdout.buffer.write(script())"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=environment)
        assert done.stdout == script()
    assert len(script()) < 48 << 10


def test_every_module_is_sent_and_older_boards_can_read_them_to_say_that_they_are_too_old() -> None:
    folder = REPOSITORY / "device_agent" / "bootstrap"
    assert sorted(onboard().values()) == sorted(path.read_text() for path in folder.iterdir() if path.suffix == ".py")
    for name, text in onboard().items():
        ast.parse(text, name, feature_version=(3, 8))
    ast.parse(script(), feature_version=(3, 8))


@pytest.mark.parametrize("printed", ["", "hello", "[1]", "5", '{"a": 1}\nlast words', "{" * 100_000, "\udcff"])
def test_an_environment_that_prints_no_object_last_does_not_run(printed: str, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f"#!/bin/sh\ncat '{tmp_path}/printed'\n")
    python.chmod(0o755)
    (tmp_path / "printed").write_text('noise\n{"a": 1}\n')
    assert prove(tmp_path, "pass") == {"a": 1}
    (tmp_path / "printed").write_text(printed, errors="surrogateescape")
    with pytest.raises(paths.Trouble, match="does not run") as found:
        prove(tmp_path, "pass")
    assert found.value.reason == "does-not-run"
    assert len(str(found.value)) < 1000


def test_it_calls_things_by_the_names_that_the_agent_calls_them_by() -> None:
    """It cannot ask the agent, which is not there yet."""
    names = (paths.VENVS, paths.LINK, paths.TRUST, paths.LOCK)
    assert names == (constants.VENVS_DIR, constants.VENV_LINK, constants.TRUST_DIR, constants.LOCK_FILE)
    assert remove.ASIDE == durable.ASIDE
    assert durable.temporary(Path("x")).name == f".x{remove.TEMPORARY}"


def test_a_script_that_takes_too_long_is_not_given_an_option_that_changes_nothing(tmp_path: Path) -> None:
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    for command, hint in (("build", "with --offline"), ("state", "run the command again")):
        with pytest.raises(Unreachable, match=r"did not end within 0\.2 s") as caught:
            ask(LocalTransport(), str(slow), command, {}, timeout=0.2)
        assert caught.value.hint.endswith(hint)
