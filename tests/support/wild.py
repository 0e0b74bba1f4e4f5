"""Wild problems: seeded random classifiers over data that is hard for floating point, and their plain answers.

`python tests/support/wild.py --seed 1 --seconds 1200` runs one seed after the other against TfliteKNN in a device
process, `--problems 1` a single one; test_wild.py runs a fixed few. The plain answers share no code with the model:
scikit-learn's own maps, float64 distances, a sort. Every problem that fails is named by its seed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, Normalizer, RobustScaler, StandardScaler

if __name__ == "__main__":
    sys.path[:0] = [str(path) for path in (Path(__file__).resolve().parents[2], Path(__file__).resolve().parents[1])]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import knnkit
from device_agent.shared.golden.judge import judge
from device_agent.shared.protocol import constants, model_info
from knnkit.data.dataset import dataset
from knnkit.errors import BuildError, DataError
from knnkit.model.built import BuiltModel
from knnkit.model.golden import make_golden
from knnkit.model.index import grid, groups, int8
from knnkit.model.reference.spec import KnnSpec
from support.device_process import DeviceAnswers, DeviceProcess
from support.models import build_model
from support.runtimes import TFLITE

MARGIN = 1e-5
METRICS = ("euclidean", "sqeuclidean", "manhattan", "cosine")
SCALERS = {"standard": StandardScaler, "minmax": MinMaxScaler, "robust": RobustScaler}


@dataclass(frozen=True)
class Problem:
    """A classifier to build, and query rows; `maps` is a fitted pipeline to import, None: `scale` is used."""

    rows: np.ndarray
    labels: np.ndarray
    queries: np.ndarray
    k: int
    metric: str
    weights: str
    scale: str
    reject: float | None
    maps: Pipeline | None

    def build(self) -> BuiltModel:
        """Returns the model, as `knnkit build` or an import makes it."""
        if self.maps is None:
            spec = KnnSpec("wild", self.k, self.metric, self.weights, self.scale, self.reject)
            return build_model(spec, dataset(self.rows, self.labels))
        classifier = KNeighborsClassifier(self.k, metric=self.metric, weights=self.weights)
        estimator = Pipeline([*self.maps.steps, ("knn", classifier)]).fit(self.rows, self.labels)
        return knnkit.from_sklearn(estimator, name="wild", reject=self.reject).build(margin=MARGIN)

    def __str__(self) -> str:
        maps = self.scale if self.maps is None else "+".join(name for name, _ in self.maps.steps)
        n, width = self.rows.shape
        said = f"{n}x{width} k={self.k} {self.metric} {self.weights} {maps}"
        return said if self.reject is None else f"{said} reject={self.reject}"


#: The kernels that search in eight bits: those of either runtime, and LiteRT's XNNPACK.
QUANTIZED: tuple[dict[str, Any], ...] = (
    *({"search": "quantized", "runtime": runtime} for runtime in TFLITE),
    {"search": "quantized", "runtime": "ai_edge_litert", "packed": False},
)
#: What searches among the rows of a cell.
CELLS: tuple[dict[str, Any], ...] = tuple({"search": "cells", "runtime": runtime} for runtime in TFLITE)


def problem(seed: int) -> Problem:
    """Returns the problem of one seed."""
    rng = np.random.default_rng(seed)
    n, width = _sizes(rng)
    with np.errstate(over="ignore"):
        rows = _rows(rng, n, width).astype(np.float32)
        queries = _queries(rng, rows.astype(np.float64)).astype(np.float32)
    rows, queries = (np.clip(np.nan_to_num(part, nan=0.0), -3.4e38, 3.4e38) for part in (rows, queries))
    k = int(min(n, rng.choice([1, 2, 3, 5, 10, 40])))
    labels = rng.integers(0, rng.integers(1, 6), n)
    scale = str(rng.choice(["none", *SCALERS]))
    maps = _maps(rng, rows) if rng.random() < 0.25 else None
    reject = 0.9 if k < n and n <= 500 and rng.random() < 0.2 else None
    metric, weights = str(rng.choice(METRICS)), str(rng.choice(["uniform", "distance"]))
    return Problem(rows, labels, queries, k, metric, weights, scale, reject, maps)


def _sizes(rng: np.random.Generator) -> tuple[int, int]:
    kind = rng.random()
    if kind < 0.06:  # over 4 MB: stored in blocks
        return 9000, int(rng.integers(120, 140))
    if kind < 0.1:  # so many that 43 candidates are few
        return int(rng.integers(3000, 8000)), int(rng.choice([64, 150]))
    if kind < 0.3:
        return int(rng.integers(1, 12)), int(rng.choice([1, 2, 3, 30]))
    return int(rng.integers(12, 3000)), int(rng.choice([1, 2, 3, 4, 7, 16, 33, 64, 150, 300]))


def _rows(rng: np.random.Generator, n: int, width: int) -> np.ndarray:
    rows = rng.normal(size=(n, width))
    shapes = ["normal", "grid", "bytes", "binary", "clusters", "heavy", "sparse", "plane", "steps", "crowd", "one-hot"]
    shape = rng.choice(shapes)
    if shape == "grid":
        rows = np.round(rows * 2) / 2
    elif shape == "bytes":
        rows = rng.integers(0, 256, size=(n, width)).astype(float)
    elif shape == "binary":
        rows = (rows > 0).astype(float)
    elif shape == "clusters":
        rows = rows * 10.0 ** -rng.integers(1, 6) + rng.normal(size=(5, width))[rng.integers(0, 5, n)] * 10
    elif shape == "heavy":
        rows = rng.standard_cauchy(size=(n, width)) ** 3
    elif shape == "sparse":
        rows = rows * (rng.random((n, width)) < 0.1)
    elif shape == "plane":  # wide ones are searched in a projection
        rows = rng.normal(size=(n, 4)) @ rng.normal(size=(4, width)) + rows * 10.0 ** -rng.integers(1, 7)
    elif shape == "steps":  # half a step off in every coordinate, all one way: what eight bits round most
        rows = np.round(rows * rng.choice([2.0, 30.0])) + 0.4999 * rng.choice([-1.0, 0.0, 1.0], (n, 1))
        rows *= rng.choice([-1.0, 1.0], width)
    elif shape == "crowd":  # all about as far from one place
        rows *= (1.0 + 10.0 ** -rng.integers(2, 7) * rng.random((n, 1))) / np.linalg.norm(rows, axis=1, keepdims=True)
    elif shape == "one-hot":
        rows = np.eye(width)[rng.integers(0, width, n)] * rng.choice([1.0, 0.5, 0.498], (n, 1))
    if rng.random() < 0.2:
        rows *= 10.0 ** rng.choice([-36, -30, -25, -15, -13, -4, 4, 9, 14, 16])
    if rng.random() < 0.3:  # one feature outweighs all others
        rows[:, rng.integers(width)] *= 10.0 ** rng.choice([3, 6, 10, 14])
    if rng.random() < 0.4:
        rows += 10.0 ** rng.choice([0, 2, 4, 7]) * rng.choice([-1.0, 1.0])
    if rng.random() < 0.2:
        rows[:, rng.integers(width)] = rng.choice([0.0, 7.0])
    if rng.random() < 0.4:
        rows[rng.integers(0, n, rng.integers(0, 2 * n))] = rows[rng.integers(0, n)]
    return rows


def _queries(rng: np.random.Generator, rows: np.ndarray) -> np.ndarray:
    n, width = rows.shape

    def some(count: int) -> np.ndarray:
        return rows[rng.integers(0, n, count)]

    spread = rows.std(axis=0) + 1e-30
    near = some(12) + rng.normal(size=(12, width)) * spread * 10.0 ** rng.choice([-6, -2, 0, 1])
    far = some(8) + rng.normal(size=(8, width)) * spread * 10.0 ** rng.integers(2, 16, size=(8, 1))
    outlier = some(8) + rng.normal(size=(8, width)) * spread * 0.1
    outlier[range(8), rng.integers(0, width, 8)] += np.abs(rows).max() * 10.0 ** rng.integers(-1, 6, 8)
    extreme = rng.choice([-1.0, 1.0], size=(2, width)) * 10.0 ** rng.choice([20, 30, 38])
    return np.concatenate([some(12), near, (some(8) + some(8)) / 2, far, outlier, extreme, np.zeros((1, width))])


def _maps(rng: np.random.Generator, rows: np.ndarray) -> Pipeline:
    steps: list[tuple[str, Any]] = []
    if rng.random() < 0.7:
        kind = rng.choice([StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler])
        steps.append((kind.__name__, kind()))
    if rng.random() < 0.6:
        pca = PCA(int(rng.integers(1, min(rows.shape) + 1)), whiten=bool(rng.random() < 0.3), svd_solver="full")
        found = Pipeline([*steps, ("PCA", pca)]).fit(rows.astype(np.float64)).named_steps["PCA"].explained_variance_
        if not found.min() > 1e-8 * found.max():  # whitening would blow up nothing but rounding
            pca.whiten = False
        steps.append(("PCA", pca))
    mapped = Pipeline([*steps, ("as they are", "passthrough")]).fit_transform(rows.astype(np.float64))
    if rng.random() < 0.4 and np.abs(mapped).max() > 1e-6:  # scikit-learn leaves lengths under 1e-15 as they are
        steps.append(("Normalizer", Normalizer(str(rng.choice(["l1", "l2", "max"])))))
    return Pipeline(steps or [("StandardScaler", StandardScaler())])


def complaints(asked: Problem, model: BuiltModel, answers: DeviceAnswers) -> list[str]:
    """Returns what is wrong with the device's answers, by the golden judge and by plain float64."""
    golden = make_golden(model, None, dataset(asked.queries, np.zeros(len(asked.queries), int)))
    verdict = judge(type(golden).from_bytes(golden.to_bytes()), answers, model.info, model_info.Gates())
    return [f"judge: {difference}" for difference in verdict.differences] + _plainly_wrong(asked, model, answers)


def _plainly_wrong(asked: Problem, model: BuiltModel, answers: DeviceAnswers) -> list[str]:
    rows, queries = _mapped(asked, asked.rows), _mapped(asked, asked.queries)
    centred = rows - rows.mean(axis=0) if asked.metric != "cosine" else rows
    lengths = np.abs(centred).sum(axis=1) if asked.metric == "manhattan" else np.sqrt((centred**2).sum(axis=1))
    radius = 1.0 if asked.metric == "cosine" else float(np.sqrt(np.mean(lengths**2)))
    codes = np.unique(asked.labels, return_inverse=True)[1].reshape(-1)
    found = []
    for number, query in enumerate(queries):
        distances = _distances(asked.metric, query, rows)
        tolerance = 3 * MARGIN * max(np.sort(distances)[asked.k - 1], radius)
        if asked.maps is not None:  # enrolled rows are float32: what is this near counts as an exact match
            tolerance = max(tolerance, 2.0**-21 * lengths.max())
        wrong = _wrong(asked, model, answers, number, distances, tolerance, codes)
        if np.isfinite(tolerance) and wrong:
            found.append(f"plainly: row {number}: {wrong}")
    return found


def _mapped(asked: Problem, raw: np.ndarray) -> np.ndarray:
    values = raw.astype(np.float64)
    if asked.maps is not None:
        return np.asarray(asked.maps.transform(values))
    if asked.scale == "none":
        return values
    return np.asarray(SCALERS[asked.scale]().fit(asked.rows.astype(np.float64)).transform(values))


def _distances(metric: str, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns distances that float32 can match: for sqeuclidean and cosine, the Euclidean distances behind them."""
    if metric == "manhattan":
        return np.asarray(np.abs(rows - query).sum(axis=1))
    if metric == "cosine":
        if not query.any():
            return np.full(len(rows), np.sqrt(2.0))
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        chords = np.linalg.norm(rows / np.where(lengths, lengths, 1.0) - query / np.linalg.norm(query), axis=1)
        return np.where(lengths[:, 0] > 0, chords, np.sqrt(2.0))
    return np.asarray(np.sqrt(((rows - query) ** 2).sum(axis=1)))


def _wrong(
    asked: Problem,
    model: BuiltModel,
    answers: DeviceAnswers,
    number: int,
    distances: np.ndarray,
    tolerance: float,
    codes: np.ndarray,
) -> str | None:
    k, chosen, best = asked.k, answers.indices[number], np.sort(distances)
    if len(set(chosen.tolist())) != k or chosen.min() < 0:
        return f"neighbours {chosen}"
    if not (np.abs(distances[chosen] - best[:k]) <= tolerance).all():
        return f"neighbours at {distances[chosen]}, not {best[:k]}"
    if k < len(best) and best[k] - best[k - 1] <= 2 * tolerance:
        return None  # another set of neighbours is as right
    # Directions that float32 does not tell apart are one: far from the origin, of rows that differ.
    alike = tolerance if asked.maps is not None else 2.0**-21 if asked.metric == "cosine" else -1.0
    two_match = k > 1 and best[1] <= alike
    if asked.weights == "distance" and best[0] <= 1e3 * tolerance and (best[0] > 0.0 or two_match):
        return None  # nearly an exact match, or several of them
    near = np.argsort(distances, kind="stable")[:k]
    votes = distances[near] ** {"sqeuclidean": 2, "cosine": 2}.get(asked.metric, 1)
    weights = np.ones(k)
    if asked.weights == "distance":
        weights = (votes == 0.0).astype(float) if votes[0] == 0.0 else votes[0] / votes
    shares = np.bincount(codes[near], weights, minlength=len(model.info.classes)) / weights.sum()
    two = np.sort(shares)[::-1][:2]
    if asked.weights == "distance" and len(two) > 1 and two[0] - two[1] < 0.01:
        return None
    if asked.reject is not None:
        limit = model.info.reject.thresholds[int(np.argmax(shares))]
        limit = {"sqeuclidean": np.sqrt(limit), "cosine": np.sqrt(2 * limit)}.get(asked.metric, limit)
        if abs(best[k - 1] - limit) <= 2 * tolerance:
            return None
        if best[k - 1] > limit:
            return None if answers.label[number] == constants.UNKNOWN else "not rejected"
    told = answers.label[number]
    return None if told == int(np.argmax(shares)) else f"label {told}, shares {shares}"


def solve(seed: int, device: DeviceProcess, folder: Path) -> tuple[str, list[str]]:
    """Builds and asks one problem; returns how it ended (`answered`, `refused`) and what is wrong."""
    asked = problem(seed)
    try:
        with mock.patch.object(int8, "LEAST_WEIGHTS", 0), mock.patch.object(grid, "LEAST_ROWS", 0):  # however few
            grouped = 0 if seed % 2 else groups.LEAST_ROWS
            with mock.patch.object(groups, "LEAST_ROWS", grouped), mock.patch.object(groups, "_WORTH", 1.0):
                model = asked.build()
    except (BuildError, DataError):
        return "refused", []
    path = folder / "wild.tflite"
    path.write_bytes(model.data)
    found = []
    others = (QUANTIZED if model.info.quantized else ()) + (CELLS if model.info.cells else ())
    for how in [{"search": "full"}, {"runtime": "numpy"}, *others]:
        for one_by_one in (False, True):
            try:
                answers = device.classify(path, asked.queries, one_by_one=one_by_one, **how)
            except RuntimeError as error:
                raise RuntimeError(f"seed {seed} ({asked}) {how}") from error
            found += [f"{how}: {complaint}" for complaint in complaints(asked, model, answers)]
    ended = f"answered, {others[0]['search']} too" if others else "answered"
    return ended, [f"seed {seed} ({asked}): {text}" for text in found]


def main() -> int:
    """Returns 1 if any problem is answered wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the first problem")
    parser.add_argument("--seconds", type=float, default=60.0, help="start no further problem after this long")
    parser.add_argument("--problems", type=int, help="and after this many")
    given = parser.parse_args()
    ended: Counter[str] = Counter()
    begun, seed = time.monotonic(), given.seed
    with DeviceProcess() as device, tempfile.TemporaryDirectory() as folder:
        while time.monotonic() - begun < given.seconds and seed - given.seed != given.problems:
            how, found = solve(seed, device, Path(folder))
            ended["wrong" if found else how] += 1
            for text in found[:3]:
                print(text, flush=True)
            seed += 1
    print(f"seeds {given.seed} to {seed - 1}: {dict(ended)}")
    return int(ended["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
