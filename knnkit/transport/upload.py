"""Uploads files over any transport, and resumes broken uploads.

A file is sent to `<name>.part`, which the device uses only after checking its digest. A file that the device already
has is skipped. One command on the device examines all files.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from device_agent.shared.safe_files import sha256_of
from knnkit.errors import DeviceFailed
from knnkit.transport.base import Transport

#: For each path: `file DIGEST`, `part SIZE DIGEST` or `none`. Makes the directories.
_LOOK = """\
hash() {
  if command -v sha256sum >/dev/null 2>&1; then set -- "$(sha256sum < "$1")"; echo "${1%% *}"
  else python3 -c 'import hashlib,sys;print(hashlib.sha256(open(sys.argv[1],"rb").read()).hexdigest())' "$1" </dev/null
  fi
}
umask 077
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
        size = local.stat().st_size
        return cls(local, remote, size, sha256_of(local, size))


@dataclass(frozen=True)
class Pushed:
    """Bytes of an upload: `sent` now, `resumed` from an earlier attempt."""

    sent: int
    resumed: int


def push(
    transport: Transport,
    files: Sequence[PushFile],
    *,
    timeout: float,
    progress: Callable[[int, int], None] | None = None,
) -> Pushed:
    """Sends the files, or parts of them, that the device lacks, as `<name>.part`; does not verify what arrived.

    Args:
        transport: connection to the device.
        files: the files to send; missing directories are created, readable only by their owner.
        timeout: time limit in seconds for a command, such as hashing, and for a pause without progress while sending.
        progress: called with (bytes on the device, bytes in total), summed over all files.

    Raises:
        Unreachable: the connection broke; the next push resumes.
        DeviceFailed: the device cannot write.
    """
    total, there, sent, resumed = sum(file.size for file in files), 0, 0, 0
    for file, found in zip(files, _look(transport, files, timeout), strict=True):
        if found != ["file", file.sha256]:
            offset = _offset(file, found)
            start = there
            with file.local.open("rb") as source:
                report = None if progress is None else lambda done, _size, start=start: progress(start + done, total)
                transport.append(
                    source, f"{file.remote}.part", offset=offset, size=file.size, timeout=timeout, progress=report
                )
            resumed, sent = resumed + offset, sent + file.size - offset
        there += file.size
        if progress:
            progress(there, total)
    return Pushed(sent, resumed)


def _look(transport: Transport, files: Sequence[PushFile], timeout: float) -> list[list[str]]:
    # Dropbear limits a command line to 9,000 bytes, so script and arguments are the input.
    script = f"set -- {shlex.join(file.remote for file in files)}\n{_LOOK}"
    completed = transport.run(["sh", "-s"], timeout=timeout, input=script.encode())
    lines = completed.stdout.decode("ascii", "replace").splitlines()
    if completed.exit_code != 0 or len(lines) != len(files):
        said = f"{transport.name}: cannot write beside {files[0].remote}: {completed.complaint or 'no reason given'}"
        raise DeviceFailed(said, reason="cannot-write", hint="knnkit doctor --target HOST")
    return [line.split() for line in lines]


def _offset(file: PushFile, found: list[str]) -> int:
    """Returns how many bytes of the device's `.part` file to keep: all if the local file begins with them, else 0.

    `found` is the device's answer: ["part", size, SHA-256] if it has a `.part` file.
    """
    if len(found) != 3 or found[0] != "part" or not found[1].isascii() or not found[1].isdigit():
        return 0
    size = int(found[1])
    return size if size <= file.size and sha256_of(file.local, size) == found[2] else 0
