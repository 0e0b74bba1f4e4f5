"""Records of knn.json (a model) and release.json (a release).

Frozen records, written and read by `json_codec`. No I/O.
"""

from __future__ import annotations

from typing import Literal

from device_agent.shared.protocol.constants import (
    CELLS,
    FULL,
    NEWEST_SCHEMA,
    QUANTIZED,
    SCHEMA,
    Metric,
    Scale,
    Weights,
)
from device_agent.shared.protocol.record import record

#: Key of a gate of a regression for the targets without a limit of their own.
DEFAULT = "default"


@record
class Reject:
    """When a row is "unknown": its k-th neighbour is farther away than the threshold of its predicted class.

    `acceptance` is the requested share of accepted rows; `thresholds` has a distance per class, in the model's metric;
    `measured` is the share accepted among `measured_rows` held-out rows (None without such rows). `by_class` has the
    shares of classes with one of their own; the key is absent without any.
    """

    acceptance: float
    thresholds: tuple[float, ...]
    measured: float | None = None
    measured_rows: int = 0
    by_class: dict[str, float] | None = None
    #: As in `KnnInfo`.
    omitted = ("by_class",)


@record
class Near:
    """How close two neighbours are whose order float32 leaves open: `share` of the k-th distance, or of `least`.

    Distances are in the model's metric. A runtime that reports neighbours ranks such a row's k in float64.
    """

    share: float
    least: float = 0.0


@record
class Evaluation:
    """What the float64 reference answered on the held-out rows, counted on the host that built the model.

    `support`, `right` and `answered` have one number a class: its rows, those recognised, and the rows so answered.
    The rest of `rows` is "unknown". `confusion` is as in a certificate, and empty for more than `MAX_CONFUSED` classes.
    `of` is the number of held-out rows if `rows` were drawn from them; None if all were measured.
    """

    how: str  # random, stratified, group, time, file, leave-one-out
    rows: int
    support: tuple[int, ...]
    right: tuple[int, ...]
    answered: tuple[int, ...]
    confusion: tuple[tuple[int, ...], ...] = ()
    of: int | None = None
    omitted = ("of",)


@record
class Column:
    """A raw column of a model's table: its cells are numbers, or categories that become features.

    `fill` replaces a missing cell: a number, or the place of a category; None refuses the row. `missing` is how the
    build chose it. `encoding` of categories: one feature for each (one-hot), or its place in the list (ordinal).
    """

    name: str
    missing: str = "refuse"  # refuse, drop, median, constant
    fill: float | None = None
    encoding: Literal["number", "one-hot", "ordinal"] = "number"
    categories: tuple[str, ...] = ()


@record
class Table:
    """The raw columns of a model whose rows need more than reading numbers."""

    columns: tuple[Column, ...]
    unknown_category: Literal["refuse", "ignore"] = "refuse"
    thousands: str = ""  # the sign between thousands in text; empty: none


@record
class LabelSets:
    """Sets of labels with a coverage (`device_agent.shared.label_sets`).

    `thresholds` has the highest score of each class, None where all scores fit; scores are relative to the distance
    `radius`. `rows` and `covered` count the held-out rows of each class, and those whose set holds it; `size` is the
    mean number of labels in a set. These are empty and None without held-out rows.
    """

    coverage: float
    thresholds: tuple[float | None, ...]
    radius: float
    rows: tuple[int, ...] = ()
    covered: tuple[int, ...] = ()
    size: float | None = None


@record
class Reduced:
    """How the training rows were chosen (`reduce` of deploy.yaml), and the model of all of them: rows and accuracy."""

    how: str  # condensed, edited, prototypes
    rows: int
    accuracy: float


@record
class Keep:
    """How many rows of each kind a device keeps for people to label (`keep` of deploy.yaml)."""

    unknown: int = 0  # rows that were answered "unknown"
    uncertain: int = 0  # rows near a threshold of `reject`, or whose answer hung on one vote
    random: int = 0  # a uniform sample of all rows

    @property
    def sizes(self) -> dict[str, int]:
        """Kind -> most rows; the same row can be kept under several kinds."""
        return {"unknown": self.unknown, "uncertain": self.uncertain, "random": self.random}


@record
class TargetError:
    """How far the values of a target are off over `rows` evaluation rows, in its unit.

    `rmse` is the root of the mean square error, `mean_error` the mean absolute one.
    """

    target: str
    rows: int
    rmse: float
    mean_error: float
    max_error: float


@record
class Targets:
    """What a regression answers: the mean of the neighbours' targets. The model has one class, and does not answer it.

    `spread` is the range of each target among the training rows. `errors` are the float64 reference's on all held-out
    rows, which were held out as `how` says; empty where nothing was measured.
    """

    names: tuple[str, ...]
    spread: tuple[float, ...]
    how: str = ""
    errors: tuple[TargetError, ...] = ()


@record
class KnnInfo:
    """knn.json, inside the model file: everything that a runtime must know about the classifier."""

    name: str
    k: int
    n_features: int
    feature_names: tuple[str, ...]
    classes: tuple[int | str, ...]  # class index -> label, sorted as numpy.unique sorts
    metric: Metric
    weights: Weights
    scale: Scale
    n_train: int
    batch: int  # rows of the batch signature
    fingerprint: str  # SHA-256 over the training rows and labels
    minimum_runtime: str  # lowest TFLite version that has every operator of the graph
    versions: dict[str, str]  # of the tools that built it
    inputs: str = ""  # SHA-256 over all inputs of the build; if equal, there is nothing to build
    reject: Reject | None = None
    searched: int | None = None  # dimensions of the projection in which candidates are searched; None: no projection
    quantized: int | None = None  # rows of the batch signature that searches in int8; None: it does not exist
    cells: int | None = None  # rows of the batch signature that searches one cell; None: it does not exist
    evaluation: Evaluation | None = None  # None: nothing was measured
    lattice: float | None = None  # step of training rows that are exact in float32 (knnkit.model.reference.lattice)
    label_sets: tuple[LabelSets, ...] | None = None  # absent in a model without
    reduced: Reduced | None = None  # absent in a model of all training rows
    near: Near | None = None  # None: the order within the k neighbours is left to float32, as in older models
    #: Subtracted from raw float64 rows before they become float32; 0 where a feature needs it not. None: float32 rows.
    origin: tuple[float, ...] | None = None
    table: Table | None = None  # None: rows are `n_features` plain numbers
    ignore_extra: bool = False  # whether rows may have columns that the model does not know
    keep: Keep | None = None  # None: the device keeps no rows
    targets: Targets | None = None  # None: the model answers labels
    schema: int = SCHEMA
    newest_schema = NEWEST_SCHEMA
    #: Left out of knn.json where they say nothing, so that models of plain rows keep their bytes.
    omitted = ("origin", "label_sets", "reduced", "table", "ignore_extra", "keep", "targets")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of a row, before categories become features."""
        return self.feature_names if self.table is None else tuple(column.name for column in self.table.columns)

    def batch_rows(self, search: str) -> int | None:
        """Returns the rows of the batch signature of one of `constants.SEARCHES`; None if it does not exist."""
        return {FULL: self.batch, QUANTIZED: self.quantized, CELLS: self.cells}[search]


# --- the release --------------------------------------------------------------------------------------------------
@record
class Gates:
    """What a device must reach before a release may be committed on it."""

    margin: float = 1.0e-5  # neighbours whose float64 distances differ by less, relative to the scale, may swap
    accuracy: float | None = None  # lowest accuracy on the evaluation rows, 0 to 1
    latency_ms: float | None = None  # highest median time of one row
    balanced_accuracy: float | None = None  # lowest mean recall of the classes that have evaluation rows
    min_recall: float | None = None  # lowest recall of every class
    recall: dict[str, float] | None = None  # label -> lowest recall, in place of `min_recall`
    not_worse_than: Literal["current"] | None = None  # by class, on these evaluation rows, before the switch
    by: float = 0.0  # how much lower a recall may be for `not_worse_than`
    rmse: dict[str, float] | None = None  # target -> highest error of a regression; `default` for the others
    max_error: dict[str, float] | None = None  # the same for the largest error


@record
class Manifest:
    """release.json. `sequence` grows with each release; `created` and `expires` are seconds since 1970, UTC."""

    name: str
    version: str
    sequence: int
    created: int
    expires: int | None
    device_class: str  # "any", or the class that a device must have
    minimum_agent: str
    minimum_runtime: str
    k: int
    n_features: int
    labels_sha256: str  # of the label file inside the model
    gates: Gates
    schema: int = SCHEMA
    newest_schema = NEWEST_SCHEMA
