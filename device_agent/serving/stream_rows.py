"""Rows of a stream, whose first row decides its format.

The first line that parses as a row decides: CSV or JSON. Until then, the format of each line is guessed separately. So
a stream may begin with a greeting of the sensor, a header, an empty line or half a row. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from device_agent.serving.rows import Request, make_parser
from device_agent.shared.protocol.errors import BadInput, named
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.tabular.inputs import FRAMES, Source, sniff
from device_agent.shared.tabular.reader import Parsed, Parser

if TYPE_CHECKING:
    from device_agent.shared.embedding.chain import Chain

_TEXT = ("csv", "jsonl")
_MOST_HINTS = 10


class StreamRows:
    """Parses the blocks of one stream.

    Args:
        source: has the stream's name and its format, or `auto`.

    Attributes:
        format: format of the last line.
        parser: parser of that format.

    Raises:
        BadInput: the format is NPY, or it is frames and the model does not take files.
    """

    def __init__(self, info: KnnInfo, source: Source, request: Request, chain: Chain | None = None) -> None:
        formats = _TEXT if source.format == "auto" else (source.format,)
        if source.format == FRAMES:
            _require_files(info, request)
            formats = ("jsonl",)  # a frame becomes a line
        if "npy" in (*formats, request.output_format):
            raise _npy()
        self._name, self._info = source.name, info
        self._parsers: dict[str, Parser] = {
            name: make_parser(info, name, request, chain)
            for name in formats
            if len(formats) == 1 or name != "csv" or chain is None or chain.input.width is not None
        }
        self.format = next(iter(self._parsers), formats[0])
        self.parser = self._parsers[self.format]
        self._decided = False
        self._told, self._next_jump = "", 1
        self._hints = {""}

    def parse(self, block: bytes) -> Iterator[Parsed]:
        """Yields the parsed rows of a block of whole lines; line by line until a row has decided the format.

        Raises:
            BadInput: a header does not fit the model, or the stream is NPY.
        """
        while block and not self._decided:
            line, _, block = block.partition(b"\n")
            yield from self._look_at(line + b"\n")
        if block:
            yield from self._parse(block)

    def follow(self, info: KnnInfo, chain: Chain | None = None) -> bool:
        """Parses rows for another model from now on (`chain`: its stages); False (no change) if its columns differ."""
        if _columns(info) != _columns(self._info) or (info.table is None) != (self._info.table is None):
            return False
        self._info = info
        for parser in self._parsers.values():
            parser.follow(info, chain)
        return True

    def take_hint(self, parsed: Parsed) -> str:
        """Returns the hint about the first bad line in `parsed`; "" if given before, or after `_MOST_HINTS` hints."""
        if parsed.hint in self._hints or len(self._hints) > _MOST_HINTS:
            return ""
        self._hints.add(parsed.hint)
        return parsed.hint

    def take_gaps(self, *, at_end: bool) -> str:
        """Returns a text about the gaps in the samples if there are new ones, else "".

        Before the stream ends (`at_end`), returns a text only when the number of jumps in time reaches 1, 2, 4, ...
        """
        jumps = self.parser.count_jumps()
        if not at_end and jumps < self._next_jump:
            return ""
        self._next_jump = 1 << jumps.bit_length()
        before, self._told = self._told, self.parser.describe_gaps()
        return self._told if self._told != before else ""

    def _look_at(self, line: bytes) -> Iterator[Parsed]:
        if len(self._parsers) > 1:
            self.format = sniff(line)
            if self.format == "npy":
                raise _npy()
            before, self.parser = self.parser, self._parsers[self.format]
            self.parser.line = before.line
        for parsed in self._parse(line):
            self._decided = len(parsed.rows) + parsed.samples > 0
            yield parsed

    def _parse(self, block: bytes) -> Iterator[Parsed]:
        with named(self._name):
            for part in self.parser.blocks(block):
                yield self.parser.parse(part)


def _columns(info: KnnInfo) -> list[tuple[str | None, bool]]:
    """Returns (name, whether its cells are numbers) of each raw column; a stream fits all models with an equal list."""
    if info.window is not None:
        others = [(name, False) for name in (info.window.time, info.window.recording)]
        return [*((name, True) for name in info.window.columns), *others]
    if (raw := info.input) is not None:  # a sound or a picture becomes what the stages take, whatever its size
        kind = "sound" if raw.audio else "picture" if raw.image else str(raw.stages[0].shape)
        return [(name, False) for name in (*raw.columns, str(raw.width), kind)]
    if info.table is None:
        return [(name, True) for name in info.feature_names]
    return [(column.name, column.encoding == "number") for column in info.table.columns]


def _require_files(info: KnnInfo, request: Request) -> None:
    """Raises BadInput if the model does not take files, or if `request` copies columns, which files do not have."""
    if info.input is None or info.window is not None:
        said = "a frame holds a sound, a picture or an array, but the model takes rows of numbers"
        raise BadInput(said, hint="--format csv or jsonl")
    if request.columns.keep:
        raise BadInput(f"--keep {request.columns.keep[0]}: --format frames has no keys to copy", hint="--format jsonl")


def _npy() -> BadInput:
    return BadInput("--stream reads and writes lines of CSV or JSON, not NPY", hint="leave out --stream")
