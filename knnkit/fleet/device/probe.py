"""Asks a device for facts, by one shell script."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from typing import Any

from device_agent.shared.protocol import constants, documents, json_codec, reports, versions
from device_agent.shared.protocol.documents import Status
from knnkit import __version__
from knnkit.errors import DeviceFailed
from knnkit.transport.base import Transport, printable

#: Prints `key value` lines. $1 is the root, which may begin with ~/. The agent's answer comes before its exit code. If
#: there is an agent, only the agent is asked, in as few processes as possible, since a fleet that is up to date spends
#: its time here; the other lines are for a board without an agent, or if $2 is `full`.
_PROBE = """\
root=$1
case $root in "~") root=$HOME ;; "~/"*) root=$HOME/${root#"~/"} ;; /*) ;; *) root=$HOME/$root ;; esac
# The file system of a folder: its kind, its options, and where it is mounted.
mounted() {
  here=$(cd "$1" 2>/dev/null && pwd -P)/ best= found=
  while read -r _ on kind options _; do
    case $on in *\\\\*) on=$(printf %b "$on") ;; esac
    case $here in "${on%/}"/*) [ ${#on} -ge ${#best} ] && best=$on found="$kind $options $on" ;; esac
  done </proc/self/mounts
  printf 'mount %s\\n' "$found"
}
printf 'home %s\\nroot %s\\n' "$HOME" "$root"  # some `echo` change a backslash
at=$root
while [ ! -d "$at" ] && [ -n "$at" ]; do at=${at%/*}; done
mounted "${at:-/}" 2>/dev/null
[ -w "${at:-/}" ] && echo "writable yes" || echo "writable no"
agent=$root/venv/bin/python
if [ "$2" = full ] || [ ! -x "$agent" ]; then
  echo "kernel $(uname -sm)"
  echo "disk $(df -Pk "${at:-/}" 2>/dev/null | awk 'NR == 2 { printf "%s", $4 }')"
  echo "venv $(readlink "$root/venv" 2>/dev/null)"
  for python in python3 /usr/bin/python3; do
    found=$("$python" -c 'import sys; print("%d.%d.%d %s" % (*sys.version_info[:3], sys.executable))' \
      </dev/null 2>/dev/null) || continue
    echo "python $found"
    break
  done
fi
if [ -x "$agent" ]; then
  "$agent" -I -m device_agent --root "$root" status --json </dev/null 2>/dev/null
  printf '\\nagent %s\\n' "$?"
fi
exit 0
"""
_LINE = re.compile(r"(home|root|mount|kernel|disk|writable|venv|python|agent) ?(.*)")
_MAX_ANSWER = 1024 * 1024


#: File systems that may be empty after a restart of the board -> text for messages.
_FLEETING = {"tmpfs": "in memory", "ramfs": "in memory", "overlay": "on an overlay", "aufs": "on an overlay"}


@dataclass(frozen=True)
class Mount:
    """A mounted file system: its kind (`ext4`), its options (`rw,noexec`), and the path where it is mounted."""

    kind: str
    options: str
    point: str


@dataclass(frozen=True)
class Facts:
    """What the probe found on a device; its paths are absolute."""

    home: str
    root: str
    machine: str  # `uname -m`
    system: str  # `uname -s`
    python: tuple[int, int, int] | None  # the system's, not the agent's; also None if it was not asked for
    python_path: str | None  # path of `python`
    disk_free_bytes: int
    writable: bool  # the root, or its nearest existing parent
    venv: str | None  # target of the link ROOT/venv
    agent: documents.Status | None = None
    agent_problem: str | None = None  # why there is a venv but no status
    mount: Mount | None = None  # file system of the root; None if unknown

    @property
    def no_agent(self) -> str:
        """Why the device has no status: the agent does not answer, or there is no agent in the root."""
        return self.agent_problem or f"there is no agent in {self.root}"

    @property
    def noexec(self) -> tuple[str, str] | None:
        """(reason why no library below the root can be loaded, hint); None if libraries can be loaded."""
        if self.mount is None or "noexec" not in self.mount.options.split(","):
            return None
        point = shlex.quote(self.mount.point)
        hint = f"sudo mount -o remount,exec {point} on the board, with `exec` in /etc/fstab; or choose another `root`"
        return f"{self.root} is mounted noexec (at {self.mount.point}): no library there can be loaded", hint

    @property
    def unwritable(self) -> tuple[str, str] | None:
        """(reason why the root cannot be written, hint); None if it can be written."""
        if self.writable:
            return None
        if self.mount is not None and "ro" in self.mount.options.split(","):
            hint = f"sudo mount -o remount,rw {shlex.quote(self.mount.point)} on the board; or choose another `root`"
            return f"{self.root} is on a file system that is mounted read-only (at {self.mount.point})", hint
        root = shlex.quote(self.root)  # it may be missing
        own = f"sudo mkdir -p {root} && sudo chown -R $USER {root}"
        return f"{self.root} cannot be written", f"on the board: {own}; or choose another `root`"

    @property
    def fleeting(self) -> str:
        """A warning that files below the root are lost at the next boot; "" if the root is on a disk."""
        if self.mount is None or self.mount.kind not in _FLEETING:
            return ""
        where = f"{_FLEETING[self.mount.kind]} ({self.mount.kind} at {self.mount.point})"
        return f"{self.root} lies {where}: everything written there is lost at the next boot"

    @property
    def agent_argv(self) -> tuple[str, ...]:
        """Start of a command line that runs the agent. With -I, Python does not import from the current folder,
        PYTHONPATH or the account's own site-packages.
        """
        return (f"{self.root}/venv/bin/python", "-I", "-m", "device_agent", "--root", self.root)


def probe(transport: Transport, root: str, *, timeout: float, full: bool = False) -> Facts:
    """Asks a device, with knnkit's root at `root`, for its facts.

    `full`: whether to look at the system's Python even if an agent answers.

    Raises:
        Unreachable: the connection broke or the time limit passed.
        DeviceFailed: the answer is malformed.
    """
    facts = _ask(transport, root, timeout, full)
    if facts.agent_problem and not full:  # provisioning will need the system's Python
        return _ask(transport, root, timeout, True)
    return facts


def _ask(transport: Transport, root: str, timeout: float, full: bool) -> Facts:
    completed = transport.run(
        ["sh", "-s", "--", root, "full" if full else "quick"],
        timeout=timeout,
        input=_PROBE.encode(),
        max_output=_MAX_ANSWER,
    )
    if completed.exit_code != 0:
        raise DeviceFailed(
            f"{transport.name}: the probe failed: {completed.complaint or f'exit code {completed.exit_code}'}",
            reason="probe-failed",
            hint="check that `sh` works there: ssh HOST sh -c true",
        )
    return parse(transport.name, completed.stdout.decode("utf-8", "replace"))


def parse(name: str, answer: str) -> Facts:
    """Parses the answer of the probe; `name` is the name of the device in messages.

    Raises:
        DeviceFailed: a line is missing or unknown.
    """
    found: dict[str, str] = {}
    status = ""
    for line in answer.split("\n"):
        match = _LINE.fullmatch(line)
        if match and match[1] not in found:
            found[match[1]] = match[2] if match[1] == "root" else match[2].strip()  # a root may end in a blank
        elif line.startswith("{") and not status:
            status = line
        elif line:
            said = f"{name}: the probe's answer has the unknown line {printable(line[:80])!r}"
            raise DeviceFailed(said, reason="probe-failed", hint=_CHATTY)
    try:
        facts = _facts(found)
    except (KeyError, ValueError) as error:
        raise DeviceFailed(f"{name}: the probe's answer lacks {error}", reason="probe-failed", hint=_CHATTY) from None
    return _with_agent(name, facts, found.get("agent"), status)


_CHATTY = "does the login shell start a program that prints? `ssh HOST sleep 5` must print nothing"


def _facts(found: dict[str, str]) -> Facts:
    version, _, path = found.get("python", "").partition(" ")
    parts = tuple(int(part) for part in version.split(".")) if version else None
    # An agent that answers runs on Linux; its status has the machine.
    system, _, machine = (found["kernel"] if "agent" not in found else found.get("kernel", "Linux")).partition(" ")
    if not found["root"].startswith("/") or (parts is not None and len(parts) != 3):
        raise ValueError("an absolute root and a Python version")
    return Facts(
        home=found["home"],
        root=found["root"].rstrip("/") or "/",
        machine=machine,
        system=system,
        python=parts,
        python_path=path or None,
        disk_free_bytes=int(found.get("disk") or 0) * 1024,
        writable=found.get("writable") == "yes",
        venv=found.get("venv") or None,
        mount=Mount(*mount) if len(mount := found.get("mount", "").split(" ", 2)) == 3 else None,
    )


def _with_agent(name: str, facts: Facts, code: str | None, status: str) -> Facts:
    if code is None:
        return replace(facts, agent_problem=f"{facts.root}/venv holds no Python") if facts.venv else facts
    try:
        if code == "0":
            agent = _shake_hands(name, json_codec.parse(status))
            if isinstance(agent, str):
                return replace(facts, agent_problem=agent)
            machine = facts.machine or agent.device.machine
            return replace(facts, agent=agent, disk_free_bytes=agent.disk_free_bytes, machine=machine)
        problem = json_codec.loads(reports.Problem, status)
        return replace(facts, agent_problem=printable(problem.message))
    except json_codec.MalformedDocument as error:
        return replace(facts, agent_problem=f"the agent ended with {printable(code)} and no answer ({error})")


def _shake_hands(name: str, status: Any) -> Status | str:
    """Returns the status that the agent of the device `name` sent; if the agent is too old for this knnkit, the reason.

    First reads the newest and the oldest protocol that the agent speaks: these numbers never change their meaning.

    Raises:
        DeviceFailed: this knnkit is too old for the agent.
        MalformedDocument: the agent's answer is not a status.
    """
    spoken, oldest, version = (
        status.get(key, default) if isinstance(status, dict) else default
        for key, default in (("protocol", 1), ("oldest_protocol", 1), ("agent", "?"))
    )
    if not isinstance(spoken, int) or not isinstance(oldest, int):
        raise json_codec.MalformedDocument("$.protocol: expected an integer")
    too_old, version = versions.to_upgrade(spoken, oldest), printable(str(version)[:64])
    if too_old == "agent":
        return f"version {version} speaks protocol {spoken}; this knnkit needs {constants.OLDEST_PROTOCOL} or later"
    said = f"needs protocol {oldest} or later; this knnkit {__version__} speaks {constants.PROTOCOL}"
    try:
        if too_old is None:
            return json_codec.from_plain(Status, status)
    except json_codec.NewerDocument as error:
        said = f"sent an answer that this knnkit {__version__} cannot read ({error})"
    raise DeviceFailed(f"{name}: agent {version} {said}", reason="knnkit-too-old", hint=upgrade_hint(version))


def upgrade_hint(version: str) -> str:
    """Returns the hint to upgrade knnkit on this machine, because a device's agent has the newer `version`."""
    return f"in a clone of knnkit {version} or later: pip install ."
