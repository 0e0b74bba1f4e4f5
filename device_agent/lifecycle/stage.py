"""Stages, re-signs and prunes the releases of a device.

To stage is to verify an uploaded release and store it on this device, without using it yet. A refused upload changes
nothing. All files are verified before they move, and are on the disk before the rename that publishes them. Old
releases are removed to limit their number and the disk space. Never activates.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.documents import Staged
from device_agent.shared.protocol.errors import AgentError, Locked, Refused
from device_agent.shared.release.directory import OpenRelease, open_release
from device_agent.shared.safe_files import read_small
from device_agent.shared.trust import oms
from device_agent.shared.trust.manifest import read_manifest
from device_agent.shared.trust.reasons import Reason
from device_agent.shared.trust.rules import Verdict, revoked_key
from device_agent.store import state, transitions
from device_agent.store.state import StoreState
from device_agent.store.store import IMPORT_PREFIX, TRASH_PREFIX, Store
from device_agent.store.trust_state import Known
from device_agent.system import board, clock, durable

#: Bytes of disk that pruning tries to leave free.
KEEP_FREE = 64 * 1024 * 1024
#: An upload that has not changed for this many seconds is removed.
STALE_UPLOAD = 7 * 24 * 3600

#: Refusals after which an upload is removed: sending more bytes could not correct it.
_BEYOND_RESUMING = frozenset(
    reason.value
    for reason in (
        Reason.FILE_CHANGED,
        Reason.FILE_SWAPPED,
        Reason.BAD_SIGNATURE,
        Reason.SIGNATURE_MALFORMED,
        Reason.MANIFEST_MALFORMED,
        Reason.OTHER_RELEASE,
    )
)


def verify(store: Store, directory: Path, device_class: str | None = None) -> Staged:
    """Verifies a release directory as a new release; changes nothing.

    A release may be for one device class only. `device_class` is the one to assume (None: that of this device).

    Raises:
        Refused: a trust rule refused the release.
    """
    with open_release(directory) as opened:
        verdict = opened.verify(Known(store, store.load(), device_class).trust)
    return _staged(verdict, already=verdict.digest in store.staged())


def stage(known: Known, directory: Path, holder: str) -> Staged:
    """Verifies the upload `directory` and moves it to releases/<digest>/. Needs the lock.

    Copies a directory outside ROOT/incoming instead of moving it. If the release is staged already, this repairs it,
    and replaces its signature if another trusted key made the new one. `known` is the device's state and trusted keys,
    `holder` who stages.

    Raises:
        Refused: a trust rule refused the release; nothing was changed.
        Locked: an activation of another holder waits for its confirmation.
    """
    store = known.store
    transitions.refuse_foreign(known.state, holder, clock.now())
    upload = directory if _is_upload(store, directory) else store.incoming / f"{IMPORT_PREFIX}{os.getpid()}"
    try:
        if upload != directory:
            _copy(directory, upload)
        with open_release(upload) as opened:
            verdict = _accept(known, opened, _expected(store, directory))
            _make_durable(upload, opened.opened)
            opened.confirm_unchanged()
            names = tuple(opened.files)
    except BaseException as error:  # a signal, too, leaves no copy
        if upload != directory:
            durable.remove_tree(upload)
        elif isinstance(error, Refused) and error.reason in _BEYOND_RESUMING:
            store.discard(upload)
        raise
    already = _publish(known, upload, verdict, names)
    _drop_uploads(store, verdict.digest)
    if not already:
        store.note(known.state, "staged", verdict.ref, "", holder)
    prune(store, known.state, keep=verdict.digest)
    return _staged(verdict, already)


def sign_again(known: Known, digest: str, signature: bytes, holder: str) -> Staged:
    """Replaces the signature of a staged release by one rename. Needs the lock.

    The digest does not cover the signature, so it is still the same release. Works for expired and old releases, too.
    `known` is the device's state and trusted keys, `holder` who sends the signature.

    Raises:
        Refused: the release or the signature is invalid, or its key is not trusted; nothing was changed.
        Locked: an activation of another holder waits for its confirmation.
    """
    store = known.store
    transitions.refuse_foreign(known.state, holder, clock.now())
    place = store.release_path(digest)
    with open_release(place, signed=False) as opened:
        verdict = opened.verify_accepted(digest, known.trust, signature=signature)
        already = _signed_by(known, opened, digest) == verdict.signed_by
    if verdict.revoked:
        raise revoked_key(verdict.signed_by)
    if not already:
        _write_signature(store, place, signature)
        store.note(known.state, "signed", verdict.ref, verdict.signed_by, holder)
    return _staged(verdict, already)


@contextlib.contextmanager
def dropping_needless(store: Store, directory: Path) -> Iterator[None]:
    """Removes the upload `directory` if the `with` block raises Refused or Locked, and the release is staged already.

    Needs no lock: an upload belongs to its sender.
    """
    try:
        yield
    except (Locked, Refused):
        if _expected(store, directory) in store.staged():
            with contextlib.suppress(OSError):  # its sender may still be writing
                durable.remove_tree(directory)
        raise


def take_parts(store: Store, directory: Path) -> None:
    """Removes `.part` from the file names in `directory`, a complete upload; `stage` verifies the contents."""
    if _is_upload(store, directory):
        for name in constants.POSSIBLE_FILES:
            part = directory / f"{name}{constants.PART_SUFFIX}"
            if part.exists() and not part.is_symlink():
                durable.rename(part, directory / name)


def prune(
    store: Store,
    current: StoreState,
    *,
    keep: str | None = None,
    number: int = constants.KEEP_RELEASES,
    free: int = KEEP_FREE,
) -> list[str]:
    """Removes stale uploads, and the oldest releases while over `number` are staged or under `free` bytes are free.

    Keeps the committed, previous and pending release of the state `current`, the one that a rollback replaced, and the
    one with the digest `keep`. Needs the lock.

    Returns:
        The digests that were removed.
    """
    protected = state.kept(current) | {keep}
    staged = store.staged()
    removed: list[str] = []
    for digest in sorted((d for d in staged if d not in protected), key=lambda d: (_sequence(store, d), d)):
        if len(staged) - len(removed) <= number and board.disk_free(store.root) >= free:
            break
        store.discard(store.release_path(digest))
        removed.append(digest)
    _drop_stale_uploads(store)
    return removed


def _accept(known: Known, opened: OpenRelease, expected: str | None) -> Verdict:
    """Returns the verdict on the upload `opened`; `expected`: the digest that it must have (None: any).

    Accepts a new signature of a release that is staged already, even if the release has expired.
    """
    store = known.store
    try:
        return opened.verify(known.trust, expected_digest=expected)
    except Refused:
        digest = oms.root_digest(fact.sha256 for _, fact in sorted(opened.files.items()))
        if digest not in store.staged() or expected not in (None, digest):
            raise
        verdict = opened.verify_accepted(digest, known.trust)
        if verdict.revoked or _signer(known, store.release_path(digest), digest) in (None, verdict.signed_by):
            raise
        return verdict


def _staged(verdict: Verdict, already: bool) -> Staged:
    return Staged(verdict.ref, verdict.signed_by, already, verdict.warnings)


def _is_upload(store: Store, directory: Path) -> bool:
    return directory.parent.resolve() == store.incoming.resolve() and not directory.is_symlink()


def named_digest(directory: Path) -> str:
    """Returns the digest in the name of an upload directory, `<digest>.<sender>` or `<digest>`."""
    return directory.name.partition(".")[0]


def _expected(store: Store, directory: Path) -> str | None:
    """Returns the digest in the name of an upload; None if the name has none, or for a folder outside ROOT/incoming."""
    named = named_digest(directory)
    return named if _is_upload(store, directory) and constants.is_digest(named) else None


def _copy(source: Path, destination: Path) -> None:
    if not source.is_dir():
        raise AgentError(f"{source} is not a release directory", hint="name the directory that knnkit build made")
    with open_release(source) as opened:
        _refuse_full(destination, sum(fact.size for fact in opened.files.values()))
        durable.remove_tree(destination)
        durable.make_directory(destination)
        for name in opened.opened:
            with Path(opened.path(name)).open("rb", buffering=0) as file:
                durable.copy_rest(file.fileno(), source / name, destination / name)


def _refuse_full(path: Path, needed: int) -> None:
    free = board.disk_free(path)
    if free < needed:
        raise AgentError(
            f"the release has {needed:,} bytes; only {free:,} are free on the disk of {path.parent}",
            reason="disk-full",
            hint="python -m device_agent prune removes old releases; df -h shows the free space",
        )


def _make_durable(upload: Path, names: Iterable[str]) -> None:
    for name in names:
        durable.restrict(upload / name, durable.FILE_MODE)
        durable.sync_file(upload / name)
    durable.restrict(upload, durable.DIRECTORY_MODE)
    durable.sync_directory(upload)


def _publish(known: Known, upload: Path, verdict: Verdict, names: Collection[str]) -> bool:
    """Moves the upload with the files `names` to releases/<digest>/; returns whether the release was there already.

    If it was, repairs it, replaces its signature if another trusted key made the new one, and removes the upload.
    """
    store = known.store
    place = store.release_path(verdict.digest)
    if not place.exists():
        durable.move(upload, place)
        return False
    signer = _signer(known, place, verdict.digest)
    if signer is None:
        # The upload is verified: each rename repairs one file, and the upload stays complete until the end.
        for name in names:
            spare = store.releases / f"{TRASH_PREFIX}{name}"
            durable.remove_tree(spare)
            durable.link(upload / name, spare)
            durable.move(spare, place / name)
        _drop_unlisted(place, names)
        signer = _signer(known, place, verdict.digest)
    if signer is None or not (verdict.revoked or signer == verdict.signed_by):
        _write_signature(store, place, (upload / constants.SIGNATURE_FILE).read_bytes())
    store.discard(upload)
    return True


def _signer(known: Known, place: Path, digest: str) -> str | None:
    """Returns the fingerprint of the key that signed the release in `place`; None if release or signature is bad."""
    try:
        with open_release(place) as opened:
            return _signed_by(known, opened, digest)
    except Refused:
        return None


def _signed_by(known: Known, opened: OpenRelease, digest: str) -> str | None:
    if constants.SIGNATURE_FILE not in opened.opened:
        return None
    try:
        return opened.verify_accepted(digest, known.trust).signed_by
    except Refused:
        return None


def _write_signature(store: Store, place: Path, signature: bytes) -> None:
    """Writes the signature beside the release `place`, then moves it in; `recover` removes leftovers of a crash."""
    spare = store.releases / f"{TRASH_PREFIX}{constants.SIGNATURE_FILE}"
    durable.remove_tree(spare)
    durable.write_atomic(place / constants.SIGNATURE_FILE, signature, prepared=spare)


def _drop_unlisted(place: Path, names: Collection[str]) -> None:
    for path in sorted(place.iterdir()):
        if path.name not in (*names, constants.SIGNATURE_FILE):
            durable.remove_tree(path)


def _sequence(store: Store, digest: str) -> int:
    """Returns the release's sequence; -1 for a release that cannot be read, so that it is removed first."""
    try:
        path = store.release_path(digest) / constants.MANIFEST_FILE
        return read_manifest(read_small(path, constants.MAX_MANIFEST)).sequence
    except (OSError, AgentError):
        return -1


def _drop_uploads(store: Store, digest: str) -> None:
    """Removes all uploads of the release `digest`, which is now staged; a host that still sends one gets an error."""
    for path in sorted(store.incoming.iterdir()):
        if named_digest(path) == digest:
            with contextlib.suppress(OSError):  # its sender may add a file meanwhile
                durable.remove_tree(path)


def _drop_stale_uploads(store: Store) -> None:
    now = clock.now().wall
    for path in sorted(store.incoming.iterdir()):
        with contextlib.suppress(OSError):  # its sender may rename it meanwhile
            if now - _last_touched(path) > STALE_UPLOAD:
                durable.remove_tree(path)


def _last_touched(upload: Path) -> float:
    inside = sorted(upload.iterdir()) if upload.is_dir() and not upload.is_symlink() else []
    return max(path.lstat().st_mtime for path in (upload, *inside))
