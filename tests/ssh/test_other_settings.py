"""Settings of ssh_config beyond names and keys: knnkit follows them as ssh does, or names them where it fails."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path

import pytest
from conftest import Dial
from support import sshd

from knnkit.errors import HostKeyError, Unreachable
from knnkit.transport.address import Address


def configured(address: Address, config: Path, text: str) -> Address:
    config.write_text(text)
    return dataclasses.replace(address, config=str(config))


def ssh_gets_in(address: Address) -> bool:
    options = ["-F", address.config, "-o", f"UserKnownHostsFile={address.known_hosts[0]}", "-o", "BatchMode=yes"]
    where = ["-i", address.identity, "-p", str(address.port), f"{address.user}@{address.host}", "true"]
    return subprocess.run(["ssh", *map(str, (*options, *where))], capture_output=True, timeout=30).returncode == 0


REVOKED = ("the key", "another key", "comments", "absent", "rubbish", "krl")


@pytest.mark.parametrize("kind", REVOKED)
def test_a_host_key_that_ssh_refuses_as_revoked_is_refused(
    kind: str, server: sshd.Sshd, address: Address, no_ssh_config: Path, tmp_path: Path, dial: Dial
) -> None:
    other, file = sshd.make_key(tmp_path / "other").with_suffix(".pub").read_text(), tmp_path / "revoked keys"
    content = {
        "the key": f"# stolen\n\n{other}{server.host_key} a comment\n",
        "another key": other,
        "comments": "# none yet\n",
        "rubbish": "what is this\n",
    }
    if kind in content:
        file.write_text(content[kind])
    elif kind == "krl":
        subprocess.run(["ssh-keygen", "-q", "-k", "-f", file, tmp_path / "other.pub"], check=True)
    to = configured(address, no_ssh_config, f'RevokedHostKeys "{file}"\n')
    refused = kind not in ("another key", "comments")
    assert ssh_gets_in(to) == (not refused or kind == "krl"), "ssh reads a KRL, which holds another key"
    if not refused:
        dial(to)
        return
    with pytest.raises(HostKeyError) as caught:
        dial(to)
    assert caught.value.reason == ("host-key-revoked" if kind == "the key" else "known-hosts")
    assert kind == "the key" or str(file) in str(caught.value)


@pytest.mark.parametrize("source", ["127.0.0.7", "127.0.0.8"])
def test_a_connection_comes_from_the_address_that_ssh_config_names(
    source: str, server: sshd.Sshd, address: Address, no_ssh_config: Path, dial: Dial
) -> None:
    """A board that lets in one address only."""
    before = server.count(f"from {source} port")
    dial(configured(address, no_ssh_config, f"BindAddress {source}\n")).run(["true"], timeout=20)
    assert server.count(f"from {source} port") > before


def test_an_address_of_another_family_is_not_tried(address: Address, no_ssh_config: Path, dial: Dial) -> None:
    dial(configured(address, no_ssh_config, "AddressFamily inet\n"))
    with pytest.raises(Unreachable, match="AddressFamily inet6"):
        dial(configured(address, no_ssh_config, "AddressFamily inet6\n"))


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("KnownHostsCommand /bin/cat {keys}", "KnownHostsCommand"),
        ("PKCS11Provider /usr/lib/none.so", "PKCS11Provider"),
        ("BindInterface lo", "BindInterface"),
    ],
)
def test_a_setting_that_is_not_followed_is_named_where_ssh_may_get_in(
    line: str, word: str, server: sshd.Sshd, address: Address, no_ssh_config: Path, tmp_path: Path, dial: Dial
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(server.known_hosts.read_text())
    to = configured(address, no_ssh_config, line.format(keys=keys) + f"\nUserKnownHostsFile {os.devnull}\n")
    with pytest.raises(HostKeyError, match=f"knnkit does not follow {word}"):
        dial(dataclasses.replace(to, known_hosts=()))
    dial(to)  # not a word where it gets in
