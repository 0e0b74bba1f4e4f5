"""What a device computes of its release it also says; who asks for a rollback is not given a thief's release."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import forge
from support.forge import NOW, fingerprint, signer
from support.trusting import ROW, Board, Clock

from device_agent.cli import main
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import Refused
from device_agent.shared.trust import orders, standing
from device_agent.shared.trust.reasons import Reason
from device_agent.shared.trust.rules import AGENT_EPOCH, MAX_AHEAD, MAX_RAISE
from device_agent.store import trust_dir, trust_store
from device_agent.store.store import Store
from device_agent.system import clock as device_clock
from device_agent.system import durable
from knnkit.release import orders as issue

ROOT = Path(__file__).resolve().parents[3]
YEAR = 365 * 24 * 3600
Newer = Callable[..., Path]
REVOKED = f"revoked-key: the running release was signed by {fingerprint('owner')}, which has been revoked"


def words(warnings: list[str]) -> list[str]:
    return [text.partition(":")[0] for text in warnings]


@pytest.fixture
def expiring(board: Board, newer: Newer, clock: Clock) -> Board:
    """A board whose release has expired."""
    board.commit(newer(expires=NOW + 10))
    clock.now = NOW + 11
    return board


# --- told ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("what", ["revoked-key", "expired"])
def test_every_report_of_a_device_names_what_is_wrong_with_its_release(
    what: str, board: Board, newer: Newer, clock: Clock
) -> None:
    board.commit(newer(expires=NOW + 10))
    for command in ("status", "check", "doctor", "bench"):
        told = board.run(command, *(["--seconds", "0.01"] if command == "bench" else []))[1]
        assert (told["signed_by"], told["warnings"]) == (fingerprint("owner"), []), command
    if what == "expired":
        clock.now = NOW + 11
    else:
        board.revoke("owner", by="colleague")
    for command in ("status", "check", "doctor", "bench"):
        code, told = board.run(command, *(["--seconds", "0.01"] if command == "bench" else []))
        assert code == 0, command
        assert what in words(told["warnings"]), command
        assert told["signed_by"] == fingerprint("owner"), command
        if command == "doctor":
            (found,) = [entry for entry in told["findings"] if entry["name"] == "release" and entry["mend"]]
            assert (found["level"], found["message"].partition(":")[0]) == ("warning", what)


@pytest.mark.parametrize("words", [[], ["--stream"]])
def test_who_classifies_is_told_before_the_first_answer(words: list[str], board: Board) -> None:
    board.revoke("owner", by="colleague")
    rows, answers = board.root.parent / "rows.csv", board.root.parent / "answers.csv"
    rows.write_text(ROW)
    board.capture.readouterr()
    files = ["--input", str(rows), "--output", str(answers)]
    assert main(["--root", str(board.root), "classify", *files, *words]) == 0
    assert answers.read_text() == "setosa\n"
    assert board.capture.readouterr().err == f"device_agent: warning: {REVOKED}\n"
    rows.write_text("not a row\n")
    main(["--root", str(board.root), "classify", *files, *words])
    assert board.capture.readouterr().err.startswith(f"device_agent: warning: {REVOKED}\n")


def test_a_stream_that_takes_over_a_release_tells_of_it(board: Board) -> None:
    answers, told = board.root.parent / "answers.csv", board.root.parent / "stderr"
    command = [sys.executable, "-m", "device_agent", "--root", str(board.root), "classify", "--stream"]
    with told.open("wb") as stderr:
        stream = subprocess.Popen(
            [*command, "--format", "csv", "--output", str(answers)],
            stdin=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert stream.stdin is not None
    try:
        stream.stdin.write(ROW.encode())
        stream.stdin.flush()
        _until(lambda: answers.exists() and answers.read_text().count("\n") == 1)
        assert REVOKED not in told.read_text()
        board.revoke("owner", by="colleague")
        stream.send_signal(signal.SIGHUP)
        _until(lambda: REVOKED in told.read_text())
    finally:
        _, _ = stream.communicate(ROW.encode(), timeout=60)
    assert stream.returncode == 0
    assert answers.read_text() == "setosa\nsetosa\n"


def _until(came: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not came():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_key_that_is_gone_from_the_folder_is_named(board: Board) -> None:
    """`classify` refuses then; the status says why before anybody tries."""
    (board.root / constants.TRUST_DIR / trust_store.key_file_name(fingerprint())).unlink()
    assert words(board.run("status")[1]["warnings"]) == ["unknown-key"]
    code, problem = board.run("check")
    assert (code, problem["reason"]) == (constants.EXIT_REFUSED, "no-trusted-keys")
    assert "knnkit provision --target HOST --key PUB" in problem["hint"], "sending the files again would repair nothing"


@pytest.mark.parametrize("name", ["", constants.TRUST_DIR, "a key", f"{constants.TRUST_DIR}/device.json"])
@pytest.mark.parametrize("mode", [0o020, 0o002])
def test_what_others_can_change_of_the_trust_is_told(name: str, mode: int, board: Board) -> None:
    trust_store.ensure_device_id(board.root / constants.TRUST_DIR)
    key = f"{constants.TRUST_DIR}/{trust_store.key_file_name(fingerprint())}"
    path = board.root / (key if name == "a key" else name)
    assert board.run("status")[1]["warnings"] == []
    path.chmod(path.stat().st_mode | mode)
    (told,) = board.run("status")[1]["warnings"]
    assert told.startswith(f"trust-writable: {path} can be changed by others: chmod go-w ")
    findings = board.run("doctor")[1]["findings"]
    (mend,) = [found["mend"] for found in findings if found["name"] == "trust" and found["level"] == "warning"]
    os.system(mend)
    assert board.run("status")[1]["warnings"] == []


@pytest.mark.parametrize("name", [constants.STATE_FILE, constants.VENVS_DIR, constants.VENV_LINK])
def test_what_others_can_change_of_state_and_agent_is_named_if_they_can_enter(name: str, board: Board) -> None:
    path = board.root / name
    if not path.exists():
        (board.root / constants.VENVS_DIR / "one").mkdir(parents=True)
        (board.root / constants.VENV_LINK).symlink_to("venvs/one")
    path.chmod(path.stat().st_mode | 0o002)
    assert board.run("status")[1]["warnings"] == [], "ROOT is closed to others"
    board.root.chmod(0o755)
    (said,) = board.run("status")[1]["warnings"]
    assert said.startswith(f"trust-writable: {path} can be changed by others: chmod go-w ")
    os.system(said.rpartition(": ")[2])
    assert board.run("status")[1]["warnings"] == []


def test_the_words_of_warnings_are_those_of_refusals() -> None:
    reasons = {reason.value for reason in Reason}
    assert set(standing.GATES) <= reasons


# --- going back ---------------------------------------------------------------------------------------------------
@pytest.fixture
def robbed(board: Board, newer: Newer) -> Board:
    """The thief's release ran; its key was revoked, and a fresh release runs."""
    board.revoke("owner", by="colleague")
    board.commit(newer("fresh", by="colleague"))
    return board


def test_a_rollback_that_somebody_asks_for_refuses_a_revoked_key(robbed: Board) -> None:
    code, problem = robbed.run("rollback")
    assert (code, problem["reason"]) == (constants.EXIT_REFUSED, "revoked-key")
    assert "--allow-revoked" in problem["hint"]
    robbed.refuses(Reason.REVOKED_KEY, "rollback")
    _, before = robbed.run("status")
    (warning,) = before["warnings"]
    assert warning.startswith("previous-revoked: ")
    assert "--allow-revoked" in warning
    code, done = robbed.run("rollback", "--allow-revoked")
    assert (code, done["release"]) == (0, before["previous"])
    assert words(done["warnings"]) == ["revoked-key"]


def test_a_rollback_is_not_asked_for_where_nobody_knows_which_keys_are_revoked(robbed: Board) -> None:
    (robbed.root / constants.TRUST_DIR / trust_dir.DEVICE_FILE).write_bytes(b'{"revoked": [')
    code, problem = robbed.run("rollback")
    assert (code, problem["reason"]) == (constants.EXIT_FAILED, "trust-damaged")
    assert robbed.run("rollback", "--allow-revoked")[0] == 0


def test_a_rollback_to_an_expired_release_goes_and_says_so(board: Board, newer: Newer, clock: Clock) -> None:
    first = board.commit(newer("first", expires=NOW + 10))
    board.commit(newer("second", sequence=NOW - 900, version="1.2.0"))
    clock.now = NOW + 11
    code, done = board.run("rollback")
    assert (code, done["release"]["digest"], words(done["warnings"])) == (0, first, ["expired"])


@pytest.mark.parametrize("how", ["the deadline", "a reboot", "given up", "its own"])
def test_a_return_that_nobody_asks_for_takes_a_revoked_key(
    how: str, board: Board, newer: Newer, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, before = board.run("status")
    board.revoke("owner", by="colleague")
    _, staged = board.run("stage", newer("fresh", by="colleague"))
    fresh = staged["release"]["digest"]
    assert board.run("activate", fresh, "--holder", "ann", "--deadline", "600")[0] == 0
    if how == "the deadline":
        later = device_clock.uptime() + 700
        monkeypatch.setattr(device_clock, "uptime", lambda: later)
    elif how == "a reboot":
        monkeypatch.setattr(device_clock, "_boot_id", lambda: "another boot")
    else:
        assert board.run("rollback", *(["--own", "--holder", "ann"] if how == "its own" else []))[0] == 0
    _, after = board.run("status")
    assert (after["answering"], after["committed"]) == (before["answering"], before["committed"])
    assert words(after["warnings"]) == ["revoked-key"]
    assert board.classify()


# --- signing again ------------------------------------------------------------------------------------------------
@pytest.fixture
def rotated(board: Board) -> Board:
    board.apply(issue.rotate(signer("owner"), signer("new"), issued=NOW))
    return board


def again(board: Board, digest: str, by: str = "new") -> Path:
    """A signature of `by` for a release on the board."""
    copy = forge.copy(board.place(digest), board.root.parent / f"again-{by}-{digest[:8]}")
    forge.sign(copy, by=by)
    return copy


@pytest.mark.parametrize("how", ["signature", "directory", "upload"])
def test_a_signature_of_a_trusted_key_takes_the_place_of_another(how: str, rotated: Board) -> None:
    digest = rotated.run("status")[1]["answering"]
    release = again(rotated, digest)
    words = {
        "signature": (digest[:12], "--signature", release / constants.SIGNATURE_FILE),
        "directory": (release,),
        "upload": (rotated.upload(release, digest),),
    }[how]
    code, staged = rotated.run("stage", *words)
    assert (code, staged["signed_by"], staged["release"]["digest"]) == (0, fingerprint("new"), digest), staged
    kept = rotated.place(digest)
    assert (kept / constants.SIGNATURE_FILE).read_bytes() == (release / constants.SIGNATURE_FILE).read_bytes()
    assert {path.name for path in kept.iterdir()} == set(constants.RELEASE_FILES)
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in kept.iterdir())
    _, status = rotated.run("status")
    assert (status["signed_by"], status["warnings"]) == (fingerprint("new"), [])
    assert rotated.run("check")[1]["warnings"] == []


def test_a_release_staged_before_a_rotation_is_activated_with_its_new_signature(board: Board, newer: Newer) -> None:
    _, staged = board.run("stage", newer())
    digest = staged["release"]["digest"]
    board.apply(issue.rotate(signer("owner"), signer("new"), issued=NOW))
    board.refuses(Reason.REVOKED_KEY, "activate", digest)
    signature = again(board, digest) / constants.SIGNATURE_FILE
    assert board.run("activate", digest, "--signature", signature)[0] == 0
    assert board.run("confirm", digest)[0] == 0
    assert board.run("status")[1]["signed_by"] == fingerprint("new")


def test_an_order_goes_back_after_a_rotation_once_the_release_is_signed_again(board: Board, newer: Newer) -> None:
    first = board.run("status")[1]["answering"]
    board.commit(newer("second"))
    board.apply(issue.rotate(signer("owner"), signer("new"), issued=NOW))
    third = board.commit(newer("third", by="new", sequence=NOW - 900, version="1.2.0"))
    order = board.root.parent / "rollback"
    device_id = trust_store.ensure_device_id(board.root / constants.TRUST_DIR)
    order.write_bytes(issue.roll_back(signer("new"), device_id=device_id, digest=first, leaves=third, issued=NOW))
    code, problem = board.run("rollback", "--order", order)
    assert (code, problem["reason"]) == (constants.EXIT_REFUSED, "revoked-key")
    assert "--allow-revoked" in problem["hint"]
    signature = again(board, first) / constants.SIGNATURE_FILE
    code, staged = board.run("stage", first, "--signature", signature)  # under the floor, and here already
    assert (code, staged["already"]) == (0, False), staged
    code, done = board.run("rollback", "--order", order)
    assert (code, done["release"]["digest"], done["warnings"]) == (0, first, [])


def test_an_order_goes_back_to_a_revoked_key_where_that_is_asked_for(board: Board, newer: Newer) -> None:
    first = board.run("status")[1]["answering"]
    board.revoke("owner", by="colleague")
    second = board.commit(newer("second", by="colleague"))
    order = board.root.parent / "rollback"
    device_id = trust_store.ensure_device_id(board.root / constants.TRUST_DIR)
    for by, code in (("owner", constants.EXIT_REFUSED), ("colleague", 0)):  # the order itself needs a trusted key
        order.write_bytes(issue.roll_back(signer(by), device_id=device_id, digest=first, leaves=second, issued=NOW))
        assert board.run("rollback", "--order", order, "--allow-revoked")[0] == code


@pytest.mark.parametrize(
    ("by", "reason"), [("stranger", Reason.UNKNOWN_KEY), ("owner", Reason.REVOKED_KEY)], ids=["a stranger", "revoked"]
)
def test_no_other_signature_takes_the_place_of_one(by: str, reason: Reason, rotated: Board) -> None:
    digest = rotated.run("status")[1]["answering"]
    assert rotated.run("stage", digest, "--signature", again(rotated, digest) / constants.SIGNATURE_FILE)[0] == 0
    held = (rotated.place(digest) / constants.SIGNATURE_FILE).read_bytes()
    release = again(rotated, digest, by)
    rotated.refuses(reason, "stage", digest, "--signature", release / constants.SIGNATURE_FILE)
    rotated.run("stage", release)  # the release that runs passes, whatever its key; its signature stays
    assert (rotated.place(digest) / constants.SIGNATURE_FILE).read_bytes() == held


@pytest.mark.parametrize("damage", ["a signature of another release", "one bit", "half of it", "nothing", "too much"])
def test_a_signature_that_is_not_good_changes_nothing(damage: str, rotated: Board, newer: Newer) -> None:
    digest = rotated.run("status")[1]["answering"]
    file = again(rotated, digest) / constants.SIGNATURE_FILE
    data = file.read_bytes()
    if damage == "one bit":
        forge.edit_bundle(file.parent, lambda bundle: bundle["dsseEnvelope"]["signatures"][0].update(sig="MAA="))
    elif damage == "a signature of another release":
        file.write_bytes((newer(by="new") / constants.SIGNATURE_FILE).read_bytes())
    else:
        file.write_bytes({"half of it": data[: len(data) // 2], "nothing": b""}.get(damage, data + b" " * 70_000))
    held = (rotated.place(digest) / constants.SIGNATURE_FILE).read_bytes()
    code, _ = rotated.run("stage", digest, "--signature", file)
    assert code in (constants.EXIT_REFUSED, constants.EXIT_USAGE)
    assert (rotated.place(digest) / constants.SIGNATURE_FILE).read_bytes() == held


def test_a_release_whose_files_rotted_is_not_signed_again(rotated: Board) -> None:
    digest = rotated.run("status")[1]["answering"]
    signature = again(rotated, digest) / constants.SIGNATURE_FILE
    forge.flip(rotated.place(digest) / constants.MODEL_FILE, 1000)
    code, problem = rotated.run("stage", digest, "--signature", signature)
    assert (code, problem["reason"]) == (constants.EXIT_REFUSED, "file-changed")


def test_mending_a_release_keeps_the_signature_that_is_trusted(rotated: Board) -> None:
    """The files come with the old key's signature, which the device would warn of."""
    digest = rotated.run("status")[1]["answering"]
    old = forge.copy(rotated.place(digest), rotated.root.parent / "old")
    new = again(rotated, digest)
    assert rotated.run("stage", new)[0] == 0
    forge.flip(rotated.place(digest) / constants.MODEL_FILE, 1000)
    assert rotated.run("stage", old)[0] == 0
    assert rotated.run("check")[1]["signed_by"] == fingerprint("new")
    (rotated.place(digest) / constants.SIGNATURE_FILE).write_bytes(b"{}")
    assert rotated.run("stage", new)[0] == 0
    assert rotated.run("check")[1]["signed_by"] == fingerprint("new")


# --- fast-forward -------------------------------------------------------------------------------------------------
def floor_order(board: Board, *, by: str = "owner", **changes: object) -> Path:
    device_id = trust_store.ensure_device_id(board.root / constants.TRUST_DIR)
    _, status = board.run("status")
    values = {"device_id": device_id, "floor": None, "leaves": status["floor"], "issued": NOW, **changes}
    path = board.root.parent / "floor-order"
    path.write_bytes(issue.reset_floor(signer(by), **values))  # type: ignore[arg-type]
    return path


@pytest.fixture
def forwarded(board: Board, newer: Newer) -> Board:
    """A release with a number of another kind was committed."""
    board.commit(newer("jump", sequence=2_026_112_901))
    return board


def test_a_refusal_under_a_floor_in_the_future_says_what_to_type(forwarded: Board, newer: Newer) -> None:
    code, problem = forwarded.run("stage", newer("late", sequence=NOW))
    assert (code, problem["reason"]) == (constants.EXIT_REFUSED, "older-sequence")
    assert "release.sequence: 2026112902" in problem["hint"]
    assert "knnkit rollback --reset-floor" in problem["hint"]
    assert forwarded.commit(newer("next", sequence=2_026_112_902))


def test_an_order_lowers_the_floor_once_and_default_releases_are_taken_again(forwarded: Board, newer: Newer) -> None:
    _, before = forwarded.run("status")
    order = floor_order(forwarded)
    code, done = forwarded.run("rollback", "--order", order)
    assert (code, done["release"], done["already"]) == (0, before["committed"], False)
    _, after = forwarded.run("status")
    assert (after["floor"], after["answering"]) == (NOW, before["answering"])
    forwarded.refuses(Reason.OLDER_SEQUENCE, "stage", newer("old", sequence=NOW - 1))
    forwarded.refuses(Reason.ORDER_USED, "rollback", "--order", order)
    assert forwarded.commit(newer("next", sequence=NOW + 1, version="1.3.0"))
    assert forwarded.run("status")[1]["floor"] == NOW + 1
    assert forwarded.run("rollback")[0] == 0  # the way back is what it always was
    assert forwarded.run("status")[1]["floor"] == NOW + 1
    assert "floor" in [entry["what"] for entry in forwarded.run("history")[1]["entries"]]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device_id": "e" * 32}, Reason.ORDER_OTHER_DEVICE),
        ({"leaves": 5}, Reason.ORDER_STALE),
        ({"leaves": NOW + 10**9, "floor": NOW + 10**9}, Reason.ORDER_STALE),
        ({"floor": -1}, Reason.ORDER_MALFORMED),
        ({"issued": NOW - 3600}, Reason.ORDER_EXPIRED),
        ({"life": orders.MAX_LIFE + 1}, Reason.ORDER_MALFORMED),
        ({"by": "stranger"}, Reason.UNKNOWN_KEY),
    ],
)
def test_an_order_that_is_not_for_this_device_now_lowers_nothing(
    changes: dict[str, object], reason: Reason, forwarded: Board
) -> None:
    order = floor_order(forwarded, **changes)  # type: ignore[arg-type]
    forwarded.refuses(reason, "rollback", "--order", order)


def test_a_revoked_key_lowers_no_floor(forwarded: Board) -> None:
    forwarded.revoke("owner", by="colleague")
    order = floor_order(forwarded)
    forwarded.refuses(Reason.REVOKED_KEY, "rollback", "--order", order)


def test_no_order_is_taken_for_one_of_another_kind(forwarded: Board) -> None:
    state = forge.state()
    floor = issue.reset_floor(signer(), device_id=state.device_id, floor=1, leaves=state.floor, issued=NOW)
    with pytest.raises(Refused) as caught:
        orders.verify_rollback(floor, state, NOW)
    assert caught.value.reason == Reason.ORDER_MALFORMED.value
    back = issue.roll_back(signer(), device_id=state.device_id, digest="0" * 64, leaves="f" * 64, issued=NOW)
    with pytest.raises(Refused) as caught:
        orders.verify_floor(back, state, NOW)
    assert caught.value.reason == Reason.ORDER_MALFORMED.value


def test_an_order_to_lower_what_is_low_does_nothing_and_is_not_used_up(board: Board) -> None:
    device_id = trust_store.ensure_device_id(board.root / constants.TRUST_DIR)
    assert device_id
    order = floor_order(board, floor=10**10)
    for _ in range(2):
        code, done = board.run("rollback", "--order", order)
        assert (code, done["already"]) == (0, True)


@pytest.mark.parametrize("now", [0, -1, 10**6, AGENT_EPOCH - 1])
def test_a_clock_that_is_wrong_raises_the_time_floor_within_reason(
    now: int, board: Board, newer: Newer, clock: Clock
) -> None:
    """A thief dates his release nine years ahead; the owner's expiring ones are taken all the same, before or after."""
    clock.now = now
    board.commit(newer("ahead", created=NOW + 9 * YEAR))
    floor = Store(board.root).load().time_floor
    assert floor <= NOW - 2000 + MAX_RAISE  # from the floor that honest releases had raised
    assert board.commit(newer("next", sequence=NOW, version="1.3.0", created=NOW, expires=floor + 1))
    clock.now = NOW
    assert board.run("rollback", "--order", floor_order(board))[0] == 0
    assert Store(board.root).load().time_floor == NOW
    late = newer("expiring", sequence=NOW + 100, version="1.4.0", created=NOW, expires=NOW + 3600)
    assert board.commit(late)


@pytest.mark.parametrize("clock", [0, NOW, NOW + 8 * YEAR, NOW + 70 * YEAR, 2**62])
def test_no_clock_lets_one_release_raise_the_time_floor_further(clock: int, tmp_path: Path) -> None:
    for number, floor in enumerate((0, NOW - 2000, NOW + YEAR)):
        for step, ahead in enumerate((0, YEAR, 9 * YEAR, MAX_AHEAD)):
            known = max(floor, AGENT_EPOCH)
            release = forge.write(tmp_path / f"{number}-{step}", created=known + ahead)
            found = forge.verify(release, forge.state(time_floor=floor), now=clock).time_floor
            assert floor <= found <= min(known + ahead, known + MAX_RAISE)


def test_an_order_to_lower_the_floors_is_not_judged_by_the_floor_that_it_lowers() -> None:
    state = forge.state(time_floor=NOW + 9 * YEAR)
    order = issue.reset_floor(signer(), device_id=state.device_id, floor=5, leaves=state.floor, issued=NOW)
    assert orders.verify_floor(order, state, NOW).floor == 5
    back = issue.roll_back(signer(), device_id=state.device_id, digest="0" * 64, leaves="f" * 64, issued=NOW)
    with pytest.raises(Refused) as caught:
        orders.verify_rollback(back, state, NOW)
    assert "--reset-floor" in caught.value.hint


def test_a_new_content_can_be_prepared_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "release").mkdir()
    durable.write_atomic(tmp_path / "release" / "file", b"new", prepared=tmp_path / "spare")
    assert [path.name for path in tmp_path.iterdir()] == ["release"]
    assert (tmp_path / "release" / "file").read_bytes() == b"new"
