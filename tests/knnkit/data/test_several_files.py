"""Several files are one table: by name, by pattern, and categories have one code in all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from knnkit.config import load as config
from knnkit.data.columns import Wanted
from knnkit.data.files import load, load_all
from knnkit.data.policy import Policy
from knnkit.errors import ConfigError, DataError
from knnkit.release import up_to_date
from knnkit.training import source

PARTS = ["a,b,y\n1,sand,p\n2,clay,q\n", "b,a,y\nclay,3,p\nmud,4,q\n", "a,b,y\n5,,p\n6,sand,q\n"]
POLICY = Policy((), {"b": "constant"}, {"b": "one-hot"})


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for number, text in enumerate(PARTS):
        (tmp_path / f"data/{number}.csv").write_text(text)
    return tmp_path


def test_the_rows_are_those_of_one_file_with_all_of_them(parts: Path) -> None:
    whole = "a,b,y\n1,sand,p\n2,clay,q\n3,clay,p\n4,mud,q\n5,,p\n6,sand,q\n"
    (parts / "all.csv").write_text(whole)
    found = load_all([parts / "data/*.csv"], Wanted("y", policy=POLICY))
    expected = load(parts / "all.csv", "y", None, POLICY)
    assert np.array_equal(found.rows, expected.rows, equal_nan=True)
    assert (found.levels, found.labels.tolist()) == (expected.levels, expected.labels.tolist())


@pytest.mark.parametrize("files", ["data/*.csv", "[data/0.csv, 'data/[12].csv']", "'**/*.csv'"])
def test_deploy_yaml_names_files_and_patterns(files: str, parts: Path) -> None:
    file = parts / "deploy.yaml"
    keys = "label: y, missing: {b: constant}, categories: one-hot"
    file.write_text(f"model: {{name: a, data: {{files: {files}, {keys}}}, test: 0}}\n")
    build = config.load(file).builds()[0]
    training = source.load(build).training
    assert training.rows[:, 0].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert training.feature_names == ("a", "b=clay", "b=mud", "b=sand", "b=missing")
    before = up_to_date.digest(build)
    (parts / "data/2.csv").write_text(PARTS[2] + "7,mud,p\n")
    assert up_to_date.digest(build) != before


@pytest.mark.parametrize("keys", ["file: a.csv, files: [b.csv]", "label: y", "files: []"])
def test_one_of_file_and_files_is_needed(keys: str, tmp_path: Path) -> None:
    (tmp_path / "deploy.yaml").write_text(f"model: {{name: a, data: {{{keys}}}}}\n")
    with pytest.raises(ConfigError) as caught:
        config.load(tmp_path / "deploy.yaml")
    assert "file" in str(caught.value)


def test_a_pattern_without_a_file_and_other_columns_are_errors(parts: Path) -> None:
    with pytest.raises(DataError, match="no file matches this pattern"):
        load_all([parts / "rows/*.csv"], Wanted("y"))
    (parts / "data/3.csv").write_text("a,c,y\n1,2,p\n")
    with pytest.raises(DataError, match=r"3\.csv: no column 'b'") as caught:
        load_all([parts / "data/*.csv"], Wanted("y", policy=POLICY))
    assert caught.value.hint == "give it the columns of 0.csv, or leave the column out: drop: [b]"


def test_a_bad_cell_is_reported_with_its_own_file(parts: Path) -> None:
    (parts / "data/1.csv").write_text("a,b,y\ntall,sand,p\n")
    with pytest.raises(DataError, match=r"1\.csv, line 2, column 'a': 'tall' is not a number"):
        load_all([parts / "data/*.csv"], Wanted("y", policy=POLICY))
