"""Gets the passphrase of a signing key: from the environment, or from the person at the terminal. Never echoes it."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

from knnkit.errors import SigningKeyError
from knnkit.release import keys
from knnkit.release.signing import FileSigner


def load_signer(path: Path) -> FileSigner:
    """Returns the signer of the private key in `path`, asking for a passphrase only when the key has one.

    Raises:
        SigningKeyError: see `keys.load_private_key`; or the passphrase is needed and nobody is there to ask.
    """
    return FileSigner.load(path, _ask(f"Passphrase of {path}: ") if keys.is_encrypted(path) else None)


def choose() -> bytes:
    """Returns a new passphrase, asked for twice.

    Raises:
        SigningKeyError: it is empty, the two differ, or nobody is there to ask.
    """
    secret = _ask("New passphrase: ")
    if not os.environ.get(keys.PASSPHRASE_VARIABLE) and _ask("The same again: ") != secret:
        raise SigningKeyError("the two passphrases differ; no key was made", hint="knnkit keygen --passphrase")
    if not secret:
        raise SigningKeyError("an empty passphrase protects nothing; no key was made", hint="leave out --passphrase")
    return secret


def _ask(prompt: str) -> bytes:
    given = os.environ.get(keys.PASSPHRASE_VARIABLE)
    if given:
        return given.encode()
    if not sys.stdin.isatty():
        raise SigningKeyError(
            "a passphrase is needed, and there is no terminal to ask for it", hint=f"set {keys.PASSPHRASE_VARIABLE}"
        )
    return getpass.getpass(prompt).encode()
