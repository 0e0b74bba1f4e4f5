"""Takes everything away from a board again, and never what is not knnkit's."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from device_agent import contract
from knnkit.errors import DeviceFailed
from knnkit.provision.board import BUILD_SECONDS, PythonFacts, ask, interpreter
from knnkit.transport.base import Transport, printable

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


def remove(
    transport: Transport,
    facts: PythonFacts,
    *,
    root: str = contract.DEFAULT_ROOT,
    warn: Callable[[str], None] = lambda text: None,
) -> bool:
    """Takes the whole root away, releases and trusted keys included; False when nothing was there.

    Args:
        transport: to the board.
        facts: of the board's Python.
        root: the knnkit directory there.
        warn: is told where the empty folder itself has to stay, and why.

    Raises:
        Unreachable: the connection broke; the next call goes on.
        DeviceFailed: the root holds something that is not knnkit's, and nothing was removed; or something of knnkit's
            cannot be removed.
        DeviceLocked: a deploy is under way.
    """
    order = {"root": root, "known": list(_KNOWN)}
    answer = ask(transport, interpreter(transport, facts), "remove", order, timeout=BUILD_SECONDS)
    left, place = [printable(str(line)) for line in answer.get("left", ())], printable(str(answer.get("root")))
    inside = [line for line in left if not line.startswith(f"{place}: ")]
    if inside:
        raise DeviceFailed(
            f"{transport.name}: {len(inside)} files and folders stay: {'; '.join(inside[:5])}",
            reason="left-behind",
            hint=f"on the board: sudo rm -r {shlex.quote(inside[0].partition(': ')[0])}",
        )
    for line in left:
        warn(f"the empty folder stays: {line}; `sudo rmdir` removes it")
    return bool(answer.get("removed"))
