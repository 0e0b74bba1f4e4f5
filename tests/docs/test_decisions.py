"""Each record in docs/decisions has a date and a status, and the index lists it."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import pytest

from scripts import reference

RECORDS = sorted((reference.DOCS / "decisions").glob("[0-9]*.md"))


@pytest.mark.parametrize("path", RECORDS, ids=[path.name for path in RECORDS])
def test_a_record_has_number_date_and_status(path: Path) -> None:
    record = reference.decision(path)
    assert path.name.startswith(record["number"])
    datetime.date.fromisoformat(record["Date"])
    assert re.match(r"accepted\b|superseded by \d{3}\b|withdrawn\b", record["Status"])


def test_a_superseded_record_and_its_successor_name_each_other() -> None:
    records = [reference.decision(path) for path in RECORDS]
    later = {(r["number"], other) for r in records for other in re.findall(r"\b\d{3}\b", r["Supersedes"])}
    earlier = {(other, r["number"]) for r in records for other in re.findall(r"\b\d{3}\b", r["Status"])}
    assert len(records) > 10
    assert later == earlier


def test_numbers_are_unique() -> None:
    numbers = [path.name[:3] for path in RECORDS]
    assert len(numbers) == len(set(numbers))


def test_a_record_without_a_status_is_an_error(tmp_path: Path) -> None:
    record = tmp_path / "009-title.md"
    record.write_text("# 009: Title\n\nDate: 2026-11-22\n\n**Problem.** Status: accepted\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"009-title\.md: begin with"):
        reference.decision(record)
