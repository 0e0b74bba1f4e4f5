"""Limits of the system are named as what they are: memory, processes, inodes, and what a file system lacks."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.shared import os_errors
from device_agent.shared.protocol.errors import DeviceUnfit
from device_agent.shared.release import directory
from device_agent.system import durable, memory, sandbox

ROOT = Path(__file__).parents[3]
MB = 1 << 20


def group(kind: str) -> Iterator[Path]:
    """A control group of its own, gone when the test ends."""
    place = Path("/sys/fs/cgroup", kind, f"knnkit-test-{os.getpid()}")
    try:
        place.mkdir()
    except OSError:
        pytest.skip(f"needs root and control groups of version 1 with {kind}")
    yield place
    place.rmdir()


@pytest.fixture
def memory_group() -> Iterator[Path]:
    yield from group("memory")


@pytest.fixture
def pids_group() -> Iterator[Path]:
    yield from group("pids")


def inside(place: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Runs a program of Python as a member of a control group."""
    join = f"open({str(place / 'cgroup.procs')!r}, 'w').write('0')\n"
    argv = [sys.executable, "-c", join + program]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, env=env, check=False)


def test_the_memory_of_a_control_group_counts(memory_group: Path) -> None:
    (memory_group / "memory.limit_in_bytes").write_text(str(200 * MB))
    done = inside(memory_group, "from device_agent.system import memory\nprint(memory.available_bytes())")
    assert 100 * MB < int(done.stdout) <= 200 * MB, done.stderr


@pytest.mark.parametrize(
    ("membership", "files", "free"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "1000", "a/b/memory.current": "400"}, 600),
        ("0::/a/b\n", {"a/memory.max": "1000", "a/memory.current": "900", "a/b/memory.max": "max"}, 100),
        ("0::/a\n", {"a/memory.max": "9", "a/memory.current": "9", "a/memory.stat": "anon 5\ninactive_file 4\n"}, 4),
        ("0::/not/here\n", {"memory.max": "1000", "memory.current": "1"}, 999),
        ("4:cpu,memory:/a\n", {"memory/a/memory.limit_in_bytes": "50", "memory/a/memory.usage_in_bytes": "60"}, 0),
        ("0::/../..\n", {"memory.max": "max", "memory.current": "1"}, None),
    ],
)
def test_the_smallest_limit_of_either_version_decides(
    membership: str, files: dict[str, str], free: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    read = memory._text
    proc = {"/proc/self/cgroup": membership, "/proc/meminfo": ""}
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    monkeypatch.setattr(memory, "_text", lambda path: proc.get(str(path)) if str(path) in proc else read(path))
    assert memory.available_bytes() == free


def test_a_model_killed_for_memory_is_the_lack_of_a_device_and_no_refusal(memory_group: Path) -> None:
    (memory_group / "memory.limit_in_bytes").write_text(str(100 * MB))
    done = inside(
        memory_group,
        "from device_agent.system import sandbox\n"
        "from device_agent.shared.protocol.errors import AgentError\n"
        "def work():\n    return len(bytearray(b'x') * (400 << 20))\n"
        "try:\n    sandbox.run(work)\n"
        "except AgentError as error:\n    print(error.reason, error.exit_code)\n",
    )
    assert done.stdout == "out-of-memory 1\n", (done.returncode, done.stderr)


def test_a_model_that_asks_for_more_than_there_is_is_no_refusal() -> None:
    def work() -> int:
        return len(bytearray(1 << 60))

    with pytest.raises(DeviceUnfit) as caught:
        sandbox.run(work)
    assert (caught.value.reason, caught.value.exit_code) == ("out-of-memory", 1)


@pytest.mark.parametrize("words", [["check"], ["doctor"], ["classify"]])
def test_a_limit_of_processes_is_named(pids_group: Path, words: list[str], tmp_path: Path) -> None:
    (pids_group / "pids.max").write_text("1")
    call = f"from device_agent.cli import main\nimport sys\nsys.exit(main({['--root', str(tmp_path), *words]!r}))"
    done = inside(pids_group, call)
    assert "interrupted" not in done.stderr
    assert done.returncode in (1, 2), done.stderr


def test_openblas_without_a_thread_is_not_called_an_interruption(pids_group: Path) -> None:
    (pids_group / "pids.max").write_text("1")
    done = inside(
        pids_group,
        "import sys\nfrom device_agent.shared.console import program\nfrom device_agent import cli\n"
        "def run(words):\n    raise KeyboardInterrupt\n"
        "sys.exit(program.main('device_agent', [], run, cli._failed))",
    )
    assert done.returncode == 1
    assert "no further process or thread may be started" in done.stderr
    assert "ulimit -u" in done.stderr


@pytest.mark.parametrize(
    ("number", "reason", "word"),
    [
        (errno.ENOSPC, "disk-full", "df -h"),
        (errno.EDQUOT, "disk-full", "quota"),
        (errno.EROFS, "read-only", "mount"),
        (errno.ENOLCK, "no-locks", "NFS"),
        (errno.EAGAIN, "too-many-processes", "ulimit -u"),
        (errno.ENOMEM, "out-of-memory", "free -m"),
        (errno.EMFILE, "too-many-files", "ulimit -n"),
        (errno.EACCES, "no-permission", "chown"),
    ],
)
def test_host_and_agent_have_the_same_words_for_an_error(number: int, reason: str, word: str) -> None:
    from device_agent import cli
    from knnkit import errors

    error = OSError(number, os.strerror(number))
    for made in (cli._failed(error), errors.from_os_error(error)):
        assert made.reason == reason
        assert word in made.hint


def test_the_words_are_the_same_when_python_itself_runs_out_of_memory() -> None:
    from device_agent import cli

    made = cli._failed(MemoryError())
    assert (made.reason, "free -m" in made.hint) == ("out-of-memory", True)


def test_a_denied_file_leads_to_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = PermissionError(errno.EACCES, "denied", str(tmp_path / "my files" / "a.csv"))
    assert os_errors.explain(error)[2] == f"chmod u+rwX {tmp_path}"
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    hint = os_errors.explain(error)[2]
    assert hint.startswith(f"choose another place, or run as the owner of {tmp_path}: sudo -u ")


def test_a_lack_of_descriptors_is_not_a_damaged_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "release.json")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="Too many open files"), directory.open_release(tmp_path):
        pass


@pytest.mark.parametrize("call", ["copy_rest", "append"])
def test_a_full_disk_is_named_by_its_file(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", refuse)
    path, here = tmp_path / "model.tflite", Path(__file__)
    with here.open("rb") as source, pytest.raises(OSError, match="No space") as caught:
        durable.copy_rest(source.fileno(), here, path) if call == "copy_rest" else durable.append(path, b"x", 0)
    assert caught.value.filename == str(path)


def test_a_failing_read_of_a_copy_is_named_by_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "read", refuse)
    with pytest.raises(OSError, match="Input/output") as caught:
        durable.copy_rest(0, tmp_path / "usb" / "model.tflite", tmp_path / "model.tflite")
    assert caught.value.filename == str(tmp_path / "usb" / "model.tflite")


def _fill(place: Path) -> None:
    for number in range(9):
        durable.write_atomic(place / str(number), b"x")


def test_a_disk_without_inodes_is_told_from_a_full_one(tmp_path: Path) -> None:
    place = tmp_path / "few"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "nr_inodes=8,size=4m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs root, to mount a file system of eight inodes")
    try:
        with pytest.raises(OSError) as caught:  # noqa: PT011 (which error it is follows)
            _fill(place)
        reason, said, hint = os_errors.explain(caught.value)
        assert reason == "disk-full"
        assert "no inodes are left" in said
        assert hint.startswith("df -i ")
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize(
    ("call", "number", "said"),
    [("symlink", errno.EPERM, "no symbolic links"), ("fsync", errno.EINVAL, "cannot make the entries")],
)
def test_what_a_file_system_lacks_is_not_called_a_matter_of_rights(
    call: str, number: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As vfat and some network file systems answer; the kernel here cannot mount them all."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match=said) as caught:
        durable.point_link(tmp_path / "current", "x") if call == "symlink" else durable.sync_directory(tmp_path)
    assert os_errors.explain(caught.value)[0] == "file-system"


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_line_that_could_not_be_appended_is_not_in_the_file(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that reports an error has changed nothing: the next one must not find its line."""
    path, write = tmp_path / "journal", os.write
    path.write_bytes(b"one\n")
    path.chmod(0o600)

    def fail(descriptor: int, *data: bytes) -> None:
        for part in data:
            write(descriptor, part[:2])
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="Input/output error"):
        durable.append(path, b"two\n", 4)
    assert path.read_bytes() == b"one\n"
