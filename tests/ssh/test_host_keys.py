"""known_hosts is read strictly and trusted literally; nothing is ever trusted on first use."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support import sshd

from knnkit.config import parse
from knnkit.errors import HostKeyError, KnnkitError
from knnkit.fleet.targets import targets_of
from knnkit.transport.address import Address
from knnkit.transport.ssh import known_hosts
from knnkit.transport.ssh.connection import SshTransport
from knnkit.transport.ssh.known_hosts import HostKey


def key(seed: int, kind: str = "ssh-ed25519") -> HostKey:
    name = kind.encode()
    return HostKey(kind, len(name).to_bytes(4, "big") + name + bytes([seed]) * 36)


def line(names: str, held: HostKey, marker: str = "") -> str:
    return f"{marker + ' ' if marker else ''}{names} {held.kind} {base64.b64encode(held.blob).decode()}\n"


def hashed(name: str) -> str:
    salt = bytes(range(20))
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    ("names", "host", "port"),
    [
        ("board", "board", 22),
        ("Board", "board", 22),
        ("other,board,192.0.2.1", "board", 22),
        ("[board]:2222", "board", 2222),
        ("*.example", "board.example", 22),
        ("board-?", "board-1", 22),
        ("[*.example]:2222", "board.example", 2222),
        (hashed("board"), "board", 22),
        (hashed("[board]:2222"), "board", 2222),
    ],
)
def test_names_that_match(names: str, host: str, port: int) -> None:
    known = known_hosts.parse(line(names, key(1)), "known_hosts")
    known.check(host, port, key(1))
    with pytest.raises(HostKeyError, match="another host key"):
        known.check(host, port, key(2))


@pytest.mark.parametrize(
    ("names", "host", "port"),
    [
        ("board", "board", 2222),
        ("[board]:2222", "board", 22),
        ("boar", "board", 22),
        ("*.example,!bad.example", "bad.example", 22),
        ("board[1]", "board1", 22),
        (hashed("other"), "board", 22),
        ("|1|###|###", "board", 22),
    ],
)
def test_names_that_do_not_match_leave_the_host_unknown(names: str, host: str, port: int) -> None:
    with pytest.raises(HostKeyError, match="is not in known_hosts") as caught:
        known_hosts.parse(line(names, key(1)), "known_hosts").check(host, port, key(1))
    assert caught.value.reason == "host-key-unknown"
    assert caught.value.hint.startswith("knnkit trust ")


def test_bad_lines_hide_no_good_one_and_are_named() -> None:
    text = (
        "garbage\nboard ssh-ed25519 !!!\nboard ssh-ed25519 " + base64.b64encode(b"x" * 40).decode() + "\n\0\0\n# note\n"
    )
    known = known_hosts.parse(text + line("board", key(1)), "kh")
    known.check("board", 22, key(1))
    assert known.bad == ("kh:1", "kh:2", "kh:3", "kh:4")
    with pytest.raises(HostKeyError, match="cannot be read: kh:1, kh:2, kh:3"):
        known.check("other", 22, key(1))


@pytest.mark.parametrize("end", ["\r", "\v", "\f", "\x1c", "\x85", "\u2028"])
def test_a_line_ends_where_openssh_ends_it_and_no_comment_hides_a_host(end: str, tmp_path: Path) -> None:
    text = f"# a banner that ssh-keyscan wrote down{end}{line('board', key(1))}"
    assert not known_hosts.parse(text, "known_hosts").lookup("board", 22)
    file = tmp_path / "known_hosts"
    file.write_bytes(text.encode())
    keygen = subprocess.run(["ssh-keygen", "-F", "board", "-f", str(file)], capture_output=True)
    assert keygen.returncode == 1, "ssh-keygen finds it"


def test_a_revoked_key_is_refused_wherever_it_is_offered() -> None:
    known = known_hosts.parse(line("board", key(1)) + line("*", key(1), "@revoked"), "kh")
    with pytest.raises(HostKeyError, match=r"revoked host key .* kh:2"):
        known.check("board", 22, key(1))


def test_a_certificate_authority_is_no_host_key() -> None:
    known = known_hosts.parse(line("*.example", key(1), "@cert-authority"), "kh")
    said = r"not in known_hosts except by a certificate authority \(kh:1\), and host certificates are not supported"
    with pytest.raises(HostKeyError, match=said) as caught:
        known.check("board.example", 22, key(1))
    assert caught.value.hint == "knnkit trust board.example"
    with pytest.raises(HostKeyError, match="not in known_hosts; it offers"):
        known.check("board.other", 22, key(1))


def test_a_server_with_a_certificate_is_known_by_its_own_key(
    server: sshd.Sshd, address: Address, tmp_path: Path
) -> None:
    """What `knnkit trust` enrols goes on to be good where OpenSSH would look at the certificate."""
    authority, folder = sshd.make_key(tmp_path / "authority"), tmp_path / "certified"
    folder.mkdir()
    host_key = sshd.make_key(folder / "host_key")
    sign = ["ssh-keygen", "-q", "-s", str(authority), "-I", "board", "-h", "-n", "127.0.0.4", f"{host_key}.pub"]
    subprocess.run(sign, check=True, capture_output=True)
    with sshd.running(folder, host="127.0.0.4", extra=f"HostCertificate {host_key}-cert.pub") as other:
        there = replace(address, host=other.host, port=other.port, identity=str(other.identity))
        public = " ".join((tmp_path / "authority.pub").read_text().split()[:2])
        (tmp_path / "authorities").write_text(f"@cert-authority * {public}\n")
        with pytest.raises(HostKeyError, match="except by a certificate authority"):
            SshTransport.connect("board", replace(there, known_hosts=(str(tmp_path / "authorities"),)), timeout=10)
        SshTransport.connect("board", replace(there, known_hosts=(str(other.known_hosts),)), timeout=10).close()


def test_one_of_several_keys_is_enough() -> None:
    known = known_hosts.parse(line("board", key(1)) + line("board", key(2)), "kh")
    known.check("board", 22, key(2))


def test_fingerprints_are_those_of_ssh_keygen(server: sshd.Sshd) -> None:
    shown = subprocess.run(
        ["ssh-keygen", "-lf", str(server.directory / "host_key.pub")], capture_output=True, text=True, check=True
    ).stdout.split()[1]
    known = known_hosts.load([server.known_hosts]).lookup(server.host, server.port)
    assert [entry.fingerprint for entry in known] == [shown]


def test_enrolling_adds_one_private_line_and_the_second_time_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "known_hosts"
    assert known_hosts.enrol(path, "board", 2222, key(1))
    assert not known_hosts.enrol(path, "board", 2222, key(1))
    assert path.read_text() == line("[board]:2222", key(1))
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(path.read_text().rstrip("\n"))
    known_hosts.enrol(path, "other", 22, key(2))
    assert path.read_text() == line("[board]:2222", key(1)) + line("other", key(2))


def test_another_key_is_enrolled_only_when_asked_for_and_the_old_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    before = line("board,friend", key(1)) + line(hashed("board"), key(3)) + line("else", key(2)) + "not a line\n"
    path.write_text(before)
    with pytest.raises(HostKeyError, match="another host key"):
        known_hosts.enrol(path, "board", 22, key(9))
    assert path.read_text() == before
    assert known_hosts.enrol(path, "board", 22, key(9), replace=True)
    assert path.read_text() == line("friend", key(1)) + line("else", key(2)) + "not a line\n" + line("board", key(9))
    assert path.with_name("known_hosts.old").read_text() == before


# --- against a server ---------------------------------------------------------------------------------------------
def test_what_is_no_utf_8_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    before = b"# caf\xe9\r\n" + line("board", key(1)).encode()
    file.write_bytes(before)
    known_hosts.enrol(file, "other", 22, key(2))
    assert file.read_bytes() == before + line("other", key(2)).encode()
    known_hosts.enrol(file, "board", 22, key(3), replace=True)
    assert file.read_bytes() == b"# caf\xe9\r\n" + (line("other", key(2)) + line("board", key(3))).encode()
    assert (tmp_path / "known_hosts.old").read_bytes() == before + line("other", key(2)).encode()


def test_an_unknown_host_key_is_refused_and_nothing_is_written(address: Address, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text("# nobody\n")
    with pytest.raises(HostKeyError, match=r"not in known_hosts; it offers ssh-ed25519 SHA256:") as caught:
        SshTransport.connect("board", replace(address, known_hosts=(str(known),)), timeout=10)
    assert caught.value.hint == f"knnkit trust {address.host}:{address.port}"
    assert known.read_text() == "# nobody\n"
    assert not (Path(os.environ["HOME"]) / ".ssh" / "known_hosts").exists()


def test_a_changed_host_key_is_refused_before_any_login(server: sshd.Sshd, address: Address, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(line(f"[{server.host}]:{server.port}", key(7)))
    logins = server.count("Accepted publickey")
    with pytest.raises(HostKeyError, match="Another machine may be answering") as caught:
        SshTransport.connect("board", replace(address, known_hosts=(str(known),)), timeout=10)
    assert caught.value.reason == "host-key-changed"
    assert server.count("Accepted publickey") == logins


def test_of_several_host_keys_the_known_kind_is_asked_for(tmp_path: Path, no_ssh_config: Path) -> None:
    directory = tmp_path / "two"
    directory.mkdir()
    sshd.make_key(directory / "host_ecdsa", kind="ecdsa")
    sshd.make_key(directory / "host_rsa", kind="rsa", bits=3072)
    extra = f"HostKey {directory}/host_ecdsa\nHostKey {directory}/host_rsa"
    with sshd.running(directory, extra=extra) as server:
        for name in ("host_ecdsa", "host_rsa", "host_key"):
            public = " ".join((directory / f"{name}.pub").read_text().split()[:2])
            known = tmp_path / f"known_{name}"
            known.write_text(f"[{server.host}]:{server.port} {public}\n")
            to = Address(
                server.host,
                server.user,
                server.port,
                identity=str(server.identity),
                config=str(no_ssh_config),
                known_hosts=(str(known),),
            )
            SshTransport.connect("board", to, timeout=10).close()


def test_many_threads_share_one_file_that_is_parsed_once(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor

    known_hosts._load_one.cache_clear()
    parsed: list[str] = []
    real = known_hosts.parse
    monkeypatch.setattr(known_hosts, "parse", lambda text, path: parsed.append(path) or real(text, path))
    SshTransport.connect("first", address, timeout=10).close()

    def connect(number: int) -> None:
        SshTransport.connect(f"d{number}", address, timeout=20).close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(connect, range(16)))
    assert parsed == list(address.known_hosts)


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("room", [0, 1, 40])
def test_a_full_disk_leaves_known_hosts_as_it_was(room: int, replaced: bool, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text("".join(line(f"board-{number}", key(number)) for number in range(20)) + line("board", key(30)))
    before, host = known.read_bytes(), "board" if replaced else "new.board.example"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room * (not replaced), resource.RLIM_INFINITY))

    code = "import sys; from pathlib import Path; from knnkit.transport.ssh import known_hosts as k; "
    code += f"k.enrol(Path(sys.argv[1]), {host!r}, 22, k.HostKey('ssh-rsa', bytes(1000)), replace=True)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(known)], preexec_fn=limit, capture_output=True, text=True, timeout=60
    )
    assert f"HostKeyError: {known}: File too large" in done.stderr
    assert known.read_bytes() == before


@pytest.mark.parametrize("wrong", ["identity", "known_hosts", "ssh_config", "defaults"])
def test_an_error_about_a_file_of_deploy_yaml_names_its_line(
    wrong: str, server: sshd.Sshd, no_ssh_config: Path, tmp_path: Path
) -> None:
    files = {"identity": server.identity, "known_hosts": server.known_hosts, "ssh_config": no_ssh_config}
    if wrong != "ssh_config":  # ssh reads a folder as an empty file
        (tmp_path / "a folder").mkdir()
    files[wrong if wrong != "defaults" else "identity"] = tmp_path / "a folder"
    own, shared = (f"identity: '{files['identity']}'", "{}") if wrong != "defaults" else ("tags: [a]", "")
    lines = [
        "fleet:",
        f"  defaults: {shared}" if shared else f"  defaults:\n    identity: '{files['identity']}'",
        "  targets:",
        f"    - host: {server.host}",
        f"      port: {server.port}",
        f"      user: {server.user}",
        f"      {own}",
        f"  known_hosts: '{files['known_hosts']}'",
        f"  ssh_config: '{files['ssh_config']}'",
    ]
    text = "\n".join(lines)
    (target,) = targets_of(parse.parse(text, source="deploy.yaml"))
    assert target.address is not None
    with pytest.raises(KnnkitError) as caught:
        SshTransport.connect("board", target.address, timeout=10)
    number = next(n for n, each in enumerate(text.split("\n"), 1) if str(tmp_path / "a folder") in each)
    key_name = "identity" if wrong == "defaults" else wrong
    assert str(caught.value).endswith(f" ({key_name} in deploy.yaml:{number})"), caught.value
