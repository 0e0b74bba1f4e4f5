"""Roots of devices, provisioned once by the real code and copied: agent, runtime and trusted key, and no release."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from knnkit.fleet.device.probe import probe
from knnkit.provision import provision
from knnkit.release.keys import load_public_keys
from knnkit.transport.local import LocalTransport
from support.releases import Releases


def make_board(root: Path, releases: Releases) -> Path:
    """Provisions `root` on this machine, to trust the key of the test releases."""
    local = LocalTransport()
    keys = load_public_keys([releases.public_key])
    provision(local, probe(local, str(root), timeout=60), root=str(root), keys=keys, offline=True)
    return root


def copy_board(board: Path, root: Path) -> Path:
    """Makes another board like `board`; the two share the bytes of files, which no code writes in place."""
    shutil.copytree(board, root, symlinks=True, copy_function=os.link)
    return root
