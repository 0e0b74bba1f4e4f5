"""Names, limits and exit codes shared by host and device.

Standard library only; no I/O.
"""

from __future__ import annotations

import re
from typing import Literal

#: Version of every document. A later version may add keys under the same number: readers ignore them, and programs that
#: write the file again keep them. Raise it when an older reader would misread a document; it then refuses it.
SCHEMA = 1
#: Version of the agent's commands, options and answers that a host uses. Raise it when the host needs something that
#: older agents lack.
PROTOCOL = 1
#: The oldest protocol that this version supports, as host and as agent.
OLDEST_PROTOCOL = 1

# --- exit codes, the same on both sides ---------------------------------------------------------------------------
EXIT_OK = 0
EXIT_FAILED = 1  # a device failed or rolled back
EXIT_USAGE = 2  # usage, configuration, or input
EXIT_UNREACHABLE = 3  # all devices are unreachable
EXIT_REFUSED = 4  # verification, parity or accuracy failed
EXIT_LOCKED = 5

# --- the release directory ----------------------------------------------------------------------------------------
MODEL_FILE = "model.tflite"
MANIFEST_FILE = "release.json"
GOLDEN_FILE = "golden.npz"
SIGNATURE_FILE = "model.sig"
#: The files of every release that the signature covers.
SIGNED_FILES = (GOLDEN_FILE, MODEL_FILE, MANIFEST_FILE)
#: What a release may hold besides: networks that run before the search, each covered by the signature.
MAX_STAGES = 8
STAGE_FILES = tuple(f"stage-{number}.tflite" for number in range(1, MAX_STAGES + 1))
RELEASE_FILES = (*SIGNED_FILES, SIGNATURE_FILE)
#: Every name that a file of a release may have.
POSSIBLE_FILES = (*RELEASE_FILES, *STAGE_FILES)

#: Largest sizes in bytes, checked before a file is read or accepted.
MAX_MANIFEST = 64 * 1024
MAX_SIGNATURE = 64 * 1024
MAX_ORDER = 16 * 1024  # signed
MAX_GOLDEN = 256 * 1024 * 1024
MAX_MODEL = 2 * 1024 * 1024 * 1024
MAX_STAGE = 512 * 1024 * 1024

# --- the runtimes -------------------------------------------------------------------------------------------------
#: The runtime of boards without a TFLite wheel: NumPy searches the rows of the model file.
NUMPY = "numpy"
#: Import name of a runtime (also in `--runtime` and deploy.yaml) -> its name on PyPI, in the order in which an agent
#: with `auto` tries them.
RUNTIMES = {"tflite_runtime": "tflite-runtime", "ai_edge_litert": "ai-edge-litert", NUMPY: "numpy"}
ANY_RUNTIME = "auto"

# --- inside the model file ----------------------------------------------------------------------------------------
KNN_FILE = "knn.json"
LABELS_FILE = "labels.txt"
#: float64 values and table offsets with which a runtime classifies a row whose float32 answer is not certain.
EXACT_FILE = "exact.npz"
#: Where training rows and golden rows come from: row, id and file.
ROWS_FILE = "rows.npz"
#: The groups of training rows, in a model that has them (`device_agent.shared.row_groups`).
GROUPS_FILE = "groups.npz"
#: Read on the host alone: facts for the model card, an in-toto statement, and a CycloneDX document.
CARD_FILE, PROVENANCE_FILE, SBOM_FILE = "card.json", "provenance.json", "sbom.json.gz"
#: The signatures of the model: one row, and `KnnInfo.batch` rows.
SIGNATURE_ONE = "classify"
SIGNATURE_BATCH = "classify_batch"
#: Ways to search, all with the same answers: all rows in float32, all in int8, or the rows of one cell. Every model has
#: the first; `KnnInfo.batch_rows` shows which others it has.
FULL, QUANTIZED, CELLS = SEARCHES = ("full", "quantized", "cells")
#: What a device may choose among: these, NumPy's search of the same rows, and NumPy's search in groups of them.
GROUPS = "groups"
WAYS = (*SEARCHES, NUMPY, GROUPS)
#: Input and outputs of every signature.
INPUT_ROWS = "rows"  # (n, n_features) float32, raw rows
OUTPUT_LABEL = "label"  # (n,) int32, class index, UNKNOWN where rejected
OUTPUT_PROBABILITIES = "probabilities"  # (n, n_classes) float32
OUTPUT_INDICES = "indices"  # (n, k) int32, training rows by (distance, index)
OUTPUT_DISTANCES = "distances"  # (n, k) float32, in the model's metric
OUTPUT_CERTAIN = "certain"  # (n,) bool, float32 rounding cannot have changed neighbours or label
#: The class index of a rejected row, and how it is written.
UNKNOWN = -1
#: Outputs in the order of an answer.
ANSWERS = (OUTPUT_LABEL, OUTPUT_PROBABILITIES, OUTPUT_INDICES, OUTPUT_DISTANCES)
#: Tensors that the graph for one row also outputs. No signature names them, so that older agents run the model.
CANDIDATES = "candidates"  # (1, c) int32, different training rows
BEYOND = "beyond"  # (1,) float32, lower bound on all other rows' squared distance (manhattan: distance) in model space
UNKNOWN_LABEL = "unknown"
STANDARD_INPUT = "standard input"  # stands for the file name in the agent's messages
#: What can be typed where one line of a batch is wrong.
OTHER_LINES = "--stream answers the other lines"

# --- on the device ------------------------------------------------------------------------------------------------
DEFAULT_ROOT = "~/.knnkit"
TRUST_DIR = "trust"  # public keys, provisioned out of band
RELEASES_DIR = "releases"  # releases/<digest>/, immutable once staged
INCOMING_DIR = "incoming"  # incoming/<digest>.<sender>/ or incoming/<digest>/, uploads that are not finished
PART_SUFFIX = ".part"  # of a file in an upload that may be incomplete
CURRENT_LINK = "current"  # -> releases/<digest>, replaced by rename
STATE_FILE = "state.json"
HISTORY_FILE = "history.jsonl"
COUNTS_FILE = "cell-counts.json"  # missing and unknown cells that the answering release met
RING_FILE = "ring.jsonl"  # rows that the release keeps for people to label
SEARCHES_FILE = "searches.json"  # which search is the fastest here, for each of the last releases
ENROLLED_DIR = "enrolled"  # rows taught on the device: a journal, and the key that authenticates it
JOURNAL_FILE = f"{ENROLLED_DIR}/journal"
STARTS_FILE = "starts"  # one line: starts of a release that have not answered
LOCK_FILE = "lock"
CLASS_FILE = "device-class"  # one line: the device's class; without it, only releases for "any" are accepted
VENV_LINK = "venv"  # -> venvs/<digest>, the Python environment of the agent; replaced by rename
VENVS_DIR = "venvs"
DEFAULT_CONFIRM_SECONDS = 60.0
#: So many starts in a row without an answer, and a committed release is left for the one before it.
FAILED_STARTS = 3
#: Releases that stay on a device, the current and the previous one among them.
KEEP_RELEASES = 5
#: Most differing rows that a certificate lists.
MAX_DIFFERENCES = 20
#: Most classes for which a certificate holds a confusion matrix: it grows with their square, and answers are limited.
MAX_CONFUSED = 100

#: What the graph computes. NumPy answers models with the others, in float64 (docs/decisions/190).
GRAPH_METRICS = ("euclidean", "sqeuclidean", "manhattan", "cosine")
GRAPH_WEIGHTS = ("uniform", "distance")
Metric = Literal["euclidean", "sqeuclidean", "manhattan", "cosine", "chebyshev", "minkowski", "jaccard", "haversine"]
Weights = Literal["uniform", "distance", "gaussian", "exponential", "epanechnikov", "triangular", "biweight", "tricube"]
Scale = Literal["none", "standard", "minmax", "robust"]

# Compiled at first use: each takes a third of a millisecond.
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_VERSION = r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}"
_DIGEST = r"[0-9a-f]{64}"


def signature(name: str, search: str) -> str:
    """Returns the name of the TFLite signature `name` (SIGNATURE_ONE or _BATCH) for a way to `search`, of SEARCHES."""
    return name if search == FULL else f"{name}_{search}"


def is_name(text: str) -> bool:
    """Whether `text` can name a model or a class of devices: 1 to 64 of `A-Za-z0-9._-`, the first a letter or digit."""
    return bool(re.fullmatch(_NAME, text))


def is_version(text: str) -> bool:
    """Whether `text` can be the version of a release: 1 to 64 of `A-Za-z0-9.+_-`, the first a letter or digit."""
    return bool(re.fullmatch(_VERSION, text))


def is_digest(text: str) -> bool:
    """Whether `text` is a SHA-256 in lowercase hexadecimal."""
    return bool(re.fullmatch(_DIGEST, text))


def counted(number: int, noun: str, plural: str = "") -> str:
    """Returns a number with its noun: `1 device`, `3 devices`. `plural` is for nouns that do not just add an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def percent(share: float | None) -> str:
    """Returns a share (0 to 1) as text, `96.67 %`; a dash for None (unknown). Only 0 and 1 become 0 % and 100 %."""
    if share is None:
        return "–"
    return f"{(min(max(share, 1e-4), 0.9999) if 0 < share < 1 else share) * 100:.2f} %"


def plain(text: str) -> str:
    """Returns `text` with unprintable characters, such as line breaks, replaced by `?`."""
    return "".join(character if character.isprintable() else "?" for character in text)


def one_line(text: str) -> str:
    """Returns `text` cut to 200 characters, with unprintable ones replaced by `?`, as state and history store it."""
    return plain(text[:200])
