"""Verifies and loads the release that answers at present.

Loads exactly the bytes that were verified: the files stay open as long as the model, which is mapped and read again
through their descriptors (`/proc/self/fd/N`). Never falls back to a release that state.json does not name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.documents import ReleaseRef, Searched
from device_agent.shared.protocol.errors import DeviceUnfit, ModelUnusable, Refused
from device_agent.shared.protocol.record import record, replace
from device_agent.shared.release.directory import OpenRelease, open_release
from device_agent.shared.release.model_file import read_member
from device_agent.shared.trust.manifest import read_manifest
from device_agent.shared.trust.reasons import Reason
from device_agent.shared.trust.rules import Verdict
from device_agent.store import searches, state
from device_agent.store.state import Answering
from device_agent.store.store import Store
from device_agent.store.trust_state import accepted_state
from device_agent.system import clock

if TYPE_CHECKING:
    from device_agent.enrolment.joined import JoinedKNN
    from device_agent.inference.tflite_knn import TfliteKNN
    from device_agent.serving.ring import Ring

#: Refusals that the same files, sent again, would meet again.
_OF_KEYS = (Reason.UNKNOWN_KEY.value, Reason.NO_TRUSTED_KEYS.value)


@record
class Loaded:
    """A verified release with its model in memory; call `close` after use."""

    signed: TfliteKNN  # the model alone
    opened: OpenRelease  # the open files of the release
    verdict: Verdict
    stack: contextlib.ExitStack  # closes the open files
    taught: JoinedKNN | None = None  # the model with the taught rows; None if none is used
    warning: str = ""  # why taught rows are not used
    ring: Ring | None = None  # keeps rows for people to label
    runtime: str = "auto"  # as the user asked for it; also for replicas, as `threads`
    threads: int = 1

    @property
    def model(self) -> TfliteKNN | JoinedKNN:
        """The model that answers: with taught rows if there are any."""
        return self.taught or self.signed

    @property
    def new_labels(self) -> tuple[int | str, ...]:
        """The labels that were taught on the device, and that the release itself does not have."""
        return self.model.info.classes[len(self.signed.info.classes) :]

    def replica(self) -> TfliteKNN | JoinedKNN:
        """Returns another copy of the model, for another thread."""
        signed = load_model(self.opened, self.runtime, self.threads, search=self.signed.requested)
        return self.taught.over(signed) if self.taught else signed

    @property
    def digest(self) -> str:
        """The release's digest."""
        return self.verdict.digest

    @property
    def longest_line(self) -> int:
        """Most bytes of an input line; a line may be long if it holds a sound or picture."""
        if self.model.chain is None:
            from device_agent.shared.tabular.inputs import MAX_LINE
        else:
            from device_agent.shared.embedding.decode import MAX_LINE
        return MAX_LINE

    def tell_warnings(self) -> None:
        """Prints warnings on standard error: why the release would be refused today, why taught rows are not used."""
        for text in (*self.verdict.warnings, *filter(None, [self.warning])):
            print(f"device_agent: warning: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Writes the rows that wait to be kept for labelling (`serving.ring`), and closes the release's files."""
        if self.ring:
            self.ring.save()
        self.stack.close()


def answering(store: Store) -> Answering:
    """Returns the release that answers at present, and its deadline, if it is not confirmed yet (else None).

    Raises:
        DeviceUnfit: the device has no release.
    """
    found = state.answering(store.load(), clock.now())
    if found is None:
        raise DeviceUnfit(
            f"no release has been activated under {store.root}",
            reason="no-release",
            hint="knnkit deploy --target HOST, or --root DIR if the model is in another folder",
        )
    return found


def load_accepted(
    store: Store,
    ref: ReleaseRef,
    runtime: str = "auto",
    threads: int = 1,
    *,
    stream: bool = False,
    search: str | None = None,
) -> Loaded:
    """Verifies and loads the release `ref`, which this device accepted before.

    `runtime` runs the model in `threads` threads; with `stream`, most queries will be single rows. `search` is one of
    `constants.WAYS`; None: the one that was fastest when the release was activated.

    Raises:
        Refused: the files are no longer those that were accepted.
        ModelUnusable, DeviceUnfit: the release cannot be loaded.
    """
    stack = contextlib.ExitStack()
    try:
        opened, verdict = open_accepted(store, ref, stack)
        way = searches.read(store, ref.digest) if search is None else search
        signed = load_model(opened, runtime, threads, stream=stream, search=way)
        return with_taught_rows(store, Loaded(signed, opened, verdict, stack, runtime=runtime, threads=threads))
    except BaseException:
        stack.close()
        raise


def with_ring(store: Store, loaded: Loaded) -> Loaded:
    """Returns `loaded` with a ring (keeps rows for labelling), if the release asks for one and it can be written."""
    info = loaded.model.info
    if info.keep is None or (info.table and info.table.transforms):  # whose raw cells are not at hand
        return loaded
    from device_agent.serving.ring import Ring

    with contextlib.suppress(OSError):
        return replace(loaded, ring=Ring(store.ring_file, info, info.keep, loaded.digest))
    return loaded


def with_taught_rows(store: Store, loaded: Loaded) -> Loaded:
    """Returns the loaded release joined with the present taught rows, if it allows any."""
    if loaded.signed.info.enrol is None:
        return loaded
    from device_agent.enrolment.local import with_rows

    taught, warning = with_rows(store.root, loaded.signed, loaded.digest)
    found = replace(loaded, taught=taught, warning=warning)
    if found.ring:
        found.ring.use(found.model.info)
    return found


def open_accepted(store: Store, ref: ReleaseRef, stack: contextlib.ExitStack) -> tuple[OpenRelease, Verdict]:
    """Opens the release `ref`, which `stack` closes, and verifies it as accepted before; returns both.

    Raises:
        Refused: the files are no longer those that were accepted.
    """
    try:
        opened = stack.enter_context(open_release(store.release_path(ref.digest)))
        return opened, opened.verify_accepted(ref.digest, accepted_state(store))
    except Refused as error:
        raise _damaged(store, ref, error) from None


def load_model(
    opened: OpenRelease,
    runtime: str = "auto",
    threads: int = 1,
    *,
    stream: bool = False,
    search: str | Searched | None = None,
    packed: bool | None = None,
) -> TfliteKNN:
    """Loads the model of an open, verified release. The release must stay open as long as the model is used.

    `runtime` runs the model in `threads` threads; with `stream`, most queries will be single rows. `search` is one of
    `constants.WAYS`, a record of the fastest, or None (the usual one). `packed`: whether XNNPACK may copy the weights;
    None: depends on the model's size and the free memory.

    Raises:
        ModelUnusable, DeviceUnfit: the model cannot be loaded.
        Refused: the file changed while it was loaded.
    """
    from device_agent.inference.tflite_knn import TfliteKNN

    path = opened.path(constants.MODEL_FILE)
    model = TfliteKNN(path, runtime=runtime, num_threads=threads, packed=packed, stream=stream, search=search)
    model.use(cells=False)
    if model.info.input is not None and model.info.input.stages:
        from device_agent.inference.stages import load_chain

        model.chain = load_chain(opened, model.info.input, runtime, threads, model.info.n_features)
    opened.confirm_unchanged()
    _compare(model, opened)
    return model


def _compare(model: TfliteKNN, opened: OpenRelease) -> None:
    """Raises ModelUnusable if the model has another name, k, feature count or labels than the manifest of `opened`."""
    manifest = read_manifest(opened.read(constants.MANIFEST_FILE))
    labels = read_member(opened.path(constants.MODEL_FILE), constants.LABELS_FILE)
    expected = (manifest.name, manifest.k, manifest.n_features, manifest.labels_sha256)
    found = (model.info.name, model.info.k, model.info.n_features, hashlib.sha256(labels).hexdigest())
    if expected != found:
        raise ModelUnusable(
            f"{constants.MANIFEST_FILE} describes name, k, features, labels {expected}; the model has {found}",
            reason="model-mismatch",
            hint="build the release again",
        )


def _damaged(store: Store, ref: ReleaseRef, error: Refused) -> Refused:
    path = Path(constants.RELEASES_DIR) / ref.digest
    again = "knnkit deploy --release RELEASE --verify --target HOST repairs it; or: python -m device_agent rollback"
    return Refused(
        f"the release {ref.name} {ref.version} on this device no longer verifies ({path}): {error}",
        reason=error.reason,
        hint=error.hint if error.reason in _OF_KEYS else again,
    )


def stamp(path: str) -> tuple[int, int, int] | None:
    """Returns inode, modification time (ns) and size of a file, to notice changes; None if it does not exist."""
    try:
        found = os.stat(path)  # noqa: PTH116 (on every read: half the time)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
