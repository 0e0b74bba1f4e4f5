"""Releases with other stages or golden inputs, as their signer could make them: the key signs what was changed."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from device_agent.shared.protocol import constants
from knnkit.release.signing import FileSigner, sign_release
from support import model_files


def replace_stage(release: Path, name: str, data: bytes, key: Path) -> None:
    """Writes the bytes of a stage into a release, names it in knn.json, and signs it again."""
    (release / name).write_bytes(data)

    def rename(info: dict[str, Any]) -> None:
        for stage in info["input"]["stages"]:
            if stage["file"] == name:
                stage["sha256"] = hashlib.sha256(data).hexdigest()

    edit_info(release, rename, key)


def edit_info(release: Path, edit: Callable[[dict[str, Any]], object], key: Path) -> None:
    """Changes knn.json, and signs the release again."""
    path = release / constants.MODEL_FILE
    info = json.loads(model_files.split(path.read_bytes())[1][constants.KNN_FILE])
    edit(info)
    path.write_bytes(model_files.add(path.read_bytes(), {constants.KNN_FILE: json.dumps(info).encode()}))
    sign_release(release, FileSigner.load(key))


def edit_golden(release: Path, edit: Callable[[dict[str, Any]], object], key: Path) -> None:
    """Changes the arrays of golden.npz, and signs the release again."""
    path = release / constants.GOLDEN_FILE
    with np.load(path) as found:
        arrays = {name: found[name].copy() for name in found.files}
    edit(arrays)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    path.write_bytes(buffer.getvalue())
    sign_release(release, FileSigner.load(key))
