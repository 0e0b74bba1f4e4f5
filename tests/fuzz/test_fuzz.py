"""Every reader of bytes that come from outside, against more than 100,000 broken inputs.

A reader may refuse, with its own error, or accept what is sound: never another exception, never a forgery, never memory
that grows with what the input claims.
"""

from __future__ import annotations

import io
import json
import resource
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mutate
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import forge
from support.forge import NOW, fingerprint, signer
from support.releases import Releases

from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants, documents, json_codec, model_info, reports, versions
from device_agent.shared.protocol.documents import Status
from device_agent.shared.protocol.errors import ModelUnusable, Refused
from device_agent.shared.protocol.model_info import Manifest
from device_agent.shared.protocol.reports import Certificate, Problem
from device_agent.shared.release.model_file import read_info
from device_agent.shared.trust import dsse, listing, oms, orders, rules
from device_agent.shared.trust.manifest import read_manifest
from knnkit.release import orders as issue

#: How much the whole run may add to this process's peak, in KiB: hypothesis and pytest take about 210 MB of it.
MEMORY = 320 * 1024


@dataclass(frozen=True)
class Sample:
    """One honest release, in memory."""

    bundle: bytes
    manifest: bytes
    files: dict[str, listing.FileFact]
    model: bytes
    golden: bytes

    def verify(self, bundle: bytes, manifest: bytes) -> rules.Verdict:
        return rules.verify_release(
            bundle=bundle, manifest=manifest, files=self.files, state=forge.state(name=None), now=NOW
        )


@pytest.fixture(scope="module")
def sample(releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    release = forge.copy(releases["blobs"], tmp_path_factory.mktemp("fuzz") / "release")
    forge.change_manifest(release, sequence=NOW - 1, created=NOW - 1)
    forge.sign(release)
    with trust_walk(release) as opened:
        read = {name: opened.read(name) for name in constants.RELEASE_FILES}
        return Sample(
            read[constants.SIGNATURE_FILE],
            read[constants.MANIFEST_FILE],
            opened.files,
            read[constants.MODEL_FILE],
            read[constants.GOLDEN_FILE],
        )


def trust_walk(release: Path) -> Any:
    from device_agent.shared.release.directory import open_release

    return open_release(release)


@pytest.fixture(autouse=True, scope="module")
def _bounded_memory(sample: Sample) -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY


COUNTS: dict[str, int] = {}


def fuzz(count: int) -> Callable[[Any], Any]:
    """Names a fuzz test's number of inputs; `test_there_are_enough_inputs` adds them up."""

    def register(function: Any) -> Any:
        COUNTS[function.__name__] = count
        return function

    return register


def survivors(
    inputs: Iterator[Any], read: Callable[[Any], Any], *expected: type[Exception]
) -> Iterator[tuple[Any, Any]]:
    """Feeds every input to `read`; yields those that were accepted, with what came of them."""
    for data in inputs:
        try:
            result = read(data)
        except expected:
            continue
        yield data, result


@fuzz(30_000)
def test_no_broken_bundle_is_accepted(sample: Sample) -> None:
    honest = sample.verify(sample.bundle, sample.manifest)
    inputs = mutate.byte_mutants([sample.bundle], COUNTS["test_no_broken_bundle_is_accepted"], seed=1)
    for data, verdict in survivors(inputs, lambda data: sample.verify(data, sample.manifest), Refused):
        # White space between tokens is all that may differ.
        assert verdict == honest
        assert json.loads(data) == json.loads(sample.bundle)


@fuzz(10_000)
def test_no_reshaped_bundle_is_accepted(sample: Sample) -> None:
    inputs = mutate.json_mutants([json.loads(sample.bundle)], COUNTS["test_no_reshaped_bundle_is_accepted"], seed=2)
    read = lambda document: sample.verify(mutate.encode(document), sample.manifest)  # noqa: E731
    honest = sample.verify(sample.bundle, sample.manifest)
    for document, verdict in survivors(inputs, read, Refused):
        assert verdict == honest
        envelope = document["dsseEnvelope"]
        assert envelope["payload"] == json.loads(sample.bundle)["dsseEnvelope"]["payload"]


@fuzz(10_000)
def test_a_reshaped_statement_that_the_owner_signed_still_names_the_true_files(sample: Sample) -> None:
    payload = json.loads(dsse.read_envelope(json.loads(sample.bundle)["dsseEnvelope"]).payload)
    honest = sample.verify(sample.bundle, sample.manifest)
    hint = fingerprint().removeprefix("sha256:")

    def read(document: Any) -> rules.Verdict:
        envelope = forge.envelope(mutate.encode(document))
        material = {"publicKey": {"hint": hint}, "tlogEntries": []}
        bundle = {"mediaType": oms.MEDIA_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope}
        return sample.verify(json.dumps(bundle).encode(), sample.manifest)

    count = COUNTS["test_a_reshaped_statement_that_the_owner_signed_still_names_the_true_files"]
    for _, verdict in survivors(mutate.json_mutants([payload], count, seed=3), read, Refused):
        assert verdict == honest


@fuzz(15_000)
def test_a_broken_statement_is_refused_by_its_reader(sample: Sample) -> None:
    payload = dsse.read_envelope(json.loads(sample.bundle)["dsseEnvelope"]).payload
    inputs = mutate.byte_mutants([payload], COUNTS["test_a_broken_statement_is_refused_by_its_reader"], seed=4)
    for _, statement in survivors(inputs, oms.read_statement, Refused):
        assert statement.root == oms.root_digest(statement.resources.values())
        assert list(statement.resources) == sorted(statement.resources)
        assert not any("/" in name or name.startswith(".") for name in statement.resources)


@fuzz(20_000)
def test_a_broken_manifest_is_refused_or_makes_sense(sample: Sample) -> None:
    seeds = [sample.manifest, json_codec.dumps(forge.MANIFEST).encode()]
    inputs = mutate.byte_mutants(seeds, COUNTS["test_a_broken_manifest_is_refused_or_makes_sense"], seed=5)
    for _, manifest in survivors(inputs, read_manifest, Refused):
        _makes_sense(manifest)


@fuzz(10_000)
def test_a_reshaped_manifest_is_refused_or_makes_sense(sample: Sample) -> None:
    count = COUNTS["test_a_reshaped_manifest_is_refused_or_makes_sense"]
    inputs = map(mutate.encode, mutate.json_mutants([json.loads(sample.manifest)], count, seed=6))
    for _, manifest in survivors(inputs, read_manifest, Refused):
        _makes_sense(manifest)


def _makes_sense(manifest: Manifest) -> None:
    assert constants.is_name(manifest.name)
    assert 1 <= manifest.sequence < 2**63
    assert manifest.expires is None or manifest.expires > manifest.created >= 0
    assert versions.parse(manifest.minimum_agent)
    assert read_manifest(json_codec.dump_file(manifest)) == manifest


@fuzz(10_000)
def test_no_broken_order_changes_the_keys() -> None:
    sets = orders.KeySets(forge.keys("owner", "colleague"))
    rotation = issue.rotate(signer("owner"), signer("new"), issued=NOW)
    revocation = issue.revoke(signer("owner"), [fingerprint("colleague")], issued=NOW)
    honest = [orders.apply(rotation, sets), orders.apply(revocation, sets)]
    inputs = mutate.byte_mutants([rotation, revocation], COUNTS["test_no_broken_order_changes_the_keys"], seed=7)
    for _, after in survivors(inputs, lambda data: orders.apply(data, sets), Refused):
        assert after in honest


@fuzz(5_000)
def test_no_broken_rollback_order_is_obeyed() -> None:
    order = issue.roll_back(signer(), device_id="d" * 32, digest="a" * 64, leaves="f" * 64, issued=NOW)
    honest = orders.verify_rollback(order, forge.state(), NOW)
    inputs = mutate.byte_mutants([order], COUNTS["test_no_broken_rollback_order_is_obeyed"], seed=8)
    for _, found in survivors(inputs, lambda data: orders.verify_rollback(data, forge.state(), NOW), Refused):
        assert found == honest


@fuzz(3_000)
def test_a_broken_public_key_is_refused() -> None:
    seeds = [signer(curve, curve).public_pem for curve in forge.CURVES]
    inputs = mutate.byte_mutants(seeds, COUNTS["test_a_broken_public_key_is_refused"], seed=9)
    for data, found in survivors(inputs, dsse.fingerprint, Refused):
        assert orders.is_fingerprint(found)
        assert dsse.fingerprint(dsse.public_pem(dsse.load_public_key(data))) == found


@fuzz(10_000)
def test_a_broken_knn_json_is_refused(sample: Sample) -> None:
    info = json_codec.dumps(read_info(io.BytesIO(sample.model))).encode()
    read = lambda data: json_codec.loads(model_info.KnnInfo, data)  # noqa: E731
    inputs = mutate.byte_mutants([info], COUNTS["test_a_broken_knn_json_is_refused"], seed=10)
    for _, found in survivors(inputs, read, json_codec.MalformedDocument):
        assert json_codec.loads(model_info.KnnInfo, json_codec.dumps(found)) == found


@fuzz(10_000)
def test_a_broken_model_file_is_refused_by_the_metadata_reader(sample: Sample) -> None:
    # The archive lies behind the flatbuffer, and the offsets count from its own start: the tail is enough.
    tail = sample.model[-8192:]
    seeds = [tail, _archive(sample)]
    inputs = mutate.byte_mutants(seeds, COUNTS["test_a_broken_model_file_is_refused_by_the_metadata_reader"], seed=11)
    for _, found in survivors(inputs, lambda data: read_info(io.BytesIO(data)), ModelUnusable):
        assert isinstance(found, model_info.KnnInfo)


def _archive(sample: Sample) -> bytes:
    """The same members in an archive of their own, so that a mutation hits the directory more often."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(sample.model)) as source, zipfile.ZipFile(buffer, "w") as target:
        for name in (constants.KNN_FILE, constants.LABELS_FILE):
            target.writestr(name, source.read(name))
    return buffer.getvalue()


@fuzz(3_000)
def test_a_broken_golden_set_is_refused(sample: Sample) -> None:
    inputs = mutate.byte_mutants([sample.golden], COUNTS["test_a_broken_golden_set_is_refused"], seed=12)
    for _, found in survivors(inputs, Golden.from_bytes, ModelUnusable):
        assert len(found.rows) == len(found.label)


@fuzz(10_000)
def test_what_a_hostile_device_reports_is_refused_or_keeps_the_contract() -> None:
    seeds = [json_codec.dumps(value).encode() for value in (_certificate(), _problem())]
    kinds = (Certificate, Problem, Status)
    count = COUNTS["test_what_a_hostile_device_reports_is_refused_or_keeps_the_contract"]
    for index, data in enumerate(mutate.byte_mutants(seeds, count, seed=13)):
        kind = kinds[index % len(kinds)]
        for _, found in survivors(
            iter([data]), lambda text, kind=kind: json_codec.loads(kind, text), json_codec.MalformedDocument
        ):
            assert json_codec.loads(kind, json_codec.dumps(found)) == found


def _certificate() -> Certificate:
    return Certificate(
        nonce="n",
        release="a" * 64,
        name="fruit",
        version="1",
        sequence=1,
        model_sha256="b" * 64,
        identical=3,
        equivalent=0,
        different=1,
        differences=(reports.RowDifference(3, "a", "b", (1, 2), (2, 1), 0.5),),
        largest_distance_error=0.5,
        accuracy=0.9,
        accuracy_rows=10,
        accepted=None,
        confusion=((1, 2, 0), (0, 3, 0)),
        latency=reports.Latency(0.1, 0.2, 100),
        runtime=reports.RuntimeInfo("tflite_runtime", "2.14.0", "XNNPACK", "3.11", "1.26"),
        device=documents.DeviceInfo("pi", "aarch64", "A72", 4, 2**32, "0.1.0"),
        failures=("parity",),
        issued=NOW,
    )


def _problem() -> Problem:
    return Problem("expired", "it expired", "build a new one", 4, None)


# --- hypothesis: documents of any shape at all --------------------------------------------------------------------
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["mediaType", "verificationMaterial", "dsseEnvelope", "payload", "name", "x"])
EXAMPLES = 500
ANY = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@ANY
@given(document=JSON | st.dictionaries(NAMES, JSON))
def test_no_document_at_all_is_a_bundle(document: Any) -> None:
    with pytest.raises(Refused):
        oms.read_bundle(mutate.encode(document))


@ANY
@given(data=st.binary(max_size=300) | JSON.map(mutate.encode))
def test_no_bytes_at_all_are_an_order(data: bytes) -> None:
    with pytest.raises(Refused):
        orders.apply(data, orders.KeySets(forge.keys()))


@ANY
@given(data=st.binary(max_size=300) | JSON.map(mutate.encode))
def test_no_bytes_at_all_are_a_manifest(data: bytes) -> None:
    with pytest.raises(Refused):
        read_manifest(data)


@ANY
@given(data=st.binary(max_size=300), head=st.sampled_from([b"", b"PK\x03\x04", b"\x1c\0\0\0TFL3"]))
def test_no_bytes_at_all_are_a_model(data: bytes, head: bytes) -> None:
    with pytest.raises(ModelUnusable):
        read_info(io.BytesIO(head + data))


@ANY
@given(text=st.text(max_size=80))
def test_versions_are_parsed_or_not_and_never_fail(text: str) -> None:
    parsed = versions.parse(text)
    assert parsed is None or all(isinstance(number, int) for number in parsed)
    versions.runtime(text)


def test_there_are_enough_inputs() -> None:
    assert sum(COUNTS.values()) + 5 * EXAMPLES >= 100_000


# --- what a mutation is unlikely to find --------------------------------------------------------------------------
UNPACKED = 2**28


@pytest.fixture(scope="module")
def bomb() -> bytes:
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(constants.KNN_FILE, "w") as member,
    ):
        for _ in range(UNPACKED >> 20):
            member.write(b" " * 2**20)
    return buffer.getvalue()


@pytest.mark.parametrize("claimed", [UNPACKED, 10])
def test_a_member_that_unpacks_to_far_more_is_not_unpacked(bomb: bytes, claimed: int) -> None:
    """Whether its directory says so, or says that it is small."""
    size = UNPACKED.to_bytes(4, "little")
    assert size in bomb
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelUnusable, match="compressed"):
        read_info(io.BytesIO(bomb.replace(size, claimed.to_bytes(4, "little"))))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


def test_a_document_with_very_many_keys_and_one_of_them_twice_is_refused_at_once() -> None:
    keys = ",".join(f'"k{number}":0' for number in range(250_000))
    with pytest.raises(json_codec.MalformedDocument, match="the key 'k7' appears twice"):
        json_codec.parse("{" + keys + ',"k7":1}')


def test_a_message_about_a_document_repeats_little_of_it() -> None:
    for text in ('{"' + "\\u001b" * 100_000 + '":1}', '{"schema":1,"' + "x" * 3_000_000 + '":1}'):
        with pytest.raises(json_codec.MalformedDocument) as refused:
            json_codec.loads(Problem, text)
        assert len(str(refused.value)) < 200
        assert str(refused.value).isprintable()
