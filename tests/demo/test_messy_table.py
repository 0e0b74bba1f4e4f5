"""A sensor's export as people have it, from the file to the first label: the messages say what to type."""

from __future__ import annotations

import csv
import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LABELS = ["ch\u00eane", "B\u00e4ume \U0001f333", "\u00e9rable rouge"]
NAMES = [f"accelerometer_axis_{axis}_mean_of_the_window" for axis in range(23)] + ["constant_offset_of_the_sensor"]


def write(path: Path) -> None:
    """3,000 rows, 24 long names of floats, a time, a device id, 45 missing cells, CRLF, everything in quotes."""
    rng = random.Random(1)
    rows = []
    for number in range(3000):
        kind = rng.randrange(3)
        cells = [repr(rng.gauss(kind * 1.5 + axis * 0.1, 1.0)) for axis in range(23)]
        when = f"2024-05-{number % 28 + 1:02d}T{number % 24:02d}:{number % 60:02d}:00.{number:04d}Z"
        rows.append([when, f"dev-{number % 5:02d}", *cells, "1.0", LABELS[kind]])
    for place in rng.sample(range(3000 * 23), 45):
        rows[place // 23][2 + place % 23] = ""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
        writer.writerows([["Timestamp", "Device ID", *NAMES, "\u00e9tat"], *rows])


def knnkit(folder: Path, *words: str) -> tuple[int, str, str]:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from knnkit.cli import main; sys.exit(main())"
    env = os.environ | {"HOME": str(folder), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=folder, env=env, capture_output=True, text=True, timeout=600
    )
    return done.returncode, done.stdout, done.stderr


def test_a_messy_csv_reaches_its_first_label_in_two_edits_that_the_messages_dictate(tmp_path: Path) -> None:
    write(tmp_path / "m.csv")
    init = ("init", "--data", "m.csv", "--label", "\u00e9tat")
    code, _, err = knnkit(tmp_path, *init)
    assert code == 2
    assert "6,045 cells cannot be read (6,000 not numbers, 45 empty)" in err
    dictated = re.search(r"\(knnkit init: (.*)\)$", err, re.MULTILINE)
    assert dictated, err
    assert knnkit(tmp_path, *init, *shlex.split(dictated[1]))[0] == 0  # the first edit
    assert knnkit(tmp_path, "keygen", "--out", "keys/signing")[0] == 0
    code, _, err = knnkit(tmp_path, "deploy", "--target", "local")
    assert code == 0, err
    with (tmp_path / "m.csv").open(newline="", encoding="utf-8") as file:
        truth = [row["\u00e9tat"] for row in csv.DictReader(file)]
    ask = ("classify", "--target", "local", "--input", "m.csv")
    code, _, err = knnkit(tmp_path, *ask)
    assert (code, "--ignore-extra leaves out the columns" in err) == (2, True), err
    code, out, err = knnkit(tmp_path, *ask, "--ignore-extra")  # the second one
    assert code == 0, err
    answers = out.splitlines()[1:]
    right = sum(answer.strip('"') == label for answer, label in zip(answers, truth))
    assert (len(answers), right > 2900) == (3000, True)
    assert err.count("is missing: filled with") == len({line for line in err.splitlines() if "is missing" in line})
