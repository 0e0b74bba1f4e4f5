"""Picks the release that answers, verifies it as at every start, and loads the very bytes that were verified.

The files stay open as long as the model, because it is mapped, and read again, through their descriptors
(`/proc/self/fd/N`). Never falls back to a release that the state does not name.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from device_agent.shared.console.quiet import quiet
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.documents import ReleaseRef
from device_agent.shared.protocol.errors import DeviceUnfit, ModelUnusable, Refused
from device_agent.shared.protocol.record import record
from device_agent.shared.release.directory import OpenRelease, open_release
from device_agent.shared.release.model_file import read_member
from device_agent.shared.trust.manifest import read_manifest
from device_agent.shared.trust.rules import Verdict
from device_agent.store import state
from device_agent.store.state import Answering
from device_agent.store.store import Store
from device_agent.store.trust_state import kept_state
from device_agent.system import clock

if TYPE_CHECKING:
    from device_agent.inference.tflite_knn import TfliteKNN


@record
class Loaded:
    """A verified release with its model in memory; `close` it when it is not used any more."""

    model: TfliteKNN
    opened: OpenRelease
    verdict: Verdict
    stack: contextlib.ExitStack

    @property
    def digest(self) -> str:
        """The release's digest."""
        return self.verdict.digest

    def close(self) -> None:
        """Closes the release's files."""
        self.stack.close()


def answering(store: Store) -> Answering:
    """Returns what answers now.

    Raises:
        DeviceUnfit: the device has no release.
    """
    found = state.answering(store.load(), clock.now())
    if found is None:
        raise DeviceUnfit(
            f"no release has been activated under {store.root}",
            reason="no-release",
            hint="knnkit deploy --target this-device, or --root if it lies elsewhere",
        )
    return found


def load_kept(
    store: Store, ref: ReleaseRef, runtime: str = "auto", threads: int = 1, *, stream: bool = False
) -> Loaded:
    """Verifies and loads a release that this device accepted before; for a `stream`, in the least memory.

    Raises:
        Refused: it is not the release that was accepted any more.
        ModelUnusable, DeviceUnfit: it cannot be loaded.
    """
    stack = contextlib.ExitStack()
    try:
        opened, verdict = open_kept(store, ref, stack)
        return Loaded(load_model(opened, runtime, threads, stream=stream), opened, verdict, stack)
    except BaseException:
        stack.close()
        raise


def open_kept(store: Store, ref: ReleaseRef, stack: contextlib.ExitStack) -> tuple[OpenRelease, Verdict]:
    """Opens and verifies a release that this device accepted before, for as long as `stack` is open.

    Raises:
        Refused: it is not the release that was accepted any more.
    """
    try:
        opened = stack.enter_context(open_release(store.release_path(ref.digest)))
        return opened, opened.verify_kept(ref.digest, kept_state(store))
    except Refused as error:
        raise _damaged(store, ref, error) from None


def load_model(opened: OpenRelease, runtime: str = "auto", threads: int = 1, *, stream: bool = False) -> TfliteKNN:
    """Loads the model of an open, verified release; the release must stay open as long as the model.

    Raises:
        ModelUnusable, DeviceUnfit: it cannot be loaded.
        Refused: the file was written to meanwhile.
    """
    from device_agent.inference.tflite_knn import TfliteKNN

    path = opened.path(constants.MODEL_FILE)
    with quiet():
        model = TfliteKNN(path, runtime=runtime, num_threads=threads, stream=stream)
    opened.confirm_unchanged()
    _compare(model, opened)
    return model


def _compare(model: TfliteKNN, opened: OpenRelease) -> None:
    """Refuses a model that is not what its own manifest describes."""
    manifest = read_manifest(opened.read(constants.MANIFEST_FILE))
    labels = read_member(opened.path(constants.MODEL_FILE), constants.LABELS_FILE)
    said = (manifest.name, manifest.k, manifest.n_features, manifest.labels_sha256)
    found = (model.info.name, model.info.k, model.info.n_features, hashlib.sha256(labels).hexdigest())
    if said != found:
        raise ModelUnusable(
            f"{constants.MANIFEST_FILE} describes name, k, features, labels {said}; the model has {found}",
            reason="model-mismatch",
            hint="build the release again",
        )


def _damaged(store: Store, ref: ReleaseRef, error: Refused) -> Refused:
    place = Path(constants.RELEASES_DIR) / ref.digest
    return Refused(
        f"the release {ref.name} {ref.version} on this device no longer verifies ({place}): {error}",
        reason=error.reason,
        hint="deploy it again, which mends the files; or go back: python -m device_agent rollback",
    )
