"""Reads known_hosts files; `enrol` adds a line.

A file is read once; threads share the result. Never trusts a host on first use.

The format is OpenSSH's (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT): plain, `[host]:port`, wildcard, negated and hashed
names, `@revoked`. paramiko verifies no host certificates, so a `@cert-authority` line makes no host known. If a host
is unknown, the error names such lines, and lines that cannot be read. A line that cannot be read hides no other line.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import fnmatch
import functools
import hashlib
import hmac
import io
import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from device_agent.shared.safe_files import open_ordinary, read_small
from knnkit.errors import HostKeyError
from knnkit.transport.address import Address

_ENROL = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
_MAX_FILE = 32 * 1024 * 1024
#: Keeps bytes that are not UTF-8, such as in a comment, when a file is rewritten.
_AS_THEY_ARE = "surrogateescape"


@dataclass(frozen=True)
class HostKey:
    """One public host key; `where` is the file and line from which it was read."""

    kind: str  # "ssh-ed25519", ...
    blob: bytes
    where: str = ""
    revoked: bool = False

    @property
    def fingerprint(self) -> str:
        """Fingerprint as `ssh-keygen -l` prints it: `SHA256:` and 43 characters."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    def same(self, other: HostKey) -> bool:
        """Whether this and the other are the same public key; `where` may differ."""
        return self.blob == other.blob


@dataclass(frozen=True)
class _Line:
    patterns: tuple[str, ...]
    key: HostKey


@dataclass(frozen=True)
class KnownHosts:
    """The content of several known_hosts files: all their lines, in order."""

    lines: tuple[_Line, ...]
    bad: tuple[str, ...]  # where lines stand that cannot be read
    authorities: tuple[_Line, ...] = ()  # @cert-authority

    def lookup(self, host: str, port: int) -> tuple[HostKey, ...]:
        """Returns the keys of a host in these files, without the revoked ones."""
        name = host_name(host, port)
        return tuple(line.key for line in self.lines if _matches(line.patterns, name) and not line.key.revoked)

    def check(self, host: str, port: int, offered: HostKey, typed: str = "") -> None:
        """Checks that the key that a host offers is known; `typed` is the host's name in hints such as `knnkit trust`.

        Raises:
            HostKeyError: the host is unknown, or offers another key, or a revoked one.
        """
        name, typed = host_name(host, port), typed or shlex.quote(str(Address(host, port=None if port == 22 else port)))
        revoked = [line.key for line in self.lines if line.key.revoked and line.key.same(offered)]
        if revoked:
            raise HostKeyError(
                f"{name} offers a revoked host key ({offered.fingerprint}; {revoked[0].where})",
                reason="host-key-revoked",
                hint="on the device: sudo rm /etc/ssh/ssh_host_*_key*; sudo ssh-keygen -A; then here: "
                f"knnkit trust {typed} --replace",
            )
        known = self.lookup(host, port)
        if any(key.same(offered) for key in known):
            return
        if known:
            raise HostKeyError(
                f"{name} offers another host key than the known one: {offered.kind} {offered.fingerprint}, "
                f"known {known[0].kind} {known[0].fingerprint} ({known[0].where}). Another machine may be answering in "
                "its place, or the device was reinstalled",
                reason="host-key-changed",
                hint=f"if the device was reinstalled: knnkit trust {typed} --replace",
            )
        raise HostKeyError(
            f"{name} is not in known_hosts{self._why_unknown(name)}; it offers {offered.kind} {offered.fingerprint}",
            reason="host-key-unknown",
            hint=f"knnkit trust {typed}",
        )

    def _why_unknown(self, name: str) -> str:
        authority = next((line.key.where for line in self.authorities if _matches(line.patterns, name)), None)
        if authority:
            return f" except by a certificate authority ({authority}), and host certificates are not supported"
        return f" (cannot be read: {', '.join(self.bad[:3])})" if self.bad else ""


def host_name(host: str, port: int) -> str:
    """Returns the name of a host in known_hosts: `host`, or `[host]:port` if the port is not 22."""
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def _matches(patterns: Iterable[str], name: str) -> bool:
    found = False
    for pattern in patterns:
        if pattern.startswith("|1|"):
            found = found or _matches_hash(pattern, name)
        elif pattern.startswith("!"):
            if _glob(pattern[1:], name):
                return False
        else:
            found = found or _glob(pattern, name)
    return found


def _glob(pattern: str, name: str) -> bool:
    escaped = pattern.lower().replace("[", "[[]")  # in known_hosts only * and ? are special
    return fnmatch.fnmatchcase(name, escaped)


def _matches_hash(pattern: str, name: str) -> bool:
    try:
        salt = base64.b64decode(pattern.split("|")[2])
        return hmac.compare_digest(_hashed(name, salt), pattern)
    except (ValueError, LookupError, TypeError):
        return False


def _hashed(name: str, salt: bytes | None = None) -> str:
    """Returns the hashed form of a host's name, as `ssh-keygen -H` writes it; `salt` None: with a random salt."""
    salt = os.urandom(20) if salt is None else salt
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def load(paths: Iterable[str | Path]) -> KnownHosts:
    """Reads known_hosts files; a missing file counts as empty.

    Raises:
        HostKeyError: a file cannot be read, or is too large.
    """
    whole = KnownHosts((), ())
    for path in paths:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = Path(path).expanduser().stat()
            one = _load_one(str(path), found.st_mtime_ns, found.st_size)
            both = (whole.lines + one.lines, whole.bad + one.bad, whole.authorities + one.authorities)
            whole = KnownHosts(*both)
    return whole


@functools.lru_cache(maxsize=64)
def _load_one(path: str, _changed: int, size: int) -> KnownHosts:
    if size > _MAX_FILE:
        said = f"{path} has {size:,} bytes; a file of host keys has at most {_MAX_FILE:,}"
        raise HostKeyError(said, reason="known-hosts")
    try:
        text = read_small(Path(path).expanduser(), _MAX_FILE, follow=True).decode("utf-8", "replace")
    except OSError as error:
        raise HostKeyError(f"{path}: {error.strerror}", reason="known-hosts") from None
    return parse(text, path)


def load_revoked(path: str) -> tuple[_Line, ...]:
    """Reads the file that RevokedHostKeys names: one public key a line.

    Raises:
        HostKeyError: the file cannot be read, or is not a list of keys; as with ssh, no host is then accepted.
    """
    try:
        text = read_small(Path(path), _MAX_FILE, follow=True).decode()
    except OSError as error:
        raise HostKeyError(f"RevokedHostKeys {path}: {error.strerror}", reason="known-hosts") from None
    except UnicodeDecodeError:
        said = f"RevokedHostKeys {path}: it is not a list of public keys; key revocation lists (KRL) are not supported"
        raise HostKeyError(said, reason="known-hosts", hint="name a file with one public key a line") from None
    named = "".join(line if line.startswith("#") or not line.strip() else f"* {line}" for line in _lines(text))
    found = parse(named, path)
    if found.bad:
        raise HostKeyError(f"RevokedHostKeys {found.bad[0]}: this is not a public key", reason="known-hosts")
    return tuple(replace(line, key=replace(line.key, revoked=True)) for line in found.lines)


def parse(text: str, path: str) -> KnownHosts:
    """Parses the text of a known_hosts file; `path` is its name in messages."""
    lines: list[_Line] = []
    authorities: list[_Line] = []
    bad: list[str] = []
    for number, line in enumerate(_lines(text), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        where = f"{path}:{number}"
        marker = words.pop(0) if words[0].startswith("@") else ""
        known = marker in ("", "@revoked", "@cert-authority")
        key = _key(words, where, revoked=marker == "@revoked") if known else None
        if key is None:
            bad.append(where)
        else:
            found = authorities if marker == "@cert-authority" else lines
            found.append(_Line(tuple(words[0].split(",")), key))
    return KnownHosts(tuple(lines), tuple(bad), tuple(authorities))


def _lines(text: str) -> Iterable[str]:
    """Splits text only at line feeds, as OpenSSH does: with `str.splitlines`, a comment could hold a further line."""
    return io.StringIO(text, newline="\n")


def _key(words: list[str], where: str, *, revoked: bool) -> HostKey | None:
    try:
        _, kind, encoded = words[:3]
        blob = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        return None
    named = kind.encode()
    if blob[:4] != len(named).to_bytes(4, "big") or blob[4 : 4 + len(named)] != named:
        return None
    return HostKey(kind, blob, where, revoked)


def enrol(path: Path, host: str, port: int, key: HostKey, *, replace: bool = False, hash_name: bool = False) -> bool:
    """Writes a host's key into a known_hosts file; returns whether the file changed.

    `hash_name`: whether to write the name of the host in hashed form, as HashKnownHosts requires.
    `replace`: whether to remove the host's old lines first, after copying the file to one with the suffix `.old`.

    Raises:
        HostKeyError: the file has another key of the host and `replace` is False, or the file cannot be written.
    """
    name = host_name(host, port)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            open_ordinary(path, follow=True).close()
        with os.fdopen(os.open(path, _ENROL, 0o600), "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            before = file.read()
            text = before.decode("utf-8", _AS_THEY_ARE)
            known = parse(text, str(path)).lookup(host, port)
            if any(entry.same(key) for entry in known):
                return False
            if known and not replace:
                parse(text, str(path)).check(host, port, key)
            kept = _without(text, name) if known else text
            if kept != text:
                path.with_name(path.name + ".old").write_bytes(text.encode("utf-8", _AS_THEY_ARE))
            line = f"{_hashed(name) if hash_name else name} {key.kind} {base64.b64encode(key.blob).decode()}\n"
            after = (kept + ("" if not kept or kept.endswith("\n") else "\n") + line).encode("utf-8", _AS_THEY_ARE)
            try:
                _overwrite(cast(BinaryIO, file), after)
            except OSError:
                _overwrite(cast(BinaryIO, file), before)
                raise
            return True
    except OSError as error:
        raise HostKeyError(f"{path}: {error.strerror}", reason="known-hosts") from None


def _overwrite(file: BinaryIO, data: bytes) -> None:
    file.seek(0)
    while data:
        data = data[file.write(data) :]
    file.truncate()


def _without(text: str, name: str) -> str:
    """Returns the text without the lines of the host `name`; a line for several hosts loses only that name."""
    kept = []
    for line in _lines(text):
        words = line.split(maxsplit=1)
        if len(words) < 2 or words[0].startswith(("#", "@")) or not _matches(words[0].split(","), name):
            kept.append(line)
            continue
        others = [pattern for pattern in words[0].split(",") if not _matches([pattern], name)]
        if [pattern for pattern in others if not pattern.startswith("!")]:
            kept.append(f"{','.join(others)} {words[1]}")
    return "".join(kept)
