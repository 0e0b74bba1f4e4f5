"""Crash-safe store of releases on a device.

state.json is the single source of truth (`state`). The `current` link and the history follow from it; `recover` repairs
them, and runs first in every command that changes something. Does not decide whether a release is trusted or accurate
enough.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.documents import HistoryEntry, LockHolder, ReleaseRef
from device_agent.shared.protocol.errors import AgentError, DeviceUnfit
from device_agent.shared.safe_files import NotOrdinary, read_small
from device_agent.store import history, lock, state
from device_agent.store.json_file import JsonFile
from device_agent.store.state import StoreState
from device_agent.system import clock, durable

#: A release that is being removed, under releases/; `recover` removes leftovers.
TRASH_PREFIX = ".trash-"
#: A copy in progress of a directory outside ROOT, under incoming/; `recover` removes leftovers.
IMPORT_PREFIX = ".import-"
ANY_CLASS = "any"
_MAX_STATE = 64 * 1024
_MAX_CLASS = 1024
_SHORTEST_PREFIX = 6


class Store:
    """The releases of one device, in the directory `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.releases = root / constants.RELEASES_DIR
        self.incoming = root / constants.INCOMING_DIR
        self.trust = root / constants.TRUST_DIR
        self.link = root / constants.CURRENT_LINK
        self.state_file = root / constants.STATE_FILE
        self._state = JsonFile(self.state_file, StoreState, _MAX_STATE)
        self.history_file = root / constants.HISTORY_FILE
        self.starts_file = root / constants.STARTS_FILE
        self.ring_file = root / constants.RING_FILE
        self.lock_file = root / constants.LOCK_FILE
        self.folders = (self.releases, self.incoming, self.trust, root / constants.VENVS_DIR)
        self.locks: tuple[int, ...] = ()  # descriptor of the lock while it is held: a child process must close it

    def release_path(self, digest: str) -> Path:
        """Returns the directory of the staged release `digest`."""
        return self.releases / digest

    def load(self) -> StoreState:
        """Returns the state in state.json; without the file, the state of an empty device.

        Raises:
            DeviceUnfit: state.json is damaged, or a newer agent wrote it.
        """
        try:
            return self._state.read()
        except FileNotFoundError:
            return StoreState()
        except (json_codec.MalformedDocument, NotOrdinary) as error:
            import shlex

            file = shlex.quote(str(self.state_file))
            raise DeviceUnfit(
                f"{self.state_file} is damaged: {error}",
                reason="state-damaged",
                hint="move the file away, then deploy; releases of any sequence are then accepted:"
                f" mv {file} {file}{durable.ASIDE}",
            ) from None

    def commit(self, new: StoreState) -> None:
        """Writes the state `new` to state.json by one rename, then updates the link and the history."""
        self._state.write(new)
        self._follow(new)

    @contextlib.contextmanager
    def changing(self, holder: str, reason: str, *, wait: float = lock.WAIT_SECONDS) -> Iterator[StoreState]:
        """Locks the store during a `with` block; yields the state, which others cannot change meanwhile.

        First finishes or reverts an interrupted change. `holder` and `reason` say who changes the state and why, for
        others who have to wait.

        Raises:
            Locked: another process held the lock for all of `wait` seconds.
        """
        os.umask(0o077)  # files here are for their owner only, whatever the user's umask
        for directory in (self.root, self.releases, self.incoming, self.trust):
            durable.make_directory(directory)
        with lock.held(self.lock_file, holder, reason, wait=wait) as descriptor:
            self.locks = (descriptor,)
            try:
                yield self.recover()
            finally:
                self.locks = ()

    def recover(self) -> StoreState:
        """Finishes or reverts a change that was interrupted; returns the state. Needs the lock."""
        moment = clock.now()
        current = self.load()
        self._sweep(state.kept(current))
        if current.pending and state.is_over(current.pending, moment):
            from device_agent.store import transitions  # not needed to read

            self._record(current.event)  # the power may have failed before it was recorded
            current = transitions.revert(current, _why_over(current.pending, moment), moment)
            self.commit(current)
        self._follow(current)
        return current

    def settle(self) -> StoreState:
        """Finishes or reverts an interrupted change if the lock is free; returns the state.

        Raises:
            DeviceUnfit: state.json is damaged, or a newer agent wrote it.
        """
        if self.state_file.exists():
            with contextlib.suppress(OSError, AgentError), lock.held(self.lock_file, "status", "recovery", wait=0.0):
                return self.recover()
        return self.load()

    def staged(self) -> tuple[str, ...]:
        """Returns the digests of all releases on the device, sorted."""
        try:
            with os.scandir(self.releases) as entries:
                return tuple(sorted(entry.name for entry in entries if constants.is_digest(entry.name)))
        except FileNotFoundError:
            return ()

    def device_class(self) -> str:
        """Returns the device class that `provision` wrote; `any` if it is missing or damaged."""
        text, _ = self._read_class()
        return text

    def warnings(self) -> list[str]:
        """Returns warnings about damaged files that were renamed, and about a damaged file of the device class."""
        _, damage = self._read_class()
        aside = sorted(path.name for path in self.root.glob(f"*{durable.ASIDE}*"))
        kept = [f"set-aside: {self.root} holds the damaged file {name}: inspect and remove it" for name in aside]
        return kept + ([f"class-damaged: {damage}"] if damage else [])

    def _read_class(self) -> tuple[str, str]:
        file = self.root / constants.CLASS_FILE
        try:
            text = read_small(file, _MAX_CLASS).decode("utf-8", "replace").strip()
        except FileNotFoundError:
            return ANY_CLASS, ""
        except OSError as error:
            return ANY_CLASS, f"{file}: {error.strerror or error}"
        if constants.is_name(text):
            return text, ""
        return ANY_CLASS, f"{file} does not contain a valid device class: write one, or remove the file"

    def find(self, prefix: str) -> str:
        """Returns the digest of the only staged release whose digest starts with `prefix` (at least 6 digits).

        Raises:
            AgentError: no digest of a release on the device starts with `prefix`, several do, or it is too short.
        """
        found = [digest for digest in self.staged() if digest.startswith(prefix)]
        if len(found) == 1 and len(prefix) >= _SHORTEST_PREFIX:
            return found[0]
        if len(prefix) < _SHORTEST_PREFIX:
            message = f"{prefix!r} has fewer than {_SHORTEST_PREFIX} digits"
        else:
            message = f"{len(found) or 'no'} releases on this device start with {prefix!r}"
        raise AgentError(message, reason="no-such-release", hint="python -m device_agent status lists the releases")

    def holder(self, current: StoreState, moment: clock.Moment) -> LockHolder | None:
        """Returns who began the pending activation, or else who runs the command that holds the lock; None: nobody."""
        return state.holder(current, moment) or lock.holder_of(self.lock_file)

    def note(self, current: StoreState, what: str, release: ReleaseRef | None, why: str, holder: str) -> None:
        """Adds an event that is not a transition of the state to the history: `holder` did `what` with `release`."""
        moment = clock.now()
        answers = state.answering(current, moment)
        ref = answers.release if answers else None
        entry = HistoryEntry(moment.wall, what, release, ref, why, holder)
        self._write_history(lambda: history.add(self.history_file, entry))

    def discard(self, path: Path) -> None:
        """Removes a release directory; renames it first, so that a half-removed one does not look like a release."""
        durable.discard(path, self.releases / (TRASH_PREFIX + path.name), constants.MANIFEST_FILE)

    def _follow(self, current: StoreState) -> None:
        answering = state.answering(current, clock.now())
        self._point(f"{constants.RELEASES_DIR}/{answering.release.digest}" if answering else None)
        self._record(current.event)

    def _record(self, event: HistoryEntry | None) -> None:
        self._write_history(lambda: history.record(self.history_file, event))

    def _write_history(self, write: Callable[[], None]) -> None:
        """Calls `write`, which writes to the history; if the file cannot be used, renames it and begins a new one."""
        try:
            write()
        except history.Broken as broken:
            self._set_aside(self.history_file, str(broken))
            write()

    def _set_aside(self, path: Path, why: str) -> None:
        kept = durable.set_aside(path)
        print(f"device_agent: {path}: {why}: renamed to {kept.name}, and replaced by a new one", file=sys.stderr)

    def _point(self, target: str | None) -> None:
        self._make_way(self.link)
        try:
            found: str | None = str(self.link.readlink())
        except OSError:
            found = None
        if target is None:
            durable.remove_file(self.link)
        elif found != target:
            durable.point_link(self.link, target)

    def _make_way(self, path: Path) -> None:
        """Renames a directory at `path`, if there is one, since the agent needs a file or a link there."""
        if path.is_dir() and not path.is_symlink():
            self._set_aside(path, "it is a directory")

    def _sweep(self, kept: frozenset[str]) -> None:
        """Removes temporary files, and half-removed releases whose digests are not in `kept`; ignores errors."""
        for path in map(durable.temporary, (self.state_file, self.link, self.history_file)):
            with contextlib.suppress(OSError):
                self._make_way(path)
                durable.remove_file(path)
        doomed = [*self.releases.glob(TRASH_PREFIX + "*"), *self.incoming.glob(IMPORT_PREFIX + "*")]
        doomed += [*self.root.glob(".*.tmp"), *self.releases.glob(".*.tmp")]  # copies that `durable.move` began
        halves = [self.release_path(digest) for digest in self.staged() if digest not in kept]
        doomed += [path for path in halves if not os.path.lexists(path / constants.MANIFEST_FILE)]
        for path in sorted(doomed):
            with contextlib.suppress(OSError):
                durable.remove_tree(path)


def _why_over(pending: state.Pending, moment: clock.Moment) -> str:
    if moment.boot != pending.boot or moment.uptime < pending.started:
        return "the board restarted before the confirmation"
    return f"no confirmation within {pending.deadline - pending.started:g} s"
