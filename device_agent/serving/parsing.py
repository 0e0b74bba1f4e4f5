"""Request of a run, and the parser of its rows.

Loads the code of tables, windows and stages only for a model that has them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from device_agent.serving.columns import Columns
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.protocol.record import record
from device_agent.shared.queries import row_type
from device_agent.shared.tabular.csv_reader import CsvParser
from device_agent.shared.tabular.json_reader import JsonParser
from device_agent.shared.tabular.reader import Counts, Parser

if TYPE_CHECKING:
    from device_agent.shared.embedding.chain import Chain


#: Returns what was counted since the last call.
Counter = Callable[[], Counts]


@record
class Request:
    """Parameters of `classify`; a path of None or `-` is a standard stream."""

    input: str | None
    output: str | None
    format: str  # auto | csv | jsonl | npy
    output_format: str | None  # None: that of the input
    columns: Columns
    ignore_extra: bool = False
    runtime: str = "auto"
    search: str | None = None
    threads: int = 1
    counters: list[Counter] | None = None  # collects those of the run


def make_parser(info: KnnInfo, format: str, request: Request, chain: Chain | None = None) -> Parser:
    """Returns the parser of a text format; `chain` has the stages of a model with an input."""
    ignore_extra = request.ignore_extra or info.ignore_extra
    if info.window is not None:
        from device_agent.shared.windows.window_parser import WindowParser

        windows = WindowParser(info.window, format, ignore_extra=ignore_extra, keep=request.columns.keep)
        windows.dtype, windows.chain = row_type(info.origin), chain
        return windows
    if chain is not None:
        from device_agent.shared.embedding.parsers import InputCsvParser, InputJsonParser

        if format == "jsonl":
            return InputJsonParser(info, chain, keep=request.columns.keep)
        return InputCsvParser(info, chain, ignore_extra=ignore_extra, keep=request.columns.keep)
    if info.table is not None:
        from device_agent.shared.features import parsers

        made = parsers.TableCsvParser if format == "csv" else parsers.TableJsonParser
        parser = made(info, ignore_extra=ignore_extra, keep=request.columns.keep, tell=tell_once)
        parser.counted = request.counters is not None
        return _counting(parser, request)
    plain = CsvParser if format == "csv" else JsonParser
    return _counting(plain(info, ignore_extra=ignore_extra, keep=request.columns.keep), request)


def _counting(parser: CsvParser | JsonParser, request: Request) -> Parser:
    if request.counters is not None:
        request.counters.append(parser.take_counts)
        parser.left_out.tell = tell_once
    return parser


def tell_once(said: str) -> None:
    """Says on standard error what is said once in a run."""
    print(f"device_agent: {said} (reported once)", file=sys.stderr, flush=True)
