"""`doctor`: finds faults of this board, each with its repair.

Checks everything that the agent needs, each in a separate process: a damaged library crashes only that process. Every
finding has the exact command that repairs it. Changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from device_agent.diagnostics.status import standing_of
from device_agent.shared.console.root_hints import with_root_of
from device_agent.shared.os_errors import explain
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import AgentError, ModelUnusable
from device_agent.shared.protocol.record import replace
from device_agent.shared.protocol.reports import Diagnosis, Finding
from device_agent.shared.protocol.versions import utc
from device_agent.shared.trust import rules, standing
from device_agent.store import state, trust_dir, trust_store
from device_agent.store.store import Store
from device_agent.store.trust_dir import typed
from device_agent.system import board, clock, sandbox

MINIMUM_PYTHON = (3, 10)
#: With less free disk space, in bytes, a deployment may fail.
LOW_DISK = 200 * 1024 * 1024
#: Warning about the running release -> the commands that end it.
_MEND = {
    standing.REVOKED_KEY: "`knnkit sign RELEASE --key TRUSTED`, then `knnkit deploy --release RELEASE --target HOST`",
    standing.EXPIRED: "knnkit build --force, then knnkit deploy --target HOST",
}
#: To be typed on the host, which knows the device's name.
_PROVISION = "knnkit provision --target HOST"
Check = Callable[[Store], Iterator[Finding]]


def diagnose(store: Store) -> Diagnosis:
    """Returns the findings in the order in which faults should be repaired; skips a check that must fail (`_NEEDS`)."""
    findings: list[Finding] = []
    for check in _CHECKS:
        broken = {finding.name for finding in findings if finding.level == "error"} & _NEEDS.get(check.__name__, set())
        if not broken:
            findings += _apart(check, store)
    known = _standing(store)
    findings = [replace(each, mend=with_root_of(each.mend, store.root)) for each in findings]
    return Diagnosis(tuple(findings), board.device_info(), known.signed_by, known.warnings)


def _standing(store: Store) -> standing.Standing:
    with contextlib.suppress(AgentError, OSError):
        return standing_of(store, store.load(), trust_dir.look(store.trust), clock.now())
    return standing.Standing()


def _apart(check: Check, store: Store) -> tuple[Finding, ...]:
    """Runs a check in a child process; returns its findings, or one finding that says why it gave none."""
    try:
        return sandbox.run(lambda: tuple(_findings(check, store)))
    except OSError as error:  # the system allows no further process
        _, said, mend = explain(error)
    except ModelUnusable as error:
        how = "gave no answer" if error.reason == "model-hangs" else "crashed"
        said, mend = f"the check {how}: a library is damaged", _PROVISION
    except AgentError as error:
        said, mend = str(error), error.hint
    return (Finding(check.__name__.removeprefix("_"), "error", said, mend),)


def _findings(check: Check, store: Store) -> Iterator[Finding]:
    try:
        yield from check(store)
    except OSError as error:  # what may not even be looked at is a finding, too
        _, said, mend = explain(error)
        yield Finding(check.__name__.removeprefix("_"), "error", said, mend)


def render(found: Diagnosis) -> str:
    """Returns the findings as text for people."""
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
        yield Finding("python", "error", f"{place}: the agent needs Python >= 3.10", "sudo apt install python3.11")
    else:
        yield _ok("python", place)


def _numpy(store: Store) -> Iterator[Finding]:
    runtime = board.runtime_version() or ""
    try:
        import numpy
    except Exception as error:
        mend = _install(store, "numpy" if _litert(runtime) else "'numpy<2'")
        yield Finding("numpy", "error", f"cannot be imported: {_cause(error)}", mend)
        return
    if int(numpy.__version__.split(".")[0]) >= 2 and runtime.startswith("tflite_runtime"):
        message = f"NumPy {numpy.__version__}: {runtime} crashes with NumPy 2"
        yield Finding("numpy", "error", message, _install(store, "'numpy<2'"))
    else:
        yield _ok("numpy", f"NumPy {numpy.__version__}")


def _runtime(store: Store) -> Iterator[Finding]:
    found = board.runtime_version()
    name = "ai-edge-litert" if _litert(found) else "tflite-runtime 'numpy<2'"
    mend = _install(store, name)
    if found is None:
        yield Finding("runtime", "error", "neither a TFLite runtime nor NumPy is installed", mend)
        return
    if found.startswith(constants.NUMPY):  # `_numpy` has loaded it
        yield _ok("runtime", f"{found}: gives the same answers as a TFLite runtime, but slower")
        return
    try:
        importlib.import_module(f"{found.split(' ')[0]}.interpreter")
    except Exception as error:
        yield Finding("runtime", "error", f"{found} cannot be loaded: {_cause(error)}", mend)
        return
    yield _ok("runtime", found)


def _litert(runtime: str | None) -> bool:
    return runtime.startswith("ai_edge_litert") if runtime else sys.version_info >= (3, 12)


def _cryptography(store: Store) -> Iterator[Finding]:
    try:
        import cryptography
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: F401  (loads its library)
    except Exception as error:
        mend = _install(store, "cryptography")
        yield Finding("cryptography", "error", f"signatures cannot be verified: {_cause(error)}", mend)
        return
    yield _ok("cryptography", f"cryptography {cryptography.__version__}")


def _root(store: Store) -> Iterator[Finding]:
    root = store.root
    try:
        next(root.iterdir(), None)
    except FileNotFoundError:
        mend = f"{_PROVISION}, or --root DIR if the agent is in another folder"
        yield Finding("root", "error", f"{root} does not exist", mend)
        return
    except OSError as error:  # another user's, or a file
        _, said, mend = explain(error)
        yield Finding("folder", "error", said, mend or "name the folder of the releases: --root DIR")
        return
    found = root.stat()
    if os.statvfs(root).f_flag & os.ST_NOEXEC:
        mend = "sudo mount -o remount,exec MOUNT, with `exec` in /etc/fstab; `df ROOT` names MOUNT"
        yield Finding("root", "error", f"{root} is mounted noexec: libraries there cannot be loaded", mend)
    elif os.statvfs(root).f_flag & os.ST_RDONLY:
        mend = "sudo mount -o remount,rw MOUNT (`df ROOT` names MOUNT); dmesg | tail shows why"
        yield Finding("root", "error", f"{root} is on a file system that is mounted read-only", mend)
    elif found.st_uid != os.geteuid():
        message = f"{root} belongs to user {found.st_uid}, but the agent runs as user {os.geteuid()}"
        yield Finding("root", "warning", message, trust_dir.make_own(root, found.st_uid))
    elif not os.access(root, os.W_OK):
        yield Finding("root", "error", f"{root} cannot be written", f"chmod u+rwx {typed(root)}")
    elif unfit := [path for path in store.folders if os.path.lexists(path) and not _is_own_folder(path)]:
        mend = f"mv {typed(unfit[0])} {typed(unfit[0])}.old"
        if unfit[0].is_dir():  # it holds releases or keys
            mend = f"sudo chown -R {os.geteuid()} {typed(unfit[0])}; chmod u+rwx {typed(unfit[0])}"
        yield Finding("root", "error", f"{unfit[0]} is not a folder that this user may write", mend)
    elif stat.S_IMODE(found.st_mode) & 0o077:
        yield Finding("root", "warning", f"other users can access {root}", f"chmod 700 {typed(root)}")
    else:
        yield _ok("root", str(root))


def _is_own_folder(path: Path) -> bool:
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK)


def _disk(store: Store) -> Iterator[Finding]:
    free = board.disk_free(store.root)
    message = f"{free // 2**20:,} MiB free at {store.root}"
    if free < LOW_DISK:
        yield Finding("disk", "warning", message, f"du -xh {typed(store.root)} | sort -h | tail; sudo apt clean")
    else:
        yield _ok("disk", message)


def _clock(store: Store) -> Iterator[Finding]:
    now = clock.now().wall
    floor = rules.AGENT_EPOCH
    with contextlib.suppress(AgentError):
        floor = max(floor, store.load().time_floor)
    if now < floor:
        mend = "sudo timedatectl set-ntp true, or: sudo date -u -s @SECONDS"
        yield Finding("clock", "warning", f"the clock says {utc(now)}, but the time is at least {utc(floor)}", mend)
    else:
        yield _ok("clock", utc(now))


def _trust(store: Store) -> Iterator[Finding]:
    provision = f"{_PROVISION} adds the signing key"
    try:
        held = trust_store.read(store.trust)
    except AgentError as error:
        yield Finding("trust", "error", str(error), error.hint)
        return
    for path, mend in trust_dir.exposed_paths(store.trust):
        yield Finding("trust", "warning", f"other users can change {path}, and so decide what runs here", mend)
    for file, warning in held.unread:
        if file.exists() and not os.access(file, os.R_OK):  # it may hold a good key
            denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
            yield Finding("trust", "warning", warning, explain(denied)[2])
            continue
        mend = f"rm {typed(file if file.is_file() else store.trust / 'THAT_FILE')}"
        yield Finding("trust", "warning", warning, mend if held.sets.trusted else f"{mend}, then {provision}")
    if held.sets.trusted:
        yield _ok("trust", ", ".join(held.sets.trusted))
    else:
        yield Finding("trust", "error", "no signing key is trusted: nothing can be staged", provision)


def _state(store: Store) -> Iterator[Finding]:
    try:
        current = store.load()
    except AgentError as error:
        yield Finding("state", "error", str(error), error.hint)
        return
    moment = clock.now()
    if current.pending and state.is_over(current.pending, moment):
        yield Finding("state", "warning", "an expired activation is not reverted yet", "python -m device_agent status")
    elif current.pending:
        mend = "wait, or: python -m device_agent rollback"
        yield Finding("state", "warning", f"{current.pending.holder} holds the device: {current.pending.reason}", mend)
    else:
        yield _ok("state", f"{current.serial} transitions, floor {current.floor} (the lowest accepted sequence)")


def _release(store: Store) -> Iterator[Finding]:
    from device_agent.serving.load import answering, load_accepted

    try:
        release = answering(store).release
        loaded = load_accepted(store, release)
        loaded.close()
    except AgentError as error:
        yield Finding("release", "error", str(error), error.hint or "knnkit deploy --target HOST")
        return
    for warning in standing.gates_missed(loaded.verdict.warnings):
        yield Finding("release", "warning", warning, _MEND[warning.partition(":")[0]])
    yield _ok("release", f"{release.name} {release.version} ({release.digest[:12]}) verifies and loads")


def _taught(store: Store) -> Iterator[Finding]:
    if (store.root / constants.JOURNAL_FILE).exists():
        from device_agent.enrolment.journal import Journal

        try:
            yield _ok("taught", f"{constants.counted(len(Journal(store.root).read()), 'row')} taught to this device")
        except AgentError as error:
            yield Finding("taught", "error", f"{error}; the release answers without taught rows", error.hint)


def _governor(store: Store) -> Iterator[Finding]:
    found = board.governor()
    if found == "powersave" and board.has_ondemand():
        mend = "echo ondemand | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        yield Finding("governor", "warning", "the processor runs at its lowest frequency only", mend)
    elif found:  # a virtual machine has none
        yield _ok("governor", found)


def _install(store: Store, packages: str) -> str:
    """Returns the command that installs `packages`: `knnkit provision` if that made this environment, else pip."""
    provisioned = Path(sys.prefix).resolve().parent == (store.root / constants.VENVS_DIR).resolve()
    return _PROVISION if provisioned else f"{typed(Path(sys.executable))} -m pip install {packages}"


def _cause(error: Exception) -> str:
    """Returns the last line of an error (NumPy explains a failed import in 20 lines); without text, its type."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1].removeprefix("Original error was: ")


def _ok(name: str, message: str) -> Finding:
    return Finding(name, "ok", message, "")


_CHECKS: tuple[Check, ...] = (
    _python, _numpy, _runtime, _cryptography, _root, _disk, _clock, _trust, _state, _release, _taught, _governor,
)  # fmt: skip
#: Check -> findings that must not be errors: the check would only report the same cause again.
_NEEDS = {
    **{check: {"folder"} for check in ("_clock", "_state", "_taught")},
    "_runtime": {"numpy"},
    "_trust": {"cryptography", "folder"},
    "_release": {"numpy", "runtime", "cryptography", "folder", "state"},
}


def exit_code(found: Diagnosis) -> int:
    """Returns 1 if a finding is an error, else 0."""
    return constants.EXIT_FAILED if any(finding.level == "error" for finding in found.findings) else constants.EXIT_OK
