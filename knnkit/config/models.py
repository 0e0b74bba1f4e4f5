"""Frozen models of deploy.yaml and of what to build.

The docstring below a key is its description in the JSON Schema. Fleet and rollout are in `fleet_models`. No I/O.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import DEFAULT
from knnkit.config.answer_models import Coverages, GoldenConfig, KeepConfig, Reduce, ReduceConfig, Reject
from knnkit.config.data_models import FileData, SklearnData, SkopsData, Targets
from knnkit.config.field_types import (
    Example,
    FilePath,
    Name,
    Section,
    Text,
    Words,
    no_sense,
)
from knnkit.config.fleet_models import ClassifyConfig, FleetConfig, RolloutConfig
from knnkit.config.input_models import InputConfig
from knnkit.config.release_models import ReleaseConfig, SigningConfig


class TestFile(Section):
    """Held-out rows in a file of their own."""

    __test__ = False  # pytest must not collect it
    file: FilePath
    """CSV, Parquet or NPZ with the same columns as the training data."""
    label: str | None = None
    """The label column; default: the same as in the training data."""
    target: Targets = ()
    """The columns of numbers to predict, where `skops` holds a regression."""


class GroupSplit(Section):
    """Rows of one group are held out together."""

    group: Annotated[str, Example("device_id")]
    """The column of `data` that names the group of a row; not a feature, unless `features` names it."""


class TimeSplit(Section):
    """The latest rows are held out."""

    time: Annotated[str, Example("timestamp")]
    """The column of `data` with the time of a row: ISO 8601 or a number; not a feature, unless `features` names it."""


# Tags become part of an error's location; angle brackets distinguish them from keys of the file.
def _data_kind(value: Any) -> str:
    if isinstance(value, dict):
        return next((f"<{key}>" for key in ("skops", "sklearn") if key in value), "<file>")
    return "<skops>" if isinstance(value, SkopsData) else "<sklearn>" if isinstance(value, SklearnData) else "<file>"


def _test_kind(value: Any) -> str:
    return "<file>" if isinstance(value, dict | TestFile) else "<share>"


def _split_kind(value: Any) -> str:
    if isinstance(value, dict):
        return next((f"<{key}>" for key in ("time", "file") if key in value), "<group>")
    kinds = ((GroupSplit, "<group>"), (TimeSplit, "<time>"), (TestFile, "<file>"))
    return next((tag for kind, tag in kinds if isinstance(value, kind)), "<word>")


Data = Annotated[
    Annotated[FileData, pydantic.Tag("<file>")]
    | Annotated[SklearnData, pydantic.Tag("<sklearn>")]
    | Annotated[SkopsData, pydantic.Tag("<skops>")],
    pydantic.Discriminator(_data_kind),
]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Test = Annotated[
    Annotated[TestFile, pydantic.Tag("<file>")] | Annotated[Share, pydantic.Tag("<share>")],
    pydantic.Discriminator(_test_kind),
]
Split = Annotated[
    Annotated[Literal["random", "stratified"], pydantic.Tag("<word>")]
    | Annotated[GroupSplit, pydantic.Tag("<group>")]
    | Annotated[TimeSplit, pydantic.Tag("<time>")]
    | Annotated[TestFile, pydantic.Tag("<file>")],
    pydantic.Discriminator(_split_kind),
]


def _for_all(value: Any) -> Any:
    return {DEFAULT: value} if isinstance(value, int | float) and not isinstance(value, bool) else value


Limits = Annotated[
    dict[str, Annotated[float, Field(ge=0.0, allow_inf_nan=False)]],
    BeforeValidator(_for_all),
    Words("a limit, or targets and their limits ({floor: 0.5, default: 10.0})"),
    Example("5.0"),
]


class GatesConfig(Section):
    """What every device must reach before it may keep the release."""

    accuracy: Annotated[float | None, Example("0.9")] = Field(default=None, ge=0.0, le=1.0)
    """Least accuracy on the held-out rows, from 0 to 1; default: no gate."""
    balanced_accuracy: Annotated[float | None, Example("0.85")] = Field(default=None, ge=0.0, le=1.0)
    """Least mean recall of the classes, from 0 to 1; default: no gate."""
    min_recall: Annotated[float | None, Example("0.8")] = Field(default=None, ge=0.0, le=1.0)
    """Least recall of every class, from 0 to 1; default: no gate."""
    recall: Annotated[
        dict[str, Annotated[float, Field(ge=0.0, le=1.0)]],
        Words("a label and its least recall ({fall: 0.9})"),
        Example("{fall: 0.9}"),
    ] = Field(default={})
    """Least recall of single classes, by label; replaces `min_recall` for these classes."""
    not_worse_than: Annotated[Literal["current"] | None, Example("current")] = None
    """current: no class may have a lower recall than the release that the device runs now has on the same rows."""
    by: Annotated[float, Example("0.01")] = Field(default=0.0, ge=0.0, lt=1.0)
    """How much lower a recall may be for `not_worse_than`."""
    rmse: Limits = Field(default={})
    """Of a regression: highest root mean square error of every target; or {target: limit}, with `default`."""
    max_error: Limits = Field(default={})
    """Of a regression: highest error of a single evaluation row, for every target; or {target: limit}."""
    latency_ms: Annotated[float | None, Example("5.0")] = Field(default=None, gt=0.0)
    """Longest median time of one row, in milliseconds; default: no gate."""
    margin: Annotated[float, Example("1e-5")] = Field(default=1.0e-5, gt=0.0, lt=0.1)
    """Neighbours whose distances differ by less than this share of the data's scale may swap on other processors."""


_SKOPS = "data: {skops: model.skops}, without k, metric, weights, scale, reduce"


class ModelConfig(Section):
    """The classifier: its data and how it answers."""

    name: Annotated[Name, Example("fruit")]
    """Name of the model; a device never replaces a model by one with another name."""
    data: Annotated[Data, Example("{file: train.csv, label: species}")]
    """The labelled rows: {file, label} or {sklearn}; or a fitted classifier with its own: {skops}."""
    input: Annotated[InputConfig | None, Example("{stages: [embedder.tflite]}")] = None
    """What runs in front of the search: `.tflite` files of your own that make a row of each raw input. Default: rows
    are searched as they are."""
    test: Test = 0.3
    """Held-out share of the rows, or {file}: accuracy, golden rows, calibration; 0: none. With `skops`: {file}."""
    split: Annotated[Split | None, Example("stratified")] = None
    """How rows are held out: random, stratified, {group: COLUMN}, {time: COLUMN}, or {file} as for `test`. Default:
    random; by class where that would leave a class without training rows."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the split: the same seed gives the same rows and the same bytes."""
    k: int = Field(default=3, ge=1)
    """Number of neighbours that vote."""
    metric: constants.Metric = "euclidean"
    """euclidean, sqeuclidean, manhattan or cosine."""
    weights: constants.Weights = "uniform"
    """uniform: each neighbour has one vote; distance: nearer neighbours weigh more."""
    scale: Annotated[constants.Scale, Example("standard")] = "none"
    """none, standard, minmax or robust; it becomes part of the model, so a device takes raw rows."""
    reject: Annotated[Reject | None, Example("0.99")] = None
    """Share of ordinary rows to accept; farther rows are "unknown". Or a share for each label, and `default` for the
    others. Default: no row is "unknown"."""
    label_sets: Annotated[Coverages, Example("0.95")] = ()
    """Coverage of the label sets of `classify --labels`, one or a list: the set holds the true label of that share of
    the rows of each class. Default: none."""
    reduce: Annotated[Reduce | None, Example("condensed")] = None
    """condensed, edited or prototypes: keep fewer training rows in the model; or {how, max_loss}. Default: all rows."""
    ignore_extra: bool = False
    """Whether a device leaves out columns of a row that the model does not know; else they are an error."""
    keep: Annotated[KeepConfig | None, Example("{unknown: 200}")] = None
    """Rows that each device keeps for `knnkit collect`, up to a number of each kind; default: none, because rows can be
    personal."""
    device_class: Annotated[Name, Example("zero")] = "any"
    """The class of device that this model is for; "any" fits all."""
    licence: Annotated[Text, Example("CC-BY-4.0")] = ""
    """Licence of data and model, for the model card."""
    notes: Annotated[Text, Example("trained for the north greenhouse")] = ""
    """What people should know about this model, for the model card."""
    gates: Annotated[GatesConfig | None, Example("{accuracy: 0.9}")] = None
    """Gates of this model; default: the gates of the file."""
    golden: Annotated[GoldenConfig | None, Example("{rows: 200}")] = None
    """How many rows each device answers to prove its copy of the model; default: 1000."""

    @property
    def reduction(self) -> ReduceConfig | None:
        """`reduce` with its default."""
        return ReduceConfig(how=self.reduce) if isinstance(self.reduce, str) else self.reduce

    @property
    def coverages(self) -> tuple[float, ...]:
        """`label_sets` as a list."""
        return self.label_sets if isinstance(self.label_sets, tuple) else (self.label_sets,)

    @property
    def measured_on(self) -> float | TestFile:
        """The held-out rows on which the model is measured: a share of its rows, or a separate file."""
        return self.split if isinstance(self.split, TestFile) else self.test

    @pydantic.model_validator(mode="after")
    def _split_fits(self) -> ModelConfig:
        problem = ""
        if self.split is not None and isinstance(self.measured_on, TestFile) and "test" in self.model_fields_set:
            problem = "the held-out rows are in a file of their own: leave `split` or `test` out"
        elif self.split is not None and isinstance(self.data, SkopsData) and not isinstance(self.split, TestFile):
            problem = "the estimator of `skops` was fitted on all its rows, so none can be held out: leave `split` out"
        elif isinstance(self.split, GroupSplit | TimeSplit) and not isinstance(self.data, FileData):
            problem = "only rows in a file have a column to split by"
        if problem:
            hint = "split: stratified, and a share in test:, or test: {file: test.csv} alone"
            raise PydanticCustomError("misplaced_key", "{problem}", {"key": "split", "problem": problem, "hint": hint})
        return self

    @pydantic.model_validator(mode="after")
    def _input_fits(self) -> ModelConfig:
        if self.input is None or isinstance(self.data, SklearnData):
            return self
        table = ("missing", "categories", "unknown_category", "thousands", "target")
        taken = () if isinstance(self.data, SkopsData) else [key for key in table if key in self.data.model_fields_set]
        if taken or isinstance(self.data, SkopsData):
            what = f"`{taken[0]}` of data" if taken else "an estimator of `skops`"
            problem = f"stages take raw numbers, which {what} does not go with"
            hint = "leave `input` out, or data: {file: train.csv, label: species}"
            raise PydanticCustomError("misplaced_key", "{problem}", {"key": "input", "problem": problem, "hint": hint})
        return self

    @pydantic.model_validator(mode="after")
    def _regression_fits(self) -> ModelConfig:
        if not (isinstance(self.data, FileData) and self.data.target):
            return self
        taken: list[str] = [key for key in ("label_sets", "reduce", "keep") if key in self.model_fields_set]
        if self.split == "stratified":
            taken.append("split")
        if taken:
            problem = f"`target` makes a regression, which has no classes: leave `{taken[0]}` out"
            hint = "data: {file: train.csv, label: species}, for classes"
            raise PydanticCustomError("misplaced_key", "{problem}", {"key": taken[0], "problem": problem, "hint": hint})
        return self

    @pydantic.model_validator(mode="after")
    def _estimator_decides(self) -> ModelConfig:
        if not isinstance(self.data, SkopsData):
            return self
        taken = [key for key in ("k", "metric", "weights", "scale", "reduce") if key in self.model_fields_set]
        if taken:
            why = (
                f"the estimator of `skops` decides {', '.join(taken)}: leave {'it' if len(taken) == 1 else 'them'} out"
            )
            raise PydanticCustomError("misplaced_key", "{problem}", {"key": taken[0], "problem": why, "hint": _SKOPS})
        if "test" in self.model_fields_set and not isinstance(self.test, TestFile) and self.test:
            problem = "the estimator of `skops` was fitted on all its rows: "
            problem += "write test: {file: test.csv}, or leave it out"
            hint = "test: {file: test.csv}"
            raise PydanticCustomError("misplaced_key", "{problem}", {"key": "test", "problem": problem, "hint": hint})
        return self


class Build(Section):
    """What one release is built from: one model with everything that concerns it."""

    model: ModelConfig
    """The classifier."""
    release: ReleaseConfig
    """Its directory and version."""
    signing: SigningConfig
    """The signing key."""
    gates: GatesConfig
    """Figures that a release must reach on every device."""


_A_MODEL = "{name: fruit, data: {file: train.csv, label: species}}"


class Config(Section):
    """deploy.yaml."""

    model: Annotated[ModelConfig | None, Example(_A_MODEL)] = None
    """The classifier. Optional in a file with `fleet.targets`, which deploys finished releases."""
    models: Annotated[
        tuple[ModelConfig, ...], Example("[{name: small, device_class: zero, data: {file: train.csv, label: species}}]")
    ] = ()
    """Instead of `model`: one classifier for each device class."""
    release: Annotated[ReleaseConfig, Example("{dir: dist, version: 1.0.0}")] = Field(
        default=ReleaseConfig.model_construct(), validate_default=False
    )
    """Where the release is written and what it is called."""
    signing: Annotated[SigningConfig, Example("{key: keys/signing.pem}")] = Field(
        default=SigningConfig.model_construct(), validate_default=False
    )
    """The signing key, and the keys that new devices trust."""
    gates: GatesConfig = GatesConfig()
    """What every device must reach before it may keep the release."""
    fleet: Annotated[FleetConfig, Example("{targets: [pi@board-1]}")] = FleetConfig()
    """The devices."""
    rollout: Annotated[RolloutConfig, Example("{max_failures: 1}")] = RolloutConfig()
    """How a release is rolled out to the fleet."""
    classify: Annotated[ClassifyConfig, Example("{keep: [id]}")] = ClassifyConfig()
    """What `knnkit classify` writes beside the answers."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _every_section(cls, data: Any) -> Any:
        """Treats an empty section like a missing one, and makes default paths start at the file."""
        if not isinstance(data, dict):
            return data
        present = {key: value for key, value in data.items() if value is not None or key not in cls.model_fields}
        return {"release": {}, "signing": {}, **present}

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.models and self.model:
            raise no_sense(
                "give either `model` or `models`", "leave out `model`: its keys are an entry of `models`", "models"
            )
        if not (self.models or self.model or self.fleet.targets):
            raise no_sense("the key 'model' is missing", f"model: {_A_MODEL}, or fleet: {{targets: [pi@board-1]}}")
        classes = [model.device_class for model in self.models]
        if len(set(classes)) != len(classes) or len({m.name for m in self.models}) != len(classes):
            problem = "each of `models` needs a name and a device_class of its own"
            raise no_sense(problem, f"models: [{_A_MODEL[:-1]}, device_class: zero}}, ...]", "models")
        self._check_waves()
        return self

    def _check_waves(self) -> None:
        tags = {*self.fleet.defaults.tags, *(tag for target in self.fleet.targets for tag in target.tags)}
        for index, wave in enumerate(self.rollout.waves):
            if self.fleet.targets and isinstance(wave, str) and not wave.endswith("%") and wave not in tags:
                close = difflib.get_close_matches(wave, tags, n=1)
                problem = f"no target has the tag {wave!r}" + (f"; did you mean {close[0]!r}?" if close else "")
                hint = f"waves: [{close[0]}]" if close else f"tags: [{wave}] of a target, or waves: [25%, 100%]"
                raise no_sense(problem, hint, f"rollout/waves/{index}")

    def builds(self) -> tuple[Build, ...]:
        """Returns one entry per model, with its own `release.dir`; none if the file only describes a fleet."""
        if self.model is not None:
            return (self._build(self.model, self.release.dir),)
        return tuple(self._build(model, self.release.dir / model.name) for model in self.models)

    def _build(self, model: ModelConfig, directory: Path) -> Build:
        release, gates = self.release.model_copy(update={"dir": directory}), model.gates or self.gates
        return Build.model_construct(model=model, release=release, signing=self.signing, gates=gates)
