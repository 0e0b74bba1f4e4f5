"""Downloads wheels with the board's pip, checked by SHA-256."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from device_agent.bootstrap.files import listed, make_folder, remove_tree, sha256, write
from device_agent.bootstrap.paths import Trouble

#: Few retries: if the download fails, the host sends the wheels.
_IMPATIENT = ("--retries=1", "--timeout=20")


def download(folder: Path, lines: list[str], pip: dict[str, Any]) -> list[dict[str, str]]:
    """Downloads wheels into `folder` and returns the name, SHA-256 and path of each; installs nothing.

    Args:
        folder: is emptied first.
        lines: requirements with the SHA-256 of each; a wheel with another SHA-256 is refused.
        pip: `command` (pip's arguments after Python), `other_bytes` (pip's message for a wrong SHA-256) and `wheel`
            (the pattern of a wheel in that message).
    """
    remove_tree(folder)
    make_folder(folder)
    wanted = folder.with_name("requirements.txt")
    write(wanted, "\n".join(lines).encode())
    command = [sys.executable, *pip["command"], *_IMPATIENT, "--dest", str(folder), "--requirement", str(wanted)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    printed = done.stdout.decode(errors="replace").strip()
    if pip["other_bytes"] in printed:
        names = " ".join(sorted(set(re.findall(pip["wheel"], printed)))) or "a wheel"
        raise Trouble("wheel-differs", f"the board's package index does not have PyPI's {names}", "use --offline")
    if done.returncode:
        pins, last = " ".join(line.split()[0] for line in lines), printed.splitlines()[-1:] or ["no message"]
        raise Trouble("no-download", f"the board's pip could not fetch {pins}: {last[0]}", "use --offline")
    found = [{"name": path.name, "sha256": sha256(path), "path": str(path)} for path in listed(folder)]
    for wheel in found:
        if f"--hash=sha256:{wheel['sha256']}" not in " ".join(lines).split():  # pip did not check it
            raise Trouble("wheel-differs", f"the board's pip fetched a wrong {wheel['name']}", "use --offline")
    return found
