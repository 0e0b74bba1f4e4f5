"""A golden set over the user's own rows, for `knnkit parity --data`: the float64 reference without the model's graph.

The reference is made anew from the training data of deploy.yaml and must be that of the finished release: the training
rows are compared by their fingerprint. Loads no TensorFlow; writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from device_agent import contract, modelfile
from device_agent.errors import ModelUnusable
from device_agent.judge import Golden
from knnkit.config import Build
from knnkit.errors import DataError, VerificationFailed
from knnkit.release import material

#: Rows that one certificate covers at most.
MAX_ROWS = 20_000


@dataclass(frozen=True)
class OwnRows:
    """What devices are asked about: `data` is a golden.npz."""

    data: bytes
    rows: int
    left_out: int  # rows beyond MAX_ROWS
    classes: tuple[int | str, ...]


def golden_for(build: Build, release: Path, rows: Path, label: str | None, margin: float) -> OwnRows:
    """Returns the golden set over the rows of a file.

    Args:
        build: what the release was built from.
        release: its directory.
        rows: the file: CSV, Parquet or NPZ, with the model's features and a label column.
        label: the label column; None takes that of the training data.
        margin: of the release's gates.

    Raises:
        DataError, BuildError: the rows, the training data or the estimator are not fit.
        VerificationFailed: the release was not built from this training data.
    """
    from knnkit.model import rowfile
    from knnkit.model.build import BuiltModel
    from knnkit.model.reference import Reference
    from knnkit.release.golden import make_golden

    made_from = material.load(build)
    info = _info(release)
    if made_from.fingerprint != info.fingerprint:
        raise VerificationFailed(
            f"{release} was built from other rows than deploy.yaml names now", hint="knnkit build, then knnkit deploy"
        )
    training = made_from.training
    own = made_from.fitting(rowfile.load(rows, label or material.label_of(build), training.feature_names))
    if not len(own.rows):
        raise DataError(f"{rows}: there are no rows")
    enrolment = made_from.enrol(info.scale, info.metric)
    reference = Reference(
        enrolment.space,
        enrolment.enrolled,
        enrolment.codes,
        len(enrolment.classes),
        info.k,
        info.weights,
        margin=margin,
    )
    reference.reject = info.reject
    golden: Golden = make_golden(BuiltModel(b"", info, reference, ()), own, training, limit=MAX_ROWS)
    return OwnRows(golden.to_bytes(), len(golden.rows), len(own.rows) - len(golden.rows), enrolment.classes)


def _info(release: Path) -> contract.KnnInfo:
    try:
        return modelfile.read_info(release / contract.MODEL_FILE)
    except (ModelUnusable, OSError) as error:
        raise VerificationFailed(f"{release}: {error}", hint="knnkit build") from None
