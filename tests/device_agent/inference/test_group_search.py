"""The groups leave out no neighbour, whatever the rows are, and read few rows where rows lie in clusters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.searching import neighbours, open_model, settle

from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.row_groups import Groups
from knnkit.model.index.cost_sample import WeightedRows
from knnkit.model.index.groups import WholeRows, make_groups

KINDS = ("clusters", "noise", "copies", "whole", "same", "line", "cauchy", "crowd", "far off")


def _rows(kind: str, count: int, width: int, rng: np.random.Generator) -> np.ndarray:
    rows = rng.normal(size=(count, width))
    if kind == "clusters":
        rows = 0.01 * rows + rng.normal(size=(20, width))[rng.integers(0, 20, count)]
    elif kind == "copies":  # ties of rows that lie in the file far apart
        rows = rows[rng.integers(0, max(1, count // 50), count)]
    elif kind == "whole":  # ties across groups
        rows = rng.integers(-2, 3, (count, width)).astype(np.float64)
    elif kind == "same":
        rows[:] = rows[0]
    elif kind == "line":
        rows[:, 1:] = 0.0
    elif kind == "cauchy":
        rows = rng.standard_cauchy((count, width)) ** 3
    elif kind == "crowd":  # all about as far from one place
        rows *= (1 + 1e-6 * rng.random((count, 1))) / np.linalg.norm(rows, axis=1, keepdims=True)
    elif kind == "far off":  # one row makes the steps coarse
        rows[0] *= 1e6
    return rows


@pytest.mark.parametrize("seed", range(27))
def test_groups_find_the_neighbours_of_float64(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    kind, metric = KINDS[seed % len(KINDS)], ("euclidean", "sqeuclidean")[seed % 2]
    unit = float(rng.choice([1.0, 1.0, 1e4, 1e-4, 1e15, 1e-15]))
    count, width = int(rng.choice([40, 300, 1101, 2600])), int(rng.choice([1, 2, 3, 8, 17, 64]))
    rows, k = _rows(kind, count, width, rng), int(min(count, rng.choice([1, 2, 5, 13, 40])))
    one, other = (rows[rng.integers(0, count, 5)] for _ in range(2))
    far = rows[rng.integers(0, count, 2)] * 1000.0
    queries = np.concatenate([one, (one + other) / 2, other + 0.125, rng.permuted(rows, axis=0)[:5], far])
    with np.errstate(over="ignore"):
        rows, queries = (np.clip(each * unit, -3e37, 3e37).astype(np.float32) for each in (rows, queries))
    lattice = 1.0 if unit == 1.0 and kind == "whole" else None
    scale = 1.0 if lattice or rng.random() < 0.5 else 10.0 ** rng.integers(-3, 1, width)
    most = int(rng.choice([1, 7, 30, count // 2]))  # the last: groups of two rows
    how = {"scale": scale, "lattice": lattice, "blocks": int(rng.choice([1, 3])), "groups": most}
    model = open_model(tmp_path / "m", rows, k, metric, **how)
    expected, measures = neighbours(rows, queries, k, metric, scale)
    distances = np.minimum(np.sqrt(measures) if metric == "euclidean" else measures, np.finfo(np.float32).max)
    for by_groups in (True, False):
        found = model.answers(queries, by_groups=by_groups)
        assert found["indices"].tolist() == expected.tolist()
        np.testing.assert_allclose(found["distances"], distances, rtol=1e-15)  # a common scale is multiplied last


@pytest.mark.parametrize("kind", KINDS)
def test_no_row_is_nearer_than_the_bound_of_its_group(kind: str) -> None:
    rng = np.random.default_rng(3)
    rows = _rows(kind, 1500, 6, rng).astype(np.float32)
    groups = make_groups(WholeRows(WeightedRows(rows, np.ones(6))), 40)
    assert sorted(groups.rows.tolist()) == list(range(1500))
    again = Groups.from_arrays(groups.to_arrays(), 1500, 6)
    queries = np.concatenate([rows[:50], rows[50:100] * 1.5, rng.normal(size=(20, 6)) * 1e5]).astype(np.float64)
    bounds = again.bounds(queries)
    ends = np.cumsum(again.sizes)
    for group, (end, size) in enumerate(zip(ends, again.sizes)):
        inside = rows[again.rows[end - size : end]].astype(np.float64)
        nearest = np.sqrt(((queries[:, None] - inside) ** 2).sum(axis=2)).min(axis=1)
        assert (bounds[:, group] <= nearest * (1 + 1e-12)).all()


def test_few_rows_are_read_where_rows_lie_in_clusters(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = _rows("clusters", 20_000, 24, rng).astype(np.float32)
    model = open_model(tmp_path / "m", rows, 5, "euclidean", groups=140)
    queries = rows[:200] + np.float32(0.001)
    model.answers(queries)
    assert model._get_search().read < len(rows) * len(queries) / 10


def test_groups_that_do_not_hold_every_row_are_refused() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    arrays = make_groups(WholeRows(WeightedRows(rows, np.ones(3))), 9).to_arrays()
    twice, beyond, fewer = (arrays["rows"].copy() for _ in range(3))
    twice[0], beyond[0] = twice[1], 300
    wrong = ({"rows": twice}, {"rows": beyond}, {"rows": fewer[1:]}, {"sizes": arrays["sizes"][1:]})
    for change in (*wrong, {"sides": arrays["sides"][1:]}, {"centres": arrays["centres"][:, 1:]}, {"step": rows}):
        with pytest.raises(ValueError, match=r"group|shape|arrays"):
            Groups.from_arrays({**arrays, **change}, 300, 3)


DAMAGES: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"rows": None}, "there is no array rows, only centres, "),
    "text": ({"step": np.array("1")}, r"step has type <U1 and shape \(\); expected type floating and 0 dimensions"),
    "flat": ({"sides": np.zeros(9, np.int16)}, r"shape \(9,\); expected type signedinteger and 2 dimensions"),
    "narrow": ({"centres": np.zeros((1, 3), np.int16)}, r"centres has shape \(1, 3\); \d+ groups need \(\d+, 3\)"),
    "few": ({"rows": np.arange(9, dtype=np.int32)}, "have 9 rows and sizes of 300; knn.json states 300 rows"),
    "twice": ({"rows": np.zeros(300, np.int32)}, "in no group, or in several"),
    "huge": ({"rows": np.full(300, 2**31 - 1, np.int32)}, "in no group, or in several"),
}


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_damaged_groups_are_named_with_what_was_found_and_expected(damage: str, tmp_path: Path) -> None:
    change, said = DAMAGES[damage]
    rows = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    model = open_model(tmp_path / "m", rows, 5, "euclidean", groups=9, damage=change)
    for ask in (lambda: model.answers(rows[:2]), lambda: settle(model, rows[0], np.arange(5))):
        with pytest.raises(ModelUnusable, match=f"groups.npz inside .* is damaged: .*{said}"):
            ask()
