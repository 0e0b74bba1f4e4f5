"""Provisioning a board over a transport: look, choose, send what is missing, build, switch. The same for `local`."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import device_agent
from device_agent import contract, trust
from knnkit.errors import DeviceFailed
from knnkit.provision import locked, wheels
from knnkit.provision.agent_wheel import agent_wheel
from knnkit.provision.board import BUILD_SECONDS, ask, check_room, check_writable, look
from knnkit.provision.recipe import ROOM, Recipe, check_python, recipe_for, runtime_of
from knnkit.transport.base import Progress, Transport
from knnkit.transport.local import LocalTransport
from knnkit.transport.upload import PushFile, push

#: Part of every environment's digest; raised when the same wheels would make another environment.
_LAYOUT = 1
_UPLOAD_SECONDS = 120.0
#: Another host that provisions the board at this instant is waited for so long.
LOCK_SECONDS = 300.0
#: Bytes that a board needs beside what its wheels unpack to.
_SPARE = 32 << 20
#: Follows what is said of a switch of runtimes before which no release was tried.
_UNPROVEN = ": `knnkit parity` proves a release that stays anew"
_OTHERS = "somebody else has provisioned it meanwhile"
#: What comes of an upload into a place that another host has taken up, as nothing had come for a while.
_TAKEN = frozenset({"cannot-write", "missing-wheel", "upload-differs"})
#: Why a board does not fetch its wheels itself -> what is said of it.
_UNFETCHED = {
    "no-download": "the board could not fetch from the index",
    "wheel-differs": "the board's index has a wheel with other bytes than PyPI's, which was not used",
}
#: Is told the Python of another environment and what is new there, and raises where what answers does not hold there.
Proof = Callable[[str, str], None]
#: What the new environment must be able to do before it is used; prints the versions as JSON.
_PROBE = """\
import json, numpy, cryptography, device_agent
from cryptography.hazmat.primitives.asymmetric import ec
try:
    from tflite_runtime.interpreter import Interpreter
except ImportError:
    from ai_edge_litert.interpreter import Interpreter
print(json.dumps({"numpy": numpy.__version__, "cryptography": cryptography.__version__}))
"""
#: All that knnkit ever makes in a root, with or without `.part`; `remove` refuses anything else.
_KNOWN = (
    contract.TRUST_DIR,
    contract.RELEASES_DIR,
    contract.INCOMING_DIR,
    contract.CURRENT_LINK,
    contract.STATE_FILE,
    contract.HISTORY_FILE,
    contract.LOCK_FILE,
    contract.CLASS_FILE,
    contract.VENV_LINK,
    contract.VENVS_DIR,
)


class PythonFacts(Protocol):
    """What provisioning must be told of a board's own Python; `knnkit.fleet.facts.Facts` has it."""

    @property
    def python(self) -> tuple[int, int, int] | None:
        """Its version; None without one."""
        ...

    @property
    def python_path(self) -> str | None:
        """Where it is."""
        ...


@dataclass(frozen=True)
class Provisioned:
    """What is on the board now. `changed` says whether anything was done."""

    changed: bool
    environment: str  # digest; ROOT/venv points to it
    previous: str | None  # the environment that was in use before, when it was another
    agent: str
    runtime: str  # "tflite-runtime==2.14.0"
    packages: tuple[str, ...]  # as name==version, those of the distribution included
    python: str
    machine: str
    keys_added: tuple[str, ...] = ()  # fingerprints
    sent: int = 0  # bytes of wheels that went over the line
    notes: tuple[str, ...] = ()


def provision(
    transport: Transport,
    facts: PythonFacts,
    *,
    root: str = contract.DEFAULT_ROOT,
    keys: Mapping[str, bytes] | None = None,
    offline: bool = False,
    wheels_dir: Path | None = None,
    runtime: str = contract.ANY_RUNTIME,
    prove: Proof | None = None,
    progress: Progress | None = None,
) -> Provisioned:
    """Makes a board able to run the agent of this knnkit and to trust `keys`.

    Args:
        transport: to the board.
        facts: of the board's Python, from a probe; for the embedded device it is this Python, whatever they say.
        root: the knnkit directory there.
        keys: fingerprint -> PEM public key, to add to those that the board trusts; none is ever taken away.
        offline: the board has no internet: this host fetches and sends every wheel.
        wheels_dir: where wheels are kept on this host; `wheels.default_folder()` when left out.
        runtime: which TFLite runtime; `auto`: the one that it has, on a bare board the first that there is for it.
        prove: is asked before another environment takes the place of the one in use; where it raises, that one stays.
        progress: is told (bytes there, bytes in all) while wheels are sent.

    Raises:
        Unreachable: the connection broke; the environment in use is untouched, and the next call goes on.
        DeviceFailed: the board cannot run the agent, or not with this runtime, has no room, or its wheels cannot be
            had; `reason` says which.
        DeviceLocked: somebody else is provisioning it, for longer than LOCK_SECONDS.
    """
    job = _Job(transport, _interpreter(transport, facts), root, keys or {}, runtime, prove)
    if job.done:
        return job.report(changed=False)
    check_writable(transport.name, job.board)
    job.own_wheels = wheels.is_named(wheels_dir)
    return job.work(offline or isinstance(transport, LocalTransport), wheels_dir or wheels.default_folder(), progress)


def remove(transport: Transport, facts: PythonFacts, *, root: str = contract.DEFAULT_ROOT) -> bool:
    """Takes the whole root away, releases and trusted keys included; False when there was none.

    Raises:
        Unreachable: the connection broke; the next call goes on.
        DeviceFailed: the root holds something that is not knnkit's; nothing was removed.
        DeviceLocked: a deploy is under way.
    """
    order = {"root": root, "known": list(_KNOWN)}
    return bool(ask(transport, _interpreter(transport, facts), "remove", order, timeout=BUILD_SECONDS).get("removed"))


def _interpreter(transport: Transport, facts: PythonFacts) -> str:
    if isinstance(transport, LocalTransport):
        return sys.executable
    check_python(transport.name, facts.python[:2] if facts.python else None)
    return facts.python_path or "python3"


def _key_file(fingerprint: str) -> str:
    """As `device_agent.trust_files` names it."""
    return fingerprint.removeprefix(trust.FINGERPRINT_PREFIX) + ".pem"


def _made_of(recipe: Recipe, agent_sha256: str) -> dict[str, Any]:
    """Everything that tells one environment from another."""
    return {
        "layout": _LAYOUT,
        "machine": recipe.machine,
        "python": list(recipe.python),
        "pins": list(recipe.pins),
        "system_site": recipe.system_site,
        "agent": device_agent.__version__,
        "agent_sha256": agent_sha256,
    }


@dataclass
class _Source:
    """Where the wheels of one environment come from."""

    on_board: list[dict[str, str]]  # unpacked in an earlier environment
    place: str | None = None  # this connection's own on the board, for what is sent or fetched
    files: list[PushFile] = field(default_factory=list)  # sent from here
    pip: list[str] = field(default_factory=list)  # what the board fetches, as lines of requirements with digests

    @property
    def wheels(self) -> list[dict[str, str]]:
        """All but those that pip fetches, as the bootstrap script names them."""
        return [*self.on_board, *({"name": file.local.name, "sha256": file.sha256} for file in self.files)]


class _Job:
    """One board being provisioned."""

    def __init__(
        self,
        transport: Transport,
        python: str,
        root: str,
        keys: Mapping[str, bytes],
        runtime: str,
        prove: Proof | None,
    ) -> None:
        self.transport = transport
        self.prove = prove
        self.python = python
        self.board = look(transport, python, root)
        self.recipe = recipe_for(transport.name, self.board, runtime)
        self.trust = {_key_file(fingerprint): pem for fingerprint, pem in keys.items()}
        self.agent_name, self.agent = agent_wheel()
        self.made_of = _made_of(self.recipe, hashlib.sha256(self.agent).hexdigest())
        self.digest = hashlib.sha256(json.dumps(self.made_of, sort_keys=True).encode()).hexdigest()
        self.sent = 0
        self.own_wheels = False  # the folder of wheels is the user's own
        self.notes: list[str] = []

    @property
    def done(self) -> bool:
        """Whether the board has it all."""
        held = self.board.trusted
        trusts = all(held.get(name) == hashlib.sha256(pem).hexdigest() for name, pem in self.trust.items())
        return self.board.current == self.digest and self.board.tidy and trusts

    def work(self, ship: bool, folder: Path, progress: Progress | None) -> Provisioned:
        """Makes the environment, from the host's wheels or by the board's own pip."""
        if self.digest in self.board.environments:
            return self._build(_Source([]))
        with tempfile.TemporaryDirectory(prefix="knnkit-") as scratch:
            agent = Path(scratch) / self.agent_name
            agent.write_bytes(self.agent)
            if not ship and not self.board.pip:
                self.notes.append("the board has no pip: the wheels were sent from here")
            if ship or not self.board.pip:
                return self._ship(agent, folder, progress)
            try:
                return self._let_pip(agent, progress)
            except DeviceFailed as error:
                if error.reason not in _UNFETCHED:
                    raise
                self.notes.append(f"{_UNFETCHED[error.reason]}: the wheels were sent from here")
                return self._ship(agent, folder, progress)

    def report(self, *, changed: bool, previous: str | None = None, added: Sequence[str] = ()) -> Provisioned:
        """Returns what is on the board now."""
        system = [f"{name}=={self.board.system[name]}" for name in ("numpy", "cryptography") if self.recipe.system_site]
        return Provisioned(
            changed=changed,
            environment=self.digest,
            previous=previous if previous != self.digest else None,
            agent=device_agent.__version__,
            runtime=self.recipe.runtime,
            packages=(*self.recipe.pins, *system),
            python=self.board.python_full,
            machine=self.recipe.machine,
            keys_added=tuple(trust.FINGERPRINT_PREFIX + name.removesuffix(".pem") for name in added),
            sent=self.sent,
            notes=tuple(self.notes),
        )

    def _ship(self, agent: Path, folder: Path, progress: Progress | None) -> Provisioned:
        on_board, lacking = self._on_board()
        fetched = wheels.fetch(lacking, self.recipe, folder, own=self.own_wheels)
        strange = [path.name for path in fetched if locked.expected(path.name) is None]
        if strange:
            self.notes.append(
                f"taken from {folder} as they are, since no SHA-256 is known for them: {', '.join(strange)}"
            )
        check_room(self.transport.name, self.board, wheels.unpacked_size([*fetched, agent]) + _SPARE)
        return self._send_and_build(_Source(on_board), [*fetched, agent], progress)

    def _let_pip(self, agent: Path, progress: Progress | None) -> Provisioned:
        on_board, lacking = self._on_board()
        check_room(self.transport.name, self.board, (ROOM[self.recipe.runtime] if lacking else 0) + _SPARE)
        return self._send_and_build(
            _Source(on_board, pip=[wheels.requirement(pin, self.recipe) for pin in lacking]), [agent], progress
        )

    def _on_board(self) -> tuple[list[dict[str, str]], list[str]]:
        """Returns the wheels that earlier environments hold unchanged, and the pins that are still lacking."""
        held = {
            wheel["name"]: wheel for made_of in self.board.environments.values() for wheel in made_of.get("wheels", [])
        }
        held = {name: wheel for name, wheel in held.items() if locked.known().get(name) == wheel["sha256"]}
        names = {pin: wheels.best(pin, held, self.recipe) for pin in self.recipe.pins}
        known = [held[name] for name in names.values() if name is not None]
        if not known:
            return [], list(self.recipe.pins)
        intact = self._ask("prepare", wheels=known)["here"]
        return [wheel for wheel in known if wheel["name"] in intact], [p for p, n in names.items() if n not in intact]

    def _send_and_build(self, source: _Source, files: Sequence[Path], progress: Progress | None) -> Provisioned:
        read = [PushFile.of(path, path.name) for path in files]
        for file in read:
            locked.refuse_another(file.local, file.sha256)
        source.place = str(self._ask("claim")["place"])
        folder = f"{self.board.root}/{contract.VENVS_DIR}/{source.place}"
        source.files = [replace(file, remote=f"{folder}/{file.remote}") for file in read]
        try:
            pushed = push(self.transport, source.files, timeout=_UPLOAD_SECONDS, progress=progress)
            self.sent += pushed.sent
            return self._build(source)
        except DeviceFailed as error:
            if error.reason not in _TAKEN:
                raise
            self.board = look(self.transport, self.python, self.board.root)
            if not self.done:
                raise
            return self._report_others()

    def _report_others(self) -> Provisioned:
        self.notes.append(_OTHERS)
        return self.report(changed=False)

    def _build(self, source: _Source) -> Provisioned:
        before, now = self.board.runtime, runtime_of(self.recipe.pins)
        another = before not in (None, now)
        if self.prove and self.board.current not in (None, self.digest):
            self._order(source, use=False)
            what = now if now and another else f"the environment of knnkit {device_agent.__version__}"
            self.prove(f"{self.board.root}/{contract.VENVS_DIR}/{self.digest}/bin/python", what)
            source = _Source([])  # it is there now
        answer = self._order(source, use=True)
        done = answer["made"] or answer["added"] or answer["before"] != self.digest
        if not done and self.board.current != self.digest:
            return self._report_others()
        if another:
            self.notes.append(f"{now} is there instead of {before}" + ("" if self.prove else _UNPROVEN))
        return self.report(changed=True, previous=answer["before"], added=answer["added"])

    def _order(self, source: _Source, *, use: bool) -> dict[str, Any]:
        return self._ask(
            "build",
            use=use,
            wait=LOCK_SECONDS,
            place=source.place,
            digest=self.digest,
            made_of=self.made_of,
            wheels=source.wheels,
            pip=source.pip,
            system_site=self.recipe.system_site,
            probe=_PROBE,
            trust={name: pem.decode("ascii") for name, pem in self.trust.items()},
        )

    def _ask(self, command: str, **order: Any) -> dict[str, Any]:
        order["root"] = self.board.root
        return ask(self.transport, self.python, command, order, timeout=BUILD_SECONDS)
