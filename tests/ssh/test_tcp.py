"""A TCP connection by a deadline: resolvers and addresses that never answer hold nobody."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from knnkit.errors import Unreachable
from knnkit.transport.address import Address
from knnkit.transport.ssh import tcp
from knnkit.transport.ssh.connection import SshTransport


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.2", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def hung_resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Answers what is a number, and names only when the test is over."""
    over = threading.Event()
    genuine = socket.getaddrinfo

    def resolve(*arguments: Any, flags: int = 0, **options: Any) -> Any:
        if not flags & socket.AI_NUMERICHOST:
            over.wait()
        return genuine(*arguments, flags=flags | socket.AI_NUMERICHOST, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    yield
    over.set()


def test_a_resolver_that_never_answers_is_given_up(hung_resolver: None) -> None:
    with pytest.raises(TimeoutError, match="was not resolved in time"):
        tcp.connect("board.example", 22, time.monotonic() + 0.1)


def test_a_device_with_such_a_resolver_is_unreachable_within_its_deadline(hung_resolver: None) -> None:
    with pytest.raises(Unreachable, match=r"no connection within 0\.2 s") as caught:
        SshTransport.connect("board", Address("board.example", "pi"), timeout=0.2)
    assert caught.value.reason == "connect"


def test_an_address_needs_no_resolver(hung_resolver: None, listening: int) -> None:
    tcp.connect("127.0.0.2", listening, time.monotonic() + 10).close()


def test_what_can_be_no_name_is_an_error_and_no_wait() -> None:
    with pytest.raises((UnicodeError, socket.gaierror)):
        tcp.connect(f"{'a' * 70}.example", 22, time.monotonic() + 60)


def test_the_next_address_is_tried_where_one_refuses(monkeypatch: pytest.MonkeyPatch, listening: int) -> None:
    there, gone = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.2", listening)), ("127.0.0.3", listening)
    monkeypatch.setattr(tcp, "_resolve", lambda *_: [(*there[:4], gone), there])
    tcp.connect("board.example", listening, time.monotonic() + 10).close()


def test_an_address_that_swallows_everything_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def swallow(address: object, timeout: float, source: str | None) -> socket.socket:
        given.append(timeout)
        raise TimeoutError

    monkeypatch.setattr(tcp, "_open", swallow)
    monkeypatch.setattr(tcp, "_resolve", lambda *_: [None, None])
    with pytest.raises(TimeoutError):
        tcp.connect("board.example", 22, time.monotonic() + 1000)
    assert given[0] == pytest.approx(500, abs=50)
    assert given[1] == pytest.approx(1000, abs=50)  # the first took none of its share


def test_a_host_without_addresses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "_resolve", lambda *_: [])
    with pytest.raises(OSError, match="has no address"):
        tcp.connect("board.example", 22, time.monotonic() + 1)
