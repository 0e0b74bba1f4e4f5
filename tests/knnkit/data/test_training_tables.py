"""Training tables: read by the block and record by record alike, by the very rules of rows to classify."""

from __future__ import annotations

import csv
import io
import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from device_agent.shared.tabular.csv_reader import Columns
from knnkit.data import csv_file
from knnkit.data.files import load
from knnkit.errors import DataError

NUMBERS = ["0", "7", "255", "9999", "12345", "-2", "3.5", "1e5", "1e-7", " 7", "0.1", "1.0000000596046448", "007"]
ODD = ["", "nan", "1e39", "x", "1_0", "\u0661", "1,5", "1.234,5", "1,234", "\xa02", "1.5.2", "-", "3\x15", '"']
LABELS = ["oak", "1", "St. Louis", "Quercus, robur", "\u00e9", "class3", 'q"q', " x ", "two\nlines", "unknown", ""]


def table(rng: random.Random) -> bytes:
    """A file as somebody's program may write it, with something wrong now and then."""
    separator, quoting = rng.choice(",,;\t"), rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    names = [f"f{number}" for number in range(rng.choice([1, 2, 7]))] + ["note"] * rng.choice([0, 1])
    names.insert(rng.randrange(len(names) + 1), "y")
    decimal = rng.choice(".,") if separator != "," else "."
    wrong, tail, count = rng.choice([0, 0, 0.0005]), [""] * rng.choice([0, 0, 2]), rng.choice([1, 40, 900])
    labels = rng.sample(LABELS[:6], 2)

    def cell(name: str) -> str:
        if name == "y":
            return rng.choice(LABELS if rng.random() < wrong else labels)
        if name == "note":
            return rng.choice(["n", "e.5", "", "some, text", "x;y", 'say "hi"', "two\nlines"])
        return rng.choice(ODD) if rng.random() < wrong else rng.choice(NUMBERS).replace(".", decimal)

    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, quoting=quoting, lineterminator=rng.choice(["\n", "\r\n", "\r"]))
    writer.writerow(names + tail)
    for _ in range(count):
        writer.writerow([] if rng.random() < wrong else [*map(cell, names), *tail])
    return out.getvalue().encode(rng.choice(["utf-8", "utf-8-sig", "utf-16"]))


def said(path: Path, features: list[str] | None) -> object:
    try:
        found = load(path, "y", features)
    except DataError as error:
        return str(error), error.hint
    return found.fingerprint()


@pytest.mark.parametrize("seed", range(60))
def test_a_table_read_by_the_block_is_that_read_record_by_record(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(table(random.Random(seed)))
    for features in (None, ["f0"]):
        whole = said(path, features)
        with monkeypatch.context() as patched:
            patched.setattr(csv_file, "_BLOCK", 300)
            assert said(path, features) == whole
            patched.setattr(Columns, "read_block", lambda *_: None)
            assert said(path, features) == whole


@pytest.mark.parametrize("place", [0, 400, 784])
@pytest.mark.parametrize("label", ["7", "St. Louis", '"Quercus robur"', "\u00e9"])
@pytest.mark.parametrize("cell", ["255", "0.5", "-1.25e-05", "0.1234567890123456"])
def test_a_plain_table_is_read_by_the_block(
    place: int, label: str, cell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, cells = [f"f{number}" for number in range(784)], [cell, "0"] * 392
    names.insert(place, "y")
    cells.insert(place, label)
    (tmp_path / "train.csv").write_text("\n".join([",".join(names), *[",".join(cells)] * 40]), encoding="utf-8")
    monkeypatch.setattr(csv_file._CsvFile, "_take_records", None)
    found = load(tmp_path / "train.csv", "y")
    assert found.rows.tolist() == [[float(np.float32(float(cell))), 0.0] * 392] * 40
    assert set(map(str, found.labels.tolist())) == {label.strip('"')}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_columns_give_what_float_gives_in_any_order(separator: str, dtype: type[np.floating]) -> None:
    decimal = "." if separator == "," else ","
    text = " " if separator == "," else ", "
    rng = np.random.default_rng(3)
    written = [repr(float(value)) for value in rng.standard_normal(9000) * 10.0 ** rng.integers(-30, 30, 9000)]
    written[:6000:7] = [str(value) for value in range(len(written[:6000:7]))]
    rows = [written[start : start + 3] for start in range(0, len(written), 3)]
    for numbers in itertools.permutations([0, 2, 3]):
        columns = Columns(separator, 4, numbers, [1], dtype)
        columns.read_fields([f"1{decimal}5", "", "2", "3"])
        cells = [[cell.replace(".", decimal) for cell in row] for row in rows]
        lines = [separator.join([a, f"t{n}.{text}e", b, c]) for n, (a, b, c) in enumerate(cells)]
        found = columns.read_block("".join(line + "\n" for line in lines).encode())
        assert found is not None
        at = {0: 0, 2: 1, 3: 2}
        expected = np.array([[float(row[at[place]]) for place in numbers] for row in rows]).astype(dtype)
        assert found[0].dtype == dtype
        assert found[0].tobytes() == expected.tobytes()
        assert found[1][0][7] == f"t7.{text}e"


@pytest.mark.parametrize("cell", ["3.4028235e38", "3.4028235677973362e38", "-3.4028235e38"])
def test_a_number_that_rounds_to_the_largest_float32_is_one(cell: str, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(f"a,y\n{cell},oak\n1,oak\n")
    assert abs(load(tmp_path / "train.csv", "y").rows[0, 0]) == np.finfo(np.float32).max


def test_a_file_is_read_in_three_times_the_memory_of_its_numbers(tmp_path: Path) -> None:
    import subprocess
    import sys

    row = ",".join(["255", "0"] * 392)
    with (tmp_path / "train.csv").open("w") as file:
        file.write(",".join(f"f{number}" for number in range(784)) + ",y\n")
        file.writelines(f"{row},{number % 10}\n" for number in range(20_000))
    code = (
        "import resource, sys; from knnkit.data.files import load; kb = lambda: resource.getrusage(0).ru_maxrss;"
        "before = kb(); n = load(sys.argv[1], 'y').rows.nbytes; print((kb() - before) * 1024 / n)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "train.csv"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 3
