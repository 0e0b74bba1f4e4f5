"""Uploads files over any transport, and resumes broken uploads.

A file is sent to `<name>.part`, hashed on the device, and renamed only if the digest is right. A file that the device
already has is skipped. One command on the device examines all files; another one hashes and renames them. If the device
has an agent, the agent hashes and renames.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from knnkit.errors import DeviceFailed
from knnkit.transport.base import Completed, Transport

_HASH = """\
hash() {
  if command -v sha256sum >/dev/null 2>&1; then set -- "$(sha256sum < "$1")"; echo "${1%% *}"
  else python3 -c 'import hashlib,sys;print(hashlib.sha256(open(sys.argv[1],"rb").read()).hexdigest())' "$1" </dev/null
  fi
}
umask 077
"""
#: For each path: `file DIGEST`, `part SIZE DIGEST` or `none`. Makes the directories.
_LOOK = (
    _HASH
    + """\
for path do
  [ -d "${path%/*}" ] || mkdir -p "${path%/*}" || exit 1
  if [ -f "$path" ] && [ ! -L "$path" ]; then echo "file $(hash "$path")"
  elif [ -f "$path.part" ] && [ ! -L "$path.part" ]; then
    echo "part $(wc -c < "$path.part" | tr -d ' ') $(hash "$path.part")"
  else
    for other in "$path" "$path.part"; do
      if [ -e "$other" ] || [ -L "$other" ]; then rm -rf "$other"; fi
    done
    echo none
  fi
done
"""
)
#: For each pair of digest and path: renames a `.part` with this digest, removes any other.
_FINISH = (
    _HASH
    + """\
while [ $# -gt 0 ]; do
  found=$(hash "$2.part")
  if [ "$found" = "$1" ]; then mv -f "$2.part" "$2" && echo done || exit 1
  else rm -f "$2.part"; echo "differs $found"
  fi
  shift 2
done
"""
)


@dataclass(frozen=True)
class PushFile:
    """One file to send: `remote` is its absolute path on the device, `sha256` is hexadecimal."""

    local: Path
    remote: str
    size: int
    sha256: str

    @classmethod
    def of(cls, local: Path, remote: str) -> PushFile:
        """Returns the description of the file `local`, with its size and digest."""
        digest = hashlib.sha256()
        with local.open("rb") as file:
            while chunk := file.read(1024 * 1024):
                digest.update(chunk)
            return cls(local, remote, file.tell(), digest.hexdigest())


@dataclass(frozen=True)
class Pushed:
    """Bytes of an upload: `sent` now, `resumed` from an earlier attempt, `skipped` because the device had the file."""

    sent: int
    resumed: int
    skipped: int


def push(
    transport: Transport,
    files: Sequence[PushFile],
    *,
    timeout: float,
    progress: Callable[[int, int], None] | None = None,
    finish: bool = True,
) -> Pushed:
    """Sends the files, or parts of them, that the device lacks.

    Args:
        transport: connection to the device.
        files: the files to send; missing directories are created, readable only by their owner.
        timeout: time limit in seconds for a command, such as hashing, and for a pause without progress while sending.
        progress: called with (bytes on the device, bytes in total), summed over all files.
        finish: whether to hash and rename the sent files; if not, they stay `<name>.part`, for the agent to check.

    Raises:
        Unreachable: the connection broke; the next push resumes.
        DeviceFailed: the device cannot write, or what it stored differs from what was sent.
    """
    total, there, sent, resumed, skipped = sum(file.size for file in files), 0, 0, 0, 0
    parts: list[PushFile] = []
    for file, found in zip(files, _look(transport, files, timeout), strict=True):
        if found == ["file", file.sha256]:
            skipped += file.size
        else:
            offset = _offset(file, found)
            start = there
            with file.local.open("rb") as source:
                report = None if progress is None else lambda done, _size, start=start: progress(start + done, total)
                transport.append(
                    source, f"{file.remote}.part", offset=offset, size=file.size, timeout=timeout, progress=report
                )
            resumed, sent = resumed + offset, sent + file.size - offset
            parts.append(file)
        there += file.size
        if progress:
            progress(there, total)
    if finish and parts:
        _finish(transport, parts, timeout)
    return Pushed(sent, resumed, skipped)


def _look(transport: Transport, files: Sequence[PushFile], timeout: float) -> list[list[str]]:
    completed = _run(transport, _LOOK, [file.remote for file in files], timeout)
    lines = completed.stdout.decode("ascii", "replace").splitlines()
    if completed.exit_code != 0 or len(lines) != len(files):
        raise _cannot(transport, files[0].remote, completed.complaint)
    return [line.split() for line in lines]


def _offset(file: PushFile, found: list[str]) -> int:
    """Returns how many bytes of the device's `.part` file to keep: all if it is a prefix of the file, else 0.

    `found` is the device's answer: the kind of file that it has, the size and the SHA-256.
    """
    if len(found) != 3 or found[0] != "part" or not found[1].isascii() or not found[1].isdigit():
        return 0
    size, digest = int(found[1]), hashlib.sha256()
    if size > file.size:
        return 0
    left = size
    with file.local.open("rb") as source:
        while left and (chunk := source.read(min(left, 1024 * 1024))):
            digest.update(chunk)
            left -= len(chunk)
    return size if digest.hexdigest() == found[2] else 0


def _finish(transport: Transport, files: Sequence[PushFile], timeout: float) -> None:
    completed = _run(transport, _FINISH, [part for file in files for part in (file.sha256, file.remote)], timeout)
    lines = completed.stdout.decode("ascii", "replace").splitlines()
    for file, line in zip(files, lines, strict=False):
        if line != "done":
            raise DeviceFailed(
                f"{transport.name}: {file.remote} differs on the device from what was sent",
                reason="upload-differs",
                hint="run the command again; if it happens again, the device's storage is failing",
            )
    if completed.exit_code != 0 or len(lines) != len(files):
        raise _cannot(transport, files[0].remote, completed.complaint)


def _run(transport: Transport, script: str, arguments: list[str], timeout: float) -> Completed:
    """Sends a script and its arguments through standard input: Dropbear limits a command line to 9,000 bytes."""
    return transport.run(["sh", "-s"], timeout=timeout, input=f"set -- {shlex.join(arguments)}\n{script}".encode())


def _cannot(transport: Transport, path: str, complaint: str) -> DeviceFailed:
    return DeviceFailed(
        f"{transport.name}: cannot write beside {path}: {complaint or 'no reason given'}",
        reason="cannot-write",
        hint="knnkit doctor --target HOST",
    )
