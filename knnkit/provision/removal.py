"""Takes everything away from a board again, and never what is not knnkit's."""

from __future__ import annotations

from device_agent import contract
from knnkit.provision.board import BUILD_SECONDS, PythonFacts, ask, interpreter
from knnkit.transport.base import Transport

#: All that knnkit ever makes in a root, half-written or set aside as well; anything else is refused.
_KNOWN = (
    contract.TRUST_DIR,
    contract.RELEASES_DIR,
    contract.INCOMING_DIR,
    contract.CURRENT_LINK,
    contract.STATE_FILE,
    contract.HISTORY_FILE,
    contract.LOCK_FILE,
    contract.CLASS_FILE,
    contract.VENV_LINK,
    contract.VENVS_DIR,
)


def remove(transport: Transport, facts: PythonFacts, *, root: str = contract.DEFAULT_ROOT) -> bool:
    """Takes the whole root away, releases and trusted keys included; False when there was none.

    Raises:
        Unreachable: the connection broke; the next call goes on.
        DeviceFailed: the root holds something that is not knnkit's; nothing was removed.
        DeviceLocked: a deploy is under way.
    """
    order = {"root": root, "known": list(_KNOWN)}
    return bool(ask(transport, interpreter(transport, facts), "remove", order, timeout=BUILD_SECONDS).get("removed"))
