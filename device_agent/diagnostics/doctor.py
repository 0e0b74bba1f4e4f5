"""doctor: what is wrong with this board, and the exact command that mends each finding.

Looks at everything the agent needs, one by one, so that one broken thing does not hide another. Changes nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import AgentError, from_os_error
from device_agent.shared.protocol.reports import Diagnosis, Finding
from device_agent.shared.protocol.versions import utc
from device_agent.store import state, trust_store
from device_agent.store.store import Store
from device_agent.system import board, clock

MINIMUM_PYTHON = (3, 10)
#: Free disk under which a deployment may fail, in bytes.
LOW_DISK = 200 * 1024 * 1024
#: A clock before this is wrong: 2026-01-01.
EARLIEST = 1_767_225_600


def diagnose(store: Store) -> Diagnosis:
    """Returns all findings, in the order in which they should be mended."""
    checks = (_python, _numpy, _runtime, _cryptography, _root, _disk, _clock, _trust, _state, _release, _governor)
    findings = [finding for check in checks for finding in _findings(check, store)]
    return Diagnosis(tuple(findings), board.device_info())


def _findings(check: Callable[[Store], Iterator[Finding]], store: Store) -> Iterator[Finding]:
    try:
        yield from check(store)
    except OSError as error:  # what may not even be looked at is a finding, too
        problem = from_os_error(error)
        yield Finding(check.__name__.removeprefix("_"), "error", str(problem), problem.hint)


def render(found: Diagnosis) -> str:
    """Returns the findings as a person reads them."""
    marks = {"ok": "ok   ", "warning": "warn ", "error": "ERROR"}
    lines = []
    for finding in found.findings:
        lines.append(f"{marks[finding.level]} {finding.name:<12} {finding.message}")
        if finding.mend:
            lines.append(f"{'':<19}try: {finding.mend}")
    return "\n".join(lines)


def _python(store: Store) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    place = f"Python {version} ({sys.executable}), {os.uname().machine}"
    if sys.version_info < MINIMUM_PYTHON:
        yield Finding("python", "error", f"{place}: the agent needs 3.10", "sudo apt install python3.11")
    else:
        yield _ok("python", place)


def _numpy(store: Store) -> Iterator[Finding]:
    pip = f"{sys.executable} -m pip install"
    runtime = board.runtime_version() or ""
    try:
        import numpy
    except ImportError as error:
        wanted = "numpy" if _litert(runtime) else "'numpy<2'"
        yield Finding("numpy", "error", f"cannot be imported: {error}", f"{pip} {wanted}")
        return
    if int(numpy.__version__.split(".")[0]) >= 2 and runtime.startswith("tflite_runtime"):
        message = f"NumPy {numpy.__version__}: {runtime} crashes with NumPy 2"
        yield Finding("numpy", "error", message, f"{pip} 'numpy<2'")
    else:
        yield _ok("numpy", f"NumPy {numpy.__version__}")


def _runtime(store: Store) -> Iterator[Finding]:
    found = board.runtime_version()
    name = "ai-edge-litert" if _litert(found) else "tflite-runtime 'numpy<2'"
    mend = f"{sys.executable} -m pip install {name}"
    if found is None:
        yield Finding("runtime", "error", "no TFLite runtime is installed", mend)
        return
    try:
        importlib.import_module(f"{found.split(' ')[0]}.interpreter")
    except Exception as error:
        yield Finding("runtime", "error", f"{found} cannot be loaded: {error}", mend)
        return
    yield _ok("runtime", found)


def _litert(runtime: str | None) -> bool:
    """Whether LiteRT is the runtime here, or the one that there is for this Python."""
    return runtime.startswith("ai_edge_litert") if runtime else sys.version_info >= (3, 12)


def _cryptography(store: Store) -> Iterator[Finding]:
    try:
        import cryptography
    except ImportError as error:
        mend = f"{sys.executable} -m pip install cryptography"
        yield Finding("cryptography", "error", f"signatures cannot be verified: {error}", mend)
        return
    yield _ok("cryptography", f"cryptography {cryptography.__version__}")


def _root(store: Store) -> Iterator[Finding]:
    root = store.root
    if not root.exists():
        yield Finding("root", "error", f"{root} does not exist", "knnkit provision --target THIS_DEVICE")
        return
    found = root.stat()
    if found.st_uid != os.geteuid():
        mend = f"sudo chown -R {os.geteuid()} {_typed(root)}"
        yield Finding("root", "warning", f"{root} belongs to user {found.st_uid}, we are {os.geteuid()}", mend)
    elif stat.S_IMODE(found.st_mode) & 0o077:
        yield Finding("root", "warning", f"others can look into {root}", f"chmod 700 {_typed(root)}")
    elif not os.access(root, os.W_OK) or os.statvfs(root).f_flag & os.ST_RDONLY:
        yield Finding("root", "error", f"{root} cannot be written", "mount | grep ' / '; dmesg | tail")
    else:
        yield _ok("root", str(root))


def _disk(store: Store) -> Iterator[Finding]:
    free = board.disk_free(store.root)
    message = f"{free // 2**20:,} MiB free at {store.root}"
    if free < LOW_DISK:
        yield Finding("disk", "warning", message, f"du -xh {_typed(store.root)} | sort -h | tail; sudo apt clean")
    else:
        yield _ok("disk", message)


def _clock(store: Store) -> Iterator[Finding]:
    now = clock.now().wall
    floor = EARLIEST
    with contextlib.suppress(AgentError):
        floor = max(floor, store.load().time_floor)
    if now < floor:
        mend = "sudo timedatectl set-ntp true, or: sudo date -u -s @SECONDS"
        yield Finding("clock", "warning", f"the clock says {utc(now)}, it is at least {utc(floor)}", mend)
    else:
        yield _ok("clock", utc(now))


def _trust(store: Store) -> Iterator[Finding]:
    provision = "knnkit provision --target THIS_DEVICE enrols the signing key"
    try:
        held = trust_store.read(store.trust)
    except AgentError as error:
        yield Finding("trust", "error", str(error), error.hint)
        return
    for warning in held.warnings:
        yield Finding("trust", "warning", warning, f"rm {_typed(store.trust)}/THAT_FILE, then {provision}")
    if held.sets.trusted:
        yield _ok("trust", ", ".join(held.sets.trusted))
    else:
        yield Finding("trust", "error", "no signing key is trusted: nothing can be staged", provision)


def _state(store: Store) -> Iterator[Finding]:
    try:
        current = store.load()
    except (AgentError, OSError) as error:
        yield Finding("state", "error", str(error), getattr(error, "hint", ""))
        return
    moment = clock.now()
    lease = state.lease_holder(current, moment)
    if current.pending and state.is_over(current.pending, moment):
        yield Finding("state", "warning", "an activation is over and not tidied up", "python -m device_agent status")
    elif lease:
        mend = "wait, or: python -m device_agent rollback"
        yield Finding("state", "warning", f"{lease.holder} holds the device: {lease.reason}", mend)
    else:
        yield _ok("state", f"{current.serial} transitions, floor {current.floor}")


def _release(store: Store) -> Iterator[Finding]:
    from device_agent.serving.load import answering, load_kept

    try:
        release = answering(store).release
        load_kept(store, release).close()
    except (AgentError, OSError) as error:
        mend = getattr(error, "hint", "") or "knnkit deploy --target THIS_DEVICE"
        yield Finding("release", "error", str(error), mend)
        return
    yield _ok("release", f"{release.name} {release.version} ({release.digest[:12]}) verifies and loads")


def _governor(store: Store) -> Iterator[Finding]:
    found = board.governor()
    if found == "powersave":
        place = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
        mend = f"echo ondemand | sudo tee {place}"
        yield Finding("governor", "warning", "the processor is held at its lowest frequency", mend)
    else:
        yield _ok("governor", found or "not told")


def _typed(path: Path) -> str:
    """As a shell takes it, blanks and all."""
    import shlex

    return shlex.quote(str(path))


def _ok(name: str, message: str) -> Finding:
    return Finding(name, "ok", message, "")


def exit_code(found: Diagnosis) -> int:
    """Returns 1 where a finding is an error."""
    return constants.EXIT_FAILED if any(finding.level == "error" for finding in found.findings) else constants.EXIT_OK
