"""Creates or reuses an upload folder on a device.

Each connection gets a folder of its own, so that two hosts that send the same release never write to the same file. The
folder of an interrupted upload is used again. Uploads nothing.
"""

from __future__ import annotations

import re

from device_agent.shared.protocol import constants
from knnkit.errors import DeviceFailed
from knnkit.fleet.device.probe import Facts
from knnkit.transport.base import Transport

#: Makes INCOMING/DIGEST.PID-TOKEN and prints it; PID is the connection's process on the device. One rename takes over
#: the folder of another connection that has ended, or has sent nothing for 30 seconds (a silently broken connection).
#: The age of the folder itself counts, too: one that was just made or taken over may not have new files yet. A folder
#: with a file that is not a `.part` is being installed, or belongs to a user. The signature is removed: the digest does
#: not cover it, so another host may have sent a different one.
_CLAIM = f"""\
umask 077
incoming=$1 digest=$2 own=$1/$2.${{KNNKIT_CONNECTION:-$PPID}}-$3
now=$(date +%s)
old() {{ changed=$(stat -c %Y "$1") && [ $((now - changed)) -ge 30 ]; }}
left() {{
  name=${{1##*/}} owner=
  case $name in *.*-*) owner=${{name#*.}} owner=${{owner%-*}} ;; esac
  if [ -n "$owner" ] && [ ! -d "/proc/$owner" ]; then return 0; fi
  old "$1" || return 1
  for file in "$1"/*; do
    [ -e "$file" ] || continue
    case $file in *{constants.PART_SUFFIX}) ;; *) return 1 ;; esac
    old "$file" || return 1
  done
}}
mkdir -p "$incoming" || exit 1
for place in "$incoming/$digest" "$incoming/$digest".*; do
  if [ -d "$place" ] && [ ! -L "$place" ] && left "$place" && touch -c "$place" && mv "$place" "$own"; then break; fi
done 2>/dev/null
mkdir -p "$own" && rm -f "$own/{constants.SIGNATURE_FILE}" "$own/{constants.SIGNATURE_FILE}{constants.PART_SUFFIX}" &&
printf '%s\\n' "$own"
"""


def claim(transport: Transport, facts: Facts, digest: str, token: str, *, timeout: float) -> str:
    """Makes the upload folder of this run for the release `digest` on the device, or reuses one; returns its path.

    `token` is hexadecimal, and different for each run, so that two runs never share a folder.
    Raises:
        Unreachable: the connection broke.
        DeviceFailed: the folder cannot be made.
    """
    incoming = f"{facts.root}/{constants.INCOMING_DIR}"
    done = transport.run(["sh", "-s", "--", incoming, digest, token], timeout=timeout, input=_CLAIM.encode())
    found = done.stdout.decode("utf-8", "replace").strip()
    if not re.fullmatch(rf"{re.escape(incoming)}/{digest}\.\d+-{token}", found):
        raise DeviceFailed(
            f"{transport.name}: cannot make a folder in {incoming}: {done.complaint or 'no reason given'}",
            reason="cannot-write",
            hint="knnkit doctor --target HOST",
        )
    return found
