"""Verifies a release on the host, by the device's rules."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable
from pathlib import Path

from device_agent import __version__
from device_agent.shared.release import directory as release_files
from device_agent.shared.trust import reasons, rules
from knnkit.errors import VerificationFailed, raised_as
from knnkit.release import keys
from knnkit.release.signing import require_directory


def verify_release(directory: Path, public_keys: Iterable[Path], *, now: int | None = None) -> rules.Verdict:
    """Verifies the release in `directory`, as a new device that trusts `public_keys` would at the Unix time `now`.

    None stands for the time of this machine's clock.

    Raises:
        VerificationFailed: a device would refuse the release; the error has the device's reason.
        SigningKeyError: a key file is missing or does not hold a public key.
    """
    try:
        return verify_with(directory, keys.load_public_keys(public_keys), now=now)
    except VerificationFailed as error:
        if error.reason == reasons.Reason.UNKNOWN_KEY.value:  # no device is asked here: nobody's trust is to be changed
            check = f"`knnkit verify {shlex.quote(str(directory))} --key PUB`, with the signer's key"
            error.hint = f"`knnkit trust --show PUB`, to compare; {check}"
        raise


def verify_with(directory: Path, trusted: dict[str, bytes], *, now: int | None = None) -> rules.Verdict:
    """Verifies the release in `directory` against keys (fingerprint -> PEM text); `now`: Unix time; None: now.

    Raises:
        VerificationFailed: a device would refuse the release; the error has the device's reason.
        UsageError: there is no such directory.
    """
    require_directory(directory)
    state = rules.TrustState(keys=trusted, agent_version=__version__)
    with raised_as(VerificationFailed, directory), release_files.open_release(directory.resolve()) as release:
        return release.verify(state, now=int(time.time()) if now is None else now)
