"""Decides whether a release must be built again.

Compares the configuration and the bytes of the data files with those of the last build, so that deploying a finished
release loads neither TensorFlow nor scikit-learn. Never builds."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

from device_agent import __version__
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.protocol.model_info import Manifest
from device_agent.shared.release import model_file
from device_agent.shared.safe_files import read_small, sha256_of
from knnkit.config.parse import Build, FileData, ModelConfig, SkopsData, TestFile
from knnkit.data import raw_files
from knnkit.data.patterns import SUFFIXES, expand, unreadable
from knnkit.errors import VerificationFailed
from knnkit.release import manifest

_TOOLS = ("tensorflow", "scikit-learn", "numpy")
#: Keys of `model` that count by what they lead to.
_ELSEWHERE: Any = {"gates": True, "data": {"file", "files", "labels", "skops"}, "test": {"file"}, "split": {"file"}}
_ELSEWHERE["input"] = {"stages": {"__all__": {"file"}}}


def digest(build: Build) -> str:
    """Returns the SHA-256 of all inputs of a release except the time: model, data, gates, version, tools.

    Raises:
        DataError: a data file is missing or cannot be read.
    """
    model = build.model
    files, names = _data_files(model)
    if isinstance(model.data, FileData) and isinstance(model.data.labels, Path):
        files.append(model.data.labels)
    if isinstance(model.data, SkopsData):
        files.append(model.data.skops)
    if isinstance(model.measured_on, TestFile):
        files.append(model.measured_on.file)
    files += [stage.file for stage in model.input.stages] if model.input else []
    asked = {
        "model": settings(build),
        "gates": build.gates.model_dump(mode="json"),
        "release": build.release.model_dump(mode="json", exclude={"dir"}),
        "files": [_file_digest(path) for path in files],
        **({"names": names} if names else {}),
        "tools": {"knnkit": __version__, **{tool: _installed(tool) for tool in _TOOLS}},
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _data_files(model: ModelConfig) -> tuple[list[Path], list[str]]:
    """Returns the paths of the data files ([] if there are none), and one list of texts about them.

    The texts are the names, labels and groups of sounds and pictures; [] for other data.
    """
    data = model.data
    if not isinstance(data, FileData):
        return [], []
    if model.input is None or not raw_files.are_raw(data.sources, data.path, model.input.takes_files):
        return list(expand(data.sources)), []
    found = raw_files.list_files(data.sources, data.label_column, data.path, model.beside, model.input.suffixes)
    return list(found.paths), [*found.names, *found.labels, *(found.groups or ())]


def settings(build: Build) -> dict[str, Any]:
    """Returns the keys and values of `model` in deploy.yaml as plain data, with file names in place of paths."""
    model = build.model
    found = model.model_dump(mode="json", exclude_none=True, exclude=_ELSEWHERE)
    if isinstance(model.data, FileData):
        names = [path.name for path in model.data.sources]
        found["data"] |= {"file": names[0]} if model.data.files == () else {"files": names}
        if model.data.labels:
            found["data"]["labels"] = Path(model.data.labels).name
    elif isinstance(model.data, SkopsData):
        found["data"] |= {"skops": model.data.skops.name}
    if isinstance(model.measured_on, TestFile):
        kept = found.pop("split", None) or found["test"]  # `split: {file}` means the same as `test: {file}`
        found["test"] = {**kept, "file": model.measured_on.file.name}
    return found


def is_built(directory: Path, build: Build) -> bool:
    """Whether `directory` holds a release built from exactly the inputs of `build`; does not check its signature.

    Raises:
        DataError: a data file is missing or cannot be read.
    """
    if not all((directory / name).is_file() for name in constants.RELEASE_FILES):
        return False
    try:
        return model_file.read_info(directory / constants.MODEL_FILE).inputs == digest(build)
    except ModelUnusable:
        return False


def manifest_in(directory: Path) -> Manifest | None:
    """Returns the manifest (release.json) of the release in `directory`; None if there is none or it cannot be read."""
    try:
        data = read_small(directory / constants.MANIFEST_FILE, constants.MAX_MANIFEST, follow=True)
        return manifest.read_manifest(data)
    except (OSError, VerificationFailed):
        return None


def version_again(directory: Path, build: Build) -> str:
    """Returns the version of the release in `directory` if the release of `build` is to have it, too; else ""."""
    old = manifest_in(directory)
    same = old is not None and (old.name, old.version) == (build.model.name, build.release.version)
    return build.release.version if same else ""


def _installed(tool: str) -> str:
    try:
        return metadata.version(tool)
    except metadata.PackageNotFoundError:
        return ""


def _file_digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise unreadable(path, error, (path.suffix, *SUFFIXES)) from None
