"""Loads training and held-out rows, and builds the model.

`load` reads the rows; `Material.build` builds and checks the model. Training rows come from a file, from scikit-learn's
data sets, or from a fitted scikit-learn estimator, which then also decides k, metric, weights and scale. Loads
TensorFlow only to build.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol.constants import Metric, Scale
from device_agent.shared.protocol.input_info import Window
from device_agent.shared.protocol.model_info import Evaluation, Gates, KnnInfo, Reduced, Targets
from device_agent.shared.protocol.table_info import Table
from device_agent.shared.release.row_origins import Origins
from knnkit.config.answer_models import ReduceConfig
from knnkit.config.parse import Build, FileData, SkopsData, TestFile
from knnkit.data import columns, precision
from knnkit.data.dataset import Dataset
from knnkit.errors import BuildError, DataError
from knnkit.evaluation import faults
from knnkit.evaluation.measure import affordable, compare_with_estimator, measure, measure_errors
from knnkit.evaluation.metrics import percent
from knnkit.model.build import Options, build_enrolled, origins_of, targets_of
from knnkit.model.built import BuiltModel
from knnkit.model.conformal import short_sets
from knnkit.model.golden import MAX_ROWS, draw_rows, long_check, make_golden
from knnkit.model.reference.classifier import Reference
from knnkit.model.reference.enrolment import Enrolment, enrol
from knnkit.model.reference.spec import KnnSpec, is_plain, require_plain
from knnkit.model.scaling import fit_scaler
from knnkit.model.selfcheck import milliseconds, self_check
from knnkit.model.tflite.load_tensorflow import needs_build_extra
from knnkit.training import reduction, sklearn_importer, unscaled
from knnkit.training.fitted import Fitted
from knnkit.training.inputs import Embedder, input_of
from knnkit.training.made import Made
from knnkit.training.raw_cells import read_held_out
from knnkit.training.rows import answers_of, divide_rows, load_rows, read_inputs
from knnkit.training.table import prepare_of, raw_lines, read_more


@dataclass(frozen=True)
class Material:
    """Rows, parameters and options from which a release is built."""

    spec: KnnSpec  # name, k, metric, weights, scale and reject of the classifier
    #: raw training rows; for an imported classifier, computed back from its rows in model space. With `enrolment`,
    #: their numbers are NaN.
    training: Dataset
    held_out: Dataset | None  # raw rows to measure accuracy with; None if there are none
    #: the classifier from scikit-learn; None if the classifier is made from `training`.
    imported: Fitted | None = None
    warnings: tuple[str, ...] = ()  # for the person who builds, about faults
    how: str = ""  # how rows were held out; "" if nothing is measured
    table: Table | None = None  # how the rows were computed from raw columns; None for rows of plain numbers
    embedder: Embedder | None = None  # the stages that computed the rows; None without stages
    window: Window | None = None  # how windows of samples are cut; None if inputs are not windows
    #: smallest allowed share of test rows with the same answer from model and imported classifier; None: 0.
    agreement: float | None = None
    whole: Material | None = None  # the material with all training rows, if `reduce` removed some; else None
    spare: Dataset | None = None  # the training rows that `reduce` removed; None if it removed none
    reduced: str = ""  # value of `reduce: how` in deploy.yaml; "" without `reduce`
    max_loss: float = 0.0  # largest allowed loss of accuracy compared with `whole`
    notes: tuple[str, ...] = ()  # for the person who builds, about what was read
    enrolment: Enrolment | None = None  # the training rows in model space; None: they are not computed yet (`enrol`)
    drawn: Dataset | None = None  # the rows for the golden set, perhaps raw training rows; None: they are not drawn yet

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the rows are from: paths of tables or names of data sets; for recordings, `FIRST and N more`."""
        parts = [part for part in (self.training, self.held_out) if part is not None]
        return tuple(dict.fromkeys(name for part in parts for name in part.file_names or (part.source,)))

    @property
    def groups(self) -> NDArray[Any] | None:
        """(n_train,) number of the recording that each training row was cut from; None without windows."""
        return None if self.window is None else self.training.beside

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
        if self.enrolment is not None:
            return self.enrolment
        own = self.spec.p, self.spec.outlier_label
        return enrol(self.training, fit_scaler((self.whole or self).training.rows, scale), metric, *own)

    def enrolled(self, *, seed: int = 0, golden_rows: int | None = None) -> Material:
        """Returns this material with the training rows in model space alone: raw rows would take as much memory again.

        First draws the rows for the golden set with `seed`: at most `golden_rows`, or for None the usual number.
        """
        empty = np.broadcast_to(self.training.rows.dtype.type(np.nan), self.training.rows.shape)
        training, drawn = replace(self.training, rows=empty, raw=None), self._draw(seed, golden_rows)
        return replace(self, training=training, drawn=drawn, enrolment=self.enrol(self.spec.scale, self.spec.metric))

    def build(
        self,
        gates: Gates,
        *,
        seed: int = 0,
        inputs: str = "",
        golden_rows: int | None = None,
        step: Callable[[str], None] = lambda text: None,
    ) -> Made:
        """Builds the model, and checks it on at most `golden_rows` golden rows (None: the usual number).

        `seed` is that of random samples; `inputs` is the digest of all inputs of a release, for knn.json. Calls `step`
        with a text that says what begins.

        Raises:
            DataError: k is larger than the number of rows, or held-out rows have other features or labels.
            BuildError: the model cannot be built, or fails `gates`.
            MissingDependency: a package of `knnkit[build]` is not installed.
        """
        before, reduced = None, None
        if self.whole is not None:
            plain = replace(self.whole, spec=replace(self.whole.spec, label_sets=()))
            before = plain.build(Gates(gates.margin), seed=seed, step=step)
            reduced = Reduced(self.reduced, before.model.info.n_train, reduction.accuracy(before.model.info))
        drawn = self._draw(seed, golden_rows)
        stages = {} if self.embedder is None else self.embedder.files
        read = input_of(self.window, self.embedder)
        how = Options(gates.margin, seed, inputs, self._measure, self.table, read, stages, step=step)
        how = replace(how, golden=origins_of(drawn), spare=self.spare, reduced=reduced)
        known = origins_of(self.training) if self.imported is None else Origins(Path(self.training.source).name)
        how = replace(how, training=known, groups=self.groups if before is None else None)
        model = build_enrolled(self.spec, self.enrol(self.spec.scale, self.spec.metric), self.held_out, how)
        raw = raw_lines if self.embedder is None else self.embedder.lines
        step("computing the golden answers")
        asked = (None, drawn) if self.held_out is None else (drawn, self.training)
        golden = make_golden(model, *asked, limit=len(drawn.rows), raw=raw)
        notes = self.notes + (() if before is None else self._compare(before, model, golden))
        notes += long_check(model.info, len(golden.rows))
        step("checking the model")
        return Made(model, golden, self_check(model, golden, gates), self._warn(model), notes, stages)

    def _draw(self, seed: int, golden_rows: int | None) -> Dataset:
        """Returns the rows for the golden set: at most `golden_rows`, or for None the usual number."""
        if self.drawn is not None:
            return self.drawn
        limit = min(golden_rows or MAX_ROWS, self._most_golden)
        return draw_rows(self.held_out, self.training, seed=seed, limit=limit)

    @property
    def _most_golden(self) -> int:
        return MAX_ROWS if self.embedder is None else self.embedder.most_golden(self.held_out or self.training)

    def _compare(self, before: Made, model: BuiltModel, golden: Golden) -> tuple[str, ...]:
        """Returns lines that compare rows, size, time and accuracy before and after `reduce`."""
        both = before.model, model
        reduction.require_small_loss(self.reduced, self.max_loss, *(each.info for each in both))
        sizes = [f"{sum(map(len, each.parts())):,} bytes" for each in both]
        times = [f"{milliseconds(each, golden.rows[:1]):.3f} ms a row on this machine" for each in both]
        rows = [f"{each.info.n_train:,} rows" for each in both]
        shares = [f"accuracy {percent(reduction.accuracy(each.info))}" for each in both]
        return tuple(f"reduce: {self.reduced}: {old} before, {new} now" for old, new in (rows, sizes, times, shares))

    def _measured(self, reference: Reference) -> Dataset | None:
        return None if self.held_out is None else affordable(self.held_out, reference)

    def _measure(self, reference: Reference, classes: tuple[int | str, ...]) -> Evaluation | Targets | None:
        measured = self._measured(reference)
        of = None if self.held_out is None else len(self.held_out.rows)
        if self.training.targets is not None:
            targets = targets_of(self.training)
            return None if targets is None else measure_errors(reference, targets, measured, self.how, of)
        return measure(reference, classes, measured, self.how, of)

    def _warn(self, model: BuiltModel) -> tuple[str, ...]:
        """Returns warnings: of label sets that are wrong too often, and of answers that are not scikit-learn's.

        Raises BuildError if more answers differ than `agreement` allows.
        """
        short = short_sets(model.info)
        measured = self._measured(model.reference)
        if self.held_out is None or measured is None:
            self._require_agreement(None)
            return ()
        if self.imported is None or self.imported.estimator is None:
            return short
        own = compare_with_estimator(self.imported.estimator, model.reference, model.info.classes, measured)
        self._require_agreement(own.share)
        return (*short, *own.warnings)

    def _require_agreement(self, share: float | None) -> None:
        """Raises BuildError if `share`, of test rows that scikit-learn answers alike, is below the limit or unknown."""
        if self.agreement is None or (share is not None and share >= self.agreement):
            return
        if share is None:
            said = "scikit-learn's own answers to the test rows are not known, so `agreement` cannot be measured"
            hint = "test: {file: test.csv}, with the estimator's columns; or leave agreement out"
            if self.held_out is not None:
                said = f"{said}: the estimator chooses columns by name, and knnkit asks it with arrays"
                hint = "leave agreement out, or fit the estimator with columns by number, such as [0, 1]"
            raise BuildError(said, hint=hint)
        said = f"scikit-learn and the model agree on {percent(share)} of the test rows"
        hint = f"agreement: {int(share * 1e4) / 1e4:g} or less under gates:, or an estimator with algorithm='brute'"
        raise BuildError(f"{said}; gates: {{agreement}} needs {self.agreement * 100:g} %", hint=hint)

    def golden(self, info: KnnInfo, own: Dataset, *, margin: float, limit: int) -> Golden:
        """Returns a golden set of rows that the user chose, for a model that was built from this material.

        Args:
            info: knn.json of that model.
            own: the rows, with labels of the classifier's type.
            margin: relative difference of distances below which neighbours may swap.
            limit: largest number of rows.
        """
        space = self.enrol(info.scale, info.metric)
        how = (len(space.classes), info.k, info.weights)
        reference = Reference(space.space, space.enrolled, space.codes, *how, margin=margin, float64=info.float64)
        reference.reject, reference.targets = info.reject, space.targets
        reference.counts = tuple(map(len, space.target_classes))
        limit = min(limit, self._most_golden) if self.embedder else limit
        raw = raw_lines if self.embedder is None else self.embedder.lines
        return make_golden(BuiltModel((), {}, info, reference, ()), own, self.training, limit=limit, raw=raw)

    def read(self, file: Path, answers: Sequence[str]) -> Dataset:
        """Reads the labelled rows of a file, and returns them as features; `answers` are label columns or targets.

        Raises:
            DataError: a column is missing, or a cell cannot be read.
        """
        if self.window is not None or self.embedder is not None:
            return read_inputs(file, answers[0], self.training, self.embedder, self.window)
        found = read_more(file, answers, self.training, self.table)
        return found if self.imported is None or self.table is not None else self.imported.fitting(found)


@needs_build_extra()
def load(build: Build) -> Material:
    """Loads the rows, parameters and options from which the release of `build` is built.

    Raises:
        DataError: a file, column or cell is invalid, or too few rows are left.
        BuildError: the estimator cannot be read, or is not supported.
        MissingDependency: a package of `knnkit[build]` is not installed.
    """
    with build.line_in_errors():
        return _load_imported(build, data) if isinstance(data := build.model.data, SkopsData) else _load_rows(build)


def _load_rows(build: Build) -> Material:
    model = build.model
    if build.gates.agreement is not None:
        said = "gates: {agreement} compares a fitted scikit-learn estimator with the model, but `data` has no estimator"
        raise BuildError(said, hint="data: {skops: model.skops}, or leave agreement out")
    more: dict[str, Any] = {"reject": model.reject, "label_sets": model.coverages}
    more |= model.allowances | model.in_float64
    spec = KnnSpec(model.name, model.k, model.metric, model.weights, model.scale, **more)
    found = load_rows(build)
    divided, everything, warnings = divide_rows(build, found), found.rows, found.warnings
    if isinstance(model.data, FileData) and model.data.features is None and model.input is None:
        warnings += columns.warnings(everything, model.data.drop)
    ready = prepare_of(model.data, everything, divided.training, divided.held_out)
    training, held_out, table = ready.training, ready.held_out, ready.table
    shifted, seen = model.metric != "cosine" or model.scale != "none", everything if table is None else training
    warnings += ready.warnings + precision.warnings(seen.rows, seen.feature_names, seen.source, shifted=shifted)
    warnings += divided.warnings + faults.scale_by_far(training, model.scale)
    if training.targets is None:
        if doubt := columns.doubt(list(dict.fromkeys(everything.labels.tolist())), len(everything.labels)):
            known = any(doubt in text for text in divided.warnings)
            warnings += () if known else (f"{everything.source}: {doubt}",)
        warnings += faults.find(training, held_out)
        if "scale" not in model.model_fields_set and is_plain(spec):
            warnings += unscaled.find(training, model.k, model.metric, model.weights)
    warnings += faults.of_columns(training) + faults.of_categories(training) + faults.stand_ins(training)
    material = Material(spec, training, held_out, None, warnings, divided.how, table, found.embedder, found.window)
    material = replace(material, notes=found.notes)
    return material if model.reduction is None else _reduce(material, model.reduction, model.seed)


def _reduce(whole: Material, asked: ReduceConfig, seed: int) -> Material:
    """Returns the material `whole` with only the training rows that `reduce` keeps, as deploy.yaml asked."""
    training = whole.training
    require_plain(whole.spec, "reduce")
    if whole.held_out is None:
        raise BuildError("reduce: no rows are held out, so the loss of reduce is unknown", hint="test: 0.3")
    kept = reduction.choose(training, whole.spec, asked.how, asked.max_loss, seed)
    left = np.setdiff1d(np.arange(len(training.rows)), kept)
    spare = training.take(left) if len(left) else None
    smaller = replace(whole, training=training.take(kept), whole=whole, spare=spare)
    return replace(smaller, reduced=asked.how, max_loss=asked.max_loss)


def _load_imported(build: Build, data: SkopsData) -> Material:
    model, test = build.model, build.model.measured_on
    estimator = sklearn_importer.load_skops(data.skops)
    how: dict[str, Any] = {"name": model.name, "reject": model.reject, "source": str(data.skops)}
    found, held_out = sklearn_importer.import_estimator(estimator, **how), None
    if isinstance(test, TestFile):
        named = sklearn_importer.fitted_names(estimator) is not None
        if not named and found.table is not None and not found.table.transforms:
            found = replace(found, table=None)  # the file names all columns, also those that the pipeline drops
        held_out = read_held_out(test, answers_of(build), found, named=named)
        names, width = held_out.feature_names, len(found.enrolment.feature_names)
        if len(names) != width:
            beside = f"beside {', '.join(map(repr, answers_of(build)))}"
            said = f"{test.file}: {len(names)} features {beside}, but {data.skops} takes {width}"
            hint = f"give exactly {width} columns of numbers {beside}, in the order in which the estimator was fitted"
            raise DataError(said, hint=hint)
        found = replace(found, enrolment=replace(found.enrolment, feature_names=names))
    if model.keep is not None and found.table is not None and found.table.transforms:
        said = "keep: the cells of a row cannot be computed back from what the pipeline makes of them"
        raise BuildError(said, hint="leave keep out")
    found = replace(found, spec=replace(found.spec, label_sets=model.coverages, **model.allowances))
    if held_out is not None and len(held_out.target_names) == len(found.enrolment.target_names):
        found = replace(found, enrolment=replace(found.enrolment, target_names=held_out.target_names))
    return replace(of_imported(found, held_out), agreement=build.gates.agreement)


def of_imported(imported: Fitted, held_out: Dataset | None) -> Material:
    """Returns the material for a release of `imported`; without held-out rows, training rows are the golden rows.

    Raises:
        DataError: the held-out rows do not fit, or there are none and the pipeline has nonlinear steps.
    """
    table = imported.table
    if table is not None and table.transforms and held_out is None:
        said = "the cells of training rows cannot be computed back through its transformers, so test rows are needed"
        hint = "test: {file: test.csv, label: COLUMN}; in Python test=(rows, labels)"
        raise DataError(f"{imported.enrolment.source}: {said}", hint=hint)
    training = imported.training_rows()
    if held_out is not None:
        rows = imported.fitting(held_out)
        return Material(imported.spec, training, rows, imported, how="file", table=imported.table)
    said = "there are no test rows: training rows stand in as golden rows, and no accuracy is claimed"
    training = training if table is None else replace(training, raw=training)
    return Material(imported.spec, training, None, imported, (f"{training.source}: {said}",), table=table)
