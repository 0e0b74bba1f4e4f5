"""Parsers of raw inputs as JSON lines and CSV.

Like the parsers of plain rows, but `Parsed.rows` are the outputs of the stages. Loaded only for a model with stages.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.embedding.chain import Chain
from device_agent.shared.embedding.decode import FILE_KEY, KEY, PCM_KEY, from_json, takes
from device_agent.shared.embedding.files import suffixes_of
from device_agent.shared.protocol.errors import BadInput, named
from device_agent.shared.protocol.json_codec import unique_keys
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.protocol.record import replace
from device_agent.shared.queries import default_names, row_type
from device_agent.shared.tabular.csv_reader import CsvParser
from device_agent.shared.tabular.json_reader import JsonParser
from device_agent.shared.tabular.reader import Line, Parsed, line_by_line, without_rows


class InputJsonParser(JsonParser):
    """Parses JSON lines of raw inputs: base64 of a file, an array, or an object with either under the key `input`.

    Args:
        keep: further keys of the object whose values are returned with each row.
    """

    _as_object = 'write {"input": ...}'

    def __init__(self, chain: Chain, dtype: type[np.floating[Any]] = np.float32, *, keep: Sequence[str] = ()) -> None:
        super().__init__((), dtype, keep=keep)
        self.chain = chain

    def follow(self, info: KnnInfo, chain: Chain | None) -> None:
        """Switches to another model: `info` is its knn.json, `chain` its loaded stages (None: no change)."""
        super().follow(info, chain)
        self.chain = chain or self.chain

    def parse(self, block: bytes) -> Parsed:
        """Parses a block of lines, with a newline at its end, and runs the stages on its inputs."""
        lines = [_Line(text) for line in block.split(b"\n")[:-1] if (text := line.strip(b"\r \t"))]
        found = zip(lines, self.chain.each(self._read, lines))

        def next_line(_: bytes) -> Line:
            line, row = next(found)
            if isinstance(row, BadInput):
                with contextlib.nullcontext() if line.file is None else named(line.file):
                    raise row
            return row, line.kept

        return line_by_line(self, block, next_line)

    def _read(self, line: _Line) -> NDArray[Any]:
        """Returns the array in `line`; sets the line's `file` (name) and `kept` (values to return)."""
        try:
            found = json.loads(line.text, object_pairs_hook=unique_keys)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"not JSON: {error}", hint='an input is [0.1, ...], or {"input": "BASE64"}') from None
        given, key = found, KEY
        if isinstance(found, dict):
            line.file = name if isinstance(name := found.get(FILE_KEY), str) else None
            key = PCM_KEY if PCM_KEY in found and self.chain.input.audio else KEY
            if key not in found:
                raise BadInput(f"the object has no key {key!r}")
            given = found[key]
        line.kept = self._kept(found)
        return from_json(given, self.chain.input, key == PCM_KEY)


class _Line:
    """The text of a JSON line. `_read` adds its `file` (a name, or None) and `kept` (values to return with the row)."""

    def __init__(self, text: bytes) -> None:
        self.text, self.kept = text, list[Any]()
        self.file: str | None = None


class InputCsvParser(CsvParser):
    """Parses CSV: each line holds the numbers of one raw input, flattened.

    Raises:
        BadInput: the model takes files, or arrays without a fixed number of values.
    """

    def __init__(self, chain: Chain, dtype: type[np.floating[Any]] = np.float32, **options: Any) -> None:
        self.chain, self._dtype_of_rows = chain, dtype
        size = chain.input.width
        if size is None:
            kinds = suffixes_of(chain.input.audio, chain.input.image)
            hint = f"--input a{kinds[0]} reads a file (also {', '.join(kinds[1:]) or 'JSON lines'}), --input . a folder"
            raise BadInput(f"the model takes {takes(chain.input)}, each as a file or a JSON line", hint=hint)
        super().__init__(chain.input.columns or default_names(size), **options)

    def follow(self, info: KnnInfo, chain: Chain | None) -> None:
        """Switches to another model: `info` is its knn.json, `chain` its loaded stages (None: no change)."""
        self.chain, self._dtype_of_rows = chain or self.chain, row_type(info.origin)

    def parse(self, block: bytes) -> Parsed:
        """Parses a block of lines, with a newline at its end, and runs the stages on its rows."""
        parsed = super().parse(block)
        made = list(self.chain.each(np.asarray, parsed.rows))
        bad = {index: row for index, row in enumerate(made) if isinstance(row, BadInput)}
        rows = [row for row in made if not isinstance(row, BadInput)]
        return replace(without_rows(parsed, bad), rows=np.array(rows, self._dtype_of_rows) if rows else parsed.rows[:0])
