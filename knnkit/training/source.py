"""What a release is made from: the classifier to build, its training rows, and rows held out. Reads; builds nothing.

Training rows come from a file, from scikit-learn's data sets, or inside a fitted scikit-learn estimator, which then
also decides k, metric, weights and scale. Loads no TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agent.shared.protocol.constants import Metric, Scale
from knnkit.config.parse import Build, FileData, GroupSplit, SklearnData, SkopsData, TestFile, TimeSplit
from knnkit.errors import DataError
from knnkit.model.reference.spec import KnnSpec

if TYPE_CHECKING:
    from knnkit.data.dataset import Dataset
    from knnkit.evaluation.splits import Divided
    from knnkit.model.reference.enrolment import Enrolment
    from knnkit.training.fitted import Fitted


@dataclass(frozen=True)
class Material:
    """What one release is made from.

    Attributes:
        spec: what to build.
        training: raw rows that become neighbours; of an imported classifier, rows that stand in for them.
        held_out: raw rows that measure accuracy; None where nothing is held out.
        imported: the classifier that came from scikit-learn; None where rows are enrolled anew.
        warnings: for the person who builds.
        how: how rows were held out; empty where nothing is measured.
    """

    spec: KnnSpec
    training: Dataset
    held_out: Dataset | None
    imported: Fitted | None = None
    warnings: tuple[str, ...] = ()
    how: str = ""

    @property
    def fingerprint(self) -> str:
        """What knn.json will say of the training rows."""
        return self.training.fingerprint() if self.imported is None else self.imported.enrolment.fingerprint

    def enrol(self, scale: Scale, metric: Metric) -> Enrolment:
        """Returns the training rows in model space; an imported classifier has brought its own, and keeps it.

        Raises:
            BuildError: a row falls out of the range of float32.
        """
        if self.imported is not None:
            return self.imported.enrolment
        from knnkit.model.reference.enrolment import enrol
        from knnkit.model.scaling import fit_scaler

        return enrol(self.training, fit_scaler(self.training.rows, scale), metric)

    def fitting(self, rows: Dataset) -> Dataset:
        """Returns labelled rows with their labels as the classifier has them.

        Raises:
            DataError: the features are not the classifier's.
        """
        return rows if self.imported is None else self.imported.fitting(rows)


def load(build: Build) -> Material:
    """Returns what the release of `build` is made from.

    Raises:
        DataError: a file, column or cell is not fit, or too few rows are left.
        BuildError: the estimator cannot be read, or is not supported.
        MissingDependency: a package of `knnkit[build]` is not installed.
    """
    from knnkit.data import columns
    from knnkit.evaluation import faults

    model = build.model
    if isinstance(model.data, SkopsData):
        return _load_imported(build, model.data)
    spec = KnnSpec(model.name, model.k, model.metric, model.weights, model.scale, model.reject)
    everything = _load_rows(build)
    divided = _divide(build, everything)
    chosen = isinstance(model.data, FileData) and model.data.features is not None
    warnings = columns.warnings(everything) if isinstance(model.data, FileData) and not chosen else ()
    warnings += (*divided.warnings, *faults.find(divided.training, divided.held_out))
    return Material(spec, divided.training, divided.held_out, warnings=warnings, how=divided.how)


def load_data(build: Build) -> tuple[Dataset, Dataset | None]:
    """Returns training and held-out rows of `build`; None where nothing is held out.

    Raises:
        See `load`.
    """
    material = load(build)
    return material.training, material.held_out


def _load_rows(build: Build) -> Dataset:
    from knnkit.data import dataset, files

    data, split = build.model.data, build.model.split
    if isinstance(data, FileData):
        beside = split.group if isinstance(split, GroupSplit) else split.time if isinstance(split, TimeSplit) else None
        return files.load(data.file, data.label, data.features, beside)
    assert isinstance(data, SklearnData)
    return dataset.load_sklearn(data.sklearn)


def _divide(build: Build, everything: Dataset) -> Divided:
    from knnkit.data import files
    from knnkit.evaluation.splits import Divided, divide

    test, split = build.model.measured_on, build.model.split
    if isinstance(test, TestFile):
        return Divided(everything, files.load(test.file, label_of(build), everything.feature_names), "file")
    how = "group" if isinstance(split, GroupSplit) else "time" if isinstance(split, TimeSplit) else split
    assert not isinstance(how, TestFile)
    return divide(everything, test, build.model.seed, how)


def label_of(build: Build) -> str:
    """Returns the label column of further rows: that of the test file, or of the training data."""
    data, test = build.model.data, build.model.measured_on
    if isinstance(test, TestFile) and test.label is not None:
        return test.label
    return data.label if isinstance(data, FileData) else "label"


def _load_imported(build: Build, data: SkopsData) -> Material:
    from knnkit.data import files
    from knnkit.training import sklearn_importer

    model, test = build.model, build.model.measured_on
    estimator = sklearn_importer.load_skops(data.skops)
    held_out, names = None, sklearn_importer.fitted_names(estimator)
    if isinstance(test, TestFile):
        held_out = files.load(test.file, label_of(build), names)
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
    return of_imported(found, held_out)


def of_imported(imported: Fitted, held_out: Dataset | None) -> Material:
    """Returns what a release of a classifier from scikit-learn is made from.

    Raises:
        DataError: the held-out rows do not fit it.
    """
    training = imported.training_rows()
    if held_out is not None:
        return Material(imported.spec, training, imported.fitting(held_out), imported, how="file")
    said = "there are no test rows: training rows stand in as golden rows, and no accuracy is claimed"
    return Material(imported.spec, training, None, imported, (f"{training.source}: {said}",))
