"""`prepare`: finds installed wheels. Also downloads and unpacks wheels."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from device_agent.bootstrap.environments import CONTENTS, environments, files_in, site_packages
from device_agent.bootstrap.files import listed, make_folder, read_json, remove_tree, safe, same, sha256, write
from device_agent.bootstrap.paths import VENVS, Trouble, resolved

#: Bytes that must stay free.
MARGIN = 16 << 20
#: Few retries: if the download fails, the host sends the wheels.
_IMPATIENT = ("--retries=1", "--timeout=20")


def prepare(request: dict[str, Any]) -> dict[str, Any]:
    """Returns `{"here": NAMES}`: the request's wheels that an environment already holds, with every file unchanged."""
    root = resolved(request["root"])
    return {"here": [wheel["name"] for wheel in request["wheels"] if holder_of(root, wheel)]}


def holder_of(root: Path, wheel: dict[str, str]) -> Path | None:
    """Returns an environment of this Python that has all files of a wheel unchanged; None if none has."""
    for digest in environments(root):
        environment = root / VENVS / digest
        files = contents(environment, wheel)
        if files and all(same(site_packages(environment) / name, value) for name, value in files.items()):
            return environment
    return None


def contents(environment: Path, wheel: dict[str, str]) -> dict[str, str] | None:
    """Returns file -> SHA-256 of a wheel that was unpacked in an environment; None if it was not."""
    record = read_json(environment / CONTENTS / (wheel["name"] + ".json"))
    return files_in(record) if record is not None and record.get("sha256") == wheel["sha256"] else None


def check_space(root: Path, wheels: list[dict[str, str]]) -> None:
    """Raises Trouble (`no-space`) if the disk cannot hold the unpacked wheels (`name`, `path`); writes nothing."""
    need = MARGIN
    for wheel in wheels:
        with archive(wheel) as content:
            need += sum(entry.file_size for entry in content.infolist())
    disk = os.statvfs(root)
    free = disk.f_bavail * disk.f_frsize
    if free < need:
        message = f"{root} has {free >> 20} MiB free; the environment needs {need >> 20} MiB"
        raise Trouble("no-space", message, "free some space on the board, or choose a root on another disk")


def put(wheel: dict[str, str], holder: Path | None, environment: Path) -> None:
    """Installs a wheel into an environment: links the files of the environment `holder`; if None, unpacks them."""
    site = site_packages(environment)
    files = (contents(holder, wheel) if holder else None) or {}
    for name in files:
        make_folder((site / name).parent)
        os.link(site_packages(holder or environment) / name, site / name)
    record = {"sha256": wheel["sha256"], "files": files or unpack_same(wheel, site)}
    make_folder(environment / CONTENTS)
    write(environment / CONTENTS / (wheel["name"] + ".json"), json.dumps(record).encode())


def archive(wheel: dict[str, str]) -> zipfile.ZipFile:
    """Opens a wheel as a zip archive; raises Trouble (`bad-wheel`) if it is damaged."""
    try:
        return zipfile.ZipFile(wheel["path"])
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise Trouble(
            "bad-wheel", f"{wheel['name']}: {error}", "on the host, remove it from the folder of wheels"
        ) from None


def unpack_same(wheel: dict[str, str], site: Path) -> dict[str, str]:
    """Calls `unpack`, then checks the wheel's SHA-256: a connection that seemed broken may still write to it.

    Raises Trouble if the wheel is damaged (`bad-wheel`) or has changed (`missing-wheel`).
    """
    try:
        files = unpack(wheel, site)
    except FileExistsError as error:
        raise Trouble("bad-wheel", f"{wheel['name']} holds {error.filename} twice", "build the wheel again") from None
    except (Trouble, OSError):
        raise
    except Exception as error:  # zipfile and its decompressors raise many types
        raise Trouble("bad-wheel", f"{wheel['name']}: {error}", "build the wheel again") from None
    if not same(Path(wheel["path"]), wheel["sha256"]):
        raise Trouble("missing-wheel", f"{wheel['name']} changed while it was unpacked", "run the command again")
    return files


def unpack(wheel: dict[str, str], site: Path) -> dict[str, str]:
    """Unpacks a wheel into the folder `site`, without scripts and data files, which the agent does not need.

    `wheel` has `name`, `path` and `sha256`. Returns path in `site` -> SHA-256 of each file.
    """
    files = {}
    with archive(wheel) as content:
        for entry in content.infolist():
            name = destination(entry.filename)
            if name is None or entry.filename.endswith("/"):
                continue
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise Trouble("bad-wheel", f"{wheel['name']} has a link: {entry.filename}", "do not use this wheel")
            target = site / safe(name)
            make_folder(target.parent)
            with content.open(entry) as source, target.open("xb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
            files[name] = sha256(target)
    return files


def destination(name: str) -> str | None:
    """Returns the path in site-packages of a wheel's entry; None for scripts and data files, which do not go there."""
    top, _, rest = name.partition("/")
    if not top.endswith(".data"):
        return name
    kind, _, inner = rest.partition("/")
    return inner if kind in ("purelib", "platlib") and inner else None


def download(folder: Path, lines: list[str], pip: dict[str, Any]) -> list[dict[str, str]]:
    """Downloads wheels into `folder`, and returns `name`, `sha256` and `path` of each; installs nothing.

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
        raise Trouble("wheel-differs", f"the board's package index differs from PyPI in {names}", "use --offline")
    if done.returncode:
        pins, last = " ".join(line.split()[0] for line in lines), printed.splitlines()[-1:] or ["no message"]
        raise Trouble("no-download", f"the board's pip could not download {pins}: {last[0]}", "use --offline")
    found = [{"name": path.name, "sha256": sha256(path), "path": str(path)} for path in listed(folder)]
    for wheel in found:
        if f"--hash=sha256:{wheel['sha256']}" not in " ".join(lines).split():  # pip did not check it
            raise Trouble("wheel-differs", f"the board's pip downloaded a wrong {wheel['name']}", "use --offline")
    return found
