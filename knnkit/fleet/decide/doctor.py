"""What the host can tell of a device's fitness from its facts alone, for `knnkit doctor`. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from device_agent.shared.protocol.reports import Finding
from knnkit import __version__
from knnkit.fleet.decide.plan import MINIMUM_PYTHON
from knnkit.fleet.device.probe import Facts
from knnkit.provision.requirements import SPARE, room_for

#: `uname -m` of boards that there are runtimes for.
_MACHINES = ("x86_64", "aarch64", "armv7l", "armv8l")


def findings_of(address: str, facts: Facts) -> Iterator[Finding]:
    """Yields findings in the order in which they should be mended; `address` is what `--target` takes."""
    yield Finding("connection", "ok", f"{facts.system} {facts.machine}, home {facts.home}", "")
    if facts.system != "Linux" or facts.machine not in _MACHINES:
        said = f"{facts.system} on {facts.machine}: there is no TFLite runtime for it"
        yield Finding("machine", "error", said, f"use one of Linux {', '.join(_MACHINES)}")
    if not facts.writable:
        yield Finding("root", "error", f"{facts.root} cannot be written", f"sudo chown -R $USER {facts.root}")
    if facts.agent is None:
        yield from _bare(address, facts)
    elif facts.agent.agent != __version__:
        said = f"the agent is {facts.agent.agent}, this knnkit is {__version__}"
        yield Finding("agent", "warning", said, f"knnkit provision --target {address}")


def _bare(address: str, facts: Facts) -> Iterator[Finding]:
    if facts.python is None:
        yield Finding("python", "error", "there is no python3", "sudo apt install python3")
    elif facts.python < MINIMUM_PYTHON:
        version = ".".join(map(str, facts.python))
        yield Finding("python", "error", f"Python {version}; the agent needs 3.10", "install a newer distribution")
    need = room_for(facts.machine, facts.python[:2] if facts.python else None) + SPARE
    if facts.disk_free_bytes < need:
        said = f"{facts.disk_free_bytes >> 20:,} MiB are free under {facts.root}, the environment needs {need >> 20:,}"
        yield Finding("disk", "error", said, "make room: df -h, sudo apt clean")
    said = facts.agent_problem or "there is no agent"
    yield Finding("agent", "error", said, f"knnkit provision --target {address}")
