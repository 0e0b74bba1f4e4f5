"""Plans the deploy of one device; no I/O.

`--dry-run` prints the same plan that a deploy follows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from device_agent import __version__
from device_agent.shared.protocol import constants, versions
from device_agent.shared.protocol.documents import ReleaseRef, Status
from device_agent.shared.protocol.reports import Compared
from device_agent.shared.trust.rules import newer_than
from knnkit.fleet.device.probe import Facts
from knnkit.fleet.targets import Target
from knnkit.provision.requirements import PACKAGES, WHEELS, impossible, python_fault
from knnkit.release.package import Package

Action = Literal["provision", "sign", "upload", "stage", "activate", "confirm"]
Provisioning = Literal["auto", "always", "never"]

#: Bytes that must stay free on a device besides the release.
SPARE_DISK = 16 * 1024 * 1024
#: Free bytes that a bare board needs for its environment: the smallest runtime unpacked, with its wheels.
BARE_DISK = 128 * 1024 * 1024
_OLDER = "older"
#: Runtime, by its name in a status -> the version that provisioning installs.
_NEWEST_RUNTIME = {name: wheel.partition("==")[2] for name, wheel in PACKAGES.items()}
_LITERT = "ai_edge_litert"
_HAVE_LITERT = frozenset(m for m, pythons in WHEELS.items() if any(_LITERT in found for found in pythons.values()))


@dataclass(frozen=True)
class PlanStep:
    """One step of a plan: what to do, and the reason."""

    action: Action
    why: str
    size: int = 0  # most bytes to send


@dataclass(frozen=True)
class Refusal:
    """Why a release cannot be deployed to a device in its present state."""

    reason: str
    message: str
    hint: str
    exit_code: int


@dataclass(frozen=True)
class DevicePlan:
    """The plan for one device.

    If the release is refused because it is too old, `steps` may still replace its signature on the device, so that a
    rollback can return to it.
    """

    device: str
    release: ReleaseRef
    current: ReleaseRef | None
    steps: tuple[PlanStep, ...] = ()  # in order; () if the device is up to date or the deploy is refused
    refusal: Refusal | None = None
    warnings: tuple[str, ...] = ()  # the device's own, and one for each key that deploy.yaml does not name
    compared: Compared | None = None  # how the release differs from what the device runs now

    @property
    def unchanged(self) -> bool:
        """Whether the device is up to date: there is nothing to do, and nothing was refused."""
        return not self.steps and self.refusal is None


@dataclass(frozen=True)
class PlanOptions:
    """Options of the command that affect a plan."""

    provisioning: Provisioning = "auto"
    has_keys: bool = True  # whether there are keys for a device that trusts none yet
    verify: bool = False  # whether to check the files of a release that the device has already
    named: frozenset[str] = frozenset()  # fingerprints that deploy.yaml and `--key` name; empty: they name none


def plan_device(target: Target, facts: Facts, package: Package, options: PlanOptions) -> DevicePlan:
    """Plans the deploy of `package` to one device. With the runtime `auto`, a device keeps its installed runtime."""
    current = facts.agent.committed if facts.agent else None
    warnings = (*facts.agent.warnings, *foreign_keys(facts.agent, options.named)) if facts.agent else ()
    refusal = _refuse(target, facts, package, options)
    if refusal:
        signing = _sign_steps(facts.agent, package) if refusal.reason == _OLDER else ()
        return DevicePlan(target.name, package.ref, current, signing, refusal, warnings)
    why = _provision_why(target.runtime, facts, package, options)
    steps = (*([PlanStep("provision", why)] if why else []), *_release_steps(facts.agent, package))
    return DevicePlan(target.name, package.ref, current, steps, warnings=warnings)


def foreign_keys(status: Status, named: Collection[str]) -> tuple[str, ...]:
    """Returns a warning for each key that a device trusts and `named` (fingerprints) lacks; () if `named` is empty."""
    return tuple(map(foreign_key, strange_keys(status, named)))


def strange_keys(status: Status, named: Collection[str]) -> tuple[str, ...]:
    """Returns the fingerprints of a device's trusted keys that are not in `named`; () if `named` is empty."""
    return tuple(key for key in status.trusted if named and key not in named)


def foreign_key(key: str) -> str:
    """Returns the warning about a trusted key, a fingerprint, that deploy.yaml does not name."""
    return f"foreign-key: the device trusts {key}, which deploy.yaml does not name"


def foreign_model(status: Status | None, models: Collection[str]) -> tuple[str, ...]:
    """Returns a warning if a device runs a model that is not in `models`, those of deploy.yaml; () without `models`."""
    runs = status.committed if status else None
    if runs is None or not models or runs.name in models:
        return ()
    said = f"the device is for the model {runs.name!r}; deploy.yaml builds {', '.join(map(repr, sorted(models)))}"
    return (f"foreign-model: {said}",)


def other_project(target: Target, status: Status, models: Collection[str]) -> str:
    """Returns the hint for a device that another project uses: choose another root, or remove what is there.

    `models` are the names of the models of deploy.yaml; the root is named after the first of them.
    """
    name = min(models, default="2")
    taken = target.root.rstrip("/").endswith(f"/.knnkit-{name}")
    theirs = repr(status.committed.name) if status.committed else "what is there"
    return (
        f"`root: ~/.knnkit-{name}{'-2' * taken}` in deploy.yaml, or --root; "
        f"`knnkit provision --remove --target HOST` deletes {theirs}"
    )


def _sign_steps(status: Status | None, package: Package) -> tuple[PlanStep, ...]:
    """Returns a step that sends the signature of `package` if the device's copy may have another key's; else ()."""
    if status is None or package.digest not in status.staged or package.signed_by not in status.trusted:
        return ()
    known = status.signed_by if status.answering == package.digest else "another key, perhaps"
    if known in ("", package.signed_by):
        return ()
    return (PlanStep("sign", f"the release on the device is signed by {known[:23]}", len(package.signature)),)


def _release_steps(status: Status | None, package: Package) -> tuple[PlanStep, ...]:
    committed = status.committed if status else None
    if status and committed and committed.digest == package.digest and not status.pending:
        return _sign_steps(status, package)
    send = (
        PlanStep("upload", f"{package.ref.name} {package.ref.version}", package.size),
        PlanStep("stage", f"the device verifies {package.digest[:12]}"),
    )
    there = status is not None and package.digest in status.staged
    instead = f"instead of {committed.version}" if committed else "the first release here"
    return (
        *(() if there else send),
        PlanStep("activate", f"{instead}, after the golden check"),
        PlanStep("confirm", "over a new connection"),
    )


def _provision_why(chosen: str, facts: Facts, package: Package, options: PlanOptions) -> str:
    if options.provisioning == "never":
        return ""
    if options.provisioning == "always":
        return "--provision always asks for it"
    status = facts.agent
    if status is None:
        return "there is no agent" if not facts.agent_problem else f"the agent does not answer: {facts.agent_problem}"
    proof = ", after a golden check on it" if status.answering and status.runtime else ""
    if status.agent != __version__ and not versions.is_newer(status.agent, __version__):  # a newer one stays
        return f"the agent is {status.agent}, this knnkit has {__version__}{proof}"
    if status.runtime is None:
        return "there is no TFLite runtime"
    if chosen not in (constants.ANY_RUNTIME, status.runtime.rpartition(" ")[0]):
        return f"the runtime is {status.runtime}, and {chosen} was chosen{proof}"
    if package.pictures and not status.pictures and status.device.machine in _HAVE_LITERT:
        return f"the model takes pictures, and the board has no Pillow{proof}"
    if _runtime_lacks(status.runtime, package) and _next_runtime(status.runtime, chosen):
        return f"the runtime is {status.runtime}, the release needs {package.manifest.minimum_runtime}"
    return "" if status.trusted else "no key is trusted yet"


def _refuse(target: Target, facts: Facts, package: Package, options: PlanOptions) -> Refusal | None:
    return (
        _unfit(target, facts, options)
        or _misplaced(target, package)
        or (_unwanted(target, facts.agent, package) if facts.agent else None)
        or (_outdated(target, facts.agent, package, options) if facts.agent else None)
        or _too_full(target.name, facts, package)
    )


def _unfit(target: Target, facts: Facts, options: PlanOptions) -> Refusal | None:
    device = target.name

    def failed(reason: str, said: str, hint: str) -> Refusal:
        return Refusal(reason, f"{device}: {said}", hint, constants.EXIT_FAILED)

    if facts.system != "Linux":
        return failed("not-linux", f"the device runs {facts.system}; the agent needs Linux", "choose another device")
    if facts.unwritable:
        return failed("not-writable", *facts.unwritable)
    if facts.noexec:
        return failed("noexec", *facts.noexec)
    if facts.agent is None and options.provisioning == "never":
        said = f"{facts.no_agent}, and --provision never was given"
        return failed("no-agent", said, "knnkit provision --target HOST")
    if facts.agent is None and target.address and (fault := python_fault(facts.python)):
        return failed(*fault)
    if facts.agent is None and facts.python and target.runtime != constants.ANY_RUNTIME:
        why = impossible(facts.machine, facts.python[:2], target.runtime)
        if why:
            return failed("no-runtime", *why)
    if not options.has_keys and not (facts.agent and facts.agent.trusted):
        said = "no key is trusted yet, and no public key was given"
        return failed("no-key", said, "--key signing.pub, or `signing` in deploy.yaml")
    return None


def _misplaced(target: Target, package: Package) -> Refusal | None:
    wanted, ref = package.manifest.device_class, package.ref
    if wanted in ("any", target.device_class):
        return None
    said = f"{target.name} is of class {target.device_class!r}; {ref.name} {ref.version} is for {wanted!r}"
    return Refusal("wrong-class", said, "correct `device_class` in deploy.yaml", constants.EXIT_REFUSED)


def _unwanted(target: Target, status: Status, package: Package) -> Refusal | None:
    ref, device = package.ref, target.name
    if status.committed and status.committed.digest == package.digest and not status.pending:
        return None
    if status.committed and status.committed.name != ref.name:
        said = f"{device} is for the model {status.committed.name!r}, not {ref.name!r}"
        return Refusal("wrong-name", said, other_project(target, status, (ref.name,)), constants.EXIT_REFUSED)
    if status.trusted and package.signed_by not in status.trusted:
        if package.signed_by in status.revoked:
            said = f"{device}: the key that signed {ref.name} {ref.version} was revoked ({package.signed_by[:23]}…)"
            hint = "`signing: {key: NEW.pem}` in deploy.yaml, then knnkit deploy --target HOST; or knnkit sign RELEASE"
            return Refusal("revoked-key", said, hint, constants.EXIT_REFUSED)
        said = f"{device} does not trust the key that signed {ref.name} {ref.version} ({package.signed_by[:23]}…)"
        theirs = other_project(target, status, (ref.name,))
        hint = (
            f"is `signing: {{key: ...}}` in deploy.yaml the wrong file? Or is it another project's device? {theirs}. "
            f"Or a new key of yours? "
            f"`knnkit trust --rotate NEW.pem --signing-key OLD.pem --target HOST`"
        )
        return Refusal("untrusted-key", said, hint, constants.EXIT_REFUSED)
    if ref.sequence < status.floor:
        said = f"{device} accepts no sequence under {status.floor}; {ref.name} {ref.version} has {ref.sequence}"
        back = f"knnkit rollback --to {package.digest[:12]} --target HOST, or build a new release"
        newer = newer_than(status.floor, max(status.clock, package.manifest.created))
        return Refusal(_OLDER, said, back if package.digest in status.staged else newer, constants.EXIT_REFUSED)
    if status.pending and status.pending.digest != package.digest:
        left = f" (for at most {status.seconds_left:.0f} s more)" if status.seconds_left is not None else ""
        said = f"{device}: another activation waits for its confirmation{left}: {status.pending.version}"
        return Refusal("locked", said, "wait, or knnkit rollback --target HOST", constants.EXIT_LOCKED)
    return None


def _outdated(target: Target, status: Status, package: Package, options: PlanOptions) -> Refusal | None:
    """Returns a refusal if a new release needs a newer runtime than the device will have; else None."""
    if status.runtime is None:
        return None
    ref, new = package.ref, _next_runtime(status.runtime, target.runtime)
    runtime = new if new and options.provisioning != "never" else status.runtime
    if not _runtime_lacks(runtime, package):
        return None
    answers = status.committed and status.committed.digest == package.digest and not status.pending
    if answers and runtime == status.runtime:
        return None  # it runs there already
    has, need = "has" if runtime == status.runtime else "would get", package.manifest.minimum_runtime
    return Refusal(
        "runtime-too-old",
        f"{target.name} {has} {runtime}; {ref.name} {ref.version} needs TFLite runtime {need}",
        _runtime_hint(status, package, new),
        constants.EXIT_REFUSED,
    )


def _runtime_hint(status: Status, package: Package, new: str | None) -> str:
    if new and not _runtime_lacks(new, package):
        return f"knnkit provision --target HOST installs {new}"
    if status.device.machine in _HAVE_LITERT and not _runtime_lacks(f"{_LITERT} {_NEWEST_RUNTIME[_LITERT]}", package):
        return f"--runtime {_LITERT}, or `runtime: {_LITERT}` of this target in deploy.yaml; its system must be 64-bit"
    return "build the model with TensorFlow 2.21, or give the board a system with a newer Python"


def _runtime_lacks(runtime: str, package: Package) -> bool:
    return (versions.runtime(runtime) or ()) < (versions.parse(package.manifest.minimum_runtime) or ())


def _next_runtime(runtime: str, chosen: str) -> str | None:
    """Returns the runtime that a target's choice `chosen` installs in place of `runtime`; None: it keeps `runtime`."""
    name, _, number = runtime.rpartition(" ")
    wanted = name if chosen == constants.ANY_RUNTIME else chosen
    newest = _NEWEST_RUNTIME.get(wanted)
    if newest is None or (wanted == name and (versions.parse(number) or ()) >= (versions.parse(newest) or ())):
        return None
    return f"{wanted} {newest}"


def _too_full(device: str, facts: Facts, package: Package) -> Refusal | None:
    staged = facts.agent is not None and package.digest in facts.agent.staged
    need = package.size + (SPARE_DISK if facts.agent else BARE_DISK)
    if facts.disk_free_bytes >= need or staged:
        return None
    said = f"{device}: {_mb(facts.disk_free_bytes)} MB are free under {facts.root}; {_mb(need)} MB are needed"
    return Refusal("disk-full", said, "make room on the device: df -h shows the free space", constants.EXIT_FAILED)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f}"
