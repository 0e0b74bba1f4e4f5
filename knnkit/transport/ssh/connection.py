"""Transport to a device over SSH, with paramiko.

Host keys are always checked, and every wait has a time limit. One connection belongs to one thread. paramiko's defaults
that would harm a fleet are replaced here and in the modules beside this one; tests/ssh checks each with a real sshd.
Never retries: `knnkit.fleet.device.connect` does.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from knnkit.errors import DeviceFailed, KnnkitError, Unreachable
from knnkit.transport.address import Address
from knnkit.transport.base import MAX_COMPLAINT, MAX_OUTPUT, Completed, no_end
from knnkit.transport.buffers import Appending, Capped, Ends
from knnkit.transport.ssh import known_hosts, tcp
from knnkit.transport.ssh.auth import authenticate
from knnkit.transport.ssh.channel import Watchdog, drain, feed, feed_bytes
from knnkit.transport.ssh.config import Resolved, resolve
from knnkit.transport.ssh.login import Between, Marks, no_command
from knnkit.transport.ssh.paramiko_import import paramiko
from knnkit.transport.ssh.proxy_command import ProxySocket

_KEEPALIVE = 15  # seconds
_CHUNK = 32 * 1024
#: A server that allows one session at a time may need so many seconds to see that the last one was closed.
_SESSION_SECONDS = 1.0
#: Seconds by which paramiko waits longer than our watchdog. Whichever came first would say what went wrong, paramiko by
#: a clock that may be set meanwhile.
_AFTER_US = 60.0

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # its errors reach the user as ours


class SshTransport(Appending):
    """A Transport (knnkit.transport.base) over one SSH connection."""

    def __init__(self, name: str, hops: Sequence[paramiko.Transport], where: Resolved, warnings: Sequence[str]) -> None:
        self.name = name
        self.warnings = tuple(warnings)  # of the login
        self._hops = hops
        self._where = where

    @classmethod
    def connect(cls, name: str, address: Address, *, timeout: float) -> SshTransport:
        """Opens a connection, through the jump hosts that `address` or ssh_config names.

        `timeout` in seconds covers the whole login: name resolution, jump hosts, key exchange, authentication.

        Raises:
            HostKeyError: a host key is unknown, changed or revoked.
            ConfigError: the ssh_config that deploy.yaml names may run commands, and the user has not agreed.
            Unreachable: no connection or login, for another reason; `reason` "connect": trying again may help.
        """
        hops: list[paramiko.Transport] = []
        warnings: list[str] = []
        with key_in_errors(address):
            where = resolve(address)
            with _guarded(name, where, hops, timeout) as way:
                for hop in (*where.jumps, where):
                    warnings += _enter(hop, hops, way)
        return cls(name, hops, where, warnings)

    def run(
        self, argv: Sequence[str], *, timeout: float, input: bytes = b"", max_output: int = MAX_OUTPUT
    ) -> Completed:
        """Runs a command on the device, and waits for its end at most `timeout` seconds; `input` is its stdin."""
        out = Capped(max_output, strict=True)
        with self._watch(argv[0], total=timeout) as watchdog:
            completed = self._execute(argv, lambda ch, _: feed_bytes(ch, input, watchdog.touch), out.write, watchdog)
        return out.answer(completed, self.name)

    def pipe(self, argv: Sequence[str], source: BinaryIO, sink: BinaryIO, *, idle: float | None) -> Completed:
        """Runs a command on the device between two files; gives up after `idle` seconds without a byte."""
        ends = Ends(source, sink)
        with self._watch(argv[0], idle=idle) as watchdog:
            completed = self._execute(
                argv,
                lambda ch, ready: feed(ch, lambda: (ready.wait() and ends.read(_CHUNK)) or b"", watchdog.touch),
                ends.write,
                watchdog,
            )
        ends.check()
        return completed

    def close(self) -> None:
        """Closes the connection to the device, and the connections to the jump hosts."""
        _close(self._hops)

    def _execute(
        self,
        argv: Sequence[str],
        send: Callable[[paramiko.Channel, threading.Event], None],
        out: Callable[[bytes], None],
        watchdog: Watchdog,
    ) -> Completed:
        started, marks, complaint = time.monotonic(), Marks.new(), Capped(MAX_COMPLAINT)
        ready = threading.Event()
        between, err = Between(marks, out, ready.set), Between(marks.on_stderr, complaint.write)
        with contextlib.closing(self._open_session()) as channel:
            channel.fileno()  # before anything arrives, so that its pipe tells of everything
            channel.exec_command(marks.around(argv))
            send(channel, ready)
            try:
                code = drain(channel, between.write, err.write, watchdog.touch)
                between.finish()
                err.finish()
            except Capped.Full:
                code = -1
            finally:
                ready.set()
        if code is None:
            raise EOFError("the connection was lost")
        if not between.began:
            raise no_command(self.name, self._where.user, self._where.by_hand("ssh"), code, [between.noise, err.noise])
        code = code if between.exit_code is None else between.exit_code  # a login may end with another
        return Completed(tuple(argv), code, b"", bytes(complaint.data), time.monotonic() - started)

    def _open_session(self) -> paramiko.Channel:
        """Opens a channel; tries again if a server that allows few channels has not yet closed earlier ones."""
        give_up = time.monotonic() + _SESSION_SECONDS
        while True:
            try:
                return self._hops[-1].open_session()
            except paramiko.ChannelException as error:
                if time.monotonic() >= give_up:
                    raise DeviceFailed(
                        f"{self.name}: the server opens no session ({error.text}): MaxSessions in sshd_config",
                        reason="no-session",
                        hint="on the board: `MaxSessions 10` in /etc/ssh/sshd_config, then sudo systemctl reload ssh",
                    ) from None
            time.sleep(0.05)

    @contextlib.contextmanager
    def _watch(self, what: str, *, total: float | None = None, idle: float | None = None) -> Iterator[Watchdog]:
        with Watchdog(self.close, total=total, idle=idle) as watchdog:
            try:
                yield watchdog
            except (KnnkitError, BrokenPipeError):
                raise
            except (OSError, EOFError, paramiko.SSHException) as error:
                if watchdog.fired:
                    raise no_end(self.name, what, *watchdog.limit) from None
                said = str(error) or "the connection was lost"
                raise Unreachable(f"{self.name}: {what}: {said}", reason="connection-lost") from None


def scan(name: str, address: Address, *, timeout: float) -> tuple[Resolved, known_hosts.HostKey]:
    """Returns the settings for connecting to `address`, with ssh_config applied, and the host key offered there.

    Trusts no key, and does not log in. `name` is the device's name, for messages.

    Raises:
        HostKeyError: the key of a jump host is not known.
        ConfigError: the ssh_config that deploy.yaml names may run commands, and the user has not agreed.
        Unreachable: the SSH server cannot be reached, or ssh_config cannot be applied.
    """
    hops: list[paramiko.Transport] = []
    with key_in_errors(address):
        where = resolve(address)
        with _guarded(name, where, hops, timeout) as way:
            for hop in where.jumps:
                _enter(hop, hops, way)
            _open(where, hops, way)
            key = _offered(hops[-1])
    _close(hops)
    return where, key


@contextlib.contextmanager
def key_in_errors(address: Address) -> Iterator[None]:
    """If a KnnkitError in the block names a path that deploy.yaml sets, adds the key and its line to the message."""
    try:
        yield
    except KnnkitError as error:
        raise type(error)(address.with_key(str(error)), hint=error.hint, reason=error.reason) from None


@dataclass
class _Way:
    """Progress of connecting to the device `name` (settings `to`); `hop`: the device or jump host contacted now."""

    name: str
    to: Resolved
    deadline: float
    hop: Resolved | None = None

    @property
    def left(self) -> float:
        """Seconds until the deadline, at least 0.1."""
        return max(0.1, self.deadline - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() >= self.deadline

    def stuck(self, said: str, reason: str) -> Unreachable:
        """Returns the error that the connection failed: the device, the jump host where it failed, then `said`."""
        device = f"{self.to.host}:{self.to.port}"
        at = f"{self.name} ({device})" if self.name != self.to.host else device
        hop = self.hop or self.to
        if hop is not self.to:
            at += f": jump host {hop.host}:{hop.port}"
        hint = f"is the host on, and is this its address? {hop.by_hand('ssh', '-v')}"
        return Unreachable(f"{at}: {said}", hint=hint, reason=reason)


@contextlib.contextmanager
def _guarded(name: str, where: Resolved, hops: list[paramiko.Transport], timeout: float) -> Iterator[_Way]:
    """After an error in the block or `timeout` seconds, closes the connections in `hops`, and raises a KnnkitError.

    `where` has the settings of the device `name`. Yields the progress, in which the caller records the present `hop`.
    """
    way = _Way(name, where, time.monotonic() + timeout)
    with Watchdog(lambda: _close(hops), total=timeout) as watchdog:
        try:
            yield way
        except BaseException as error:  # some of paramiko's paths raise a bare Exception
            _close(hops)
            if not isinstance(error, Exception):
                raise
            ignored = _ignored(way.hop or where)
            if isinstance(error, KnnkitError) and not watchdog.fired:
                raise type(error)(f"{name}: {error}{ignored}", hint=error.hint, reason=error.reason) from None
            late = watchdog.fired or isinstance(error, TimeoutError)
            said = f"no connection within {timeout:g} s" if late else _say(error)
            raise way.stuck(said + ignored, _reason(error)) from None


def _ignored(hop: Resolved) -> str:
    """Returns text to add to an error: settings of `hop` that ssh follows and knnkit does not; "" if none."""
    return f" (knnkit does not follow {', '.join(hop.ignored)} of ssh_config)" if hop.ignored else ""


def _say(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return "the name does not resolve"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, paramiko.ChannelException):
        return f"the jump host cannot reach the device ({error.text})"
    return str(error) or f"the connection ended ({type(error).__name__})"


def _reason(error: Exception) -> str:
    if isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN:
        return "no-such-name"
    return "algorithms" if isinstance(error, paramiko.ssh_exception.IncompatiblePeer) else "connect"


def _enter(hop: Resolved, hops: list[paramiko.Transport], way: _Way) -> tuple[str, ...]:
    _open(hop, hops, way)
    _check_host_key(hops[-1], hop)
    return authenticate(hops[-1], hop, timeout=way.left)


def _open(hop: Resolved, hops: list[paramiko.Transport], way: _Way) -> None:
    way.hop = hop
    sock = _reach(hop, hops, way)
    try:
        transport = paramiko.Transport(sock)
    except BaseException:
        sock.close()
        raise
    hops.append(transport)
    if way.is_over:  # the watchdog has closed what was there, and does not come again
        raise TimeoutError
    left = way.left + _AFTER_US
    transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = left
    _prefer_known(transport, hop)
    try:
        transport.start_client(timeout=left)
    except (OSError, EOFError, paramiko.SSHException) as error:
        if not isinstance(sock, ProxySocket) or isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
            raise
        sock.close()
        raise Unreachable(f"{hop.host}: ProxyCommand {hop.proxy}: {sock.said}", reason="connect") from None
    if not transport.initial_kex_done:  # start_client returns at its timeout without a word
        raise TimeoutError
    transport.set_keepalive(_KEEPALIVE)


def _reach(hop: Resolved, hops: list[paramiko.Transport], way: _Way) -> socket.socket | paramiko.Channel:
    if hops:
        to, left = (hop.host, hop.port), way.left + _AFTER_US
        return hops[-1].open_channel("direct-tcpip", to, ("127.0.0.1", 0), timeout=left)
    if hop.proxy:
        return ProxySocket(hop.proxy)
    return tcp.connect(hop.host, hop.port, way.deadline, family=hop.family, source=hop.source)


def _prefer_known(transport: paramiko.Transport, hop: Resolved) -> None:
    """Makes paramiko ask the server `hop` first for the kinds of host key that known_hosts has for it."""
    known = {key.kind for key in known_hosts.load(hop.known_hosts).lookup(hop.key_name, hop.key_port)}
    if "ssh-rsa" in known:
        known |= {"rsa-sha2-512", "rsa-sha2-256"}
    options = transport.get_security_options()
    options.key_types = tuple(sorted(options.key_types, key=lambda kind: kind not in known))


def _check_host_key(transport: paramiko.Transport, hop: Resolved) -> None:
    known, offered = known_hosts.load(hop.known_hosts), _offered(transport)
    if hop.revoked:
        known = replace(known, lines=(*known.lines, *known_hosts.load_revoked(hop.revoked)))
    known.check(hop.key_name, hop.key_port, offered, hop.typed)


def _offered(transport: paramiko.Transport) -> known_hosts.HostKey:
    key = transport.get_remote_server_key()
    return known_hosts.HostKey(key.get_name(), key.asbytes())


def _close(hops: Sequence[paramiko.Transport]) -> None:
    for transport in reversed(hops):
        with contextlib.suppress(Exception):  # a broken connection may complain in many ways; it is gone either way
            transport.close()
            transport.sock.close()  # one that broke before leaves this to a thread of its own, and does not wait for it
