"""Reads the rows of a batch from files.

Files of sounds, pictures and arrays, alone or in a folder. Has the interface of `tabular.inputs.Source`; each file
becomes one JSON line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from device_agent.serving.columns import Columns
from device_agent.shared.console import streams
from device_agent.shared.embedding import decode, files
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.record import replace
from device_agent.shared.tabular.inputs import Source

if TYPE_CHECKING:
    from device_agent.shared.embedding.chain import Chain

#: Inputs of an array that are embedded before their answers are written.
_AT_A_TIME = 64
#: Bytes of the lines of files that are answered together: enough sounds of a second to keep some cores busy.
_BLOCK = 4 << 20


class FileSource:
    """One file, or the files under a folder.

    Raises:
        BadInput: the path does not exist, or cannot be opened.
    """

    format, start = "jsonl", b""

    def __init__(self, path: str) -> None:
        self.name = path
        folder = "take the file out of the folder"
        self.others = self.remedy = folder if Path(path).is_dir() else f"file {path}, which prints its format"
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            hint = f"check the path; a relative one starts at {streams.here()}"
            raise BadInput(f"{path}: {error.strerror}", reason="no-input", hint=hint) from None

    def blocks(self) -> Iterator[bytes]:
        """Yields blocks of JSON lines, one line for each file."""
        held = bytearray()
        for _, line in files.lines_of(Path(self.name)):
            held += line
            if len(held) >= _BLOCK:
                yield bytes(held)
                held.clear()
        if held:
            yield bytes(held)

    def where(self, number: int) -> str:
        """Returns the path of the input for messages, whatever the row; for a folder, the message names the file."""
        return self.name


def embedded(source: Source, chain: Chain, dtype: type[np.floating[Any]]) -> Iterator[tuple[NDArray[Any], range]]:
    """Yields (r, n_features) rows that the stages compute from an NPY `source` of shape (n, ...), and r indices.

    Raises:
        BadInput: an input does not fit the stages.
    """
    before = 0
    for inputs in source.arrays(None):
        for start in range(0, len(inputs), _AT_A_TIME):
            rows = []
            for number, row in enumerate(chain.each(chain.embed, inputs[start : start + _AT_A_TIME]), before):
                if isinstance(row, BadInput):
                    raise BadInput(f"{source.name}: inputs[{number}]: {row}", hint=row.hint)
                rows.append(row)
            yield np.array(rows, dtype), range(before, before + len(rows))
            before += len(rows)


def naming_files(path: str, columns: Columns) -> Columns:
    """Returns `columns`; if `path` is a folder, with the name of the file as first column."""
    if not Path(path).is_dir():
        return columns
    return replace(columns, keep=tuple(dict.fromkeys((decode.FILE_KEY, *columns.keep))))
