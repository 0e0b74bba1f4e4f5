"""Times of samples are read as Python reads ISO 8601, and written so that they are read again."""

from __future__ import annotations

import datetime
import sys

import numpy as np
import pytest

from device_agent.shared.windows.times import Times

UTC = datetime.timezone.utc


@pytest.mark.skipif(sys.version_info < (3, 11), reason="fromisoformat of Python 3.10 reads few forms")
def test_times_are_those_of_python() -> None:
    rng = np.random.default_rng(0)
    for _ in range(2000):
        moment = datetime.datetime(1, 1, 1) + datetime.timedelta(seconds=int(rng.integers(10**8, 2 * 10**11)))
        moment += datetime.timedelta(microseconds=int(rng.integers(10**6)))
        text = moment.isoformat(str(rng.choice(["T", " "])), str(rng.choice(["minutes", "seconds", "milliseconds"])))
        zone = str(rng.choice(["", "Z", "+01:00", "-0930", "+14:00", "-11"]))
        text += zone
        expected = datetime.datetime.fromisoformat(text)
        expected = expected.replace(tzinfo=expected.tzinfo or UTC)
        times = Times()
        found = times.read(text)
        assert found == pytest.approx((expected - datetime.datetime(1970, 1, 1, tzinfo=UTC)).total_seconds(), abs=1e-4)
        (again,) = times.write([found])
        assert isinstance(again, str)
        assert Times().read(again) == pytest.approx(found, abs=1e-4)
        assert again.endswith("Z") is (zone != "")


@pytest.mark.parametrize(
    "text",
    ["", "12:00", "2026-01-31", "2026-02-30T00:00", "2026-01-31T24:01", "2026-01-31T12:00:61", "x2026-01-31T12:00",
     "0000-01-01T00:00", "2026-01-31T12:00:00+1", "2026-01-31T12:00+99:00", "2026-01-31T12:00+24",
     "２026-01-31T12:00", "2026-01-31T12:00:00.1234567890123", "nan"],
)  # fmt: skip
def test_other_texts_are_no_times(text: str) -> None:
    assert Times().read(text) is None


def test_a_time_too_far_away_is_written_as_a_number() -> None:
    times = Times()
    times.read("2026-01-31T12:00Z")
    times.are_text = True
    assert times.write([1e18, 0.0]) == ["1e+18", "1970-01-01T00:00:00Z"]
