"""Generated ssh_config files: without OpenSSH, knnkit reads what `ssh -G` says, or refuses by file, line and word.

Half of the files hold only what people mostly write; the other half hold everything. Either half is answered sometimes.
"""

from __future__ import annotations

import os
import pwd
import random
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from knnkit.transport.ssh import config_file, openssh
from knnkit.transport.ssh.settings import Settings, WrongConfig

FILES = 2_400
HOSTS = ("board", "b", "Board-1", "gw.example", "127.1", "other", "fe80::1")
PATTERNS = ("*", "b*", "board", "board-?", "!b", "other", "gw.example", "*.example", "127.*", "Board-1", '"b" !board*')
NAMES = ("pi", "ann", '"the user"', "us\\ er", "'one two'", "x#y")
PATHS = (
    "~/.ssh/id_%n",
    "~/k/%h-%p-%r",
    '"~/my keys/%k"',
    "${KNNKIT_TEST_DIR}/k",
    "/k%%n",
    "/a/%L/%l/%u/%i",
    "/quoted\\ path",
    "'/single q'",
    "/x#y",
)
HARD = ("%C/x", "%j", "/%z", "${KNNKIT_TEST_UNSET}/x")
COMMENTS = ("", "", "", " # a comment", "\t#", " ", " # it's")
SEPARATORS = (" ", " ", "\t", "=", " = ", "  ")


#: Lines that people mostly write.
PLAIN = (
    "User pi",
    "user=ann",
    "Port 2231",
    "Port = 99",
    "HostName x.Example",
    "HOSTNAME 192.0.2.1",
    "HostName 127.1",
    "IdentityFile ~/.ssh/id_%n",
    "IdentityFile /k%%n",
    "IdentityFile ~/.ssh/id_%n",
    "IdentitiesOnly yes",
    "IdentitiesOnly no",
    "HostKeyAlias Alias",
    "UserKnownHostsFile ~/.ssh/kh",
    "UserKnownHostsFile none",
    "GlobalKnownHostsFile /g",
    "IdentityAgent none",
    "IdentityAgent SSH_AUTH_SOCK",
    "IdentityAgent ~/agent",
    "ProxyJump gw",
    "ProxyJump me@gw:33,b:2",
    "ProxyJump none",
    "ProxyCommand nc  %h %p",
    "Compression yes",
    "HashKnownHosts yes",
    "HashKnownHosts false",
    "SendEnv LANG LC_*",
    "StrictHostKeyChecking no",
    "Include /nowhere/*.conf",
    "Match all",
)


def chosen(dice: random.Random, *lines: str) -> str:
    return dice.choice(lines)


def setting(dice: random.Random) -> str:
    gap, comment = dice.choice(SEPARATORS), dice.choice(COMMENTS)
    path = dice.choice(PATHS if dice.random() < 0.97 else HARD)
    keyword, value = dice.choice(
        [
            ("User", dice.choice(NAMES)),
            ("Port", dice.choice(("22", "2231", '"2200"', "22x" if dice.random() < 0.02 else "99"))),
            ("HostName", dice.choice(("x.Example", "%h.example", "192.0.2.1", "a%%b", "%h", '"h.example"'))),
            ("IdentityFile", dice.choice((path, path, "none"))),
            ("CertificateFile", path),
            ("IdentitiesOnly", dice.choice(("yes", "no", "true", "false", "maybe" if dice.random() < 0.02 else "yes"))),
            ("HostKeyAlias", dice.choice(("Alias", '"the-alias"', "a.b"))),
            ("UserKnownHostsFile", dice.choice((path, f"{path} /second/%k '/th ird'", "none"))),
            ("GlobalKnownHostsFile", dice.choice(("/g", "/g /h", "none"))),
            ("IdentityAgent", dice.choice(("none", "SSH_AUTH_SOCK", "/a/%h", "~/agent", "${KNNKIT_TEST_DIR}/s"))),
            ("ProxyJump", dice.choice(("gw", "me@gw:33", "a,b:2", "none", "[::1]:4", "ssh://me@gw:33"))),
            ("ProxyCommand", dice.choice(("nc %h %p", "none", 'sh -c "x y" # z', "relay %%h"))),
            ("Compression", "yes"),
            ("HashKnownHosts", dice.choice(("yes", "no", "true"))),
            ("ServerAliveInterval", "5"),
            ("IgnoreUnknown", "Frob*,Zap"),
            ("CanonicalizeHostname", dice.choice(("no", "no", "yes"))),
            ("CanonicalizeMaxDots", "1"),
            ("CanonicalDomains", "invalid"),
            ("Frobnicate" if dice.random() < 0.1 else "StrictHostKeyChecking", "no"),
        ]
    )
    if keyword in ("ProxyCommand", "ProxyJump"):
        comment = ""  # OpenSSH's versions differ
    return f"{dice.choice((keyword, keyword.lower(), keyword.upper()))}{gap}{value}{comment}"


def block(dice: random.Random) -> str:
    patterns = " ".join(dice.sample(PATTERNS, dice.randint(1, 3)))
    words = dice.sample(
        [
            f"host {dice.choice(('board', 'b*,!board', 'x.example', '*', 'B'))}",
            f"originalhost={dice.choice(('board', 'b', '*'))}",
            f"user {dice.choice(('pi', 'root,ann', '*', '!pi,*'))}",
            f"localuser {dice.choice((pwd.getpwuid(os.getuid()).pw_name, 'nobody'))}",
            f'exec "test %n = {dice.choice(("board", "b"))}"',
            "exec true",
            "final" if dice.random() < 0.3 else "host *",
            "canonical" if dice.random() < 0.3 else "user *",
        ],
        dice.randint(1, 2),
    )
    if dice.random() < 0.05:
        words.append(dice.choice(("localnetwork 192.0.2.0/24", "tagged x", "version OpenSSH*", "sessiontype shell")))
    words = [f"!{word}" if dice.random() < 0.2 else word for word in words]
    every = dice.choice(("all", "all", "final all", "canonical all"))
    return chosen(dice, f"Host {patterns}", f"Host={patterns}", f"Match {' '.join(words)}", f"Match {every}")


def is_plain(config: Path) -> bool:
    return int(config.name.partition("-")[0]) % 2 == 0


def generate(dice: random.Random, folder: Path, number: int) -> Path:
    """Writes one configuration, with the files that it includes, and returns its path."""
    config = folder / f"{number}-config"
    plain = is_plain(config)
    includes = [folder / f"{number}-inc {index}" for index in range(0 if plain else dice.choice((0, 0, 1, 2)))]

    def text(depth: int) -> str:
        lines = []
        for _ in range(dice.randint(1, 9)):
            roll = dice.random()
            if plain:
                host = f"Host {' '.join(dice.sample(PATTERNS[:-1], dice.randint(1, 3)))}"
                lines.append(host if roll < 0.3 else "\t" * dice.randint(0, 1) + dice.choice(PLAIN))
            elif roll < 0.3:
                lines.append(block(dice))
            elif roll < 0.4 and depth < len(includes):
                name = str(includes[depth])
                lines.append(f'Include "{dice.choice((name, name[:-1] + "*"))}" {folder}/nowhere*')
            else:
                lines.append("  " * dice.randint(0, 1) + setting(dice))
            if dice.random() < 0.1:
                lines.append(dice.choice(("", "# Host b", "   ", "\t# x")))
        return dice.choice(("\n", "\n", "\r\n")).join(lines) + "\n"

    for index, path in enumerate(includes):
        path.write_text(text(index + 1))
        path.chmod(0o600)
    config.write_text(text(0))
    return config


def ask_openssh(program: str, config: Path, host: str, port: int | None, user: str | None) -> Settings | None:
    try:
        return openssh.ask(program, host, port=port, user=user, config=str(config))
    except WrongConfig:
        return None


def read(config: Path, host: str, port: int | None, user: str | None) -> Settings | WrongConfig:
    try:
        return config_file.lookup(host, port=port, user=user, config=str(config))
    except WrongConfig as error:
        return error


def same(one: Settings, other: Settings) -> bool:
    """The digest and the keys that are tried where none is named differ between versions of OpenSSH."""

    def plain(said: Settings) -> Settings:
        default = said.identities[:1] == ("~/.ssh/id_rsa",)
        proxy = None if said.proxy in (None, "none") else said.proxy
        jump = None if said.jump in (None, "none") else said.jump.replace("ssh://", "")
        return replace(said, digest=None, identities=() if default else said.identities, proxy=proxy, jump=jump)

    return plain(one) == plain(other)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    found = openssh.client()
    assert found is not None
    monkeypatch.setenv("HOME", pwd.getpwuid(os.getuid()).pw_dir)
    monkeypatch.setenv("KNNKIT_TEST_DIR", str(tmp_path))
    monkeypatch.delenv("KNNKIT_TEST_UNSET", raising=False)
    monkeypatch.setenv("SHELL", "/bin/sh")
    return found


def test_the_reader_agrees_with_openssh_or_refuses(program: str, tmp_path: Path) -> None:
    dice = random.Random(14)
    cases = [
        (generate(dice, tmp_path, n), dice.choice(HOSTS), dice.choice((None, None, 2022)), dice.choice((None, "pi")))
        for n in range(FILES)
    ]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda case: ask_openssh(program, *case), cases))
    counts: Counter[str] = Counter()
    for (config, host, port, user), right in zip(cases, answers, strict=True):
        where = f"{host} {port} {user} {config}\n{config.read_text()}"
        found = read(config, host, port, user)
        kind = "refused" if isinstance(found, WrongConfig) else "agree"
        if isinstance(found, WrongConfig):
            said = re.match(rf"{re.escape(str(config))}:(\d+): (.+?): knnkit cannot follow", str(found))
            assert said, found
            assert said[2].lower() in config.read_text().split("\n")[int(said[1]) - 1].lower(), found
        else:
            assert right is not None, f"ssh refuses it: {where}"
            assert same(found, right), f"{where}\n{found}\n{right}"
        counts[f"{kind}, {'plain' if is_plain(config) else 'any'}"] += 1
    assert counts["agree, plain"] > FILES / 4, counts
    assert counts["agree, any"] > FILES / 50, counts
