"""Provisions a board, or removes knnkit from it.

Steps: look, decide, claim an upload folder, send, build, prove, switch, report. The steps for `local` are the same."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import device_agent
from device_agent.shared.protocol import constants
from knnkit.errors import DeviceFailed
from knnkit.provision import environment, wheel_cache
from knnkit.provision.environment import Wanted, decide, fingerprint
from knnkit.provision.remote_python import BUILD_SECONDS, PythonFacts, ask, check_writable, interpreter, look
from knnkit.provision.requirements import Board, runtime_of
from knnkit.provision.wheel_cache import OTHER_BYTES, PIP, WHEEL
from knnkit.provision.wheel_sources import UNFETCHED, Source, Sources
from knnkit.transport.base import Progress, Transport, printable
from knnkit.transport.local import LocalTransport
from knnkit.transport.upload import push

_UPLOAD_SECONDS = 120.0
#: How long to wait for another host that is provisioning the board, in seconds.
LOCK_SECONDS = 300.0
#: Added to the note about a new runtime if no release was tried on it.
_UNPROVEN = ": check the board's release with `knnkit parity`"
_OTHERS = "another host has provisioned the board meanwhile"
#: Errors of an upload whose folder another host has reused because nothing had arrived for a while.
_TAKEN = frozenset({"cannot-write", "missing-wheel"})
#: Called with the Python of a new environment and what is new in it; raises if the running release fails there.
Proof = Callable[[str, str], None]


@dataclass(frozen=True)
class Provisioned:
    """Result of a provisioning: what the board has now, and whether anything `changed`."""

    changed: bool
    environment: str  # digest; ROOT/venv points to it
    previous: str | None  # the environment that was in use before; None if it is the same
    agent: str
    runtime: str  # "tflite-runtime==2.14.0"
    packages: tuple[str, ...]  # as name==version, those of the distribution included
    python: str
    machine: str
    keys_added: tuple[str, ...] = ()  # fingerprints
    sent: int = 0  # bytes of wheels sent
    notes: tuple[str, ...] = ()


def provision(
    transport: Transport,
    facts: PythonFacts,
    *,
    root: str = constants.DEFAULT_ROOT,
    keys: Mapping[str, bytes] | None = None,
    offline: bool = False,
    wheels_dir: Path | None = None,
    runtime: str = constants.ANY_RUNTIME,
    pictures: bool = False,
    prove: Proof | None = None,
    progress: Progress | None = None,
) -> Provisioned:
    """Installs the agent of this knnkit on a board, and adds trusted keys.

    Args:
        transport: connection to the board.
        facts: facts about the board's Python, from a probe; not used for the embedded device, which runs this Python.
        root: the knnkit directory on the board.
        keys: fingerprint -> PEM public key, to add to the board's trusted keys; no key is ever removed.
        offline: whether the board has no internet; this host then downloads and sends every wheel.
        wheels_dir: folder of wheels on this host; None: the wheel cache.
        runtime: a TFLite runtime; `auto`: the board's present runtime, or for a bare board the first that fits.
        pictures: whether to install Pillow, which decodes PNG and JPEG; a board that has it keeps it.
        prove: called with the path of a new environment's Python and text about what is new in it, before it replaces
            the environment in use; if it raises an error, the board keeps the old one.
        progress: called with (bytes sent, bytes in total) while wheels are sent.

    Raises:
        Unreachable: the connection broke; the environment in use is unchanged, and the next call continues.
        DeviceFailed: the board cannot run the agent or this runtime, has too little disk space, or a wheel is not
            available; `reason` says which.
        DeviceLocked: another host has been provisioning the board for more than LOCK_SECONDS.
    """
    python = interpreter(transport, facts)
    board = look(transport, python, root, environment.PROBE)
    wanted = decide(transport.name, board, runtime, keys or {}, pictures=pictures)
    job = _Job(transport, python, board, wanted, prove, progress)
    whole = job.is_whole()
    if whole and wanted.is_on(board):
        return job.report(changed=False)
    check_writable(transport.name, board)
    if whole:
        return job.put_into_use(Source())
    with tempfile.TemporaryDirectory(prefix="knnkit-") as scratch:
        agent = Path(scratch, wanted.agent_wheel)
        agent.write_bytes(wanted.agent)
        folder, own = wheels_dir or wheel_cache.default_folder(), wheel_cache.is_named(wheels_dir)
        sources = Sources(transport.name, board, wanted.recipe, agent, folder, own, job.ask)
        if not offline and not isinstance(transport, LocalTransport):
            try:
                return job.install(sources.from_index())
            except DeviceFailed as error:
                if error.reason not in UNFETCHED:
                    raise
                job.notes.append(f"{UNFETCHED[error.reason]}: this host sent the wheels")
        return job.install(sources.from_host())


@dataclass
class _Job:
    """Provisions one board: `board` has the facts about it, `wanted` the environment and keys that it shall have."""

    transport: Transport
    python: str
    board: Board
    wanted: Wanted
    prove: Proof | None
    progress: Progress | None
    sent: int = 0
    repair: bool = False
    notes: list[str] = field(default_factory=list)

    def is_whole(self) -> bool:
        """Whether the wanted environment exists on the board and is undamaged."""
        if self.wanted.digest not in self.board.environments:
            return False
        damage = self.board.damage
        if self.board.current != self.wanted.digest:
            request = {"digest": self.wanted.digest, "probe": environment.PROBE, "files": self.prove is None}
            damage = printable(
                str(self.ask("examine", **request)["damage"])
            )  # else the golden check judges its answers
        self.repair = bool(damage)
        self.notes += [f"the environment was damaged and will be repaired: {damage}"] if damage else []
        return not damage

    def install(self, source: Source) -> Provisioned:
        """Claims an upload folder on the board, sends the wheels of `source`, builds the environment, and uses it."""
        self.notes += source.notes
        place = str(self.ask("claim")["place"])
        files = [replace(file, remote=f"{self._venvs}/{place}/{file.remote}") for file in source.files]
        try:
            self.sent += push(self.transport, files, timeout=_UPLOAD_SECONDS, progress=self.progress).sent
            return self.put_into_use(source, place)
        except DeviceFailed as error:
            if error.reason not in _TAKEN:
                raise
            self.board = look(self.transport, self.python, self.board.root, environment.PROBE)
            if not self.wanted.is_on(self.board):
                raise
            return self._report_others()

    def put_into_use(self, source: Source, place: str | None = None) -> Provisioned:
        """Builds the wanted environment if it is missing, and switches to it; adds the wanted keys.

        If the board now uses another environment, first calls `prove` with the new one. `source` has the wheels; those
        that were sent are in the folder `place` on the board (None: none was sent).
        """
        before, now = self.board.runtime, runtime_of(self.wanted.recipe.pins)
        another = before not in (None, now)
        if self.prove and self.board.current not in (None, self.wanted.digest):
            self._build(source, place, use=False)
            what = now if now and another else f"the environment of knnkit {device_agent.__version__}"
            self.prove(f"{self._venvs}/{self.wanted.digest}/bin/python", what)
            source, place = Source(), None  # it exists now
        answer = self._build(source, place, use=True)
        done = answer["made"] or answer["added"] or answer["before"] != self.wanted.digest
        if not done and self.board.current != self.wanted.digest:
            return self._report_others()
        if another:
            self.notes.append(f"{now} replaces {before}" + ("" if self.prove else _UNPROVEN))
        return self.report(changed=True, previous=answer["before"], added=answer["added"])

    def report(self, *, changed: bool, previous: str | None = None, added: Sequence[str] = ()) -> Provisioned:
        """Returns the result; `previous`: the environment used before; `added`: file names of keys that are new."""
        recipe, board = self.wanted.recipe, self.board
        system = [f"{name}=={board.system[name]}" for name in ("numpy", "cryptography") if recipe.system_site]
        return Provisioned(
            changed=changed,
            environment=self.wanted.digest,
            previous=previous if previous != self.wanted.digest else None,
            agent=device_agent.__version__,
            runtime=recipe.runtime,
            packages=(*recipe.pins, *system),
            python=board.python_full,
            machine=recipe.machine,
            keys_added=tuple(map(fingerprint, added)),
            sent=self.sent,
            notes=tuple(self.notes),
        )

    def ask(self, command: str, **request: Any) -> dict[str, Any]:
        """Runs a command of the provisioning script on the board, with arguments `request`, and returns its answer."""
        request["root"] = self.board.root
        return ask(self.transport, self.python, command, request, timeout=BUILD_SECONDS)

    @property
    def _venvs(self) -> str:
        return f"{self.board.root}/{constants.VENVS_DIR}"

    def _report_others(self) -> Provisioned:
        self.notes.append(_OTHERS)
        return self.report(changed=False)

    def _build(self, source: Source, place: str | None, *, use: bool) -> dict[str, Any]:
        return self.ask(
            "build",
            use=use,
            repair=self.repair,
            wait=LOCK_SECONDS,
            place=place,
            digest=self.wanted.digest,
            made_of=self.wanted.made_of,
            wheels=source.wheels,
            pip=source.pip,
            pip_download={"command": PIP, "other_bytes": OTHER_BYTES, "wheel": WHEEL},
            system_site=self.wanted.recipe.system_site,
            probe=environment.PROBE,
            trust={name: pem.decode("ascii") for name, pem in self.wanted.trust.items()},
        )


#: All names that knnkit makes in a root; `remove` refuses a root that holds others.
_KNOWN = (
    constants.TRUST_DIR,
    constants.RELEASES_DIR,
    constants.INCOMING_DIR,
    constants.CURRENT_LINK,
    constants.STATE_FILE,
    constants.HISTORY_FILE,
    constants.STARTS_FILE,
    constants.COUNTS_FILE,
    constants.RING_FILE,
    constants.ENROLLED_DIR,
    constants.SEARCHES_FILE,
    constants.LOCK_FILE,
    constants.CLASS_FILE,
    constants.VENV_LINK,
    constants.VENVS_DIR,
)


def remove(
    transport: Transport,
    facts: PythonFacts,
    *,
    root: str = constants.DEFAULT_ROOT,
    warn: Callable[[str], None] = lambda text: None,
) -> bool:
    """Removes the whole root from a board, with releases and keys; returns False if there was nothing to remove.

    `warn` is called with a message if the empty folder itself cannot be removed.

    Raises:
        Unreachable: the connection broke; the next call continues.
        DeviceFailed: the root holds a file that is not knnkit's, and nothing was removed; or a file of knnkit cannot be
            removed.
        DeviceLocked: a deploy is running.
    """
    request = {"root": root, "known": list(_KNOWN)}
    answer = ask(transport, interpreter(transport, facts), "remove", request, timeout=BUILD_SECONDS)
    left, place = [printable(str(line)) for line in answer.get("left", ())], printable(str(answer.get("root")))
    inside = [line for line in left if not line.startswith(f"{place}: ")]
    if inside:
        raise DeviceFailed(
            f"{transport.name}: {len(inside)} files and folders were not removed: {'; '.join(inside[:5])}",
            reason="left-behind",
            hint=f"on the board: sudo rm -r {shlex.quote(inside[0].partition(': ')[0])}",
        )
    for line in left:
        warn(f"the empty folder was not removed: {line}; `sudo rmdir` removes it")
    return bool(answer.get("removed"))
