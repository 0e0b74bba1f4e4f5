"""Provenance of a model, as an in-toto statement.

Names what was built (the graph and the golden set, with digests) and what it was built from: data files, rows, settings
and tools. The predicate is SLSA's. The statement is stored inside the model file, so the signature of the release
covers it; its subject is the model file without the files inside it. The statement has no time and no path, so that the
same rows give the same bytes.
Specification: https://slsa.dev/spec/v1.0/provenance
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.safe_files import sha256_of
from device_agent.shared.trust.oms import STATEMENT_TYPE
from knnkit.errors import DataError

PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://github.com/knnkit/knnkit/build/v1"


def statement(
    info: KnnInfo,
    graph: Iterable[Any],
    golden: bytes,
    sources: Iterable[str],
    settings: Mapping[str, Any],
    command: str,
) -> bytes:
    """Returns the provenance statement of a model as JSON.

    Args:
        info: content of the model's knn.json.
        graph: the model file without the files inside it, as bytes in parts.
        golden: bytes of golden.npz.
        sources: paths of tables, or names of data sets; others are left out.
        settings: the keys of `model` in deploy.yaml, without paths.
        command: the command that built the model.

    Raises:
        DataError: a data file can no longer be read.
    """
    rows = _named("training rows and labels", info.fingerprint)
    stages = [_named(each.file, each.sha256) for each in (info.input.stages if info.input else ())]
    tools = [{"uri": f"pkg:pypi/{name}@{version}"} for name, version in sorted(info.versions.items())]
    predicate = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"command": command, "settings": dict(settings)},
            "resolvedDependencies": [*_files(sources), rows, *stages, *tools],
        },
        "runDetails": {"builder": {"id": f"pkg:pypi/knnkit@{info.versions['knnkit']}"}},
    }
    model = f"{constants.MODEL_FILE} without associated files"
    subject = [_named(constants.GOLDEN_FILE, _digest([golden])), _named(model, _digest(graph))]
    document = {"_type": STATEMENT_TYPE, "subject": subject, "predicateType": PREDICATE_TYPE, "predicate": predicate}
    return json.dumps(document, sort_keys=True, indent=1).encode()


def _digest(parts: Iterable[Any]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def _named(name: str, digest: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": digest}}


def _files(sources: Iterable[str]) -> list[dict[str, Any]]:
    """Returns an entry with file name and SHA-256 for each source that is a file; leaves out names of data sets."""
    found = []
    for path in map(Path, dict.fromkeys(sources)):
        try:
            if path.is_file():
                found.append(_named(path.name, sha256_of(path)))
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return found
