"""Every rule about releases: which one a device accepts, and why not. Sans I/O: bytes and state in, verdict out.

The device runs this before it stages, before it activates and at every start; the host runs the same code in
`knnkit verify`. A caller goes in this order:

    listing = {name: Entry(kind, size), ...}                  # lstat of every name in the directory
    check_listing(listing)                                    # before one byte is read
    files = {name: FileFact(size, sha256), ...}               # hashed through the descriptors that will be used
    verdict = verify_release(bundle=..., manifest=..., files=files, state=state, now=clock)

`directory` does exactly that. It never decides what to do with a refusal: nothing has changed yet.

Time. `now` is the board's clock, which may say 1970. What counts is the later of `now` and `time_floor`, the newest
`created` among the releases committed so far: signed, so that no wrong clock can push it. One release raises it by at
most `MAX_RAISE`, so that no signature can push it far either. A clock behind it is worth a warning. Expiry stops a new
activation and nothing else.

Sequence. `floor` is the highest sequence ever committed. A release under it is refused, also with a valid signature;
so is another release with the same number. A number that is far ahead of both the clock and the floor is refused, so
that one bad signature cannot use up all numbers: whatever was committed, `floor + 1` is acceptable. A signed order
lowers both floors again (`orders`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from device_agent.shared.protocol import constants, documents, versions
from device_agent.shared.protocol.errors import Refused
from device_agent.shared.protocol.model_info import Manifest
from device_agent.shared.protocol.record import record
from device_agent.shared.protocol.versions import utc
from device_agent.shared.trust import dsse, oms, standing
from device_agent.shared.trust.listing import Entry, FileFact, check_entry, check_listing
from device_agent.shared.trust.manifest import read_manifest
from device_agent.shared.trust.reasons import Reason, refused

#: How far ahead a sequence number or a creation date may lie: ten years, in seconds.
MAX_AHEAD = 10 * 366 * 24 * 3600
#: No clock is believed to be earlier than the year of this agent (2026-01-01).
AGENT_EPOCH = 1_767_225_600
#: How far one release may raise the time floor, beyond the later of the floor before and `AGENT_EPOCH`, in seconds: 400
#: days. A board without a clock keeps up with one release a year and a month of delay. On such a board one bad
#: signature delays releases and orders that expire by no more than this, and an order to reset the floors ends it.
MAX_RAISE = 400 * 24 * 3600
#: A board whose clock is this much behind a release's creation gets a warning, in seconds.
CLOCK_SLACK = 24 * 3600


@dataclass(frozen=True)
class TrustState:
    """What a device knows before it looks at a release.

    `keys` maps fingerprints to PEM text and also holds revoked keys, so that the release that runs can still be
    verified; `revoked` names those that accept nothing new. `floor` and `floor_digest` are of the highest sequence ever
    committed, `committed_digest` of what runs. `name` is the model's name that this device is for (None: any yet),
    `device_class` its class (None: not checked, as on a host). `runtime_version` is `tflite_runtime 2.14.0` or a bare
    version (None: not checked). `device_id` and `used_orders` matter to signed orders (`orders`).
    """

    keys: Mapping[str, bytes] = field(default_factory=dict)
    revoked: frozenset[str] = frozenset()
    floor: int = 0
    floor_digest: str | None = None
    committed_digest: str | None = None
    name: str | None = None
    device_class: str | None = None
    agent_version: str | None = None
    runtime_version: str | None = None
    time_floor: int = 0
    device_id: str = ""
    used_orders: frozenset[str] = frozenset()


@record
class Verdict:
    """A release that every rule accepted.

    `digest` is its identity (the root digest). `floor` and `time_floor` are what the device's state must hold once this
    release is committed, and not before. `already_committed`: it is the one that runs; nothing needs doing. `revoked`:
    its key accepts nothing new any more; only a release that this device accepted before comes so far.
    """

    digest: str
    manifest: Manifest
    signed_by: str
    model_sha256: str
    floor: int
    time_floor: int
    already_committed: bool = False
    warnings: tuple[str, ...] = ()
    revoked: bool = False

    @property
    def ref(self) -> documents.ReleaseRef:
        """The release as reports name it."""
        return documents.ReleaseRef(self.digest, self.manifest.name, self.manifest.version, self.manifest.sequence)


def verify_release(
    *,
    bundle: bytes,
    manifest: bytes,
    files: Mapping[str, FileFact],
    state: TrustState,
    now: int,
    expected_digest: str | None = None,
    ordered_digest: str | None = None,
) -> Verdict:
    """Decides whether a device in `state` may stage and activate a release.

    Args:
        bundle: the bytes of `model.sig`.
        manifest: the bytes of `release.json`.
        files: every file in the directory; the signature's own entry may be left out.
        state: what the device knows.
        now: the clock, seconds since 1970.
        expected_digest: the release that was asked for, when the caller knows.
        ordered_digest: the release that a verified rollback order names: it may lie under the floor.

    Returns:
        The verdict. A release that is already committed passes whatever its age and its key's standing.

    Raises:
        Refused: with a `Reason`; nothing was changed.
    """
    content = _verify_content(bundle, manifest, files, state, expected_digest)
    if content.digest == state.committed_digest:
        return _verdict(content, state, now, _standing(content, state, now))
    if content.signed_by in state.revoked:
        raise revoked_key(content.signed_by)
    _check_target(content.manifest, state)
    _check_sequence(content, state, now, ordered_digest)
    _check_dates(content.manifest, state, now)
    return _verdict(content, state, now, ())


def verify_kept(
    *, digest: str, bundle: bytes, manifest: bytes, files: Mapping[str, FileFact], state: TrustState, now: int
) -> Verdict:
    """Verifies a release that this device accepted before: at every start, and before an automatic return to it.

    The signature and every byte are checked again. What time alone can change (expiry, a revoked key, a raised floor)
    is a warning: a device is never left without a model.

    Args:
        digest: the release as the device's state names it.
        bundle: the bytes of `model.sig`.
        manifest: the bytes of `release.json`.
        files: every file in the directory.
        state: what the device knows.
        now: the clock, seconds since 1970.

    Raises:
        Refused: the contents are not what was signed, or the key is not in the set of keys at all.
    """
    content = _verify_content(bundle, manifest, files, state, digest)
    return _verdict(content, state, now, _standing(content, state, now))


def revoked_key(fingerprint: str) -> Refused:
    """Returns the refusal of something that a revoked key signed."""
    return refused(
        Reason.REVOKED_KEY,
        f"the key {fingerprint} has been revoked",
        "`knnkit sign RELEASE --key PEM`, with a key that is trusted, then `knnkit deploy --release RELEASE`",
    )


@record
class _Content:
    """A release whose signature and files agree, whether or not it is wanted."""

    digest: str
    manifest: Manifest
    signed_by: str
    model_sha256: str


def _verify_content(
    bundle: bytes, manifest: bytes, files: Mapping[str, FileFact], state: TrustState, expected: str | None
) -> _Content:
    check_entry(constants.SIGNATURE_FILE, Entry("file", len(bundle)))
    check_entry(constants.MANIFEST_FILE, Entry("file", len(manifest)))
    found = oms.read_bundle(bundle)
    pem = _find_key(found.fingerprint, state)
    if not dsse.is_signed_by(pem, dsse.pae(oms.PAYLOAD_TYPE, found.envelope.payload), found.envelope.signatures[0].sig):
        raise refused(
            Reason.BAD_SIGNATURE,
            f"{constants.SIGNATURE_FILE} is not a valid signature by {found.fingerprint}",
            "the release was changed or cut short: copy or sign it again",
        )
    statement = oms.read_statement(found.envelope.payload)
    _check_files(statement, files)
    if hashlib.sha256(manifest).hexdigest() != statement.resources[constants.MANIFEST_FILE]:
        raise refused(Reason.FILE_CHANGED, f"{constants.MANIFEST_FILE} is not the file that was signed")
    if expected is not None and statement.root != expected:
        raise refused(Reason.OTHER_RELEASE, f"this is release {statement.root}, not {expected}")
    model = statement.resources[constants.MODEL_FILE]
    return _Content(statement.root, read_manifest(manifest), found.fingerprint, model)


def _find_key(fingerprint: str, state: TrustState) -> bytes:
    if not state.keys:
        raise refused(
            Reason.NO_TRUSTED_KEYS, "no signing key is trusted here", "`knnkit provision --target HOST --key PUB`"
        )
    pem = state.keys.get(fingerprint)
    if pem is None:
        raise refused(
            Reason.UNKNOWN_KEY,
            f"signed by {fingerprint}, which is not trusted here",
            "`knnkit trust --show PUB`, to compare; and only if the key is yours: "
            "`knnkit trust --rotate NEW.pem --signing-key OLD.pem --target HOST`",
        )
    if dsse.fingerprint(pem) != fingerprint:
        raise refused(Reason.KEY_MALFORMED, f"the key stored as {fingerprint} is another key", "knnkit provision")
    return pem


def _check_files(statement: oms.Statement, files: Mapping[str, FileFact]) -> None:
    for name in statement.resources:
        if name not in constants.SIGNED_FILES:
            raise refused(Reason.FILE_UNLISTED, f"the signature names {name!r}, which is no file of a release")
    for name in constants.SIGNED_FILES:
        if name not in statement.resources:
            raise refused(Reason.FILE_UNLISTED, f"the signature does not cover {name}", "knnkit sign DIRECTORY")
    sizes = {name: Entry("file", fact.size) for name, fact in files.items()}
    check_listing({**sizes, constants.SIGNATURE_FILE: Entry("file", 0)})
    for name, digest in statement.resources.items():
        if files[name].sha256 != digest:
            raise refused(
                Reason.FILE_CHANGED, f"{name} is not the file that was signed", "copy the release again, all of it"
            )


def _check_target(manifest: Manifest, state: TrustState) -> None:
    if state.name is not None and manifest.name != state.name:
        out = "another --root for this model, or clear the device: `knnkit provision --remove --target HOST`"
        raise refused(Reason.WRONG_NAME, f"this device is for the model {state.name!r}, not {manifest.name!r}", out)
    if state.device_class is not None and manifest.device_class not in ("any", state.device_class):
        raise refused(
            Reason.WRONG_DEVICE_CLASS,
            f"the release is for the device class {manifest.device_class!r}; this device is {state.device_class!r}",
        )
    if state.agent_version is not None and _older(state.agent_version, manifest.minimum_agent):
        raise refused(
            Reason.AGENT_TOO_OLD,
            f"the release needs agent {manifest.minimum_agent}; this is {state.agent_version}",
            "knnkit provision installs the current agent",
        )
    if state.runtime_version is not None and _older(state.runtime_version, manifest.minimum_runtime):
        raise refused(
            Reason.RUNTIME_TOO_OLD,
            f"the release needs a TFLite runtime of {manifest.minimum_runtime}; this is {state.runtime_version}",
            "knnkit provision installs a current runtime",
        )


def _older(have: str, need: str) -> bool:
    return (versions.runtime(have) or ()) < (versions.parse(need) or ())


def _check_sequence(content: _Content, state: TrustState, now: int, ordered_digest: str | None) -> None:
    sequence = content.manifest.sequence
    if sequence > max(_latest(state, now), state.floor) + MAX_AHEAD:
        raise refused(
            Reason.SEQUENCE_TOO_FAR,
            f"sequence {sequence} is too far ahead of the clock and of {state.floor}, the highest one committed",
            "sequences are seconds since 1970 unless set: build the release again",
        )
    if content.digest in (ordered_digest, state.floor_digest):
        return
    if sequence < state.floor:
        raise refused(
            Reason.OLDER_SEQUENCE,
            f"sequence {sequence} is older than {state.floor}, which has been committed here",
            newer_than(state.floor, _latest(state, now)),
        )
    if sequence == state.floor:
        raise refused(
            Reason.SAME_SEQUENCE,
            f"another release with the sequence {sequence} has been committed here",
            f"build the release again, with release.sequence: {state.floor + 1} in deploy.yaml, or without one",
        )


def newer_than(floor: int, clock: int) -> str:
    """Returns what to type where a release lies under the floor: numbers are the time of the build unless set."""
    newer = f"release.sequence: {floor + 1} in deploy.yaml"
    if floor < clock:
        return (
            f"build a newer release, without release.sequence or with {newer}; or go back: knnkit rollback --to RELEASE"
        )
    return (
        f"{newer}, for this floor is ahead of the clock; or lower it by a signed order: knnkit rollback --reset-floor"
    )


def _latest(state: TrustState, now: int) -> int:
    return max(now, state.time_floor, AGENT_EPOCH)


def _check_dates(manifest: Manifest, state: TrustState, now: int) -> None:
    if manifest.created > _latest(state, now) + MAX_AHEAD:
        raise refused(
            Reason.CREATED_TOO_FAR,
            f"the release says it was created at {utc(manifest.created)}, far ahead of the clock",
        )
    at_least = max(now, state.time_floor)
    if manifest.expires is not None and at_least >= manifest.expires:
        raise refused(
            Reason.EXPIRED,
            f"the release expired at {utc(manifest.expires)} (here it is at least {utc(at_least)})",
            "build a new release; if the device's clock was ahead, set it, then knnkit rollback --reset-floor",
        )


def _standing(content: _Content, state: TrustState, now: int) -> tuple[str, ...]:
    return standing.warnings_of(content.signed_by, content.manifest.expires, state.revoked, max(now, state.time_floor))


def _clock_warnings(manifest: Manifest, state: TrustState, now: int) -> tuple[str, ...]:
    at_least = max(state.time_floor, manifest.created - CLOCK_SLACK)
    if now >= at_least:
        return ()
    return (f"clock-behind: the clock says {utc(now)}, but it is at least {utc(at_least)}",)


def _raised_time_floor(manifest: Manifest, state: TrustState, now: int) -> int:
    """A plausible clock limits what a signed date in the future can do, and `MAX_RAISE` does whatever it says."""
    known = max(AGENT_EPOCH, state.time_floor)
    limit = min(now, known + MAX_RAISE) if now >= known else known + MAX_RAISE
    return max(state.time_floor, min(manifest.created, limit))


def _verdict(content: _Content, state: TrustState, now: int, warnings: tuple[str, ...]) -> Verdict:
    return Verdict(
        digest=content.digest,
        manifest=content.manifest,
        signed_by=content.signed_by,
        model_sha256=content.model_sha256,
        floor=max(state.floor, content.manifest.sequence),
        time_floor=_raised_time_floor(content.manifest, state, now),
        already_committed=content.digest == state.committed_digest,
        warnings=(*warnings, *_clock_warnings(content.manifest, state, now)),
        revoked=content.signed_by in state.revoked,
    )
