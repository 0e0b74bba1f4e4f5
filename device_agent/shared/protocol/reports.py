"""Larger documents of a device: certificate, bench, diagnosis.

A document is a frozen record; `json_codec` writes and reads it. No I/O.
"""

from __future__ import annotations

from typing import Literal

from device_agent.shared.protocol.constants import SCHEMA
from device_agent.shared.protocol.documents import DeviceInfo, HistoryEntry, LockHolder, ReleaseRef, Staged
from device_agent.shared.protocol.model_info import TargetError
from device_agent.shared.protocol.record import record


# --- what a device answers ----------------------------------------------------------------------------------------
@record
class RuntimeInfo:
    """The TFLite runtime, with the versions of Python and NumPy; `delegate` is XNNPACK if it runs any of the graph."""

    name: str  # tflite_runtime | ai_edge_litert
    version: str
    delegate: str | None
    python: str
    numpy: str


@record
class RowDifference:
    """A golden row on which a device's answer differs from the `expected_...` answer."""

    row: int  # from 0
    expected_label: str
    label: str
    expected_indices: tuple[int, ...]
    indices: tuple[int, ...]
    distance_error: float  # greatest difference of a neighbour's distance from the expected one


@record
class Latency:
    """Median (p50) and 99th percentile of the time of one row, in milliseconds, measured with `rows` rows."""

    p50_ms: float
    p99_ms: float
    rows: int


@record
class ClassChange:
    """One class in a comparison: rows answered right by the running release (`before`) and the new one (`after`)."""

    label: str
    rows: int
    before: int
    after: int


@record
class Flip:
    """Golden rows with the same change of label."""

    truth: str  # their true class, "" if it is not known
    before: str
    after: str
    count: int  # number of rows
    rows: tuple[int, ...]  # indices of the first few


@record
class Running:
    """`device_agent compare`: the answers of the running release to the golden rows of another release."""

    release: ReleaseRef
    features: tuple[str, ...]  # names of the columns of raw rows; with `input`, what an input is
    classes: tuple[str, ...]
    labels: tuple[str, ...] | None  # as text; None if the running release cannot read the rows
    schema: int = SCHEMA


@record
class Compared:
    """Comparison of the running release with a new release, on the new one's evaluation rows."""

    release: str  # digest of the running release
    name: str  # of the running release, as `version`
    version: str
    fits: bool  # false if the two take other columns: then nothing was compared
    classes: tuple[ClassChange, ...] = ()
    gone: tuple[str, ...] = ()  # labels that the new release does not have
    flips: tuple[Flip, ...] = ()  # the most frequent changes of a label, also of rows of unknown class


@record
class TaughtCheck:
    """Answers to the golden rows when rows taught on the device vote, too."""

    digest: str  # SHA-256 of the taught rows
    rows: int  # number of taught rows
    labels: dict[str, int]  # label -> number of rows that the release uses
    changed: int  # golden rows whose answer they change
    answers: str  # SHA-256 of the answers to all golden rows (`joined.labels_digest`, `values_digest`)


@record
class EmbeddingCheck:
    """Comparison of rows that a device computes from raw golden inputs with the host's rows (`golden.embeddings`).

    Distances are in model space, as fractions of the k-th distance, or of the training rows' RMS distance from their
    mean if that is larger.
    """

    rows: int
    bound: float  # greatest distance from the host's row that is allowed
    largest_error: float  # greatest distance from the host's row
    above: int  # rows beyond the bound
    search_different: int  # rows of the device for which its search and float64 give different answers
    labels_same: int  # labels that equal the host's
    labels_open: int  # labels that differ, which the distance of the row from the host's can explain
    labels_different: int  # labels that differ without this reason


@record
class ColumnScore:
    """How many of `rows` evaluation rows have the right label in a label column; "unknown" counts as wrong."""

    column: str
    rows: int
    right: int


@record
class Certificate:
    """`device_agent check`: a device's answers to the golden rows against the host's.

    For a model with stages, accuracy is that of the rows that the device computed. For a model of more than
    `MAX_CONFUSED` classes, `confusion` and `classes` are empty.
    """

    nonce: str  # chosen by the host for this certificate
    release: str  # digest
    name: str
    version: str
    sequence: int
    model_sha256: str
    identical: int  # number of rows, as the next two (`shared.golden.judge`)
    equivalent: int
    different: int
    differences: tuple[RowDifference, ...]  # the first MAX_DIFFERENCES
    largest_distance_error: float  # greatest difference from a distance of the float64 reference
    accuracy: float | None  # share of right answers, each class by its share of all held-out rows; None: not measured
    accuracy_rows: int
    accepted: float | None  # share of evaluation rows that were not "unknown", weighted as `accuracy`
    confusion: tuple[tuple[int, ...], ...]  # [t][p]: evaluation rows of class t answered p; last column: "unknown"
    latency: Latency | None
    runtime: RuntimeInfo
    device: DeviceInfo
    failures: tuple[str, ...]  # gates that were missed
    issued: int  # the device's clock, seconds since 1970
    classes: tuple[str, ...] = ()  # the labels, as text
    signed_by: str = ""  # fingerprint of the key
    #: why the release would be refused as a new one today: its key was revoked, or it has expired
    warnings: tuple[str, ...] = ()
    #: None if no release is replaced, the model has targets, or one of both models is large and no gate needs it.
    compared: Compared | None = None
    embedding: EmbeddingCheck | None = None  # compares the rows that the stages made; None: the model has no stages
    errors: tuple[TargetError, ...] = ()  # of a regression, target by target
    taught: TaughtCheck | None = None  # None: no taught row votes, or the golden rows are not the release's own
    columns: tuple[ColumnScore, ...] = ()  # of a model with several label columns
    schema: int = SCHEMA
    omitted = ("embedding", "columns")

    @property
    def passed(self) -> bool:
        """Whether the release passed every gate."""
        return not self.failures


@record
class Activated:
    """`device_agent activate`: the release answers; the device reverts unless it is confirmed within `seconds_left`."""

    release: ReleaseRef
    certificate: Certificate
    already: bool  # it was committed before: nothing to confirm
    seconds_left: float | None
    schema: int = SCHEMA


@record
class Installed:
    """`device_agent install`: the answers of `stage` (None if the release was staged before) and of `activate`."""

    staged: Staged | None
    stage_seconds: float
    activated: Activated
    schema: int = SCHEMA


@record
class TakenBack:
    """`device_agent rollback --own`: how the last activation by `--holder` ended, and the present state."""

    taken: bool  # the activation was pending, and this command reverted it
    became: HistoryEntry | None  # last event of that activation, `confirmed` or `reverted`; None: none
    committed: ReleaseRef | None
    previous: ReleaseRef | None
    pending: ReleaseRef | None  # of another holder
    lock: LockHolder | None  # who began `pending`
    schema: int = SCHEMA


@record
class Finding:
    """One finding of `doctor`: `mend` is the command that repairs it, "" if nothing is wrong."""

    name: str
    level: Literal["ok", "warning", "error"]
    message: str
    mend: str


@record
class Diagnosis:
    """`device_agent doctor`; it exits with 1 if a finding is an error."""

    findings: tuple[Finding, ...]
    device: DeviceInfo
    signed_by: str = ""  # fingerprint of the key that signed the answering release; empty if none answers
    warnings: tuple[str, ...] = ()  # about that release, as in a certificate
    schema: int = SCHEMA


@record
class Bench:
    """`device_agent bench`: speed and memory of the answering release on this board; one thread by default."""

    release: str
    name: str
    version: str
    n_train: int
    n_features: int
    k: int
    batch: int
    one: Latency  # time from one row to its answer
    line: Latency  # time from a line of CSV to an answer in CSV
    rows_per_second: float  # in batches of `batch` rows
    verify_ms: float  # time to verify the release
    load_ms: float  # time to verify and load the release
    model_bytes: int
    memory_bytes: int  # of the process with the model loaded
    peak_bytes: int  # the process's highest use of memory
    installed_bytes: dict[str, int]  # disk space of each package of the agent
    runtime: RuntimeInfo
    device: DeviceInfo
    governor: str | None  # frequency governor of the processor; None if unknown
    temperature: float | None  # degrees Celsius
    threads: int
    signed_by: str = ""  # fingerprint of the key
    warnings: tuple[str, ...] = ()  # as in a certificate
    schema: int = SCHEMA


@record
class Problem:
    """The answer of every agent command that fails (`--json`)."""

    reason: str
    message: str
    hint: str
    exit_code: int  # of the process
    certificate: Certificate | None = None  # of the golden check that missed a gate
    schema: int = SCHEMA
