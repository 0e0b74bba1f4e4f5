"""Golden set of the user's own rows, for `parity --data`.

A golden set is rows with the answers of the float64 reference, for checking devices. This module computes the reference
again from the training data of deploy.yaml, whose fingerprint must be that in the release. Loads no TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from device_agent.shared.protocol import constants, model_info
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.release import model_file
from knnkit.config.parse import Build
from knnkit.errors import DataError, VerificationFailed
from knnkit.training import source
from knnkit.training.rows import answers_of

#: Most rows of one certificate.
MAX_OWN_ROWS = 20_000


@dataclass(frozen=True)
class OwnRows:
    """A golden set of the user's rows: `data` is a file like golden.npz."""

    data: bytes
    rows: int
    left_out: int  # rows beyond MAX_OWN_ROWS


def golden_for(build: Build, release: Path, rows: Path, label: str | None, margin: float) -> OwnRows:
    """Returns a golden set of the rows in the file `rows`. `label` names its label column; None: as in training data.

    `release` is the directory of the release of `build`. A device may swap two neighbours whose distances differ by
    less than the share `margin`.

    Raises:
        DataError, BuildError: the rows, the training data or the estimator cannot be read, or do not fit together.
        VerificationFailed: the release was not built from this training data.
    """
    made_from = source.load(build)
    info = _info(release)
    if made_from.fingerprint != info.fingerprint:
        raise VerificationFailed(
            f"{release} was built from other rows than deploy.yaml now names", hint="knnkit build, then knnkit deploy"
        )
    own = made_from.read(rows, (label,) if label else answers_of(build))
    if not len(own.rows):
        raise DataError(f"{rows}: there are no rows")
    golden = made_from.golden(info, own, margin=margin, limit=MAX_OWN_ROWS)
    return OwnRows(golden.to_bytes(), len(golden.rows), len(own.rows) - len(golden.rows))


def _info(release: Path) -> model_info.KnnInfo:
    try:
        return model_file.read_info(release / constants.MODEL_FILE)
    except (ModelUnusable, OSError) as error:
        raise VerificationFailed(f"{release}: {error}", hint="knnkit build") from None
