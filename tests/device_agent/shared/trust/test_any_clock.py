"""Whatever a board's clock says, an honest next release is accepted, an older one is not, and no floor runs away."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import forge
from support.forge import NOW

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import Refused
from device_agent.shared.release.directory import open_release
from device_agent.shared.trust import listing, rules

DAY = 24 * 3600
COUNT = 5
#: From long before 1970 to beyond any calendar; near the dates in the releases more often than not.
WALLS = st.one_of(
    st.integers(-(2**40), 2**62), st.integers(NOW - 40 * DAY, NOW + 400 * DAY), st.sampled_from([0, -1, 2**31])
)


@dataclass(frozen=True)
class Signed:
    """A release in memory."""

    bundle: bytes
    manifest: bytes
    files: dict[str, listing.FileFact]

    def verify(self, state: rules.TrustState, now: int) -> rules.Verdict:
        return rules.verify_release(bundle=self.bundle, manifest=self.manifest, files=self.files, state=state, now=now)


def signed(folder: Path, number: int, expires: int | None) -> Signed:
    moment = NOW + number * 30 * DAY
    directory = forge.write(folder / f"{number}-{expires}", sequence=moment, created=moment, expires=expires)
    with open_release(directory) as opened:
        return Signed(opened.read(constants.SIGNATURE_FILE), opened.read(constants.MANIFEST_FILE), opened.files)


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> list[Signed]:
    return [signed(tmp_path_factory.mktemp("endless"), number, None) for number in range(COUNT)]


@pytest.fixture(scope="module")
def ending(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    return signed(tmp_path_factory.mktemp("ending"), 1, NOW + 60 * DAY)


def after(state: rules.TrustState, verdict: rules.Verdict) -> rules.TrustState:
    """The device once it has committed the release."""
    return replace(
        state,
        floor=verdict.floor,
        floor_digest=verdict.digest,
        committed_digest=verdict.digest,
        time_floor=verdict.time_floor,
    )


@settings(deadline=None, derandomize=True, database=None)
@given(walls=st.lists(WALLS, min_size=COUNT, max_size=COUNT))
def test_honest_releases_are_accepted_one_after_another_and_never_back(endless: list[Signed], walls: list[int]) -> None:
    state = forge.state()
    for number, (release, wall) in enumerate(zip(endless, walls)):
        verdict = release.verify(state, wall)
        assert state.time_floor <= verdict.time_floor <= max(state.time_floor, verdict.manifest.created)
        state = after(state, verdict)
        assert release.verify(state, -wall).already_committed
        for older in endless[:number]:
            with pytest.raises(Refused, match="is lower than"):
                older.verify(state, wall)


@settings(deadline=None, derandomize=True, database=None)
@given(wall=WALLS, floor=WALLS)
def test_a_release_expires_by_the_later_of_the_clock_and_what_was_signed(ending: Signed, wall: int, floor: int) -> None:
    state = forge.state(time_floor=floor)
    if max(wall, floor) < NOW + 60 * DAY:
        assert ending.verify(state, wall).manifest.expires == NOW + 60 * DAY
    else:
        with pytest.raises(Refused, match="expired at"):
            ending.verify(state, wall)
    kept = rules.verify_accepted(
        digest=ending.verify(forge.state(), NOW).digest,
        bundle=ending.bundle,
        manifest=ending.manifest,
        files=ending.files,
        state=state,
        now=wall,
    )
    assert kept.manifest.sequence, "what runs goes on"
