"""Classifies a whole file or pipe, in constant memory.

One release answers all rows. The first bad line is an error that names its number and column, and no output file is
written. `device_agent.serving.stream` answers rows as they arrive instead.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

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
from device_agent.serving.load import Loaded, answering, load_accepted, with_ring
from device_agent.serving.outputs import Sink, require_apart
from device_agent.serving.replicas import answer_all, label_all
from device_agent.serving.rows import Block, Request, Rows, open_rows
from device_agent.serving.writers import RENDERERS, Renderer
from device_agent.shared.protocol.constants import OTHER_LINES
from device_agent.shared.protocol.errors import AgentError, BadInput
from device_agent.store.starts import Start
from device_agent.store.store import Store

#: Seconds between two lines of progress.
_PROGRESS_SECONDS = 0.5


def classify(store: Store, request: Request, start: Start) -> None:
    """Answers every row of the input of `request`.

    Calls `start.answered` after the first answers, so that this start of the release does not count as failed.

    Raises:
        BadInput: a row, a line or the file cannot be classified.
        DeviceUnfit, Refused, ModelUnusable: no release can answer.
    """
    release = answering(store).release
    loaded = with_ring(store, load_accepted(store, release, request.runtime, request.threads, search=request.search))
    try:
        loaded.tell_warnings()
        with InFlight(store.root) as in_flight:
            answer(loaded, request, start, in_flight)
        save_counts(store, loaded, request)
        _tell_if_left(store, loaded)
    finally:
        loaded.close()


def save_counts(store: Store, loaded: Loaded, request: Request, refused: int = 0) -> None:
    """Adds what parsers counted since the last call, and the number of `refused` lines, to the counts of `status`."""
    found = [counts for counter in request.counters or () if any((counts := counter.take_counts()).values())]
    if refused:
        found.append({})
    for counts in found:
        from device_agent.store import cell_counts

        cell_counts.add(store, loaded.digest, counts, refused)
        refused = 0


def _tell_if_left(store: Store, loaded: Loaded) -> None:
    """Warns on standard error if the device switched to another release while `loaded` answered."""
    try:
        now = answering(store).release.digest
    except (AgentError, OSError):
        return
    if now != loaded.digest:
        said = f"release {loaded.digest} gave all these answers; the device has switched to release {now}"
        print(f"device_agent: warning: {said}", file=sys.stderr)


def answer(loaded: Loaded, request: Request, start: Start, in_flight: InFlight) -> None:
    """Answers every row of `request` with a loaded release, as `classify` does; `in_flight` records the lines."""
    source, request = open_rows(loaded, request)
    renderer = make_renderer(loaded, request.columns, request.output_format or source.format)
    sink = Sink(request.output, renderer.dtype)
    try:
        rows = Rows(loaded.model.info, loaded.model.chain, source, request, OTHER_LINES)
        sink.finish(_run(_Blocks(loaded, rows, request, start, in_flight), renderer, sink))
    except BaseException:
        sink.abandon()
        raise


def make_renderer(
    loaded: Loaded,
    columns: Columns,
    format: str,
    *,
    marks: bool | None = None,
    new_labels: tuple[int | str, ...] | None = None,
) -> Renderer:
    """Returns the renderer of `columns` for answers of a loaded release; `format` is csv, jsonl or npy.

    `marks`: whether CSV has the columns `local` and `id`; None: if the release allows rows to be taught. `new_labels`:
    labels, beside those of the release, that have a column `proba_LABEL` in CSV; None: those of the taught rows.
    """
    training, signed, taught, info = None, loaded.signed, loaded.taught, loaded.model.info
    local = None if signed.info.enrol is None else Local(signed.info.n_train, taught.ids if taught else ())
    if columns.neighbors:
        from device_agent.shared.release import row_origins

        classes = np.append(neighbor_classes(signed.path), taught.codes if taught else ()).astype(np.int32)
        targets = None
        if info.targets is not None:
            voter = (taught.exact if taught else signed.get_exact()).regressor
            targets = getattr(voter, "targets", None)  # outlier factors have none
        training = Training(classes, row_origins.read(signed.path)[0], local, targets)
    if signed.info.window is not None and format != "npy":
        columns = with_marks(columns, signed.info.window)
    values = None
    if info.targets is not None:
        values = (LabelColumns if info.targets.classes else Values)(loaded.model, info.targets, columns)
    if format == "csv" and marks is not None:
        local = (local or Local(signed.info.n_train, ())) if marks else None
    shown = None if new_labels is None else tuple(dict.fromkeys((*signed.info.classes, *new_labels)))
    return RENDERERS[format](info, columns, loaded.digest, training, values, local, shown)


def require_same_columns(old: Loaded, before: Renderer, new: Loaded, after: Renderer) -> None:
    """Refuses a release whose answers a reader of the stream would mistake: it saw the columns of the old one.

    `before` and `after` are the renderers of the two releases.

    Raises:
        BadInput: the columns of CSV differ, such as `proba_CLASS`, or the targets of a model.
    """
    was, now = (each.model.info.targets for each in (old, new))
    targets = (was and (was.names, bool(was.classes))) != (now and (now.names, bool(now.classes)))
    if targets or before.header() != after.header():
        said = f"the release {new.digest[:12]} answers with other columns than this stream"
        raise BadInput(said, hint="start the stream again")


def _run(given: _Blocks, renderer: Renderer, sink: Sink) -> int:
    source, parser = given.rows.source, given.rows.parser
    require_apart(source.descriptor, given.request.output)
    progress = _Progress()
    count = 0
    for rows, rendered in _rendered(given, renderer):
        given.start.answered()
        if count == 0 and (parser.header or renderer.dtype is not None):
            sink.write(renderer.header())
        sink.write(rendered)
        count += rows
        progress.show(count)
    if count == 0:
        said, hint = parser.why_empty()
        raise BadInput(f"{source.name}: {said}", reason="no-rows", hint=hint)
    progress.end()
    if said := parser.describe_gaps():
        print(f"device_agent: {source.name}: {said}", file=sys.stderr, flush=True)
    return count


def _rendered(given: _Blocks, renderer: Renderer) -> Iterator[tuple[int, bytes]]:
    """Yields (number of rows, rendered answers) of each block of `given`."""
    loaded, request = given.loaded, given.request
    plain = not loaded.taught and loaded.model.info.targets is None and not loaded.ring
    if request.columns.labels_only and plain:
        for labels in label_all(loaded, given.blocks()):
            yield len(labels), renderer.render_labels(labels, given.take())
    else:
        for answers in answer_all(loaded, given.blocks()):
            yield len(answers.label), renderer.render(answers, len(answers.label), {}, given.take())


class _Blocks:
    """The blocks of an input that are parsed and wait for their answers, in order; `InFlight` records their lines."""

    def __init__(self, loaded: Loaded, rows: Rows, request: Request, start: Start, in_flight: InFlight) -> None:
        self.loaded, self.rows, self.request, self.start, self._in_flight = loaded, rows, request, start, in_flight
        self._waiting: deque[tuple[Kept, int, int]] = deque()

    def take(self) -> Kept:
        """Returns the cells to copy (`--keep`) of the oldest block that waits for answers, and removes the block."""
        kept, _, _ = self._waiting.popleft()
        self._tell()
        return kept

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yields the (n, n_features) rows of each block, and stores what `take` returns for it."""
        for block in self.rows.blocks():
            self._refuse_poison(block)
            self._waiting.append((block.kept, block.numbers[0], block.numbers[-1]))
            self._tell()
            yield block.rows

    def _tell(self) -> None:
        if self._waiting:
            self._in_flight.answering(self._waiting[0][1], self._waiting[-1][2])

    def _refuse_poison(self, block: Block) -> None:
        """Raises BadInput for a row that kills the model; tests a block only after a process may have died of it."""
        if self.start.in_doubt or self._in_flight.suspects(block.numbers):
            from device_agent.serving.poison import find_poison

            found = find_poison(self.loaded, block.rows)
            if found:
                hint = "remove the row, and report the fault: no row should stop a model"
                where = block.name.format(block.numbers[found[0]])
                raise BadInput(f"{self.rows.source.name}, {where}: {found[1]}", reason="row-kills", hint=hint)


class _Progress:
    """Progress line on standard error, if that is a terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._start = self._last = time.monotonic()

    def show(self, count: int) -> None:
        """Shows `count`, the number of answered rows, and the rate, at most every `_PROGRESS_SECONDS`."""
        if not self._shown:
            return
        now = time.monotonic()
        if now - self._last >= _PROGRESS_SECONDS:
            self._last = now
            rate = count / (now - self._start)
            print(f"\r{count:,} rows, {rate:,.0f} a second", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Ends the line that shows the progress."""
        if self._shown and self._last != self._start:
            print(file=sys.stderr)
