"""status, doctor, bench, history, help: what the agent says of the board, and how it says that something is wrong."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import crashpoints
from support.crashpoints import Fault
from support.device import ROOT, Device
from support.releases import Releases

from device_agent import cli
from device_agent.commands import COMMANDS
from device_agent.diagnostics import bench, doctor, status
from device_agent.serving.load import answering, load_accepted
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.documents import History, HistoryEntry, ReleaseRef, Status, TrustedKeys
from device_agent.shared.protocol.errors import AgentError, DeviceUnfit
from device_agent.shared.protocol.reports import Bench, Diagnosis, Finding, Problem
from device_agent.shared.protocol.versions import utc
from device_agent.store import history, transitions
from device_agent.store.state import StoreState
from device_agent.store.store import Store
from device_agent.system import board, clock


def test_status_of_a_device_that_has_nothing(device: Device) -> None:
    status = json_codec.from_plain(Status, device.ask("status"))
    assert (status.committed, status.pending, status.answering, status.staged, status.floor) == (
        None,
        None,
        None,
        (),
        0,
    )
    assert len(status.trusted) == 1
    assert status.device.machine == os.uname().machine
    assert status.device.memory_bytes > 0
    assert status.disk_free_bytes > 0
    assert status.runtime


def test_status_creates_nothing(tmp_path: Path, device: Device) -> None:
    elsewhere = tmp_path / "elsewhere"
    done = subprocess.run(
        [sys.executable, "-m", "device_agent", "status", "--root", str(elsewhere), "--json"],
        capture_output=True,
        env=device.env(),
        check=True,
    )
    assert json.loads(done.stdout)["root"] == str(elsewhere)
    assert not elsewhere.exists()


def test_the_root_comes_from_the_option_else_the_environment(tmp_path: Path, device: Device) -> None:
    argv = [sys.executable, "-m", "device_agent", "status", "--json"]
    env = device.env(KNNKIT_ROOT=str(tmp_path / "by-environment"))
    for more, root in (([], "by-environment"), (["--root", str(tmp_path / "by-option")], "by-option")):
        done = subprocess.run([*argv, *more], capture_output=True, env=env, check=True)
        assert json.loads(done.stdout)["root"] == str(tmp_path / root)


def test_the_python_of_a_root_finds_this_root(tmp_path: Path) -> None:
    """The environment is a link, as `knnkit provision` makes it."""
    python = tmp_path / "garden" / constants.VENV_LINK / "bin" / "python"
    environment = tmp_path / "garden" / constants.VENVS_DIR / "abc"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (tmp_path / "garden" / constants.VENV_LINK).symlink_to(environment)
    packages = os.pathsep.join([str(ROOT), *sys.path])
    for env, root in (({}, "garden"), ({"KNNKIT_ROOT": str(tmp_path / "other")}, "other")):
        argv = [python, "-m", "device_agent", "status", "--json"]
        done = subprocess.run(argv, capture_output=True, env={"PYTHONPATH": packages, **env}, check=True)
        assert json.loads(done.stdout)["root"] == str(tmp_path / root)


def test_a_status_gives_dates_as_people_read_them(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.changing("ann", "a deployment"):
        store.commit(StoreState(time_floor=2**33))
        begin = {"created": 0, "holder": "ann", "connection": "", "seconds": 60.0}
        new = ReleaseRef("ab" * 32, "fruit", "1.0", 1)
        store.commit(transitions.begin(store.load(), new, **begin, moment=clock.now()))
    found = status.status(store)
    assert any(f"the time is at least {utc(2**33)}" in warning for warning in found.warnings)
    assert found.lock is not None
    assert f"(since {utc(found.lock.since)})" in status.render(found)


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("aaaaaa", "2 releases on this device start with 'aaaaaa'"),
        ("bbbbbb", "no releases on this device start with 'bbbbbb'"),
        ("cc", "'cc' has fewer than 6 digits"),
    ],
)
def test_a_release_is_found_by_its_first_digits_or_it_is_said_why_not(prefix: str, said: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    for digest in ("a" * 6 + "1" * 58, "a" * 6 + "2" * 58, "c" * 64):
        store.release_path(digest).mkdir(parents=True)
    assert store.find("aaaaaa1") == "a" * 6 + "1" * 58
    with pytest.raises(AgentError) as caught:
        store.find(prefix)
    assert str(caught.value) == said


@pytest.mark.parametrize("command", ["status", "check", "classify"])
def test_a_read_only_file_system_keeps_answering(device: Device, releases: Releases, command: str) -> None:
    device.install(releases["iris"])
    argv = ["--root", str(device.root), command]
    rows = device.root.parent / "rows.csv"
    rows.write_text("5.1,3.5,1.4,0.2\n")
    argv += ["--input", str(rows)] if command == "classify" else ["--json"]
    ended = crashpoints.run(lambda: cli.main(argv), device.root, Fault(0, "EROFS", lasting=True))
    assert ended.code == 0, ended.err
    assert ended.out


def test_on_a_read_only_file_system_a_change_is_refused_with_the_reason(device: Device, releases: Releases) -> None:
    digest = device.install(releases["iris"])
    argv = ["--root", str(device.root), "stage", str(releases["iris-next"]), "--json"]
    ended = crashpoints.run(lambda: cli.main(argv), device.root, Fault(0, "EROFS", lasting=True))
    problem = json_codec.loads(Problem, ended.out)
    assert (ended.code, problem.reason) == (constants.EXIT_FAILED, "read-only")
    assert device.answering() == digest


def can_mount() -> bool:
    return os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], check=False).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="needs root and mount name spaces")
def test_a_root_that_is_really_mounted_read_only_keeps_answering(device: Device, releases: Releases) -> None:
    device.install(releases["iris"])
    agent = f"{sys.executable} -m device_agent --root {device.root}"
    script = (
        f"mount --bind {device.root} {device.root} && mount -o remount,ro,bind {device.root} && "
        f"echo 5.1,3.5,1.4,0.2 | {agent} classify && {agent} check --json >&2 && {agent} prune"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, env=device.env(), cwd=ROOT, check=False
    )
    assert done.returncode == constants.EXIT_FAILED, done.stderr
    assert done.stdout == b"setosa\n"
    assert b"Read-only file system" in done.stderr


def test_a_healthy_device_has_a_clean_bill(device: Device, releases: Releases) -> None:
    device.install(releases["iris"])
    found = json_codec.from_plain(Diagnosis, device.ask("doctor"))
    names = [finding.name for finding in found.findings]
    assert names == [
        "python", "numpy", "runtime", "cryptography", "root", "disk", "clock", "trust", "state", "release",
        *["governor"] * (board.governor() is not None),
    ]  # fmt: skip
    assert [finding for finding in found.findings if finding.level == "error"] == []
    assert device.run("doctor").code == 0


def test_every_finding_of_the_doctor_comes_with_what_mends_it(device: Device, releases: Releases) -> None:
    digest = device.install(releases["iris"])
    (device.root / constants.RELEASES_DIR / digest / constants.MODEL_FILE).write_bytes(b"")
    shutil.rmtree(device.root / constants.TRUST_DIR)
    device.root.chmod(0o755)
    found = json_codec.from_plain(Diagnosis, device.ask("doctor"))
    wrong = {finding.name: finding for finding in found.findings if finding.level != "ok"}
    assert set(wrong) >= {"root", "trust", "release"}
    assert all(finding.mend for finding in wrong.values())
    assert wrong["root"].mend == f"chmod 700 {device.root}"
    said = device.run("doctor")
    assert said.code == constants.EXIT_FAILED
    assert "try: " in said.out


def test_what_mends_a_root_with_a_blank_in_its_name_can_be_typed(tmp_path: Path) -> None:
    root = tmp_path / "my board"
    root.mkdir(mode=0o755)
    root.chmod(0o755)
    found = {finding.name: finding for finding in doctor.diagnose(Store(root)).findings}
    assert found["root"].mend == f"chmod 700 '{root}'"


@pytest.mark.parametrize(
    ("work", "message", "mend"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGUSR1), "the check crashed: a library is damaged", "provision"),
        (lambda: os._exit(0), "the check crashed: a library is damaged", "provision"),
        (lambda: 1 // 0, "the check crashed: a library is damaged", "provision"),
        (lambda: bytearray(1 << 60), "there is not enough memory", "free -m"),
        (lambda: (_ for _ in ()).throw(DeviceUnfit("no", hint="try this")), "no", "try this"),
        (lambda: os.listdir("/nowhere"), "/nowhere", ""),  # noqa: PTH208
    ],
    ids=["signal", "exit", "exception", "memory", "fault", "file"],
)
def test_a_check_that_ends_in_any_way_is_one_finding(
    work: Callable[[], object], message: str, mend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def _bad(store: Store) -> Iterator[Finding]:
        work()
        yield doctor._ok("bad", "never")

    monkeypatch.setattr(doctor, "_CHECKS", (_bad, doctor._python))
    bad, python = doctor.diagnose(Store(tmp_path)).findings
    assert (bad.name, bad.level) == ("bad", "error")
    assert message in bad.message
    assert mend in bad.mend
    assert python.level == "ok"


@pytest.mark.parametrize("fault", ["read-only", "not writable", "a file for a folder"])
def test_no_remark_about_a_root_hides_an_error(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o755)
    (finding,) = doctor._root(Store(tmp_path))
    assert (finding.level, finding.mend) == ("warning", f"chmod 700 {tmp_path}")
    if fault == "read-only":
        monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    elif fault == "not writable":
        monkeypatch.setattr(os, "access", lambda *_: False)
    else:
        (tmp_path / "releases").write_text("")
    (finding,) = doctor._root(Store(tmp_path))
    assert finding.level == "error"


def test_what_mends_a_folder_of_another_user_keeps_what_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    folder = tmp_path / "releases"
    folder.mkdir()
    monkeypatch.setattr(os, "access", lambda path, _: path != folder)
    (finding,) = doctor._root(Store(tmp_path))
    assert finding.mend == f"sudo chown -R {os.geteuid()} {folder}; chmod u+rwx {folder}"


def test_as_root_the_doctor_never_takes_a_root_from_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    if not (owner := tmp_path.stat().st_uid):
        os.chown(tmp_path, owner := 12345, -1)
    (finding,) = doctor._root(Store(tmp_path))
    assert finding.mend == f"run as the owner of {tmp_path}: sudo -u '#{owner}' COMMAND"


def test_a_root_that_nobody_can_look_into_is_the_only_finding_about_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    wrong = [each for each in doctor.diagnose(Store(file)).findings if each.level != "ok"]
    assert [(each.name, each.mend) for each in wrong] == [("folder", "name the folder of the releases: --root DIR")]

    def refuse(path: Path) -> list[str]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    wrong = [each for each in doctor.diagnose(Store(tmp_path)).findings if each.level != "ok"]
    assert [(each.name, each.message) for each in wrong] == [("folder", f"{tmp_path}: Permission denied")]


def test_a_key_file_that_is_none_is_removed_by_its_name(tmp_path: Path, releases: Releases) -> None:
    board = Device(tmp_path / "my root", releases)
    (board.root / constants.TRUST_DIR / "other: key.pem").write_text("x")
    (wrong,) = [each for each in doctor._trust(Store(board.root)) if each.level != "ok"]
    assert wrong.mend == f"rm '{board.root}/trust/other: key.pem'"


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_key_that_may_not_be_read_is_not_removed(
    what: str, tmp_path: Path, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust = Device(tmp_path / "root", releases).root / constants.TRUST_DIR
    denied = next(trust.glob("*.pem")) if what == "file" else trust

    def refuse(*_: object) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(denied))

    if what == "file":
        monkeypatch.setattr(doctor.trust_dir, "read_small", refuse)
    else:
        monkeypatch.setattr(Path, "iterdir", refuse)
    monkeypatch.setattr(os, "access", lambda path, _: path != denied)
    wrong = [each for each in doctor._trust(Store(trust.parent)) if each.level == "warning"]
    assert [each.mend for each in wrong] == [f"chmod u+rwX {denied}"]


def test_numpy_2_beside_tflite_runtime_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy

    monkeypatch.setattr(board, "runtime_version", lambda: "tflite_runtime 2.14.0")
    monkeypatch.setattr(numpy, "__version__", "2.1.0")
    (finding,) = doctor._numpy(Store(tmp_path))
    assert finding.level == "error"
    assert finding.mend.endswith("-m pip install 'numpy<2'")


@pytest.mark.parametrize(
    ("runtime", "numpy", "package"),
    [
        ("tflite_runtime 2.14.0", "'numpy<2'", "tflite-runtime 'numpy<2'"),
        ("ai_edge_litert 2.3.0", "numpy", "ai-edge-litert"),
    ],
)
def test_a_runtime_that_cannot_be_loaded_is_mended_with_the_same_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, numpy: str, package: str
) -> None:
    monkeypatch.setattr(board, "runtime_version", lambda: runtime)
    for name in ("numpy", f"{runtime.split()[0]}.interpreter"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were gone
    findings = [*doctor._numpy(Store(tmp_path)), *doctor._runtime(Store(tmp_path))]
    assert [finding.level for finding in findings] == ["error", "error"]
    assert [finding.mend for finding in findings] == [
        f"{sys.executable} -m pip install {wanted}" for wanted in (numpy, package)
    ]


def test_a_python_without_a_runtime_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "runtime_version", lambda: None)
    (finding,) = doctor._runtime(Store(tmp_path))
    assert finding.level == "error"
    assert finding.mend.startswith(f"{sys.executable} -m pip install ")


def test_a_damaged_state_is_said_and_nothing_is_guessed(device: Device, releases: Releases) -> None:
    device.install(releases["iris"])
    (device.root / constants.STATE_FILE).write_text('{"committed": 7}')
    for command in (["check"], ["stage", releases["iris-next"]], ["rollback"]):
        assert device.ask(*command, code=constants.EXIT_FAILED)["reason"] == "state-damaged"
    assert "state-damaged" in device.ask("status")["warnings"][0]


def test_bench_measures_and_names_what_it_measured_on(device: Device, releases: Releases) -> None:
    device.install(releases["iris"])
    found = json_codec.from_plain(Bench, device.ask("bench", "--seconds", "0.05"))
    assert found.verify_ms > 0
    assert found.load_ms > 0
    assert 0 < found.one.p50_ms <= found.one.p99_ms
    assert 0 < found.line.p50_ms <= found.line.p99_ms
    assert found.rows_per_second > 0
    assert found.memory_bytes <= found.peak_bytes
    assert set(found.installed_bytes) >= {"device_agent", "numpy", "cryptography"}
    assert found.device.cpu
    assert "rows/s" in device.run("bench", "--seconds", "0.05").out


def test_the_history_says_what_happened_and_survives_torn_and_foreign_lines(device: Device, releases: Releases) -> None:
    device.install(releases["iris"])
    file = device.root / constants.HISTORY_FILE
    with file.open("ab") as log:
        log.write(b'{"at": 1, "what": "torn')
    device.install(releases["iris-next"])
    found = json_codec.from_plain(History, device.ask("history"))
    assert [entry.what for entry in found.entries] == ["staged", "activated", "confirmed"] * 2
    assert len(device.ask("history", "--last", "2")["entries"]) == 2
    assert "confirmed   iris 1.1.0" in device.run("history").out


def test_the_history_stays_small(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    for number in range(1200):
        history.add(file, HistoryEntry(number, "staged", None, None, "x" * 2000, "somebody"))
    assert file.stat().st_size < 1.5 * history.MAX_BYTES
    entries = history.read(file)
    assert entries[-1].at == 1199
    assert [entry.at for entry in entries] == list(range(entries[0].at, 1200))


def test_trust_names_the_keys(device: Device) -> None:
    found = json_codec.from_plain(TrustedKeys, device.ask("trust"))
    assert [key[:7] for key in found.trusted] == ["sha256:"]
    assert found.revoked == ()


def test_an_error_says_what_is_wrong_and_what_to_type_next(device: Device) -> None:
    said = device.run("check")
    assert said.out == ""
    assert said.err.startswith("device_agent: no release has been activated under ")
    assert "\n  try: " in said.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "--json" in text
    assert "--root DIR" in text


def test_help_loads_nothing_heavy(device: Device) -> None:
    program = "import sys\nfrom device_agent.cli import main\ntry: main(['--help'])\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=device.env(), check=False)
    loaded = done.stdout.decode().split()
    assert "device_agent.cli" in loaded
    assert {"numpy", "cryptography", "tflite_runtime", "ai_edge_litert"} & set(loaded) == set()


@pytest.mark.parametrize("name", ["motion-long", "pixels", "plants-taught", "iris"])
def test_bench_answers_the_lines_of_a_model_s_own_inputs(name: str, tmp_path: Path, releases: Releases) -> None:
    device = Device(tmp_path / "root", releases)
    device.install(releases[name])
    store = Store(device.root)
    loaded = load_accepted(store, answering(store).release)
    golden = Golden.from_bytes(loaded.opened.read(constants.GOLDEN_FILE))
    labels, ask = [*map(str, loaded.signed.info.classes), constants.UNKNOWN_LABEL], bench._line_answerer(loaded, golden)
    found = [ask(place).decode().strip().split(",")[0] for place in range(10)]
    loaded.close()
    assert found == [labels[code] for code in golden.label[:10].tolist()]
