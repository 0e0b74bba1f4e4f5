"""The bound that leaves taught rows out: never one that is near enough, and few that are not."""

from __future__ import annotations

import numpy as np
import pytest

from device_agent.enrolment.one_screen import OneScreen, Tables
from device_agent.enrolment.screen import Screen


@pytest.mark.parametrize("seed", range(40))
def test_every_taught_row_within_the_limit_is_found(seed: int) -> None:
    """The limit is the distance of a taught row itself; sizes from 1e-10 to 1e10, also far from the centre."""
    rng = np.random.default_rng(seed)
    width, count = int(rng.integers(1, 200)), int(rng.integers(1, 60))
    scale, shift = 10.0 ** rng.uniform(-10, 8), 10.0 ** rng.uniform(-3, 2)
    local = (rng.normal(size=(count, width)) + shift * rng.normal(size=width)) * scale
    places = (rng.normal(size=(80, width)) + shift * rng.normal(size=width) * rng.integers(0, 2)) * scale
    places[:5] = local[rng.integers(0, count, 5)]
    narrow = bool(rng.integers(0, 2))
    places = places.astype(np.float32) if narrow else places
    far = np.sqrt(((places[:, np.newaxis].astype(np.float64) - local) ** 2).sum(axis=2))
    limit = np.take_along_axis(far, rng.integers(0, count, (80, 1)), axis=1)[:, 0]
    screen = Screen(local, rng.integers(0, 12 if seed % 3 else 1, count).astype(np.int32))
    query, row = screen.pairs(places, limit)
    found = np.zeros(far.shape, np.bool_)
    found[query, row] = True
    assert (found | (far > limit[:, np.newaxis])).all()
    assert np.isin(np.flatnonzero(found.any(axis=1)), screen.reached(places, limit)).all()
    assert (np.diff(query * count + row) > 0).all(), "ascending"
    reach = np.sqrt((local**2).sum(axis=1).max()) + np.sqrt((places.astype(np.float64) ** 2).sum(axis=1))
    beyond = limit**2 + 2e-7 * (width + 16) * reach**2
    assert not (found & (far**2 > beyond[:, np.newaxis])).any(), "what is clearly farther is left out"
    one = OneScreen(Tables(local, width, bool(seed % 2), ""), lambda place: place)
    for place, most, distances, also in zip(places, limit, far, far**2 > beyond[:, np.newaxis]):
        alone = one.near(place, float(most))
        assert alone is not None
        assert set(np.flatnonzero(distances <= most)) <= set(alone.tolist()) <= set(np.flatnonzero(~also))


@pytest.mark.parametrize("kind", ["manhattan", "cosine"])
@pytest.mark.parametrize("seed", range(15))
def test_one_row_finds_every_taught_row_within_the_limit(seed: int, kind: str) -> None:
    """The query for cosine is not normalized, and of any size; the limit is the distance of a taught row itself."""
    rng = np.random.default_rng(seed)
    width, count, scale = int(rng.integers(1, 200)), int(rng.integers(1, 60)), 10.0 ** rng.uniform(-10, 8)
    local, places = rng.normal(size=(count, width)), rng.normal(size=(40, width)) * 10.0 ** rng.uniform(-3, 0)
    places[:5] = local[rng.integers(0, count, 5)]
    if kind == "cosine":
        local = np.float32(local / np.linalg.norm(local, axis=1, keepdims=True)).astype(np.float64)
        units = places / np.linalg.norm(places, axis=1, keepdims=True)
        far = np.sqrt(((units[:, np.newaxis] - local) ** 2).sum(axis=2))
    else:
        local *= scale
        far = np.abs(places[:, np.newaxis] * scale - local).sum(axis=2)
    reach = max(np.linalg.norm(part, axis=1).max() for part in (local, places * scale))
    limit = np.take_along_axis(far, rng.integers(0, count, (40, 1)), axis=1)[:, 0]
    one = OneScreen(Tables(local, width, bool(seed % 2), kind), lambda place: place)
    for place, most, distances in zip(places * scale, limit, far):
        alone = one.near(place.astype(np.float32) if kind == "cosine" and seed % 3 else place, float(most))
        assert alone is not None
        assert set(np.flatnonzero(distances <= most * (1.0 - 1e-6))) <= set(alone.tolist())
        clear = distances**2 > most**2 + 1e-4
        clear = clear if kind == "cosine" else distances > most + 3e-7 * (width + 16) ** 1.5 * reach
        assert not clear[alone].any(), "what is clearly farther is left out"


@pytest.mark.parametrize("scale", [0.0, 1e-40, 1e-20, 1e19, 1e38, 1e76])
def test_what_float32_cannot_represent_is_never_left_out(scale: float) -> None:
    local = np.random.default_rng(1).normal(size=(7, 3)) * scale
    screen = Screen(local, np.zeros(7, np.int32))
    with np.errstate(over="ignore"):
        for places in (local, local.astype(np.float32)):
            query, row = screen.pairs(places, np.zeros(7))
            assert {(place, place) for place in range(7)} <= set(zip(query.tolist(), row.tolist()))
            one = OneScreen(Tables(local, 3, False, ""), lambda place: place)
            assert all(one.near(place, 0.0) is None for place in places)
