"""Commands in the journal of taught rows, and their effect.

A line is a message authentication code and a command, a JSON object. Its key `do` is `enrol` (then it has `rows`),
`forget` (it has `ids`), `undo`, or `kept` (it has `rows`), which begins a rewritten journal. Each code also covers the
code before it (HMAC-SHA256): a changed or moved line is detected, and so is a missing one, except at the end. One
command is one line: after a crash, it is complete or ignored. No I/O.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from typing import Any

from device_agent.shared.enrolment.enrolled import LocalRow
from device_agent.shared.protocol import json_codec

ENROL, FORGET, UNDO, KEPT = "enrol", "forget", "undo", "kept"
_CODE = 64


class Damaged(Exception):
    """A line of the journal is not what the device wrote."""


class Taught:
    """The taught rows after the commands of a journal so far.

    Attributes:
        size: bytes of the valid lines.
        code: authentication code of the last line; "" before the first.
        live_size: bytes that a journal of the present rows alone would take.
    """

    def __init__(self) -> None:
        self.size = self.live_size = 0
        self.code = ""
        self._rows: dict[str, LocalRow] = {}  # in the order in which they were taught, also those forgotten
        self._sizes: dict[str, int] = {}
        self._live: set[str] = set()
        self._done: list[tuple[str, tuple[str, ...]]] = []

    def rows(self) -> list[LocalRow]:
        """Returns the rows that are not forgotten, in the order in which they were taught."""
        return [row for name, row in self._rows.items() if name in self._live]

    @property
    def can_undo(self) -> bool:
        """Whether there is a command to undo."""
        return bool(self._done)

    def do(self, command: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
        """Executes a command (plain JSON values); returns its kind, and the ids of the rows it adds or removes.

        For an undo, returns kind and ids of the command that it undoes.

        Raises:
            Damaged: a device would never write such a command as the next line.
        """
        try:
            what = command["do"]
            if what == UNDO:
                what, ids = self._done.pop()
                self._set(ids, there=what == FORGET)
                return what, ids
            ids = self._enrol(command["rows"]) if what in (ENROL, KEPT) else tuple(command["ids"])
            if what == FORGET and self._live.issuperset(ids):
                self._set(ids, there=False)
            elif what not in (ENROL, KEPT):
                raise ValueError(what)
        except (LookupError, TypeError, ValueError) as error:
            raise Damaged(f"not a command: {error}") from None
        if what != KEPT:
            self._done.append((what, ids))
        return what, ids

    def _enrol(self, rows: Sequence[Any]) -> tuple[str, ...]:
        found = [json_codec.from_plain(LocalRow, row, extra="keep") for row in rows]
        for row, plain in zip(found, rows):
            if row.id in self._rows:
                raise ValueError(f"the id {row.id} occurs twice")
            self._rows[row.id], self._sizes[row.id] = row, len(json.dumps(plain))
        self._set(ids := tuple(row.id for row in found), there=True)
        return ids

    def _set(self, ids: Sequence[str], *, there: bool) -> None:
        for name in ids:
            self.live_size += self._sizes[name] if there else -self._sizes[name]
        (self._live.update if there else self._live.difference_update)(ids)


def encode(command: dict[str, Any], key: bytes, before: str) -> tuple[bytes, str]:
    """Returns a command as a line of the journal, and its authentication code; `before` is that of the line before."""
    body = json.dumps(json_codec.to_plain(command), separators=(",", ":"), allow_nan=False)
    code = _code(key, before, body.encode())
    return f"{code} {body}\n".encode(), code


def replay(data: bytes, key: bytes) -> Taught:
    """Returns the taught rows after all commands of a journal; ignores an incomplete last line, which a crash leaves.

    Raises:
        Damaged: a line is not what this device wrote.
    """
    taught = Taught()
    for number, line in enumerate(data.splitlines(keepends=True), 1):
        body = line[_CODE + 1 : -1]
        code = _code(key, taught.code, body)
        if not line.endswith(b"\n") or not hmac.compare_digest(code.encode(), line[:_CODE]):
            if _is_torn(data[taught.size :]):
                break
            raise Damaged(f"line {number} does not match its authentication code")
        taught.do(json.loads(body))
        taught.code, taught.size = code, taught.size + len(line)
    return taught


def _is_torn(rest: bytes) -> bool:
    """Whether a crash during one write can leave `rest`, the file's end: a part of a line, or a line with NUL bytes."""
    return b"\n" not in rest[:-1] and (rest[-1:] != b"\n" or b"\0" in rest)


def _code(key: bytes, before: str, body: bytes) -> str:
    return hmac.new(key, before.encode() + body, "sha256").hexdigest()
