"""A board gets what it needs, once; the second time nothing happens; an upgrade is a switch, and so is the way back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.tiny import lock
from support.wheels import make_wheel

from device_agent.bootstrap import main as onboard
from device_agent.system import durable
from knnkit.errors import DeviceFailed, DeviceLocked
from knnkit.fleet.device.probe import probe
from knnkit.provision import environment, install
from knnkit.provision import remote_python as board_module
from knnkit.transport.local import LocalTransport

KEY, OTHER = {"sha256:" + "a" * 64: b"first key\n"}, {"sha256:" + "b" * 64: b"second key\n"}


def test_a_bare_board_gets_an_environment_of_its_own(bare: Any) -> None:
    done = bare.provision(keys=KEY)
    assert done.changed
    assert done.previous is None
    assert done.runtime == "tinyruntime==1.0"
    bare.assert_whole(done)
    assert (bare.root / "trust" / ("a" * 64 + ".pem")).read_bytes() == b"first key\n"
    assert done.keys_added == tuple(KEY)


def test_every_folder_is_for_its_owner_alone(bare: Any) -> None:
    bare.provision(keys=KEY)
    assert set(bare.folders().values()) == {0o700}


def test_the_second_time_one_question_is_asked_and_nothing_is_touched(bare: Any) -> None:
    first = bare.provision(keys=KEY)
    before = bare.tree()
    bare.wire.commands.clear()
    again = bare.provision(keys=KEY)
    assert not again.changed
    assert again.environment == first.environment
    assert bare.wire.commands == ["state"]
    assert bare.tree() == before


def test_an_upgrade_sends_the_agent_alone_and_a_downgrade_nothing(bare: Any, agent: Callable[[str], None]) -> None:
    first = bare.provision()
    agent("1.1")
    second = bare.provision()
    assert second.agent == "1.1"
    assert second.previous == first.environment
    assert second.sent == len(environment.agent_wheel()[1])
    bare.assert_whole(second)
    agent("1.0")
    back = bare.provision()
    assert (back.environment, back.previous, back.sent) == (first.environment, second.environment, 0)
    bare.assert_whole(back)


def test_wheels_of_an_earlier_environment_are_linked_not_copied(bare: Any, agent: Callable[[str], None]) -> None:
    first = bare.provision()
    agent("1.1")
    second = bare.provision()
    (one,), (two,) = ((bare.root / "venvs" / done.environment).rglob("tinymath.py") for done in (first, second))
    assert one.samefile(two)


def test_a_file_that_changed_on_the_board_is_sent_again(bare: Any, agent: Callable[[str], None]) -> None:
    first = bare.provision()
    (damaged,) = (bare.root / "venvs" / first.environment).rglob("tinymath.py")
    damaged.write_text("pi = 4\n")
    agent("1.1")
    second = bare.provision()
    (fresh,) = (bare.root / "venvs" / second.environment).rglob("tinymath.py")
    assert fresh.read_text() == "pi = 3\n"


def test_only_the_environment_before_is_kept(bare: Any, agent: Callable[[str], None]) -> None:
    bare.provision()
    for version in ("1.1", "1.2"):
        agent(version)
        done = bare.provision()
    assert len(list((bare.root / "venvs").iterdir())) == 2
    bare.assert_whole(done)


def test_an_environment_whose_python_went_away_is_made_anew(bare: Any) -> None:
    first = bare.provision()
    python = bare.root / "venvs" / first.environment / "bin" / "python"
    python.unlink()
    python.symlink_to("/no/such/python3")
    again = bare.provision()
    assert again.changed
    bare.assert_whole(again)


def test_an_environment_that_lost_a_file_is_made_anew(bare: Any) -> None:
    first = bare.provision()
    (lost,) = (bare.root / "venvs" / first.environment).rglob("tinymath.py")
    lost.unlink()
    again = bare.provision()
    assert again.changed
    assert lost.read_text() == "pi = 3\n"
    bare.assert_whole(again)


def test_a_lost_link_is_put_back_without_sending_anything(bare: Any) -> None:
    bare.provision()
    (bare.root / "venv").unlink()
    again = bare.provision()
    assert again.sent == 0
    bare.assert_whole(again)


def test_keys_are_added_and_never_taken_away(bare: Any) -> None:
    first = bare.provision(keys=KEY)
    second = bare.provision(keys=OTHER)
    assert second.keys_added == tuple(OTHER)
    assert second.environment == first.environment
    assert {path.name for path in (bare.root / "trust").iterdir()} == {"a" * 64 + ".pem", "b" * 64 + ".pem"}


def test_an_environment_that_does_not_run_is_never_used(
    bare: Any, agent: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bare.provision()
    agent("1.1")
    monkeypatch.setattr(environment, "PROBE", "import absent")
    with pytest.raises(DeviceFailed, match="No module named 'absent'") as caught:
        bare.provision()
    assert caught.value.reason == "does-not-run"
    bare.assert_whole(first)


def test_a_bare_board_on_which_it_does_not_run_stays_bare(bare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PROBE", "import absent")
    with pytest.raises(DeviceFailed):
        bare.provision()
    assert not bare.root.exists()


@pytest.mark.parametrize(
    "name", ["../outside.py", "/outside.py", "a/../../outside.py", "a\\..\\b.py", "a//b.py", "./a.py"]
)
def test_a_wheel_that_reaches_outside_is_refused(bare: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    make_wheel(bare.wheels, "tinymath", "2.0", {"tinymath.py": "pi = 3\n", name: "gotcha = True\n"})
    lock(monkeypatch, bare.wheels)
    with pytest.raises(DeviceFailed, match="unsafe name") as caught:
        bare.provision()
    assert caught.value.reason == "bad-wheel"
    assert not bare.root.exists()
    assert not list(bare.root.parent.rglob("outside.py"))


def test_a_wheel_that_holds_a_link_is_refused(bare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import zipfile

    entry = zipfile.ZipInfo("tinymath.py")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(bare.wheels / "tinymath-2.0-py3-none-any.whl", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    lock(monkeypatch, bare.wheels)
    with pytest.raises(DeviceFailed, match="has a link"):
        bare.provision()
    assert not bare.root.exists()


def test_a_damaged_wheel_is_named(bare: Any) -> None:
    (bare.wheels / "tinymath-2.0-py3-none-any.whl").write_bytes(b"not a zip")
    with pytest.raises(DeviceFailed, match=r"tinymath-2\.0-py3-none-any\.whl is damaged"):
        bare.provision()
    assert not bare.root.exists()


def _changed(*places: tuple[bytes, int, bytes]) -> Callable[[Path], None]:
    """Writes bytes at an offset from where the first record of a kind begins in the wheel."""

    def harm(path: Path) -> None:
        content = bytearray(path.read_bytes())
        for kind, offset, value in places:
            at = content.index(kind) + offset
            content[at : at + len(value)] = value
        path.write_bytes(content)

    return harm


def _twice(name: str) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        import zipfile

        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, "more")

    return harm


_ENTRY, _LISTED = b"PK\x03\x04", b"PK\x01\x02"


@pytest.mark.parametrize(
    "harm",
    [
        _changed((_ENTRY, 14, b"\0\0\0\0"), (_LISTED, 16, b"\0\0\0\0")),
        _changed((_ENTRY, 6, b"\1"), (_LISTED, 8, b"\1")),
        _changed((_ENTRY, 8, b"\x63"), (_LISTED, 10, b"\x63")),
        _changed((_LISTED, 6, b"\x63")),
        _changed((_LISTED, 9, b"\x08"), (_LISTED, 46, b"\xff")),
        _changed((_LISTED, 42, b"\x88\x13")),
        _twice("tinymath.py/more.py"),
        pytest.param(_twice("tinymath.py"), marks=pytest.mark.filterwarnings("ignore:Duplicate name")),
    ],
    ids=["checksum", "password", "method", "version", "name", "offset", "file and folder", "twice"],
)
def test_a_wheel_that_cannot_be_unpacked_is_named(
    bare: Any, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], None]
) -> None:
    """It is in a folder of the user's own: of what is known, every byte is."""
    harm(bare.wheels / "tinymath-2.0-py3-none-any.whl")
    lock(monkeypatch, bare.wheels)
    with pytest.raises(DeviceFailed, match=r"tinymath-2\.0-py3-none-any\.whl") as caught:
        bare.provision()
    assert caught.value.reason == "bad-wheel"
    assert not bare.root.exists()


def test_what_is_no_file_in_a_folder_of_wheels_is_not_waited_for(bare: Any) -> None:
    path = bare.wheels / "tinymath-2.0-py3-none-any.whl"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DeviceFailed, match=r"tinymath-2\.0-py3-none-any\.whl is damaged: it is not a file"):
        bare.provision()


def test_a_wheel_that_changed_on_its_way_is_not_used(bare: Any) -> None:
    def meddle(step: str) -> None:
        if step == "build":
            (path,) = bare.root.glob("venvs/incoming.*/tinymath*.whl.part")
            path.write_bytes(path.read_bytes()[:-1] + b"x")

    bare.wire.before = meddle
    with pytest.raises(DeviceFailed, match="arrived incomplete") as caught:
        bare.provision()
    assert caught.value.reason == "missing-wheel"
    bare.wire.before = lambda step: None
    bare.assert_whole(bare.provision())


def _with(monkeypatch: pytest.MonkeyPatch, **said: Any) -> None:
    real = board_module.ask

    def ask(transport: Any, python: str, command: str, order: dict[str, Any], *, timeout: float) -> dict[str, Any]:
        answer = real(transport, python, command, order, timeout=timeout)
        return {**answer, **said} if command == "state" else answer

    monkeypatch.setattr(board_module, "ask", ask)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"disk_free": 1 << 20}, "no-space"),
        ({"read_only": True}, "read-only"),
        ({"writable": False}, "cannot-write"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is(
    bare: Any, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], reason: str
) -> None:
    _with(monkeypatch, **said)
    with pytest.raises(DeviceFailed) as caught:
        bare.provision()
    assert caught.value.reason == reason
    assert caught.value.hint
    assert not bare.root.exists()


def test_what_the_system_of_the_board_refuses_is_told_without_python_s_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied", "/root/x")

    monkeypatch.setitem(onboard.COMMANDS, "state", refuse)
    monkeypatch.setattr(onboard.os, "umask", lambda _: 0)
    assert onboard.main("state", "{}") == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["message"] == "/root/x: Permission denied"
    assert answer["hint"] == "choose a root that the login user may write"


def test_two_hosts_do_not_provision_one_board_at_once(bare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    monkeypatch.setattr(install, "LOCK_SECONDS", 0.2)
    bare.provision()
    (bare.root / "venv").unlink()
    handle = os.open(bare.root / "venvs", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(DeviceLocked, match="another host is provisioning"):
            bare.provision()
        with pytest.raises(DeviceLocked):
            bare.remove()
    finally:
        os.close(handle)
    bare.assert_whole(bare.provision())


def test_remove_leaves_nothing(bare: Any) -> None:
    bare.provision(keys=KEY)
    for name in ("releases", "incoming"):
        (bare.root / name).mkdir()
    for name in ("state.json", "history.jsonl", "lock", "state.json.part", "device-class", "state.json.bad-2"):
        (bare.root / name).write_text("")
    for name in ("state.json", "history.jsonl", "current"):  # a power cut came just then
        durable.temporary(bare.root / name).write_text("")
    assert bare.remove() is True
    assert list(bare.root.parent.iterdir()) == []
    assert bare.remove() is False


def test_remove_refuses_a_folder_that_holds_something_else(bare: Any) -> None:
    bare.provision()
    (bare.root / "holiday.jpg").write_text("")
    before = bare.tree()
    with pytest.raises(DeviceFailed, match=r"holiday\.jpg") as caught:
        bare.remove()
    assert caught.value.reason == "not-ours"
    assert bare.tree() == before


@pytest.mark.parametrize("root", ["~", "/", "/.."])
def test_a_home_directory_is_never_taken_for_a_root(bare: Any, root: str) -> None:
    bare.root = Path(root)
    for act in (bare.provision, bare.remove):
        with pytest.raises(DeviceFailed) as caught:
            act()
        assert caught.value.reason == "bad-root"


def test_a_file_where_the_root_should_be_is_named(bare: Any) -> None:
    bare.root.parent.mkdir()
    bare.root.write_text("")
    with pytest.raises(DeviceFailed, match="not a folder"):
        bare.provision()


def test_the_board_s_own_pip_fetches_where_it_can(bare: Any) -> None:
    bare.wire.environment = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(bare.wheels), "PIP_CONFIG_FILE": "/dev/null"}
    done = bare.provision(offline=False, wheels_dir=bare.root / "unused")
    assert done.sent == len(environment.agent_wheel()[1])
    assert done.notes == ()
    bare.assert_whole(done)


def test_where_the_board_cannot_fetch_the_host_sends(bare: Any, tmp_path: Path) -> None:
    bare.wire.environment = {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path / "none"),
        "PIP_CONFIG_FILE": "/dev/null",
    }
    done = bare.provision(offline=False)
    assert "this host sent the wheels" in done.notes[0]
    bare.assert_whole(done)


def test_a_board_without_pip_gets_the_wheels_from_the_host(bare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _with(monkeypatch, pip=False)
    done = bare.provision(offline=False)
    assert "no pip" in done.notes[0]
    bare.assert_whole(done)


def test_the_embedded_device_runs_the_real_agent_and_no_module_of_its_login_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real wheels, from the cache that this suite's setup fills."""
    transport = LocalTransport()
    facts = type("Facts", (), {"python": None, "python_path": None})()
    done = install.provision(transport, facts, root=str(tmp_path / "root"))
    python = str(tmp_path / "root" / "venv" / "bin" / "python")
    said = transport.run(
        [python, "-m", "device_agent", "--root", str(tmp_path / "root"), "status", "--json"], timeout=60
    )
    assert said.exit_code == 0, said.complaint
    assert f'"agent":"{done.agent}"'.encode() in said.stdout
    assert not install.provision(transport, facts, root=str(tmp_path / "root")).changed
    home = tmp_path / "home"
    (home / "device_agent").mkdir(parents=True)
    for name in ("device_agent/__init__.py", "json.py", "numpy.py"):
        (home / name).write_text("raise SystemExit('it is somebody else's')\n")
    monkeypatch.setenv("HOME", str(home))
    assert probe(transport, str(tmp_path / "root"), timeout=60).agent is not None
