"""ROOT on the device: its layout, its state, and the way back after whatever happened to the board.

state.json is the only truth (`device_agent.state`); the `current` link and the history follow from it and are mended
by `recover`, which runs first in every command that changes something. Never decides whether a release may be
trusted or answers well enough.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from device_agent import clock, codec, contract, disk, history, lock, state
from device_agent.contract import HistoryEntry, LockHolder, ReleaseRef
from device_agent.errors import AgentError, DeviceUnfit
from device_agent.state import StoreState

#: A release that is being removed, under releases/; swept by `recover`.
TRASH_PREFIX = ".trash-"
#: A copy that is being made of a directory outside ROOT, under incoming/; swept by `recover`.
IMPORT_PREFIX = ".import-"
ANY_CLASS = "any"
_MAX_STATE = 64 * 1024


class Store:
    """The releases of one device, under one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.releases = root / contract.RELEASES_DIR
        self.incoming = root / contract.INCOMING_DIR
        self.trust = root / contract.TRUST_DIR
        self.link = root / contract.CURRENT_LINK
        self.state_file = root / contract.STATE_FILE
        self.history_file = root / contract.HISTORY_FILE
        self.lock_file = root / contract.LOCK_FILE
        self.lock_descriptor: int | None = None

    def release_path(self, digest: str) -> Path:
        """Returns where the release `digest` lies once it is staged."""
        return self.releases / digest

    def load(self) -> StoreState:
        """Returns the state; that of an empty device where nothing was ever stored.

        Raises:
            DeviceUnfit: state.json is damaged.
        """
        try:
            data = self.state_file.read_bytes()
        except FileNotFoundError:
            return StoreState()
        try:
            return codec.loads(StoreState, data, limit=_MAX_STATE)
        except codec.MalformedDocument as error:
            raise DeviceUnfit(
                f"{self.state_file} is damaged: {error}",
                reason="state-damaged",
                hint=f"move it away, then deploy again; the release floor starts anew: mv {self.state_file}{{,.bad}}",
            ) from None

    def commit(self, new: StoreState) -> None:
        """Makes `new` the truth by one rename, then lets the link and the history follow."""
        disk.write_atomic(self.state_file, codec.dump_file(new))
        self._follow(new)

    @contextlib.contextmanager
    def changing(self, holder: str, reason: str, *, wait: float = lock.WAIT_SECONDS) -> Iterator[None]:
        """Holds the store for the block, mended.

        Raises:
            Locked: another process held it for all of `wait` seconds.
        """
        os.umask(0o077)  # what is written here is for the owner, and for him to read, whatever his umask
        for directory in (self.root, self.releases, self.incoming, self.trust):
            disk.make_directory(directory)
        with lock.held(self.lock_file, holder, reason, wait=wait) as descriptor:
            self.lock_descriptor = descriptor
            try:
                self.recover()
                yield
            finally:
                self.lock_descriptor = None

    def recover(self) -> StoreState:
        """Ends what a crash, a power cut or a silent host left half-done; needs the lock."""
        moment = clock.now()
        current = self.load()
        if current.pending and state.is_over(current.pending, moment):
            history.record(self.history_file, current.event)  # a power cut may have come before it was
            current = state.revert(current, _why_over(current.pending, moment), moment)
            self.commit(current)
        self._follow(current)
        self._sweep()
        return current

    def settle(self) -> None:
        """Recovers if that can be done now; a reader goes on without it, for the state alone says what answers."""
        if not self.state_file.exists():
            return
        with contextlib.suppress(OSError, AgentError), lock.held(self.lock_file, "status", "recovery", wait=0.0):
            self.recover()

    def staged(self) -> tuple[str, ...]:
        """Returns the digests of all releases on the device, sorted."""
        try:
            with os.scandir(self.releases) as entries:
                return tuple(sorted(entry.name for entry in entries if contract.is_digest(entry.name)))
        except FileNotFoundError:
            return ()

    def device_class(self) -> str:
        """Returns the device's class, as `provision` wrote it into ROOT; `any` without one."""
        try:
            text = (self.root / contract.CLASS_FILE).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ANY_CLASS
        return text if contract.is_name(text) else ANY_CLASS

    def find(self, prefix: str) -> str:
        """Returns the digest of the one staged release that starts with `prefix` (at least 6 digits).

        Raises:
            AgentError: there is none, or more than one.
        """
        found = [digest for digest in self.staged() if digest.startswith(prefix)]
        if len(found) == 1 and (contract.is_digest(prefix) or len(prefix) >= 6):
            return found[0]
        problem = f"{len(found)} releases start with" if found else "no release on this device starts with"
        raise AgentError(
            f"{problem} {prefix!r}", reason="no-such-release", hint="python -m device_agent status lists them"
        )

    def holder(self) -> LockHolder | None:
        """Returns who holds the store: a running command, or a deployment between two commands."""
        running = lock.holder_of(self.lock_file)
        if running:
            return running
        lease = state.lease_holder(self.load(), clock.now())
        return LockHolder(lease.holder, lease.reason, lease.since, lease.pid) if lease else None

    def note(self, what: str, release: ReleaseRef | None, why: str, holder: str) -> None:
        """Adds a line to the history about something that changed no state."""
        moment = clock.now()
        current = state.answering(self.load(), moment)
        ref = current.release if current else None
        history.add(self.history_file, HistoryEntry(moment.wall, what, release, ref, why, holder))

    def discard(self, path: Path) -> None:
        """Removes a release directory so that a half-removed one is never mistaken for a release."""
        doomed = self.releases / (TRASH_PREFIX + path.name)
        disk.remove_tree(doomed)
        disk.move(path, doomed)
        disk.remove_tree(doomed)

    def _follow(self, current: StoreState) -> None:
        answering = state.answering(current, clock.now())
        self._point(f"{contract.RELEASES_DIR}/{answering.release.digest}" if answering else None)
        history.record(self.history_file, current.event)

    def _point(self, target: str | None) -> None:
        try:
            found: str | None = str(self.link.readlink())
        except OSError:
            found = None
        if target is None:
            disk.remove_file(self.link)
        elif found != target:
            disk.point_link(self.link, target)

    def _sweep(self) -> None:
        for path in (self.state_file, self.link, self.history_file):
            disk.remove_file(disk.temporary(path))
        for directory, prefix in ((self.releases, TRASH_PREFIX), (self.incoming, IMPORT_PREFIX)):
            for path in sorted(directory.glob(prefix + "*")):
                disk.remove_tree(path)


def _why_over(pending: state.Pending, moment: clock.Moment) -> str:
    if moment.boot != pending.boot or moment.uptime < pending.started:
        return "the board was started anew before the confirmation"
    return f"no confirmation within {pending.deadline - pending.started:g} s"
