"""Decides whether a release must be built again.

From the configuration and the bytes of the data files alone, so that deploying a finished release loads neither
TensorFlow nor scikit-learn. Never builds."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

from device_agent import __version__
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.release import model_file
from device_agent.shared.safe_files import open_ordinary
from knnkit.config.parse import Build, FileData, ModelConfig, SkopsData, TestFile
from knnkit.data.patterns import expand
from knnkit.errors import DataError

_TOOLS = ("tensorflow", "scikit-learn", "numpy")
#: Keys of `model` that count by what they lead to.
_ELSEWHERE: Any = {"gates": True, "data": {"file", "files", "skops"}, "test": {"file"}, "split": {"file"}}
#: Keys that older versions lack.
_SILENT = {"drop", "missing", "categories", "unknown_category", "ignore_extra", "thousands", "keep"}
_CHUNK = 1 << 20


def digest(build: Build) -> str:
    """Returns the SHA-256 over all inputs of the release except the time: model, data, gates, version, tools.

    Raises:
        DataError: a data file is missing or cannot be read.
    """
    model = build.model
    files = list(expand(model.data.sources)) if isinstance(model.data, FileData) else []
    if isinstance(model.data, SkopsData):
        files.append(model.data.skops)
    if isinstance(model.measured_on, TestFile):
        files.append(model.measured_on.file)
    asked = {
        "model": _asked(model),
        "gates": build.gates.model_dump(mode="json"),
        "release": build.release.model_dump(mode="json", exclude={"dir"}),
        "files": [_file_digest(path) for path in files],
        "tools": {"knnkit": __version__, **{tool: _installed(tool) for tool in _TOOLS}},
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _asked(model: ModelConfig) -> dict[str, Any]:
    """Returns the keys of `model`; without those of a table that say nothing, as versions without them do."""
    return _without_silent(model.model_dump(mode="json", exclude=_ELSEWHERE))


def _without_silent(found: dict[str, Any]) -> dict[str, Any]:
    for section in (found, found["data"]):
        for key in _SILENT & section.keys():
            if not section[key] or section[key] == "refuse":
                del section[key]
    return found


def settings(build: Build) -> dict[str, Any]:
    """Returns the model in deploy.yaml; of a file, only its name."""
    model = build.model
    found = _without_silent(model.model_dump(mode="json", exclude_none=True, exclude=_ELSEWHERE))
    if isinstance(model.data, FileData):
        names = [path.name for path in model.data.sources]
        found["data"] |= {"file": names[0]} if model.data.files == () else {"files": names}
    elif isinstance(model.data, SkopsData):
        found["data"] |= {"skops": model.data.skops.name}
    if isinstance(model.measured_on, TestFile):
        found["test"] = {**(found.get("test") or {}), "file": model.measured_on.file.name}
    return found


def is_built(directory: Path, build: Build) -> bool:
    """Whether `directory` holds a release of exactly these inputs; does not check its signature.

    Raises:
        DataError: a data file is missing or cannot be read.
    """
    if not all((directory / name).is_file() for name in constants.RELEASE_FILES):
        return False
    try:
        return model_file.read_info(directory / constants.MODEL_FILE).inputs == digest(build)
    except ModelUnusable:
        return False


def _installed(tool: str) -> str:
    try:
        return metadata.version(tool)
    except metadata.PackageNotFoundError:
        return ""


def _file_digest(path: Path) -> str:
    found = hashlib.sha256()
    try:
        with open_ordinary(path, follow=True) as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file", hint="paths in deploy.yaml start at the file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return found.hexdigest()
