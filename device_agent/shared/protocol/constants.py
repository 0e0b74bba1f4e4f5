"""Names, paths, limits and exit codes that host and device agree on.

The standard library alone, no I/O, no documents.
"""

from __future__ import annotations

import re
from typing import Literal

#: Version of every document. A newer version may add keys: who only reads a document ignores them, who writes it
#: again keeps them. Raised where an older reader would misread what is there; it then refuses the document.
SCHEMA = 1
#: Version of what a host asks of an agent: its commands, their options, and their answers. Raised when the host begins
#: to need something that older agents lack.
PROTOCOL = 1
#: The oldest protocol that this version still speaks, as host and as agent. Raised when it stops to.
OLDEST_PROTOCOL = 1

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

# --- the runtimes -------------------------------------------------------------------------------------------------
#: TFLite runtime by its import name, as `--runtime` and deploy.yaml call it -> how pip calls it, in the order in which
#: an agent that may take any looks for one.
RUNTIMES = {"tflite_runtime": "tflite-runtime", "ai_edge_litert": "ai-edge-litert"}
ANY_RUNTIME = "auto"

# --- inside the model file ----------------------------------------------------------------------------------------
KNN_FILE = "knn.json"
LABELS_FILE = "labels.txt"
#: float64 numbers and table offsets from which a runtime settles a row that the graph leaves in doubt.
EXACT_FILE = "exact.npz"
#: The signatures of the model: one row, and `KnnInfo.batch` rows.
SIGNATURE_ONE = "classify"
SIGNATURE_BATCH = "classify_batch"
#: Ways to search, all with the same answers: among all rows in float32, in eight bits, among those of a cell. Every
#: model has the first; `KnnInfo.batch_rows` says which others.
FULL, QUANTIZED, CELLS = SEARCHES = ("full", "quantized", "cells")
#: Input and outputs of every signature.
INPUT_ROWS = "rows"  # (n, n_features) float32, raw rows
OUTPUT_LABEL = "label"  # (n,) int32, class index, UNKNOWN where rejected
OUTPUT_PROBABILITIES = "probabilities"  # (n, n_classes) float32
OUTPUT_INDICES = "indices"  # (n, k) int32, training rows by (distance, index)
OUTPUT_DISTANCES = "distances"  # (n, k) float32, in the model's metric
OUTPUT_CERTAIN = "certain"  # (n,) bool, float32 rounding cannot have changed neighbours or label
#: The class index of a rejected row, and how it is written.
UNKNOWN = -1
UNKNOWN_LABEL = "unknown"
STANDARD_INPUT = "standard input"  # what the agent calls rows that have no file

# --- on the device ------------------------------------------------------------------------------------------------
DEFAULT_ROOT = "~/.knnkit"
TRUST_DIR = "trust"  # public keys, provisioned out of band
RELEASES_DIR = "releases"  # releases/<digest>/, immutable once staged
INCOMING_DIR = "incoming"  # incoming/<digest>.<sender>/, uploads under way; or incoming/<digest>/
PART_SUFFIX = ".part"  # of a file in one that may not be complete
CURRENT_LINK = "current"  # -> releases/<digest>, replaced by rename
STATE_FILE = "state.json"
HISTORY_FILE = "history.jsonl"
STARTS_FILE = "starts"  # one line: starts of a release that have not answered
LOCK_FILE = "lock"
CLASS_FILE = "device-class"  # one line: the class that releases may be meant for; without it, only "any" fits
VENV_LINK = "venv"  # -> venvs/<digest>: what runs the agent; replaced by rename
VENVS_DIR = "venvs"
DEFAULT_CONFIRM_SECONDS = 60.0
#: So many starts in a row without an answer, and a committed release is left for the one before it.
FAILED_STARTS = 3
#: Releases that stay on a device, the current and the previous one among them.
KEEP_RELEASES = 5
#: Differing rows that a certificate names.
MAX_DIFFERENCES = 20
#: A confusion matrix is told for at most so many classes: it grows with their square, and an answer has its limit.
MAX_CONFUSED = 100

Metric = Literal["euclidean", "sqeuclidean", "manhattan", "cosine"]
Weights = Literal["uniform", "distance"]
Scale = Literal["none", "standard", "minmax", "robust"]

# Compiled where they are first used: each takes a third of a millisecond.
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_VERSION = r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}"
_DIGEST = r"[0-9a-f]{64}"


def signature(name: str, search: str) -> str:
    """Returns the name of SIGNATURE_ONE or SIGNATURE_BATCH in one of SEARCHES."""
    return name if search == FULL else f"{name}_{search}"


def is_name(text: str) -> bool:
    """Whether `text` may name a model or a device class: letters, digits, `.`, `_`, `-`, at most 64."""
    return bool(re.fullmatch(_NAME, text))


def is_version(text: str) -> bool:
    """Whether `text` may be a release's version."""
    return bool(re.fullmatch(_VERSION, text))


def is_digest(text: str) -> bool:
    """Whether `text` is a SHA-256 in lowercase hexadecimal."""
    return bool(re.fullmatch(_DIGEST, text))


def one_line(text: str) -> str:
    """Returns what stands in the state and the history: one line of visible characters, at most 200."""
    return "".join(character if character.isprintable() else "?" for character in text[:200])
