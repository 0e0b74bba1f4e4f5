"""Fifty devices behind fifty servers, each with a root of its own and the real agent in a real environment."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import sshd
from support.board_roots import copy_board
from support.proxy import Proxy, proxy
from support.releases import Releases

from device_agent.shared.protocol import json_codec
from knnkit.cli import main
from knnkit.fleet.report import FleetReport

ROOT = Path(__file__).parents[2]
COUNT = 50


@dataclass(frozen=True)
class Device:
    """One board: its server and its root."""

    name: str
    server: sshd.Sshd
    root: Path

    @property
    def target(self) -> str:
        where = f"host: {self.server.host}, port: {self.server.port}, user: {self.server.user}"
        return f"{{name: {self.name}, {where}, root: '{self.root}', identity: '{self.server.identity}'"


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[sshd.Sshd]]:
    folder = tmp_path_factory.mktemp("servers")
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(sshd.start, folder / f"s{n:02}", host=f"127.0.1.{n + 1}") for n in range(COUNT)]
        started = [job.result() for job in jobs]
    yield started
    for server in started:
        server.stop()


MakeFleet = Callable[..., list[Device]]


@pytest.fixture
def make_fleet(prepared: Path, servers: list[sshd.Sshd], tmp_path: Path, no_ssh_config: Path) -> MakeFleet:
    """Copies of the board, one behind each server: of a bare one, or of another."""

    def make(count: int, board: Path = prepared) -> list[Device]:
        made = []
        for number, server in enumerate(servers[:count]):
            root = copy_board(board, tmp_path / f"root{number:02}")
            made.append(Device(f"d{number:02}", server, root))
        return made

    return make


def write_config(path: Path, devices: list[Device], *, rollout: str = "{}", known: str | None = None) -> Path:
    """A deploy.yaml for them, with their host keys beside it."""
    held = "".join(device.server.known_hosts.read_text() for device in devices) if known is None else known
    (path / "known_hosts").write_text(held)
    config = path / "deploy.yaml"
    lines = [
        f"    - {device.target}{', tags: [canary]' if index < 2 else ''}}}" for index, device in enumerate(devices)
    ]
    config.write_text(
        "model: {name: iris, data: {sklearn: iris}}\n"
        f"fleet:\n  known_hosts: known_hosts\n  ssh_config: {path / 'no_ssh_config'}\n  targets:\n"
        + "\n".join(lines)
        + f"\nrollout: {rollout}\n"
    )
    return config


def knnkit(*words: object, check: int | None = 0, text: str | None = None) -> tuple[int, str, str]:
    """Runs the command line in this process, `text` on its standard input."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    terminal, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO((text or "").encode()))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([*map(str, words)])
    finally:
        sys.stdin = terminal
    return ended(code, *(stream.buffer.getvalue().decode() for stream in (out, err)), check)


def by_itself(*words: object, check: int | None = 0) -> tuple[int, str, str]:
    """Runs the command line as a user does, in a process of its own."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "knnkit", *map(str, words)]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=280)
    return ended(done.returncode, done.stdout, done.stderr, check)


def ended(code: int, out: str, err: str, check: int | None) -> tuple[int, str, str]:
    assert check is None or code == check, f"{code}\n{out[-3000:]}\n{err[-3000:]}"
    return code, out, err


def running(device: Device) -> str | None:
    """What is committed on a device, as its own agent says."""
    argv = [str(device.root / "venv/bin/python"), "-m", "device_agent", "--root", str(device.root), "status", "--json"]
    status = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    assert status["pending"] is None
    return status["committed"]["version"] if status["committed"] else None


def outcomes(report: FleetReport) -> dict[str, tuple[str, str]]:
    return {device.name: (device.outcome.value, device.reason) for device in report.devices}


def make_wrong(device: Device) -> Callable[[], None]:
    """Makes a device answer every row with the next class; returns what mends it."""
    path = next(device.root.glob("venvs/*/lib/python3*/site-packages/device_agent/shared/golden/judge.py"))
    sound = path.read_text()
    path.unlink()  # the others share the file
    path.write_text(sound + _WRONG)

    def mend() -> None:
        path.write_text(sound)

    return mend


_WRONG = """

_sound = judge

def judge(golden, answers, *rest, **more):
    import dataclasses
    return _sound(golden, answers._replace(label=(answers.label + 1) % 3), *rest, **more)
"""


def test_fifty_devices_with_every_trouble_come_out_exactly_so(
    make_fleet: MakeFleet, releases: Releases, tmp_path: Path
) -> None:
    devices = make_fleet(COUNT)
    bad_disk, gone, changed, wrong = (devices[number] for number in (11, 22, 33, 44))
    (bad_disk.root / "incoming").write_bytes(b"")  # nothing can be made below it
    mend = make_wrong(wrong)
    gone.server.stop()
    held = [d.server.known_hosts.read_text() for d in devices if d is not changed]
    stranger = f"[{changed.server.host}]:{changed.server.port} {devices[0].server.host_key}\n"
    rollout = "{waves: [canary, 20%, 100%], max_failures: 2, connect_retries: 0, connect_timeout: 20s}"
    config = write_config(tmp_path, devices, rollout=rollout, known="".join(held) + stranger)
    files = [tmp_path / "report.json", tmp_path / "report.html"]
    _, _, said = by_itself(
        *("deploy", "-c", config, "--release", releases["iris"], "--report", files[0], "--report", files[1]), check=1
    )
    report = json_codec.loads(FleetReport, files[0].read_bytes())
    found = outcomes(report)
    assert found.pop("d11") == ("failed", "cannot-write")
    assert found.pop("d22") == ("unreachable", "connect")
    assert found.pop("d33") == ("unreachable", "host-key-changed")
    assert found.pop("d44") == ("failed", "gate-failed")
    assert set(found.values()) == {("committed", "")}
    assert [len(wave.devices) for wave in report.waves] == [2, 8, 40]
    assert report.stopped == ""
    assert "46 committed, 2 unreachable, 2 failed" in report.summary()
    assert "d33: unreachable" in said
    assert "host key" in files[1].read_text()
    assert {running(device) for device in devices[:3]} == {"1.0.0"}
    assert running(wrong) is None
    assert running(bad_disk) is None

    # With what was wrong mended, only those four are taken up again.
    (bad_disk.root / "incoming").unlink()
    mend()
    sshd_again = sshd.start(gone.server.directory, host=gone.server.host, port=gone.server.port)
    try:
        write_config(tmp_path, devices, rollout=rollout)
        again = tmp_path / "again.json"
        by_itself("deploy", "-c", config, "--release", releases["iris"], "--retry-from", files[0], "--report", again)
    finally:
        sshd_again.stop()
        gone.server.process = sshd.start(gone.server.directory, host=gone.server.host, port=gone.server.port).process
    second = json_codec.loads(FleetReport, again.read_bytes())
    assert sorted(outcomes(second)) == ["d11", "d22", "d33", "d44"]
    assert set(outcomes(second).values()) == {("committed", "")}


def test_a_bad_release_stops_at_the_canaries(
    make_fleet: MakeFleet, first: Path, releases: Releases, tmp_path: Path
) -> None:
    devices = make_fleet(8, first)
    config = write_config(tmp_path, devices, rollout="{waves: [canary, 100%], max_failures: 5}")
    gates = {"accuracy": 0.999}
    from device_agent.shared.protocol.model_info import Gates

    bad = releases.variant("iris-next", tmp_path / "bad", sequence=99, version="9.9.9", gates=Gates(**gates))
    _, out, _ = knnkit("deploy", "-c", config, "--release", bad, "--json", check=4)
    report = json_codec.loads(FleetReport, out)
    assert "failed in the first wave" in report.stopped
    found = outcomes(report)
    assert {found["d00"], found["d01"]} <= {("failed", "gate-failed"), ("skipped", "rollout-stopped")}
    assert {found[f"d{n:02}"] for n in range(2, 8)} == {("skipped", "rollout-stopped")}
    assert {running(device) for device in devices} == {"1.0.0"}


def test_devices_that_committed_go_back_when_a_later_wave_fails(
    make_fleet: MakeFleet, releases: Releases, tmp_path: Path
) -> None:
    devices = make_fleet(4)
    config = write_config(tmp_path, devices, rollout="{waves: [canary, 100%], on_failure: roll_back}")
    knnkit("deploy", "-c", config, "--release", releases["iris"], "--target", "d00", "--target", "d02")
    knnkit("deploy", "-c", config, "--release", releases["iris"], "--target", "d03")
    make_wrong(devices[2])
    _, out, _ = knnkit("deploy", "-c", config, "--release", releases["iris-next"], "--json", check=1)
    report = json_codec.loads(FleetReport, out)
    found = outcomes(report)
    assert found["d00"] == ("rolled_back", "rollout-rolled-back")
    assert found["d01"] == ("committed", "not-rolled-back")
    assert found["d02"] == ("failed", "gate-failed")
    said = {device.name: device.message for device in report.devices}
    assert said["d00"] == "d00: rolled back to iris 1.0.0"
    assert "the device ran no release before" in said["d01"]
    assert [running(device) for device in devices] == ["1.0.0", "1.1.0", "1.0.0", "1.0.0"]


def test_status_parity_bench_logs_rollback_classify_and_doctor_on_a_selection(
    make_fleet: MakeFleet, releases: Releases, tmp_path: Path
) -> None:
    devices = make_fleet(3)
    config = write_config(tmp_path, devices)
    for release in ("iris", "iris-next"):
        knnkit("deploy", "-c", config, "--release", releases[release])
    assert "d00" in knnkit("status", "-c", config, "--on", "canary")[1]
    assert "d02" not in knnkit("status", "-c", config, "--on", "canary")[1]
    parity = json_codec.loads(FleetReport, knnkit("parity", "-c", config, "--json")[1])
    assert [d.certificate.different for d in parity.devices if d.certificate] == [0, 0, 0]
    assert {d.certificate.nonce for d in parity.devices if d.certificate} == {parity.nonce}
    assert "rows/s" in knnkit("bench", "-c", config, "--target", "d00")[1]
    assert knnkit("logs", "-c", config, "--target", "d00", "-n", "3")[1].count("confirmed") == 1
    assert "connection" in knnkit("doctor", "-c", config, "--target", "d01")[1]
    assert "1.0.0" in knnkit("rollback", "-c", config, "--target", "d02")[1]
    assert [running(device) for device in devices] == ["1.1.0", "1.1.0", "1.0.0"]
    rows, answers = tmp_path / "rows.csv", tmp_path / "answers"
    rows.write_text("5.1,3.5,1.4,0.2\n6.7,3.0,5.2,2.3\n")
    knnkit("classify", "-c", config, "--input", rows, "--output", answers)
    assert {file.name: file.read_text() for file in answers.iterdir()} == {
        f"d{n:02}.csv": "setosa\nvirginica\n" for n in range(3)
    }
    one = knnkit("classify", "-c", config, "--target", "d00", "--input", rows)
    assert one[1] == "setosa\nvirginica\n"
    lines = knnkit("classify", "-c", config, "--target", "d00", "--input", rows, "--json")[1].splitlines()
    assert [json.loads(line)["label"] for line in lines] == one[1].splitlines()
    dash = knnkit("classify", "-c", config, "--target", "d00", "--input", "-", "--output", "-", text=rows.read_text())
    assert dash[1] == one[1]


def test_a_changed_answer_on_one_device_is_exit_4_and_named(make_fleet: MakeFleet, first: Path, tmp_path: Path) -> None:
    devices = make_fleet(2, first)
    config = write_config(tmp_path, devices)
    make_wrong(devices[1])
    _, out, _ = knnkit("parity", "-c", config, check=4)
    assert re.search(r"^d01 .*\bdiffer", out, re.MULTILINE), out
    assert "kept" in out


def test_parity_over_rows_of_ones_own(make_fleet: MakeFleet, releases: Releases, tmp_path: Path) -> None:
    devices = make_fleet(2)
    config = write_config(tmp_path, devices)
    text = config.read_text().replace(
        "model: {name: iris, data: {sklearn: iris}}\n",
        f"model: {{name: iris, data: {{sklearn: iris}}, k: 3, scale: standard, reject: 0.99}}\n"
        f"release: {{dir: {releases['iris']}}}\n",
    )
    config.write_text(text)
    knnkit("deploy", "-c", config, "--release", releases["iris"])
    names = "sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)"
    rows = tmp_path / "rows.csv"
    rows.write_text(f"{names},label\n5.1,3.5,1.4,0.2,setosa\n6.7,3.0,5.2,2.3,virginica\n5.0,3.4,1.5,0.2,virginica\n")
    report = json_codec.loads(FleetReport, knnkit("parity", "-c", config, "--data", rows, "--json", check=4)[1])
    for device in report.devices:
        proof = device.certificate
        assert proof is not None
        assert (proof.identical + proof.equivalent, proof.different, proof.accuracy_rows) == (3, 0, 3)
        assert proof.accuracy == pytest.approx(2 / 3)
        assert device.reason == "gate-failed"  # under the release's floor of 0.8
    rows.write_text(f"{names},label\n5.1,3.5,1.4,0.2,setosa\n6.7,3.0,5.2,2.3,virginica\n")
    assert "kept" in knnkit("parity", "-c", config, "--data", rows)[1]
    knnkit("deploy", "-c", config, "--release", releases["iris-next"], "--target", "d01")
    other = json_codec.loads(FleetReport, knnkit("parity", "-c", config, "--data", rows, "--json", check=1)[1])
    assert outcomes(other) == {"d00": ("answered", ""), "d01": ("failed", "other-release")}


def test_two_hosts_at_once_end_on_one_release_and_nobody_is_left_pending(
    make_fleet: MakeFleet, first: Path, releases: Releases, tmp_path: Path
) -> None:
    devices = make_fleet(4, first)
    config = write_config(tmp_path, devices)
    next_one = releases["iris-next"]
    after = releases.variant("iris-next", tmp_path / "after", sequence=12, version="1.2.0")
    with ThreadPoolExecutor(2) as pool:
        both = [
            pool.submit(by_itself, "deploy", "-c", config, "--release", release, "--wait", "30s", "--json", check=None)
            for release in (next_one, after)
        ]
        reports = [json_codec.loads(FleetReport, job.result()[1]) for job in both]
    assert {device.outcome.value for device in reports[1].devices} == {"committed"}
    for device in reports[0].devices:  # it came first, or was told that it is too old now
        assert device.outcome.value == "committed" or device.exit_code == 4, device
    assert {running(device) for device in devices} == {"1.2.0"}


def test_who_holds_a_device_is_told(make_fleet: MakeFleet, releases: Releases, tmp_path: Path) -> None:
    devices = make_fleet(1)
    config = write_config(tmp_path, devices)
    holds = (
        "import sys, time; from pathlib import Path; from device_agent.store.store import Store\n"
        "with Store(Path(sys.argv[1])).changing('ann@laptop', 'her own deploy'):\n"
        "    print('held', flush=True); time.sleep(600)"
    )
    argv = [str(devices[0].root / "venv/bin/python"), "-c", holds, str(devices[0].root)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        _, out, _ = knnkit("deploy", "-c", config, "--release", releases["iris"], check=5)
        holder.kill()
    assert "ann@laptop" in out
    assert "her own deploy" in out
    assert running(devices[0]) is None


@pytest.fixture
def behind_proxy(make_fleet: MakeFleet, tmp_path: Path) -> Iterator[tuple[Proxy, Device, Path]]:
    """A device that is reached through a proxy, which listens where the device's name in deploy.yaml points."""
    device = make_fleet(1)[0]
    with proxy(device.server.host, device.server.port) as between:
        moved = dataclasses.replace(
            device, server=dataclasses.replace(device.server, host=between.host, port=between.port)
        )
        known = f"[{between.host}]:{between.port} {device.server.host_key}\n"
        config = write_config(tmp_path, [moved], known=known, rollout="{connect_retries: 0, confirm_within: 3s}")
        yield between, device, config


def test_wherever_the_line_is_cut_the_device_is_on_one_release_and_the_next_run_finishes(
    behind_proxy: tuple[Proxy, Device, Path], releases: Releases, tmp_path: Path
) -> None:
    """The cut comes at more and more bytes, so that it falls into one step after another."""
    between, device, config = behind_proxy
    patient = ("--wait", "60s", "--confirm-within", "60s")  # where it must succeed, on a machine of any speed
    knnkit("deploy", "-c", config, "--release", releases.variant("iris", tmp_path / "first", sequence=99), *patient)
    whole, before, cut_in = between.sent, "1.0.0", []
    for number, size in enumerate((1_000, 2_000, whole // 2, *(whole - left for left in (2_600, 2_400, 150)))):
        version = f"2.0.{number}"
        release = releases.variant("iris", tmp_path / version, sequence=100 + number, version=version)
        between.cut_after = between.sent + size
        _, out, _ = knnkit("deploy", "-c", config, "--release", release, "--json", check=None)
        assert between.cut_after is None, "nothing was cut"
        report = json_codec.loads(FleetReport, out).devices[0]
        cut_in.append(next((step.name for step in report.steps if step.note), "confirm"))
        found = settled(device)
        assert found in {"committed": {version}, "rolled_back": {before}}.get(report.outcome.value, {before, version})
        # A command whose line broke may still be at work there, and holds the device until it has gone back by itself.
        knnkit("deploy", "-c", config, "--release", release, *patient)
        assert settled(device) == version
        before = version
    print(cut_in)
    assert len(set(cut_in)) >= 4, cut_in


def settled(device: Device) -> str:
    """What is committed, once an activation that nobody confirmed has gone back by itself."""
    argv = [str(device.root / "venv/bin/python"), "-m", "device_agent", "--root", str(device.root), "status", "--json"]
    give_up = time.monotonic() + 60
    while True:
        status = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
        if status["pending"] is None:
            return status["committed"]["version"] if status["committed"] else "none"
        assert time.monotonic() < give_up, "it never went back"


def test_over_a_slow_line_a_deploy_takes_longer_and_that_is_all(
    behind_proxy: tuple[Proxy, Device, Path], releases: Releases
) -> None:
    between, device, config = behind_proxy
    between.rate, between.delay = 100_000.0, 0.05
    knnkit("deploy", "-c", config, "--release", releases["iris"], "--confirm-within", "60s")
    assert running(device) == "1.0.0"


def test_a_finished_release_is_deployed_without_tensorflow_or_scikit_learn(
    make_fleet: MakeFleet, releases: Releases, tmp_path: Path
) -> None:
    config = write_config(tmp_path, make_fleet(1))
    program = (
        "import sys\nfrom knnkit.cli import main\ncode = main(sys.argv[1:])\n"
        "heavy = {'tensorflow', 'sklearn', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "print('loaded', sorted(heavy), file=sys.stderr)\nsys.exit(code)\n"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    for words in (["deploy", "--release", str(releases["iris"])], ["status"], ["parity"], ["rollback", "--help"]):
        argv = [
            sys.executable,
            "-c",
            program,
            words[0],
            *words[1:],
            *(["-c", str(config)] if len(words) < 2 or words[1] != "--help" else []),
        ]
        done = subprocess.run(argv, capture_output=True, text=True, env=env)
        if "--help" not in words:
            assert done.returncode == 0, done.stderr
            assert "loaded []" in done.stderr
