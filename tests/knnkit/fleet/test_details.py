"""What a device answered to a question is read back from its report, whatever it claims."""

from __future__ import annotations

from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.documents import History, HistoryEntry
from knnkit.commands import logs
from knnkit.fleet.report import DeviceReport, Outcome

ENTRY = HistoryEntry(at=1_800_000_000, what="staged", release=None, answering=None, why="", holder="ü")


def report(*entries: HistoryEntry) -> DeviceReport:
    return DeviceReport("pi", "pi", Outcome.ANSWERED, details=json_codec.dumps(History(entries)))


def test_an_answer_that_was_accepted_is_read_again_though_written_out_it_is_longer() -> None:
    told = History((HistoryEntry(0, "staged", None, None, "", "é" * (json_codec.MAX_DOCUMENT // 2)),))
    device = DeviceReport("pi", "pi", Outcome.ANSWERED, details=json_codec.dumps(told))
    assert len(device.details) > json_codec.MAX_DOCUMENT
    assert device.answer(History) == told


def test_a_clock_out_of_this_world_is_shown_and_hides_no_other_entry() -> None:
    rows = logs.rows_of(report(ENTRY, HistoryEntry(2**62, "staged", None, None, "", "h")))
    assert [row[1] for row in rows] == ["2027-01-15 08:00:00 UTC", f"{2**62} s after 1970"]
