"""Keys are offered as ssh offers them: certificates, one key of an agent, every format; against a real sshd."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support import sshd

from knnkit.errors import Unreachable
from knnkit.transport.address import Address
from knnkit.transport.ssh import keys
from knnkit.transport.ssh.connection import SshTransport

Dial = Callable[..., SshTransport]


def keygen(*words: object) -> None:
    subprocess.run(["ssh-keygen", "-q", *map(str, words)], check=True, stdin=subprocess.DEVNULL, capture_output=True)


@pytest.fixture(autouse=True)
def nothing_loaded() -> None:
    keys._loaded.clear()


@pytest.fixture
def key(server: sshd.Sshd, tmp_path: Path) -> Path:
    """The key that the server knows, in a folder of its own."""
    for ending in ("", ".pub"):
        shutil.copy(f"{server.identity}{ending}", tmp_path / f"k{ending}")
    return tmp_path / "k"


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    return sshd.make_key(tmp_path / "authority")


def expired(key: Path, authority: Path) -> None:
    keygen("-s", authority, "-I", "me", "-V", "20200101:20200201", f"{key}.pub")


def of_an_unknown_authority(key: Path, authority: Path) -> None:
    keygen("-s", authority, "-I", "me", f"{key}.pub")


def of_another_key(key: Path, authority: Path) -> None:
    other = sshd.make_key(key.with_name("other"))
    keygen("-s", authority, "-I", "me", f"{other}.pub")
    other.with_name("other-cert.pub").rename(f"{key}-cert.pub")


def truncated(key: Path, authority: Path) -> None:
    of_an_unknown_authority(key, authority)
    path = Path(f"{key}-cert.pub")
    path.write_bytes(path.read_bytes()[:200])


def write(text: str) -> Callable[[Path, Path], None]:
    return lambda key, _: Path(f"{key}-cert.pub").write_text(text) and None


@pytest.mark.parametrize(
    ("make", "warned"),
    [
        (expired, "has expired"),
        (of_an_unknown_authority, None),
        (of_another_key, "is the certificate of another key"),
        (truncated, "is not a certificate that can be read"),
        (write("\n"), "is not a certificate that can be read"),
        (write("ssh-ed25519-cert-v01@openssh.com AAAA me"), "is not a certificate that can be read"),
        (write("\0\xff garbled"), "is not a certificate that can be read"),
        (write("ssh-ed25519 AAAA"), "is not a certificate that can be read"),
    ],
)
def test_a_certificate_that_helps_nothing_is_a_warning_and_the_key_lets_in(
    make: Callable[[Path, Path], None], warned: str | None, address: Address, key: Path, authority: Path, dial: Dial
) -> None:
    make(key, authority)
    transport = dial(replace(address, identity=str(key)))
    said = [f"{address.host}: {key}-cert.pub {warned}"] if warned else []
    assert list(transport.warnings) == said


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
@pytest.mark.parametrize("held_by", ["file", "agent"])
def test_a_certificate_comes_first(
    kind: str, held_by: str, address: Address, tmp_path: Path, authority: Path, agent: Path, dial: Dial
) -> None:
    """The server knows the authority alone, so the certificate lets in and the plain key would not."""
    mine = sshd.make_key(tmp_path / "mine", kind=kind)
    keygen("-s", authority, "-I", "me", "-n", address.user, f"{mine}.pub")
    with sshd.running(tmp_path / "ca", host="127.0.0.6", extra=f"TrustedUserCAKeys {authority}.pub") as server:
        to = replace(address, host=server.host, port=server.port, known_hosts=(str(server.known_hosts),))
        if held_by == "agent":
            env = os.environ | {"SSH_AUTH_SOCK": str(agent)}
            Path(f"{mine}-cert.pub").rename(tmp_path / "aside")  # ssh-add would add the certificate as well
            subprocess.run(["ssh-add", "-q", str(mine)], check=True, env=env, capture_output=True)
            (tmp_path / "aside").rename(f"{mine}-cert.pub")
            mine.unlink()
            config = tmp_path / "with_agent"
            config.write_text(f"IdentityAgent {agent}\n")
            to = replace(to, config=str(config))
        dial(replace(to, identity=str(mine)))
        assert server.count("Accepted certificate ID") == 1
        assert server.count("Failed publickey") == 0


def test_certificate_file_of_ssh_config_is_shown(address: Address, tmp_path: Path, authority: Path, dial: Dial) -> None:
    mine = sshd.make_key(tmp_path / "mine")
    keygen("-s", authority, "-I", "me", "-n", address.user, f"{mine}.pub")
    (tmp_path / "mine-cert.pub").rename(tmp_path / "elsew%here")
    config = tmp_path / "config"
    config.write_text(f"IdentityFile {mine}\nIdentitiesOnly yes\nCertificateFile {tmp_path}/elsew%%here\n")
    with sshd.running(tmp_path / "ca", host="127.0.0.6", extra=f"TrustedUserCAKeys {authority}.pub") as server:
        known = (str(server.known_hosts),)
        dial(Address(server.host, server.user, server.port, config=str(config), known_hosts=known))


# --- one key of the agent -----------------------------------------------------------------------------------------
def with_agent(agent: Path, tmp_path: Path, more: str = "") -> str:
    config = tmp_path / "with_agent"
    config.write_text(f"IdentityAgent {agent}\n{more}")
    return str(config)


@pytest.mark.parametrize("named_by", ["identity", "ssh_config"])
def test_a_public_key_file_stands_for_that_key_of_the_agent(
    named_by: str, server: sshd.Sshd, address: Address, agent: Path, tmp_path: Path, dial: Dial
) -> None:
    public = tmp_path / "k.pub"
    shutil.copy(f"{server.identity}.pub", public)
    public.chmod(0o644)
    for number in range(7):  # more than a server lets try
        other = sshd.make_key(tmp_path / f"other{number}")
        env = os.environ | {"SSH_AUTH_SOCK": str(agent)}
        subprocess.run(["ssh-add", "-q", str(other)], check=True, env=env, capture_output=True)
    more = f"IdentityFile {public}\nIdentitiesOnly yes\n" if named_by == "ssh_config" else ""
    identity = str(public) if named_by == "identity" else None
    failed = server.count("Failed publickey")
    dial(replace(address, identity=identity, config=with_agent(agent, tmp_path, more)))
    assert server.count("Failed publickey") == failed


@pytest.mark.parametrize("has_agent", [True, False])
def test_a_public_key_that_the_agent_lacks_is_said(
    has_agent: bool, address: Address, agent: Path, tmp_path: Path, dial: Dial
) -> None:
    stranger = sshd.make_key(tmp_path / "stranger")
    stranger.unlink()
    config = with_agent(agent, tmp_path) if has_agent else address.config
    said = "the key agent does not hold this key" if has_agent else "no key agent is running"
    with pytest.raises(Unreachable, match=rf"stranger\.pub is a public key, and {said}.*: ssh-add"):
        dial(replace(address, identity=f"{stranger}.pub", config=config))


def test_an_encrypted_key_without_its_public_file_is_found_in_the_agent(
    address: Address, encrypted: Path, agent: Path, tmp_path: Path, dial: Dial
) -> None:
    assert not Path(f"{encrypted}.pub").exists()
    dial(replace(address, identity=str(encrypted), config=with_agent(agent, tmp_path)))


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_certificate_that_the_agent_alone_holds_lets_in(
    kind: str, address: Address, tmp_path: Path, authority: Path, agent: Path, dial: Dial
) -> None:
    mine = sshd.make_key(tmp_path / "mine", kind=kind)
    keygen("-s", authority, "-I", "me", "-n", address.user, f"{mine}.pub")
    env = os.environ | {"SSH_AUTH_SOCK": str(agent)}
    subprocess.run(["ssh-add", "-q", str(mine)], check=True, env=env, capture_output=True)
    for path in tmp_path.glob("mine*"):
        path.unlink()
    with sshd.running(tmp_path / "ca", host="127.0.0.6", extra=f"TrustedUserCAKeys {authority}.pub") as server:
        known = (str(server.known_hosts),)
        config = with_agent(agent, tmp_path)
        dial(Address(server.host, server.user, server.port, config=config, known_hosts=known))
        assert server.count("Accepted certificate ID") == 1


@pytest.mark.parametrize("next_key", ["lets in", "is unknown"])
def test_an_agent_that_does_not_sign_leaves_the_other_keys(
    next_key: str, address: Address, welcoming: Callable[[Path], None], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, dial: Dial,
) -> None:  # fmt: skip
    """Each use of the key must be confirmed (ssh-add -c), and nobody does; the server would take it."""
    for name, value in (("SSH_ASKPASS", "/bin/false"), ("SSH_ASKPASS_REQUIRE", "force"), ("DISPLAY", ":0")):
        monkeypatch.setenv(name, value)
    place, asked, other = tmp_path / "asking.sock", *(sshd.make_key(tmp_path / name) for name in ("asked", "other"))
    welcoming(asked)
    asking = subprocess.Popen(["ssh-agent", "-D", "-a", str(place)], stdout=subprocess.PIPE)
    try:
        assert asking.stdout
        asking.stdout.readline()
        env = os.environ | {"SSH_AUTH_SOCK": str(place)}
        subprocess.run(["ssh-add", "-q", "-c", str(asked)], check=True, env=env, capture_output=True, timeout=30)
        asked.unlink()
        last = address.identity if next_key == "lets in" else other
        config = with_agent(place, tmp_path, f"IdentityFile {asked}\nIdentityFile {last}\n")
        to = replace(address, identity=None, config=config)
        if next_key == "lets in":
            dial(to)
        else:
            with pytest.raises(Unreachable, match="the key agent does not sign with test") as caught:
                dial(to)
            assert caught.value.reason == "authentication"
    finally:
        asking.kill()
        asking.wait()
        assert asking.stdout
        asking.stdout.close()


def test_an_agent_that_never_answers_leaves_the_files(address: Address, tmp_path: Path, dial: Dial) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent.sock"))
        silent.listen()
        config = with_agent(tmp_path / "silent.sock", tmp_path)
        dial(replace(address, config=config), timeout=3.0)
        with pytest.raises(Unreachable, match=r"no agent at .*silent\.sock: timed out"):
            dial(replace(address, config=config, identity=str(sshd.make_key(tmp_path / "other"))), timeout=3.0)


# --- formats ------------------------------------------------------------------------------------------------------
FORMATS = {
    "rsa PKCS#8": ("rsa", ["-m", "PKCS8"], ""),
    "rsa PKCS#1": ("rsa", ["-m", "PEM"], ""),
    "ecdsa PKCS#8": ("ecdsa", ["-m", "PKCS8"], ""),
    "ecdsa SEC1": ("ecdsa", ["-m", "PEM"], ""),
    "rsa PKCS#8 encrypted": ("rsa", ["-m", "PKCS8"], "open sesame"),
    "rsa PKCS#1 encrypted": ("rsa", ["-m", "PEM"], "open sesame"),
    "ecdsa PKCS#8 encrypted": ("ecdsa", ["-m", "PKCS8"], "open sesame"),
    "rsa OpenSSH": ("rsa", [], ""),
    "ed25519 aes256-gcm": ("ed25519", ["-Z", "aes256-gcm@openssh.com"], "open sesame"),
    "rsa aes256-gcm": ("rsa", ["-Z", "aes256-gcm@openssh.com"], "open sesame"),
    "ed25519 aes256-ctr": ("ed25519", ["-Z", "aes256-ctr"], "open sesame"),
}


@pytest.fixture
def welcoming(server: sshd.Sshd) -> Callable[[Path], None]:
    """Lets a key in for this test."""
    file = server.directory / "authorized_keys"
    before = file.read_text()
    yield lambda key: file.write_text(before + Path(f"{key}.pub").read_text()) and None  # type: ignore[misc]
    file.write_text(before)


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_of_a_private_key_is_read(
    name: str,
    address: Address,
    tmp_path: Path,
    welcoming: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
    dial: Dial,
) -> None:
    kind, options, secret = FORMATS[name]
    path = tmp_path / "formed"
    keygen("-t", kind, *options, "-N", secret, "-f", path)
    welcoming(path)
    to = replace(address, identity=str(path))
    if secret:
        with pytest.raises(Unreachable, match="formed has a passphrase: ssh-add it, or set KNNKIT_SSH_PASSPHRASE"):
            dial(to)
        monkeypatch.setenv("KNNKIT_SSH_PASSPHRASE", "wrong")
        with pytest.raises(Unreachable, match="formed: the passphrase is wrong"):
            dial(to)
        monkeypatch.setenv("KNNKIT_SSH_PASSPHRASE", secret)
    dial(to)


def test_a_format_that_is_not_read_names_the_agent(address: Address, tmp_path: Path, dial: Dial) -> None:
    path = tmp_path / "rare"
    keygen("-t", "ed25519", "-Z", "aes128-cbc", "-N", "open sesame", "-f", path)
    with pytest.raises(Unreachable, match="rare is of a kind that knnkit does not read: add it"):
        dial(replace(address, identity=str(path)))


def test_a_key_of_putty_names_the_command_that_converts_it(address: Address, tmp_path: Path, dial: Dial) -> None:
    path = tmp_path / "board.ppk"
    path.write_text("PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n")
    with pytest.raises(Unreachable, match=rf"puttygen {path} -O private-openssh -o {tmp_path}/board\.key"):
        dial(replace(address, identity=str(path)))
