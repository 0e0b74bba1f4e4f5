"""install: stage and activate in one process and under one lock, which saves a board a start of Python.

Each of the two verifies, writes and ends as it does alone (`stage`, `activate`); between
them nobody else can take the device. Needs the store's lock. Never confirms.
"""

from __future__ import annotations

import time
from pathlib import Path

from device_agent.lifecycle import activate, stage
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.reports import Installed
from device_agent.store.store import Store
from device_agent.store.trust_state import Known


def install(
    known: Known,
    directory: Path,
    *,
    nonce: str,
    holder: str,
    seconds: float = constants.DEFAULT_CONFIRM_SECONDS,
    runtime: str = "auto",
) -> Installed:
    """Stages the release `directory`, then tries it; one that an interrupted `install` has staged is only tried.

    The files of an upload may still be called `<name>.part`: who asks for this says that they are all there.

    Raises:
        AgentError: as `staging.stage` and `activation.activate`. What was staged stays so.
    """
    begun = time.monotonic()
    staged = None
    if not _is_done(known.store, directory):
        stage.take_parts(known.store, directory)
        staged = stage.stage(known, directory, holder)
    took = time.monotonic() - begun
    activated = activate.activate(
        known,
        staged.release.digest if staged else stage.named_digest(directory),
        nonce=nonce,
        holder=holder,
        seconds=seconds,
        runtime=runtime,
    )
    return Installed(staged, took, activated)


def _is_done(store: Store, directory: Path) -> bool:
    """Whether an upload has become the release that its name says."""
    return not directory.exists() and stage.named_digest(directory) in store.staged()
