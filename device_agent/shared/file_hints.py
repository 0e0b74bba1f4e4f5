"""Puts the name of a file into hints.

Code that decodes the content of a file does not know its name, so its hints say FILE. The caller that knows the name
puts it in, quoted for a shell. Reads no file.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from device_agent.shared.protocol.errors import BadInput


def cleaned(source: str) -> str:
    """Returns a file name for a corrected copy of `source`, such as data-clean.csv, quoted for a shell."""
    path = Path(source)
    return shlex.quote(f"{path.stem}-clean{path.suffix}")


def with_file(hint: str, source: str | Path) -> str:
    """Returns a hint with the file `source` in place of FILE and, in place of rows.csv, a name for a corrected copy.

    A name that cannot be printed, such as one with a newline, leaves the hint as it is.
    """
    if not str(source).isprintable():
        return hint
    name = shlex.quote(str(source))
    hint = hint.replace(" > rows.csv", f" > {cleaned(str(source))}") if "FILE '" in hint else hint
    hint = re.sub(r"\bFILE > rows\.(csv|jsonl)", lambda _: f"{name} > {cleaned(str(source))}", hint)
    return re.sub(r"\bFILE\b", lambda _: name, hint)


@contextlib.contextmanager
def named_in_hints(source: str | Path | None) -> Iterator[None]:
    """Puts the file name `source` into the hint of a BadInput that the `with` block raises.

    Does nothing for None, for `-`, which is standard input, and for a folder: its files are named where they are read.
    """
    try:
        yield
    except BadInput as error:
        if source not in (None, "-") and not Path(str(source)).is_dir():
            error.hint = with_file(error.hint, str(source))
        raise
