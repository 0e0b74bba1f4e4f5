"""The Palmer penguins (Gorman, Williams and Fraser 2014; package palmerpenguins), and a pipeline fitted on them."""

from __future__ import annotations

import csv
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

NUMBERS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
TEXTS = ["island", "sex"]

Bird = dict[str, Any]


@cache
def birds() -> tuple[tuple[list[Bird], list[str]], tuple[list[Bird], list[str]]]:
    """Returns rows and species of two birds in three, and those of the others; None is a missing cell."""
    spec = importlib.util.find_spec("palmerpenguins")  # not imported: only its file is read
    assert spec is not None
    assert spec.submodule_search_locations is not None
    found: list[tuple[list[Bird], list[str]]] = [([], []), ([], [])]
    with Path(spec.submodule_search_locations[0], "data", "penguins.csv").open(newline="") as file:
        for number, line in enumerate(csv.DictReader(file)):
            cells = {name: None if line[name] in ("", "NA") else line[name] for name in (*TEXTS, *NUMBERS)}
            rows, species = found[number % 3 == 0]
            rows.append({name: float(cell) if cell and name in NUMBERS else cell for name, cell in cells.items()})
            species.append(line["species"])
    return found[0], found[1]


@cache
def fitted() -> Any:
    """Returns imputed and scaled numbers, and one-hot text, in front of a classifier by distance."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    columns = ColumnTransformer([("numbers", numbers, NUMBERS), ("texts", texts, TEXTS)])
    rows, species = birds()[0]
    return make_pipeline(columns, KNeighborsClassifier(5, weights="distance")).fit(frame(rows), species)


def frame(rows: list[Bird]) -> Any:
    """Returns rows as a data frame, with NaN for missing cells."""
    import pandas as pd

    return pd.DataFrame(rows).astype(object).where(lambda cells: cells.notna(), float("nan"))


def ask(rows: list[Bird]) -> tuple[list[str], list[dict[str, float]]]:
    """Returns scikit-learn's labels, and its probabilities by label."""
    pipeline = fitted()
    classes = pipeline.classes_.tolist()
    shares = pipeline.predict_proba(frame(rows)).tolist()
    return pipeline.predict(frame(rows)).tolist(), [dict(zip(classes, row)) for row in shares]


def write(folder: Path) -> None:
    """Writes the fitted pipeline as palmer.skops, and the other birds as palmer.csv."""
    import skops.io

    skops.io.dump(fitted(), folder / "palmer.skops")
    rows, species = birds()[1]
    with (folder / "palmer.csv").open("w", newline="") as file:
        lines = [["NA" if cell is None else cell for cell in row.values()] for row in rows]
        csv.writer(file).writerows([["species", *rows[0]], *([name, *line] for name, line in zip(species, lines))])
