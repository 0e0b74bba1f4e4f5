"""Answers rows as they arrive: classify --stream.

The rows of one read are answered before the next read, so that no row waits for a batch to fill; many rows of one read
use the batch graph. One release answers all rows of a read. The store is checked before each read: a row sent after
`activate` returned gets its answer from the new release, and a pending release never answers after its deadline. A bad
line is reported; the other lines are answered. Never continues with files that were damaged while it ran.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from device_agent.serving.batch import make_renderer, require_same_columns, save_counts
from device_agent.serving.in_flight import InFlight
from device_agent.serving.last_rows import NO_ROWS, LastRows
from device_agent.serving.load import Loaded, answering, load_accepted, stamp, with_ring, with_taught_rows
from device_agent.serving.outputs import open_output, require_apart, write_all
from device_agent.serving.rows import Request
from device_agent.serving.signal_flags import SignalFlags, stream_signals
from device_agent.serving.stream_rows import StreamRows
from device_agent.serving.writers import Renderer
from device_agent.shared.console.root_hints import with_root_of
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import AgentError, BadInput
from device_agent.shared.tabular.inputs import FRAMES, Lines, Source, open_source
from device_agent.shared.tabular.reader import Parsed, without_rows
from device_agent.store import state
from device_agent.store.starts import Start
from device_agent.store.store import Store
from device_agent.system import clock

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from device_agent.inference.tflite_knn import Answers
    from device_agent.serving.frames import Frames

#: Bytes per read, which are answered together: the most that an answer can be behind.
READ_BYTES = 1 << 15
#: A read of a live stream has at most so many rows; after a death they are answered one by one.
FEW_ROWS = 64
#: How often an idle stream looks for a new release, in milliseconds.
IDLE_MS = 1000
#: How often a busy stream stores its counts of missing and unknown cells, in seconds; an idle one does at once.
COUNTS_SECONDS = 60.0


def stream(store: Store, request: Request, start: Start) -> int:
    """Answers the input of `request`, often a pipe, line by line, until it ends or SIGTERM arrives.

    Calls `start.answered` after the first answer: then this start of the release does not count as failed. Returns
    the number of bad lines without answers; 0 after SIGTERM, which ends a service.

    Raises:
        BadInput: the header does not fit the model.
        Closed: the program that reads the answers has closed the pipe.
        AgentError: the output file cannot be written, or is the input.
        DeviceUnfit, Refused, ModelUnusable: no release can answer.
    """
    source = open_source(request.input, request.format, look=False)
    require_apart(source.descriptor, request.output)
    answerer = _Answerer(store, request, source, start)
    with stream_signals() as flags, answerer.in_flight:
        try:
            return _serve(answerer, source, flags)
        finally:
            answerer.save()
            answerer.last.close()
            answerer.tell_gaps(at_end=True)


def _serve(answerer: _Answerer, source: Source, flags: SignalFlags) -> int:
    lines = answerer.splitter()
    poll = select.poll()
    for descriptor in (source.descriptor, flags.descriptor):
        poll.register(descriptor, select.POLLIN)
    while not flags.stop:
        if flags.take_reload():
            answerer.follow(always=True)
        data = _read(poll, source, flags, answerer)
        if data == b"":
            answerer.answer_last(lines.finish())
            return answerer.refused
        if data:  # answered even if SIGTERM arrived meanwhile: it is no longer in the pipe
            answerer.answer(lines.feed(data))
            if lines.cut_overlong():
                answerer.refuse_overlong()
    answerer.drop_last(lines.left)
    return 0


def _read(poll: select.poll, source: Source, flags: SignalFlags, answerer: _Answerer) -> bytes | None:
    """Returns the bytes of the next read: b"" at the end of the input, None if a signal arrived first.

    `poll` watches the source and `flags`; while nothing comes, calls `answerer.wait` every `IDLE_MS`.
    """
    while True:
        ready = poll.poll(IDLE_MS)
        if any(number == source.descriptor for number, _ in ready):
            try:
                return source.read(READ_BYTES)
            except BlockingIOError:
                continue
        if ready:
            flags.drain()
            return None
        answerer.wait()


class _Answerer:
    """Answers blocks of lines with the current release."""

    def __init__(self, store: Store, request: Request, source: Source, start: Start) -> None:
        self.refused, self._saved, self._has_header = 0, 0, False
        self._store = store
        self._start: Start | None = start  # None after the first answer
        self._request = request
        self._name, self._unit = source.name, "frame" if source.format == FRAMES else "line"
        self._output = None if request.output == "-" else request.output
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._descriptor = open_output(Path(self._output), flags) if self._output else 1
        self._state_file, self._journal = str(store.state_file), str(store.root / constants.JOURNAL_FILE)
        self._stamp, self._taught = stamp(self._state_file), stamp(self._journal)
        self._answering = answering(store)
        self._loaded = self._load()
        self._loaded.tell_warnings()
        self._longest = self._loaded.longest_line
        self._rows = StreamRows(self._loaded.model.info, source, request, self._loaded.model.chain)
        self._renderers: dict[str, Renderer] = {}
        self._marks, self._new_labels = self._loaded.signed.info.enrol is not None, self._loaded.new_labels
        self._next_counts = 0.0
        self._renderer()
        self.in_flight = InFlight(store.root)
        self.last = LastRows(store.root, self._loaded.signed.info)
        if self.in_flight.died_at:
            said = f"a process died while it answered lines {self.in_flight}; a child process tries these lines first"
            print(f"device_agent: warning: {said}", file=sys.stderr, flush=True)

    def splitter(self) -> Lines | Frames:
        """Returns the object that splits the reads of this stream into lines or frames."""
        if self._unit == "line":
            return Lines(longest=self._longest)
        from device_agent.serving.frames import Frames

        return Frames()

    def answer(self, block: bytes) -> None:
        """Answers all lines of a block; switches to the current release first."""
        if not block:
            return
        self.check_release()
        if self._request.counters and time.monotonic() >= self._next_counts:
            self.save()
        if self._start and self._loaded.model.chain:  # its stages run while lines are parsed
            self._start.begin()
        answered = 0
        for parsed in self._rows.parse(block):
            safe = self._without_poison(parsed)
            self._answer(safe)
            answered += len(safe.rows)
        self.tell_gaps(at_end=False)
        if self._start and answered:
            self._start.answered()
            self._start = None

    def _without_poison(self, parsed: Parsed) -> Parsed:
        """Returns `parsed`, with each row that kills the model as a bad line; tests rows only after a process died."""
        if self._start and len(parsed.rows):
            self._start.begin()
        while len(parsed.rows) and ((self._start and self._start.in_doubt) or self.in_flight.suspects(parsed.lines)):
            from device_agent.serving.poison import find_poison

            found = find_poison(self._loaded, parsed.rows)
            if found is None:
                break
            parsed = without_rows(parsed, {found[0]: BadInput(found[1])})
        return parsed

    def _answer(self, parsed: Parsed) -> None:
        renderer = self._renderer()
        if self._rows.parser.header and not self._has_header:
            self._has_header = True
            self._write(renderer.header())
        for number, message in (*parsed.errors.values(), *parsed.bad):
            self._report(number, message)
        if hint := self._rows.take_hint(parsed):
            print(f"  try: {hint}", file=sys.stderr, flush=True)
        self.refused += len(parsed.errors) + len(parsed.bad)
        if not parsed.count:
            return
        # After a death, few rows are answered one by one: if one kills this process too, its line is known.
        batch = 1 if self.in_flight.died_at and parsed.count <= FEW_ROWS else self._loaded.model.batch
        if parsed.errors or parsed.count <= batch:
            answers = self._classify(parsed.rows, parsed.lines) if len(parsed.rows) else None
            self.last.keep(parsed.rows, parsed.errors)
            self._write(renderer.render(answers, parsed.count, parsed.errors, parsed.kept))
            return
        for start in range(0, parsed.count, batch):
            rows = parsed.rows[start : start + batch]
            kept = [column[start : start + batch] for column in parsed.kept]
            answers = self._classify(rows, parsed.lines[start : start + batch])
            self.last.keep(rows)
            self._write(renderer.render(answers, len(rows), {}, kept))

    def _classify(self, rows: NDArray[np.float32], lines: Sequence[int]) -> Answers:
        self.in_flight.answering(lines[0], lines[-1])
        answers = self._loaded.model.classify(rows)
        self.in_flight.answered()
        if self._loaded.ring:
            self._loaded.ring.note(rows, answers)
        return answers

    def save(self) -> None:
        """Writes the counts of missing and unknown cells, and the rows that wait to be kept (`Ring`)."""
        if self._loaded.ring:
            self._loaded.ring.save()
        save_counts(self._store, self._loaded, self._request, self.refused - self._saved)
        self._saved = self.refused
        self._next_counts = time.monotonic() + COUNTS_SECONDS

    def tell_gaps(self, *, at_end: bool) -> None:
        """Prints how many gaps interrupted windows: at 1, 2, 4, ... jumps of the time, and `at_end` of the stream."""
        if said := self._rows.take_gaps(at_end=at_end):
            print(f"device_agent: {self._name}: {said}", file=sys.stderr, flush=True)

    def wait(self) -> None:
        """Call it while no rows arrive: checks the release, saves counts, and no longer counts this start as failed."""
        if self._start:
            self._start.withdraw()
        self.check_release()
        if self._request.counters or self._loaded.ring:
            self.save()

    def _renderer(self) -> Renderer:
        format = self._request.output_format or self._rows.format
        if format not in self._renderers:
            self._renderers[format] = self._made(self._loaded, format)
        return self._renderers[format]

    def _made(self, loaded: Loaded, format: str) -> Renderer:
        return make_renderer(loaded, self._request.columns, format, marks=self._marks, new_labels=self._new_labels)

    def answer_last(self, block: bytes) -> None:
        """Answers `block`, a last line without a newline (b"": no such line); reports that it may be incomplete."""
        if block:
            self.answer(block)
            self._report(self._rows.parser.line, "the line does not end with a newline, so it may be incomplete")

    def drop_last(self, block: bytes) -> None:
        """Reports that `block`, the last line (b"": no such line), was read only in part and has no answer."""
        if block:
            self._report(self._rows.parser.line + 1, f"the {self._unit} is incomplete, so it has no answer")

    def refuse_overlong(self) -> None:
        """Reports the line that was just cut since it is too long. Its answer is an error (with windows: none)."""
        self._rows.parser.line += 1
        error = {0: (self._rows.parser.line, f"the line has more than {self._longest:,} bytes")}
        self._report(*error[0])
        self.refused += 1
        if self._loaded.model.info.window is None:
            self.last.keep(NO_ROWS, error)
            self._write(self._renderer().render(None, 1, error))

    def check_release(self) -> None:
        """Switches to the current release and to the present taught rows, if they have changed."""
        if self._loaded.signed.info.enrol is not None and (taught := stamp(self._journal)) != self._taught:
            self._taught = taught
            self._use(with_taught_rows(self._store, self._loaded))
            if self._loaded.warning:
                print(f"device_agent: warning: {self._loaded.warning}", file=sys.stderr, flush=True)
        found, until = stamp(self._state_file), self._answering.until
        if found == self._stamp and (until is None or clock.uptime() < until):
            return
        self._stamp = found
        self.follow()

    def follow(self, *, always: bool = False) -> None:
        """Verifies and loads the release that is to answer now, unless it is loaded; with `always`, even then."""
        try:
            self._answering = answering(self._store)
            if always or self._answering.release.digest != self._loaded.digest:
                self._switch()
        except (AgentError, OSError, MemoryError) as error:
            if not self._may_continue():
                raise
            said = f"device_agent: {error or 'not enough memory'}; release {self._loaded.digest[:12]} still answers"
            hint = with_root_of(getattr(error, "hint", ""), self._store.root)
            print(f"{said}\n  try: {hint}" if hint else said, file=sys.stderr)

    def _use(self, loaded: Loaded) -> None:
        self._renderers = {name: self._made(loaded, name) for name in self._renderers}
        self._loaded = loaded

    def _load(self) -> Loaded:
        asked, release = self._request, self._answering.release
        loaded = load_accepted(self._store, release, asked.runtime, asked.threads, stream=True, search=asked.search)
        return with_ring(self._store, loaded)

    def _switch(self) -> None:
        self._taught = stamp(self._journal)
        self.save()  # the new release's ring counts from what this one wrote
        loaded = self._load()
        try:  # what can fail comes before the rows are read for the other model
            made = {name: self._made(loaded, name) for name in self._renderers}
            if self._start is None or self._has_header:
                name = self._request.output_format or self._rows.format
                require_same_columns(self._loaded, self._renderers[name], loaded, made[name])
            loaded.tell_warnings()
            if not self._rows.follow(loaded.model.info, loaded.model.chain):
                said = f"the release {loaded.digest[:12]} does not fit this stream: other columns, or rules for cells"
                raise BadInput(said, hint="start the stream again")
        except BaseException:
            loaded.close()
            raise
        self._renderers = made
        self.last.close()
        self.last = LastRows(self._store.root, loaded.signed.info)
        before, self._loaded = self._loaded, loaded
        before.close()

    def _may_continue(self) -> bool:
        """Whether the loaded release may still answer: its mapped files are intact, and state.json names it.

        If state.json cannot be read, only the files count.
        """
        mapped = {constants.MODEL_FILE, *constants.STAGE_FILES} & self._loaded.opened.opened.keys()
        if not all(map(self._loaded.opened.is_intact, mapped)):
            return False
        try:
            current = self._store.load()
        except (AgentError, OSError):
            return True
        known = [ref.digest for ref in (current.committed, current.previous) if ref]
        pending = current.pending
        if pending and not state.is_over(pending, clock.now()):
            known.append(pending.release.digest)
        return self._loaded.digest in known

    def _write(self, data: bytes) -> None:
        write_all(self._descriptor, data, self._output)

    def _report(self, number: int, message: str) -> None:
        print(f"device_agent: {self._name}, {self._unit} {number}: {message}", file=sys.stderr)
