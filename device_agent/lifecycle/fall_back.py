"""Leaves a committed release whose starts never answer.

Goes back to the previous release by itself, as after a missing confirmation. The key of that release may be revoked:
reasons that would refuse it as a new release are only warnings when it starts. Never goes back to a release that no
longer verifies.
"""

from __future__ import annotations

import contextlib
import os

from device_agent.serving.load import open_accepted
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import AgentError
from device_agent.store import state, transitions
from device_agent.store.starts import Start
from device_agent.store.store import Store
from device_agent.system import clock


def leave_failing(store: Store, start: Start) -> str:
    """Goes back to the previous release if too many starts died before their first answer; then begins a new count.

    A start is a process that begins to classify. Returns a warning: what was done, or why going back is impossible and
    the same release starts again. Returns "" if not enough starts failed or there is no previous release.
    """
    if start.failed < constants.FAILED_STARTS:
        return ""
    said = f"{start.failed} starts of {start.digest[:12]} in a row ended without an answer"
    before = os.umask(0o077)
    os.umask(before)
    try:
        with store.changing(state.ITSELF, "classify", wait=0.0), contextlib.ExitStack() as stack:
            current, moment = store.load(), clock.now()
            transitions.refuse_foreign(current, state.ITSELF, moment)
            new = transitions.leave_failing(current, start.digest, start.failed, moment)
            if new.committed is None or new == current:
                return ""
            open_accepted(store, new.committed, stack)
            store.commit(new)
    except (AgentError, OSError) as error:
        return f"{said}; the device cannot go back to the previous release: {error}"
    finally:
        os.umask(before)
    start.close()
    start.begin()
    return f"{said}: {new.committed.digest[:12]} answers again"
