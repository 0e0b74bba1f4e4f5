"""`examine`: checks an environment file by file; changes nothing."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any

from device_agent.bootstrap.environments import CONTENTS, files_in, site_packages
from device_agent.bootstrap.files import listed, read_json, same
from device_agent.bootstrap.paths import VENVS, Trouble, resolved


def examine(request: dict[str, Any]) -> dict[str, Any]:
    """Returns `{"damage": TEXT}`: the faults of the environment that the request names; "" if it has none."""
    return {"damage": damage(resolved(request["root"]), request["digest"], request["probe"], files=request["files"])}


def damage(root: Path, digest: str, probe: str, *, files: bool = True) -> str:
    """Returns the faults of the environment `digest` as text.

    Returns "" if its Python runs the code `probe` and, with `files`, every file has the bytes of its wheel.
    """
    environment = root / VENVS / digest
    named = ", ".join(changed(environment)) if files else ""
    try:
        prove(environment, probe, "-B")
    except Trouble as trouble:
        return f"{named or 'its interpreter'}: {trouble}"
    return f"{named}: files were changed after they were installed" if named else ""


def changed(environment: Path) -> list[str]:
    """Returns the names of the wheels of which a file is missing or changed in the environment."""
    records = {path.stem: files_in(read_json(path)) for path in listed(environment / CONTENTS)}
    site = site_packages(environment)
    return [
        name
        for name, files in records.items()
        if not files or not all(same(site / file, digest) for file, digest in files.items())
    ]


def prove(environment: Path, probe: str, *flags: str) -> dict[str, Any]:
    """Runs the code `probe` in the environment's Python, with `flags`; returns the JSON object in its last line.

    Raises Trouble (`does-not-run`) if it fails or its last line is not a JSON object.
    """
    command = [str(environment / "bin" / "python"), "-I", *flags, "-c", probe]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    printed, errors = (text.decode(errors="replace").strip().splitlines()[-1:] for text in (done.stdout, done.stderr))
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(printed[0]) if printed and not done.returncode else None
        if isinstance(found, dict):
            return found
    last = (errors or printed or [f"exit code {done.returncode}"])[0]
    message = f"the Python environment does not run on this device: {last[:500]}"
    raise Trouble("does-not-run", message, "if the runtime fails: --runtime numpy")
