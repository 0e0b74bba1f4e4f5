"""Places in radians with their regions, and a fitted LocalOutlierFactor over them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.neighbors import LocalOutlierFactor

#: Of the sphere's radius: all training rows so near vote.
RADIUS, BANDWIDTH = 0.004, 0.002


def places(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (count, 2) latitudes and longitudes, and regions by longitude."""
    rng = np.random.default_rng(seed)
    rows = np.round(np.column_stack([rng.uniform(0.8, 0.84, count), rng.uniform(0.1, 0.16, count)]), 5)
    return rows, np.array(["west", "middle", "east"])[((rows[:, 1] - 0.1) * 49.0).astype(int)]


def outliers() -> LocalOutlierFactor:
    """Returns outlier factors over 300 places."""
    return LocalOutlierFactor(10, novelty=True, contamination=0.05).fit(places(300, seed=1)[0])


def write(folder: Path) -> None:
    """Writes places.csv, asked.csv of other places, and strange.skops."""
    import skops.io

    for name, (rows, regions) in (("places", places(300, seed=1)), ("other-places", places(60, seed=2))):
        lines = [f"{north},{east},{region}" for (north, east), region in zip(rows.tolist(), regions)]
        (folder / f"{name}.csv").write_text("\n".join(["latitude,longitude,region", *lines, ""]))
    skops.io.dump(outliers(), folder / "strange.skops")
