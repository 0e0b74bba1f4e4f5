"""Label columns and targets are read alike in every format and place, and a wrong key is named before any cell."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from knnkit.config import parse
from knnkit.data.dataset import Dataset
from knnkit.errors import DataError
from knnkit.training import source, table

#: What two columns hold: words that stand for missing cells are labels like any others; numbers have a fraction.
COLUMNS: dict[str, dict[str, list[Any]]] = {
    "label": {"a": ["None", "NA", "nan", "?"] * 3, "b": [7, -1, 7, 0] * 3},
    "target": {"a": [1234.5, -0.25, 3.0, 1e6] * 3, "b": [1.0, 2.5, 1000.0, 7.0] * 3},
}
FEATURES = {"u": [0.5 * n for n in range(12)], "v": [float(n * n) for n in range(12)]}


def cells(values: list[Any], decimal: str, thousands: str) -> list[str]:
    def one(value: Any) -> str:
        text = f"{value:,}" if isinstance(value, float) else str(value)
        return text.replace(",", "T").replace(".", decimal).replace("T", thousands)

    return list(map(one, values))


def write(folder: Path, how: str, columns: dict[str, list[Any]]) -> str:
    """Writes the columns, and returns the file's name, with what `data` has to say about it."""
    if how == "parquet":
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / "rows.parquet")
        return "file: rows.parquet"
    if how == "npz":
        np.savez(folder / "rows.npz", **{name: np.array(values) for name, values in columns.items()})
        return "file: rows.npz"
    separator, decimal, thousands = {"csv": ",.", "semicolons": ";,", "thousands": "\t.,"}[how].ljust(3)
    texts = [cells(values, decimal, thousands.strip()) for values in columns.values()]
    lines = [separator.join(line) for line in [list(columns), *zip(*texts)]]
    (folder / "rows.csv").write_text("\n".join([*lines[:4], "", *lines[4:]]) + "\n", encoding="utf-8")
    return "file: rows.csv" + ", thousands: ','" * bool(thousands.strip())


def load(folder: Path, data: str) -> Dataset:
    found = parse.parse(f"model: {{name: m, data: {{{data}}}}}", base=folder).builds()[0].model.data
    return table.load_rows(found, None)  # type: ignore[arg-type]


def answers(rows: Dataset) -> list[list[Any]]:
    assert rows.targets is not None
    if not rows.target_classes:
        return rows.targets.T.tolist()
    return [[own[int(code)] for code in column] for own, column in zip(rows.target_classes, rows.targets.T)]


@pytest.mark.parametrize("kind", ["label", "target"])
@pytest.mark.parametrize("how", ["csv", "semicolons", "thousands", "parquet", "npz"])
@pytest.mark.parametrize("more", ["", ", missing: median", ", categories: one-hot", ", features: ['*']", ", drop: [v]"])
def test_columns_are_read_alike_wherever_they_stand(kind: str, how: str, more: str, tmp_path: Path) -> None:
    columns = list({**FEATURES, **COLUMNS[kind]}.items())
    random.Random(f"{kind} {how} {more}").shuffle(columns)
    file = write(tmp_path, how, dict(columns))
    names = [name for name, _ in columns if name in FEATURES and f"[{name}]" not in more]
    for asked in ("ab", "ba"):
        found = load(tmp_path, f"{file}, {kind}: [{', '.join(asked)}]{more}")
        assert answers(found) == [COLUMNS[kind][name] for name in asked]
        assert found.target_names == tuple(asked)
        assert found.feature_names == tuple(names)
        assert found.rows.T.tolist() == [FEATURES[name] for name in names]
    if kind == "target" and not more:
        assert answers(load(tmp_path, f"{file}, target: b, drop: [a]")) == [COLUMNS[kind]["b"]]


@pytest.mark.parametrize("kind", ["label", "target"])
@pytest.mark.parametrize("how", ["csv", "parquet", "npz"])
@pytest.mark.parametrize(
    ("keys", "said", "hint"),
    [
        ("[a, nope]", "no column 'nope'", "{kind}: in deploy.yaml"),
        ("[nope, a]", "no column 'nope'", "{kind}: in deploy.yaml"),
        ("[a, b], drop: [b]", "'b' is a {kind}; it cannot be left out", "remove it from drop:"),
        ("[a, b], drop: ['[abw]', b]", "'b' is a {kind}; it cannot be left out", "remove it from drop:"),
        ("[b, a], features: [u, a]", "'a' is a {kind}; it cannot be a feature too", "remove it from features:"),
        ("[a, b], drop: [u, v, w]", "there is no feature beside 'a', 'b'", "remove a column from drop:"),
    ],
)
def test_a_wrong_key_is_named_before_any_cell(
    kind: str, how: str, keys: str, said: str, hint: str, tmp_path: Path
) -> None:
    columns = {**FEATURES, **COLUMNS[kind], "w": ["text that is not a number"] * 12}
    file = write(tmp_path, how, columns)
    with pytest.raises(DataError) as caught:
        load(tmp_path, f"{file}, {kind}: {keys}")
    assert said.format(kind=kind) in str(caught.value)
    assert hint.format(kind=kind) in caught.value.hint
    assert f"--{kind}" not in caught.value.hint or kind == "label"


@pytest.mark.parametrize("kind", ["label", "target"])
@pytest.mark.parametrize("column", ["a", "b"])
@pytest.mark.parametrize("more", ["", ", missing: median", ", categories: ordinal"])
def test_an_empty_answer_is_named_by_its_line(kind: str, column: str, more: str, tmp_path: Path) -> None:
    columns = {**FEATURES, **COLUMNS[kind]}
    columns[column] = [*columns[column][:5], "", *columns[column][6:]]
    file = write(tmp_path, "csv", columns)
    with pytest.raises(DataError) as caught:
        load(tmp_path, f"{file}, {kind}: [a, b]{more}")
    assert f"line 8: the {kind} ({column!r}) is empty" in str(caught.value), "a header, and a blank line"
    assert caught.value.hint.endswith(f"sed '8d' {tmp_path}/rows.csv > rows-clean.csv")
    assert f"is it the right {kind} column? If not, set `{kind}` to another one. " in caught.value.hint


@pytest.mark.parametrize(
    ("cell", "hint"), [("here", "correct the cells of 'b'"), ("NA", "sed '8d'"), ("inf", "sed '8d'")]
)
def test_a_target_that_is_not_a_number_is_named_by_its_line(cell: str, hint: str, tmp_path: Path) -> None:
    columns = {**FEATURES, **COLUMNS["target"]}
    columns["b"] = [*columns["b"][:5], cell, *columns["b"][6:]]
    for names in ("[a, b]", "[b, a]", "b, drop: [a]"):
        with pytest.raises(DataError) as caught:
            load(tmp_path, f"{write(tmp_path, 'csv', columns)}, missing: median, target: {names}")
        assert "line 8, column 'b': " in str(caught.value)
        assert hint in caught.value.hint
        assert "drop" not in caught.value.hint
        assert "median" not in caught.value.hint


@pytest.mark.parametrize("kind", ["label", "target"])
@pytest.mark.parametrize("key", ["test", "split"])
def test_a_test_file_may_call_its_columns_otherwise(kind: str, key: str, tmp_path: Path) -> None:
    data = write(tmp_path, "csv", {**FEATURES, **COLUMNS[kind]})
    test = {"p": COLUMNS[kind]["b"], "q": COLUMNS[kind]["a"], **FEATURES}
    pyarrow.parquet.write_table(pyarrow.table(test), tmp_path / "test.parquet")

    def loaded(names: str, own: str) -> source.Material:
        text = f"model: {{name: m, data: {{{data}, {names}}}, {key}: {{file: test.parquet, {own}}}}}"
        return source.load(parse.parse(text, base=tmp_path).builds()[0])

    found = loaded(f"{kind}: [a, b]", f"{kind}: [q, p]").held_out
    assert found is not None
    assert answers(found) == list(COLUMNS[kind].values())
    assert found.target_names == ("a", "b")
    other = "target" if kind == "label" else "label"
    for names, own, said in (
        (f"{kind}: [a, b]", f"{kind}: q", r"answers 2 columns for a row, not 1 \(q\)"),
        (f"{kind}: b, drop: [a]", f"{kind}: [q, p]", r"answers 1 column for a row, not 2 \(q, p\)"),
        (f"{kind}: [a, b]", f"{other}: [q, p]", f"answers the {kind} of `data`, and `test` names a {other}"),
    ):
        with pytest.raises(DataError, match=said):
            loaded(names, own)


@pytest.mark.parametrize("more", ["", ", features: [v, u]"])
@pytest.mark.parametrize("how", ["csv", "parquet", "npz"])
@pytest.mark.parametrize("kind", sorted(COLUMNS))
def test_several_files_have_the_answers_of_one(kind: str, how: str, more: str, tmp_path: Path) -> None:
    columns, asked = {**COLUMNS[kind], **FEATURES}, f"{kind}: [a, b]{more}"
    name = write(tmp_path, how, columns).split()[1]
    for part in (0, 1):
        (tmp_path / str(part)).mkdir()
        write(tmp_path / str(part), how, {name: values[6 * part :][:6] for name, values in columns.items()})
    one, parts = load(tmp_path, f"file: {name}, {asked}"), load(tmp_path, f"files: [0/{name}, 1/{name}], {asked}")
    assert answers(parts) == answers(one)
    assert (parts.feature_names, parts.rows.tolist()) == (one.feature_names, one.rows.tolist())
