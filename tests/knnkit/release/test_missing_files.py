"""A misspelt file of deploy.yaml: the error names the line of the key, and the name that was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from knnkit.config import parse
from knnkit.errors import KnnkitError
from knnkit.release import keys, up_to_date

THERE = ("trees.csv", "model.skops", "stage.tflite", "labels.csv", "signing.pem", "signing.pub", "test.parquet")
MODEL = "model:\n  name: a\n"
WINDOW = "{window: {columns: [x], rows: 4}}"


@pytest.mark.parametrize(
    ("lines", "meant"),
    [
        ("  data: {file: tree.csv, label: kind}\n", "trees.csv"),
        ("  data: {files: [tree.csv], label: kind}\n", "trees.csv"),
        ("  data: {file: trees.cs, label: kind}\n", "trees.csv"),
        ("  data: {file: trees.csv, path: p, label: kind}\n  input: {stages: [stages.tflite]}\n", "stage.tflite"),
        (f"  input: {WINDOW}\n  data: {{file: trees.csv, label: a, labels: lables.csv}}\n", "labels.csv"),
        ("  data: {skops: models.skops}\n", "model.skops"),
        ("  data: {file: trees.csv, label: kind}\n  test: {file: tests.parquet}\n", "test.parquet"),
    ],
)
def test_a_misspelt_file_names_its_line_and_the_nearest_name(lines: str, meant: str, tmp_path: Path) -> None:
    for name in THERE:
        (tmp_path / name).write_text("p,kind\ntrees.csv,oak\n")
    build = parse.parse(MODEL + lines, base=tmp_path).builds()[0]
    with pytest.raises(KnnkitError, match="no such file") as caught, build.line_in_errors():
        up_to_date.digest(build)
    assert caught.value.hint == f"did you mean {meant}?"
    assert str(caught.value).startswith(f"deploy.yaml:{2 + lines.count(chr(10))}: ")


def test_a_misspelt_key_file_names_the_nearest_of_its_kind(tmp_path: Path) -> None:
    for name in THERE:
        (tmp_path / name).touch()
    for suffix, read in ((".pem", keys.load_private_key), (".pub", lambda path: keys.load_public_keys([path]))):
        with pytest.raises(KnnkitError) as caught:
            read(tmp_path / f"sining{suffix}")
        assert caught.value.hint == f"did you mean signing{suffix}?"
