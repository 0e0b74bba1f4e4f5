"""The data sets of the benchmark: generated, never downloaded, the same everywhere. Writes only to the given folder."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Neighbours asked of every contender.
K = 3
_CHUNK = 2048  # rows whose differences are taken at a time
#: Queries that are also asked one by one, to compare the answers.
ALONE = 64
#: What decides how a data set, and a contender's file of it, looks.
_SOURCES = ("datasets.py", "contenders.py", "peers.py")


@dataclass(frozen=True)
class Size:
    """One data set: training rows, features, and the rows of a batch."""

    name: str
    rows: int
    features: int
    batch: int
    about: str


SIZES = (
    Size("700x2", 700, 2, 300, "make_blobs, 5 classes"),
    Size("1797x64", 1797, 64, 450, "scikit-learn digits; queries are digits with noise"),
    Size("10000x128", 10000, 128, 256, "10 classes, normal noise"),
    Size("25000x384", 25000, 384, 128, "embeddings: 200 clusters on the unit sphere"),
    Size("100000x8", 100000, 8, 64, "whole numbers 0 to 3: many ties"),
    Size("200000x32", 200000, 32, 64, "10 classes, normal noise"),
    Size("1000000x16", 1000000, 16, 64, "10 classes, normal noise"),
    Size("60000x784", 60000, 784, 64, "10 classes, noise in every pixel: whole values 0 to 255, near no plane"),
    Size("60000x784-strokes", 60000, 784, 64, "digits drawn 28 x 28, turned, sheared and shifted, as MNIST's are"),
)


@dataclass(frozen=True)
class Table:
    """Training rows with labels, and the query rows of a batch; all float32, labels int64."""

    rows: NDArray[np.float32]
    labels: NDArray[np.int64]
    queries: NDArray[np.float32]


def generate(size: Size) -> Table:
    """Returns the data set of `size`, from a fixed seed."""
    rng = np.random.default_rng(0)
    total = size.rows + size.batch
    rows: NDArray[Any]
    if size.features == 2:
        from sklearn.datasets import make_blobs

        rows, labels = make_blobs(total, n_features=2, centers=5, random_state=0)
    elif size.features == 64:
        from sklearn.datasets import load_digits

        digits = load_digits()
        chosen = rng.integers(0, size.rows, size.batch)
        noisy = digits.data[chosen] + rng.normal(0.0, 1.0, (size.batch, size.features))
        rows, labels = np.concatenate([digits.data, noisy]), np.concatenate([digits.target, digits.target[chosen]])
    elif size.name.endswith("strokes"):
        rows, labels = _draw_digits(rng, total)
    elif size.features == 8:
        rows, labels = rng.integers(0, 4, (total, 8)), rng.integers(0, 10, total)
    elif size.features == 384:
        labels = rng.integers(0, 200, total)
        rows = rng.normal(size=(200, 384))[labels] + rng.normal(0.0, 0.7, (total, 384))
        rows, labels = rows / np.linalg.norm(rows, axis=1, keepdims=True), labels % 10
    else:
        labels = rng.integers(0, 10, total)
        centres = rng.uniform(0, 255, (10, size.features)) * (rng.random((10, size.features)) < 0.25)
        rows = centres[labels] + rng.normal(0.0, 60.0, (total, size.features))
        if size.features == 784:
            rows = rows.clip(0, 255).round()
    table = rows.astype(np.float32)
    return Table(table[: size.rows], labels[: size.rows].astype(np.int64), table[size.rows :])


def _draw_digits(rng: np.random.Generator, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Returns (count, 784) digits of scikit-learn, each enlarged and bent differently, and their labels."""
    from scipy.ndimage import affine_transform
    from sklearn.datasets import load_digits

    digits = load_digits()
    chosen = rng.integers(0, len(digits.images), count)
    rows = np.empty((count, 784), np.float32)
    for row, number in zip(rows, chosen):
        angle, shear = rng.normal(0.0, 0.15), rng.normal(0.0, 0.1)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        bend = turn @ [[1.0, shear], [0.0, 1.0]] @ np.diag(np.exp(rng.normal(0.0, 0.1, 2))) * (8 / 22)
        middle = 3.5 - bend @ (13.5 + rng.normal(0.0, 0.8, 2))
        row[:] = affine_transform(digits.images[number], bend, middle, (28, 28), order=1).ravel()
    ink = rows > 0.0
    return (rows * 16.0 + rng.normal(0.0, 4.0, rows.shape) * ink).clip(0, 255).round(), digits.target[chosen]


def store(size: Size, folder: Path, make: Callable[[Size], Table] = generate) -> Path:
    """Generates the data set once; returns the folder that holds it as `.npy` files.

    If other sources made the files there, they are removed, together with the contenders' models of them.
    """
    target, stamp = folder / size.name, folder / size.name / "data.sources"
    digest = hashlib.sha256(b"".join(Path(__file__).with_name(name).read_bytes() for name in _SOURCES)).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        table = make(size)
        for name in ("rows", "labels", "queries"):
            np.save(target / f"{name}.npy", getattr(table, name))
        np.save(target / "nearest.npy", reference(table))
        stamp.write_text(digest)
    return target


def load(folder: Path) -> Table:
    """Reads what `store` wrote."""
    return Table(*(np.load(folder / f"{name}.npy") for name in ("rows", "labels", "queries")))


def reference(table: Table, k: int = K) -> NDArray[np.float64]:
    """Returns the (n, k) float64 distances of the k nearest rows of each query, by explicit differences."""
    found = np.empty((len(table.queries), k))
    for number, query in enumerate(table.queries):
        found[number] = np.partition(distances(table, query), k - 1)[:k]
    return np.sort(found, axis=1)


def distances(table: Table, query: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns the (n_train,) float64 Euclidean distances of one query."""
    squared = np.empty(len(table.rows))
    for start in range(0, len(squared), _CHUNK):
        difference = table.rows[start : start + _CHUNK].astype(np.float64) - query
        squared[start : start + _CHUNK] = np.einsum("ij,ij->i", difference, difference)
    return np.sqrt(squared)


def wrong_rows(table: Table, indices: NDArray[Any], nearest: NDArray[np.float64], margin: float = 1e-4) -> int:
    """Returns how many of the first `len(nearest)` queries got other rows than their k nearest.

    Neighbours whose distances differ by less than `margin`, relative, are tied: either is right. A missing answer
    counts as wrong.
    """
    wrong = abs(len(nearest) - len(indices))
    for query, chosen, best in zip(table.queries, indices, nearest):
        strange = len(set(chosen.tolist())) != len(best) or min(chosen) < 0 or max(chosen) >= len(table.rows)
        wrong += strange or not np.allclose(np.sort(_far(query, table.rows[chosen])), best, rtol=margin, atol=1e-9)
    return wrong


def _far(query: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.float64]:
    difference = rows.astype(np.float64) - query
    far: NDArray[np.float64] = np.sqrt((difference * difference).sum(axis=1))
    return far
