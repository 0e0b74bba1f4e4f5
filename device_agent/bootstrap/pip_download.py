"""Wheels that the board's own pip fetches: the exact bytes that the host names, and no others. Installs nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from device_agent.bootstrap.files import listed, make_folder, remove_tree, sha256, write
from device_agent.bootstrap.paths import Trouble

#: The host can send the wheels as well: it is not worth waiting.
_IMPATIENT = ("--retries=1", "--timeout=20")


def download(folder: Path, lines: list[str], pip: dict[str, Any]) -> list[dict[str, str]]:
    """Wheels that the board's own pip fetches into `folder`.

    Args:
        folder: is emptied first.
        lines: requirements with the SHA-256 of each; no other bytes are accepted.
        pip: `command` after a Python, what pip says of `other_bytes`, and the pattern of a `wheel` in its messages.
    """
    remove_tree(folder)
    make_folder(folder)
    wanted = folder.with_name("requirements.txt")
    write(wanted, "\n".join(lines).encode())
    command = [sys.executable, *pip["command"], *_IMPATIENT, "--dest", str(folder), "--requirement", str(wanted)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    said = done.stdout.decode(errors="replace").strip()
    if pip["other_bytes"] in said:
        names = " ".join(sorted(set(re.findall(pip["wheel"], said)))) or "of a wheel"
        raise Trouble("wheel-differs", f"the board's index has other bytes than PyPI: {names}", "use --offline")
    if done.returncode:
        pins, last = " ".join(line.split()[0] for line in lines), said.splitlines()[-1:] or ["no message"]
        raise Trouble("no-download", f"the board's pip could not fetch {pins}: {last[0]}", "use --offline")
    found = [{"name": path.name, "sha256": sha256(path), "path": str(path)} for path in listed(folder)]
    for wheel in found:
        if f"--hash=sha256:{wheel['sha256']}" not in " ".join(lines).split():  # a pip that did not look
            raise Trouble("wheel-differs", f"the board's pip brought another {wheel['name']}", "use --offline")
    return found
