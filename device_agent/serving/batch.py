"""Classifies a whole file or pipe, in constant memory.

One release answers the whole run. The first bad line ends the run: the error names its number and column, and no output
file is left. `device_agent.serving.stream` answers rows as they arrive instead.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from device_agent.serving.columns import (
    Columns,
    Kept,
    LabelColumns,
    Local,
    Training,
    Values,
    neighbor_classes,
    with_marks,
)
from device_agent.serving.in_flight import InFlight
from device_agent.serving.load import Loaded, answering, keeping, load_kept
from device_agent.serving.npy_writer import NpyRenderer
from device_agent.serving.outputs import Sink, require_apart
from device_agent.serving.parsing import Request as Request
from device_agent.serving.parsing import make_parser, tell_once
from device_agent.serving.progress import Progress
from device_agent.serving.replicas import answer_all, label_all
from device_agent.serving.writers import RENDERERS, Renderer
from device_agent.shared.protocol.errors import AgentError, BadInput
from device_agent.shared.protocol.record import replace
from device_agent.shared.queries import cell_type, row_type
from device_agent.shared.tabular.inputs import Source, open_source
from device_agent.shared.tabular.reader import Parsed, Parser, short
from device_agent.store.starts import Start
from device_agent.store.store import Store

if TYPE_CHECKING:
    from device_agent.serving.files import FileSource
    from device_agent.shared.features.coder import Coder
    from device_agent.shared.protocol.input_info import Window
    from device_agent.shared.protocol.model_info import KnnInfo
    from device_agent.shared.windows.window_parser import WindowParser


def classify(store: Store, request: Request, start: Start | None = None) -> int:
    """Answers every row of the input; returns the number of rows. The first answer ends `start`.

    Raises:
        BadInput: a row, a line or the file cannot be classified.
        DeviceUnfit, Refused, ModelUnusable: no release can answer.
    """
    release = answering(store).release
    loaded = keeping(store, load_kept(store, release, request.runtime, request.threads, search=request.search))
    try:
        loaded.tell_warnings()
        with InFlight(store.root) as in_flight:
            count = classify_by(loaded, request, start, in_flight)
        save_counts(store, loaded, request)
        _tell_if_left(store, loaded)
        return count
    finally:
        loaded.close()


def save_counts(store: Store, loaded: Loaded, request: Request, refused: int = 0) -> None:
    """Adds what was counted since the last call, and `refused` lines, to the counts that `status` shows."""
    found = [counts for take in request.counters or () if any(counts := take())]
    if not (found or refused):
        return
    from device_agent.shared.protocol.documents import CellCounts
    from device_agent.store import cell_counts

    for counts in found:
        cell_counts.add(store, CellCounts(loaded.digest, *counts))
    if refused:
        cell_counts.add(store, CellCounts(loaded.digest, {}, {}, refused=refused))


def _tell_if_left(store: Store, loaded: Loaded) -> None:
    """Says on standard error that another release answers by now than the one that answered the whole run."""
    try:
        now = answering(store).release.digest
    except (AgentError, OSError):
        return
    if now != loaded.digest:
        print(f"device_agent: warning: {loaded.digest} gave these answers; {now} answers now", file=sys.stderr)


def classify_by(loaded: Loaded, request: Request, start: Start | None = None, in_flight: InFlight | None = None) -> int:
    """As `classify`, with a release that is already loaded and stays loaded.

    Raises:
        BadInput, ModelUnusable: as `classify`.
    """
    source, request = open_rows(loaded, request)
    renderer = make_renderer(loaded, request.columns, request.output_format or source.format)
    sink = Sink(request.output, renderer.dtype if isinstance(renderer, NpyRenderer) else None)
    try:
        table = _Table(loaded, source, request, start, in_flight)
        count = _run(table, renderer, sink)
        sink.finish(count)
    except BaseException:
        sink.abandon()
        raise
    return count


def open_rows(loaded: Loaded, request: Request) -> tuple[Source | FileSource, Request]:
    """Returns the input; for a model with stages it may be a file of a sound or picture, or a folder of them."""
    if loaded.model.chain is None:
        return open_source(request.input, request.format), request
    from device_agent.serving.files import FileSource, naming_files
    from device_agent.shared.embedding import files

    if request.format == "auto" and request.input not in (None, "-") and files.is_raw(str(request.input)):
        columns = naming_files(str(request.input), request.columns)
        return FileSource(str(request.input)), replace(request, columns=columns)
    return replace(open_source(request.input, request.format), longest=loaded.longest_line), request


def make_renderer(loaded: Loaded, columns: Columns, format: str) -> Renderer:
    """Returns the renderer of `format` for a loaded release."""
    training, signed, taught, info = None, loaded.signed, loaded.taught, loaded.model.info
    local = None if signed.info.enrol is None else Local(signed.info.n_train, taught.ids if taught else ())
    if columns.neighbors:
        from device_agent.shared.release import row_origins

        classes = np.append(neighbor_classes(signed.path), taught.codes if taught else ()).astype(np.int32)
        training = Training(classes, (row_origins.read(signed.path) or (None,))[0], local)
    if signed.info.window is not None and format != "npy":
        columns = with_marks(columns, signed.info.window)
    values = None
    if info.targets is not None:
        values = (LabelColumns if info.targets.classes else Values)(signed, info.targets, columns)
    return RENDERERS[format](info, columns, loaded.digest, training, values, local)


def _run(table: _Table, renderer: Renderer, sink: Sink) -> int:
    require_apart(table.source.descriptor, table.request.output)
    progress = Progress()
    count = 0
    for rows, rendered in _rendered(table, renderer):
        if table.start:
            table.start.answered()
        if count == 0 and (table.header or isinstance(renderer, NpyRenderer)):
            sink.write(renderer.header())
        sink.write(rendered)
        count += rows
        progress.show(count)
    if count == 0:
        raise BadInput(f"{table.source.name}: {table.why_empty()}", reason="no-rows")
    progress.end()
    table.tell_gaps()
    return count


def _rendered(table: _Table, renderer: Renderer) -> Iterator[tuple[int, bytes]]:
    """Yields (number of rows, rendered answers) of each block."""
    loaded, request = table.loaded, table.request
    plain = not loaded.taught and loaded.model.info.targets is None and not loaded.ring
    if request.columns.labels_only and plain:
        for labels in label_all(loaded, table.blocks(), request.runtime, request.threads):
            yield len(labels), renderer.render_labels(labels, table.take())
    else:
        for answers in answer_all(loaded, table.blocks(), request.runtime, request.threads):
            yield len(answers.label), renderer.render(answers, len(answers.label), {}, table.take())


class _Table:
    """The rows of a source, block by block.

    Attributes:
        header: after the first block, whether there is a header line.
    """

    def __init__(
        self,
        loaded: Loaded,
        source: Source | FileSource,
        request: Request,
        start: Start | None,
        in_flight: InFlight | None,
    ) -> None:
        self.header = False
        self.loaded, self.source, self.request, self.start = loaded, source, request, start
        self._info, self._in_flight = loaded.model.info, in_flight
        self._waiting: deque[tuple[Kept, int, int]] = deque()
        self._windows: WindowParser | None = None

    def take(self) -> Kept:
        """Returns the values of the columns that are kept, of the oldest block that is read and not taken."""
        kept, _, _ = self._waiting.popleft()
        self._tell()
        return kept

    def _hand_out(self, rows: NDArray[Any], kept: Kept, name: str, numbers: Sequence[int]) -> NDArray[Any]:
        self._refuse_poison(rows, name, numbers)
        self._waiting.append((kept, numbers[0], numbers[-1]))
        self._tell()
        return rows

    def _tell(self) -> None:
        if self._in_flight and self._waiting:
            self._in_flight.answering(self._waiting[0][1], self._waiting[-1][2])

    def blocks(self) -> Iterator[NDArray[Any]]:
        if isinstance(self.source, Source) and self.source.format == "npy":
            if self.request.columns.keep:
                raise BadInput("--keep: the columns of NPY have no names", hint="give the rows as CSV or JSON lines")
            if self._info.window is not None:
                yield from self._sample_arrays(self.source, self._info.window)
            else:
                yield from self._arrays(self.source) if self.loaded.model.chain is None else self._inputs(self.source)
            return
        parser = make_parser(self._info, self.source.format, self.request, self.loaded.model.chain)
        if self._info.window is not None:
            self._windows = parser  # type: ignore[assignment]
        for block in self.source.blocks():
            for part in (block,) if self._windows is None else self._windows.blocks(block):
                parsed = self._parse(parser, part)
                self.header = bool(parser.header)
                if len(parsed.rows):
                    yield self._hand_out(parsed.rows, parsed.kept, "line {}", parsed.lines)

    def _arrays(self, source: Source) -> Iterator[NDArray[Any]]:
        """Converts the rows of an NPY file; checks them here, because an error names the row's number."""
        before = 0
        coder = _coder_of(self._info)
        if coder is not None and self.request.counters is not None:
            self.request.counters.append(lambda: (*coder.take_counts(), {}))
        for wide in source.arrays(len(self._info.columns)):
            kept: Kept = ()
            with np.errstate(over="ignore"):
                rows: NDArray[Any] = np.ascontiguousarray(wide, dtype=cell_type(self._info))
                if coder is not None:
                    kept = [[(count, 0) for count in np.isnan(rows).sum(axis=1).tolist()]]
                    rows = self._filled(coder, rows)
                finite = np.isfinite(rows.astype(np.float32, copy=False))
            if not finite.all():
                row, column = (int(place[0]) for place in np.nonzero(~finite))
                where = f"rows[{before + row}, {column}] ({short(self._info.feature_names[column])})"
                raise BadInput(f"{self.source.name}: {where}: {wide[row, column]} is not a finite float32 number")
            yield self._hand_out(rows, kept, "rows[{}]", range(before, before + len(rows)))
            before += len(rows)

    def _sample_arrays(self, source: Source, window: Window) -> Iterator[NDArray[Any]]:
        """Cuts the samples of an NPY file."""
        from device_agent.shared.windows.window_parser import WindowParser

        self._windows = parser = WindowParser(window, "csv")
        parser.dtype, parser.chain = row_type(self._info.origin), self.loaded.model.chain
        for cut in parser.arrays(source.arrays(len(window.numbers))):
            if len(cut.rows):
                yield self._hand_out(cut.rows, cut.marks, "rows[{}]", cut.last)

    def why_empty(self) -> str:
        """Returns why there is no answer."""
        return "it has no rows" if self._windows is None else self._windows.why_empty()

    def tell_gaps(self) -> None:
        """Reports on standard error the gaps that interrupted windows."""
        if self._windows is not None and (said := self._windows.gaps.describe()):
            print(f"device_agent: {self.source.name}: {said}", file=sys.stderr, flush=True)

    def _inputs(self, source: Source) -> Iterator[NDArray[Any]]:
        from device_agent.serving.files import embedded

        for rows, numbers in embedded(source, self.loaded.signed):
            yield self._hand_out(rows, (), "inputs[{}]", numbers)

    def _filled(self, coder: Coder, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        from device_agent.shared.features.parsers import read_array

        try:
            found: NDArray[np.float32] = read_array(coder, rows)
        except BadInput as error:
            raise BadInput(f"{self.source.name}: {error}", hint=error.hint) from None
        for said in coder.take_news():
            tell_once(said)
        return found

    def _refuse_poison(self, rows: NDArray[Any], name: str, numbers: Sequence[int]) -> None:
        """After a start that died: refuses a row that kills the model, before this process answers it."""
        if (self.start and self.start.in_doubt) or (self._in_flight and self._in_flight.suspects(numbers)):
            from device_agent.serving.poison import find_poison

            found = find_poison(self.loaded, rows, self.request.runtime)
            if found:
                hint = "take the row out, and report it: no row should do that"
                where = name.format(numbers[found[0]])
                raise BadInput(f"{self.source.name}, {where}: {found[1]}", reason="row-kills", hint=hint)

    def _parse(self, parser: Parser, block: bytes) -> Parsed:
        name = self.source.name
        try:
            parsed = parser.parse(block)
        except BadInput as error:
            raise BadInput(f"{name}: {error}", hint=error.hint) from None
        if parsed.errors:
            number, message = next(iter(parsed.errors.values()))
            raise BadInput(f"{self.source.where(number)}: {message}", hint=parsed.hint or self.source.others)
        for number, message in parsed.bad:
            print(f"device_agent: {self.source.where(number)}: {message}", file=sys.stderr)
        return parsed


def _coder_of(info: KnnInfo) -> Coder | None:
    if info.table is None:
        return None
    from device_agent.shared.features.coder import Coder

    return Coder(info.table, row_type(info.origin))
