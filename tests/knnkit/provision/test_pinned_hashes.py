"""Every wheel that a board may get has one SHA-256: the list covers what is promised, and nothing else is installed."""

from __future__ import annotations

import re
import shutil
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from support import ROOT
from support.tiny import lock
from support.wheels import digest, make_wheel
from test_requirements import PI

from knnkit.errors import DeviceFailed
from knnkit.provision import environment, pinned_hashes, wheel_cache
from knnkit.provision.requirements import WHEELS, Recipe, on_boards, with_pillow

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = ROOT
#: Row of "What a real board needs" in docs/boards.md -> architecture, C library.
PROMISED = {
    "Raspberry Pi OS Bookworm, 64 bit": [("aarch64", 36)],
    "Raspberry Pi OS Bookworm, 32 bit": [("armv7l", 36)],
    "Raspberry Pi OS Trixie, 64 bit": [("aarch64", 41)],
    "other x86-64 or 64-bit ARM": [("x86_64", 27), ("aarch64", 34)],
}
TINY = "tinymath-2.0-py3-none-any.whl"


# --- the list -----------------------------------------------------------------------------------------------------
def _promised() -> list[tuple[str, tuple[int, int], int]]:
    text = (REPOSITORY / "docs" / "boards.md").read_text(encoding="utf-8")
    # Where NumPy searches, the packages are those of the distribution.
    rows = re.findall(r"^\| (.+?) \| 3\.(\d+)(?: to 3\.(\d+))? \| (?!NumPy)", text, re.MULTILINE)
    assert {row[0] for row in rows} == set(PROMISED)
    return [
        (machine, (3, minor), glibc)
        for name, first, last in rows
        for machine, glibc in PROMISED[name]
        for minor in range(int(first), int(last or first) + 1)
    ]


@pytest.mark.parametrize(("machine", "python", "glibc"), _promised())
def test_every_wheel_of_every_promised_board_is_known(machine: str, python: tuple[int, int], glibc: int) -> None:
    for pins in WHEELS[machine][python].values():
        for pin in with_pillow(Recipe(machine, python, (2, glibc), pins)).pins:
            assert wheel_cache.known(pin, Recipe(machine, python, (2, glibc), pins)), pin


def test_every_board_of_the_table_of_versions_is_promised() -> None:
    assert {(m, p) for m, pythons in WHEELS.items() for p in pythons} == {(m, p) for m, p, _ in _promised()}


def test_nothing_is_known_but_the_versions_that_boards_get() -> None:
    stems = tuple(pinned_hashes.normalised(pin).replace("==", "-") + "-" for pin in on_boards())
    for name, value in pinned_hashes.known().items():
        assert pinned_hashes.normalised(name).startswith(stems), name
        assert re.fullmatch("[0-9a-f]{64}", value), name


def test_versions_are_those_of_the_agent_s_extra() -> None:
    """pyproject.toml says what the agent runs with; a bare board gets just that."""
    extra = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]["agent"]
    for pythons in WHEELS.values():
        for python, found in pythons.items():
            versions = dict(pin.split("==") for pin in next(iter(found.values())))
            here = {**default_environment(), "python_version": f"{python[0]}.{python[1]}"}
            for wanted in map(Requirement, extra):
                if wanted.name in versions and (wanted.marker is None or wanted.marker.evaluate(here)):
                    assert versions[wanted.name] in wanted.specifier, (python, str(wanted))


def test_a_folder_of_wheels_can_be_held_against_the_list_by_hand(tmp_path: Path) -> None:
    text = pinned_hashes.LOCK.read_text()
    assert pinned_hashes.parse(text) == pinned_hashes.known()
    assert all(re.fullmatch(r"#.*|[0-9a-f]{64}  \S+\.whl", line) for line in text.splitlines())


# --- the host's folder --------------------------------------------------------------------------------------------
@pytest.fixture
def tampered(bare: Any) -> Path:
    """A wheel by a known name and version that would leave a mark, did anything of it run."""
    mark = bare.root.parent.parent / "it-ran"
    files = {"tinymath.py": f"pi = 3\nopen({str(mark)!r}, 'w')\n"}
    path = make_wheel(bare.wheels, "tinymath", "2.0", files)
    assert digest(path) != pinned_hashes.known()[path.name]
    return mark


@pytest.mark.parametrize("named", [True, False])
def test_a_wheel_in_a_folder_that_is_not_what_its_name_says_is_refused(
    bare: Any, tampered: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    monkeypatch.delenv("KNNKIT_WHEELS", raising=False)
    if not named:
        monkeypatch.setattr(wheel_cache, "default_folder", lambda: bare.wheels)
    with pytest.raises(DeviceFailed) as caught:
        bare.provision(wheels_dir=bare.wheels if named else None)
    path = bare.wheels / TINY
    assert caught.value.reason == "wheel-differs"
    assert f"{path} differs from the wheel of this name on PyPI" in str(caught.value)
    assert digest(path) in str(caught.value)
    assert pinned_hashes.known()[TINY] in str(caught.value)
    assert f"rm {path}" in caught.value.hint
    assert not bare.root.exists()
    assert not tampered.exists()


def test_a_wheel_of_the_user_s_own_making_is_taken_from_a_folder_that_he_names(
    bare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = bare.wheels / "tinymath-2.0-1mine-py3-none-any.whl"
    (bare.wheels / TINY).rename(own)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    done = bare.provision()
    said = f"these wheels from {bare.wheels} were used without a check, since their SHA-256 is not known"
    assert done.notes == (f"{said}: {own.name}",)
    bare.assert_whole(done)


@pytest.mark.parametrize("name", ["Tinymath-2.0-py3-none-any.whl", "TINYMATH-2.0-py3-none-any.whl"])
def test_a_known_name_that_is_spelt_otherwise_is_known(bare: Any, tampered: Path, name: str) -> None:
    (bare.wheels / TINY).rename(bare.wheels / name)
    with pytest.raises(DeviceFailed, match=f"{name} differs from the wheel of this name on PyPI") as caught:
        bare.provision()
    assert caught.value.reason == "wheel-differs"
    assert not tampered.exists()


def test_in_the_cache_only_known_wheels_count(bare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (bare.wheels / TINY).rename(bare.wheels / "tinymath-2.0-1mine-py3-none-any.whl")
    monkeypatch.delenv("KNNKIT_WHEELS", raising=False)
    monkeypatch.setattr(wheel_cache, "default_folder", lambda: bare.wheels)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DeviceFailed, match=r"cannot download tinymath==2\.0") as caught:
        bare.provision(wheels_dir=None)
    assert caught.value.reason == "no-wheel"


def test_a_known_wheel_goes_before_one_of_the_user_s_own(bare: Any) -> None:
    shutil.copy(bare.wheels / TINY, bare.wheels / "tinymath-2.0-1mine-py3-none-any.whl")
    assert bare.provision().notes == ()


def test_what_a_board_holds_with_other_bytes_is_sent_anew(
    bare: Any, agent: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was provisioned before wheels were known by their bytes, or from somebody's own folder."""
    bare.provision()
    make_wheel(bare.wheels, "tinymath", "2.0", {"tinymath.py": "pi = 3.1\n"})
    lock(monkeypatch, bare.wheels)
    agent("1.1")
    done = bare.provision()
    (module,) = (bare.root / "venvs" / done.environment).rglob("tinymath.py")
    assert module.read_text() == "pi = 3.1\n"


# --- an index -----------------------------------------------------------------------------------------------------
class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        """Says nothing."""


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], str]]:
    """Serves folders of wheels as simple indexes on this machine; returns the address of each."""
    servers = []
    for name in ("PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("no_proxy", "*")

    def start(folder: Path) -> str:
        for path in folder.glob("*.whl"):
            page = folder / "simple" / path.name.partition("-")[0] / "index.html"
            page.parent.mkdir(parents=True)
            page.write_text(f'<!DOCTYPE html><a href="/{path.name}#sha256={digest(path)}">{path.name}</a>')
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/simple"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


def test_what_is_fetched_from_an_index_is_what_is_known(
    bare: Any, serve: Callable[[Path], str], empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", serve(bare.wheels))
    bare.assert_whole(bare.provision(wheels_dir=empty))
    assert {path.name: digest(path) for path in empty.iterdir()} == pinned_hashes.known()


def test_an_index_that_serves_other_bytes_is_refused_by_the_host(
    bare: Any, tampered: Path, serve: Callable[[Path], str], empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = serve(bare.wheels)
    monkeypatch.setenv("PIP_INDEX_URL", address.replace("//", "//ann:secret@"))
    with pytest.raises(DeviceFailed) as caught:
        bare.provision(wheels_dir=empty)
    assert caught.value.reason == "wheel-differs"
    assert f"the package index has another {TINY} for x86_64, Python 3." in str(caught.value)
    assert digest(bare.wheels / TINY) in str(caught.value)
    assert "secret" not in str(caught.value) + caught.value.hint
    assert "pip config list" in caught.value.hint
    assert not list(empty.iterdir())
    assert not bare.root.exists()
    assert not tampered.exists()


@pytest.fixture
def piwheels(bare: Any, serve: Callable[[Path], str], tmp_path: Path) -> tuple[str, str]:
    """Two indexes: one as the list has it, and one that has built the same wheels again."""
    again = tmp_path / "again"
    shutil.copytree(bare.wheels, again)
    for path in again.iterdir():
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("built_again.py", "")
    return serve(bare.wheels), serve(again)


def test_of_two_indexes_the_board_s_pip_takes_the_wheel_that_is_known(bare: Any, piwheels: tuple[str, str]) -> None:
    """As on Raspberry Pi OS, where piwheels stands beside PyPI."""
    good, again = piwheels
    bare.wire.environment = {"PIP_INDEX_URL": again, "PIP_EXTRA_INDEX_URL": good}
    done = bare.provision(offline=False, wheels_dir=bare.root / "unused")
    assert (done.notes, done.sent) == ((), len(environment.agent_wheel()[1]))
    assert not list(bare.root.rglob("built_again.py"))
    bare.assert_whole(done)


def test_where_the_board_s_index_has_other_bytes_the_host_sends(bare: Any, piwheels: tuple[str, str]) -> None:
    bare.wire.environment = {"PIP_INDEX_URL": piwheels[1]}
    done = bare.provision(offline=False)
    assert "differs from PyPI's and was not used: this host sent the wheels" in done.notes[0]
    assert not list(bare.root.rglob("built_again.py"))
    bare.assert_whole(done)


def test_a_pip_that_does_not_look_is_looked_after(bare: Any, piwheels: tuple[str, str], tmp_path: Path) -> None:
    """The board's pip is made to forget what it was told."""
    real = tmp_path / "shadow" / "pip"
    real.mkdir(parents=True)
    (real / "__init__.py").write_text("")
    (real / "__main__.py").write_text(
        "import shutil, sys\nfrom pathlib import Path\n"
        "into = sys.argv[sys.argv.index('--dest') + 1]\n"
        f"for path in Path({str(tmp_path / 'again')!r}).glob('*.whl'): shutil.copy(path, into)\n"
    )
    bare.wire.environment = {"PYTHONPATH": str(real.parent)}
    done = bare.provision(offline=False)
    assert "was not used" in done.notes[0]
    assert not list(bare.root.rglob("built_again.py"))
    bare.assert_whole(done)


def test_pip_is_told_every_digest_that_fits_the_board() -> None:
    line = wheel_cache.requirement("pycparser==2.23", PI).split()
    assert line[0] == "pycparser==2.23"
    assert line[1:] == [f"--hash=sha256:{value}" for value in wheel_cache.known("pycparser==2.23", PI).values()] != []
