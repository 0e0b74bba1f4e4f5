"""Loads training and held-out rows, and builds the model.

`load` reads the rows; `Material.build` builds and checks the model. Training rows come from a file, from scikit-learn's
data sets, or from a fitted scikit-learn estimator, which then also decides k, metric, weights and scale. Loads
TensorFlow only to build.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.golden.judge import Verdict
from device_agent.shared.protocol.constants import Metric, Scale
from device_agent.shared.protocol.model_info import Evaluation, Gates, KnnInfo, Table
from knnkit.config.parse import Build, Data, FileData, GroupSplit, SklearnData, SkopsData, TestFile, TimeSplit
from knnkit.data import columns, dataset, files, precision
from knnkit.data.dataset import Dataset
from knnkit.data.policy import PLAIN, Policy
from knnkit.errors import DataError
from knnkit.evaluation import faults
from knnkit.evaluation.measure import affordable, compare_with_estimator, measure
from knnkit.evaluation.splits import Divided, divide
from knnkit.model.build import BuiltModel, build_enrolled, build_model
from knnkit.model.golden import make_golden
from knnkit.model.reference.classifier import Reference
from knnkit.model.reference.enrolment import Enrolment, enrol
from knnkit.model.reference.spec import KnnSpec
from knnkit.model.scaling import fit_scaler
from knnkit.model.tflite.load_tensorflow import needs_build_extra
from knnkit.training import sklearn_importer, unscaled
from knnkit.training.fitted import Fitted
from knnkit.training.table import apply, policy_for, prepare, raw_lines


@dataclass(frozen=True)
class Made:
    """A model, its golden set, the verdict of its self-check, and the answers of an imported classifier itself."""

    model: BuiltModel
    golden: Golden
    verdict: Verdict
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Material:
    """What a release is built from.

    Attributes:
        spec: name, k, metric, weights, scale and reject of the classifier.
        training: raw training rows; of an imported classifier, rows computed back from its own.
        held_out: raw rows to measure accuracy with; None if there are none.
        imported: the classifier from scikit-learn; None if the classifier is made from `training`.
        warnings: for the person who builds.
        how: how rows were held out; empty where nothing is measured.
        table: of the raw columns that the rows were made from; None for rows of plain numbers.
        ignore_extra: whether a device ignores columns that the model does not know.
    """

    spec: KnnSpec
    training: Dataset
    held_out: Dataset | None
    imported: Fitted | None = None
    warnings: tuple[str, ...] = ()
    how: str = ""
    table: Table | None = None
    ignore_extra: bool = False

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the training rows and labels, for knn.json."""
        return self.training.fingerprint() if self.imported is None else self.imported.enrolment.fingerprint

    def enrol(self, scale: Scale, metric: Metric) -> Enrolment:
        """Returns the training rows in model space; an imported classifier ignores `scale` and `metric`.

        Raises:
            BuildError: a row is out of the range of float32.
        """
        if self.imported is not None:
            return self.imported.enrolment
        return enrol(self.training, fit_scaler(self.training.rows, scale), metric)

    def build(self, gates: Gates, *, seed: int = 0, inputs: str = "") -> Made:
        """Builds the model, and checks it on its golden rows.

        Raises:
            DataError: k is larger than the number of rows, or the held-out rows are invalid.
            BuildError: the model cannot be built, or fails `gates`.
            MissingDependency: a package of `knnkit[build]` is not installed.
        """
        how: dict[str, Any] = {"margin": gates.margin, "seed": seed, "inputs": inputs, "measure": self._measure}
        how |= {"table": self.table, "ignore_extra": self.ignore_extra}
        if self.imported is None:
            model = build_model(self.spec, self.training, self.held_out, **how)
        else:
            model = build_enrolled(self.spec, self.imported.enrolment, self.held_out, **how)
        golden = make_golden(model, self.held_out, self.training, seed=seed, raw=raw_lines)
        from knnkit.model.selfcheck import self_check  # TensorFlow

        return Made(model, golden, self_check(model, golden, gates), self._warn(model))

    def _measured(self, reference: Reference) -> Dataset | None:
        return None if self.held_out is None else affordable(self.held_out, reference)

    def _measure(self, reference: Reference, classes: tuple[int | str, ...]) -> Evaluation | None:
        return measure(reference, classes, self._measured(reference), self.how)

    def _warn(self, model: BuiltModel) -> tuple[str, ...]:
        """Warns of held-out rows that were not measured; asks an imported classifier, and reports what differs."""
        measured = self._measured(model.reference)
        if self.held_out is None or measured is None:
            return ()
        count, of = len(measured.rows), len(self.held_out.rows)
        warnings = (
            () if count == of else (f"accuracy is measured on {count:,} of {of:,} held-out rows, drawn at random",)
        )
        if self.imported is None or self.imported.estimator is None:
            return warnings
        own = compare_with_estimator(self.imported.estimator, model.reference, model.info.classes, measured)
        return (*warnings, *own)

    def golden(self, info: KnnInfo, own: Dataset, *, margin: float, limit: int) -> Golden:
        """Returns the golden set of the user's own rows, for a model that was built from this material.

        Args:
            info: knn.json of that model.
            own: the rows, with labels of the classifier's type.
            margin: neighbours whose distances differ by less, relative to the scale, may swap.
            limit: most rows.
        """
        space = self.enrol(info.scale, info.metric)
        how = (len(space.classes), info.k, info.weights)
        reference = Reference(space.space, space.enrolled, space.codes, *how, margin=margin)
        reference.reject = info.reject
        return make_golden(BuiltModel(b"", info, reference, ()), own, self.training, limit=limit, raw=raw_lines)

    def read(self, file: Path, label: str) -> Dataset:
        """Returns the labelled rows of a file as the model's features.

        Raises:
            DataError: a column is missing, or a cell cannot be read.
        """
        wide = self.training.rows.dtype == np.float64
        if self.table is None:
            return self.fitting(files.load(file, label, self.training.feature_names, wide=wide))
        columns = [column.name for column in self.table.columns]
        found = apply(self.table, files.load(file, label, columns, None, policy_for(self.table)))
        return replace(found, rows=found.rows.astype(self.training.rows.dtype, copy=False))

    def fitting(self, rows: Dataset) -> Dataset:
        """Returns labelled rows with labels of the classifier's type.

        Raises:
            DataError: the features are not the classifier's.
        """
        return rows if self.imported is None else self.imported.fitting(rows)


@needs_build_extra()
def load(build: Build) -> Material:
    """Loads what the release of `build` is built from.

    Raises:
        DataError: a file, column or cell is invalid, or too few rows are left.
        BuildError: the estimator cannot be read, or is not supported.
        MissingDependency: a package of `knnkit[build]` is not installed.
    """
    model = build.model
    if isinstance(model.data, SkopsData):
        return _load_imported(build, model.data)
    spec = KnnSpec(model.name, model.k, model.metric, model.weights, model.scale, model.reject)
    everything = _load_rows(build)
    divided = _divide(build, everything)
    chosen = isinstance(model.data, FileData) and model.data.features is not None
    warnings = columns.warnings(everything) if isinstance(model.data, FileData) and not chosen else ()
    training, held_out, table = divided.training, divided.held_out, None
    if isinstance(model.data, FileData) and not policy_of(model.data).is_plain:
        ready = prepare(_with_text(policy_of(model.data), everything), training, held_out)
        training, held_out, table = ready.training, ready.held_out, ready.table
        warnings += ready.warnings
    shifted, seen = model.metric != "cosine" or model.scale != "none", everything if table is None else training
    warnings += precision.warnings(seen.rows, seen.feature_names, seen.source, shifted=shifted)
    warnings += (*divided.warnings, *faults.find(training, held_out))
    if "scale" not in model.model_fields_set:
        warnings += unscaled.find(training, model.k, model.metric, model.weights)
    return Material(spec, training, held_out, None, warnings, divided.how, table, model.ignore_extra)


def _with_text(policy: Policy, rows: Dataset) -> Policy:
    """Returns the policy with the columns of text that one word for all of them means."""
    return policy.with_text([rows.feature_names[place] for place in rows.levels or ()])


def _load_rows(build: Build) -> Dataset:
    data, split = build.model.data, build.model.split
    if isinstance(data, FileData):
        beside = split.group if isinstance(split, GroupSplit) else split.time if isinstance(split, TimeSplit) else None
        return files.load_all(data.sources, data.label, data.features, beside, policy_of(data))
    assert isinstance(data, SklearnData)
    return dataset.load_sklearn(data.sklearn)


def policy_of(data: Data) -> Policy:
    """Returns how the rows of a file are read."""
    if not isinstance(data, FileData):
        return PLAIN
    return Policy(data.drop, data.missing, data.categories, data.unknown_category, data.thousands)


def _divide(build: Build, everything: Dataset) -> Divided:
    test, split = build.model.measured_on, build.model.split
    if isinstance(test, TestFile):
        policy = replace(_with_text(policy_of(build.model.data), everything), drop=())
        names, wide = everything.feature_names, _is_wide(everything)
        held_out = files.load(test.file, label_of(build), names, None, policy, wide=wide)
        return Divided(everything, held_out, "file")
    how = "group" if isinstance(split, GroupSplit) else "time" if isinstance(split, TimeSplit) else split
    assert not isinstance(how, TestFile)
    return divide(everything, test, build.model.seed, how)


def _is_wide(rows: Dataset) -> bool:
    return rows.rows.dtype == np.float64


def label_of(build: Build) -> str:
    """Returns the name of the label column: of the test file if it has one, else of the training data."""
    data, test = build.model.data, build.model.measured_on
    if isinstance(test, TestFile) and test.label is not None:
        return test.label
    return data.label if isinstance(data, FileData) else "label"


def _load_imported(build: Build, data: SkopsData) -> Material:
    model, test = build.model, build.model.measured_on
    estimator = sklearn_importer.load_skops(data.skops)
    held_out, names = None, sklearn_importer.fitted_names(estimator)
    if isinstance(test, TestFile):
        held_out = files.load(test.file, label_of(build), names, wide=True)
        width = sklearn_importer.width(estimator)
        if len(held_out.feature_names) != width:
            raise DataError(
                f"{test.file}: {len(held_out.feature_names)} features beside the label {label_of(build)!r}, but "
                f"{data.skops} takes {width}"
            )
        names = held_out.feature_names
    found = sklearn_importer.import_estimator(
        estimator, name=model.name, feature_names=names, reject=model.reject, source=str(data.skops)
    )
    return replace(of_imported(found, held_out), ignore_extra=model.ignore_extra)


def of_imported(imported: Fitted, held_out: Dataset | None) -> Material:
    """Returns what a release of an imported classifier is built from.

    Raises:
        DataError: the held-out rows do not fit it.
    """
    training = imported.training_rows()
    if held_out is not None:
        return Material(imported.spec, training, imported.fitting(held_out), imported, how="file")
    said = "there are no test rows: training rows stand in as golden rows, and no accuracy is claimed"
    return Material(imported.spec, training, None, imported, (f"{training.source}: {said}",))
