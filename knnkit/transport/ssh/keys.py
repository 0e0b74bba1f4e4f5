"""Reads private keys, certificates and public keys from files.

Never stores a passphrase. Reads the formats of ssh: OpenSSH's own (also encrypted with AES-GCM), PKCS#1, SEC1 and
PKCS#8. The passphrase of an encrypted key comes from KNNKIT_SSH_PASSPHRASE; without it, knnkit asks for it on a
terminal, once for each file.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import getpass
import io
import os
import shlex
import stat
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from device_agent.shared.safe_files import read_small
from knnkit.transport.ssh.paramiko_import import paramiko

PASSPHRASE = "KNNKIT_SSH_PASSPHRASE"  # noqa: S105  (the name of the variable)
_MAGIC = b"openssh-key-v1\0"
#: Largest file of a key that is read, in bytes.
_MAX_KEY = 1 << 20
_KINDS = {rsa.RSAPrivateKey: "RSAKey", ec.EllipticCurvePrivateKey: "ECDSAKey", ed25519.Ed25519PrivateKey: "Ed25519Key"}
_loaded: dict[tuple[str, int], paramiko.PKey] = {}
_loading = threading.Lock()


class NoKey(Exception):
    """Error: a file holds no usable key; the message says why, and what to type."""


class _Certified(paramiko.PKey):
    """A key from a file or a key agent, together with its certificate (None: without), as paramiko offers it."""

    def __init__(self, key: Any, blob: paramiko.pkey.PublicBlob | None) -> None:
        self._key, self.public_blob = key, blob

    def get_name(self) -> str:
        return str(self._key.get_name())

    def asbytes(self) -> bytes:
        return bytes(self._key.asbytes())

    def sign_ssh_data(self, data: bytes, algorithm: str | None = None) -> Any:
        return self._key.sign_ssh_data(data, algorithm)


class AgentKey(_Certified):
    """A key or certificate of a key agent.

    Adds a message to `notes` when the key agent refuses to sign.
    """

    def __init__(self, key: paramiko.AgentKey, notes: list[str]) -> None:
        certified = key.get_name().endswith("-cert-v01@openssh.com")
        super().__init__(key, paramiko.pkey.PublicBlob(key.get_name(), key.blob) if certified else None)
        self._notes = notes

    def sign_ssh_data(self, data: bytes, algorithm: str | None = None) -> Any:
        """Returns the key agent's signature; if it refuses, a false one, so that the login tries the next key."""
        try:
            return bytes(self._key.sign_ssh_data(data, algorithm))
        except (OSError, paramiko.SSHException) as error:
            self._notes.append(f"the key agent does not sign with {self._key.comment or self.get_name()}: {error}")
            made = paramiko.Message()
            made.add_string(algorithm or self.get_name())
            made.add_string(bytes(64))
            return made.asbytes()


def certificates_of(
    file: Path, named: Iterable[str], key: paramiko.PKey, notes: list[str]
) -> Iterator[tuple[Path, paramiko.PKey]]:
    """Yields (path, key with its certificate) for each certificate of `key`.

    Looks in `FILE-cert.pub` next to the key's `file`, and in the files of CertificateFile (`named`). Adds a warning to
    `notes` for each file that cannot be used.
    """
    beside = file.with_name(file.name + "-cert.pub")
    for path in (beside, *map(Path, named)):
        try:
            blob, of, expires = _certificate(_read(path).strip())
        except FileNotFoundError:
            continue
        except OSError as error:
            notes.append(f"{path}: {error.strerror}")
            continue
        except Exception:  # a broken file raises almost anything in the two readers
            notes.append(f"{path} is not a certificate that can be read")
            continue
        if of == key.asbytes():
            notes += [f"{path} has expired"] if expires <= time.time() else []
            yield path, _Certified(key, blob)
        elif path == beside:
            notes.append(f"{path} is the certificate of another key")


def _certificate(text: bytes) -> tuple[paramiko.pkey.PublicBlob, bytes | None, int]:
    """Returns (certificate for paramiko, wire form of its public key, expiry in Unix time).

    Raises an Exception of any class if `text` is not a certificate.
    """
    found = serialization.load_ssh_public_identity(text)
    if not isinstance(found, serialization.SSHCertificate):
        raise ValueError("a public key")
    of = found.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return paramiko.pkey.PublicBlob.from_string(text.decode()), _blob_of_line(of), found.valid_before


def public_half(path: Path) -> bytes | None:
    """Returns the wire form of the public key that belongs to a private key file, without decrypting that file.

    Reads a public key file at `path`, or `path` with `.pub`, or the public part of a private key in OpenSSH's format.
    Returns None if none of the three holds a public key.
    """
    data = beside = b""
    with contextlib.suppress(OSError):
        data = _read(path)
    with contextlib.suppress(OSError):
        beside = _read(path.with_name(path.name + ".pub"))
    return _blob_of_line(data if _is_public(data) else beside) or _blob_of_private(data)


def _is_public(data: bytes) -> bool:
    return data.lstrip().startswith((b"ssh-", b"ecdsa-", b"sk-"))


def _blob_of_line(data: bytes) -> bytes | None:
    try:
        return base64.b64decode(data.split()[1])
    except (ValueError, IndexError, binascii.Error):
        return None


def _blob_of_private(data: bytes) -> bytes | None:
    """Returns the wire form of the public key in a private key file of OpenSSH's own format; None for other files."""
    try:
        body = base64.b64decode(b"".join(data.split(b"KEY-----")[1].rpartition(b"-----END")[0].split()))
        if not body.startswith(_MAGIC):
            return None
        message = paramiko.Message(body[len(_MAGIC) :])
        for _ in ("cipher", "kdf", "options"):
            message.get_binary()
        return message.get_binary() if message.get_int() == 1 else None
    except Exception:  # a broken file raises almost anything in paramiko's reader
        return None


def load(path: Path, *, agent: str) -> paramiko.PKey:
    """Reads a private key from a file; keeps it in memory, so that each file is read once.

    `agent` is text for the error if the file is a public key: why no key agent signs with it.

    Raises:
        NoKey: the file holds no usable key.
        FileNotFoundError: there is no such file.
    """
    try:
        found, data = path.stat(), _read(path)
        if _is_public(data):
            raise NoKey(f"{path} is a public key, and {agent}: ssh-add the private key")
        if data.startswith(b"PuTTY-User-Key-File"):
            here, there = shlex.quote(str(path)), shlex.quote(str(path.with_suffix(".key")))
            raise NoKey(f"{path} is a key of PuTTY: puttygen {here} -O private-openssh -o {there}")
        if stat.S_IMODE(found.st_mode) & 0o077 and found.st_uid == os.getuid():
            raise NoKey(f"{path} may be read by other users: chmod 600 {shlex.quote(str(path))}")
        with _loading:
            known = (str(path), found.st_mtime_ns)
            if known not in _loaded:
                _loaded[known] = _open(path, data)
            return _loaded[known]
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NoKey(f"{path}: {error.strerror}") from None


def _read(path: Path) -> bytes:
    return read_small(path, _MAX_KEY, follow=True)[:_MAX_KEY]


def _open(path: Path, data: bytes) -> paramiko.PKey:
    try:
        return _for_paramiko(path, _parse(data, None))
    except TypeError:  # cryptography: a passphrase is needed
        secret = _passphrase(path)
    except UnsupportedAlgorithm:
        raise NoKey(f"{path} is of a kind that knnkit does not read: add it to the key agent with ssh-add") from None
    except ValueError:
        raise NoKey(f"{path} is not a key that can be read") from None
    try:
        key = _parse(data, secret)
    except Exception:  # cryptography: ValueError, InvalidTag, ...
        raise NoKey(f"{path}: the passphrase is wrong (from {PASSPHRASE} or typed)") from None
    return _for_paramiko(path, key)


def _passphrase(path: Path) -> bytes:
    secret = os.environ.get(PASSPHRASE)
    if not secret and sys.stdin is not None and sys.stdin.isatty():
        secret = getpass.getpass(f"Passphrase of {path}: ")
    if not secret:
        raise NoKey(f"{path} has a passphrase: ssh-add it, or set {PASSPHRASE}")
    return secret.encode()


def _parse(data: bytes, secret: bytes | None) -> Any:
    if b"BEGIN OPENSSH PRIVATE KEY" in data:
        return serialization.load_ssh_private_key(data, secret)
    return serialization.load_pem_private_key(data, secret)


def _for_paramiko(path: Path, key: Any) -> paramiko.PKey:
    kind = next((name for cls, name in _KINDS.items() if isinstance(key, cls)), None)
    if kind is None:
        raise NoKey(f"{path}: a key of this kind is not supported: ssh-keygen -t ed25519")
    plain = serialization.NoEncryption()
    text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, plain).decode()
    made: paramiko.PKey = getattr(paramiko, kind).from_private_key(io.StringIO(text))
    return made
