"""Decimal commas: what the messages dictate never leads to numbers that are 1000 times too large."""

from __future__ import annotations

import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from device_agent.shared.features.cells import without_thousands
from device_agent.shared.features.parsers import TableCsvParser
from knnkit.data.files import load
from knnkit.data.policy import Policy
from knnkit.errors import DataError
from knnkit.training.table import prepare

STEPS = 4


def write(path: Path, separator: str, least: float, most: float, digits: int) -> np.ndarray:
    rng = random.Random(f"{separator}{least}{digits}")
    values = [round(rng.uniform(least, most), digits) for _ in range(40)]
    cells = [f"{value:.{digits}f}".replace(".", ",") for value in values]
    quote = '"' if separator == "," else ""
    lines = [f"{quote}{a}{quote}{separator}{quote}{b}{quote}{separator}k" for a, b in zip(cells[::2], cells[1::2])]
    path.write_text("\n".join([separator.join("abk"), *lines, ""]))
    return np.array(values).reshape(-1, 2)


def follow(path: Path, way: str) -> tuple[np.ndarray, dict[str, str], list[str]]:
    """Types the first hint (or, for `thousands`, the flag) until the rows are read."""
    flags: dict[str, str] = {}
    hints: list[str] = []
    for _ in range(STEPS):
        try:
            return load(path, "k", None, Policy(**flags)).rows, flags, hints
        except DataError as error:
            hints.append(error.hint)
            flag = re.search(r"--thousands (\S+?)\)", error.hint.rpartition("for thousands")[2] if way else error.hint)
            command = re.search(r"python -c .*?(?=; for thousands|$)", error.hint)
            if command and not (way and flag):
                subprocess.run(command[0].replace("python", sys.executable, 1), shell=True, check=True, cwd=path.parent)
                path = path.with_name(f"{path.stem}-clean{path.suffix}")
            elif flag:
                flags["thousands"] = shlex.split(flag[1])[0]
            else:
                break
    raise AssertionError(hints)


@pytest.mark.parametrize("digits", [1, 2, 3, 4])
@pytest.mark.parametrize("least", [-0.9, 0.1, 1.1, 100.0])
@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_the_first_way_out_reads_decimal_commas(separator: str, least: float, digits: int, tmp_path: Path) -> None:
    values = write(tmp_path / "a.csv", separator, least, 10 * abs(least), digits)
    rows, flags, hints = follow(tmp_path / "a.csv", "")
    assert np.allclose(rows, values), hints
    assert len(hints) <= 1
    if flags:  # a device reads the queries alike
        policy = Policy(**flags)
        ready = prepare(policy, load(tmp_path / "a.csv", "k", None, policy), None)
        parsed = TableCsvParser(ready.table, ignore_extra=True).parse((tmp_path / "a.csv").read_bytes())
        assert np.allclose(parsed.rows, values)


@pytest.mark.parametrize("cells", [("0,395", "7,338"), ("7,338", "-0,147"), ("7,338", "12,34"), ("7,338", "1,2345")])
@pytest.mark.parametrize("separator", [",", "\t"])
def test_a_comma_that_cannot_stand_between_thousands_is_decimal(
    cells: tuple[str, str], separator: str, tmp_path: Path
) -> None:
    lines = "".join(f'"{cell}"{separator}k\n' for cell in cells)
    (tmp_path / "a.csv").write_text(f"a{separator}k\n{lines}")
    rows, _, hints = follow(tmp_path / "a.csv", "")
    expected = [float(cell.replace(",", ".")) for cell in cells]
    assert np.allclose(rows[:, 0], expected), hints
    if separator == ",":
        assert "--thousands" not in hints[0]
    with pytest.raises(DataError) as caught:
        load(tmp_path / "a.csv", "k", None, Policy(thousands=","))
    assert "decimal" in str(caught.value) + caught.value.hint
    assert np.allclose(follow(tmp_path / "a.csv", "thousands")[0][:, 0], expected), "the other way is refused, then led"


@pytest.mark.parametrize("sign", [",", ".", "'", " "])
def test_no_group_of_thousands_begins_with_0(sign: str) -> None:
    for number in [*range(0, 1000), 123456, 1234567]:
        text = f"{number:,}".replace(",", sign)
        assert without_thousands(text, sign) == str(number)
        assert without_thousands(f"0{sign}{number:03}", sign) is None
