"""Builds the `.tflite` of every data set with this clone's knnkit, once for each state of its sources.

The one module here that loads TensorFlow; runs as a process of its own: `python -m benchmarks.models FOLDER...`.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from benchmarks import datasets
from benchmarks.peers import ROOT

STAMP = "model.sources"
#: Bytes that are written at once: a kernel may keep them in one piece, and map all of it where a part is looked at.
PIECE = 64 << 10


def sources_digest() -> str:
    """Returns the SHA-256 of all sources that affect a build."""
    digest = hashlib.sha256(str(datasets.K).encode())
    for file in sorted([*(ROOT / "knnkit" / "model").rglob("*.py"), *(ROOT / "device_agent").rglob("*.py")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def ensure(folders: list[Path]) -> None:
    """Builds the models that are missing or older than the sources."""
    digest = sources_digest()
    stale = [folder for folder in folders if not _is_fresh(folder, digest)]
    if stale:
        command = [sys.executable, "-m", "benchmarks.models", *map(str, stale)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)  # TensorFlow talks, also when all is well
        if done.returncode:
            raise RuntimeError(f"the models could not be built:\n{done.stderr[-4000:]}")


def _is_fresh(folder: Path, digest: str) -> bool:
    stamp = folder / STAMP
    return (folder / "model.tflite").exists() and stamp.exists() and stamp.read_text() == digest


def build(folder: Path) -> None:
    """Builds one model and stamps it."""
    from knnkit import TfKNN

    table = datasets.load(folder)
    data = TfKNN(table.rows, datasets.K, labels=table.labels).build().data
    with (folder / "model.tflite").open("wb", buffering=0) as file:
        for start in range(0, len(data), PIECE):  # as an upload does
            file.write(data[start : start + PIECE])
    (folder / STAMP).write_text(sources_digest())


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        build(Path(argument))
