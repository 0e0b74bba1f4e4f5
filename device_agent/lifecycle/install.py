"""`install`: stages and activates a release in one process.

One process saves a start of Python, and no other host can use the device in between. Both steps work as in `stage` and
`activate`. Needs the store's lock. Never confirms.
"""

from __future__ import annotations

import time
from pathlib import Path

from device_agent.lifecycle import activate, stage
from device_agent.lifecycle.activate import Trial
from device_agent.shared.protocol.reports import Installed
from device_agent.store.store import Store
from device_agent.store.trust_state import Known


def install(known: Known, directory: Path, trial: Trial) -> Installed:
    """Stages the upload `directory`, then activates it; only activates it if an interrupted `install` has staged it.

    The files of the upload may still be named `<name>.part`: the caller must have sent them completely.

    Raises:
        AgentError: as `stage.stage` and `activate.activate`. A staged release stays staged.
    """
    begun = time.monotonic()
    staged = None
    if not _is_done(known.store, directory):
        stage.take_parts(known.store, directory)
        staged = stage.stage(known, directory, trial.holder)
    took = time.monotonic() - begun
    digest = staged.release.digest if staged else stage.named_digest(directory)
    activated = activate.activate(known, digest, trial)
    return Installed(staged, took, activated)


def _is_done(store: Store, directory: Path) -> bool:
    """Whether the upload has already been staged under the digest in its name."""
    return not directory.exists() and stage.named_digest(directory) in store.staged()
