"""What paramiko does by default and a fleet cannot bear, one test each, against a real sshd."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support import sshd
from support.proxy import proxy

from knnkit.errors import DataError, DeviceFailed, Unreachable, UsageError
from knnkit.transport.address import Address
from knnkit.transport.base import MAX_COMPLAINT
from knnkit.transport.local import LocalTransport
from knnkit.transport.ssh import connection
from knnkit.transport.ssh.connection import SshTransport
from knnkit.transport.ssh.paramiko_import import paramiko
from knnkit.transport.upload import Pushed, PushFile, push

Dial = Callable[..., SshTransport]
MEGABYTE = 1024 * 1024


def through(address: Address, host: str, port: int, tmp_path: Path) -> Address:
    """The same server by way of a proxy, under its own name in known_hosts."""
    known = tmp_path / "proxy_known_hosts"
    held = Path(address.known_hosts[0]).read_text().split(maxsplit=1)[1]
    known.write_text(f"[{host}]:{port} {held}")
    return replace(address, host=host, port=port, known_hosts=(str(known),))


#: A command that goes on for as long as a file is there.
WHILE_THERE = 'while [ -e "$1" ]; do sleep 0.1; done'


@pytest.fixture
def going(tmp_path: Path) -> Iterator[Path]:
    """The file of `WHILE_THERE`: what waits for such a command to end waits for the end of the test."""
    path = tmp_path / "going"
    path.touch()
    yield path
    path.unlink()


# --- commands -----------------------------------------------------------------------------------------------------
@pytest.fixture(params=["ssh", "local"])
def transport(request: pytest.FixtureRequest, no_ssh_config: Path) -> SshTransport | LocalTransport:
    """Both transports keep the same promises."""
    if request.param == "local":
        return LocalTransport()
    dial: Dial = request.getfixturevalue("dial")
    return dial()


def test_arguments_arrive_exactly_and_no_shell_reads_them(transport: SshTransport) -> None:
    words = ["a b", "$HOME", "`id`", "'", '"', "\\", "x\ny", "*", "~", ";", "ü€", "", "-n"]
    completed = transport.run(["printf", "%s\\0", *words], timeout=10)
    assert completed.stdout.decode().split("\0")[:-1] == words


def test_exit_codes_and_signals_are_told(transport: SshTransport) -> None:
    assert transport.run(["sh", "-c", "exit 7"], timeout=10).exit_code == 7
    assert transport.run(["sh", "-c", "kill -9 $$"], timeout=10).exit_code < 0


def test_a_command_that_never_ends_is_given_up_at_its_deadline(transport: SshTransport, going: Path) -> None:
    with pytest.raises(Unreachable, match=r"did not end within 0\.5 s") as caught:
        transport.run(["sh", "-c", WHILE_THERE, "sh", str(going)], timeout=0.5)
    assert caught.value.reason == "deadline"
    assert "--command-timeout" in caught.value.hint


def test_four_megabytes_of_complaint_do_not_block_the_answer(transport: SshTransport) -> None:
    script = "head -c 4194304 /dev/zero >&2; echo answer; head -c 4194304 /dev/zero >&2"
    completed = transport.run(["sh", "-c", script], timeout=20)
    assert completed.stdout == b"answer\n"
    assert len(completed.stderr) == MAX_COMPLAINT


def test_a_device_that_says_too_much_is_cut_short(transport: SshTransport) -> None:
    with pytest.raises(DeviceFailed, match="sent more than 100,000 bytes"):
        transport.run(["yes"], timeout=20, max_output=100_000)


def test_an_answer_of_just_the_limit_is_taken(transport: SshTransport) -> None:
    completed = transport.run(["head", "-c", "100000", "/dev/zero"], timeout=10, max_output=100_000)
    assert len(completed.stdout) == 100_000


def test_much_goes_in_and_out_at_once(transport: SshTransport) -> None:
    data = os.urandom(6 * MEGABYTE)
    completed = transport.run(["cat"], timeout=30, input=data)
    assert hashlib.sha256(completed.stdout).digest() == hashlib.sha256(data).digest()


def test_a_command_that_reads_nothing_ends_all_the_same(transport: SshTransport) -> None:
    completed = transport.run(["true"], timeout=10, input=bytes(6 * MEGABYTE))
    assert completed.exit_code == 0


def test_a_grandchild_that_keeps_the_stream_open_does_not_hold_the_host(transport: SshTransport, going: Path) -> None:
    completed = transport.run(["sh", "-c", f"{WHILE_THERE} & echo done", "sh", str(going)], timeout=60)
    assert (completed.exit_code, completed.stdout) == (0, b"done\n")


def test_a_grandchild_that_goes_on_writing_is_ended_with_the_time_limit() -> None:
    with pytest.raises(Unreachable, match="did not end within 1"):
        LocalTransport().run(["sh", "-c", "while sleep 0.1; do echo more; done & echo done"], timeout=1)


def test_a_reader_that_pauses_loses_no_byte(transport: SshTransport) -> None:
    """As `| less` does: the command has ended long before its last answers are read."""

    class Pausing(io.BytesIO):
        def write(self, chunk: bytes) -> int:  # type: ignore[override]
            if not self.tell():
                time.sleep(2.5)
            return super().write(chunk)

    sink = Pausing()
    assert transport.pipe(["head", "-c", "100000", "/dev/zero"], io.BytesIO(), sink, idle=None).exit_code == 0
    assert len(sink.getvalue()) == 100_000


def test_rows_are_answered_as_they_come_in_constant_memory(transport: SshTransport) -> None:
    """The writer waits for each answer before it sends the next row."""
    read_end, write_end = os.pipe()
    answered = threading.Semaphore(0)
    lines: list[bytes] = []

    class Sink(io.RawIOBase):
        def write(self, chunk: bytes) -> int:  # type: ignore[override]
            lines.extend(bytes(chunk).splitlines())
            for _ in range(bytes(chunk).count(b"\n")):
                answered.release()
            return len(chunk)

    def feed() -> None:
        with os.fdopen(write_end, "wb", buffering=0) as rows:
            for number in range(5):
                rows.write(b"row %d\n" % number)
                assert answered.acquire(timeout=60)

    writer = threading.Thread(target=feed)
    writer.start()
    with os.fdopen(read_end, "rb") as source:
        completed = transport.pipe(["cat", "-u"], source, Sink(), idle=90)  # type: ignore[arg-type]
    writer.join()
    assert completed.exit_code == 0
    assert lines == [b"row %d" % number for number in range(5)]


def test_a_pipe_without_traffic_is_given_up(transport: SshTransport) -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as source, os.fdopen(write_end, "wb"), pytest.raises(Unreachable):
        transport.pipe(["cat"], source, io.BytesIO(), idle=0.5)


class Failing(io.BytesIO):
    """A file on a disk of ours that fails after what is in it."""

    name = "rows.csv"

    def read1(self, size: int | None = -1, /) -> bytes:
        if chunk := super().read1(size):
            return chunk
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def write(self, data: object, /) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_rows_that_cannot_be_read_to_their_end_are_no_shorter_input(transport: SshTransport) -> None:
    answers = io.BytesIO()
    with pytest.raises(DataError, match=r"rows\.csv: Input/output error"):
        transport.pipe(["cat"], Failing(b"1,2\n"), answers, idle=10)
    assert answers.getvalue() == b"1,2\n"


def test_answers_that_our_disk_does_not_take_are_no_fault_of_the_device(transport: SshTransport) -> None:
    with pytest.raises(UsageError, match=r"rows\.csv: No space left on device"):
        transport.pipe(["cat"], io.BytesIO(b"1,2\n"), Failing(), idle=10)


def test_closing_twice_does_nothing(transport: SshTransport) -> None:
    transport.close()
    transport.close()


# --- uploads ------------------------------------------------------------------------------------------------------
def test_files_arrive_private_and_whole_and_the_second_time_not_at_all(transport: SshTransport, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3 * MEGABYTE + 17))
    there = tmp_path / "device dir" / "deep" / "it's a model"
    told: list[tuple[int, int]] = []
    files = [PushFile.of(source, str(there))]
    done = push(transport, files, timeout=20, progress=lambda now, total: told.append((now, total)))
    part = there.with_name("it's a model.part")
    assert part.read_bytes() == source.read_bytes()
    assert part.stat().st_mode & 0o777 == 0o600
    assert part.parent.stat().st_mode & 0o777 == 0o700
    assert done == Pushed(files[0].size, 0)
    assert told[-1] == (files[0].size, files[0].size)
    assert push(transport, files, timeout=20) == Pushed(0, files[0].size)
    part.rename(there)  # as the device does
    assert push(transport, files, timeout=20) == Pushed(0, 0)
    assert not part.exists()


def test_a_part_is_resumed_and_another_files_part_is_not(transport: SshTransport, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(2 * MEGABYTE))
    there = tmp_path / "device" / "model"
    there.parent.mkdir()
    part = there.with_name("model.part")
    part.write_bytes(source.read_bytes()[:MEGABYTE])
    assert push(transport, [PushFile.of(source, str(there))], timeout=20).resumed == MEGABYTE
    part.write_bytes(bytes(3 * MEGABYTE))
    assert push(transport, [PushFile.of(source, str(there))], timeout=20).resumed == 0
    assert part.read_bytes() == source.read_bytes()


def test_a_file_that_is_there_with_other_bytes_stays_beside_the_new_one(
    transport: SshTransport, tmp_path: Path
) -> None:
    source, there = tmp_path / "source", tmp_path / "there"
    source.write_bytes(b"new")
    there.write_bytes(b"old")
    push(transport, [PushFile.of(source, str(there))], timeout=20)
    assert (there.read_bytes(), (tmp_path / "there.part").read_bytes()) == (b"old", b"new")


def test_a_place_that_cannot_be_written_is_the_devices_failure(transport: SshTransport, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DeviceFailed, match="cannot write") as caught:
        push(transport, [PushFile.of(source, str(tmp_path / "file" / "model"))], timeout=20)
    assert caught.value.reason == "cannot-write"


def test_a_server_without_sftp_will_do(tmp_path: Path, no_ssh_config: Path) -> None:
    """As on a board with Dropbear; a part is resumed there as well."""
    source, there = tmp_path / "source", tmp_path / "device" / "model"
    source.write_bytes(os.urandom(2 * MEGABYTE))
    there.parent.mkdir()
    part = there.with_name("model.part")
    part.write_bytes(source.read_bytes()[:MEGABYTE])
    with sshd.running(tmp_path / "plain", sftp=False) as plain:
        to = Address(
            plain.host,
            plain.user,
            plain.port,
            identity=str(plain.identity),
            config=str(no_ssh_config),
            known_hosts=(str(plain.known_hosts),),
        )
        transport = SshTransport.connect("board", to, timeout=10)
        told: list[int] = []
        file = PushFile.of(source, str(there))
        done = push(transport, [file], timeout=20, progress=lambda now, total: told.append(now))
        assert (done.resumed, done.sent) == (MEGABYTE, MEGABYTE)
        assert part.read_bytes() == source.read_bytes()
        assert told == sorted(told)
        assert told[-1] == file.size
        fresh = tmp_path / "device" / "fresh"
        push(transport, [PushFile.of(source, str(fresh))], timeout=20)
        assert fresh.with_name("fresh.part").stat().st_mode & 0o777 == 0o600
        transport.close()


def test_writes_are_pipelined_and_wait_for_no_answer(
    server: sshd.Sshd, address: Address, dial: Dial, tmp_path: Path
) -> None:
    """Over a line of 60 ms, 8 MB in writes that wait for an answer each take 15 s and more."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(2 * MEGABYTE))
    with proxy(server.host, server.port) as between:
        transport = dial(through(address, between.host, between.port, tmp_path))

        def silence(done: int, total: int) -> None:
            between.unanswered = done < MEGABYTE

        push(transport, [PushFile.of(source, str(tmp_path / "there"))], timeout=30, progress=silence)
    assert (tmp_path / "there.part").read_bytes() == source.read_bytes()


def test_a_large_upload_cut_in_the_middle_resumes(
    server: sshd.Sshd, address: Address, dial: Dial, tmp_path: Path
) -> None:
    """The size of a model of 60,000 rows with 784 features."""
    source, there = tmp_path / "source", tmp_path / "there"
    block = os.urandom(MEGABYTE)
    with source.open("wb") as out:
        for number in range(180):
            out.write(number.to_bytes(8, "big") + block)
    file = PushFile.of(source, str(there))
    assert file.size > 188_000_000
    with proxy(server.host, server.port) as between:
        to = through(address, between.host, between.port, tmp_path)
        between.cut_after = 100 * MEGABYTE
        with pytest.raises(Unreachable) as caught:
            push(dial(to), [file], timeout=60)
        assert caught.value.reason == "connection-lost"
        done = push(dial(to), [file], timeout=60)
    assert done.resumed > 90 * MEGABYTE
    assert done.sent == file.size - done.resumed
    assert PushFile.of(tmp_path / "there.part", "").sha256 == file.sha256


def test_an_upload_that_stands_still_is_given_up(
    server: sshd.Sshd, address: Address, dial: Dial, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(24 * MEGABYTE))
    with proxy(server.host, server.port) as between:
        transport = dial(through(address, between.host, between.port, tmp_path))
        file = PushFile.of(source, str(tmp_path / "there"))

        def freeze(done: int, total: int) -> None:
            between.frozen = True

        with pytest.raises(Unreachable, match="3 s without progress"):
            push(transport, [file], timeout=3.0, progress=freeze)
        between.frozen = False


def test_a_line_that_goes_dead_under_a_command_is_given_up(
    server: sshd.Sshd, address: Address, dial: Dial, tmp_path: Path
) -> None:
    with proxy(server.host, server.port) as between:
        transport = dial(through(address, between.host, between.port, tmp_path))
        between.frozen = True
        with pytest.raises(Unreachable, match="did not end within 1 s"):
            transport.run(["true"], timeout=1.0)
        between.frozen = False


def test_a_line_that_is_cut_under_a_command_is_told_before_its_deadline(
    server: sshd.Sshd, address: Address, dial: Dial, tmp_path: Path, going: Path
) -> None:
    begun = tmp_path / "begun"

    def cut() -> None:
        while not begun.exists():
            time.sleep(0.01)
        between.cut()

    with proxy(server.host, server.port) as between:
        transport = dial(through(address, between.host, between.port, tmp_path))
        threading.Thread(target=cut, daemon=True).start()
        with pytest.raises(Unreachable, match="connection was lost") as caught:
            transport.run(["sh", "-c", f'touch "$2"; {WHILE_THERE}', "sh", str(going), str(begun)], timeout=120)
        assert caught.value.reason == "connection-lost"


def test_an_idle_line_is_kept_alive(
    server: sshd.Sshd, address: Address, dial: Dial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_KEEPALIVE", 1)
    with proxy(server.host, server.port) as between:
        transport = dial(through(address, between.host, between.port, tmp_path))
        transport.run(["true"], timeout=10)
        between.wait_sent(between.sent + 100, timeout=60)


# --- connecting ---------------------------------------------------------------------------------------------------
def test_nothing_listens(address: Address) -> None:
    with socket.socket() as deaf:
        deaf.bind((address.host, 0))  # nobody else takes the port meanwhile
        to = replace(address, port=deaf.getsockname()[1])
        with pytest.raises(Unreachable, match="nothing listens there") as caught:
            SshTransport.connect("board", to, timeout=20)
    assert caught.value.reason == "connect"
    assert f"ssh -v -i {address.identity} -p" in (caught.value.hint or "")


def test_a_name_that_does_not_resolve(address: Address) -> None:
    with pytest.raises(Unreachable, match="the name does not resolve"):
        SshTransport.connect("board", replace(address, host="no-such-board.invalid"), timeout=20)


@pytest.mark.parametrize("banner", [b"", b"SSH-2.0-Mute_1.0\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_server_that_says_nothing_or_nonsense_is_given_up(address: Address, banner: bytes) -> None:
    with socket.create_server(("127.0.0.9", 0)) as mute:
        held: list[socket.socket] = []

        def accept() -> None:
            client, _ = mute.accept()
            held.append(client)
            client.sendall(banner)

        threading.Thread(target=accept, daemon=True).start()
        with pytest.raises(Unreachable) as caught:
            SshTransport.connect("board", replace(address, host="127.0.0.9", port=mute.getsockname()[1]), timeout=1.0)
        assert caught.value.reason == "connect"
        for client in held:
            client.close()


def test_a_connection_takes_no_other_thread_with_it_when_it_fails(address: Address) -> None:
    before = threading.active_count()
    for _ in range(3):
        with pytest.raises(Unreachable):
            SshTransport.connect("board", replace(address, known_hosts=()), timeout=20)
    give_up = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < give_up:
        time.sleep(0.05)
    assert threading.active_count() <= before


def test_a_clock_that_is_set_meanwhile_is_no_deadline(
    server: sshd.Sshd, address: Address, dial: Dial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """paramiko waits by the wall clock; a login that it gave up by that would be called refused."""
    for module in (paramiko.transport, paramiko.auth_handler, paramiko.packet):
        monkeypatch.setattr(module, "time", Set())
    with proxy(server.host, server.port) as between:
        to = through(address, between.host, between.port, tmp_path)
        between.delay = 0.3  # longer than paramiko waits between two looks at the clock
        transport = dial(to, timeout=20.0)
        assert transport.run(["echo", "in"], timeout=20.0).stdout == b"in\n"
        between.delay, between.frozen = 0.0, True
        with pytest.raises(Unreachable, match="did not end within 2 s") as caught:
            transport.run(["true"], timeout=2.0)
        assert caught.value.reason == "deadline"
        assert "--command-timeout" in caught.value.hint
        between.frozen = False


class Set:
    """A clock that is set half a minute ahead at every other look: half of all waits see it."""

    def __init__(self) -> None:
        self._looks = 0

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)

    def time(self) -> float:
        self._looks += 1
        return time.time() + 30.0 * (self._looks % 2)


@pytest.mark.parametrize("home", ["/nonexistent", "relative"])
def test_this_machine_without_a_home_directory_is_named(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", home)
    with pytest.raises(DeviceFailed, match=f"the home directory {home} does not exist"):
        LocalTransport().run(("true",), timeout=5.0)


def test_a_command_on_this_machine_cleans_up_when_nobody_reads(tmp_path: Path) -> None:
    class Gone(io.BytesIO):
        def write(self, _: object) -> int:
            raise BrokenPipeError

    said = tmp_path / "said"
    script = f'trap "echo clean > {said}; exit 1" TERM; echo row; while :; do sleep 0.05; done'
    with pytest.raises(BrokenPipeError):
        LocalTransport().pipe(("sh", "-c", script), io.BytesIO(), Gone(), idle=20.0)
    assert said.read_text() == "clean\n"
