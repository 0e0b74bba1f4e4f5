"""Runs one command on a board; prints one JSON document."""

from __future__ import annotations

import errno
import json
import os
import shlex
from pathlib import Path

from device_agent.bootstrap.build import build
from device_agent.bootstrap.examine import examine
from device_agent.bootstrap.inspect import state
from device_agent.bootstrap.paths import Trouble
from device_agent.bootstrap.remove import remove
from device_agent.bootstrap.upload_dirs import claim
from device_agent.bootstrap.wheels import prepare

#: About as many files as an environment has.
ENVIRONMENT_FILES = 3000
COMMANDS = {"state": state, "examine": examine, "prepare": prepare, "claim": claim, "build": build, "remove": remove}


def main(command: str, request: str) -> int:
    """Runs `command` with `request` (JSON); prints its answer and returns 0, or prints a problem and returns 1."""
    os.umask(0o077)
    try:
        answer = COMMANDS[command](json.loads(request))
    except Trouble as trouble:
        answer = {"problem": trouble.reason, "message": str(trouble), "hint": trouble.hint}
    except OSError as error:
        said, hint = _explain(error)
        message = f"{error.filename}: {said}" if error.filename else said
        answer = {"problem": "os-error", "message": message, "hint": hint}
    print(json.dumps(answer))
    return 1 if "problem" in answer else 0


def _explain(error: OSError) -> tuple[str, str]:
    """Returns a message and a hint for an error of the operating system."""
    if error.errno == errno.ENOSPC:
        folder = next(path for path in Path(error.filename or ".").absolute().parents if path.is_dir())
        found = os.statvfs(folder)
        if found.f_files and found.f_favail < ENVIRONMENT_FILES:  # what failed has been removed by now
            said = "no inodes are left: the file system cannot hold more files"
            return said, f"df -i {shlex.quote(str(folder))}; remove files that are not needed, or choose another root"
        return str(error.strerror), "make room on the board: df -h shows the free space"
    if error.errno in (errno.ENOSYS, errno.ENOTSUP) or (error.errno == errno.EPERM and error.filename2):
        return (
            "the file system has no links or no file permissions",
            "choose a root on a Linux file system, such as ext4",
        )
    if isinstance(error, PermissionError):
        return str(error.strerror), "choose a root that the login user may write"
    return str(error.strerror or error), "check the board's disk and the permissions of the files"
