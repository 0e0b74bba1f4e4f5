"""An SFTP server that lies: the upload ends with a named failure, whatever it answers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import sshd

from knnkit.errors import DeviceFailed
from knnkit.transport.address import Address
from knnkit.transport.ssh.connection import SshTransport

LIAR = r"""#!/usr/bin/env python3
import os, struct, sys
lie = sys.argv[1]
def read(count):
    data = b""
    while len(data) < count:
        part = os.read(0, count - len(data))
        if not part:
            sys.exit(0)
        data += part
    return data
def packet():
    return read(struct.unpack(">I", read(4))[0])
def send(data):
    os.write(1, struct.pack(">I", len(data)) + data)
def status(number, code, text=b""):
    send(b"\x65" + number + struct.pack(">II", code, len(text)) + text + struct.pack(">I", 0))
if lie == "text":
    os.write(1, b"Welcome to this board\n")
packet()
send(b"\x02" + (b"" if lie == "no-version" else struct.pack(">I", 3)))
while True:
    asked = packet()
    kind, number = asked[0], asked[1:5]
    if lie == "no-words":
        status(number, 4, b"\xff\xfe")
    elif lie == "another-kind":
        send(b"\xc8" + number)
    elif lie == "escapes" and kind == 3:
        status(number, 4, b"\x1b[2Jowned")
    elif kind == 3:
        send(b"\x66" + number + struct.pack(">I", 1) + b"h")
    elif kind == 6 and lie == "full":
        status(number, 4, b"no room")
    elif kind == 8:
        send(b"\x69" + number + struct.pack(">IQ", 1, 5))
    else:
        status(number, 0)
"""
LIES = {
    "text": "answers nonsense",
    "no-version": "answers nonsense",
    "no-words": "answers nonsense",
    "another-kind": "answers nonsense",
    "escapes": "cannot write .*owned",
    "full": "5 of 1,000 bytes arrived; is the disk full",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_one_devices_failure_and_says_what_was_wrong(lie: str, tmp_path: Path, no_ssh_config: Path) -> None:
    liar, source = tmp_path / "liar", tmp_path / "source"
    liar.write_text(LIAR)
    liar.chmod(0o755)
    source.write_bytes(os.urandom(1000))
    with sshd.running(tmp_path / "server", sftp=False, extra=f"Subsystem sftp {liar} {lie}") as server:
        address = Address(
            server.host,
            server.user,
            server.port,
            identity=str(server.identity),
            config=str(no_ssh_config),
            known_hosts=(str(server.known_hosts),),
        )
        transport = SshTransport.connect("board", address, timeout=10)
        try:
            with source.open("rb") as file, pytest.raises(DeviceFailed, match=LIES[lie]) as caught:
                transport.append(file, str(tmp_path / "there.part"), offset=0, size=1000, timeout=20)
        finally:
            transport.close()
    assert str(caught.value).isprintable()
