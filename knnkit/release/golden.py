"""Golden sets: query rows and the float64 reference's answers to them.

`make_golden` takes rows of the held-out data, so that they measure accuracy as well; without held-out data, training
rows stand in and no accuracy is claimed. `golden_for` makes a set over the user's own rows (`knnkit parity --data`): it
computes the reference anew from the training data of deploy.yaml, whose fingerprint must be that of the release.
Loads no TensorFlow.
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
from knnkit.evaluation.measure import codes_of
from knnkit.model.build import BuiltModel
from knnkit.training import source

#: Rows of each class that a golden set has where there are as many: enough to show that a class was forgotten.
_OF_EACH_CLASS = 30
#: Rows of a golden set, at most.
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
    chosen = _draw(source.labels, limit, seed)
    rows = source.rows[chosen]
    answers = model.reference.answer(rows)
    codes = model.reference.classes
    return Golden(
        metric=model.info.metric,
        rows=rows,
        truth=np.full(len(rows), -1, np.int32)
        if held_out is None
        else codes_of(model.info.classes, source.labels[chosen]),
        label=answers.label,
        indices=answers.indices,
        distances=answers.distances,
        classes=np.where(answers.indices < 0, -1, codes[answers.indices]).astype(np.int32),
        tolerance=answers.tolerance,
    )


def _draw(labels: NDArray[np.generic], limit: int, seed: int) -> NDArray[np.int64]:
    """Returns the places of at most `limit` rows, in order: some of every class, then any rows."""
    if len(labels) <= limit:
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    codes = np.unique(labels, return_inverse=True)[1].reshape(-1)[order]
    by_class = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[by_class], np.arange(codes.max() + 1))
    rank = np.empty(len(order), np.int64)  # of each row within its class, in the order drawn
    rank[by_class] = np.arange(len(order)) - starts[codes[by_class]]
    first = rank < min(_OF_EACH_CLASS, max(1, limit // len(starts)))
    return np.sort(np.concatenate([order[first], order[~first]])[:limit])


#: Rows that one certificate covers at most.
MAX_OWN_ROWS = 20_000


@dataclass(frozen=True)
class OwnRows:
    """What devices are asked about: `data` is a golden.npz."""

    data: bytes
    rows: int
    left_out: int  # rows beyond MAX_OWN_ROWS
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
    from knnkit.data import files
    from knnkit.model.build import BuiltModel
    from knnkit.model.reference.classifier import Reference

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
