"""What a split says of dates with the year last, and of labels that are numbers."""

from __future__ import annotations

import subprocess
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from knnkit.data.columns import Wanted, numbers_as_classes
from knnkit.data.files import load, load_all
from knnkit.errors import DataError
from knnkit.evaluation.splits import divide

DAYS = [date(2023, 11, 20) + timedelta(days=5 * n) for n in range(20)]


@pytest.mark.parametrize("time", ["", " 07:30:00"])
@pytest.mark.parametrize("form", ["%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y"])
def test_the_command_writes_the_year_first(form: str, time: str, tmp_path: Path) -> None:
    def rows(form: str) -> str:
        return "a,when,y\n" + "".join(f"{n},{day.strftime(form)}{time},{'pq'[n % 2]}\n" for n, day in enumerate(DAYS))

    file = tmp_path / "rows.csv"
    file.write_text(rows(form))
    with pytest.raises(DataError, match="is not a time") as caught:
        divide(load_all([file], Wanted("y", beside="when")), 0.25, 0, "time")
    command = caught.value.hint.partition("seconds: ")[2]
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert (tmp_path / "rows-clean.csv").read_text() == rows("%Y-%m-%d")
    divided = divide(load_all([tmp_path / "rows-clean.csv"], Wanted("y", beside="when")), 0.25, 0, "time")
    assert divided.held_out is not None
    assert divided.held_out.rows.ravel().tolist() == [15, 16, 17, 18, 19]


@pytest.mark.parametrize(
    "cells", [["01/02/2024", "03/04/2024"], ["13/14/2024"], ["13.01.2024", "13/01/2024"], ["soon"]]
)
def test_no_command_guesses_which_number_is_the_day(cells: list[str], tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,when,y\n" + "".join(f"1,{cell},p\n" for cell in cells))
    with pytest.raises(DataError, match="is not a time") as caught:
        divide(load_all([tmp_path / "rows.csv"], Wanted("y", beside="when")), 0.5, 0, "time")
    assert "sed" not in caught.value.hint


@pytest.mark.parametrize("kind", ["{}", "{}.25", "-{}e2"])
def test_many_labels_that_are_numbers_may_be_a_target(kind: str, tmp_path: Path) -> None:
    labels = [kind.format(n % 100) for n in range(150)]
    (tmp_path / "rows.csv").write_text("a,y\n" + "".join(f"{n},{label}\n" for n, label in enumerate(labels)))
    found = divide(load(tmp_path / "rows.csv", "y"), 0.25, 0)
    assert "write `target:` in place of `label:`" in " ".join(found.warnings)
    for classes in (np.unique(labels)[:10].tolist(), [*labels[:60], "oak"]):
        assert numbers_as_classes(classes) == ""
