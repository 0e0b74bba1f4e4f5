"""Embeds the raw inputs of a batch.

They are the files of a folder, one file, or the arrays along the first axis of an NPY file. Several are embedded at
once, but only a few are in memory.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from device_agent.serving.columns import Columns
from device_agent.shared.embedding import files
from device_agent.shared.embedding.decode import FILE_KEY, is_one
from device_agent.shared.file_hints import named_in_hints
from device_agent.shared.protocol.errors import BadInput, named
from device_agent.shared.protocol.record import replace
from device_agent.shared.tabular.inputs import FILES, Source

if TYPE_CHECKING:
    from device_agent.shared.embedding.chain import Chain
    from device_agent.shared.protocol.input_info import Input

#: Inputs that are answered together.
_AT_A_TIME = 64


#: Name of an input in messages, its size in bytes (0: all have the same), and a function that reads it.
Raw = tuple[str, int, Callable[[], NDArray[Any]]]


def columns_of(path: str, columns: Columns) -> Columns:
    """Returns `columns`; if `path` is a folder, with the name of the file as the first column.

    Raises:
        BadInput: `columns.keep` names a column other than `file`, the file's name: a file has no others.
    """
    other = next((name for name in columns.keep if name != FILE_KEY), None)
    if other is not None:
        raise BadInput(f"--keep {other}: a file has no such column", hint=f"--keep {FILE_KEY} copies its name")
    return replace(columns, keep=(FILE_KEY,)) if Path(path).is_dir() else columns


def embedded(source: Source, chain: Chain, dtype: type[np.floating[Any]]) -> Iterator[tuple[NDArray[Any], list[str]]]:
    """Yields (r, n_features) rows that the stages make of r inputs of `source`, and the names of these inputs.

    Raises:
        BadInput: an input cannot be read, or does not fit the stages.
    """
    path = Path(source.name)
    inputs, hint = (
        (_files(path, chain.input), _hint(path)) if source.format == FILES else (_arrays(source, chain.input), "")
    )
    while some := list(itertools.islice(inputs, _AT_A_TIME)):
        # Inputs of about the same length follow each other: they share an interpreter, which stays in the cache.
        order = sorted(range(len(some)), key=lambda place: some[place][1], reverse=True)
        found = dict(zip(order, chain.each(lambda read: read(), [some[place][2] for place in order])))
        rows, names = [found[place] for place in range(len(some))], [name for name, _, _ in some]
        for name, row in zip(names, rows):
            if isinstance(row, BadInput):
                with named(name, hint), named_in_hints(name if hint else None):
                    raise row
        yield np.array(rows, dtype), names


def _hint(path: Path) -> str:
    return "take the file out of the folder" if path.is_dir() else f"file {path}, which prints its format"


def _files(path: Path, input: Input) -> Iterator[Raw]:
    others: list[str] = []
    for file in files.files_of(path, others):
        size = 0
        with contextlib.suppress(OSError):  # reading it says why
            size = file.stat().st_size
        yield str(file), size, functools.partial(files.read_array, file, input)
    if others:
        print(f"device_agent: {path}: {files.left_out(others)}", file=sys.stderr, flush=True)


def _arrays(source: Source, input: Input) -> Iterator[Raw]:
    inputs = itertools.chain.from_iterable(source.arrays(None, functools.partial(is_one, input)))
    for number, values in enumerate(inputs):
        yield f"{source.name}: inputs[{number}]", 0, functools.partial(np.asarray, values)
