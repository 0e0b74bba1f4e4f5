"""`activate` and `install`: try a release until it is confirmed.

    verify ─► golden check in a child process ─► state.json: "pending" ─► `current` ─► … ─► confirm

A golden check compares the release's answers with those that the host computed. Until it has passed, the previous
release answers, and again if no confirmation comes. `install` stages an upload first: one process saves a start of
Python, and no other host can use the device in between. Needs the store's lock (`Store.changing`). Never confirms
(`device_agent.lifecycle.confirm`), never prints.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from device_agent.lifecycle import check, compare, stage, watchdog
from device_agent.lifecycle.confirm import connection
from device_agent.shared.console import streams
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import AgentError
from device_agent.shared.protocol.record import record, replace
from device_agent.shared.protocol.reports import Activated, Certificate, Installed
from device_agent.shared.release.directory import OpenRelease, open_release
from device_agent.shared.trust.rules import Verdict
from device_agent.store import searches, transitions
from device_agent.store.trust_state import Known
from device_agent.system import clock

_FIRST = "not worse than current: this device has no release yet, so there is nothing to compare with"


@record
class Trial:
    """Options of an activation: nonce for the check's result, who activates, seconds to confirm, and runtime."""

    nonce: str
    holder: str
    seconds: float
    runtime: str


def activate(known: Known, digest: str, trial: Trial) -> Activated:
    """Checks the staged release `digest` and switches to it; without a confirmation in time, the device reverts.

    If the release is committed or pending already, only its check is repeated: nothing is switched. `known` is the
    device's state and trusted keys, read under the lock; `trial` are the options.

    Raises:
        Refused: a trust rule refused the release.
        GateFailed, ModelUnusable: the golden check failed; the previous release still answers.
        Locked: another activation is pending.
        BrokenPipeError: the reader has closed stdout; nothing was switched.
    """
    seconds = transitions.checked_deadline(trial.seconds)
    store, current = known.store, known.state
    transitions.refuse_foreign(current, trial.holder, clock.now())
    if current.pending and current.pending.release.digest == digest:
        certificate = check.recheck(store, current.pending.release, trial.nonce, trial.runtime)
        seconds = max(0.0, current.pending.deadline - clock.uptime())
        return Activated(current.pending.release, certificate, False, seconds)
    if current.pending:
        raise transitions.waits(current.pending)
    with open_release(store.release_path(digest)) as opened:
        verdict = opened.verify(known.trust, expected_digest=digest)
        certificate = _try(known, opened, verdict, trial)
    if verdict.already_committed:
        return Activated(verdict.ref, certificate, True, None)
    moment = clock.now()
    new = transitions.begin(
        current,
        verdict.ref,
        created=verdict.time_floor,
        holder=trial.holder,
        connection=connection(),
        seconds=seconds,
        moment=moment,
    )
    streams.require_reader()  # without a reader nobody will confirm: do not switch only to revert
    with watchdog.left_behind(store, digest, moment.uptime + seconds):
        store.commit(new)
    return Activated(verdict.ref, certificate, False, seconds)


def _try(known: Known, opened: OpenRelease, verdict: Verdict, trial: Trial) -> Certificate:
    try:
        with contextlib.ExitStack() as stack:
            running = compare.running(known, verdict, opened.files[constants.MODEL_FILE].size, stack)
            store = known.store
            certificate = check.certify(
                opened,
                verdict,
                trial.nonce,
                runtime=trial.runtime,
                close=store.locks,
                running=running,
                root=store.root,
                searched=lambda found: searches.write(store, found),
            )
            if running is None and verdict.manifest.gates.not_worse_than and not verdict.already_committed:
                certificate = replace(certificate, warnings=(*certificate.warnings, _FIRST))
            return check.require_gates(certificate)
    except AgentError as error:
        known.store.note(known.state, "rejected", verdict.ref, f"{error.reason}: {error}", trial.holder)
        raise


def install(known: Known, directory: Path, trial: Trial) -> Installed:
    """Stages the upload `directory`, unless an interrupted `install` has already staged it, and activates it.

    The directory's files may still be named `<name>.part`: the caller must have sent them completely.

    Raises:
        AgentError: the upload was refused, or its release could not be activated; a staged release stays staged.
    """
    begun = time.monotonic()
    staged = None
    if directory.exists() or stage.named_digest(directory) not in known.store.staged():
        stage.take_parts(known.store, directory)
        staged = stage.stage(known, directory, trial.holder)
    took = time.monotonic() - begun
    digest = staged.release.digest if staged else stage.named_digest(directory)
    activated = activate(known, digest, trial)
    return Installed(staged, took, activated)
