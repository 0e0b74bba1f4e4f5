"""Where a release is sent on a device: a folder of this connection's own, with what an interrupted one has left there.

Two hosts that send one release at once never write into one file. Sends nothing itself.
"""

from __future__ import annotations

import re

from device_agent.shared.protocol import constants
from knnkit.errors import DeviceFailed
from knnkit.fleet.device.probe import Facts
from knnkit.transport.base import Transport

#: Makes INCOMING/DIGEST.PID-TOKEN and prints it; the process is the connection's own on the device. What another
#: connection has left there becomes this one's by one rename: one that is gone, or that has sent nothing for half a
#: minute (a line that broke without a word). A folder is as young as what was done to it last: one that was made, or
#: taken up, a moment ago may have nothing new in it yet. Files that are no parts any more are at work, or somebody's
#: own. The signature is no part of the digest, so that another may have sent another: it is sent anew.
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
echo "$own"
"""


def claim(transport: Transport, facts: Facts, digest: str, token: str, *, timeout: float) -> str:
    """Returns the folder on the device that the release `digest` is to be sent into.

    Args:
        transport: the connection that will send.
        facts: say where the device keeps uploads.
        digest: of the release.
        token: of this run, hexadecimal: two runs never have one folder.
        timeout: seconds.

    Raises:
        Unreachable: the connection broke.
        DeviceFailed: the device cannot make it.
    """
    incoming = f"{facts.root}/{constants.INCOMING_DIR}"
    done = transport.run(["sh", "-s", "--", incoming, digest, token], timeout=timeout, input=_CLAIM.encode())
    found = done.stdout.decode("utf-8", "replace").strip()
    if not re.fullmatch(rf"{re.escape(incoming)}/{digest}\.\d+-{token}", found):
        raise DeviceFailed(
            f"{transport.name}: cannot make a folder in {incoming}: {done.complaint or 'no reason given'}",
            reason="cannot-write",
            hint=f"knnkit doctor --target {transport.name}",
        )
    return found
