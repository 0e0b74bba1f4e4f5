"""Reads plain ssh_config files without OpenSSH, with paramiko.

Used if no OpenSSH client is installed. paramiko reads comments, quotes, `Include`, most of `Match` and some tokens
differently from ssh. So each line must have one of a few forms that both read alike. For any other line, an error names
the file, the line and the word: knnkit never guesses.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from device_agent.shared.safe_files import read_small
from knnkit.transport.base import printable
from knnkit.transport.ssh.paramiko_import import paramiko
from knnkit.transport.ssh.settings import Settings, WrongConfig, expand_path, local_user

USER_CONFIG, SYSTEM_CONFIG = "~/.ssh/config", "/etc/ssh/ssh_config"
_DEFAULT_KEYS = ("~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ecdsa_sk", "~/.ssh/id_ed25519", "~/.ssh/id_ed25519_sk")
_USER_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
#: Largest ssh_config that is read, in bytes.
_MAX_CONFIG = 1 << 20
_LINE = re.compile(r"(\w+)(?:[ \t]*=[ \t]*|[ \t]+|$)(.*)", re.DOTALL)
_NAME, _PATH = r"\w[\w.-]*", r"(?:~/|/)[\w./@+:-]+|none"
_PORT = r"(?:[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])"
_HOP = rf"(?:{_NAME}@)?{_NAME}(?::{_PORT})?"
#: Keyword -> form of its only word. paramiko and ssh read these alike.
_ONE = {
    "match": r"all",
    "hostname": r"[\w:][\w.:-]*",
    "user": _NAME,
    "port": _PORT,
    "hostkeyalias": _NAME,
    "identityfile": r"(?:~/|/)(?:[\w./@+:-]|%[%hnpr])+|none",
    "identitiesonly": r"yes|no|true|false",
    "hashknownhosts": r"yes|no|true|false",
    "identityagent": rf"{_PATH}|SSH_AUTH_SOCK",
    "userknownhostsfile": _PATH,
    "globalknownhostsfile": _PATH,
    "proxyjump": rf"{_HOP}(?:,{_HOP})*",
}
#: Keyword -> form of each of its words. Of two ProxyCommands, paramiko uses one that is "none", ssh the first.
_MANY = {
    "host": r"!?[\w.:*?-]+",
    "proxycommand": r"(?!(?i:none)$)(?:[\w~./@+:,-]|%[%hknpr])(?:[\w~./@+:,=-]|%[%hknpr])*",
}
#: Keywords that change nothing here. Their values are ignored: any word without a quote or a comment is accepted.
_UNUSED = """
    addkeystoagent batchmode checkhostip ciphers compression connectionattempts connecttimeout controlmaster controlpath
    controlpersist dynamicforward escapechar exitonforwardfailure forwardagent forwardx11 forwardx11trusted
    gssapiauthentication gssapidelegatecredentials hostkeyalgorithms ipqos kbdinteractiveauthentication
    kexalgorithms localforward loglevel macs numberofpasswordprompts passwordauthentication preferredauthentications
    pubkeyacceptedalgorithms pubkeyauthentication remoteforward requesttty sendenv serveralivecountmax
    serveraliveinterval stricthostkeychecking tcpkeepalive updatehostkeys verifyhostkeydns visualhostkey
"""
_MANY |= dict.fromkeys(_UNUSED.split(), r"[!$-&(-\[\]-~]+")


class _Raw(paramiko.SSHConfig):
    """paramiko's reader of ssh_config, without its expansion of tokens, which asks DNS for `%l` and misreads `%%`."""

    TOKENS_BY_CONFIG_KEY: dict[str, list[str]] = {}  # noqa: RUF012  (as in paramiko)


def lookup(host: str, *, port: int | None, user: str | None, config: str | None) -> Settings:
    """Returns the settings that ssh_config has for `host`; `port` and `user`, if given, override it.

    `config` is the file to read; None: the user's and the system's.

    Raises:
        WrongConfig: a line does not have one of the supported forms.
        OSError: `config` cannot be read.
    """
    reader = _Raw()
    reader.parse(_followed(config))
    found = reader.lookup(host)
    alias = found.get("hostkeyalias")
    return Settings(
        host=_settled(found["hostname"]),
        port=port or int(found.get("port", 22)),
        user=user or found.get("user") or local_user(),
        alias=alias and alias.lower(),
        identities=tuple(dict.fromkeys(found.get("identityfile", _DEFAULT_KEYS))),
        identities_only=found.get("identitiesonly") in ("yes", "true"),
        agent=expand_path(found.get("identityagent", "SSH_AUTH_SOCK"), {}),
        jump=found.get("proxyjump"),
        proxy=found.get("proxycommand"),
        user_known_hosts=_paths(found.get("userknownhostsfile"), _USER_KNOWN_HOSTS),
        global_known_hosts=_paths(found.get("globalknownhostsfile"), _GLOBAL_KNOWN_HOSTS),
        hash_names=found.get("hashknownhosts") in ("yes", "true"),
    )


def _paths(named: str | None, default: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(expand_path(path, {}) for path in ((named,) if named else default))


def _settled(host: str) -> str:
    """Returns a host name as ssh uses it: an address in its usual form (127.0.0.1 for 127.1), a name in lower case."""
    try:
        found = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST, type=socket.SOCK_STREAM)
        return socket.getnameinfo(found[0][4], socket.NI_NUMERICHOST)[0]
    except OSError:
        return host.lower()


def _lines(config: str | None) -> Iterator[tuple[str, int, str]]:
    """Yields (path, line number, text) of each line of ssh_config, except empty lines and comments.

    `config` is the file; None: the user's, then the system's. Before the lines of each file comes a line `Host *`: it
    ends a `Host` section of the file before.
    """
    for name in (config,) if config else (USER_CONFIG, SYSTEM_CONFIG):
        path = Path(name).expanduser()
        if config is None and not path.exists():
            continue
        data = read_small(path, _MAX_CONFIG, follow=True)
        if len(data) > _MAX_CONFIG:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        yield str(path), 0, "Host *"
        for number, line in enumerate(data.decode("ascii", "backslashreplace").split("\n"), start=1):
            text = line.strip(" \t\r")
            if text and not text.startswith("#"):
                yield str(path), number, text


def _followed(config: str | None) -> Iterator[str]:
    """Yields the lines of ssh_config for paramiko; raises WrongConfig at a line that has no supported form."""
    proxies: set[str] = set()
    for path, number, text in _lines(config):
        found = _LINE.fullmatch(text)
        keyword, value = (found[1].lower(), found[2]) if found else (text, "")
        strange = _strange(keyword, re.split(r"[ \t]+", value))
        proxies |= {keyword} & {"proxyjump", "proxycommand"}
        if strange or len(proxies) > 1:  # ssh uses the first of ProxyJump and ProxyCommand; paramiko does not
            said = f"{path}:{number}: {(strange or keyword)[:60]}: knnkit cannot follow `{text[:60]}`"
            raise WrongConfig(f"{printable(said)} without OpenSSH's ssh (Debian: sudo apt install openssh-client)")
        if keyword != "include":
            yield f"{keyword} {value}"


def _strange(keyword: str, words: list[str]) -> str | None:
    """Returns the word that makes a line unsupported: `keyword`, or one of the `words` after it; None: supported."""
    if keyword == "include":  # allowed if it matches no file, as in Debian's /etc/ssh/ssh_config
        plain = re.compile(r"/[\w./*-]+")
        return next((word for word in words if not plain.fullmatch(word) or glob.glob(word)), None)  # noqa: PTH207
    form = _ONE.get(keyword) or _MANY.get(keyword)
    if form is None:
        return keyword
    bad = [word for word in words if not re.fullmatch(form, word)] + (words[1:] if keyword in _ONE else [])
    return (bad[0] or keyword) if bad else None
