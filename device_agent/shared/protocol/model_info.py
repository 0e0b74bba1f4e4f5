"""Records of knn.json (a model) and release.json (a release).

Frozen records, written and read by `json_codec`. No I/O.
"""

from __future__ import annotations

from typing import Literal

from device_agent.shared.protocol.constants import (
    CELLS,
    FULL,
    GRAPH_WEIGHTS,
    GROUPS,
    QUANTIZED,
    SCHEMA,
    SEARCHES,
    Metric,
    Scale,
    Weights,
)
from device_agent.shared.protocol.input_info import Input, Window
from device_agent.shared.protocol.record import record
from device_agent.shared.protocol.table_info import Table

#: Key of a gate of a regression for the targets without a limit of their own.
DEFAULT = "default"


@record
class Reject:
    """When a row is "unknown": its k-th neighbour is farther away than the threshold of its predicted class."""

    acceptance: float  # requested share of accepted rows
    thresholds: tuple[float, ...]  # a distance for each class, in the model's metric
    measured: float | None = None  # share accepted among `measured_rows` held-out rows; None without
    measured_rows: int = 0
    by_class: dict[str, float] | None = None  # label -> requested share of its own; None: `acceptance` is for all
    omitted = ("by_class",)


@record
class Near:
    """When float32 rounding may swap two neighbours: their distances differ by less than a bound.

    The bound is `share` times the k-th distance, or times `least` if that is larger, in the model's metric. If an
    answer lists the neighbours, and two of them may have been swapped, the device ranks them in float64.
    """

    share: float
    least: float = 0.0


@record
class Evaluation:
    """Counts of the float64 reference's answers to held-out rows, measured on the host that built the model."""

    how: str  # random, stratified, group, time, file, leave-one-out
    rows: int
    support: tuple[int, ...]  # rows of each class
    right: tuple[int, ...]  # rows of each class that were answered right
    answered: tuple[int, ...]  # rows that were answered with each class; all others were "unknown"
    #: `confusion[t][p]` counts rows of class t answered p (last column: "unknown");
    #: empty for more than `MAX_CONFUSED` classes.
    confusion: tuple[tuple[int, ...], ...] = ()
    of: int | None = None  # number of held-out rows, if `rows` is only a random part of them
    omitted = ("of",)


@record
class LabelSets:
    """Sets of labels with a stated coverage (`device_agent.shared.label_sets`).

    A class is in a row's set if the class's score (low for a likely class) is at most its entry in `thresholds`, or if
    that entry is None. Without held-out rows, `rows` and `covered` are empty, and `size` is None.
    """

    coverage: float
    thresholds: tuple[float | None, ...]
    radius: float  # scores depend on distances relative to it
    rows: tuple[int, ...] = ()  # held-out rows of each class
    covered: tuple[int, ...] = ()  # those whose label set contains their class
    size: float | None = None  # mean number of labels in a set


@record
class Reduced:
    """How a smaller set of training rows was chosen (`reduce` of deploy.yaml)."""

    how: str  # condensed, edited, prototypes
    rows: int  # number of all training rows
    accuracy: float  # of a model with all of them


@record
class Keep:
    """How many rows a device keeps for people to label: `unknown`, `uncertain`, `random` ones (`keep`, deploy.yaml)."""

    unknown: int = 0  # rows that were answered "unknown"
    uncertain: int = 0  # rows near a threshold of `reject`, or whose answer hung on one vote
    random: int = 0  # a uniform sample of all rows

    @property
    def sizes(self) -> dict[str, int]:
        """Kind of row (`unknown`, `uncertain`, `random`) -> most rows to keep; a row may be of several kinds."""
        return {"unknown": self.unknown, "uncertain": self.uncertain, "random": self.random}


@record
class Enrol:
    """What may be taught on a device (`enrol` of deploy.yaml)."""

    rows: int  # most rows
    per_label: int | None = None  # most rows of each label
    new_labels: bool = True  # whether taught rows may have labels that the model does not have
    may_override: bool = False  # whether a taught row may change the label of a golden row
    drop: bool = False  # whether to ignore rows that were taught under another release


@record
class TargetError:
    """Errors of one target, in the target's unit."""

    target: str
    rows: int  # number of evaluation rows
    rmse: float  # root mean square error
    mean_error: float  # mean absolute error
    max_error: float


@record
class Targets:
    """What a model answers in place of one label: means of the neighbours' targets, outlier factors or label columns.

    All training rows have one class, which is never answered.
    """

    names: tuple[str, ...]
    spread: tuple[float, ...]  # range of each target among the training rows (1 for outlier factors)
    how: str = ""  # the way rows were held out; "" if nothing was measured
    errors: tuple[TargetError, ...] = ()  # the float64 reference's errors on held-out rows
    classes: tuple[tuple[int | str, ...], ...] = ()  # of several label columns, the sorted labels of each
    evaluations: tuple[Evaluation, ...] = ()  # of label columns, in place of `errors`
    of: int | None = None  # number of held-out rows that those with `errors` were drawn from; None: all were measured
    omitted = ("classes", "evaluations", "of")


@record
class InFloat64:
    """Settings that no TensorFlow graph computes: NumPy answers all rows of a model with this record, in float64.

    A model whose metric or kernel the graph lacks has this record, too, even if all its fields are None.
    """

    p: float | None = None  # power of the metric minkowski
    bandwidth: float | None = None  # of a kernel, in the metric's unit
    radius: float | None = None  # all training rows within this distance vote, and not the k nearest
    outlier: int | None = None  # class of a row without a vote; None: it is "unknown"
    class_weights: tuple[float, ...] | None = None  # factor of the votes of each class
    offset: float | None = None  # targets are k-distances and densities; an outlier's factor is above -offset
    omitted = ("p", "bandwidth", "radius", "class_weights")  # not what may be 0


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
    label_sets: tuple[LabelSets, ...] | None = None  # None: the model has no label sets
    reduced: Reduced | None = None  # None: the model has all training rows
    near: Near | None = None  # None: the order within the k neighbours is left to float32, as in older models
    #: Subtracted from raw float64 rows before they become float32; 0 for features that need none. None: float32 rows.
    origin: tuple[float, ...] | None = None
    table: Table | None = None  # None: rows are `n_features` plain numbers
    ignore_extra: bool = False  # whether rows may have columns that the model does not have
    keep: Keep | None = None  # None: the device keeps no rows
    targets: Targets | None = None  # None: the model answers labels
    enrol: Enrol | None = None  # None: nothing may be taught on a device
    input: Input | None = None  # None: rows are numbers or a table, without stages before the search
    float64: InFloat64 | None = None  # None: the graph answers
    groups: int | None = None  # groups of training rows in the file; None: it has none
    schema: int = SCHEMA
    #: Left out of knn.json where they say nothing, so that models of plain rows keep their bytes.
    omitted = (
        *("origin", "label_sets", "reduced", "table", "ignore_extra", "keep"),
        *("targets", "enrol", "input", "float64", "groups"),
    )

    @property
    def may_be_unknown(self) -> bool:
        """Whether a row can be answered "unknown"."""
        silent = self.float64 is not None and self.float64.outlier is None
        beyond = self.float64 is not None and (self.float64.radius or self.weights not in GRAPH_WEIGHTS)
        return self.reject is not None or bool(silent and beyond)

    @property
    def how(self) -> str:
        """How neighbours are found and weighted, for people: `k = 3, minkowski (p 3), weights uniform`."""
        own = self.float64 or InFloat64()
        power, width = (
            f" ({name} {value:g})" if value else "" for name, value in (("p", own.p), ("bandwidth", own.bandwidth))
        )
        within = "" if own.radius is None else f"all within {own.radius:g}, "
        return f"{within}k = {self.k}, {self.metric}{power}, weights {self.weights}{width}"

    @property
    def window(self) -> Window | None:
        """The windows that are the rows of the model; None if its rows are not windows."""
        return None if self.input is None else self.input.window

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of a raw row: those of the table if there is one, else the names of the features."""
        return self.feature_names if self.table is None else tuple(column.name for column in self.table.columns)

    def batch_rows(self, search: str) -> int | None:
        """Returns the number of rows of a batch in the graph that searches by `search`; None without this graph.

        `search` is `full` (all rows in float32), `quantized` (all in int8) or `cells` (the rows of one cell).
        """
        return {FULL: self.batch, QUANTIZED: self.quantized, CELLS: self.cells}[search]

    def has(self, way: str) -> bool:
        """Whether the model can be searched in the way `way` (such as `full` or `numpy`; all: `constants.WAYS`)."""
        if way in SEARCHES:
            return self.batch_rows(way) is not None
        return way != GROUPS or self.groups is not None


# --- the release --------------------------------------------------------------------------------------------------
@record
class Gates:
    """Figures that a release must reach on a device before it may be committed there."""

    margin: float = 1.0e-5  # neighbours whose float64 distances differ by less, relative to the scale, may swap
    accuracy: float | None = None  # lowest accuracy on the evaluation rows, 0 to 1
    latency_ms: float | None = None  # highest median time of one row
    balanced_accuracy: float | None = None  # lowest mean recall of the classes that have evaluation rows
    min_recall: float | None = None  # lowest recall of every class
    recall: dict[str, float] | None = None  # label -> lowest recall, in place of `min_recall`
    #: "current": no class may have a lower recall than in the running release, on the evaluation rows.
    not_worse_than: Literal["current"] | None = None
    by: float = 0.0  # how much lower a recall may be for `not_worse_than`
    rmse: dict[str, float] | None = None  # target -> highest error of a regression; `default` for the others
    max_error: dict[str, float] | None = None  # the same for the largest error
    column_accuracy: dict[str, float] | None = None  # label column -> lowest accuracy; `default` for the others


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
