"""Rules that decide which releases a device accepts. No I/O.

The device applies them before it stages, before it activates and at every start; the host applies the same code in
`knnkit verify`. A caller must proceed in this order:

    listing = {name: Entry(kind, size), ...}                  # lstat of every name in the directory
    check_listing(listing)                                    # before any file is read
    files = {name: FileFact(size, sha256), ...}               # hashed through the descriptors that will be used
    verdict = verify_release(bundle=..., manifest=..., files=files, state=state, now=clock)

`device_agent.shared.release.directory` does that. These rules change nothing.

Time. `now` is the board's clock, which may be wrong (1970). The rules use the later of `now` and `time_floor`, the
newest creation date of all releases committed so far. Such a date is signed, so a wrong clock cannot raise the floor.
One release raises it by at most `MAX_RAISE`, so one bad signature cannot raise it far. A clock that is behind the floor
causes a warning.
A release that has expired cannot be activated; one that runs already keeps running.

Sequence. `floor` is the highest sequence ever committed. A release with a lower one is refused, even if validly signed;
so is another release with the same sequence. A sequence far ahead of both the clock and the floor is refused, so that
one bad signature cannot use up all numbers: `floor + 1` is always acceptable. A signed order can lower both floors
(`orders`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from device_agent.shared.protocol import constants, documents, versions
from device_agent.shared.protocol.errors import Refused
from device_agent.shared.protocol.model_info import Manifest
from device_agent.shared.protocol.record import record, replace
from device_agent.shared.protocol.versions import utc
from device_agent.shared.trust import dsse, oms, standing
from device_agent.shared.trust.listing import Entry, FileFact, check_entry, check_listing
from device_agent.shared.trust.manifest import read_manifest
from device_agent.shared.trust.reasons import Reason, refused

#: How far ahead of the clock a sequence or a creation date may be, in seconds: ten years.
MAX_AHEAD = 10 * 366 * 24 * 3600
#: The earliest time that is considered possible: 2026-01-01, in seconds since 1970.
AGENT_EPOCH = 1_767_225_600
#: How far one release may raise the time floor, in seconds, above the later of the old floor and `AGENT_EPOCH`: 400
#: days. A board without a clock can follow with one release a year, a month late. On such a board one bad signature
#: makes releases and orders expire at most this much too early, and an order to reset the floors repairs that.
MAX_RAISE = 400 * 24 * 3600
#: How far a board's clock may be behind a release's creation without a warning, in seconds.
CLOCK_SLACK = 24 * 3600


@dataclass(frozen=True)
class TrustState:
    """The state of a device that the rules compare a release with."""

    #: fingerprint -> PEM text, with revoked keys, so that the running release can still be verified.
    keys: Mapping[str, bytes] = field(default_factory=dict)
    revoked: frozenset[str] = frozenset()  # fingerprints whose new signatures are refused
    floor: int = 0  # highest sequence ever committed
    floor_digest: str | None = None  # of the release with that sequence
    committed_digest: str | None = None  # of the running release
    name: str | None = None  # of this device's model; None: any
    device_class: str | None = None  # None: not checked, as on a host
    agent_version: str | None = None  # None: not checked
    runtime_version: str | None = None  # such as `tflite_runtime 2.14.0`; None: not checked
    time_floor: int = 0
    device_id: str = ""  # for signed orders, as `used_orders`
    used_orders: frozenset[str] = frozenset()  # nonces


@record
class Verdict:
    """A release that every rule accepted."""

    digest: str  # identifies the release (SHA-256 over its files' digests)
    manifest: Manifest
    signed_by: str
    model_sha256: str
    floor: int  # the sequence floor after a commit of this release, when the caller stores it
    time_floor: int  # the same of the time floor
    already_committed: bool = False  # the release runs already
    warnings: tuple[str, ...] = ()
    revoked: bool = False  # its key has been revoked: only of a release that was accepted before

    @property
    def ref(self) -> documents.ReleaseRef:
        """The release as documents name it: digest, name, version and sequence."""
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
        files: name -> size and SHA-256 of every file in the directory; `model.sig` may be left out.
        state: the device's keys, versions, and highest committed sequence (`floor`).
        now: the clock, seconds since 1970.
        expected_digest: the only release to accept, if the caller knows it.
        ordered_digest: the release that a verified rollback order names; its sequence may be below `floor`.

    Returns:
        The verdict. A release that is already committed passes even if it has expired or its key was revoked.

    Raises:
        Refused: a rule refuses the release; `reason` names the rule.
    """
    verdict = _verify_content(bundle, manifest, files, state, now, expected_digest)
    if verdict.already_committed:
        return _with_standing(verdict, state, now)
    if verdict.revoked:
        raise revoked_key(verdict.signed_by)
    _check_target(verdict.manifest, state)
    _check_sequence(verdict, state, now, ordered_digest)
    _check_dates(verdict.manifest, state, now)
    return verdict


def verify_accepted(
    *, digest: str, bundle: bytes, manifest: bytes, files: Mapping[str, FileFact], state: TrustState, now: int
) -> Verdict:
    """Verifies a release that this device accepted before: at every start, and before an automatic return to it.

    Checks the signature and every byte again. An expiry or a revoked key is only a warning, so that a device is never
    left without a model.

    Args:
        digest: the release that the device's state names.
        bundle: the bytes of `model.sig`.
        manifest: the bytes of `release.json`.
        files: name -> size and SHA-256 of every file in the directory; `model.sig` may be left out.
        state: the device's keys and floors.
        now: the clock, seconds since 1970.

    Raises:
        Refused: this is another release, its files are not those that were signed, or the key is unknown.
    """
    return _with_standing(_verify_content(bundle, manifest, files, state, now, digest), state, now)


def revoked_key(fingerprint: str) -> Refused:
    """Returns the error for a release or order that a revoked key signed."""
    return refused(
        Reason.REVOKED_KEY,
        f"the key {fingerprint} has been revoked",
        "`knnkit sign RELEASE --key PEM`, with a key that is trusted, "
        "then `knnkit deploy --release RELEASE --target HOST`",
    )


def _verify_content(
    bundle: bytes, manifest: bytes, files: Mapping[str, FileFact], state: TrustState, now: int, expected: str | None
) -> Verdict:
    """Returns the verdict on a release whose signature matches its files; other rules may still refuse it.

    `expected` is the only digest to accept; None: any.
    """
    check_entry(constants.SIGNATURE_FILE, Entry("file", len(bundle)))
    check_entry(constants.MANIFEST_FILE, Entry("file", len(manifest)))
    found = oms.read_bundle(bundle)
    pem = _find_key(found.fingerprint, state)
    if not dsse.is_signed_by(pem, dsse.pae(oms.PAYLOAD_TYPE, found.envelope.payload), found.envelope.signatures[0].sig):
        said = f"{constants.SIGNATURE_FILE} is not a valid signature by {found.fingerprint}"
        hint = "the release was changed or is incomplete: copy it again, or sign it again"
        raise refused(Reason.BAD_SIGNATURE, said, hint)
    statement = oms.read_statement(found.envelope.payload)
    _check_files(statement, files)
    if hashlib.sha256(manifest).hexdigest() != statement.resources[constants.MANIFEST_FILE]:
        raise refused(Reason.FILE_CHANGED, f"{constants.MANIFEST_FILE} is not the file that was signed")
    if expected is not None and statement.root != expected:
        raise refused(Reason.OTHER_RELEASE, f"this is release {statement.root}, not {expected}")
    content = read_manifest(manifest)
    return Verdict(
        digest=statement.root,
        manifest=content,
        signed_by=found.fingerprint,
        model_sha256=statement.resources[constants.MODEL_FILE],
        floor=max(state.floor, content.sequence),
        time_floor=_raised_time_floor(content, state, now),
        already_committed=statement.root == state.committed_digest,
        warnings=_clock_warnings(content, state, now),
        revoked=found.fingerprint in state.revoked,
    )


def _find_key(fingerprint: str, state: TrustState) -> bytes:
    if not state.keys:
        raise refused(
            Reason.NO_TRUSTED_KEYS, "no signing key is trusted here", "`knnkit provision --target HOST --key PUB`"
        )
    pem = state.keys.get(fingerprint)
    if pem is None:
        raise refused(
            Reason.UNKNOWN_KEY,
            f"the release is signed by {fingerprint}, which is not trusted here",
            "`knnkit trust --show PUB`, to compare; and only if the key is yours: "
            "`knnkit trust --rotate NEW.pem --signing-key OLD.pem --target HOST`",
        )
    if dsse.fingerprint(pem) != fingerprint:
        said = f"the key stored as {fingerprint} is a different key"
        raise refused(Reason.KEY_MALFORMED, said, "knnkit provision --target HOST")
    return pem


def _check_files(statement: oms.Statement, files: Mapping[str, FileFact]) -> None:
    for name in statement.resources:
        if name not in (*constants.SIGNED_FILES, *constants.STAGE_FILES):
            raise refused(Reason.FILE_UNLISTED, f"the signature names {name!r}, which is not a file of a release")
    for name in (*constants.SIGNED_FILES, *(name for name in constants.STAGE_FILES if name in files)):
        if name not in statement.resources:
            raise refused(Reason.FILE_UNLISTED, f"the signature does not cover {name}", "knnkit sign DIRECTORY")
    sizes = {name: Entry("file", fact.size) for name, fact in files.items()}
    check_listing({**sizes, constants.SIGNATURE_FILE: Entry("file", 0)})
    for name, digest in statement.resources.items():
        if name not in files:
            raise refused(Reason.FILE_MISSING, f"{name} is missing", "copy the whole release again")
        if files[name].sha256 != digest:
            said = f"{name} is not the file that was signed"
            raise refused(Reason.FILE_CHANGED, said, "copy the whole release again")


def _check_target(manifest: Manifest, state: TrustState) -> None:
    if state.name is not None and manifest.name != state.name:
        out = "choose another --root, or clear the device: `knnkit provision --remove --target HOST`"
        raise refused(Reason.WRONG_NAME, f"this device is for the model {state.name!r}, not {manifest.name!r}", out)
    if state.device_class is not None and manifest.device_class not in ("any", state.device_class):
        said = f"the release is for the device class {manifest.device_class!r}; this device has {state.device_class!r}"
        hint = f"--device-class {manifest.device_class}, or build with device_class: {state.device_class}"
        raise refused(Reason.WRONG_DEVICE_CLASS, said, hint)
    if state.agent_version is not None and _older(state.agent_version, manifest.minimum_agent):
        said = f"the release needs agent {manifest.minimum_agent}; this is {state.agent_version}"
        raise refused(Reason.AGENT_TOO_OLD, said, "knnkit provision --target HOST installs the current agent")
    if state.runtime_version is not None and _older(state.runtime_version, manifest.minimum_runtime):
        said = f"the release needs a TFLite runtime of {manifest.minimum_runtime}; this is {state.runtime_version}"
        raise refused(Reason.RUNTIME_TOO_OLD, said, "knnkit provision --target HOST installs a current runtime")


def _older(have: str, need: str) -> bool:
    return (versions.runtime(have) or ()) < (versions.parse(need) or ())


def _check_sequence(verdict: Verdict, state: TrustState, now: int, ordered_digest: str | None) -> None:
    sequence = verdict.manifest.sequence
    if sequence > max(_latest(state, now), state.floor) + MAX_AHEAD:
        said = f"sequence {sequence} is too far ahead of the clock and of {state.floor}, the highest one committed"
        hint = "sequences are seconds since 1970 unless set: build the release again"
        raise refused(Reason.SEQUENCE_TOO_FAR, said, hint)
    if verdict.digest in (ordered_digest, state.floor_digest):
        return
    if sequence < state.floor:
        said = f"sequence {sequence} is lower than {state.floor}, which has been committed here"
        raise refused(Reason.OLDER_SEQUENCE, said, newer_than(state.floor, _latest(state, now)))
    if sequence == state.floor:
        hint = f"build the release again, with release.sequence: {state.floor + 1} in deploy.yaml, or without one"
        said = f"another release with the sequence {sequence} has been committed here"
        raise refused(Reason.SAME_SEQUENCE, said, hint)


def newer_than(floor: int, clock: int) -> str:
    """Returns the hint for a release whose sequence is below `floor`, the highest committed; `clock` is Unix time."""
    newer = f"release.sequence: {floor + 1} in deploy.yaml"
    if floor < clock:
        back = "knnkit rollback --to RELEASE --target HOST"
        return f"build a newer release, without release.sequence or with {newer}; or go back: {back}"
    lower = "knnkit rollback --reset-floor --target HOST"
    return f"build with {newer}, because the floor is ahead of the clock; or lower the floor by a signed order: {lower}"


def _latest(state: TrustState, now: int) -> int:
    return max(now, state.time_floor, AGENT_EPOCH)


def _check_dates(manifest: Manifest, state: TrustState, now: int) -> None:
    if manifest.created > _latest(state, now) + MAX_AHEAD:
        said = f"the release was created at {utc(manifest.created)}, far ahead of the clock"
        hint = "set the clocks of the host and of this device, then build the release again"
        raise refused(Reason.CREATED_TOO_FAR, said, hint)
    at_least = max(now, state.time_floor)
    if manifest.expires is not None and at_least >= manifest.expires:
        raise refused(
            Reason.EXPIRED,
            f"the release expired at {utc(manifest.expires)} (on this device the time is at least {utc(at_least)})",
            "build a new release; if the device's clock was ahead, set it, then "
            "knnkit rollback --reset-floor --target HOST",
        )


def _with_standing(verdict: Verdict, state: TrustState, now: int) -> Verdict:
    """Returns the verdict on a running release, with warnings that say why it would be refused today."""
    at_least = max(now, state.time_floor)
    found = standing.warnings_of(verdict.signed_by, verdict.manifest.expires, state.revoked, at_least)
    return replace(verdict, warnings=(*found, *verdict.warnings))


def _clock_warnings(manifest: Manifest, state: TrustState, now: int) -> tuple[str, ...]:
    at_least = max(state.time_floor, manifest.created - CLOCK_SLACK)
    if now >= at_least:
        return ()
    return (f"clock-behind: the clock says {utc(now)}, but the time is at least {utc(at_least)}",)


def _raised_time_floor(manifest: Manifest, state: TrustState, now: int) -> int:
    """Returns the time floor after a commit of this release: the release's date, if that is above the old floor.

    The floor rises by at most `MAX_RAISE`, and not above the clock's time unless the clock is behind the old floor.
    """
    known = max(AGENT_EPOCH, state.time_floor)
    limit = min(now, known + MAX_RAISE) if now >= known else known + MAX_RAISE
    return max(state.time_floor, min(manifest.created, limit))
