"""classify --stream: rows answered as they come, for as long as somebody sends them.

What one read brings is answered before the next one, so that nothing waits for a batch to fill; where many rows were
waiting they go through the batch signature. All rows of one read are answered by one release, and the store is looked
at before each, so that a row sent after `activate` returned is answered by the new release and a pending release
never answers past its deadline. A bad line is reported and the others are answered.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from device_agent.serving.batch import Request, make_parser, make_renderer
from device_agent.serving.load import answering, load_kept
from device_agent.serving.outputs import open_output, require_apart, write_all
from device_agent.serving.writers import Renderer
from device_agent.shared.protocol.errors import AgentError, BadInput
from device_agent.shared.tabular.inputs import MAX_LINE, Lines, Source, open_source
from device_agent.shared.tabular.reader import Parser
from device_agent.store import state
from device_agent.store.store import Store
from device_agent.system import clock

#: Bytes taken in one read: what is answered together, and how far an answer can be behind.
READ_BYTES = 1 << 15
#: How often a stream that nobody feeds looks for a new release, in milliseconds.
IDLE_MS = 1000


def stream(store: Store, request: Request) -> int:
    """Answers standard input, or a pipe, line by line until it ends or SIGTERM comes.

    Returns how many lines were bad, and so not answered. SIGTERM is how a service is ended: it returns 0 then.

    Raises:
        BadInput: the header does not fit the model.
        Closed: nobody reads the answers any more.
        AgentError: the output file cannot be written there, or is the input.
        DeviceUnfit, Refused, ModelUnusable: no release can answer.
    """
    source = open_source(request.input, request.format, READ_BYTES)
    if source.format == "npy" or request.output_format == "npy":
        raise BadInput("a stream is CSV or JSON lines", hint="leave out --stream for NPY")
    require_apart(source.descriptor, request.output)
    desk = _Desk(store, request, source)
    with _signals() as told:
        return _serve(desk, source, told)


def _serve(desk: _Desk, source: Source, told: _Told) -> int:
    lines = Lines()
    data: bytes | None = source.start
    poll = select.poll()
    for descriptor in (source.descriptor, told.descriptor):
        poll.register(descriptor, select.POLLIN)
    while not told.stop:
        if data:
            desk.answer(lines.feed(data))
            if lines.cut_overlong():
                desk.refuse_overlong()
        if told.take_reload():
            desk.reload()
        data = _read(poll, source, told, desk)
        if data == b"":
            desk.answer_last(lines.finish())
            return desk.refused
    desk.drop_last(lines.finish())
    return 0


def _read(poll: select.poll, source: Source, told: _Told, desk: _Desk) -> bytes | None:
    """What is there to read; empty at the end, None when a signal came first."""
    while True:
        ready = poll.poll(IDLE_MS)
        if any(number == source.descriptor for number, _ in ready):
            try:
                return source.read(READ_BYTES)
            except BlockingIOError:
                continue
        if ready:
            told.drain()
            return None
        desk.look()


class _Told:
    """What signals asked for; `descriptor` becomes readable when one came."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.stop = False
        self._reload = False

    def terminate(self, number: int, frame: Any) -> None:
        self.stop = True
        signal.signal(number, signal.SIG_DFL)  # a second one ends a process that cannot write

    def hang_up(self, number: int, frame: Any) -> None:
        self._reload = True

    def take_reload(self) -> bool:
        asked, self._reload = self._reload, False
        return asked

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 4096)


@contextlib.contextmanager
def _signals() -> Iterator[_Told]:
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    told = _Told(readable)
    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, told.terminate),
        signal.SIGHUP: signal.signal(signal.SIGHUP, told.hang_up),
    }
    wakeup = signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    try:
        yield told
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(readable)
        os.close(writable)


class _Desk:
    """Answers blocks of lines with the release that answers now."""

    def __init__(self, store: Store, request: Request, source: Source) -> None:
        self.refused = 0
        self._store = store
        self._request = request
        self._format = request.output_format or source.format
        self._name = source.name
        self._descriptor = 1
        self._output = None if request.output == "-" else request.output
        if self._output:
            self._descriptor = open_output(Path(self._output), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._state_file = str(store.state_file)
        self._stamp = self._look_at_state()
        self._answering = answering(store)
        self._loaded = load_kept(store, self._answering.release, request.runtime, request.threads, stream=True)
        self._renderer: Renderer = make_renderer(self._loaded, request.columns, self._format)
        self._parser: Parser = make_parser(self._loaded.model.info, source.format, ignore_extra=request.ignore_extra)

    def answer(self, block: bytes) -> None:
        """Answers all lines of a block."""
        if not block:
            return
        self.look()
        had_header = self._parser.header
        try:
            parsed = self._parser.parse(block)
        except BadInput as error:
            raise BadInput(f"{self._name}: {error}", hint=error.hint) from None
        if self._parser.header and had_header is None:
            self._write(self._renderer.header())
        for number, message in parsed.errors.values():
            self._complain(number, message)
        self.refused += len(parsed.errors)
        if not parsed.count:
            return
        batch = self._loaded.model.batch
        if parsed.errors or parsed.count <= batch:
            answers = self._loaded.model.classify(parsed.rows) if len(parsed.rows) else None
            self._write(self._renderer.render(answers, parsed.count, parsed.errors))
            return
        for start in range(0, parsed.count, batch):
            rows = parsed.rows[start : start + batch]
            self._write(self._renderer.render(self._loaded.model.classify(rows), len(rows), {}))

    def answer_last(self, block: bytes) -> None:
        """Answers a last line that had no newline, and says so: a writer that died may have cut it short."""
        if block:
            self.answer(block)
            self._complain(self._parser.line, "has no newline: if its writer died, it may have been cut short")

    def drop_last(self, block: bytes) -> None:
        """Says that a line of which only a part was read is not answered."""
        if block:
            self._complain(self._parser.line + 1, "was not complete when the stream was ended: not answered")

    def refuse_overlong(self) -> None:
        """Answers a line that is longer than any row."""
        self._parser.line += 1
        error = {0: (self._parser.line, f"has more than {MAX_LINE:,} bytes")}
        self._complain(*error[0])
        self.refused += 1
        self._write(self._renderer.render(None, 1, error))

    def look(self) -> None:
        """Takes over the release that answers now, if it is another one."""
        stamp = self._look_at_state()
        until = self._answering.until
        if stamp == self._stamp and (until is None or clock.uptime() < until):
            return
        self._stamp = stamp
        self._follow(always=False)

    def reload(self) -> None:
        """Verifies and loads the release that answers anew."""
        self._follow(always=True)

    def _follow(self, *, always: bool) -> None:
        try:
            self._answering = answering(self._store)
            if always or self._answering.release.digest != self._loaded.digest:
                self._take_over()
        except (AgentError, OSError) as error:
            if not self._may_go_on():
                raise
            print(f"device_agent: {error}; {self._loaded.digest[:12]} goes on answering", file=sys.stderr)

    def _take_over(self) -> None:
        loaded = load_kept(
            self._store, self._answering.release, self._request.runtime, self._request.threads, stream=True
        )
        if loaded.model.info.feature_names != self._loaded.model.info.feature_names:
            loaded.close()
            raise BadInput(
                f"the release {loaded.digest[:12]} takes other columns than this stream", hint="start the stream again"
            )
        self._renderer = make_renderer(loaded, self._request.columns, self._format)
        before, self._loaded = self._loaded, loaded
        before.close()

    def _may_go_on(self) -> bool:
        """Whether the release in memory is one that the state still names as good."""
        try:
            current = self._store.load()
        except (AgentError, OSError):
            return True
        known = [ref.digest for ref in (current.committed, current.previous) if ref]
        pending = current.pending
        if pending and not state.is_over(pending, clock.now()):
            known.append(pending.release.digest)
        return self._loaded.digest in known

    def _look_at_state(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._state_file)  # noqa: PTH116 (on every read: half the time)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _write(self, data: bytes) -> None:
        write_all(self._descriptor, data, self._output)

    def _complain(self, number: int, message: str) -> None:
        print(f"device_agent: {self._name}, line {number}: {message}", file=sys.stderr)
