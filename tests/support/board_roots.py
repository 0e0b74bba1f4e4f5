"""Roots of devices, provisioned once by the real code and copied: agent, runtime and trusted key, and no release."""

from __future__ import annotations

import compileall
import hashlib
import os
import shutil
from pathlib import Path

from knnkit.cli import main
from knnkit.fleet.device.probe import probe
from knnkit.provision import provision
from knnkit.release.keys import load_public_keys
from knnkit.transport.local import LocalTransport
from support.releases import Releases


def make_board(root: Path, releases: Releases) -> Path:
    """Provisions `root` on this machine, to trust the key of the test releases; its `bench` takes 0.2 s, not 6."""
    local = LocalTransport()
    keys = load_public_keys([releases.public_key])
    provision(local, probe(local, str(root), timeout=60), root=str(root), keys=keys, offline=True)
    (commands,) = root.glob("venvs/*/lib/python3*/site-packages/device_agent/commands/diagnostics.py")
    source = commands.read_bytes()
    assert source.count(b"default=2.0,") == 1
    quick = source.replace(b"default=2.0,", b"default=0.06,")
    commands.write_bytes(quick)
    before, now = (hashlib.sha256(each).hexdigest() for each in (source, quick))
    for record in root.glob("venvs/*/wheels/*.json"):  # else the environment would count as damaged
        record.write_text(record.read_text().replace(before, now))
    compileall.compile_dir(commands.parents[1], quiet=1)  # once, instead of in each copy
    return root


def copy_board(board: Path, root: Path) -> Path:
    """Makes another board like `board`; the two share the bytes of their environment, which no code writes in place."""

    def copy(source: str, target: str) -> None:
        (os.link if source.startswith(f"{board}/venvs/") else shutil.copy2)(source, target)

    shutil.copytree(board, root, symlinks=True, copy_function=copy)
    return root


def copy_and_deploy(board: Path, root: Path, release: Path) -> Path:
    """Makes another board like `board`, on which `release` is deployed."""
    copy_board(board, root)
    assert main(["deploy", "--target", "local", "--root", str(root), "--release", str(release)]) == 0
    return root
