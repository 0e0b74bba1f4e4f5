"""Measures `knnkit tune` against scikit-learn's GridSearchCV by leave-one-out, for k = 1 to 50 and both weights."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from sklearn.model_selection import GridSearchCV, LeaveOneOut
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from knnkit.data.dataset import load_sklearn
from knnkit.evaluation.splits import LEAVE_ONE_OUT
from knnkit.model.reference.spec import KnnSpec
from knnkit.training import tuning
from knnkit.training.source import Material

MOST = 50
#: `tune` is to be this much faster.
GOAL = 20.0


def run(quick: bool) -> dict[str, Any]:
    sets = {"wine": 60} if quick else {"iris": 150, "wine": 178, "breast_cancer": 300}
    cells = [_measure(name, rows) for name, rows in sets.items()]
    return {"cells": cells, "reached": all(cell["ratio"] >= GOAL and cell["same"] for cell in cells)}


def _measure(name: str, count: int) -> dict[str, Any]:
    everything = load_sklearn(name)
    data = everything.take(np.random.default_rng(0).permutation(len(everything.rows))[:count])
    settings = tuning.settings_of(["standard"], ["euclidean"], ["uniform", "distance"], None)
    begun = time.perf_counter()
    tuned = tuning.tune(Material(KnnSpec("m"), data, None), LEAVE_ONE_OUT, MOST, settings)
    ours = time.perf_counter() - begun
    grid = {
        "kneighborsclassifier__n_neighbors": range(1, MOST + 1),
        "kneighborsclassifier__weights": ["uniform", "distance"],
    }
    search = GridSearchCV(make_pipeline(StandardScaler(), KNeighborsClassifier()), grid, cv=LeaveOneOut())
    begun = time.perf_counter()
    search.fit(data.rows.astype(float), data.labels)
    theirs = time.perf_counter() - begun
    best = max(tuned.curves[0].scores)
    return {
        "data": name,
        "rows": count,
        "tune_s": ours,
        "grid_search_s": theirs,
        "ratio": theirs / ours,
        "tune": best,
        "grid_search": search.best_score_,
        "same": abs(best - search.best_score_) <= 1.0 / count,  # scikit-learn leaves the order of ties open
    }


def table(results: dict[str, Any]) -> str:
    lines = [f"{'data':<14} {'rows':>5} {'tune':>9} {'GridSearchCV':>13} {'ratio':>8}  best"]
    lines += [
        f"{cell['data']:<14} {cell['rows']:>5} {cell['tune_s']:>7.3f} s {cell['grid_search_s']:>11.1f} s "
        f"{cell['ratio']:>8.0f}  {cell['tune']:.4f} / {cell['grid_search']:.4f}"
        for cell in results["cells"]
    ]
    return "\n".join(lines)
