"""Training rows to a complete model file, with the reference that its answers are held against.

The one place that puts dataset, space, graph, calibration and metadata together. Writes nothing to disk.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent import contract
from knnkit import __version__
from knnkit.errors import BuildError, DataError
from knnkit.model.dataset import Dataset
from knnkit.model.reference import Reference
from knnkit.model.reject import calibrate
from knnkit.model.space import fit_scaler, make_space
from knnkit.model.spec import KnnSpec

_CALIBRATION_ROWS = 2000


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
    info: contract.KnnInfo
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
    from knnkit.model import metadata
    from knnkit.model.convert import batch_rows, convert
    from knnkit.model.tfknn import TfKNN

    n_train = len(training.rows)
    if spec.k > n_train:
        raise DataError(
            f"{training.source}: k is {spec.k}, but there are {n_train} training rows", hint=f"k: {n_train} or less"
        )
    classes, codes = encode(training.labels)
    space, enrolled = make_space(training.rows, fit_scaler(training.rows, spec.scale), spec.metric)
    reference = Reference(space, enrolled, codes, len(classes), spec.k, spec.weights, margin=margin)
    reject = None if spec.reject is None else _calibrate(spec, reference, training, held_out, seed)
    reference.reject = reject
    model = TfKNN(
        training.rows,
        spec.k,
        labels=training.labels,
        weights=spec.weights,
        space=(space, enrolled),
        thresholds=None if reject is None else reject.thresholds,
    )
    flatbuffer = convert(model)
    info = contract.KnnInfo(
        name=spec.name,
        k=spec.k,
        n_features=training.rows.shape[1],
        feature_names=training.feature_names,
        classes=classes,
        metric=spec.metric,
        weights=spec.weights,
        scale=spec.scale,
        n_train=n_train,
        batch=batch_rows(model),
        fingerprint=training.fingerprint(),
        minimum_runtime=_minimum_runtime(flatbuffer),
        versions=_versions(),
        inputs=inputs,
        reject=reject,
    )
    return BuiltModel(metadata.pack(flatbuffer, model, info), info, reference, _warnings(training, classes))


def encode(labels: NDArray[Any]) -> tuple[tuple[int | str, ...], NDArray[np.int32]]:
    """Returns the classes, sorted as numpy sorts them, and the (n,) int32 class index of each label."""
    classes, codes = np.unique(labels, return_inverse=True)
    return tuple(classes.tolist()), codes.reshape(-1).astype(np.int32)


def _calibrate(
    spec: KnnSpec, reference: Reference, training: Dataset, held_out: Dataset | None, seed: int
) -> contract.Reject:
    n_train = len(training.rows)
    if spec.reject is None or spec.k >= n_train:
        raise BuildError(f"reject needs more training rows than k = {spec.k}", hint="lower k, or leave reject out")
    sample = np.random.default_rng(seed).permutation(n_train)[:_CALIBRATION_ROWS]
    answers = reference.answer(training.rows[sample], without=sample)
    reject = calibrate(spec.reject, answers.label, answers.distances[:, spec.k - 1], reference.n_classes)
    if held_out is None:
        return reject
    rows = held_out.rows[np.random.default_rng(seed).permutation(len(held_out.rows))[:_CALIBRATION_ROWS]]
    answers = reference.answer(rows)
    accepted = answers.distances[:, spec.k - 1] <= np.array(reject.thresholds)[answers.label]
    return replace(reject, measured=float(accepted.mean()), measured_rows=len(rows))


def _warnings(training: Dataset, classes: tuple[Any, ...]) -> tuple[str, ...]:
    if len(classes) == 1:
        return (f"{training.source}: every row has the label {classes[0]!r}; the model has nothing to tell apart",)
    return ()


def _versions() -> dict[str, str]:
    import sklearn
    import tensorflow

    return {
        "knnkit": __version__,
        "numpy": np.__version__,
        "scikit-learn": str(sklearn.__version__),
        "tensorflow": str(tensorflow.__version__),
    }


def _minimum_runtime(flatbuffer: bytes) -> str:
    from tensorflow.lite.python import schema_py_generated as schema

    root = schema.Model.GetRootAs(flatbuffer, 0)
    for number in range(root.MetadataLength()):
        entry = root.Metadata(number)
        if entry.Name() == b"min_runtime_version":
            return bytes(root.Buffers(entry.Buffer()).DataAsNumpy()).rstrip(b"\0").decode()
    raise BuildError("the converter does not say which runtime the model needs; this TensorFlow is not supported")
