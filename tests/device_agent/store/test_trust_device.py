"""The checklist on a device: each refusal has exit code 4 and its word, and the model that answers goes on answering.

A real store, a real model on the real runtime, the agent's own command line.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import forge
from support.attacks import ATTACKS, Attack
from support.forge import NOW, fingerprint, signer
from support.releases import Releases
from support.trusting import Board, Clock, digest_of, enrol

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import DeviceUnfit
from device_agent.shared.trust.reasons import Reason
from device_agent.shared.trust.rules import MAX_AHEAD
from device_agent.store import trust_dir, trust_store
from knnkit.release import orders as issue


# --- signature ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attacked_upload_is_refused_and_the_model_goes_on_answering(
    attack: Attack, board: Board, newer: Callable[..., Path]
) -> None:
    upload = board.upload(newer())
    attack.damage(upload)
    board.refuses(attack.reason, "stage", upload)


def test_the_honest_upload_is_accepted(board: Board, newer: Callable[..., Path]) -> None:
    """Without this, the refusals above would prove nothing."""
    release = newer()
    assert board.commit(board.upload(release, digest_of(release))) == digest_of(release)


def test_an_upload_that_is_not_what_it_is_called_is_refused(board: Board, newer: Callable[..., Path]) -> None:
    board.refuses(Reason.OTHER_RELEASE, "stage", board.upload(newer(), "0" * 64))


def test_a_release_that_rots_after_it_was_staged_is_not_activated(board: Board, newer: Callable[..., Path]) -> None:
    _, staged = board.run("stage", newer())
    digest = staged["release"]["digest"]
    forge.flip(board.root / constants.RELEASES_DIR / digest / constants.MODEL_FILE, 1000)
    board.refuses(Reason.FILE_CHANGED, "activate", digest)


@pytest.mark.parametrize("command", ["classify", "check", "classify --stream"])
def test_a_release_that_runs_is_verified_at_every_start(command: str, board: Board) -> None:
    answer = board.classify()
    _, status = board.run("status")
    model = board.root / constants.RELEASES_DIR / status["answering"] / constants.MODEL_FILE
    forge.flip(model, 1000)
    rows = ["--input", board.root.parent / "row.csv"] if "classify" in command else []
    code, problem = board.run(*command.split(), *rows)
    assert (code, problem["reason"]) == (constants.EXIT_REFUSED, Reason.FILE_CHANGED.value)
    forge.flip(model, 1000)
    assert board.classify() == answer


def test_a_manifest_that_describes_another_models_labels_is_not_activated(
    board: Board, newer: Callable[..., Path]
) -> None:
    _, staged = board.run("stage", newer(labels_sha256="0" * 64))
    before = board.state()
    code, problem = board.run("activate", staged["release"]["digest"])
    assert (code, problem["reason"]) == (constants.EXIT_REFUSED, "model-mismatch")
    assert board.state() == before


def test_a_revoked_key_stages_nothing_and_stops_nothing(board: Board, newer: Callable[..., Path]) -> None:
    enrol(board.root, "colleague")
    order = board.root.parent / "order"
    order.write_bytes(issue.revoke(signer("colleague"), [fingerprint("owner")], issued=NOW))
    assert board.run("trust", "--apply", order)[0] == 0
    board.refuses(Reason.REVOKED_KEY, "stage", newer())
    assert board.run("check")[0] == 0


def test_a_release_staged_before_its_key_was_revoked_is_not_activated(board: Board, newer: Callable[..., Path]) -> None:
    enrol(board.root, "colleague")
    _, staged = board.run("stage", newer())
    order = board.root.parent / "order"
    order.write_bytes(issue.revoke(signer("colleague"), [fingerprint("owner")], issued=NOW))
    assert board.run("trust", "--apply", order)[0] == 0
    board.refuses(Reason.REVOKED_KEY, "activate", staged["release"]["digest"])


def test_a_damaged_list_of_revoked_keys_stages_nothing_and_stops_nothing(
    board: Board, newer: Callable[..., Path]
) -> None:
    answers = board.classify()
    (board.root / constants.TRUST_DIR / trust_dir.DEVICE_FILE).write_bytes(b'{"revoked": [')
    code, problem = board.run("stage", newer())
    assert (code, problem["reason"]) == (constants.EXIT_FAILED, "trust-damaged")
    assert board.classify() == answers
    assert board.run("check")[0] == 0


def test_revoked_keys_that_may_not_be_read_are_not_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / trust_dir.DEVICE_FILE))

    monkeypatch.setattr("device_agent.store.json_file.read_small", refuse)
    with pytest.raises(DeviceUnfit, match=r"device\.json: Permission denied") as caught:
        trust_dir.read_device(tmp_path)
    assert (caught.value.reason, caught.value.hint) == ("no-permission", f"chmod u+rwX {tmp_path}")


def test_a_device_without_keys_stages_nothing(board: Board, newer: Callable[..., Path]) -> None:
    release = newer()
    key = board.root / constants.TRUST_DIR / trust_store.key_file_name(fingerprint())
    key.rename(board.root.parent / "away.pem")
    code, problem = board.run("stage", release)
    assert (code, problem["reason"]) == (constants.EXIT_REFUSED, Reason.NO_TRUSTED_KEYS.value)
    (board.root.parent / "away.pem").rename(key)
    assert board.classify()


# --- freshness ----------------------------------------------------------------------------------------------------
def test_an_older_sequence_is_refused(board: Board, newer: Callable[..., Path]) -> None:
    board.refuses(Reason.OLDER_SEQUENCE, "stage", newer(sequence=NOW - 2001))


def test_a_release_that_became_old_after_it_was_staged_is_not_activated(
    board: Board, newer: Callable[..., Path]
) -> None:
    _, staged = board.run("stage", newer("first", sequence=NOW - 1500))
    board.commit(newer("second", version="1.2.0"))
    board.refuses(Reason.OLDER_SEQUENCE, "activate", staged["release"]["digest"])


def test_the_same_sequence_with_other_contents_is_refused(board: Board, newer: Callable[..., Path]) -> None:
    board.refuses(Reason.SAME_SEQUENCE, "stage", newer(sequence=NOW - 2000))


def test_the_identical_release_is_a_no_op(board: Board, prepared: Path) -> None:
    before = board.state()
    code, staged = board.run("stage", prepared.parent / "iris")
    assert (code, staged["already"]) == (0, True)
    code, activated = board.run("activate", staged["release"]["digest"])
    assert (code, activated["already"]) == (0, True)
    assert board.state() == before


def test_a_huge_sequence_is_refused(board: Board, newer: Callable[..., Path]) -> None:
    board.refuses(Reason.SEQUENCE_TOO_FAR, "stage", newer(sequence=2 * NOW + MAX_AHEAD))


def test_an_expired_release_is_not_staged(board: Board, newer: Callable[..., Path], clock: Clock) -> None:
    board.refuses(Reason.EXPIRED, "stage", newer(expires=NOW))


def test_expiry_stops_an_activation_and_never_the_model_that_runs(
    board: Board, newer: Callable[..., Path], clock: Clock
) -> None:
    running = board.commit(newer("running", expires=NOW + 10))
    _, staged = board.run("stage", newer("late", version="2", sequence=NOW, expires=NOW + 10))
    clock.now = NOW + 11
    board.refuses(Reason.EXPIRED, "activate", staged["release"]["digest"])
    _, status = board.run("status")
    assert status["answering"] == running


def test_a_clock_at_1970_is_a_warning(board: Board, newer: Callable[..., Path], clock: Clock) -> None:
    clock.now = 0
    code, staged = board.run("stage", newer())
    assert code == 0
    assert [warning.partition(":")[0] for warning in staged["warnings"]] == ["clock-behind"]
    assert board.commit(newer("another", sequence=NOW - 999))


def test_a_clock_at_1970_brings_nothing_expired_back(board: Board, newer: Callable[..., Path], clock: Clock) -> None:
    board.commit(newer())  # created NOW - 1000: the time floor from here on
    clock.now = 0
    late = newer("late", sequence=NOW, created=NOW - 3000, expires=NOW - 1000)
    board.refuses(Reason.EXPIRED, "stage", late)


def test_a_release_of_another_model_is_refused(board: Board, newer: Callable[..., Path]) -> None:
    board.refuses(Reason.WRONG_NAME, "stage", newer(source="wine"))


def test_a_release_for_another_class_is_refused(board: Board, newer: Callable[..., Path]) -> None:
    board.refuses(Reason.WRONG_DEVICE_CLASS, "stage", newer(device_class="freezer"))


def test_a_release_for_a_newer_agent_is_refused(board: Board, newer: Callable[..., Path]) -> None:
    board.refuses(Reason.AGENT_TOO_OLD, "stage", newer(minimum_agent="99"))


def test_a_release_for_a_newer_runtime_is_refused(board: Board, newer: Callable[..., Path]) -> None:
    board.refuses(Reason.RUNTIME_TOO_OLD, "stage", newer(minimum_runtime="99"))


def test_an_old_model_with_a_new_golden_set_is_refused(
    board: Board, newer: Callable[..., Path], releases: Releases
) -> None:
    release = newer()
    shutil.copyfile(releases["iris"] / constants.MODEL_FILE, release / constants.MODEL_FILE)
    board.refuses(Reason.FILE_CHANGED, "stage", release)


def test_a_refused_release_raises_no_floor(board: Board, newer: Callable[..., Path]) -> None:
    board.refuses(Reason.WRONG_DEVICE_CLASS, "stage", newer("wrong", sequence=NOW - 500, device_class="freezer"))
    assert board.commit(newer("right", sequence=NOW - 600))


# --- orders -------------------------------------------------------------------------------------------------------
def test_a_key_is_rotated_by_an_order_of_both_keys(board: Board, newer: Callable[..., Path]) -> None:
    order = board.root.parent / "rotation"
    order.write_bytes(issue.rotate(signer("owner"), signer("new"), issued=NOW))
    board.refuses(Reason.UNKNOWN_KEY, "stage", newer("early", by="new"))
    code, held = board.run("trust", "--apply", order)
    assert (code, held["trusted"], held["revoked"]) == (0, [fingerprint("new")], [fingerprint("owner")])
    assert board.run("trust", "--apply", order)[0] == 0  # the same once more
    assert board.run("check")[0] == 0  # what runs was signed by the old key
    board.refuses(Reason.REVOKED_KEY, "stage", newer("old"))
    assert board.commit(newer("next", by="new"))


def test_a_rotation_that_only_the_new_key_signed_is_refused(board: Board) -> None:
    order = board.root.parent / "rotation"
    order.write_bytes(issue.rotate(signer("stranger"), signer("new"), issued=NOW))
    board.refuses(Reason.ORDER_NEEDS_OLD_KEY, "trust", "--apply", order)


def test_the_last_key_is_not_revoked(board: Board) -> None:
    order = board.root.parent / "revocation"
    order.write_bytes(issue.revoke(signer("owner"), [fingerprint("owner")], issued=NOW))
    board.refuses(Reason.LAST_KEY, "trust", "--apply", order)


def test_a_signed_order_goes_back_two_releases_once(board: Board, newer: Callable[..., Path]) -> None:
    _, status = board.run("status")
    first = status["answering"]
    board.commit(newer("second"))
    third = board.commit(newer("third", sequence=NOW - 900, version="1.2.0"))
    board.refuses(Reason.OLDER_SEQUENCE, "activate", first)
    device_id = trust_store.ensure_device_id(board.root / constants.TRUST_DIR)
    order = board.root.parent / "order"

    def write(**changes: Any) -> None:
        order.write_bytes(issue.roll_back(signer("owner"), **{**values, **changes}))

    values = {"device_id": device_id, "digest": first, "leaves": third, "issued": NOW}
    write(device_id="e" * 32)
    board.refuses(Reason.ORDER_OTHER_DEVICE, "rollback", "--order", order)
    write()
    code, committed = board.run("rollback", "--order", order)
    assert (code, committed["release"]["digest"]) == (0, first), committed
    used, before = order.read_bytes(), (board.root / constants.STATE_FILE).read_bytes()
    write(leaves=first)  # as `--to` with the release that answers makes it
    code, committed = board.run("rollback", "--order", order)
    assert (code, committed["already"], committed["release"]["digest"]) == (0, True, first), committed
    assert (board.root / constants.STATE_FILE).read_bytes() == before, "the release before it is not lost"
    order.write_bytes(used)
    assert board.run("status")[1]["floor"] == NOW - 900  # it stays
    assert board.run("activate", third)[0] == 0  # forward again, to the newest
    assert board.run("confirm", third)[0] == 0
    board.refuses(Reason.ORDER_USED, "rollback", "--order", order)


def test_an_order_of_a_stranger_is_refused(board: Board, newer: Callable[..., Path]) -> None:
    _, status = board.run("status")
    board.commit(newer("second"))
    _, after = board.run("status")
    device_id = trust_store.ensure_device_id(board.root / constants.TRUST_DIR)
    order = board.root.parent / "order"
    order.write_bytes(
        issue.roll_back(
            signer("stranger"), device_id=device_id, digest=status["answering"], leaves=after["answering"], issued=NOW
        )
    )
    board.refuses(Reason.UNKNOWN_KEY, "rollback", "--order", order)


# --- confinement --------------------------------------------------------------------------------------------------
def test_everything_on_the_device_is_its_owners_alone(board: Board, newer: Callable[..., Path]) -> None:
    board.commit(newer())
    found = [path for path in board.root.rglob("*") if not path.is_symlink()]
    assert len(found) > 10
    for path in (board.root, *found):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_a_trust_directory_that_cannot_be_listed_is_reported_without_a_crash(tmp_path: Path) -> None:
    (tmp_path / "trust").write_text("a file instead of a folder")
    seen, held = trust_dir.look(tmp_path / "trust"), trust_store.read(tmp_path / "trust", lenient=True)
    assert seen.trusted == held.sets.trusted == ()
    assert held.unread[0][1] in seen.warnings
    assert held.unread[0][1].startswith("key-unreadable: trust: ")
