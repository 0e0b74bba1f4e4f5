"""Signed orders: key rotation, revocation, and the one-use way back to an older release."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import forge
from support.forge import NOW, fingerprint, signer

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import DeviceUnfit, Refused
from device_agent.shared.trust import dsse, orders, rules
from device_agent.shared.trust.orders import KeySets
from device_agent.shared.trust.reasons import Reason
from device_agent.store import trust_dir, trust_store
from device_agent.system import durable
from knnkit.errors import UsageError, VerificationFailed
from knnkit.release import orders as issue
from knnkit.release.signing import FileSigner


def refused_as(reason: Reason, call: Callable[[], object], said: str = "") -> None:
    with pytest.raises(Refused) as caught:
        call()
    assert caught.value.reason == reason.value
    assert caught.value.exit_code == constants.EXIT_REFUSED
    assert said in str(caught.value)


def edited(order: bytes, edit: Callable[[dict[str, Any]], object]) -> bytes:
    data = json.loads(order)
    edit(data)
    return json.dumps(data).encode()


def reissue(order: bytes, *by: str, payload_type: str | None = None, **changes: Any) -> bytes:
    """Signs a changed payload again, with keys of the caller's choice."""
    old = dsse.read_envelope(json.loads(order))
    payload = json.dumps(json.loads(old.payload) | changes).encode()
    kind = payload_type or old.payload_type
    signatures = tuple(dsse.Signature(fingerprint(name), signer(name).sign(dsse.pae(kind, payload))) for name in by)
    return json.dumps(dsse.dump_envelope(dsse.Envelope(kind, payload, signatures))).encode()


# --- rotation -----------------------------------------------------------------------------------------------------
ROTATION = issue.rotate(signer("owner"), signer("new"), issued=NOW)
BEFORE = KeySets(forge.keys("owner"))


def test_a_rotation_trusts_the_new_key_and_revokes_the_old() -> None:
    after = orders.apply(ROTATION, BEFORE)
    assert after.trusted == (fingerprint("new"),)
    assert after.revoked == {fingerprint("owner")}


def test_a_key_that_is_stored_under_another_ones_name_signs_no_order() -> None:
    sets = KeySets({fingerprint("owner"): signer("thief").public_pem, **forge.keys("lost")})
    stolen = _signed_as(signer("thief"), fingerprint("owner"), REVOCATION)
    refused_as(Reason.BAD_SIGNATURE, lambda: orders.apply(stolen, sets))
    rotation = _signed_as(signer("thief"), fingerprint("owner"), ROTATION, also="new")
    refused_as(Reason.ORDER_NEEDS_OLD_KEY, lambda: orders.apply(rotation, sets))


def _signed_as(thief: FileSigner, name: str, order: bytes, *, also: str | None = None) -> bytes:
    """Signs the payload of an order by the key of one, in the name of another."""
    old = dsse.read_envelope(json.loads(order))
    message = dsse.pae(old.payload_type, old.payload)
    signatures = [dsse.Signature(name, thief.sign(message))]
    signatures += [dsse.Signature(fingerprint(also), signer(also).sign(message))] if also else []
    return json.dumps(dsse.dump_envelope(dsse.Envelope(old.payload_type, old.payload, tuple(signatures)))).encode()


def test_a_rotation_whose_signatures_go_by_each_others_names_is_refused() -> None:
    def swap(data: dict[str, Any]) -> None:
        first, second = data["signatures"]
        first["keyid"], second["keyid"] = second["keyid"], first["keyid"]

    refused_as(Reason.ORDER_NEEDS_NEW_KEY, lambda: orders.apply(edited(ROTATION, swap), BEFORE))


def test_a_rotation_twice_is_a_rotation_once() -> None:
    after = orders.apply(ROTATION, BEFORE)
    assert orders.apply(ROTATION, after) == after


def test_a_rotation_needs_the_old_key() -> None:
    refused_as(Reason.ORDER_NEEDS_OLD_KEY, lambda: orders.apply(reissue(ROTATION, "stranger", "new"), BEFORE))


def test_a_rotation_needs_the_new_key() -> None:
    refused_as(Reason.ORDER_NEEDS_NEW_KEY, lambda: orders.apply(reissue(ROTATION, "owner", "stranger"), BEFORE))


@pytest.mark.parametrize("by", [("owner",), ("new",), ("owner", "new", "stranger")])
def test_a_rotation_has_two_signatures(by: tuple[str, ...]) -> None:
    refused_as(Reason.ORDER_MALFORMED, lambda: orders.apply(reissue(ROTATION, *by), BEFORE))


def test_a_rotation_from_a_key_that_was_never_trusted_is_refused() -> None:
    strange = issue.rotate(signer("stranger"), signer("new"), issued=NOW)
    refused_as(Reason.ORDER_NEEDS_OLD_KEY, lambda: orders.apply(strange, BEFORE))


def test_a_rotation_from_a_revoked_key_is_refused() -> None:
    sets = KeySets(forge.keys("owner", "other"), frozenset({fingerprint("owner")}))
    refused_as(Reason.REVOKED_KEY, lambda: orders.apply(ROTATION, sets))


def test_a_rotation_does_not_bring_a_revoked_key_back() -> None:
    sets = KeySets(forge.keys("owner", "new"), frozenset({fingerprint("new")}))
    refused_as(Reason.REVOKED_KEY, lambda: orders.apply(ROTATION, sets))


def test_a_rotation_to_another_key_than_it_names_is_refused() -> None:
    swapped = reissue(ROTATION, "owner", "new", new_pem=signer("stranger").public_pem.decode())
    refused_as(Reason.ORDER_MALFORMED, lambda: orders.apply(swapped, BEFORE))


def test_a_rotation_to_itself_is_refused() -> None:
    with pytest.raises(VerificationFailed):
        issue.rotate(signer("owner"), signer("owner"), issued=NOW)


def test_a_changed_rotation_is_refused() -> None:
    broken = edited(ROTATION, lambda data: data.update(payload=forge.flip_base64(data["payload"], 20)))
    with pytest.raises(Refused):
        orders.apply(broken, BEFORE)


def test_the_release_that_runs_outlives_the_rotation(tmp_path: Path) -> None:
    release = forge.write(tmp_path / "release")
    after = orders.apply(ROTATION, BEFORE)
    known = forge.state(keys=after.keys, revoked=after.revoked)
    refused_as(Reason.REVOKED_KEY, lambda: forge.verify(release, known))
    running = forge.state(keys=after.keys, revoked=after.revoked, committed_digest=forge.verify(release).digest)
    assert forge.verify(release, running).already_committed
    forge.sign(release, by="new")
    assert forge.verify(release, known).signed_by == fingerprint("new")


# --- revocation ---------------------------------------------------------------------------------------------------
REVOCATION = issue.revoke(signer("owner"), [fingerprint("lost")], issued=NOW)
TWO = KeySets(forge.keys("owner", "lost"))


def test_a_revoked_key_stays_known_but_is_not_trusted() -> None:
    after = orders.apply(REVOCATION, TWO)
    assert after.trusted == (fingerprint("owner"),)
    assert fingerprint("lost") in after.keys


def test_a_revocation_twice_is_a_revocation_once() -> None:
    after = orders.apply(REVOCATION, TWO)
    assert orders.apply(REVOCATION, after) == after


def test_a_key_may_revoke_itself_and_repeat_it() -> None:
    order = issue.revoke(signer("lost"), [fingerprint("lost")], issued=NOW)
    after = orders.apply(order, TWO)
    assert after.trusted == (fingerprint("owner"),)
    assert orders.apply(order, after) == after


def test_a_key_that_is_not_known_yet_can_be_revoked() -> None:
    after = orders.apply(REVOCATION, KeySets(forge.keys("owner")))
    assert fingerprint("lost") in after.revoked


def test_the_last_key_is_never_revoked() -> None:
    order = issue.revoke(signer("owner"), [fingerprint("owner"), fingerprint("lost")], issued=NOW)
    refused_as(Reason.LAST_KEY, lambda: orders.apply(order, TWO))


def test_a_stranger_revokes_nothing() -> None:
    order = issue.revoke(signer("stranger"), [fingerprint("owner")], issued=NOW)
    refused_as(Reason.UNKNOWN_KEY, lambda: orders.apply(order, TWO))


def test_a_revoked_key_revokes_nothing() -> None:
    order = issue.revoke(signer("lost"), [fingerprint("owner")], issued=NOW)
    sets = KeySets(forge.keys("owner", "lost", "third"), frozenset({fingerprint("lost")}))
    refused_as(Reason.REVOKED_KEY, lambda: orders.apply(order, sets))


def test_a_changed_revocation_is_refused() -> None:
    broken = edited(REVOCATION, lambda data: data.update(payload=forge.flip_base64(data["payload"], 40)))
    with pytest.raises(Refused):
        orders.apply(broken, TWO)
    forged = reissue(REVOCATION, "stranger")
    forged = edited(forged, lambda data: data["signatures"][0].update(keyid=fingerprint("owner")))
    refused_as(Reason.BAD_SIGNATURE, lambda: orders.apply(forged, TWO))


def test_a_revocation_has_one_signature() -> None:
    refused_as(Reason.ORDER_MALFORMED, lambda: orders.apply(reissue(REVOCATION, "owner", "lost"), TWO))


@pytest.mark.parametrize("revoked", [[], ["owner"], ["sha256:xyz"], [f"sha256:{i:064x}" for i in range(65)]])
def test_a_revocation_names_a_few_fingerprints(revoked: list[str]) -> None:
    refused_as(Reason.ORDER_MALFORMED, lambda: orders.apply(reissue(REVOCATION, "owner", revoked=revoked), TWO))


@pytest.mark.parametrize("wrong", [[], ["owner"]])
def test_the_host_asks_for_fingerprints(wrong: list[str]) -> None:
    with pytest.raises(UsageError):
        issue.revoke(signer("owner"), wrong)


def test_the_host_signs_no_revocation_of_more_keys_than_devices_take() -> None:
    many = [f"sha256:{i:064x}" for i in range(orders.MAX_REVOKED + 1)]
    with pytest.raises(UsageError, match="65 keys to revoke are given; one order can name at most 64"):
        issue.revoke(signer("owner"), many)
    order = issue.revoke(signer("owner"), [*many[1:], *many[1:]], issued=NOW)  # the same key twice is one
    assert orders.apply(order, TWO).revoked >= set(many[1:])


# --- rollback -----------------------------------------------------------------------------------------------------
@pytest.fixture
def older(tmp_path: Path) -> Path:
    return forge.write(tmp_path / "older", sequence=7)


def order_for(release: Path, **changes: Any) -> bytes:
    digest = forge.verify(release, forge.state(floor=0)).digest
    values = {"device_id": "d" * 32, "digest": digest, "leaves": "f" * 64, "issued": NOW, **changes}
    return issue.roll_back(signer("owner"), **values)


def test_an_older_release_needs_an_order(older: Path) -> None:
    refused_as(Reason.OLDER_SEQUENCE, lambda: forge.verify(older))
    order = orders.verify_rollback(order_for(older), forge.state(), NOW)
    verdict = forge.verify(older, ordered_digest=order.digest)
    assert verdict.floor == forge.state().floor  # it stays where it was


def test_an_order_is_good_for_its_release_alone(older: Path, tmp_path: Path) -> None:
    other = forge.write(tmp_path / "other", sequence=6)
    order = orders.verify_rollback(order_for(older), forge.state(), NOW)
    refused_as(Reason.OLDER_SEQUENCE, lambda: forge.verify(other, ordered_digest=order.digest))


def test_an_order_lifts_the_floor_and_nothing_else(tmp_path: Path) -> None:
    expired = forge.write(tmp_path / "expired", sequence=7, expires=NOW - 1)
    digest = forge.verify(expired, forge.state(floor=0), NOW - 2).digest
    refused_as(Reason.EXPIRED, lambda: forge.verify(expired, ordered_digest=digest))
    revoked = forge.state(revoked=frozenset({fingerprint()}))
    refused_as(Reason.REVOKED_KEY, lambda: forge.verify(expired, revoked, ordered_digest=digest))


def rollback_refused(reason: Reason, order: bytes, now: int = NOW, **known: Any) -> None:
    refused_as(reason, lambda: orders.verify_rollback(order, forge.state(**known), now))


def test_an_order_for_another_device_is_refused(older: Path) -> None:
    rollback_refused(Reason.ORDER_OTHER_DEVICE, order_for(older, device_id="e" * 32))


def test_an_order_for_no_device_fits_no_device(older: Path) -> None:
    rollback_refused(Reason.ORDER_OTHER_DEVICE, order_for(older, device_id=""), device_id="")


def test_an_order_is_used_once(older: Path) -> None:
    order = order_for(older)
    nonce = orders.verify_rollback(order, forge.state(), NOW).nonce
    rollback_refused(Reason.ORDER_USED, order, used_orders=frozenset({nonce}))


def test_an_order_is_void_once_the_device_has_moved_on(older: Path) -> None:
    rollback_refused(Reason.ORDER_STALE, order_for(older), committed_digest="a" * 64)


def test_an_order_expires(older: Path) -> None:
    order = order_for(older, life=60)
    orders.verify_rollback(order, forge.state(), NOW + 59)
    rollback_refused(Reason.ORDER_EXPIRED, order, now=NOW + 60)


def test_an_order_expires_by_the_time_floor_where_the_clock_is_wrong(older: Path) -> None:
    rollback_refused(Reason.ORDER_EXPIRED, order_for(older, life=60), now=0, time_floor=NOW + 60)


def test_an_order_by_a_stranger_or_a_revoked_key_is_refused(older: Path) -> None:
    rollback_refused(Reason.UNKNOWN_KEY, reissue(order_for(older), "stranger"))
    rollback_refused(Reason.REVOKED_KEY, order_for(older), revoked=frozenset({fingerprint()}))


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": ""},
        {"nonce": "Z" * 32},
        {"digest": "abc"},
        {"leaves": "../x"},
        {"expires": NOW},
        {"expires": NOW + orders.MAX_LIFE + 1},
        {"extra": 1},
        {"issued": "now"},
    ],
)
def test_a_signed_order_that_makes_no_sense_is_refused(older: Path, changes: dict[str, Any]) -> None:
    order = reissue(order_for(older), "owner", **changes)
    rollback_refused(Reason.ORDER_MALFORMED, order)
    ((field, value),) = changes.items()
    if field not in ("extra", "issued"):
        said = f"the order's {field} is {json.dumps(value)}; expected "
        refused_as(Reason.ORDER_MALFORMED, lambda: orders.verify_rollback(order, forge.state(), NOW), said)


def test_an_order_of_a_later_schema_asks_for_a_newer_agent(older: Path) -> None:
    rollback_refused(Reason.AGENT_TOO_OLD, reissue(order_for(older), "owner", schema=2))


def test_no_signature_is_taken_for_one_of_another_kind(older: Path) -> None:
    order = order_for(older)
    relabelled = edited(order, lambda data: data.update(payloadType=orders.REVOCATION_TYPE))
    with pytest.raises(Refused):
        orders.apply(relabelled, BEFORE)
    rollback_refused(Reason.ORDER_MALFORMED, ROTATION)
    refused_as(Reason.ORDER_MALFORMED, lambda: orders.apply(order, BEFORE))
    bundle = json.loads((older / constants.SIGNATURE_FILE).read_bytes())["dsseEnvelope"]
    refused_as(Reason.ORDER_MALFORMED, lambda: orders.apply(json.dumps(bundle).encode(), BEFORE))


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b"[" * 9000, b" " * (constants.MAX_ORDER + 1)])
def test_what_is_no_order_is_refused(data: bytes) -> None:
    refused_as(Reason.ORDER_MALFORMED, lambda: orders.apply(data, BEFORE))
    rollback_refused(Reason.ORDER_MALFORMED, data)


# --- on the disk of the device ------------------------------------------------------------------------------------
@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "trust"
    folder.mkdir()
    _enrol(folder, "owner")
    return folder


def _enrol(folder: Path, name: str) -> None:
    (folder / trust_store.key_file_name(fingerprint(name))).write_bytes(signer(name).public_pem)


def test_a_rotation_is_kept_on_the_device(folder: Path) -> None:
    assert trust_store.apply_order(folder, ROTATION).sets.trusted == (fingerprint("new"),)
    known = trust_store.read(folder).fill(rules.TrustState())
    assert known.keys == forge.keys("owner", "new")
    assert known.revoked == {fingerprint("owner")}
    assert known.device_id


def test_a_refused_order_changes_no_file(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(Refused):
        trust_store.apply_order(folder, reissue(ROTATION, "stranger", "new"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_the_device_writes_is_for_its_owner_alone(folder: Path) -> None:
    trust_store.apply_order(folder, ROTATION)
    for name in (trust_dir.DEVICE_FILE, trust_store.key_file_name(fingerprint("new"))):
        assert (folder / name).stat().st_mode & 0o777 == 0o600


class PowerCut(BaseException):
    """Ends the process, as far as the code can see."""


def cut_after(calls: int, monkeypatch: pytest.MonkeyPatch, failure: BaseException) -> None:
    """Lets that many effects on the disk happen, and `failure` instead of the next."""
    left = [calls]

    def limited(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if left[0] == 0:
                raise failure
            left[0] -= 1
            return function(*arguments, **options)

        return call

    for name in ("open", "write", "fsync", "replace"):
        monkeypatch.setattr(durable.os, name, limited(getattr(os, name)))


@pytest.mark.parametrize("failure", [PowerCut(), OSError(28, "No space left on device"), OSError(5, "I/O error")])
def test_a_rotation_cut_at_any_point_leaves_a_trusted_key_and_can_be_repeated(
    tmp_path: Path, failure: BaseException
) -> None:
    allowed = [{fingerprint("owner")}, {fingerprint("owner"), fingerprint("new")}, {fingerprint("new")}]
    for calls in itertools.count():
        folder = tmp_path / str(calls)
        folder.mkdir()
        _enrol(folder, "owner")
        with pytest.MonkeyPatch.context() as patch:
            cut_after(calls, patch, failure)
            try:
                trust_store.apply_order(folder, ROTATION)
            except (PowerCut, OSError, DeviceUnfit, Refused):
                done = False
            else:
                done = True
        assert set(trust_store.read(folder).sets.trusted) in allowed
        assert trust_store.apply_order(folder, ROTATION).sets.trusted == (fingerprint("new"),)
        if done:
            assert calls > 10
            return


def test_the_device_id_is_made_once(folder: Path) -> None:
    first = trust_store.ensure_device_id(folder)
    assert len(first) == 32
    assert trust_store.ensure_device_id(folder) == first


def test_device_ids_differ(tmp_path: Path) -> None:
    assert trust_store.ensure_device_id(tmp_path / "a") != trust_store.ensure_device_id(tmp_path / "b")


def test_an_order_is_counted_before_it_is_acted_on(folder: Path, older: Path) -> None:
    device_id = trust_store.ensure_device_id(folder)
    order = order_for(older, device_id=device_id)
    known = trust_store.read(folder).fill(forge.state())
    found = orders.verify_rollback(order, known, NOW)
    trust_store.use_order(folder, found)
    refused_as(Reason.ORDER_USED, lambda: trust_store.use_order(folder, found))
    again = trust_store.read(folder).fill(forge.state())
    refused_as(Reason.ORDER_USED, lambda: orders.verify_rollback(order, again, NOW))


def test_one_broken_key_file_does_not_take_the_others_away(folder: Path, tmp_path: Path) -> None:
    (folder / "broken.pem").write_bytes(b"\0" * 100)
    (tmp_path / "elsewhere").write_bytes(signer("stranger").public_pem)
    (folder / "link.pem").symlink_to(tmp_path / "elsewhere")
    (folder / "folder.pem").mkdir()
    (folder / "large.pem").write_bytes(signer("stranger").public_pem + b"\n" * 5000)
    found = trust_store.read(folder)
    assert found.sets.trusted == (fingerprint("owner"),)
    names = ["broken.pem", "folder.pem", "large.pem", "link.pem"]
    assert [path for path, _ in found.unread] == [folder / name for name in names]
    assert all(warning.startswith(f"key-unreadable: {path.name}: ") for path, warning in found.unread)


def test_a_key_may_have_any_file_name(folder: Path) -> None:
    (folder / "colleague.pem").write_bytes(signer("colleague").public_pem)
    assert set(trust_store.read(folder).sets.trusted) == {fingerprint("owner"), fingerprint("colleague")}


@pytest.mark.parametrize("data", [b"", b"{", b'{"device_id": 5}', b"[" * 5000])
def test_damaged_revocations_accept_nothing_new_and_stop_nothing(folder: Path, data: bytes) -> None:
    (folder / trust_dir.DEVICE_FILE).write_bytes(data)
    with pytest.raises(DeviceUnfit) as caught:
        trust_store.read(folder)
    assert caught.value.reason == "trust-damaged"
    assert trust_store.read(folder, lenient=True).sets.trusted == (fingerprint("owner"),)
    assert trust_dir.look(folder).warnings


def test_a_device_takes_revocations_as_far_as_it_can_count_them_and_rotations_after_that(folder: Path) -> None:
    """What is written must be readable: the cap holds for who writes, and nothing is made good again."""
    names = [f"sha256:{i:064x}" for i in range(orders.MAX_REVOKED_IN_ALL)]
    trust_dir.device_document(folder).write(trust_dir.DeviceTrust("ab" * 16, tuple(names)))
    before = (folder / trust_dir.DEVICE_FILE).read_bytes()
    order = issue.revoke(signer("owner"), [f"sha256:{'f' * 64}"], issued=1)
    refused_as(Reason.TOO_MANY_REVOKED, lambda: trust_store.apply_order(folder, order))
    assert (folder / trust_dir.DEVICE_FILE).read_bytes() == before
    assert trust_store.apply_order(folder, ROTATION).sets.trusted == (fingerprint("new"),)
    assert len(trust_store.read(folder).sets.revoked) == orders.MAX_REVOKED_IN_ALL + 1


def test_a_full_device_json_changes_nothing_not_even_a_key(folder: Path) -> None:
    room = trust_dir.MAX_DEVICE_FILE - 150
    trust_dir.device_document(folder).write(trust_dir.DeviceTrust("ab" * 16, used_orders=("x" * room,)))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(DeviceUnfit) as caught:
        trust_store.apply_order(folder, ROTATION)
    assert caught.value.reason == "document-full"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_device_without_a_trust_folder_trusts_nobody(tmp_path: Path) -> None:
    assert trust_store.read(tmp_path / "nowhere").sets.trusted == ()
