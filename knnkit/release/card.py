"""What a model card needs in addition to knn.json.

card.json inside the model file has the number of training rows of each class, the warnings of the build, and licence
and notes of deploy.yaml. `knnkit.render.card` writes the card. Never loads a model.
"""

from __future__ import annotations

import gzip
import io
import zlib
from dataclasses import dataclass
from pathlib import Path

from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.protocol.model_info import KnnInfo, Manifest
from device_agent.shared.release import model_file
from device_agent.shared.release.row_origins import Origins, read
from knnkit.release.manifest import read_manifest

#: Largest file of those inside a model that is read here, in bytes.
_MOST = 16 << 20


@dataclass(frozen=True)
class CardFacts:
    """Content of card.json. `counts` are the numbers of training rows by class; `split` is how rows were held out."""

    counts: tuple[int, ...]
    warnings: tuple[str, ...] = ()
    licence: str = ""
    notes: str = ""
    split: str = ""


@dataclass(frozen=True)
class Card:
    """Everything that a model card shows."""

    info: KnnInfo
    manifest: Manifest | None
    facts: CardFacts | None  # None for a model without card.json
    training: Origins  # row numbers and ids in the user's data, as `golden`
    golden: Origins


def read_card(path: Path) -> Card:
    """Reads the content of the model card from a release directory or a model file.

    Raises:
        ModelUnusable: the file is not a model, or is damaged.
        VerificationFailed: release.json is malformed.
        OSError: a file cannot be read.
    """
    model = path / constants.MODEL_FILE if path.is_dir() else path
    manifest = read_manifest((path / constants.MANIFEST_FILE).read_bytes()) if path.is_dir() else None
    facts = None
    if model_file.has_member(model, constants.CARD_FILE):
        try:
            facts = json_codec.loads(CardFacts, model_file.read_member(model, constants.CARD_FILE))
        except json_codec.MalformedDocument as error:
            raise ModelUnusable(f"{constants.CARD_FILE} inside {model} is damaged: {error}") from None
    return Card(model_file.read_info(model), manifest, facts, *read(model))


def read_provenance(model: Path) -> bytes:
    """Returns the in-toto statement inside a model file.

    Raises:
        ModelUnusable: the model file contains no statement.
    """
    return model_file.read_member(model, constants.PROVENANCE_FILE, _MOST)


def read_sbom(model: Path) -> bytes:
    """Returns the CycloneDX document inside a model file.

    Raises:
        ModelUnusable: the model file contains no such document, or a damaged one.
    """
    data = model_file.read_member(model, constants.SBOM_FILE, _MOST)
    try:
        with gzip.open(io.BytesIO(data)) as file:
            found: bytes = file.read(_MOST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ModelUnusable(f"{constants.SBOM_FILE} inside {model} is damaged: {error}") from None
    if len(found) > _MOST:
        raise ModelUnusable(f"{constants.SBOM_FILE} inside {model} has more than {_MOST:,} bytes")
    return found
