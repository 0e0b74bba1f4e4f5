"""scripts/bench verify: the time to verify a release, at every start and every activation.

Compares a small release with a fixed budget, and one with a model of 188 MB with SHA-256 alone over the same bytes, in
turns. Times are processor time with the files in memory, so that other work on the machine does not count.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers import BUILD
from benchmarks.report import goal, goal_lines
from device_agent.shared.protocol import constants, model_info
from device_agent.shared.release import directory as release_files
from device_agent.shared.trust import dsse, rules
from knnkit.release.manifest import write_manifest
from knnkit.release.signing import FileSigner, sign_release

#: Bytes of the models: the one of 60,000 rows of 784 features, and a small one.
LARGE, SMALL = 188_402_904, 26_000
SMALL_MS, RATIO = 50.0, 1.25


def run(*, rounds: int) -> dict[str, Any]:
    """Measures; returns milliseconds, the ratio and the goals."""
    from cryptography.hazmat.primitives.asymmetric import ec

    signer = FileSigner(ec.generate_private_key(ec.SECP256R1()))
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        small, large = (_make(Path(folder, str(size)), size, signer) for size in (SMALL, LARGE))
        state = rules.TrustState(
            keys={dsse.fingerprint(signer.public_pem): signer.public_pem},
            agent_version="0.1.0",
            runtime_version="tflite_runtime 2.14.0",
        )
        data = (large / constants.MODEL_FILE).read_bytes()
        pairs = [
            (_seconds(lambda: hashlib.sha256(data).digest()), _seconds(lambda: _verify(large, state)))
            for _ in range(rounds)
        ]
        small_ms = min(_seconds(lambda: _verify(small, state)) for _ in range(rounds)) * 1e3
    raw, verified = (min(pair[side] for pair in pairs) for side in (0, 1))
    return {
        "small_ms": round(small_ms, 3),
        "large_s": round(verified, 3),
        "sha256_s": round(raw, 3),
        "ratio": round(verified / raw, 3),
        "goals": [
            goal("a small release, ms", small_ms, SMALL_MS),
            goal("188 MB, times SHA-256 alone", verified / raw, RATIO),
        ],
    }


def table(results: dict[str, Any]) -> str:
    """Returns the results as text."""
    line = f"188 MB: verified in {results['large_s']} s, SHA-256 alone {results['sha256_s']} s (processor time)"
    return "\n".join([line, *goal_lines(results["goals"])])


def _make(directory: Path, size: int, signer: FileSigner) -> Path:
    directory.mkdir()
    (directory / constants.MODEL_FILE).touch()
    os.truncate(directory / constants.MODEL_FILE, size)
    (directory / constants.GOLDEN_FILE).write_bytes(b"golden" * 500)
    manifest = model_info.Manifest(
        name="bench", version="1.0.0", sequence=1_800_000_000, created=1_800_000_000, expires=None, device_class="any",
        minimum_agent="0.1.0", minimum_runtime="1.7.0", k=3, n_features=2, labels_sha256="0" * 64,
        gates=model_info.Gates(),
    )  # fmt: skip
    (directory / constants.MANIFEST_FILE).write_bytes(write_manifest(manifest))
    sign_release(directory, signer)
    return directory


def _verify(directory: Path, state: rules.TrustState) -> None:
    with release_files.open_release(directory) as opened:
        opened.verify(state)


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started
