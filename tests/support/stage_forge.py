"""Releases with another stage, as its signer could make them: knn.json names the new file, and the key signs it all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from device_agent.shared.protocol import constants
from knnkit.model.tflite import associated_files
from knnkit.release.signing import FileSigner, sign_release


def replace_stage(release: Path, name: str, data: bytes, key: Path) -> None:
    """Writes the bytes of a stage into a release, and signs it again."""
    (release / name).write_bytes(data)
    path = release / constants.MODEL_FILE
    info = json.loads(associated_files.split(path.read_bytes())[1][constants.KNN_FILE])
    for stage in info["input"]["stages"]:
        if stage["file"] == name:
            stage["sha256"] = hashlib.sha256(data).hexdigest()
    path.write_bytes(associated_files.add(path.read_bytes(), {constants.KNN_FILE: json.dumps(info).encode()}))
    sign_release(release, FileSigner.load(key))
