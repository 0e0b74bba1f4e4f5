"""Golden sets: query rows with the float64 reference's answers.

`make_golden` uses held-out rows, so that the set also measures accuracy; without any, it uses training rows and claims
no accuracy. `golden_for` makes a set of the user's own rows (`knnkit parity --data`): it computes the reference again
from the training data of deploy.yaml, whose fingerprint must be that of the release. Loads no TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants, model_info
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.release import model_file
from knnkit.config.parse import Build
from knnkit.data.dataset import Dataset
from knnkit.errors import DataError, VerificationFailed
from knnkit.model.build import BuiltModel
from knnkit.training import source

#: Most rows of a golden set.
MAX_ROWS = 1000


def make_golden(
    model: BuiltModel, held_out: Dataset | None, training: Dataset, *, seed: int = 0, limit: int = MAX_ROWS
) -> Golden:
    """Returns the golden set of `model` over at most `limit` rows.

    Raises:
        DataError: the held-out rows have other features than the training rows.
    """
    source = training if held_out is None else held_out
    if source.feature_names != training.feature_names:
        raise DataError(f"{source.source}: its features are not those of {training.source}, in the same order")
    chosen = np.arange(len(source.rows))
    if len(chosen) > limit:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(chosen))[:limit])
    rows = source.rows[chosen]
    answers = model.reference.answer(rows)
    codes = model.reference.classes
    return Golden(
        metric=model.info.metric,
        rows=rows,
        truth=_truth(model, source.labels[chosen]) if held_out is not None else np.full(len(rows), -1, np.int32),
        label=answers.label,
        indices=answers.indices,
        distances=answers.distances,
        classes=np.where(answers.indices < 0, -1, codes[answers.indices]).astype(np.int32),
        tolerance=answers.tolerance,
    )


def _truth(model: BuiltModel, labels: NDArray[np.generic]) -> NDArray[np.int32]:
    # Compared as text: in a file that also has text labels, `7` is text; in another it is a number.
    places = {str(label): code for code, label in enumerate(model.info.classes)}
    texts = [str(label) for label in labels.tolist()]
    unseen = sorted(set(texts) - set(places))
    if unseen:
        raise DataError(
            f"the held-out rows have a label that no training row has: {unseen[0]!r}",
            hint="give the training set a row of that class, or leave it out of the held-out rows",
        )
    return np.array([places[text] for text in texts], dtype=np.int32)


#: Most rows of one certificate.
MAX_OWN_ROWS = 20_000


@dataclass(frozen=True)
class OwnRows:
    """The user's rows for devices to answer: `data` has the format of golden.npz."""

    data: bytes
    rows: int
    left_out: int  # rows beyond MAX_OWN_ROWS
    classes: tuple[int | str, ...]


def golden_for(build: Build, release: Path, rows: Path, label: str | None, margin: float) -> OwnRows:
    """Returns the golden set of the rows of a file.

    Args:
        build: what the release was built from.
        release: its directory.
        rows: a CSV, Parquet or NPZ file with the model's features and a label column.
        label: the label column; None: that of the training data.
        margin: from the release's gates.

    Raises:
        DataError, BuildError: the rows, the training data or the estimator are invalid.
        VerificationFailed: the release was not built from this training data.
    """
    from knnkit.data import files
    from knnkit.model.build import BuiltModel
    from knnkit.model.reference.classifier import Reference

    pass

    made_from = source.load(build)
    info = _info(release)
    if made_from.fingerprint != info.fingerprint:
        raise VerificationFailed(
            f"{release} was built from other rows than deploy.yaml names now", hint="knnkit build, then knnkit deploy"
        )
    training = made_from.training
    own = made_from.fitting(files.load(rows, label or source.label_of(build), training.feature_names))
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
    golden: Golden = make_golden(BuiltModel(b"", info, reference, ()), own, training, limit=MAX_OWN_ROWS)
    return OwnRows(golden.to_bytes(), len(golden.rows), len(own.rows) - len(golden.rows), enrolment.classes)


def _info(release: Path) -> model_info.KnnInfo:
    try:
        return model_file.read_info(release / constants.MODEL_FILE)
    except (ModelUnusable, OSError) as error:
        raise VerificationFailed(f"{release}: {error}", hint="knnkit build") from None
