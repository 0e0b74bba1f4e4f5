"""Builds a complete model file from training rows.

Combines dataset, space, graph, calibration and metadata, and returns the float64 reference too. Writes no file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np

from device_agent import __version__
from device_agent.shared.protocol import constants, model_info
from knnkit.data.dataset import Dataset
from knnkit.errors import BuildError, DataError
from knnkit.model.reference.calibration import calibrate
from knnkit.model.reference.classifier import Reference
from knnkit.model.reference.enrolment import Enrolment, enrol
from knnkit.model.reference.spec import KnnSpec
from knnkit.model.scaling import fit_scaler
from knnkit.model.tflite.load_tensorflow import load_tensorflow, needs_build_extra, tensorflow_version
from knnkit.model.tflite.op_versions import minimum_runtime

if TYPE_CHECKING:
    from knnkit.model.graph.tfknn import KnnModule

#: Evaluates a reference over classes.
Measure = Callable[[Reference, tuple[int | str, ...]], model_info.Evaluation | None]
#: The last tflite-runtime, and the only runtime on some boards (armv7l): every model must load on it.
OLDEST_RUNTIME = "2.14.0"
#: Most rows to calibrate and measure `reject`, and most distance terms (minutes of work), which can mean fewer rows.
_CALIBRATION_ROWS = 5000
_CALIBRATION_WORK = 4_000_000_000


@dataclass(frozen=True)
class BuiltModel:
    """A model file, and what its golden set is made from.

    Attributes:
        data: the bytes of model.tflite.
        info: its knn.json.
        reference: the float64 classifier over the same rows.
        warnings: messages for the user.
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
    measure: Measure | None = None,
    table: model_info.Table | None = None,
    ignore_extra: bool = False,
) -> BuiltModel:
    """Builds the classifier `spec` over the rows of `training`.

    Args:
        spec: parameters of the classifier.
        training: the rows that become neighbours.
        held_out: rows to measure the acceptance rate of `reject` on.
        margin: relative distance within which neighbours are near-tied.
        seed: for the calibration sample.
        inputs: digest of the build's inputs, stored in knn.json.
        measure: evaluates the reference; the result is stored in knn.json.
        table: of the raw columns that the rows were made from, stored in knn.json.
        ignore_extra: whether rows may have columns that the model does not know.

    Raises:
        DataError: k is larger than the number of rows.
        BuildError: the model cannot be built as asked.
    """
    _require_rows(spec.k, len(training.rows), training.source)
    enrolment = enrol(training, fit_scaler(training.rows, spec.scale), spec.metric)
    return build_enrolled(
        spec,
        enrolment,
        held_out,
        margin=margin,
        seed=seed,
        inputs=inputs,
        measure=measure,
        table=table,
        ignore_extra=ignore_extra,
    )


@needs_build_extra()
def build_enrolled(
    spec: KnnSpec,
    enrolment: Enrolment,
    held_out: Dataset | None = None,
    *,
    margin: float = 1e-5,
    seed: int = 0,
    inputs: str = "",
    measure: Measure | None = None,
    table: model_info.Table | None = None,
    ignore_extra: bool = False,
) -> BuiltModel:
    """Builds the classifier `spec` over enrolled rows; records `spec.scale`, but does not apply it.

    Raises:
        DataError: k is larger than the number of rows.
        BuildError: the model cannot be built as asked.
        MissingDependency: a package of `knnkit[build]` is not installed.
    """
    reference = make_reference(spec, enrolment, held_out, margin=margin, seed=seed)
    evaluation = None if measure is None else measure(reference, enrolment.classes)
    model = make_module(enrolment, reference)
    from knnkit.model.tflite import metadata
    from knnkit.model.tflite.convert import convert

    tree, origin = convert(model), enrolment.space.origin
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
        batch=model.batch_rows(constants.FULL),
        fingerprint=enrolment.fingerprint,
        minimum_runtime=minimum_runtime(tree, OLDEST_RUNTIME),
        versions=_versions(),
        inputs=inputs,
        reject=reference.reject,
        quantized=model.batch_rows(constants.QUANTIZED) if model.search.quantized else None,
        cells=model.batch_rows(constants.CELLS) if model.search.cells else None,
        searched=model.search.projection.matrix.shape[1] if model.search.projection else None,
        evaluation=evaluation,
        lattice=model.search.lattice.step if model.search.lattice else None,
        near=model.near,
        origin=None if origin is None else tuple(origin.tolist()),
        table=table,
        ignore_extra=ignore_extra,
        schema=_schema(table is not None or ignore_extra, origin is not None),
    )
    return BuiltModel(metadata.pack(tree, model, info), info, reference, _warnings(enrolment))


def _schema(tables: bool, origin: bool) -> int:
    """Returns the lowest version of knn.json that says what the model needs."""
    return constants.SCHEMA_OF_TABLES if tables else constants.SCHEMA_OF_ORIGINS if origin else constants.SCHEMA


def make_reference(
    spec: KnnSpec, enrolment: Enrolment, held_out: Dataset | None = None, *, margin: float = 1e-5, seed: int = 0
) -> Reference:
    """Returns the float64 classifier `spec` over enrolled rows, calibrated where it rejects.

    Raises:
        DataError: k is larger than the number of rows.
        BuildError: too few rows to calibrate `reject` on.
    """
    _require_rows(spec.k, len(enrolment), enrolment.source)
    classes = len(enrolment.classes)
    space, enrolled, codes = enrolment.space, enrolment.enrolled, enrolment.codes
    reference = Reference(space, enrolled, codes, classes, spec.k, spec.weights, margin=margin)
    reference.reject = None if spec.reject is None else _calibrate(spec, reference, held_out, seed)
    return reference


@needs_build_extra()
def make_module(enrolment: Enrolment, reference: Reference) -> KnnModule:
    """Returns the TensorFlow module that answers as `reference` does, but for the rows that it is not certain of.

    Raises:
        MissingDependency: TensorFlow is not installed.
    """
    load_tensorflow()
    from knnkit.model.graph.tfknn import KnnModule

    thresholds = None if reference.reject is None else reference.reject.thresholds
    return KnnModule(enrolment, reference.k, weights=reference.weights, margin=reference.margin, thresholds=thresholds)


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
        return (f"{enrolment.source}: every row has the label {only!r}; the model can give only one answer",)
    return ()


def _versions() -> dict[str, str]:
    return {
        "knnkit": __version__,
        "numpy": np.__version__,
        "scikit-learn": metadata.version("scikit-learn"),
        "tensorflow": tensorflow_version(),
    }
