"""ssh_config, read without OpenSSH: Host, Match, Include, the first value that is found.

Serves where no OpenSSH client is installed, and where `~` is not the account's home. Says what ssh would say, or
refuses with file, line and word: it never guesses. Follows readconf.c of OpenSSH 9.
"""

from __future__ import annotations

import fnmatch
import getpass
import glob
import os
import pwd
import re
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from knnkit.transport.ssh import config_lines
from knnkit.transport.ssh.config_keywords import KEYWORDS
from knnkit.transport.ssh.config_lines import Line
from knnkit.transport.ssh.settings import Settings
from knnkit.transport.ssh.tokens import CannotExpand, expand, expand_path

T = TypeVar("T")
USER_CONFIG, SYSTEM_CONFIG = "~/.ssh/config", "/etc/ssh/ssh_config"
_DEFAULT_KEYS = ("~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ecdsa_sk", "~/.ssh/id_ed25519", "~/.ssh/id_ed25519_sk")
_USER_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_MAX_INCLUDES = 16
_MAX_PORT = 65535
_MATCH_SECONDS = 10.0
_YES, _NO = ("yes", "true"), ("no", "false")
#: Keywords that take one word, and those that take several, of which the first line counts.
_ONE = frozenset({"hostname", "user", "port", "hostkeyalias", "identityagent", "identitiesonly"})
_SEVERAL = frozenset({"userknownhostsfile", "globalknownhostsfile"})
_EACH = frozenset({"identityfile", "certificatefile"})


def lookup(host: str, *, port: int | None, user: str | None, config: str | None) -> Settings:
    """Returns what ssh would take for `host`; arguments as those of `openssh.ask`.

    Raises:
        WrongConfig: ssh would refuse the configuration.
        CannotFollow: it holds what knnkit cannot follow.
        OSError: `config` cannot be read.
    """
    reader = _Reader(host, port, user)
    reader.files(config)
    reader.settle_host()
    if reader.wants_final:
        reader.final = True
        reader.files(config)
    return reader.settings()


class _Reader:
    """What was found so far: the first value of each keyword, each with the line that it stands in."""

    def __init__(self, host: str, port: int | None, user: str | None) -> None:
        self.original = self.host = host
        self.final = self.wants_final = False
        self._values: dict[str, list[str]] = {}
        self._lines: dict[str, Line] = {}
        for keyword, value in (("port", port), ("user", user)):
            if value:
                self._values[keyword] = [str(value)]

    # --- files ------------------------------------------------------------------------------------------------------
    def files(self, config: str | None) -> None:
        if config is not None:
            self._file(Path(config).expanduser(), active=True, depth=0, of_user=True)
            return
        for path, of_user in ((USER_CONFIG, True), (SYSTEM_CONFIG, False)):
            try:
                self._file(Path(path).expanduser(), active=True, depth=0, of_user=of_user)
            except FileNotFoundError:
                continue

    def _file(self, path: Path, *, active: bool, depth: int, of_user: bool) -> None:
        possible = active  # within an Include of a block that does not apply, nothing does
        for line in config_lines.read(path):
            if line.keyword == "host":
                active = possible & self._is_host(line)
            elif line.keyword == "match":
                active = self._does_match(line, possible)
            elif line.keyword == "include":
                self._include(line, active, depth, of_user)
            else:
                self._take(line, active)

    def _include(self, line: Line, active: bool, depth: int, of_user: bool) -> None:
        for word in line.words():
            if set("%$") & set(word) or (word.startswith("~") and not word.startswith("~/")):
                raise line.cannot(word, "Include with a token, a variable or the home of another")
            if depth >= _MAX_INCLUDES:
                raise line.wrong(f"Include {word}: more than {_MAX_INCLUDES} files within each other")
            if word.startswith("~") and not of_user:
                raise line.wrong(f"Include {word}: the system's ssh_config cannot include from a home")
            base = Path("~/.ssh" if of_user else "/etc/ssh")
            pattern = word if word.startswith("~") else str(base / word)
            for name in sorted(glob.glob(os.path.expanduser(pattern))):  # noqa: PTH111, PTH207
                _check_rights(line, name)
                try:
                    self._file(Path(name), active=active, depth=depth + 1, of_user=of_user)
                except OSError as error:
                    raise line.wrong(f"Include {name}: {error.strerror}") from None

    # --- blocks -----------------------------------------------------------------------------------------------------
    def _is_host(self, line: Line) -> bool:
        matched = False
        for pattern in line.words():
            if _glob(pattern.removeprefix("!"), self.host):
                if pattern.startswith("!"):
                    return False
                matched = True
        return matched

    def _does_match(self, line: Line, possible: bool) -> bool:
        words, result = config_lines.match_words(line), True
        if not words:
            raise line.wrong("Match: the condition is missing")
        seen = 0
        while words:
            word = words.pop(0)
            negated, name = word.startswith("!"), word.removeprefix("!").lower()
            if name == "all":
                if seen > 1 or words:
                    raise line.wrong("Match all stands alone")
                passed = True
            elif name in ("final", "canonical"):
                self.wants_final |= name == "final"
                passed = self.final
            else:
                passed = self._criterion(line, name, words, run=result and possible)
            seen += 1
            result = result and passed is not negated
        return result and possible

    def _criterion(self, line: Line, name: str, words: list[str], *, run: bool) -> bool:
        if name not in ("host", "originalhost", "user", "localuser", "exec"):
            raise line.cannot(f"Match {name}"[:60], "this condition is unknown")
        if not words:
            raise line.wrong(f"Match {name}: the pattern is missing")
        pattern = words.pop(0)
        if name == "exec":
            return run and self._succeeds(line, pattern)
        if name in ("host", "originalhost"):
            host = self.original if name == "originalhost" else self._host_so_far(line)
            return _matches(pattern.lower(), host.lower())
        return _matches(pattern, local_user() if name == "localuser" else self._user())

    def _host_so_far(self, line: Line) -> str:
        if self.final or "hostname" not in self._values:
            return self.host
        return _expanded(line, lambda: expand(self._values["hostname"][0], {"h": self.original}, variables=False))

    def _succeeds(self, line: Line, command: str) -> bool:
        if not command:
            raise line.wrong("Match exec: the command is missing")
        text = _expanded(line, lambda: expand(command, self._tokens(self._host_so_far(line)), variables=False))
        quiet, shell = subprocess.DEVNULL, os.environ.get("SHELL") or "/bin/sh"
        try:
            done = subprocess.run([shell, "-c", text], stdin=quiet, stdout=quiet, timeout=_MATCH_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0

    # --- values -----------------------------------------------------------------------------------------------------
    def _take(self, line: Line, active: bool) -> None:
        keyword = line.keyword
        if keyword in ("proxycommand", "proxyjump"):
            self._take_proxy(line, active)
            return
        if keyword not in KEYWORDS:
            if not self._is_ignored(keyword):
                raise line.cannot(keyword[:60], "this keyword is unknown")
            return
        if keyword not in _ONE | _SEVERAL | _EACH and keyword not in ("canonicalizehostname", "ignoreunknown"):
            return
        words = line.words()
        self._check(line, words)
        if not active:
            return
        if keyword in _EACH:
            values = self._values.setdefault(keyword, [])
            values += [words[0]] if words[0] not in values else []
        elif keyword not in self._values:
            self._values[keyword], self._lines[keyword] = words, line

    def _is_ignored(self, keyword: str) -> bool:
        return _matches(self._values.get("ignoreunknown", [""])[0].lower(), keyword)

    def _take_proxy(self, line: Line, active: bool) -> None:
        taken = self._values.get("proxycommand") or self._values.get("proxyjump", ["none"])[0].lower() != "none"
        value = line.rest
        if line.keyword == "proxyjump":
            words = line.words()
            value = words[0] if words else ""
            if len(words) != 1:
                raise line.wrong(f"ProxyJump {line.rest[:60]} is not an address")
            if set("'\"\\") & set(line.rest):
                raise line.cannot(f"ProxyJump {line.rest}"[:60], "an address in quotes")
            taken = taken or "proxyjump" in self._values
        if active and not taken:
            self._values[line.keyword], self._lines[line.keyword] = [value], line

    def _check(self, line: Line, words: list[str]) -> None:
        """Refuses what ssh refuses, also in a block that does not apply."""
        keyword = line.keyword
        if not words or not all(words):
            raise line.wrong(f"{keyword}: the value is missing")
        if len(words) > 1 and keyword not in _SEVERAL:
            raise line.wrong(f"{keyword}: {words[1]} is one word too many")
        if keyword in _SEVERAL and len(words) > 1 and "none" in [word.lower() for word in words]:
            raise line.wrong(f"{keyword}: none stands alone")
        value = words[0].lower()
        if keyword == "port" and not (value.isascii() and value.isdigit() and 0 < int(value) <= _MAX_PORT):
            raise line.wrong(f"Port {words[0][:40]} is no port")
        if keyword == "identitiesonly" and value not in _YES + _NO:
            raise line.wrong(f"IdentitiesOnly {words[0][:40]}: yes or no")
        if keyword == "canonicalizehostname" and value not in _NO:
            raise line.cannot(f"CanonicalizeHostname {words[0][:40]}", "names are not canonicalized")
        if keyword == "hostname" and "%" in words[0].replace("%%", "").replace("%h", ""):
            raise line.cannot(words[0][:60], "this token is unknown")

    # --- what it comes to -------------------------------------------------------------------------------------------
    def settle_host(self) -> None:
        """Takes HostName into use, as ssh does after the first reading."""
        if "hostname" in self._values:
            self.host = self._host_so_far(self._lines["hostname"])
        try:
            found = socket.getaddrinfo(self.host, None, flags=socket.AI_NUMERICHOST, type=socket.SOCK_STREAM)
            self.host = socket.getnameinfo(found[0][4], socket.NI_NUMERICHOST)[0]
        except (OSError, UnicodeError):
            self.host = self.host.lower()
        self._values["hostname"] = [self.host]

    def _user(self) -> str:
        return self._values.get("user", [local_user()])[0]

    def _alias(self) -> str | None:
        alias = self._values.get("hostkeyalias")
        return alias[0].lower() if alias else None

    def _tokens(self, host: str) -> dict[str, str]:
        port = self._values.get("port", ["22"])[0]
        return tokens(host, int(port), self._user(), self.original, self._alias())

    def _paths(self, keyword: str, default: tuple[str, ...]) -> tuple[str, ...]:
        if keyword not in self._values:
            return tuple(map(os.path.expanduser, default))
        line, named = self._lines[keyword], self._tokens(self.host)
        return _expanded(line, lambda: tuple(expand_path(path, named) for path in self._values[keyword]))

    def settings(self) -> Settings:
        found = {keyword: values[0] for keyword, values in self._values.items()}
        proxy = found.get("proxycommand")
        return Settings(
            host=self.host,
            port=int(found.get("port", 22)),
            user=self._user(),
            alias=self._alias(),
            identities=tuple(self._values.get("identityfile", _DEFAULT_KEYS)),
            certificates=tuple(self._values.get("certificatefile", ())),
            identities_only=found.get("identitiesonly", "no").lower() in _YES,
            agent=self._paths("identityagent", ("SSH_AUTH_SOCK",))[0],
            jump=None if proxy else found.get("proxyjump"),
            proxy=proxy,
            user_known_hosts=self._paths("userknownhostsfile", _USER_KNOWN_HOSTS),
            global_known_hosts=tuple(self._values.get("globalknownhostsfile", _GLOBAL_KNOWN_HOSTS)),
        )


def tokens(host: str, port: int, user: str, original: str, alias: str | None) -> dict[str, str]:
    """Returns what `%h` and its like stand for; `%C` and `%j` differ between versions of OpenSSH and are left out."""
    here = socket.gethostname()
    return {
        "d": os.path.expanduser("~"),  # noqa: PTH111
        "h": host,
        "i": str(os.getuid()),
        "k": alias or original,
        "L": here.split(".")[0],
        "l": here,
        "n": original,
        "p": str(port),
        "r": user,
        "u": local_user(),
    }


def local_user() -> str:
    """Returns the name of the account that this process runs as."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return getpass.getuser()


def _expanded(line: Line, make: Callable[[], T]) -> T:
    try:
        return make()
    except CannotExpand as error:
        raise line.cannot(f"{line.keyword} {line.rest}"[:60], str(error)) from None


def _glob(pattern: str, text: str) -> bool:
    """Only * and ? are special in ssh_config."""
    return re.fullmatch(fnmatch.translate(pattern.replace("[", "[[]")), text) is not None


def _matches(patterns: str, text: str) -> bool:
    found = False
    for pattern in patterns.split(","):
        if pattern.startswith("!"):
            if _glob(pattern[1:], text):
                return False
        else:
            found = found or _glob(pattern, text)
    return found


def _check_rights(line: Line, name: str) -> None:
    """Refuses, as ssh does, a file that others may write."""
    try:
        found = Path(name).stat()
    except OSError as error:
        raise line.wrong(f"Include {name}: {error.strerror}") from None
    if found.st_uid not in (0, os.getuid()) or stat.S_IMODE(found.st_mode) & 0o022:
        raise line.wrong(f"Include {name}: others may write it: chmod go-w {name}")
