"""A fleet that exists only in memory: boards behind the real Transport protocol, with an agent that keeps the contract.

It answers the very scripts and agent commands that the fleet code sends, so that the code under test is the code that
runs; only the wire and the board are simulated. Faults are given to a device by name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shlex
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from device_agent.shared.protocol import json_codec, model_info
from device_agent.shared.protocol.documents import (
    Committed,
    DeviceInfo,
    HistoryEntry,
    LockHolder,
    ReleaseRef,
    Staged,
    Status,
)
from device_agent.shared.protocol.reports import (
    Activated,
    Certificate,
    Installed,
    Latency,
    Problem,
    RowDifference,
    RuntimeInfo,
    TakenBack,
)
from knnkit import __version__
from knnkit.errors import DeviceFailed, HostKeyError, Unreachable
from knnkit.fleet.device import probe
from knnkit.fleet.jobs import upload_dir
from knnkit.fleet.report import FleetReport, Outcome
from knnkit.fleet.targets import Target
from knnkit.release.package import Package, PackageFile
from knnkit.transport import upload
from knnkit.transport.address import Address
from knnkit.transport.base import Completed, Progress

KEY = "sha256:" + "ab" * 32
BOARD = DeviceInfo("board", "aarch64", "Cortex-A72", 4, 1 << 30, __version__)
RUNTIME = RuntimeInfo("tflite_runtime", "2.14.0", "XNNPACK", "3.11.2", "1.26.4")
ROOT = "/home/pi/.knnkit"
#: The Python of an environment that is not in use (yet).
BESIDE = f"{ROOT}/venvs/1/bin/python"


def make_package(
    version: str = "1.1.0",
    sequence: int = 11,
    *,
    device_class: str = "any",
    accuracy: float = 0.9,
    runtime: str = "1.7.0",
) -> Package:
    """A release of three small files that do not exist; its digest is derived from its version."""
    digest = hashlib.sha256(version.encode()).hexdigest()
    manifest = model_info.Manifest(
        name="fruit",
        version=version,
        sequence=sequence,
        created=0,
        expires=None,
        device_class=device_class,
        minimum_agent="0.1.0",
        minimum_runtime=runtime,
        k=3,
        n_features=4,
        labels_sha256="0" * 64,
        gates=model_info.Gates(accuracy=accuracy),
    )
    ref = ReleaseRef(digest, "fruit", version, sequence)
    return Package("/nowhere", ref, manifest, KEY, "1" * 64, ())


def with_files(package: Package, directory: object, sizes: dict[str, int]) -> Package:
    """The same release with real files in `directory`."""
    from pathlib import Path

    folder = Path(str(directory))
    files = []
    for name, size in sizes.items():
        data = (name.encode() * (size // len(name) + 1))[:size]
        (folder / name).write_bytes(data)
        files.append(PackageFile(name, size, hashlib.sha256(data).hexdigest()))
    return dataclasses.replace(package, directory=str(folder), files=tuple(files))


@dataclass
class Board:
    """One simulated device. `faults` are words; see `_Line`."""

    name: str
    committed: ReleaseRef | None = None
    previous: ReleaseRef | None = None
    pending: ReleaseRef | None = None
    pending_line: int = 0
    pending_holder: str = ""
    became: dict[str, HistoryEntry] = field(default_factory=dict)  # holder: the last step of what it activated
    returned: bool = False  # by hand, and nothing was committed since
    running: str = ""  # who runs a command there now
    staged: set[str] = field(default_factory=set)
    files: dict[str, bytes] = field(default_factory=dict)
    faults: set[str] = field(default_factory=set)
    log: list[str] = field(default_factory=list)
    lines: int = 0  # connections so far
    answers: dict[str, Callable[[], object]] = field(default_factory=dict)
    packages: dict[str, Package] = field(default_factory=dict)
    free: int = 8 << 30
    stage_seconds: float = 0.0  # as `install` tells it

    def status(self) -> Status:
        return Status(
            agent=__version__,
            root=ROOT,
            committed=self.committed,
            previous=self.previous,
            pending=self.pending,
            seconds_left=60.0 if self.pending else None,
            answering=(self.pending or self.committed).digest if self.pending or self.committed else None,  # type: ignore[union-attr]
            floor=self.committed.sequence if self.committed else 0,
            staged=tuple(sorted(self.staged)),
            trusted=(KEY,),
            device_class="any",
            runtime="tflite_runtime 2.14.0",
            device=BOARD,
            disk_free_bytes=self.free,
            clock=0,
            lock=self.lock(),
        )

    def lock(self) -> LockHolder | None:
        if self.pending:
            return LockHolder(self.pending_holder, "an activation, not yet confirmed", 0, 0)
        return LockHolder(self.running, "install", 0, 4711) if self.running else None

    def begin(self, ref: ReleaseRef, holder: str, line: int = 0) -> None:
        """Makes `ref` the pending release: it answers and waits for its confirmation."""
        self.pending, self.pending_holder, self.pending_line = ref, holder, line
        self._note("activated", ref, holder)

    def commit(self) -> None:
        """Commits the pending release."""
        assert self.pending is not None
        self._note("confirmed", self.pending, self.pending_holder)
        self.previous, self.committed, self.pending = self.committed, self.pending, None
        self.returned = False

    def revert(self, why: str) -> None:
        """Reverts the pending release, if there is one."""
        if self.pending is not None:
            self._note("reverted", self.pending, self.pending_holder, why)
        self.pending = None

    def _note(self, what: str, ref: ReleaseRef, holder: str, why: str = "") -> None:
        self.became[holder] = HistoryEntry(0, what, ref, None, why, holder)

    @property
    def known_release(self) -> str:
        """The version that the device runs if no host comes back: a pending release reverts."""
        return self.committed.version if self.committed else "nothing"


class Fleet:
    """Boards by name; `open` takes the place of `knnkit.fleet.device.connect.open_transport`."""

    def __init__(self, names: Sequence[str], package: Package, *, running: Package | None = None) -> None:
        self.package = package
        ref = running.ref if running else None
        self.boards = {name: Board(name, committed=ref, staged={ref.digest} if ref else set()) for name in names}
        for board in self.boards.values():
            board.packages = {p.digest: p for p in (package, running) if p}
        self.open_now = 0
        self.most_open = 0
        self._lock = threading.Lock()
        self.on_command: Callable[[str, str], None] = lambda name, command: None

    def targets(self, **tags: Sequence[str]) -> tuple[Target, ...]:
        """A target for each board; `tags` maps a tag to the names that have it."""
        found = []
        for name in self.boards:
            held = tuple(tag for tag, names in tags.items() if name in names)
            found.append(Target(name, Address(name), ROOT, tags=held))
        return tuple(found)

    def open(self, name: str, target: Target, timeout: float) -> Line:
        board = self.boards[name]
        board.lines += 1
        if "unreachable" in board.faults:
            raise Unreachable(f"{name}: nothing listens there", reason="connect")
        if f"unreachable-{board.lines}" in board.faults:
            raise Unreachable(f"{name}: nothing listens there", reason="connect")
        if "host-key" in board.faults:
            raise HostKeyError(f"{name} offers another host key", reason="host-key-changed")
        with self._lock:
            self.open_now += 1
            self.most_open = max(self.most_open, self.open_now)
        return Line(self, board, board.lines)

    def closed(self) -> None:
        with self._lock:
            self.open_now -= 1


class Line:
    """One connection. A fault `cut-before-X` breaks it before step X reaches the board, `cut-after-X` before the answer
    comes back; X is probe, look, append, install, activate, confirm, check or rollback."""

    def __init__(self, fleet: Fleet, board: Board, number: int) -> None:
        self._fleet, self._board, self._number = fleet, board, number
        self._open = True

    @property
    def name(self) -> str:
        return self._board.name

    def close(self) -> None:
        if self._open:
            self._open = False
            self._fleet.closed()

    def pipe(self, argv: Sequence[str], source: BinaryIO, sink: BinaryIO, *, idle: float | None) -> Completed:
        sink.write(source.read())
        return Completed(tuple(argv), 0, b"", b"", 0.0)

    def append(
        self, source: BinaryIO, remote: str, *, offset: int, size: int, timeout: float, progress: Progress | None = None
    ) -> None:
        def write() -> None:
            if "bad-disk" in self._board.faults:
                raise DeviceFailed(f"{self.name}: cannot write {remote}: Input/output error", reason="cannot-write")
            source.seek(offset)
            data = source.read()
            if "cut-in-append" in self._board.faults:
                self._board.faults.discard("cut-in-append")
                self._board.files[remote] = self._board.files.get(remote, b"")[:offset] + data[: len(data) // 2]
                raise Unreachable(f"{self.name}: the connection was lost", reason="connection-lost")
            self._board.files[remote] = self._board.files.get(remote, b"")[:offset] + data
            if progress:
                progress(size, size)

        self._step("append", write)

    def run(self, argv: Sequence[str], *, timeout: float, input: bytes = b"", max_output: int = 0) -> Completed:
        assert self._open, "a closed connection was used"
        step, act = self._meaning(list(argv), input)
        code, said = self._step(step, act)
        return Completed(tuple(argv), code, said, b"", 0.0)

    def _step(self, step: str, act):  # type: ignore[no-untyped-def]
        self._board.log.append(f"{self._number}:{step}")
        self._fleet.on_command(self.name, step)
        self._cut(f"cut-before-{step}")
        result = act()
        self._cut(f"cut-after-{step}")
        return result

    def _cut(self, fault: str) -> None:
        if fault in self._board.faults:
            self._board.faults.discard(fault)  # once: the next connection works
            raise Unreachable(f"{self.name}: the connection was lost", reason="connection-lost")

    def _meaning(self, argv: list[str], input: bytes):  # type: ignore[no-untyped-def]
        if argv[0] == "sh" and input == probe._PROBE.encode():
            return "probe", self._probe
        if argv[0] == "sh" and input.endswith(upload._LOOK.encode()):
            names = shlex.split(input.decode().removesuffix(upload._LOOK))[2:]
            return "look", lambda: self._look(names)
        if argv[0] == "sh" and input == upload_dir._CLAIM.encode():
            return "claim", lambda: self._claim(*argv[3:])
        assert argv[0] in (f"{ROOT}/venv/bin/python", BESIDE), argv
        assert argv[1:6] == ["-I", "-m", "device_agent", "--root", ROOT], argv
        assert argv[-1] == "--json"
        self._is_beside = argv[0] == BESIDE
        return argv[6], lambda: self._agent(argv[6:-1])

    # --- scripts --------------------------------------------------------------------------------------------------
    def _probe(self) -> tuple[int, bytes]:
        if "garbage" in self._board.faults:
            return 0, b"Welcome to your board!\n"
        lines = [
            "home /home/pi",
            f"root {ROOT}",
            "writable yes",
            json_codec.dumps(self._board.status()),
            "agent 0",
        ]
        return 0, "\n".join(lines).encode() + b"\n"

    def _claim(self, incoming: str, digest: str, token: str) -> tuple[int, bytes]:
        """Reuses the upload folder of an ended connection; in this simulation no two connections send at once."""
        own, held = f"{incoming}/{digest}.{self._number}-{token}", self._board.files
        for path in [path for path in held if path.startswith(f"{incoming}/{digest}")]:
            held[f"{own}/{path.rpartition('/')[2]}"] = held.pop(path)
        return 0, f"{own}\n".encode()

    def _look(self, paths: list[str]) -> tuple[int, bytes]:
        said = []
        for path in paths:
            if path in self._board.files:
                said.append(f"file {hashlib.sha256(self._board.files[path]).hexdigest()}")
            elif f"{path}.part" in self._board.files:
                part = self._board.files[f"{path}.part"]
                said.append(f"part {len(part)} {hashlib.sha256(part).hexdigest()}")
            else:
                said.append("none")
        return 0, "\n".join(said).encode() + b"\n"

    # --- the agent ------------------------------------------------------------------------------------------------
    def _agent(self, argv: list[str]) -> tuple[int, bytes]:
        command, board = argv[0], self._board
        if "mute" in board.faults:
            return 1, b""
        if f"huge-{command}" in board.faults:
            return 0, b"[" * 10_000
        if f"locked-{command}" in board.faults:
            return self._problem("locked", "ann@laptop holds this device (deploy)", 5)
        answer = {
            "install": self._install,
            "activate": self._activate,
            "confirm": self._confirm,
            "rollback": self._rollback,
            "check": self._check,
        }[command]
        return answer(argv)

    def _problem(
        self, reason: str, message: str, code: int, certificate: Certificate | None = None
    ) -> tuple[int, bytes]:
        hint = "loosen the gate" if reason == "gate-failed" else ""
        return code, json_codec.dumps(Problem(reason, message, hint, code, certificate)).encode()

    def _install(self, argv: list[str]) -> tuple[int, bytes]:
        board, folder = self._board, argv[1]
        digest = folder.rpartition("/")[2].partition(".")[0]
        if "refuses" in board.faults:
            return self._problem("unknown-key", "the key is not trusted", 4)
        for file in board.packages[digest].files:
            path = f"{folder}/{file.name}"
            data = board.files.pop(f"{path}.part", None) or board.files.pop(path)
            if hashlib.sha256(data).hexdigest() != file.sha256:
                return self._problem("file-changed", f"{file.name} is not the file that was signed", 4)
        staged = Staged(board.packages[digest].ref, KEY, digest in board.staged, ("clock-behind: 1970",))
        board.staged.add(digest)
        code, said = self._activate(["activate", digest, *argv[2:]])
        if code:
            return code, said
        return 0, json_codec.dumps(Installed(staged, board.stage_seconds, json_codec.loads(Activated, said))).encode()

    def _activate(self, argv: list[str]) -> tuple[int, bytes]:
        board, digest, nonce = self._board, argv[1], argv[argv.index("--nonce") + 1]
        holder = argv[argv.index("--holder") + 1]
        assert digest in board.staged
        package = board.packages[digest]
        certificate = make_certificate(package, nonce, accuracy=0.5 if "gate" in board.faults else 0.95)
        if "gate" in board.faults:
            certificate = dataclasses.replace(certificate, failures=("accuracy 0.5 is under 0.9",))
            return self._problem("gate-failed", "accuracy 0.5 is under 0.9", 4, certificate)
        if board.pending and board.pending_holder != holder:
            return self._problem("locked", f"{board.pending_holder} holds this device", 5)
        already = board.committed is not None and board.committed.digest == digest
        if not already:
            board.begin(package.ref, holder, self._number)
        if "stale-nonce" in board.faults:
            certificate = dataclasses.replace(certificate, nonce="an older one")
        if "lies" in board.faults:
            certificate = dataclasses.replace(certificate, different=3, differences=(difference(0),))
        return 0, json_codec.dumps(Activated(package.ref, certificate, already, None if already else 60.0)).encode()

    def _confirm(self, argv: list[str]) -> tuple[int, bytes]:
        board = self._board
        assert "--holder" in argv
        if board.committed is not None and board.committed.digest == argv[1] and board.pending is None:
            return 0, json_codec.dumps(Committed(board.committed, board.previous, True)).encode()
        if board.pending is None or "reverted" in board.faults:
            board.revert("no confirmation within 60 s")
            return self._problem("rolled-back", "it was given up: no confirmation came in time", 1)
        if "commits-another" in board.faults:
            another = dataclasses.replace(board.pending, digest="0" * 64)
            return 0, json_codec.dumps(Committed(another, board.previous, False)).encode()
        assert board.pending_line != self._number, "confirmed over the connection that activated"
        board.commit()
        return 0, json_codec.dumps(Committed(board.committed, board.previous, False)).encode()

    def _rollback(self, argv: list[str]) -> tuple[int, bytes]:
        board, holder = self._board, argv[argv.index("--holder") + 1]
        if "--own" in argv:
            return self._take_back(holder)
        leave = argv[argv.index("--leave") + 1] if "--leave" in argv else None
        if leave and board.committed and board.committed.digest != leave:
            return 0, json_codec.dumps(Committed(board.committed, board.previous, True)).encode()
        if "no-way-back" in board.faults:
            return self._problem("revoked-key", "the key of the release before was revoked", 4)
        if board.pending is not None:
            board.revert(f"given up by {holder}")
        elif board.previous is not None:
            board.committed, board.previous, board.returned = board.previous, None, True
        elif board.returned:
            return 0, json_codec.dumps(Committed(board.committed, None, True)).encode()  # type: ignore[arg-type]
        else:
            return self._problem("nothing-left", "there is nothing to go back to", 1)
        if board.committed is None:
            return self._problem("no-release", "no release is left", 1)
        return 0, json_codec.dumps(Committed(board.committed, board.previous, False)).encode()

    def _take_back(self, holder: str) -> tuple[int, bytes]:
        board = self._board
        taken = board.pending is not None and board.pending_holder == holder
        if taken:
            board.revert(f"given up by {holder}")
        became = board.became.get(holder)
        found = TakenBack(taken, became, board.committed, board.previous, board.pending, board.lock())
        return 0, json_codec.dumps(found).encode()

    def _check(self, argv: list[str]) -> tuple[int, bytes]:
        nonce = "stale" if self._has("stale-nonce") else argv[argv.index("--nonce") + 1]
        assert self._board.committed is not None
        certificate = make_certificate(self._board.packages[self._board.committed.digest], nonce)
        if self._has("does-not-load"):
            return self._problem("model-unusable", "ai_edge_litert cannot load it", 4)
        if self._has("says-no"):
            return self._problem("gate-failed", "no", 4, certificate)
        if self._has("differs"):
            certificate = dataclasses.replace(
                certificate,
                identical=98,
                different=2,
                differences=(difference(7), difference(9)),
                failures=("2 rows differ",),
            )
            return self._problem("gate-failed", "2 rows differ", 4, certificate)
        return 0, json_codec.dumps(certificate).encode()

    def _has(self, fault: str) -> bool:
        """Whether a check has a fault, in every environment or only in the new one beside the one in use."""
        return fault in self._board.faults or (self._is_beside and f"beside-{fault}" in self._board.faults)


def difference(row: int) -> RowDifference:
    return RowDifference(row, "apple", "pear", (1, 2, 3), (1, 3, 9), 0.25)


def make_certificate(package: Package, nonce: str, *, accuracy: float = 0.95) -> Certificate:
    """A certificate that passes every gate, except perhaps that of accuracy."""
    ref = package.ref
    return Certificate(
        nonce=nonce,
        release=ref.digest,
        name=ref.name,
        version=ref.version,
        sequence=ref.sequence,
        model_sha256=package.model_sha256,
        identical=99,
        equivalent=1,
        different=0,
        differences=(),
        largest_distance_error=1e-7,
        accuracy=accuracy,
        accuracy_rows=100,
        accepted=1.0,
        confusion=((50, 0, 0), (5, 45, 0)),
        latency=Latency(0.1, 0.2, 100),
        runtime=RUNTIME,
        device=BOARD,
        failures=(),
        issued=0,
    )


def how_many(report: FleetReport, outcome: Outcome) -> int:
    """Returns the number of devices with this outcome."""
    return sum(device.outcome is outcome for device in report.devices)
