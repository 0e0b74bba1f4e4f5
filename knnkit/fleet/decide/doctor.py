"""The host's findings for `knnkit doctor`; no I/O."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator

from device_agent import __version__
from device_agent.shared.protocol import versions
from device_agent.shared.protocol.documents import Status
from device_agent.shared.protocol.reports import Finding
from knnkit.fleet.decide.plan import foreign_key, foreign_model, other_project, strange_keys
from knnkit.fleet.device.probe import Facts, upgrade_hint
from knnkit.fleet.targets import Target
from knnkit.provision.requirements import SPARE, python_fault, room_for


def findings_of(
    target: Target, facts: Facts, named: Collection[str] = (), models: Collection[str] = ()
) -> Iterator[Finding]:
    """Yields the host's findings about a device, in the order in which to repair them.

    `named`: fingerprints of the keys in deploy.yaml; `models`: names of its models. If one of the
    two is empty, nothing is compared with it.
    """
    yield Finding("connection", "ok", f"{facts.system} {facts.machine}, home {facts.home}", "")
    if facts.system != "Linux":
        said = f"the device runs {facts.system}; the agent needs Linux"
        yield Finding("machine", "error", said, "choose another device")
    if facts.unwritable:
        yield Finding("root", "error", *facts.unwritable)
    if facts.noexec:
        yield Finding("root", "error", *facts.noexec)
    if facts.fleeting:
        hint = "choose a `root` on a disk, or switch the overlay off: sudo raspi-config nonint do_overlayfs 1"
        yield Finding("root", "warning", facts.fleeting, hint)
    if facts.agent is None:
        yield from _bare(target, facts)
    elif facts.agent.agent != __version__:
        agent = facts.agent.agent
        newer = versions.is_newer(agent, __version__)
        mend = upgrade_hint(agent) if newer else "knnkit provision --target HOST"
        yield Finding("agent", "warning", f"the agent is {agent}, this knnkit is {__version__}", mend)
    if facts.agent is not None:
        yield from _against_config(target, facts.agent, named, models)


def _against_config(
    target: Target, status: Status, named: Collection[str], models: Collection[str]
) -> Iterator[Finding]:
    """Yields findings if a device has a model not in `models`, or trusts keys not in `named` (fingerprints)."""
    way_out = other_project(target, status, models)
    for said in foreign_model(status, models):
        yield Finding("project", "error", said.partition(": ")[2], way_out)
    if status.trusted and named and not set(named) & set(status.trusted):
        said = f"the device trusts none of the keys that deploy.yaml names: {', '.join(sorted(named))}"
        mend = f"`knnkit provision --target HOST` adds them. Is the device another project's? {way_out}"
        if set(named) <= set(status.revoked):  # after a rotation, say: no provisioning brings them back
            said = f"the device has revoked the keys that deploy.yaml names: {', '.join(sorted(named))}"
            mend = "`signing: {key: NEW.pem}` in deploy.yaml, with the key that replaced them"
        yield Finding("project", "error", said, mend)
    for key in strange_keys(status, named):
        revoke = f"knnkit trust --revoke {shlex.quote(key)} --target HOST"
        yield Finding(
            "trust", "warning", foreign_key(key), f"{revoke}; if the key is yours: `signing: trusted` in deploy.yaml"
        )


def _bare(target: Target, facts: Facts) -> Iterator[Finding]:
    if target.address and (fault := python_fault(facts.python)):
        yield Finding("python", "error", *fault[1:])
    need = room_for(facts.machine, facts.python[:2] if facts.python else None) + SPARE
    if facts.disk_free_bytes < need:
        said = f"{facts.disk_free_bytes >> 20:,} MiB are free under {facts.root}; the environment needs "
        yield Finding("disk", "error", f"{said}{need >> 20:,} MiB", "make room: df -h, sudo apt clean")
    yield Finding("agent", "error", facts.no_agent, "knnkit provision --target HOST")
