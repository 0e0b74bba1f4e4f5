"""Names under `missing` and `categories`: a wrong one is named before any cell is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from knnkit.data.columns import Wanted
from knnkit.data.files import load, load_all
from knnkit.data.policy import Policy
from knnkit.errors import DataError

HEADER = ["weight", "Colour", "kind", "when", "id"]
CELLS = [["1.5", "red", "a", "1", "x"], ["", "blue", "b", "2", "y"], ["word", "red", "a", "3", "z"]]


def write(path: Path) -> Path:
    if path.suffix == ".csv":
        path.write_text("\n".join([",".join(line) for line in [HEADER, *CELLS]]) + "\n")
    elif path.suffix == ".npz":
        columns = {name: np.arange(3.0) for name in HEADER}
        np.savez(path, **{**columns, "weight": np.array([1.0, np.nan, 2.0])})
    else:
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(dict(zip(HEADER, zip(*CELLS)))), path)
    return path


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz"])
@pytest.mark.parametrize(("key", "word"), [("categories", "one-hot"), ("missing", "median"), ("missing", 0.0)])
@pytest.mark.parametrize(
    ("name", "said", "drop"),
    [
        ("Color", "no column 'Color'", ()),
        ("weigth*", "no column 'weigth*'", ()),
        ("weight_kg", "no column 'weight_kg'", ()),
        ("kind", "'kind' is the label", ()),
        ("when", "'when' is the column of `split`", ()),
        ("id", "'id' is the column of `id`", ()),
        ("Colour", "'Colour' is left out by `drop`", ("Col*",)),
    ],
)
def test_a_wrong_name_is_named_before_cells(
    name: str, said: str, drop: tuple[str, ...], key: str, word: Any, suffix: str, tmp_path: Path
) -> None:
    file = write(tmp_path / f"rows.{suffix}")
    with pytest.raises(DataError) as caught:
        load_all([file], Wanted("kind", None, "when", Policy(drop, **{key: {name: word}}), "id"))
    assert said in str(caught.value)
    assert "cannot be read" not in str(caught.value)
    assert caught.value.key == f"data/{key}/{name}"
    assert key in caught.value.hint
    if name == "Color":
        assert "did you mean 'Colour'" in caught.value.hint


def test_an_element_of_a_list_may_be_named(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"vector": [[1.0, None], [2.0, 3.0]], "kind": ["a", "b"]})
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet", "kind", None, Policy(missing={"vector_1": "median"})).rows.shape == (2, 2)


def test_a_name_on_two_lines_is_not_taken_for_a_title(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('"height\n(cm)",width,kind\n1,2,oak\n3,4,elm\n')
    with pytest.raises(DataError) as caught:
        load(tmp_path / "a.csv", "kind")
    assert "'height\\n(cm)'" in str(caught.value)


@pytest.mark.parametrize("sign", ["|", " "])
def test_a_header_with_another_separator_is_not_taken_for_a_title(sign: str, tmp_path: Path) -> None:
    lines = [["my", "street", "kind"], ["1", '"Oak, 5"', "elm"], ["2", '"Ash, 7"', "oak"]]
    (tmp_path / "a.csv").write_text("".join(f"{sign.join(line)}\n" for line in lines))
    with pytest.raises(DataError, match=re.escape(f"the columns are separated by {sign!r}")):
        load(tmp_path / "a.csv", "kind")
