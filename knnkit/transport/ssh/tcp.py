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


_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}


def connect(host: str, port: int, deadline: float, *, family: str = "any", source: str | None = None) -> socket.socket:
    """Connects to the first address of a host that accepts a connection.

    Args:
        host: a name or an address.
        port: port of the host's SSH server.
        deadline: time limit, in seconds of `time.monotonic()`.
        family: addresses to try: any, inet (IPv4) or inet6.
        source: the address of this machine to connect from.

    Raises:
        TimeoutError: no address accepted a connection by the deadline.
        OSError: the name does not resolve, or the last address refused.
    """
    wanted = _FAMILIES.get(family, socket.AF_UNSPEC)
    addresses = [each for each in _resolve(host, port, deadline) if not wanted or each[0] == wanted]
    refusal: OSError = OSError(f"{host} has no address" + f" of AddressFamily {family}" * bool(wanted))
    for number, address in enumerate(addresses):
        # One address that swallows everything must not take the time of those after it.
        left = (deadline - time.monotonic()) / (len(addresses) - number)
        try:
            return _open(address, max(_SHORTEST, left), source)
        except OSError as error:
            refusal = error
    raise refusal


def _resolve(host: str, port: int, deadline: float) -> list[_Address]:
    """Resolves a name in a thread that is abandoned at the deadline, because the resolver has no time limit."""
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
        raise TimeoutError(f"{host}: the name was not resolved in time") from None
    if isinstance(found, Exception):
        raise found
    return found


def _open(address: _Address, timeout: float, source: str | None) -> socket.socket:
    family, kind, protocol, _, where = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.settimeout(timeout)
        if source:
            sock.bind(socket.getaddrinfo(source, 0, family=family, type=kind)[0][4])
        sock.connect(where)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_PEER)
    except BaseException:
        sock.close()
        raise
    return sock
