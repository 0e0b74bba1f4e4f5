"""Bill of materials of a release: a CycloneDX 1.6 document.

Lists the Python packages that built the model, and those that boards get to run it, with the SHA-256 of each wheel.
The same packages give the same bytes. Specification: https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import json
import re
from importlib import metadata
from typing import Any

from device_agent import __version__
from device_agent.shared.protocol.constants import counted
from device_agent.shared.protocol.model_info import KnnInfo
from knnkit.provision import pinned_hashes
from knnkit.provision.requirements import on_boards

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
#: Packages that build a model; what they require follows.
_BUILDERS = ("numpy", "cryptography", "pydantic", "pyyaml", "tensorflow", "scikit-learn", "pyarrow", "skops")


def bill_of_materials(info: KnnInfo, version: str) -> bytes:
    """Returns the bill of materials of a model in the release `version`, as JSON."""
    host = [_component(name, number, "host build", {}) for name, number in sorted(_installed().items())]
    pinned = [(each, *each.partition("==")[::2]) for each in sorted(on_boards())]
    board = [_component(name, number, "board", _wheels(each)) for each, name, number in pinned]
    size = f"{counted(info.n_train, 'row')} x {counted(info.n_features, 'feature')}"
    model = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": info.name,
        "version": version,
        "description": f"k-nearest-neighbours classifier of {size}",
    }
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": model,
            "tools": {"components": [{"type": "application", "name": "knnkit", "version": __version__}]},
        },
        "components": [*host, *board],
        "dependencies": [{"ref": "model", "dependsOn": [each["bom-ref"] for each in (*host, *board)]}],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _component(name: str, version: str, where: str, wheels: dict[str, str]) -> dict[str, Any]:
    url = f"pkg:pypi/{pinned_hashes.normalised(name)}@{version}"
    properties = [{"name": "knnkit:environment", "value": where}]
    properties += [{"name": f"knnkit:sha256:{file}", "value": sha256} for file, sha256 in wheels.items()]
    return {
        "type": "library",
        "bom-ref": f"{where}: {url}",
        "name": name,
        "version": version,
        "purl": url,
        "properties": properties,
    }


def _installed() -> dict[str, str]:
    """Returns name -> version of the installed build packages and of all packages that they require."""
    found: dict[str, str] = {}
    waiting = list(_BUILDERS)
    while waiting:
        name = pinned_hashes.normalised(waiting.pop())
        if name in found:
            continue
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # for another system, or not needed here
        found[name] = package.version
        required = [text for text in package.requires or () if "extra ==" not in text.replace("'", '"')]
        waiting += [match[0] for text in required if (match := _NAME.match(text))]
    return {"knnkit": __version__, **found}


def _wheels(pinned: str) -> dict[str, str]:
    """Returns file name -> SHA-256 of the wheels that boards may get for the requirement `name==version`."""
    beginning = f"{pinned_hashes.normalised(pinned.replace('==', '-'))}-"
    return {
        file: sha256
        for file, sha256 in sorted(pinned_hashes.known().items())
        if pinned_hashes.normalised(file).startswith(beginning)
    }
