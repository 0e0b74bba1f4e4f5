"""What host and device agree on: names, paths, versions, and the shape of every document that passes between them.

Standard library only, no I/O. A document is a frozen dataclass; `device_agent.codec` writes and reads it. A change
that an older peer would misread raises `SCHEMA`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

#: Version of every document in this module.
SCHEMA = 1

# --- exit codes, the same on both sides ---------------------------------------------------------------------------
EXIT_OK = 0
EXIT_FAILED = 1  # a device failed or rolled back
EXIT_USAGE = 2  # usage, configuration, or input
EXIT_UNREACHABLE = 3  # nothing but unreachable devices
EXIT_REFUSED = 4  # verification, parity or accuracy failed
EXIT_LOCKED = 5

# --- the release directory ----------------------------------------------------------------------------------------
MODEL_FILE = "model.tflite"
MANIFEST_FILE = "release.json"
GOLDEN_FILE = "golden.npz"
SIGNATURE_FILE = "model.sig"
#: Every file of a release that the signature covers. A release holds these, the signature, and nothing else.
SIGNED_FILES = (GOLDEN_FILE, MODEL_FILE, MANIFEST_FILE)
RELEASE_FILES = (*SIGNED_FILES, SIGNATURE_FILE)

#: Size caps in bytes, checked before a file is read or accepted.
MAX_MANIFEST = 64 * 1024
MAX_SIGNATURE = 64 * 1024
MAX_GOLDEN = 256 * 1024 * 1024
MAX_MODEL = 2 * 1024 * 1024 * 1024

# --- inside the model file ----------------------------------------------------------------------------------------
KNN_FILE = "knn.json"
LABELS_FILE = "labels.txt"
#: float64 numbers and table offsets from which a runtime settles a row that the graph leaves in doubt.
EXACT_FILE = "exact.npz"
#: The two signatures of the model: one row, and `KnnInfo.batch` rows.
SIGNATURE_ONE = "classify"
SIGNATURE_BATCH = "classify_batch"
#: Input and outputs of both signatures.
INPUT_ROWS = "rows"  # (n, n_features) float32, raw rows
OUTPUT_LABEL = "label"  # (n,) int32, class index, UNKNOWN where rejected
OUTPUT_PROBABILITIES = "probabilities"  # (n, n_classes) float32
OUTPUT_INDICES = "indices"  # (n, k) int32, training rows by (distance, index)
OUTPUT_DISTANCES = "distances"  # (n, k) float32, in the model's metric
OUTPUT_CERTAIN = "certain"  # (n,) bool, float32 rounding cannot have changed neighbours or label
#: The class index of a rejected row, and how it is written.
UNKNOWN = -1
UNKNOWN_LABEL = "unknown"

# --- on the device ------------------------------------------------------------------------------------------------
DEFAULT_ROOT = "~/.knnkit"
TRUST_DIR = "trust"  # public keys, provisioned out of band
RELEASES_DIR = "releases"  # releases/<digest>/, immutable once staged
INCOMING_DIR = "incoming"  # incoming/<digest>/, uploads under way
CURRENT_LINK = "current"  # -> releases/<digest>, replaced by rename
STATE_FILE = "state.json"
HISTORY_FILE = "history.jsonl"
LOCK_FILE = "lock"
CLASS_FILE = "device-class"  # one line: the class that releases may be meant for; without it, only "any" fits
VENV_LINK = "venv"  # -> venvs/<digest>: what runs the agent; replaced by rename
VENVS_DIR = "venvs"
PART_SUFFIX = ".part"
DEFAULT_CONFIRM_SECONDS = 60.0
#: Releases that stay on a device, the current and the previous one among them.
KEEP_RELEASES = 5

Metric = Literal["euclidean", "sqeuclidean", "manhattan", "cosine"]
Weights = Literal["uniform", "distance"]
Scale = Literal["none", "standard", "minmax", "robust"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_name(text: str) -> bool:
    """Whether `text` may name a model or a device class: letters, digits, `.`, `_`, `-`, at most 64."""
    return bool(_NAME.fullmatch(text))


def is_version(text: str) -> bool:
    """Whether `text` may be a release's version."""
    return bool(_VERSION.fullmatch(text))


def is_digest(text: str) -> bool:
    """Whether `text` is a SHA-256 in lowercase hexadecimal."""
    return bool(_DIGEST.fullmatch(text))


# --- the model ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Reject:
    """When a row is "unknown": its k-th neighbour is farther than the threshold of the class it was given.

    `acceptance` is the share of ordinary rows asked for; `thresholds` has one distance a class, in the model's metric;
    `measured` is the share accepted among `measured_rows` held-out rows (None without such rows).
    """

    acceptance: float
    thresholds: tuple[float, ...]
    measured: float | None = None
    measured_rows: int = 0


@dataclass(frozen=True)
class KnnInfo:
    """knn.json, inside the model file: all that a runtime must know of the classifier."""

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
    minimum_runtime: str  # lowest TFLite runtime version that has every op of the graph
    versions: dict[str, str]  # of the tools that built it
    inputs: str = ""  # SHA-256 over everything that the build was asked for; the same means nothing to build
    reject: Reject | None = None
    schema: int = SCHEMA


# --- the release --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Gates:
    """What a device must reach before a release may be committed on it."""

    margin: float = 1.0e-5  # float64 distances closer than this, relative to the data's scale, may change places
    accuracy: float | None = None  # floor on the evaluation rows
    latency_ms: float | None = None  # budget for the median of one row


@dataclass(frozen=True)
class Manifest:
    """release.json. `sequence` only ever grows; `created` and `expires` are seconds since 1970, UTC."""

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


# --- what a device reports ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class RuntimeInfo:
    """What runs the model: `delegate` names XNNPACK where it took the graph."""

    name: str  # tflite_runtime | ai_edge_litert
    version: str
    delegate: str | None
    python: str
    numpy: str


@dataclass(frozen=True)
class DeviceInfo:
    """The board: `machine` as `uname -m` says it."""

    hostname: str
    machine: str
    cpu: str
    cores: int
    memory_bytes: int
    agent: str


@dataclass(frozen=True)
class RowDifference:
    """One golden row on which a device departs from the reference."""

    row: int
    expected_label: str
    label: str
    expected_indices: tuple[int, ...]
    indices: tuple[int, ...]
    distance_error: float


@dataclass(frozen=True)
class Latency:
    """Time of one row, in milliseconds."""

    p50_ms: float
    p99_ms: float
    rows: int


@dataclass(frozen=True)
class Certificate:
    """The proof that a device answers as the host does; `nonce` comes from the host that asked.

    `largest_distance_error` is the greatest absolute difference between a device's distance and the float64
    reference's. `confusion[t][p]` counts evaluation rows of class t answered p; its last column counts "unknown".
    `failures` names the gates that were missed, and is empty when all were kept. `classes` are the labels, as text.
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
    schema: int = SCHEMA

    @property
    def passed(self) -> bool:
        """Whether every gate was kept."""
        return not self.failures


MAX_DIFFERENCES = 20


@dataclass(frozen=True)
class ReleaseRef:
    """A release on a device."""

    digest: str
    name: str
    version: str
    sequence: int


@dataclass(frozen=True)
class LockHolder:
    """Who changes the store: `since` in seconds since 1970."""

    holder: str
    reason: str
    since: int
    pid: int


@dataclass(frozen=True)
class Status:
    """`device_agent status`: what is on the board now."""

    agent: str
    root: str
    committed: ReleaseRef | None
    previous: ReleaseRef | None
    pending: ReleaseRef | None
    seconds_left: float | None  # until a pending activation reverts
    answering: str | None  # digest of the release that answers now
    floor: int  # no release under this sequence is accepted
    staged: tuple[str, ...]  # digests of all releases on the device
    trusted: tuple[str, ...]  # fingerprints of the trusted keys
    device_class: str
    runtime: str | None  # "tflite_runtime 2.14.0", None when there is none
    device: DeviceInfo
    disk_free_bytes: int
    clock: int  # the device's clock, seconds since 1970
    lock: LockHolder | None
    device_id: str = ""  # what a rollback order is bound to; empty until one is first needed
    revoked: tuple[str, ...] = ()  # fingerprints of the keys that accept nothing new
    warnings: tuple[str, ...] = ()
    schema: int = SCHEMA


@dataclass(frozen=True)
class Staged:
    """`device_agent stage` and `verify`: a release that every trust rule accepted."""

    release: ReleaseRef
    signed_by: str  # fingerprint of the key
    already: bool  # it was there
    warnings: tuple[str, ...] = ()
    schema: int = SCHEMA


@dataclass(frozen=True)
class Pruned:
    """`device_agent prune`: digests of the releases that were removed."""

    removed: tuple[str, ...]
    schema: int = SCHEMA


@dataclass(frozen=True)
class Activated:
    """`device_agent activate`: the release answers, and reverts unless it is confirmed in time."""

    release: ReleaseRef
    certificate: Certificate
    already: bool  # it was committed before: nothing to confirm
    seconds_left: float | None
    schema: int = SCHEMA


@dataclass(frozen=True)
class Committed:
    """`device_agent confirm` and `rollback`: what is committed now."""

    release: ReleaseRef
    previous: ReleaseRef | None
    already: bool
    schema: int = SCHEMA


@dataclass(frozen=True)
class HistoryEntry:
    """Something that happened to the releases of a device: `what` is one word, `at` seconds since 1970.

    A transition of the store (`activated`, `confirmed`, `reverted`, `rolled-back`) has a serial number; what changed no
    state (`staged`, `rejected`, `pruned`) has none. `answering` is what answered afterwards.
    """

    at: int
    what: str
    release: ReleaseRef | None
    answering: ReleaseRef | None
    why: str
    holder: str
    serial: int | None = None


@dataclass(frozen=True)
class History:
    """`device_agent history`: oldest first."""

    entries: tuple[HistoryEntry, ...]
    schema: int = SCHEMA


@dataclass(frozen=True)
class Finding:
    """What `doctor` says of one thing: `mend` is the exact command that mends it, empty where nothing is wrong."""

    name: str
    level: Literal["ok", "warning", "error"]
    message: str
    mend: str


@dataclass(frozen=True)
class Diagnosis:
    """`device_agent doctor`; it exits with 1 where a finding is an error."""

    findings: tuple[Finding, ...]
    device: DeviceInfo
    schema: int = SCHEMA


@dataclass(frozen=True)
class Bench:
    """`device_agent bench`: the answering release on this board, one thread unless told otherwise.

    `one` is the time of one row through the model, `line` from a line of CSV to a rendered answer. `load_ms` counts
    opening, verifying and loading. `memory_bytes` is what the process holds with the model loaded, `peak_bytes` the
    most it held; `installed_bytes` is the disk that each package of the agent takes.
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
    schema: int = SCHEMA


@dataclass(frozen=True)
class TrustedKeys:
    """`device_agent trust`: fingerprints of the keys that may sign, of those revoked, and the device's id."""

    trusted: tuple[str, ...]
    revoked: tuple[str, ...]
    device_id: str
    schema: int = SCHEMA


@dataclass(frozen=True)
class Problem:
    """How every agent command ends that did not succeed (`--json`): the process exits with `exit_code`.

    `certificate` is there when a gate of a golden check failed.
    """

    reason: str
    message: str
    hint: str
    exit_code: int
    certificate: Certificate | None = None
    schema: int = SCHEMA
