"""All bytecode of an environment is written, and read again, when it is made; the agent writes none.

Python does not notice that a full disk took a part of a .pyc file only. Each later start would end at that module.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

import device_agent
from knnkit.provision import environment

#: Modules that the code to prove an environment imports, in place of large packages.
STUBS = {
    "numpy.py": "__version__ = '1'",
    "cryptography/__init__.py": "__version__ = '1'",
    "cryptography/hazmat/primitives/asymmetric/ec.py": "",
}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """An environment with the agent, and no bytecode."""
    venv.EnvBuilder(symlinks=True, with_pip=False).create(tmp_path / "env")
    site = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    shutil.copytree(Path(device_agent.__file__).parent, site / "device_agent", ignore=shutil.ignore_patterns("*.pyc"))
    for name, content in STUBS.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(content)
    return tmp_path / "env"


def run(made: Path, *words: str, limit: int | None = None) -> int:
    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [str(made / "bin" / "python"), "-I", *words]
    return subprocess.run(command, capture_output=True, check=False, preexec_fn=limited).returncode


def test_a_new_environment_has_all_bytecode_of_the_agent(made: Path) -> None:
    assert run(made, "-c", environment.PROBE) == 0
    sources = {path.parent / path.stem for path in made.rglob("device_agent/**/*.py")}
    assert {path.parents[1] / path.name.split(".")[0] for path in made.rglob("device_agent/**/*.pyc")} == sources


def test_an_environment_whose_bytecode_was_cut_off_is_not_used(made: Path) -> None:
    assert run(made, "-c", environment.PROBE, limit=4000) != 0


def test_looking_at_an_environment_and_running_the_agent_writes_nothing(made: Path) -> None:
    assert run(made, "-c", environment.PROBE) == 0
    for path in made.rglob("*.pyc"):
        if path.parents[1].name != "device_agent":  # Python itself loads the agent's __init__ before its first line
            path.unlink()
    before = sorted(made.rglob("*"))
    assert run(made, "-B", "-c", environment.PROBE) == 0
    assert run(made, "-m", "device_agent", "--root", str(made / "root"), "status") == 0
    assert sorted(made.rglob("*")) == before
