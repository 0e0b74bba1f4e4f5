"""Training rows to a complete model file, with the reference that its answers are held against.

The one place that puts dataset, space, graph, calibration and metadata together. Writes nothing to disk.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import metadata

import numpy as np

from device_agent.shared.protocol import constants, model_info
from knnkit import __version__
from knnkit.data.dataset import Dataset
from knnkit.errors import BuildError, DataError
from knnkit.model.reference.calibration import calibrate
from knnkit.model.reference.classifier import Reference
from knnkit.model.reference.enrolment import Enrolment, enrol
from knnkit.model.reference.spec import KnnSpec
from knnkit.model.scaling import fit_scaler
from knnkit.model.tflite.load_tensorflow import tensorflow_version
from knnkit.model.tflite.op_versions import minimum_runtime

#: The last tflite-runtime there is, and the only runtime for Python 3.11 and for armv7l: every model must load on it.
OLDEST_RUNTIME = "2.14.0"
#: Rows that measure and calibrate `reject`, at most; fewer where the distances would take minutes.
_CALIBRATION_ROWS = 5000
_CALIBRATION_WORK = 4_000_000_000


@dataclass(frozen=True)
class BuiltModel:
    """A model file and what the golden set is made from.

    Attributes:
        data: the bytes of model.tflite.
        info: the knn.json inside it.
        reference: the float64 classifier over the same enrolled rows.
        warnings: for the person who builds.
    """

    data: bytes
    info: model_info.KnnInfo
    reference: Reference
    warnings: tuple[str, ...]


def build_model(
    spec: KnnSpec,
    training: Dataset,
    held_out: Dataset | None = None,
    *,
    margin: float = 1e-5,
    seed: int = 0,
    inputs: str = "",
) -> BuiltModel:
    """Builds the classifier `spec` over the rows of `training`.

    Args:
        spec: what to build.
        training: the rows that become neighbours.
        held_out: rows on which the acceptance rate is measured.
        margin: relative distance within which neighbours are near-tied.
        seed: of the calibration sample.
        inputs: digest of what the build was asked for, kept in knn.json.

    Raises:
        DataError: k is larger than the number of rows.
        BuildError: the model cannot be built as asked.
    """
    _require_rows(spec.k, len(training.rows), training.source)
    enrolment = enrol(training, fit_scaler(training.rows, spec.scale), spec.metric)
    return build_enrolled(spec, enrolment, held_out, margin=margin, seed=seed, inputs=inputs)


def build_enrolled(
    spec: KnnSpec,
    enrolment: Enrolment,
    held_out: Dataset | None = None,
    *,
    margin: float = 1e-5,
    seed: int = 0,
    inputs: str = "",
) -> BuiltModel:
    """Builds the classifier `spec` over rows that are enrolled already; `spec.scale` is told, not applied.

    Raises:
        DataError: k is larger than the number of rows.
        BuildError: the model cannot be built as asked.
    """
    from knnkit.model.graph.tfknn import TfKNN
    from knnkit.model.tflite import metadata
    from knnkit.model.tflite.convert import batch_rows, convert

    _require_rows(spec.k, len(enrolment), enrolment.source)
    reference = Reference(
        enrolment.space,
        enrolment.enrolled,
        enrolment.codes,
        len(enrolment.classes),
        spec.k,
        spec.weights,
        margin=margin,
    )
    reject = None if spec.reject is None else _calibrate(spec, reference, held_out, seed)
    reference.reject = reject
    thresholds = None if reject is None else reject.thresholds
    model = TfKNN.of(enrolment, spec.k, weights=spec.weights, margin=margin, thresholds=thresholds)
    tree = convert(model)
    info = model_info.KnnInfo(
        name=spec.name,
        k=spec.k,
        n_features=len(enrolment.feature_names),
        feature_names=enrolment.feature_names,
        classes=enrolment.classes,
        metric=spec.metric,
        weights=spec.weights,
        scale=spec.scale,
        n_train=len(enrolment),
        batch=batch_rows(model, constants.FULL),
        fingerprint=enrolment.fingerprint,
        minimum_runtime=minimum_runtime(tree, OLDEST_RUNTIME),
        versions=_versions(),
        inputs=inputs,
        reject=reject,
        quantized=batch_rows(model, constants.QUANTIZED) if model.search.quantized else None,
        cells=batch_rows(model, constants.CELLS) if model.search.cells else None,
        searched=model.search.projection.matrix.shape[1] if model.search.projection else None,
    )
    return BuiltModel(metadata.pack(tree, model, info), info, reference, _warnings(enrolment))


def _require_rows(k: int, rows: int, source: str) -> None:
    if k > rows:
        there = "there is 1 training row" if rows == 1 else f"there are {rows:,} training rows"
        hint = f"k: {rows}{' or less' if rows > 1 else ''}, or more rows; those held out by test: do not count"
        raise DataError(f"{source}: k is {k}, but {there}", hint=hint)


def _calibrate(spec: KnnSpec, reference: Reference, held_out: Dataset | None, seed: int) -> model_info.Reject:
    n_train = len(reference.enrolled)
    if spec.reject is None or spec.k >= n_train:
        raise BuildError(f"reject needs more training rows than k = {spec.k}", hint="lower k, or leave reject out")
    most = min(_CALIBRATION_ROWS, max(500, _CALIBRATION_WORK // reference.enrolled.size))
    sample = np.random.default_rng(seed).permutation(n_train)[:most]
    answers = reference.leave_one_out(sample)
    reject = calibrate(spec.reject, answers.label, answers.distances[:, spec.k - 1], reference.n_classes)
    if held_out is None:
        return reject
    rows = held_out.rows[np.random.default_rng(seed).permutation(len(held_out.rows))[:most]]
    answers = reference.answer(rows)
    accepted = answers.distances[:, spec.k - 1] <= np.array(reject.thresholds)[answers.label]
    return replace(reject, measured=float(accepted.mean()), measured_rows=len(rows))


def _warnings(enrolment: Enrolment) -> tuple[str, ...]:
    if len(enrolment.classes) == 1:
        only = enrolment.classes[0]
        return (f"{enrolment.source}: every row has the label {only!r}; the model has nothing to tell apart",)
    return ()


def _versions() -> dict[str, str]:
    return {
        "knnkit": __version__,
        "numpy": np.__version__,
        "scikit-learn": metadata.version("scikit-learn"),
        "tensorflow": tensorflow_version(),
    }
