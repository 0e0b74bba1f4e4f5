"""Rows of an input as features, block by block.

Reads every format that `classify` and `enrol` accept. The first bad line is an error that names its number and column.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from device_agent.serving.columns import Columns, Kept
from device_agent.serving.load import Loaded
from device_agent.shared.console.lists import listed
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import BadInput, named
from device_agent.shared.protocol.record import record, replace
from device_agent.shared.queries import cell_type, row_type
from device_agent.shared.tabular.csv_dialect import short
from device_agent.shared.tabular.csv_reader import CsvParser
from device_agent.shared.tabular.inputs import FILES, Source, open_source
from device_agent.shared.tabular.json_reader import JsonParser
from device_agent.shared.tabular.reader import Parsed, Parser

if TYPE_CHECKING:
    from device_agent.shared.embedding.chain import Chain
    from device_agent.shared.protocol.model_info import KnnInfo


@record
class Request:
    """Options of `classify`; `input` and `output` are paths, None or `-` for standard input and output."""

    input: str | None
    output: str | None
    format: str  # auto | csv | jsonl | npy
    output_format: str | None  # None: that of the input
    columns: Columns
    ignore_extra: bool = False
    runtime: str = "auto"
    search: str | None = None
    threads: int = 1
    counters: list[Parser] | None = None  # collects the parsers of the run: they count cells, columns and gaps


def open_rows(loaded: Loaded, request: Request) -> tuple[Source, Request]:
    """Returns the opened input of `request`, and the request with which to answer it.

    A model with stages and no window also reads files of sounds and pictures, and folders of them, if the format is
    `auto`. The returned request then writes JSON lines, unless `request` has an output format, and each answer to a
    folder begins with the name of its file. Otherwise the returned request is `request`.

    Raises:
        BadInput: the input cannot be opened, the output is a file of the input, or `--keep` names a column for
            files, which have only the column `file`.
    """
    if loaded.model.chain is None:
        return open_source(request.input, request.format), request
    from device_agent.serving.files import columns_of
    from device_agent.shared.embedding.files import is_among, is_raw

    path = None if request.input == "-" or request.format != "auto" else request.input
    if path is not None and is_raw(path) and loaded.model.info.window is None:
        if request.output is not None and is_among(Path(request.output), Path(path)):
            hint = "name a file in another folder for the answers"
            raise BadInput(f"--output {request.output} is one of the files to read", hint=hint)
        columns, form = columns_of(path, request.columns), request.output_format or "jsonl"
        return open_source(path, FILES), replace(request, columns=columns, output_format=form)
    return replace(open_source(request.input, request.format), longest=loaded.longest_line), request


def make_parser(info: KnnInfo, format: str, request: Request, chain: Chain | None = None) -> Parser:
    """Returns the parser of `format`, csv or jsonl, with the options of `request`; `chain`: the model's stages."""
    how: dict[str, Any] = {"ignore_extra": request.ignore_extra or info.ignore_extra, "keep": request.columns.keep}
    dtype = row_type(info.origin)
    if info.window is not None:
        from device_agent.shared.windows.window_parser import WindowParser

        parser: Parser = WindowParser(info.window, format, **how, dtype=dtype, chain=chain)
    elif chain is not None:
        from device_agent.shared.embedding.parsers import InputCsvParser, InputJsonParser

        is_json = format == "jsonl"
        parser = InputJsonParser(chain, dtype, keep=how["keep"]) if is_json else InputCsvParser(chain, dtype, **how)
    elif info.table is not None:
        from device_agent.shared.features import parsers

        made = parsers.TableCsvParser if format == "csv" else parsers.TableJsonParser
        parser = made(info.table, dtype, **how, tell=_tell_once)
        parser.counted = request.counters is not None
    else:
        parser = (CsvParser if format == "csv" else JsonParser)(info.feature_names, dtype, **how)
    if request.counters is not None:
        request.counters.append(parser)
        if info.ignore_extra and not request.ignore_extra and info.window is None:
            parser.left_out.tell = _tell_once  # the model, not the user, asked to ignore columns
    return parser


def _tell_once(said: str) -> None:
    print(f"device_agent: {said} (reported once)", file=sys.stderr, flush=True)


#: Most bad samples of an input that are printed one by one.
_SHOWN = 3


@record
class Block:
    """Rows that were read together."""

    rows: NDArray[Any]  # (n, n_features), the model's features
    kept: Kept  # for each column to copy (`--keep`), its values in these rows
    name: str  # name of a row in messages, with a place for its number: `line {}`
    numbers: Sequence[int]  # number of each row in the input
    raw: Any = b""  # what the rows were parsed from: whole lines, or an (n, n_columns) array


class Rows:
    """The rows of one input.

    Args:
        info: the metadata in the model file (knn.json). `enrol` takes the transforms out of it, because it stores the
            cells as they are before transforms.
        chain: the loaded stages of the model; None if it has none.
        request: names the columns to copy or ignore.
        hint: hint for a bad line whose error has no hint.

    Attributes:
        parser: parser of the lines; after the first block, it knows the header, and the gaps between windows.

    Raises:
        BadInput: the model does not accept the format of the input.
    """

    def __init__(self, info: KnnInfo, chain: Chain | None, source: Source, request: Request, hint: str) -> None:
        self.source, self._info, self._request, self._hint = source, info, request, hint
        self._is_npy, self._bad, self._good = source.format == "npy", 0, False
        if self._is_npy and request.columns.keep:
            raise BadInput("--keep: the columns of NPY have no names", hint="give the rows as CSV or JSON lines")
        self._chain = chain if info.window is None and source.format in ("npy", FILES) else None
        if self._chain is None:
            self.parser = make_parser(info, "csv" if self._is_npy else source.format, request, chain)
        else:
            self.parser = Parser(())

    def blocks(self) -> Iterator[Block]:
        """Yields the rows in blocks.

        Raises:
            BadInput: a row cannot be read.
        """
        if self._chain is not None:
            yield from self._inputs(self._chain)
        elif self._is_npy:
            yield from self._arrays() if self._info.window is None else self._samples()
        else:
            yield from self._text()

    def _text(self) -> Iterator[Block]:
        for block in self.source.blocks():
            for part in self.parser.blocks(block):
                parsed = self._parse(part)
                if len(parsed.rows):
                    yield Block(parsed.rows, parsed.kept, "line {}", parsed.lines, part)
        self._tell_others()

    def _parse(self, block: bytes) -> Parsed:
        with named(self.source.name):
            parsed = self.parser.parse(block)
        self._good = self._good or len(parsed.rows) > 0
        if parsed.errors:
            number, message = next(iter(parsed.errors.values()))
            others = self._hint != constants.OTHER_LINES or parsed.count == 1 or self._good
            hint = self._hint if others else f"correct all lines: of the first {parsed.count:,}, none can be read"
            raise BadInput(f"{self.source.where(number)}: {message}", hint=parsed.hint or hint)
        for number, message in parsed.bad[: max(0, _SHOWN - self._bad)]:
            print(f"device_agent: {self.source.where(number)}: {message}", file=sys.stderr)
        self._bad += len(parsed.bad)
        return parsed

    def _tell_others(self) -> None:
        """If more than `_SHOWN` samples were bad, prints the number of the others, and which columns a sample has."""
        if self._bad > _SHOWN and self._info.window is not None:
            said = f"{self._bad - _SHOWN:,} more bad lines; a sample has {listed(self._info.window.numbers)}"
            print(f"device_agent: {self.source.name}: {said}", file=sys.stderr)

    def _arrays(self) -> Iterator[Block]:
        """Yields the rows of an NPY file; checks here that values are finite, so that the error can name the row."""
        before = 0
        for wide in self.source.arrays(len(self._info.columns)):
            kept: Kept = ()
            with np.errstate(over="ignore"):
                rows: NDArray[Any] = np.ascontiguousarray(wide, dtype=cell_type(self._info))
                if self._info.table is not None:
                    kept = [[(count, 0) for count in np.isnan(rows).sum(axis=1).tolist()]]
                    rows = self._filled(rows, before)
                finite = np.isfinite(rows.astype(np.float32, copy=False))
            if not finite.all():
                row, column = (int(place[0]) for place in np.nonzero(~finite))
                where = f"rows[{before + row}, {column}] ({short(self._info.feature_names[column])})"
                value = (wide if wide.shape == rows.shape else rows)[row, column]
                said = f"{self.source.name}: {where}: {value} is not a finite float32 number"
                raise BadInput(said, hint="leave out the row, or fill the cell")
            yield Block(rows, kept, "rows[{}]", range(before, before + len(rows)), wide)
            before += len(rows)

    def _filled(self, rows: NDArray[Any], before: int) -> NDArray[Any]:
        from device_agent.shared.features.parsers import TableCsvParser, read_array

        assert isinstance(self.parser, TableCsvParser)
        with named(self.source.name):
            found = read_array(self.parser.coder, rows, before)
        for said in self.parser.coder.take_news():
            _tell_once(said)
        return found

    def _samples(self) -> Iterator[Block]:
        """Yields the windows cut from the samples of an NPY file."""
        from device_agent.shared.windows.window_parser import WindowParser

        assert isinstance(self.parser, WindowParser)
        assert self._info.window is not None
        for cut in self.parser.arrays(self.source.arrays(len(self._info.window.numbers))):
            if len(cut.rows):
                yield Block(cut.rows, cut.marks, "rows[{}]", cut.last)

    def _inputs(self, chain: Chain) -> Iterator[Block]:
        from device_agent.serving.files import embedded
        from device_agent.shared.embedding.files import name_in

        before, columns = 0, self._request.columns
        for rows, names in embedded(self.source, chain, row_type(self._info.origin)):
            kept = [[name_in(Path(self.source.name), Path(name)) for name in names]] if columns.keep else ()
            yield Block(rows, kept, "inputs[{}]", range(before, before + len(rows)))
            before += len(rows)
