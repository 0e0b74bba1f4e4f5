"""A TCP proxy that can cut, freeze, delay and throttle connections, for one server on 127.0.0.x."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator


class Proxy:
    """Forwards connections to (host, port). Attributes may be changed at any time, and affect later bytes."""

    def __init__(self, host: str, port: int, *, listen: str = "127.0.0.9") -> None:
        self._to = (host, port)
        self.cut_after: int | None = None  # bytes from the client until every connection is cut, once
        self.delay = 0.0  # seconds, each way
        self.rate: float | None = None  # bytes per second from the client
        self.frozen = False  # passes nothing, closes nothing
        self.unanswered = False  # the same, but only for what the server says
        self.sent = 0  # bytes from clients so far
        self.connections = 0
        self.moved = threading.Condition()
        self._server = socket.create_server((listen, 0), backlog=64)
        self.host, self.port = self._server.getsockname()[:2]
        self._open = threading.Lock()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def wait_sent(self, count: int, timeout: float = 20.0) -> None:
        """Waits until clients have sent `count` bytes in all."""
        with self.moved:
            assert self.moved.wait_for(lambda: self.sent >= count, timeout), f"only {self.sent} bytes passed"

    def cut(self) -> None:
        """Cuts every connection now."""
        with self._open:  # a client that comes back at once is no part of it
            doomed, self._sockets = self._sockets, []
        for sock in doomed:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            try:
                server = socket.create_connection(self._to)
            except OSError:
                client.close()
                continue
            with self._open:
                self._sockets += [client, server]
            threading.Thread(target=self._pass, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, from_client: bool) -> None:
        late: queue.Queue[tuple[float, bytes]] = queue.Queue()
        threading.Thread(target=self._send_late, args=(late, sink), daemon=True).start()
        with contextlib.suppress(OSError):
            while data := source.recv(16384):
                while self.frozen or (self.unanswered and not from_client):
                    time.sleep(0.02)
                late.put((time.monotonic() + self.delay, data))
                if from_client:
                    self._count(len(data))
        late.put((0.0, b""))

    def _send_late(self, late: queue.Queue[tuple[float, bytes]], sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = late.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)

    def _count(self, size: int) -> None:
        if self.rate:
            time.sleep(size / self.rate)
        with self.moved:
            self.sent += size
            self.moved.notify_all()
        if self.cut_after is not None and self.sent >= self.cut_after:
            self.cut_after = None
            self.cut()


@contextlib.contextmanager
def proxy(host: str, port: int) -> Iterator[Proxy]:
    """A proxy for the length of a with block."""
    made = Proxy(host, port)
    try:
        yield made
    finally:
        made.close()
