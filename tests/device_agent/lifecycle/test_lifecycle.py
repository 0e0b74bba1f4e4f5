"""stage, activate, confirm, rollback: the device is never without a working model, and says what it did."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.device import ROOT, Device
from support.releases import Releases

from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.documents import Committed, Staged, Status
from device_agent.shared.protocol.model_info import Gates
from device_agent.shared.protocol.reports import Activated, Certificate, Problem
from device_agent.store.state import StoreState
from device_agent.system import clock
from knnkit.release.signing import FileSigner, sign_release


def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Waits for a state that another process brings about, and fails if it never does."""
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up, "it never came to be"
        time.sleep(0.02)


def golden_rows(release: Path) -> np.ndarray:
    return Golden.from_bytes((release / constants.GOLDEN_FILE).read_bytes()).rows


def csv_of(rows: np.ndarray) -> str:
    return "".join(",".join(map(str, row)) + "\n" for row in rows.tolist())


def reference_labels(release: Path) -> list[str]:
    golden = Golden.from_bytes((release / constants.GOLDEN_FILE).read_bytes())
    from device_agent.shared.release.model_file import read_info

    info = read_info(release / constants.MODEL_FILE)
    return [str((*info.classes, constants.UNKNOWN_LABEL)[label]) for label in golden.label]


def test_a_release_is_staged_activated_confirmed_and_answers_as_the_reference(
    device: Device, releases: Releases
) -> None:
    staged = json_codec.from_plain(Staged, device.ask("stage", releases["iris"]))
    assert (staged.already, staged.release.name, staged.release.version) == (False, "iris", "1.0.0")
    digest = staged.release.digest
    activated = json_codec.from_plain(Activated, device.ask("activate", digest, "--nonce", "n-1", "--deadline", "600"))
    assert activated.certificate.nonce == "n-1"
    assert activated.certificate.passed
    assert activated.certificate.different == 0
    assert activated.seconds_left == 600
    assert device.answering() == digest
    committed = json_codec.from_plain(Committed, device.ask("confirm", digest))
    assert (committed.release.digest, committed.previous, committed.already) == (digest, None, False)
    said = device.run("classify", input=csv_of(golden_rows(releases["iris"])))
    assert said.out.splitlines() == reference_labels(releases["iris"])


def test_each_command_twice_is_a_no_op(device: Device, releases: Releases) -> None:
    digest = device.stage(releases["iris"])
    assert device.ask("stage", releases["iris"])["already"] is True
    first = device.ask("activate", digest, "--deadline", "500")
    again = device.ask("activate", digest, "--deadline", "900")
    assert again["already"] is False
    assert again["seconds_left"] < first["seconds_left"], "asking again does not move the deadline"
    device.ask("confirm", digest)
    assert device.ask("confirm", digest)["already"] is True
    assert device.ask("activate", digest)["already"] is True
    serials = [entry["serial"] for entry in device.ask("history")["entries"] if entry["serial"]]
    assert serials == [1, 2]


def test_confirming_twice_is_told_as_done_also_where_the_next_activation_waits(
    device: Device, releases: Releases
) -> None:
    """The answer to the first was lost, and another host was quick."""
    first = device.stage(releases["iris"])
    device.ask("activate", first, "--holder", "ann 1")
    device.ask("confirm", first, "--holder", "ann 1")
    following = device.stage(releases["iris-next"])
    device.ask("activate", following, "--holder", "ben 2")
    again = device.ask("confirm", first, "--holder", "ann 1")
    assert (again["release"]["digest"], again["already"]) == (first, True)
    assert device.answering() == following


def test_the_model_goes_on_answering_when_nobody_confirms(device: Device, releases: Releases) -> None:
    old = device.install(releases["iris"])
    new = device.stage(releases["iris-next"])
    device.ask("activate", new, "--deadline", "1.5")
    file = device.root / constants.STATE_FILE
    # Nobody asks the device anything: the agent that was left behind reverts by itself.
    wait_until(lambda: json_codec.loads(StoreState, file.read_bytes()).pending is None)
    wait_until(lambda: (device.root / constants.CURRENT_LINK).readlink().name == old)
    assert device.answering() == old
    late = json_codec.from_plain(Problem, device.ask("confirm", new, code=constants.EXIT_FAILED))
    assert late.reason == "rolled-back"
    assert "rolled back" in late.message
    activated, reverted = device.ask("history")["entries"][-2:]
    assert (activated["what"], activated["answering"]["digest"]) == ("activated", new)
    assert (reverted["what"], reverted["why"]) == ("reverted", "no confirmation within 1.5 s")


def test_past_its_deadline_a_release_does_not_answer_even_if_nobody_could_revert_it(
    device: Device, releases: Releases
) -> None:
    old = device.install(releases["iris"])
    new = device.stage(releases["iris-next"])
    device.ask("activate", new, "--deadline", "600")
    file = device.root / constants.STATE_FILE
    state = json_codec.loads(StoreState, file.read_bytes())
    assert state.pending
    over = state.pending.__class__(**{**state.pending.__dict__, "deadline": state.pending.started})
    file.write_bytes(json_codec.dump_file(StoreState(**{**state.__dict__, "pending": over})))
    said = device.run("classify", "--digest", input=csv_of(golden_rows(releases["iris"])[:1]))
    assert said.out.split(",")[1].strip() == old
    assert json_codec.loads(StoreState, file.read_bytes()).pending == over, "classify only reads"


def test_after_a_reboot_an_unconfirmed_release_is_gone(device: Device, releases: Releases) -> None:
    old = device.install(releases["iris"])
    new = device.stage(releases["iris-next"])
    device.ask("activate", new, "--deadline", "600")
    file = device.root / constants.STATE_FILE
    data = file.read_text().replace(clock.now().boot, "00000000-0000-4000-8000-000000000000")
    file.write_text(data)
    status = json_codec.from_plain(Status, device.ask("status"))
    assert (status.answering, status.pending) == (old, None)
    assert device.ask("history")["entries"][-1]["why"] == "the board restarted before the confirmation"
    assert device.ask("confirm", new, code=constants.EXIT_FAILED)["reason"] == "rolled-back"


def test_the_first_release_that_is_not_confirmed_leaves_nothing_and_says_so(device: Device, releases: Releases) -> None:
    digest = device.stage(releases["iris"])
    device.ask("activate", digest, "--deadline", "600")
    assert device.ask("rollback", code=constants.EXIT_FAILED)["reason"] == "no-release"
    assert device.answering() is None
    assert device.ask("check", code=constants.EXIT_FAILED)["reason"] == "no-release"
    device.install(releases["iris"])


def test_the_confirmation_must_come_over_a_new_connection(device: Device, releases: Releases) -> None:
    digest = device.stage(releases["iris"])
    connection = "127.0.0.1 40000 127.0.0.1 22"
    device.ask("activate", digest, SSH_CONNECTION=connection)
    same = device.ask("confirm", digest, code=constants.EXIT_FAILED, SSH_CONNECTION=connection)
    assert same["reason"] == "same-connection"
    device.ask("confirm", digest, SSH_CONNECTION="127.0.0.1 40001 127.0.0.1 22")


@pytest.mark.parametrize(
    ("gates", "failure"),
    [(Gates(accuracy=1.0), "accuracy"), (Gates(latency_ms=1e-6), "latency")],
    ids=["accuracy floor", "latency budget"],
)
def test_a_release_under_its_gates_is_never_committed(
    device: Device, releases: Releases, tmp_path: Path, gates: Gates, failure: str
) -> None:
    old = device.install(releases["iris"])
    bad = device.stage(releases.variant("iris-next", tmp_path / "bad", gates=gates))
    problem = json_codec.from_plain(Problem, device.ask("activate", bad, code=constants.EXIT_REFUSED))
    assert problem.reason == "gate-failed"
    assert problem.certificate
    assert [text.split(":")[0] for text in problem.certificate.failures] == [failure]
    still_on(device, old)


def test_a_release_that_differs_in_parity_is_never_committed(
    device: Device, releases: Releases, tmp_path: Path
) -> None:
    old = device.install(releases["iris"])
    other = releases.copy("iris-next", tmp_path / "other")
    path = other / constants.GOLDEN_FILE
    golden = Golden.from_bytes(path.read_bytes())
    shifted = Golden(**{**golden.__dict__, "distances": golden.distances * 1.001})
    path.write_bytes(shifted.to_bytes())
    problem = activate_forged(device, releases, other)
    assert problem.reason == "gate-failed"
    assert problem.certificate
    assert problem.certificate.different == len(golden.rows)
    assert len(problem.certificate.differences) == constants.MAX_DIFFERENCES
    still_on(device, old)


def test_a_model_that_does_not_load_is_never_committed(device: Device, releases: Releases, tmp_path: Path) -> None:
    old = device.install(releases["iris"])
    other = releases.copy("iris-next", tmp_path / "other")
    path = other / constants.MODEL_FILE
    data = bytearray(path.read_bytes())
    data[:4] = b"\xff\xff\xff\x7f"  # the root of the flatbuffer lies outside the file
    path.write_bytes(data)
    assert activate_forged(device, releases, other).reason in ("model-unusable", "model-crashed")
    still_on(device, old)


def test_a_model_that_gives_nan_is_never_committed(device: Device, releases: Releases, tmp_path: Path) -> None:
    old = device.install(releases["iris"])
    other = releases.copy("iris-next", tmp_path / "other")
    path = other / constants.MODEL_FILE
    data = path.read_bytes()
    weights = matrix_of(data)
    path.write_bytes(data.replace(weights, np.full(len(weights) // 4, np.nan, np.float32).tobytes()))
    problem = activate_forged(device, releases, other)
    assert problem.reason in ("gate-failed", "model-unusable")
    still_on(device, old)


def test_a_model_that_crashes_or_hangs_takes_nothing_with_it(tmp_path: Path) -> None:
    from device_agent.shared.protocol.errors import BadInput, DeviceUnfit, ModelUnusable
    from device_agent.system import sandbox

    with pytest.raises(ModelUnusable, match="SIGKILL") as crashed:
        sandbox.run(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert crashed.value.reason == "model-crashed"
    with pytest.raises(ModelUnusable) as hung:
        sandbox.run(lambda: threading.Event().wait(), timeout=0.2)
    assert (hung.value.reason, "uptime" in hung.value.hint) == ("model-hangs", True)

    def fail() -> None:
        raise BadInput("no", reason="mine", hint="yours")

    with pytest.raises(BadInput) as said:
        sandbox.run(fail)
    assert (said.value.reason, said.value.hint) == ("mine", "yours")

    def exhaust() -> None:
        raise MemoryError

    with pytest.raises(DeviceUnfit) as full:
        sandbox.run(exhaust)
    assert (full.value.reason, full.value.exit_code) == ("out-of-memory", 1)


@pytest.mark.parametrize("how", ["answers", "fails", "dies", "hangs", "is too large"])
def test_what_the_child_does_next_never_costs_its_first_result(how: str) -> None:
    from device_agent.shared.protocol.errors import BadInput
    from device_agent.system import sandbox

    def then(first: bytes) -> int:
        if how == "fails":
            raise BadInput("no")
        if how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "hangs":
            threading.Event().wait()
        if how == "is too large":
            raise MemoryError
        return len(first)

    first = bytes(1 << 20)
    assert sandbox.run_both(lambda: first, then, limit=1) == (first, len(first) if how == "answers" else None)


def test_a_model_that_hangs_is_not_said_to_crash_if_something_should_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    from device_agent.shared.protocol.errors import ModelUnusable
    from device_agent.system import sandbox

    monkeypatch.setattr(signal, "alarm", lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds - 4.4))
    with pytest.raises(ModelUnusable) as hung:
        sandbox.run_both(lambda: threading.Event().wait(), lambda _: None, timeout=0.2, limit=1)
    assert hung.value.reason == "model-hangs"


def test_what_fails_in_the_child_is_not_followed(capfd: pytest.CaptureFixture[str]) -> None:
    from device_agent.shared.protocol.errors import BadInput
    from device_agent.system import sandbox

    def fail() -> None:
        raise BadInput("no")

    with pytest.raises(BadInput):
        sandbox.run_both(fail, lambda _: os.write(2, b"followed"), limit=1)
    assert capfd.readouterr().err == ""


def test_a_refused_fork_leaves_signals_and_descriptors_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    from device_agent.system import sandbox

    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, "no more processes")

    def found() -> tuple[object, int]:
        return signal.pthread_sigmask(signal.SIG_BLOCK, ()), len(list(Path("/proc/self/fd").iterdir()))

    before = found()
    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(BlockingIOError):
        sandbox.run(lambda: None)
    assert found() == before


def test_an_interrupted_check_ends_its_model_at_once(tmp_path: Path) -> None:
    from device_agent.system import sandbox

    ended = tmp_path / "ended by itself"

    def interrupt_and_go_on() -> None:
        os.kill(os.getppid(), signal.SIGINT)
        threading.Event().wait(60.0)
        ended.touch()

    with pytest.raises(KeyboardInterrupt):
        sandbox.run(interrupt_and_go_on)
    assert not ended.exists()


_ISOLATED = """
import os, sys, threading
from device_agent.system import sandbox as isolate
parent = os.getpid()
def work():
    os.write(1, b"at work\\n")
    {work}
isolate.run(work)
"""


@pytest.mark.parametrize(
    "work", ["threading.Event().wait()", "os.kill(parent, 9); return bytes(1 << 20)"], ids=["busy", "answering"]
)
def test_a_model_ends_with_a_parent_that_is_killed_and_says_nothing(work: str) -> None:
    argv = [sys.executable, "-c", _ISOLATED.format(work=work)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        assert parent.stdout.readline() == b"at work\n"
        parent.kill()
        assert parent.stdout.read() == b""  # its end: the model held it open
        assert parent.stderr.read() == b""


def test_a_model_that_is_interrupted_with_its_parent_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    from device_agent.shared.protocol.errors import ModelUnusable
    from device_agent.system import sandbox

    with pytest.raises(ModelUnusable, match="SIGINT"):
        sandbox.run(lambda: os.kill(os.getpid(), signal.SIGINT))
    assert capfd.readouterr().err == ""


def test_rollback_goes_one_release_back_and_no_further(device: Device, releases: Releases, tmp_path: Path) -> None:
    first, second = device.install_all(releases["iris"], releases["iris-next"])
    third = device.install(releases.variant("iris", tmp_path / "third", sequence=12))
    back = device.ask("rollback")
    assert (back["release"]["digest"], back["already"]) == (second, False)
    assert device.ask("rollback")["already"] is True
    assert device.ask("rollback", "--leave", third)["already"] is True
    assert device.answering() == second
    assert device.ask("status")["floor"] == 12, "going back does not lower the floor"
    assert device.ask("rollback", "--leave", second, code=constants.EXIT_FAILED)["reason"] == "no-previous"
    device.ask("activate", third)
    assert device.ask("confirm", third)["previous"]["digest"] == second
    assert device.ask("activate", first, code=constants.EXIT_REFUSED)["reason"] == "older-sequence"


def test_a_rollback_after_the_deadline_does_not_push_the_device_one_release_further(
    device: Device, releases: Releases, tmp_path: Path
) -> None:
    _, second = device.install_all(releases["iris"], releases["iris-next"])
    third = device.stage(releases.variant("iris", tmp_path / "third", sequence=12))
    device.ask("activate", third, "--deadline", "600")
    device.ask("rollback")
    assert device.ask("rollback")["already"] is True, "a host that cleans up after itself twice"
    assert device.answering() == second


def test_the_target_of_a_rollback_is_verified_before_the_swap(device: Device, releases: Releases) -> None:
    first, second = device.install_all(releases["iris"], releases["iris-next"])
    model = device.root / constants.RELEASES_DIR / first / constants.MODEL_FILE
    data = bytearray(model.read_bytes())
    data[100] ^= 1
    model.write_bytes(data)
    assert device.ask("rollback", code=constants.EXIT_REFUSED)["reason"] == "file-changed"
    assert device.answering() == second
    assert device.ask("stage", releases["iris"], code=constants.EXIT_REFUSED)["reason"] == "older-sequence"


def test_staging_again_mends_a_damaged_copy(device: Device, releases: Releases) -> None:
    digest = device.install(releases["iris"])
    place = device.root / constants.RELEASES_DIR / digest
    (place / constants.MODEL_FILE).write_bytes(b"worn out")
    (place / "stray").write_bytes(b"")
    assert device.ask("check", code=constants.EXIT_REFUSED)["reason"] == "file-unlisted"
    assert device.ask("stage", releases["iris"])["already"] is True
    assert json_codec.from_plain(Certificate, device.ask("check")).passed


def test_old_releases_are_pruned_but_never_the_current_or_the_previous(
    device: Device, releases: Releases, tmp_path: Path
) -> None:
    first, second = device.install_all(releases["iris"], releases["iris-next"])
    more = [
        device.stage(releases.variant("iris", tmp_path / str(sequence), sequence=sequence))
        for sequence in range(20, 26)
    ]
    status = device.ask("status")
    assert set(status["staged"]) == {first, second, *more[-3:]}
    assert set(device.ask("prune", "--keep", "1")["removed"]) == set(more[-3:])
    assert set(device.ask("status")["staged"]) == {first, second}


def test_two_hosts_at_once_the_second_is_told_who_holds_the_device(device: Device, releases: Releases) -> None:
    old = device.install(releases["iris"])
    new = device.stage(releases["iris-next"])
    device.ask("activate", new, "--holder", "anna")
    assert device.ask("status")["lock"]["holder"] == "anna"
    assert "not yet confirmed" in device.ask("status")["lock"]["reason"]
    kept_out = device.ask("stage", releases["iris-next"], "--holder", "ben", code=constants.EXIT_LOCKED)
    assert "anna" in kept_out["message"]
    assert "not yet confirmed" in kept_out["message"]
    for digest in (old, new):  # not even the very release that waits: its activation is anna's
        assert device.ask("activate", digest, "--holder", "ben", code=constants.EXIT_LOCKED)["reason"] == "locked"
    device.ask("confirm", new, "--holder", "anna")
    assert device.ask("status")["lock"] is None
    assert device.answering() == new


def test_a_running_command_holds_the_store_and_a_dead_one_does_not(device: Device, releases: Releases) -> None:
    device.install(releases["iris"])
    program = (
        "import sys, time; from pathlib import Path; from device_agent.store.store import Store\n"
        "with Store(Path(sys.argv[1])).changing('anna', 'a long upload'):\n"
        "    print('held', flush=True); time.sleep(600)"
    )
    argv = [sys.executable, "-c", program, str(device.root)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=device.env()) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        problem = device.ask("prune", code=constants.EXIT_LOCKED)
        assert "anna" in problem["message"]
        assert "a long upload" in problem["message"]
        assert device.ask("status")["lock"]["pid"] == holder.pid
        holder.kill()
    assert device.ask("status")["lock"] is None
    device.ask("prune")


@pytest.mark.parametrize("command", ["stage", "install"])
def test_a_release_directory_that_is_not_there_is_a_word_typed_wrong(device: Device, command: str) -> None:
    said = device.ask(command, "nosuch", code=constants.EXIT_USAGE)
    assert (said["message"], bool(said["hint"])) == ("nosuch is not a release directory", True)


def test_an_upload_that_is_refused_leaves_nothing_behind(device: Device, releases: Releases, tmp_path: Path) -> None:
    old = device.install(releases["iris"])
    bad = releases.copy("iris-next", tmp_path / "bad")
    (bad / constants.GOLDEN_FILE).write_bytes(b"other rows")
    assert device.ask("stage", bad, code=constants.EXIT_REFUSED)["reason"] == "file-changed"
    assert (bad / constants.GOLDEN_FILE).read_bytes() == b"other rows", "a directory elsewhere is not ours to touch"
    upload = device.root / constants.INCOMING_DIR / ("0" * 64)
    releases.copy("iris-next", upload)
    assert device.ask("stage", upload, code=constants.EXIT_REFUSED)["reason"] == "other-release"
    assert list((device.root / constants.INCOMING_DIR).iterdir()) == []
    assert device.ask("status")["staged"] == [old]


def test_a_device_class_keeps_releases_for_others_away(device: Device, releases: Releases, tmp_path: Path) -> None:
    meant = releases.variant("iris", tmp_path / "meant", device_class="greenhouse")
    assert device.ask("stage", meant, code=constants.EXIT_REFUSED)["reason"] == "wrong-device-class"
    device.ask("stage", meant, "--device-class", "greenhouse")
    (device.root / constants.CLASS_FILE).write_text("greenhouse\n")
    assert device.ask("status")["device_class"] == "greenhouse"
    device.install(meant)


def test_what_is_stored_is_for_its_owner_alone(device: Device, releases: Releases) -> None:
    device.install(releases["iris"])
    for path in device.root.rglob("*"):
        if not path.is_symlink() and path.parent.name != constants.TRUST_DIR:
            assert path.stat().st_mode & 0o077 == 0, path


def activate_forged(device: Device, releases: Releases, release: Path) -> Problem:
    """Signs a release that its builder would never have let out, and tries it."""
    sign_release(release, FileSigner.load(releases.private_key))
    digest = device.stage(release)
    return json_codec.from_plain(Problem, device.ask("activate", digest, code=constants.EXIT_REFUSED))


def still_on(device: Device, digest: str) -> None:
    status = json_codec.from_plain(Status, device.ask("status"))
    assert status.committed
    assert (status.answering, status.committed.digest, status.pending) == (digest, digest, None)
    assert json_codec.from_plain(Certificate, device.ask("check")).passed
    assert device.ask("history")["entries"][-1]["what"] == "rejected"


def matrix_of(model: bytes) -> bytes:
    """The training matrix inside a model file: the buffer that the exact re-rank and the product share."""
    import io
    import zipfile

    with (
        zipfile.ZipFile(io.BytesIO(model)) as archive,
        np.load(io.BytesIO(archive.read(constants.EXACT_FILE))) as tables,
    ):
        start, rows = int(tables["block_offsets"][0]), int(tables["block_rows"][0])
        return model[start : start + rows * len(tables["centre"]) * 4]


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_nothing_is_switched_for_a_host_that_has_gone_away(kind: str, device: Device, releases: Releases) -> None:
    before = device.install(releases["iris"])
    digest = device.stage(releases["iris-next"])
    if kind == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        other, own = socket.socketpair()
        other.close()
        writer = own.detach()
    process = device.popen("activate", digest, stdout=writer, stderr=subprocess.DEVNULL)
    os.close(writer)
    assert process.wait(120) == 141
    assert device.ask("status")["pending"] is None
    assert device.answering() == before
