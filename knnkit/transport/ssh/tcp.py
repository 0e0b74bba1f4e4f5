"""Opens a TCP connection within a time limit."""

from __future__ import annotations

import socket
import threading
import time
from queue import Empty, SimpleQueue
from typing import Any

_DEAD_PEER = 60_000  # milliseconds until unanswered data ends a connection (TCP_USER_TIMEOUT)
_SHORTEST = 0.1  # seconds for an attempt, also when the deadline is near

_Address = tuple[Any, Any, int, str, Any]  # as getaddrinfo gives them


def connect(host: str, port: int, deadline: float) -> socket.socket:
    """Returns a connection to the first address of the host that accepts one; `deadline` is a `time.monotonic()`.

    Raises:
        TimeoutError: no address accepted a connection by the deadline.
        OSError: the name does not resolve, or the last address refused.
    """
    addresses = _resolve(host, port, deadline)
    refusal: OSError = OSError(f"{host} has no address")
    for number, address in enumerate(addresses):
        # One address that swallows everything must not take the time of those after it.
        left = (deadline - time.monotonic()) / (len(addresses) - number)
        try:
            return _open(address, max(_SHORTEST, left))
        except OSError as error:
            refusal = error
    raise refusal


def _resolve(host: str, port: int, deadline: float) -> list[_Address]:
    """Resolves the name in a thread of its own, which is abandoned at the deadline: the resolver has no time limit."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass
    answers: SimpleQueue[list[_Address] | Exception] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:  # UnicodeError, too, for what can be no name
            answers.put(error)

    threading.Thread(target=ask, name="knnkit-resolve", daemon=True).start()
    try:
        found = answers.get(timeout=max(_SHORTEST, deadline - time.monotonic()))
    except Empty:
        raise TimeoutError(f"{host}: the name is not resolved in time") from None
    if isinstance(found, Exception):
        raise found
    return found


def _open(address: _Address, timeout: float) -> socket.socket:
    family, kind, protocol, _, where = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.settimeout(timeout)
        sock.connect(where)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_PEER)
    except BaseException:
        sock.close()
        raise
    return sock
