"""Pydantic models of deploy.yaml and of what to build.

The docstring below a key is its description in the JSON Schema. Fleet and rollout are in `fleet_models`. No I/O.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field

from device_agent.shared.protocol import constants
from knnkit.config.answer_models import (
    ClassWeight,
    Coverages,
    EnrolConfig,
    GatesConfig,
    GoldenConfig,
    KeepConfig,
    Reduce,
    ReduceConfig,
    Reject,
)
from knnkit.config.data_models import Data, FileData, SklearnData, SkopsData, Split, Test, TestFile, TimeSplit
from knnkit.config.field_types import Example, Name, Section, Text, no_sense
from knnkit.config.fleet_models import ClassifyConfig, FleetConfig, ReleaseConfig, RolloutConfig, SigningConfig
from knnkit.config.input_models import InputConfig
from knnkit.config.written import KeyFiles, Written
from knnkit.config.yaml_reader import Document, Place
from knnkit.errors import BuildError, DataError

_RECORDINGS = "data: {files: 'walks/*.csv', label: activity}"
#: Keys of `data` that recordings do not go with.
_OF_ROWS = ("features", "target", "drop", "missing", "categories", "unknown_category", "id", "thousands", "path")


_SKOPS = "data: {skops: model.skops}, without k, metric, weights, scale, reduce"


class ModelConfig(Section):
    """The classifier: its data and how it answers."""

    name: Annotated[Name, Example("fruit")]
    """Name of the model; a device never replaces a model by one with another name."""
    data: Annotated[Data, Example("{file: train.csv, label: species}")]
    """The labelled rows: {file, label} or {sklearn}; or a fitted estimator, which has its rows: {skops}. {file, target}
    is for numbers to predict."""
    input: Annotated[InputConfig | None, Example("{stages: [embedder.tflite]}")] = None
    """How a raw input becomes a row: windows of samples, and your own `.tflite` files. Default: the inputs are rows of
    numbers."""
    test: Test = 0.3
    """Share of the rows to hold out for accuracy, golden rows and calibration, or {file}; 0: none. `skops`: {file}."""
    split: Annotated[Split | None, Example("stratified")] = None
    """How rows are held out: random, stratified, {group: COLUMN}, {time: COLUMN}, or {file} as for `test`. Default:
    random, but by class if a random split would leave a class without training rows."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the split: the same seed gives the same rows and the same bytes."""
    k: int = Field(default=3, ge=1)
    """Number of neighbours that vote."""
    metric: constants.Metric = "euclidean"
    """euclidean, sqeuclidean, manhattan, cosine, chebyshev, minkowski (with `p`), jaccard (every number but 0 counts as
    true), or haversine (latitude and longitude in radians). NumPy computes the last four, without TFLite."""
    p: Annotated[float | None, Example("3")] = None
    """Power of the metric minkowski, from 1 to 16."""
    weights: constants.Weights = "uniform"
    """uniform: each neighbour has one vote; distance: nearer neighbours weigh more; or a kernel of the distance, with
    `bandwidth`, which NumPy computes: gaussian, exponential, epanechnikov, triangular, biweight or tricube."""
    bandwidth: Annotated[float | None, Example("0.5")] = None
    """Distance at which epanechnikov, triangular, biweight and tricube become 0; standard deviation of gaussian."""
    radius: Annotated[float | None, Example("0.5")] = None
    """All training rows within this distance vote; answers show `k` of them. Default: the k nearest vote."""
    outlier_label: Annotated[int | Text | None, Example("other")] = None
    """Label of a row that no training row is within `radius` of. Default: it is "unknown"."""
    class_weight: Annotated[ClassWeight | None, Example("balanced")] = None
    """Factor of the votes for each label: {fault: 5}, 1 for the others; or balanced: rare labels count more. NumPy
    computes such a model, without TFLite. Default: all votes are equal."""
    scale: Annotated[constants.Scale, Example("standard")] = "none"
    """none, standard, minmax or robust; it becomes part of the model, so a device takes raw rows."""
    reject: Annotated[Reject | None, Example("0.99")] = None
    """Share of ordinary rows to accept; rows farther from the training rows are "unknown". Or a share for each label,
    and `default` for the others. Default: no row is "unknown"."""
    label_sets: Annotated[Coverages, Example("0.95")] = ()
    """Coverage of the label sets of `classify --labels`, a share or a list of shares: for this share of each class's
    rows, the set holds the true label. Default: no label sets."""
    reduce: Annotated[Reduce | None, Example("condensed")] = None
    """condensed, edited or prototypes: keep fewer training rows in the model; or {how, max_loss}. Default: all rows."""
    ignore_extra: bool = False
    """Whether a device ignores columns that the model does not have; if not, such columns are an error."""
    keep: Annotated[KeepConfig | None, Example("{unknown: 200}")] = None
    """Which rows each device keeps for `knnkit collect`, and how many of each kind; default: none, because rows can be
    personal."""
    enrol: Annotated[EnrolConfig | None, Example("{rows: 500}")] = None
    """Allows people to teach the device rows (`device_agent enrol`). Default: no rows may be taught."""
    device_class: Annotated[Name, Example("zero")] = "any"
    """The class of device that this model is for; "any": all classes."""
    licence: Annotated[Text, Example("CC-BY-4.0")] = ""
    """Licence of data and model, for the model card."""
    notes: Annotated[Text, Example("trained for the north greenhouse")] = ""
    """What people should know about this model, for the model card."""
    gates: Annotated[GatesConfig | None, Example("{accuracy: 0.9}")] = None
    """Gates of this model; default: `gates` at the top of deploy.yaml."""
    golden: Annotated[GoldenConfig | None, Example("{rows: 200}")] = None
    """How many rows each device answers to prove its copy of the model; default: 1000."""

    @property
    def reduction(self) -> ReduceConfig | None:
        """The value of `reduce` with its defaults; None without `reduce`."""
        return ReduceConfig(how=self.reduce) if isinstance(self.reduce, str) else self.reduce

    @property
    def coverages(self) -> tuple[float, ...]:
        """The coverages in `label_sets`, one or several: shares of rows whose label set shall hold the true label."""
        return self.label_sets if isinstance(self.label_sets, tuple) else (self.label_sets,)

    @property
    def allowances(self) -> dict[str, Any]:
        """What a device may do with this model: `keep`, `enrol` and `ignore_extra` -> value in the model's metadata."""
        keep, enrol = self.keep.info if self.keep else None, self.enrol.info if self.enrol else None
        return {"keep": keep, "enrol": enrol, "ignore_extra": self.ignore_extra}

    @property
    def in_float64(self) -> dict[str, Any]:
        """Parameter name -> value of the options that only the NumPy code supports, not the TensorFlow graph."""
        return {key: getattr(self, key) for key in ("p", "bandwidth", "radius", "outlier_label", "class_weight")}

    @property
    def beside(self) -> str | None:
        """The column that `split` names, with the groups or times of the rows; None if it names none."""
        column: str | None = getattr(self.split, "group", None) or getattr(self.split, "time", None)
        return column

    @property
    def measured_on(self) -> float | TestFile:
        """Where held-out rows come from: a share of the training data, or a separate file."""
        return self.split if isinstance(self.split, TestFile) else self.test

    @pydantic.model_validator(mode="after")
    def _split_fits(self) -> ModelConfig:
        problem = ""
        if self.split is not None and isinstance(self.measured_on, TestFile) and "test" in self.model_fields_set:
            problem = "the held-out rows are in a separate file: leave `split` or `test` out"
        elif self.split is not None and isinstance(self.data, SkopsData) and not isinstance(self.split, TestFile):
            problem = "the estimator of `skops` was fitted on all its rows, so none can be held out: leave `split` out"
        elif self.beside is not None and not isinstance(self.data, FileData):
            problem = "only rows in a file have a column to split by"
        if problem:
            hint = "split: stratified, and a share in test:, or test: {file: test.csv} alone"
            raise no_sense(problem, hint, "split")
        return self

    @pydantic.model_validator(mode="after")
    def _recordings_fit(self) -> ModelConfig:
        data = self.data
        if self.input is None or self.input.window is None:
            if isinstance(data, FileData) and data.labels is not None:
                problem = "`labels` needs a `window` of `input`: it labels whole recordings"
                file = data.labels if isinstance(data.labels, Path) else Path("labels.csv")
                out = "leave `labels` out" + ": the folder is the label already" * (self.input is not None)
                raise no_sense(problem, out if file.suffix else f"label: {file.name}", "data")
            return self
        if not isinstance(data, FileData):
            raise no_sense("`window` cuts recordings: `data` must name their files", _RECORDINGS, "data")
        taken = [key for key in _OF_ROWS if key in data.model_fields_set]
        if taken:
            raise no_sense(f"`window` makes the rows: leave {', '.join(taken)} out", _RECORDINGS, "data")
        if self.reduce is not None:
            raise no_sense("`reduce` does not work with `window`: leave `reduce` out", "reject: 0.99", "reduce")
        if isinstance(self.split, str | TimeSplit):
            problem = "with `window`, whole recordings are held out: leave `split` out"
            raise no_sense(problem, "split: {group: person}, or leave split out", "split")
        return self

    @pydantic.model_validator(mode="after")
    def _input_fits(self) -> ModelConfig:
        if self.input is not None and self.keep is not None:
            problem = "a device cannot keep windows, sounds or pictures for people to label: leave `keep` out"
            raise no_sense(problem, "reject: 0.99, without keep", "keep")
        if self.input is None or isinstance(self.data, SklearnData):
            return self
        table = ("missing", "categories", "unknown_category", "thousands", "target")
        taken = () if isinstance(self.data, SkopsData) else [key for key in table if key in self.data.model_fields_set]
        if taken or isinstance(self.data, SkopsData):
            what = f"`{taken[0]}` of data" if taken else "an estimator of `skops`"
            problem = f"`input` takes raw numbers, and cannot be combined with {what}"
            hint = "leave `input` out, or write data: {file: train.csv, label: species}"
            raise no_sense(problem, hint, "input")
        return self

    @pydantic.model_validator(mode="after")
    def _regression_fits(self) -> ModelConfig:
        if not (isinstance(self.data, FileData) and (self.data.target or len(self.data.label) > 1)):
            return self
        keys = ("label_sets", "reduce", "keep", *(() if self.data.target else ("enrol", "input")))
        taken: list[str] = [key for key in keys if key in self.model_fields_set]
        if self.split == "stratified":
            taken.append("split")
        if taken:
            problem = f"`{taken[0]}` needs classes, and `target` makes a regression"
            if not self.data.target:
                problem = f"`{taken[0]}` needs one label for each row, and `label` is a list"
            raise no_sense(problem, f"leave `{taken[0]}` out", taken[0])
        return self

    @pydantic.model_validator(mode="after")
    def _estimator_decides(self) -> ModelConfig:
        if not isinstance(self.data, SkopsData):
            return self
        keys = ("k", "metric", "weights", "scale", "reduce", *self.in_float64)
        taken = [key for key in keys if key in self.model_fields_set]
        if taken:
            them = "it" if len(taken) == 1 else "them"
            problem = f"the estimator of `skops` decides {', '.join(taken)}: leave {them} out"
            raise no_sense(problem, _SKOPS, taken[0])
        if "test" in self.model_fields_set and not isinstance(self.test, TestFile) and self.test:
            problem = "the estimator of `skops` was fitted on all its rows: "
            problem += "write test: {file: test.csv}, or leave `test` out"
            raise no_sense(problem, "test: {file: test.csv}", "test")
        return self


class Build(Section):
    """The part of deploy.yaml that concerns one release: its model, directory, signing key and gates."""

    model: ModelConfig
    """The classifier."""
    release: ReleaseConfig
    """Its directory and version."""
    signing: SigningConfig
    """The signing key."""
    gates: GatesConfig
    """Figures that a release must reach on every device."""
    written: pydantic.SkipValidation[Written | None] = None
    """The text of deploy.yaml and the place of the model in it; None without a text."""

    @contextlib.contextmanager
    def line_in_errors(self) -> Iterator[None]:
        """If an error in the block is about a key of the model or of `gates`, puts file and line before its message."""
        try:
            yield
        except (BuildError, DataError) as error:
            known = {*ModelConfig.model_fields, "gates"}
            said = None if self.written is None else self.written.message_of(error, known)
            if said is None:
                raise
            raise type(error)(said, reason=error.reason, hint=error.hint) from None


_A_MODEL = "{name: fruit, data: {file: train.csv, label: species}}"


class Config(Section):
    """The content of deploy.yaml."""

    model: Annotated[ModelConfig | None, Example(_A_MODEL)] = None
    """The classifier. Optional in a file with `fleet.targets`, which deploys finished releases."""
    models: Annotated[
        tuple[ModelConfig, ...], Example("[{name: small, device_class: zero, data: {file: train.csv, label: species}}]")
    ] = ()
    """Instead of `model`: one classifier for each device class."""
    release: Annotated[ReleaseConfig, Example("{dir: dist, version: 1.0.0}")] = Field(
        default=ReleaseConfig.model_construct(), validate_default=False
    )
    """Directory, version, sequence and lifetime of the release."""
    signing: Annotated[SigningConfig, Example("{key: keys/signing.pem}")] = Field(
        default=SigningConfig.model_construct(), validate_default=False
    )
    """The signing key, and the keys that new devices trust."""
    gates: GatesConfig = GatesConfig()
    """Limits that every device must meet before it may keep the release."""
    fleet: Annotated[FleetConfig, Example("{targets: [pi@board-1]}")] = FleetConfig()
    """The devices."""
    rollout: Annotated[RolloutConfig, Example("{max_failures: 1}")] = RolloutConfig()
    """How a release is rolled out to the fleet."""
    classify: Annotated[ClassifyConfig, Example("{keep: [id]}")] = ClassifyConfig()
    """What `knnkit classify` writes beside the answers."""
    _document: Document | None = None

    @classmethod
    def of(cls, document: Document, context: dict[str, Any]) -> Config:
        """Returns a document's configuration; `context`: `base`, folder of relative paths, and `home`, for `~`.

        Raises:
            pydantic.ValidationError: a key or value is wrong.
        """
        found = cls.model_validate(document.data, context=context)
        found._document = document
        return found

    @pydantic.model_validator(mode="before")
    @classmethod
    def _every_section(cls, data: Any) -> Any:
        """Removes sections without a value; adds `release` and `signing`, so that their default paths are resolved."""
        if not isinstance(data, dict):
            return data
        present = {key: value for key, value in data.items() if value is not None or key not in cls.model_fields}
        return {"release": {}, "signing": {}, **present}

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.models and self.model:
            raise no_sense(
                "give either `model` or `models`", "write the keys of `model` as an entry of `models`", "models"
            )
        if not (self.models or self.model or self.fleet.targets):
            raise no_sense("the key 'model' is missing", f"model: {_A_MODEL}, or fleet: {{targets: [pi@board-1]}}")
        classes = [model.device_class for model in self.models]
        if len(set(classes)) != len(classes) or len({m.name for m in self.models}) != len(classes):
            problem = "each of `models` needs a different name and a different device_class"
            raise no_sense(problem, f"models: [{_A_MODEL[:-1]}, device_class: zero}}, ...]", "models")
        self._check_waves()
        return self

    def _check_waves(self) -> None:
        tags = {*self.fleet.defaults.tags, *(tag for target in self.fleet.targets for tag in target.tags)}
        for index, wave in enumerate(self.rollout.waves):
            if self.fleet.targets and isinstance(wave, str) and not wave.endswith("%") and wave not in tags:
                close = difflib.get_close_matches(wave, tags, n=1)
                problem = f"no target has the tag {wave!r}" + (f"; did you mean {close[0]!r}?" if close else "")
                whole = map(str, (*self.rollout.waves[:index], *close, *self.rollout.waves[index + 1 :]))
                hint = f"waves: [{', '.join(whole)}]" if close else f"tags: [{wave}] of a target, or waves: [25%, 100%]"
                raise no_sense(problem, hint, f"rollout/waves/{index}")

    @property
    def key_files(self) -> KeyFiles:
        """The files of keys and of SSH that the document names."""
        fleet, document = self.fleet, self._document or Document("", "")
        named: dict[Place, Path | None] = {("signing", "key"): self.signing.key}
        named |= {("signing", "trusted", place): path for place, path in enumerate(self.signing.trusted)}
        named |= {("fleet", key): getattr(fleet, key) for key in ("known_hosts", "ssh_config")}
        named |= {("fleet", "targets", place, "identity"): each.identity for place, each in enumerate(fleet.targets)}
        named |= {("fleet", "defaults", "identity"): fleet.defaults.identity}
        places = {str(path): place for place, path in named.items() if path and place in document.marks}
        return KeyFiles(document, places)

    def builds(self) -> tuple[Build, ...]:
        """Returns a `Build` for each model, with its `release.dir`; () if the file only describes a fleet."""
        if self.model is not None:
            return (self._build(self.model, self.release.dir),)
        return tuple(self._build(model, self.release.dir / model.name) for model in self.models)

    def _build(self, model: ModelConfig, directory: Path) -> Build:
        release, gates = self.release.model_copy(update={"dir": directory}), model.gates or self.gates
        at = ("models", self.models.index(model)) if self.models else ("model",)
        written = None if self._document is None else Written(self._document, at)
        return Build.model_construct(model=model, release=release, signing=self.signing, gates=gates, written=written)
