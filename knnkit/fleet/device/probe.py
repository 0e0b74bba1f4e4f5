"""What is true of a device, asked in one round trip by one POSIX sh script; parsed strictly. Changes nothing there."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from device_agent.shared.protocol import documents, json_codec, reports
from knnkit.errors import DeviceFailed
from knnkit.transport.base import Transport, printable

#: Prints `key value` lines. $1 is the root, maybe beginning with ~/. What the agent answers comes before its exit code.
#: Where there is an agent it is asked alone, in as few processes as can be, since a fleet with nothing to do spends its
#: time here; the rest matters to a board without one, or where $2 says `full`.
_PROBE = """\
root=$1
case $root in "~") root=$HOME ;; "~/"*) root=$HOME/${root#"~/"} ;; /*) ;; *) root=$HOME/$root ;; esac
echo "home $HOME"
echo "root $root"
at=$root
while [ ! -d "$at" ] && [ -n "$at" ]; do at=${at%/*}; done
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
_LINE = re.compile(r"(home|root|kernel|disk|writable|venv|python|agent) ?(.*)")
_MAX_ANSWER = 1024 * 1024


@dataclass(frozen=True)
class Facts:
    """One device as it is now; paths are absolute, `~` is resolved."""

    home: str
    root: str
    machine: str  # as `uname -m` says it
    system: str  # as `uname -s` says it
    python: tuple[int, int, int] | None  # of the system, not the agent's; None also where it was not asked for
    python_path: str | None  # as `python`
    disk_free_bytes: int
    writable: bool  # the root, or where it would be made
    venv: str | None  # what ROOT/venv points to, as it stands there
    agent: documents.Status | None = None
    agent_problem: str | None = None  # why there is a venv but no status

    @property
    def agent_argv(self) -> tuple[str, ...]:
        """How the device's agent is called; a command follows. With its environment's modules and no others (-I): not
        those of the login's folder, in which it starts, nor of that account's PYTHONPATH or own site-packages.
        """
        return (f"{self.root}/venv/bin/python", "-I", "-m", "device_agent", "--root", self.root)


def probe(transport: Transport, root: str, *, timeout: float, full: bool = False) -> Facts:
    """Asks a device for its facts.

    Args:
        transport: to the device.
        root: the knnkit directory there; `~/` is the login's home.
        timeout: seconds.
        full: ask for the system's Python also where there is an agent.

    Raises:
        Unreachable: the connection broke or the deadline passed.
        DeviceFailed: the answer makes no sense.
    """
    facts = _ask(transport, root, timeout, full)
    if facts.agent_problem and not full:  # its Python matters now: it is to be mended
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
            hint="knnkit doctor",
        )
    return parse(transport.name, completed.stdout.decode("utf-8", "replace"))


def parse(name: str, answer: str) -> Facts:
    """Reads the probe's answer; `name` is the device's, for messages.

    Raises:
        DeviceFailed: a line is missing or is no such line.
    """
    found: dict[str, str] = {}
    status = ""
    for line in answer.split("\n"):
        match = _LINE.fullmatch(line)
        if match and match[1] not in found:
            found[match[1]] = match[2].strip()
        elif line.startswith("{") and not status:
            status = line
        elif line:
            raise DeviceFailed(
                f"{name}: the probe answered {printable(line[:80])!r}", reason="probe-failed", hint=_CHATTY
            )
    try:
        facts = _facts(found)
    except (KeyError, ValueError) as error:
        raise DeviceFailed(f"{name}: the probe's answer lacks {error}", reason="probe-failed", hint=_CHATTY) from None
    return _with_agent(facts, found.get("agent"), status)


_CHATTY = "does the login shell print text of its own? `ssh HOST true` must print nothing"


def _facts(found: dict[str, str]) -> Facts:
    version, _, path = found.get("python", "").partition(" ")
    parts = tuple(int(part) for part in version.split(".")) if version else None
    # Who answers as the agent runs on Linux, and says itself on which machine.
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
    )


def _with_agent(facts: Facts, code: str | None, status: str) -> Facts:
    if code is None:
        return replace(facts, agent_problem=f"{facts.root}/venv holds no Python") if facts.venv else facts
    try:
        if code == "0":
            agent = json_codec.loads(documents.Status, status)
            machine = facts.machine or agent.device.machine
            return replace(facts, agent=agent, disk_free_bytes=agent.disk_free_bytes, machine=machine)
        problem = json_codec.loads(reports.Problem, status)
        return replace(facts, agent_problem=printable(problem.message))
    except json_codec.MalformedDocument as error:
        return replace(facts, agent_problem=f"the agent ended with {printable(code)} and no answer ({error})")
