"""Builds a complete model file from training rows.

Combines dataset, space, graph, calibration and metadata, and returns the float64 reference too. Writes no file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from device_agent import __version__
from device_agent.shared import outliers
from device_agent.shared.protocol import constants, input_info, model_info
from device_agent.shared.protocol.table_info import Table
from device_agent.shared.regression import spreads
from device_agent.shared.release.row_origins import Origins, pack
from device_agent.shared.tabular.csv_dialect import short
from knnkit.data.dataset import MAX_TEXT, Dataset, drawn
from knnkit.errors import BuildError, DataError
from knnkit.model.built import BuiltModel
from knnkit.model.combinations import require_answerable, require_keepable
from knnkit.model.conformal import calibrate_sets, check_sets
from knnkit.model.reference.calibration import answer_apart, calibrate
from knnkit.model.reference.classifier import Reference
from knnkit.model.reference.enrolment import Enrolment, codes_of
from knnkit.model.reference.spec import DEFAULT, KnnSpec, own_shares
from knnkit.model.tflite.load_tensorflow import load_tensorflow, needs_build_extra, tensorflow_version
from knnkit.model.tflite.op_versions import minimum_runtime, with_stages

if TYPE_CHECKING:
    from knnkit.model.graph.tfknn import KnnModule

#: Function that evaluates a reference over these classes; None: there is nothing to measure.
Measure = Callable[[Reference, tuple[int | str, ...]], model_info.Evaluation | model_info.Targets | None]
_UNKNOWN = Origins()
#: The last tflite-runtime, and the only runtime on some boards (armv7l): every model must load on it.
OLDEST_RUNTIME = "2.14.0"
#: Most rows to calibrate and measure `reject`, and most distance terms (minutes of work), which can mean fewer rows.
_CALIBRATION_ROWS = 5000
_CALIBRATION_WORK = 4_000_000_000


@dataclass(frozen=True)
class Options:
    """Optional settings of `build_enrolled`."""

    margin: float = 1e-5  # neighbours whose distances differ by less than this share of the distance are near-tied
    seed: int = 0  # seed of the random choice of rows that calibrate `reject` and label sets
    inputs: str = ""  # digest of all that the build reads: data, settings, versions of tools; stored in knn.json
    #: function (reference, classes) -> measured figures, stored in knn.json; None: nothing is measured.
    measure: Measure | None = None
    table: Table | None = None  # how the rows were made from raw columns; stored in knn.json
    input: input_info.Input | None = None  # description of the stages that made the rows; stored in knn.json
    stages: Mapping[str, bytes] = field(default_factory=dict)  # file name -> bytes of each stage
    #: source, row numbers and ids of the training rows; None: they are all rows of their source.
    training: Origins | None = None
    golden: Origins = _UNKNOWN  # source, row numbers and ids of the golden rows
    #: rows that `reduce` in deploy.yaml left out of the model; they, too, calibrate `reject` and label sets.
    spare: Dataset | None = None
    reduced: model_info.Reduced | None = None  # how `reduce` chose the training rows; stored in knn.json
    #: (n_train,) number of the recording that each training row was cut from. Calibration ignores neighbours from the
    #: same recording: they are too similar.
    groups: NDArray[Any] | None = None
    step: Callable[[str], None] = lambda text: None  # called with a text that says what begins


_DEFAULTS = Options()


@needs_build_extra()
def build_enrolled(
    spec: KnnSpec, enrolment: Enrolment, held_out: Dataset | None = None, options: Options = _DEFAULTS
) -> BuiltModel:
    """Builds the classifier `spec` from training rows in model space.

    Args:
        spec: parameters of the classifier.
        enrolment: the rows that become neighbours.
        held_out: rows that measure how many rows `reject` accepts and how often label sets are right; None: no rows.
        options: optional settings.

    Raises:
        DataError: k is larger than the number of rows.
        BuildError: options cannot be combined, or too few rows calibrate `reject`.
        MissingDependency: a package of `knnkit[build]` is not installed.
    """
    require_answerable(spec, enrolment, has_input=options.input is not None)
    options.step("measuring the answers")
    reference = make_reference(spec, enrolment, held_out, options)
    measured = None if options.measure is None else options.measure(reference, enrolment.classes)
    targets = targets_of(enrolment) if measured is None else measured
    sets = _label_sets(spec, reference, enrolment, held_out, options)
    options.step("converting with TensorFlow")
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
        minimum_runtime=with_stages(minimum_runtime(tree, OLDEST_RUNTIME), options.stages.values()),
        versions=_versions(),
        inputs=options.inputs,
        reject=reference.reject,
        quantized=model.batch_rows(constants.QUANTIZED) if model.search.quantized else None,
        cells=model.batch_rows(constants.CELLS) if model.search.cells else None,
        searched=model.search.projection.matrix.shape[1] if model.search.projection else None,
        evaluation=measured if isinstance(measured, model_info.Evaluation) else None,
        lattice=model.search.lattice.step if model.search.lattice else None,
        label_sets=sets or None,
        reduced=options.reduced,
        near=model.near,
        origin=None if origin is None else tuple(origin.tolist()),
        table=options.table,
        ignore_extra=spec.ignore_extra,
        keep=spec.keep,
        input=options.input,
        float64=reference.float64,
        targets=targets if isinstance(targets, model_info.Targets) else None,
        enrol=spec.enrol,
        groups=None if model.search.groups is None else len(model.search.groups.sizes),
    )
    require_keepable(info)
    origins = pack(options.training or Origins(Path(enrolment.source).name), options.golden)
    return BuiltModel(*metadata.pack(tree, model, info, origins), info, reference, _warnings(enrolment))


def origins_of(rows: Dataset) -> Origins:
    """Returns the source name (a file without its folder), row numbers and ids of rows.

    Raises:
        DataError: an id is not plain text on one line.
    """
    source = Path(rows.source).name
    if rows.ids is None:
        return Origins(source, rows.places)
    for place, text in enumerate(rows.ids.tolist()):
        if not (not text or text.isprintable()) or len(text) > MAX_TEXT:
            hint = f"change it to plain text on one line, at most {MAX_TEXT} characters"
            raise DataError(f"{rows.where(place)}: an id may not be {short(text)}", hint=hint)
    return Origins(source, rows.places, "".join(f"{text}\n" for text in rows.ids.tolist()).encode())


def targets_of(enrolment: Enrolment | Dataset) -> model_info.Targets | None:
    """Returns names and ranges of targets, or of label columns; None for rows with one label.

    A range is maximum less minimum: of a target, or of the label indices in a column; 1 for outlier factors.
    """
    if enrolment.targets is None:
        return None
    if enrolment.target_names == outliers.TARGETS:  # a factor is 1 where densities are alike
        return model_info.Targets(outliers.TARGETS, (1.0, 1.0))
    spread = tuple(spreads(enrolment.targets).tolist())
    return model_info.Targets(enrolment.target_names, spread, classes=enrolment.target_classes)


def make_reference(
    spec: KnnSpec, enrolment: Enrolment, held_out: Dataset | None = None, options: Options = _DEFAULTS
) -> Reference:
    """Returns the float64 classifier `spec` over training rows, with its rejection thresholds if `spec.reject` is set.

    `held_out` are rows that measure how many rows these thresholds accept; None: nothing is measured.

    Raises:
        DataError: k is larger than the number of rows.
        BuildError: there are too few rows to calibrate `reject` on, or it names a label that no row has.
    """
    if spec.k > (rows := len(enrolment)):
        there = "there is 1 training row" if rows == 1 else f"there are {rows:,} training rows"
        hint = f"k: {rows}{' or less' if rows > 1 else ''}, or more rows; those held out by test: do not count"
        raise DataError(f"{enrolment.source}: k is {spec.k}, but {there}", hint=hint, key="k")
    held = enrolment.space, enrolment.enrolled, enrolment.codes, len(enrolment.classes)
    how: dict[str, Any] = {"margin": options.margin, "targets": enrolment.targets, "groups": options.groups}
    how["counts"] = tuple(map(len, enrolment.target_classes))
    how["float64"] = spec.in_float64(enrolment.classes, enrolment.codes)
    reference = Reference(*held, spec.k, spec.weights, **how)
    if options.groups is not None and (spec.reject is not None or spec.label_sets):
        _require_others(options.groups, spec.k)
    if spec.reject is not None:
        reference.reject = _calibrate(spec, reference, enrolment.classes, held_out, options)
    return reference


@needs_build_extra()
def make_module(enrolment: Enrolment, reference: Reference) -> KnnModule:
    """Returns a TensorFlow module that answers like `reference`, except for queries that it marks as uncertain.

    Raises:
        MissingDependency: TensorFlow is not installed.
    """
    load_tensorflow()
    from knnkit.model.graph.tfknn import KnnModule

    thresholds = None if reference.reject is None else reference.reject.thresholds
    how: dict[str, Any] = {"margin": reference.margin, "thresholds": thresholds}
    how |= {"decides": reference.float64 is None}
    return KnnModule(enrolment, reference.k, weights=reference.weights, **how)


def _require_others(groups: NDArray[Any], k: int) -> None:
    if len(groups) - int(np.unique(groups, return_counts=True)[1].max()) < k:
        said = f"reject and label_sets need k = {k} training rows outside each recording"
        raise BuildError(said, hint="lower k, or add recordings")


def _calibrate(
    spec: KnnSpec, reference: Reference, classes: tuple[int | str, ...], held_out: Dataset | None, options: Options
) -> model_info.Reject:
    label, kth = calibration_rows(reference, options.seed, options.spare)
    reject = calibrate(spec.shares[DEFAULT], label, kth, reference.n_classes, own_shares(spec, classes))
    own = {name: share for name, share in spec.shares.items() if name != DEFAULT}
    reject = replace(reject, by_class=own or None)
    if held_out is None:
        return reject
    rows = _drawn(held_out, reference, options.seed).rows
    answers = reference.answer(rows)
    near = answers.distances[:, spec.k - 1] <= np.array(reject.thresholds)[answers.label]
    accepted = near & (answers.label != constants.UNKNOWN)  # no vote: a kernel that ends before the nearest row
    return replace(reject, measured=float(accepted.mean()), measured_rows=len(rows))


def _label_sets(
    spec: KnnSpec, reference: Reference, enrolment: Enrolment, held_out: Dataset | None, options: Options
) -> tuple[model_info.LabelSets, ...]:
    if not spec.label_sets:
        return ()
    if enrolment.targets is not None:
        raise BuildError("label_sets needs one label for each row", hint="leave label_sets out")
    if spec.k >= len(enrolment):
        raise BuildError(f"label_sets needs more training rows than k = {spec.k}", hint="lower k, or drop label_sets")
    spare = options.spare
    left = None if spare is None else (spare.rows, codes_of(enrolment.classes, spare.labels))
    sets = calibrate_sets(reference, spec.label_sets, most_calibrated(reference), options.seed, left)
    if held_out is None:
        return sets
    rows = _drawn(held_out, reference, options.seed)
    answers, truth = reference.answer(rows.rows), codes_of(enrolment.classes, rows.labels)
    return tuple(check_sets(each, reference, answers, truth) for each in sets)


def _drawn(held_out: Dataset, reference: Reference, seed: int) -> Dataset:
    return held_out.take(drawn(len(held_out.rows), most_calibrated(reference), seed))


def calibration_rows(
    reference: Reference, seed: int, spare: Dataset | None = None
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Classifies random rows, from which reject thresholds are set; returns what was found.

    That is, for each row: the class that its neighbours vote for, and its distance to the k-th of them, (n,) each. The
    rows are training rows, each without itself as a neighbour, and rows that `reduce` removed (`spare`).

    Raises:
        BuildError: there are at most k training rows.
    """
    count, k = len(reference.enrolled), reference.k
    if k >= count:
        raise BuildError(f"reject needs more training rows than k = {k}", hint="lower k, or leave reject out")
    rows = None if spare is None else spare.rows
    order = np.random.default_rng(seed).permutation(count + (0 if rows is None else len(rows)))
    answers = answer_apart(reference, order[: most_calibrated(reference)], rows)
    return answers.label, answers.distances[:, k - 1]


def most_calibrated(reference: Reference) -> int:
    """Returns the largest number of rows that calibrate or measure `reject` and label sets; more would take minutes."""
    return min(_CALIBRATION_ROWS, max(500, _CALIBRATION_WORK // reference.enrolled.size))


def _warnings(enrolment: Enrolment) -> tuple[str, ...]:
    if len(enrolment.classes) == 1 and enrolment.targets is None:
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
