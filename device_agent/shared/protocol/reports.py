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
    """A golden row (number `row`, from 0) on which a device's answer differs from the `expected_...` answer.

    `distance_error` is the greatest difference of a neighbour's distance from the expected distance.
    """

    row: int
    expected_label: str
    label: str
    expected_indices: tuple[int, ...]
    indices: tuple[int, ...]
    distance_error: float


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
    """The number (`count`) of golden rows with the same change of label, and the indices of the first few (`rows`).

    `truth` is their true class, "" if it is not known.
    """

    truth: str
    before: str
    after: str
    count: int
    rows: tuple[int, ...]


@record
class Running:
    """`device_agent compare`: the answers of the running release to the golden rows of another release.

    `labels` are text; None if the running release has other features than these rows.
    """

    release: ReleaseRef
    features: tuple[str, ...]
    classes: tuple[str, ...]
    labels: tuple[str, ...] | None
    schema: int = SCHEMA


@record
class Compared:
    """Comparison of the running release with a new release, on the new one's evaluation rows.

    `release`, `name` and `version` are those of the running release. `fits` is false if the two have other features:
    then nothing was compared. `gone` are labels that the new release does not have. `flips` are the most frequent
    changes of a label, including rows whose true class is not known.
    """

    release: str
    name: str
    version: str
    fits: bool
    classes: tuple[ClassChange, ...] = ()
    gone: tuple[str, ...] = ()
    flips: tuple[Flip, ...] = ()


@record
class TaughtCheck:
    """Answers to the golden rows when rows taught on the device vote, too.

    `rows` is the number of taught rows; `labels` counts those that the release uses, by label. `changed` counts the
    golden rows whose answer they change. `answers` is a SHA-256 of the answers to all golden rows
    (`joined.labels_digest`, `values_digest`), `digest` a SHA-256 of the taught rows.
    """

    digest: str
    rows: int
    labels: dict[str, int]
    changed: int
    answers: str


@record
class EmbeddingCheck:
    """Comparison of rows that a device computes from raw golden inputs with the host's rows (`golden.embeddings`).

    `largest_error` and `bound` are distances from the host's rows in model space, as fractions of the k-th distance, or
    of the training rows' RMS distance from their mean if that is larger; `above` counts rows beyond the bound.
    `search_different` counts rows of the device for which its search and float64 give different answers. `labels_same`
    labels equal the host's. `labels_open` differ, but the distance of the device's row from the host's can explain it;
    `labels_different` differ without this reason.
    """

    rows: int
    bound: float
    largest_error: float
    above: int
    search_different: int
    labels_same: int
    labels_open: int
    labels_different: int


@record
class ColumnScore:
    """How many of `rows` evaluation rows have the right label in a label column; "unknown" counts as wrong."""

    column: str
    rows: int
    right: int


@record
class Certificate:
    """`device_agent check`: a device's answers to the golden rows against the host's, which chose `nonce` for it.

    Rows are `identical`, `equivalent` or `different`, as `shared.golden.judge` explains.
    `largest_distance_error` is the greatest absolute difference between a device's distance and the float64
    reference's. `confusion[t][p]` counts evaluation rows of class t answered p; its last column counts "unknown".
    `failures` lists the gates that were missed. `classes` are the labels, as text. For a model of more than
    `MAX_CONFUSED` classes, `confusion` and `classes` are empty. `warnings` list why the release would be refused as a
    new one today: its key (`signed_by`) was revoked, or it has expired.
    For a model with stages, accuracy is that of the rows that the device computed, and `embedding` compares these rows.
    A regression has `errors`, target by target, on the evaluation rows, but no accuracy. A model with several label
    columns has `columns` instead.
    `compared` exists if this activation replaces a release, unless the model has targets, or one of the two models is
    large and no gate needs the comparison.
    """

    nonce: str
    release: str
    name: str
    version: str
    sequence: int
    model_sha256: str
    identical: int
    equivalent: int
    different: int
    differences: tuple[RowDifference, ...]  # the first MAX_DIFFERENCES
    largest_distance_error: float
    accuracy: float | None
    accuracy_rows: int
    accepted: float | None  # share of evaluation rows that were not "unknown"
    confusion: tuple[tuple[int, ...], ...]
    latency: Latency | None
    runtime: RuntimeInfo
    device: DeviceInfo
    failures: tuple[str, ...]
    issued: int  # the device's clock, seconds since 1970
    classes: tuple[str, ...] = ()
    signed_by: str = ""  # fingerprint of the key
    warnings: tuple[str, ...] = ()
    compared: Compared | None = None
    embedding: EmbeddingCheck | None = None  # None: the model has no stages
    errors: tuple[TargetError, ...] = ()
    taught: TaughtCheck | None = None  # None: no taught row votes, or the golden rows are not the release's own
    columns: tuple[ColumnScore, ...] = ()
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
    """`device_agent rollback --own`: how the last activation by the caller (`--holder`) ended, and the present state.

    `became` is the last event of that activation: `confirmed`, or `reverted` with its reason. It is None if this holder
    has not activated anything.
    """

    taken: bool  # it was pending, and this command reverted it
    became: HistoryEntry | None
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
    """`device_agent bench`: speed and memory of the answering release on this board; one thread by default.

    `one` is the time from one row to its answer, `line` from a line of CSV to an answer in CSV. `rows_per_second` is
    for batches of `batch` rows. `verify_ms` is the time to verify the release, `load_ms` to verify and load it;
    `governor` is the frequency governor of the processor, None if unknown. `memory_bytes` is the process's memory with
    the model loaded, `peak_bytes` its highest; `installed_bytes` is the disk space of each package of the agent.
    """

    release: str
    name: str
    version: str
    n_train: int
    n_features: int
    k: int
    batch: int
    one: Latency
    line: Latency
    rows_per_second: float
    verify_ms: float
    load_ms: float
    model_bytes: int
    memory_bytes: int
    peak_bytes: int
    installed_bytes: dict[str, int]
    runtime: RuntimeInfo
    device: DeviceInfo
    governor: str | None
    temperature: float | None  # degrees Celsius
    threads: int
    signed_by: str = ""  # fingerprint of the key
    warnings: tuple[str, ...] = ()  # as in a certificate
    schema: int = SCHEMA


@record
class Problem:
    """The answer of every agent command that fails (`--json`): the process exits with `exit_code`.

    `certificate` is the result of the golden check if the command failed because this check missed a gate; else None.
    """

    reason: str
    message: str
    hint: str
    exit_code: int
    certificate: Certificate | None = None
    schema: int = SCHEMA
