"""A document may grow: an older reader takes what it knows, an older writer loses nothing, and nobody adds to what is
signed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from support import forge
from support.documents import MORE, all_documents, grown, shrunk
from support.releases import Releases

from device_agent.shared.protocol import constants, json_codec, versions
from device_agent.shared.protocol.documents import HistoryEntry, ReleaseRef
from device_agent.shared.protocol.errors import DeviceUnfit, Refused
from device_agent.shared.protocol.record import replace, shape
from device_agent.shared.trust import dsse, orders
from device_agent.shared.trust.manifest import read_manifest
from device_agent.shared.trust.reasons import Reason
from device_agent.store import history, trust_dir, trust_store
from device_agent.store.state import StoreState
from device_agent.store.store import Store
from knnkit.fleet.report import DeviceReport, FleetReport, Outcome
from knnkit.release.orders import revoke

DOCUMENTS = all_documents()
#: What somebody signs: its readers refuse what they do not know.
SIGNED = {"Manifest", "Gates", "Rotation", "Revocation", "RollbackOrder"}
each = pytest.mark.parametrize("name", sorted(DOCUMENTS))
REF = ReleaseRef("ab" * 32, "fruit", "1.0.0", 10)


def test_every_kind_of_document_is_found() -> None:
    known = {"Status", "Staged", "Installed", "Activated", "Certificate", "Committed", "Pruned", "History", "TakenBack"}
    known |= {"TrustedKeys", "Diagnosis", "Bench", "Problem", "KnnInfo", "StoreState", "DeviceTrust", "LockHolder"}
    assert DOCUMENTS.keys() >= known | SIGNED | {"FleetReport", "DeviceReport"}


@each
def test_more_keys_are_ignored_by_who_only_reads(name: str) -> None:
    document = DOCUMENTS[name]
    assert json_codec.from_plain(type(document), json.loads(json.dumps(grown(document)))) == document


@each
def test_more_keys_are_kept_by_who_writes_again(name: str) -> None:
    document = DOCUMENTS[name]
    found = json_codec.from_plain(type(document), grown(document), extra="keep")
    assert json_codec.to_plain(found) == grown(document)
    field = next(iter(shape(type(document)) or ()))
    changed = replace(found, **{field: getattr(found, field)})
    assert json_codec.to_plain(changed) == grown(document), "a change of something else loses nothing"


@each
def test_more_keys_are_refused_in_what_is_signed(name: str) -> None:
    with pytest.raises(json_codec.MalformedDocument, match="unknown key"):
        json_codec.from_plain(type(DOCUMENTS[name]), grown(DOCUMENTS[name]), extra="refuse")


@each
def test_keys_that_came_later_may_be_missing(name: str) -> None:
    kind = type(DOCUMENTS[name])
    found = json_codec.from_plain(kind, shrunk(DOCUMENTS[name]))
    assert shrunk(found) == shrunk(DOCUMENTS[name])


@each
@pytest.mark.parametrize("extra", ["ignore", "keep", "refuse"])
def test_a_newer_schema_is_never_misread(name: str, extra: Any) -> None:
    document = DOCUMENTS[name]
    if hasattr(type(document), "schema"):
        newer = json_codec.to_plain(document) | {"schema": constants.SCHEMA + 1}
        with pytest.raises(json_codec.NewerDocument, match=f"its schema is {constants.SCHEMA + 1}"):
            json_codec.from_plain(type(document), newer, extra=extra)


@each
@pytest.mark.parametrize("schema", [0, -1, -(2**40), None])
def test_a_schema_that_no_version_wrote_is_refused(name: str, schema: int | None) -> None:
    document = DOCUMENTS[name]
    if hasattr(type(document), "schema"):
        plain = json_codec.to_plain(document) | {"schema": schema}
        if schema is None:
            del plain["schema"]
        with pytest.raises(json_codec.MalformedDocument, match="schema"):
            json_codec.from_plain(type(document), plain, extra="refuse")


# --- files that are read, changed and written -------------------------------------------------------------------------
def test_an_older_agent_that_changes_the_state_keeps_what_a_newer_one_wrote_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.state_file.write_text(json.dumps(grown(StoreState(committed=REF, floor=10))))
    with store.changing("ann", "a test"):
        store.commit(replace(store.load(), previous=store.load().committed, committed=None, floor=11))
    found = json.loads(store.state_file.read_bytes())
    assert found.items() >= MORE.items()
    assert found["previous"].items() >= MORE.items()
    assert (found["floor"], found["committed"]) == (11, None)


def test_an_older_agent_that_revokes_a_key_keeps_what_a_newer_one_wrote_there(tmp_path: Path) -> None:
    owner, other = forge.signer("owner"), forge.signer("other")
    for signer in (owner, other):
        (tmp_path / f"{dsse.fingerprint(signer.public_pem)[7:]}.pem").write_bytes(signer.public_pem)
    file = tmp_path / trust_dir.DEVICE_FILE
    file.write_text(json.dumps(grown(trust_dir.DeviceTrust("ab" * 16))))
    trust_store.apply_order(tmp_path, revoke(owner, [dsse.fingerprint(other.public_pem)], issued=1))
    found = json.loads(file.read_bytes())
    assert found.items() >= MORE.items()
    assert found["revoked"] == [dsse.fingerprint(other.public_pem)]


def test_a_history_that_a_newer_agent_has_written_is_read_and_goes_on(tmp_path: Path) -> None:
    path, event = tmp_path / "history.jsonl", HistoryEntry(5, "activated", REF, REF, "", "ann", 1)
    line = json.dumps(grown(event) | {"signed_by": "somebody"}, sort_keys=True)
    path.write_text(line + "\n")
    history.record(path, event)
    assert path.read_text() == line + "\n", "it has the event already"
    history.record(path, replace(event, serial=2, what="confirmed"))
    assert [entry.what for entry in history.read(path)] == ["activated", "confirmed"]
    assert path.read_text().startswith(line)


@pytest.mark.parametrize("file", [constants.STATE_FILE, f"{constants.TRUST_DIR}/device.json"])
def test_a_file_with_a_newer_schema_stays_as_it_is(file: str, tmp_path: Path) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"schema": 2, "device_id": ""}')
    store = Store(tmp_path)
    with pytest.raises(DeviceUnfit, match="its schema is 2, but this version reads at most schema 1") as caught:
        store.load() if path == store.state_file else trust_store.ensure_device_id(store.trust)
    assert (caught.value.reason, caught.value.hint) == (
        "newer-document", "knnkit provision --target HOST, with the newer knnkit that wrote the file",
    )  # fmt: skip
    assert path.read_text() == '{"schema": 2, "device_id": ""}'


# --- what is signed ---------------------------------------------------------------------------------------------------
def test_release_json_with_a_key_that_nobody_knows_is_refused(releases: Releases) -> None:
    manifest = json.loads((releases["iris"] / constants.MANIFEST_FILE).read_bytes())
    for more in (manifest | {"x": 1}, manifest | {"gates": manifest["gates"] | {"x": 1}}):
        with pytest.raises(Refused, match="unknown key 'x'") as caught:
            read_manifest(json.dumps(more).encode())
        assert caught.value.reason == Reason.MANIFEST_MALFORMED.value


def test_an_order_with_a_key_that_nobody_knows_is_refused() -> None:
    owner, other = (forge.signer(name) for name in ("owner", "other"))
    names = [dsse.fingerprint(signer.public_pem) for signer in (owner, other)]
    sets = orders.KeySets({name: signer.public_pem for name, signer in zip(names, (owner, other))})
    envelope = dsse.read_envelope(json.loads(revoke(owner, names[1:], issued=1)))
    payload = json.dumps(json.loads(envelope.payload) | {"x": 1}).encode()
    signature = dsse.Signature(names[0], owner.sign(dsse.pae(envelope.payload_type, payload)))
    order = dsse.dump_envelope(dsse.Envelope(envelope.payload_type, payload, (signature,)))
    with pytest.raises(Refused, match="unknown key 'x'"):
        orders.apply(json.dumps(order).encode(), sets)


# --- reports ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("change", [grown, shrunk])
def test_a_report_of_another_version_is_read_for_what_is_left_to_do(change: Any, tmp_path: Path) -> None:
    from knnkit.commands._output import read_report

    device = dataclasses.replace(DOCUMENTS["DeviceReport"], name="board", outcome=Outcome.FAILED)
    assert isinstance(device, DeviceReport)
    report = FleetReport("deploy", 0.0, 1.0, (device,))
    (tmp_path / "report.json").write_text(json.dumps(change(report)))
    assert read_report(tmp_path / "report.json").unfinished() == ("board",)


# --- how far apart two versions may be --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("protocol", "oldest", "upgrade"),
    [(1, 1, None), (2, 1, None), (9, 1, None), (0, 0, "agent"), (3, 2, "host"), (9, 9, "host")],
)
def test_versions_whose_protocols_meet_understand_each_other(protocol: int, oldest: int, upgrade: str | None) -> None:
    assert (constants.OLDEST_PROTOCOL, constants.PROTOCOL) == (1, 1)
    assert versions.to_upgrade(protocol, oldest) == upgrade
