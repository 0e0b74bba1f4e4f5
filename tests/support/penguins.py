"""A table like that of the Palmer penguins, with missing cells and text, and a pipeline fitted on it."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

COLUMNS = ["island", "bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g", "sex", "year"]
#: Species -> means of bill length and depth, flipper length and mass, and the islands where it lives.
SPECIES: dict[str, tuple[list[float], list[str]]] = {
    "Adelie": ([38.8, 18.3, 190.0, 3700.0], ["Torgersen", "Biscoe", "Dream"]),
    "Chinstrap": ([48.8, 18.4, 196.0, 3733.0], ["Dream"]),
    "Gentoo": ([47.5, 15.0, 217.0, 5076.0], ["Biscoe"]),
}


def birds(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (count, 7) cells, NaN where one is missing, and the species."""
    rng = np.random.default_rng(seed)
    species = rng.choice(list(SPECIES), count)
    rows = np.empty((count, len(COLUMNS)), object)
    for row, name in zip(rows, species):
        means, islands = SPECIES[name]
        numbers = np.round(rng.normal(means, [2.5, 1.0, 6.5, 400.0]), 1)
        row[:] = [rng.choice(islands), *numbers.tolist(), rng.choice(["male", "female"]), 2007 + int(rng.integers(3))]
        for place in np.flatnonzero(rng.random(6) < 0.06):
            row[place] = np.nan
    return rows, species


def fitted() -> Any:
    """Returns imputed and scaled numbers, and one-hot text, in front of a classifier; the year is dropped."""
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), [1, 2, 3, 4]),
            (
                "text",
                make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")),
                [0, 5],
            ),
        ]
    )
    found = make_pipeline(columns, KNeighborsClassifier(5, weights="distance")).fit(*birds(300, seed=1))
    columns.feature_names_in_ = np.array(COLUMNS, object)  # as a data frame's columns
    return found


def dump(path: Path) -> None:
    """Writes the fitted pipeline in the skops format."""
    import skops.io

    skops.io.dump(fitted(), path)


def ask(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns scikit-learn's labels and probabilities."""
    pipeline = fitted()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the rows have no names
        return pipeline.predict(rows), pipeline.predict_proba(rows)


def write(path: Path, rows: np.ndarray, species: np.ndarray) -> None:
    """Writes a file with NA for missing cells."""
    with path.open("w", newline="") as file:
        lines = [["NA" if cell != cell else cell for cell in row] for row in rows.tolist()]
        csv.writer(file).writerows([["species", *COLUMNS], *([name, *line] for name, line in zip(species, lines))])
