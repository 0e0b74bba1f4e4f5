"""Runs one command on a board; prints one JSON document."""

from __future__ import annotations

import json
import os

from device_agent.bootstrap.build import build
from device_agent.bootstrap.examine import examine
from device_agent.bootstrap.inspect import state
from device_agent.bootstrap.paths import Trouble
from device_agent.bootstrap.remove import remove
from device_agent.bootstrap.upload_dirs import claim
from device_agent.bootstrap.wheels import prepare

COMMANDS = {"state": state, "examine": examine, "prepare": prepare, "claim": claim, "build": build, "remove": remove}


def main(command: str, order: str) -> int:
    """Prints the command's answer and returns 0, or prints the problem that stopped it and returns 1."""
    os.umask(0o077)
    try:
        answer = COMMANDS[command](json.loads(order))
    except Trouble as trouble:
        answer = {"problem": trouble.reason, "message": str(trouble), "hint": trouble.hint}
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        denied = isinstance(error, PermissionError)
        hint = "choose a root that the login user may write" if denied else "check the board's disk and rights"
        answer = {"problem": "os-error", "message": message, "hint": hint}
    print(json.dumps(answer))
    return 1 if "problem" in answer else 0
