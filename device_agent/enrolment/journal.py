"""Journal of the rows taught on a device.

ROOT/enrolled holds the journal, a line for each command such as `enrol`, and the key that authenticates the lines; only
their owner can read them. When a command returns, its line is on the disk. When the journal is about twice as large as
the taught rows need, the next command first replaces it by a new file with only these rows. Only that command and later
ones can then be undone.

    with Journal(store.root).changing("ann") as journal:
        journal.enrol(rows)
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from device_agent.enrolment import records
from device_agent.enrolment.records import ENROL, FORGET, KEPT, UNDO, Damaged, Taught
from device_agent.shared.enrolment.enrolled import LocalRow
from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.constants import ENROLLED_DIR, JOURNAL_FILE
from device_agent.shared.protocol.errors import AgentError, DeviceUnfit
from device_agent.shared.safe_files import NotOrdinary, read_small
from device_agent.store import lock
from device_agent.system import durable

#: Bytes that the rows may take, as JSON.
MAX_BYTES = 32 << 20
#: Bytes of forgotten rows and commands that are kept, so that they can be undone, beside as many as the rows take.
SPARE = 256 << 10
_KEY_BYTES = 32
#: What to type where there are too many rows.
FORGET_SOME = "python -m device_agent forget --last 1; or --label NAME, or --id ID"


class Journal:
    """The journal under one root. Use `changing` to lock, read and change it, and `read` to read it only.

    Attributes:
        taught: the rows that are taught at present, with the changes made within the `changing` block.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / ENROLLED_DIR
        self.file, self._key_file, self._lock = root / JOURNAL_FILE, self.folder / "key", self.folder / "lock"
        self.taught, self._key = Taught(), b""

    def read(self) -> list[LocalRow]:
        """Returns the rows that are taught at present, in the order in which they were taught.

        Raises:
            DeviceUnfit: the journal was damaged or changed after this device wrote it.
            OSError: the journal cannot be read.
        """
        self._load()
        return self.taught.rows()

    @contextlib.contextmanager
    def changing(self, holder: str) -> Iterator[Journal]:
        """Locks and reads the journal for the duration of a `with` block; `holder` names the user in the lock.

        Raises:
            Locked: another process holds the lock.
            DeviceUnfit: the journal was damaged or changed after this device wrote it.
            OSError: the journal cannot be read.
        """
        os.umask(0o077)
        durable.make_directory(self.folder)
        with lock.held(self._lock, holder, "taught rows"):
            for path in (self.file, self._key_file):
                durable.remove_file(durable.temporary(path))
            self._load()
            yield self

    def enrol(self, rows: Sequence[LocalRow]) -> None:
        """Adds taught rows.

        Raises:
            AgentError: all taught rows together would take more than `MAX_BYTES`; nothing is changed.
        """
        self._append({"do": ENROL, "rows": list(rows)})

    def forget(self, ids: Sequence[str]) -> None:
        """Removes the taught rows with these ids, which must exist."""
        self._append({"do": FORGET, "ids": list(ids)})

    def undo(self) -> tuple[str, tuple[str, ...]]:
        """Undoes the last command that is still in effect; returns its kind, `enrol` or `forget`, and its rows' ids.

        Raises:
            AgentError: there is nothing to undo.
        """
        if not self.taught.can_undo:
            raise AgentError(
                "there is nothing to undo", reason="nothing-to-undo", hint="python -m device_agent enrolled"
            )
        return self._append({"do": UNDO})

    def erase(self) -> None:
        """Rewrites the journal with the present rows only: forgotten rows are erased, and nothing can be undone."""
        rows = self.taught.rows()
        line = records.encode({"do": KEPT, "rows": rows}, self._key, "")[0] if rows else b""
        durable.write_atomic(self.file, line)
        self.taught = records.replay(line, self._key)

    def _append(self, command: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
        if not self._key:
            key = os.urandom(_KEY_BYTES)
            durable.write_atomic(self._key_file, key)
            self._key = key
        line, code = records.encode(command, self._key, self.taught.code)
        if command["do"] == ENROL and self.taught.live_size + len(line) > MAX_BYTES:
            raise AgentError(
                f"the taught rows would take more than {MAX_BYTES:,} bytes", reason="enrol-full", hint=FORGET_SOME
            )
        if command["do"] != UNDO and self.taught.size > 2 * self.taught.live_size + SPARE:
            self.erase()  # before the command, which can be undone
            line, code = records.encode(command, self._key, self.taught.code)
        taught = self.taught
        durable.append(self.file, line, taught.size)
        done = taught.do(json_codec.to_plain(command))
        taught.size, taught.code = taught.size + len(line), code
        return done

    def _load(self) -> None:
        try:
            data = read_small(self.file, 3 * MAX_BYTES)
            self._key = read_small(self._key_file, _KEY_BYTES)
            self.taught = records.replay(data, self._key)
        except FileNotFoundError as error:
            if Path(error.filename) == self._key_file:
                raise self._damaged(f"{self._key_file} is missing") from None
            with contextlib.suppress(FileNotFoundError):
                self._key = read_small(self._key_file, _KEY_BYTES)
            self.taught = Taught()
        except (Damaged, ValueError, NotOrdinary) as error:
            raise self._damaged(str(error)) from None

    def _damaged(self, why: str) -> DeviceUnfit:
        import shlex

        folder = shlex.quote(str(self.folder))
        hint = f"move the journal away, and teach the rows again: mv {folder} {folder}{durable.ASIDE}"
        said = f"the journal of taught rows, {self.file}, was changed: {why}"
        return DeviceUnfit(said, reason="enrolled-damaged", hint=hint)
