"""Wrong data is refused with the file, the line and the column, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.models import build_model

from device_agent.shared.protocol.model_info import Gates
from knnkit import TfKNN
from knnkit.data.columns import Wanted
from knnkit.data.dataset import Dataset, dataset, load_sklearn, spelt_as
from knnkit.data.files import load, load_all
from knnkit.data.raw_files import list_files
from knnkit.errors import DataError
from knnkit.model.reference.spec import KnnSpec, own_shares
from knnkit.release import gates
from knnkit.training.raw_cells import labelled_rows
from knnkit.training.source import Material, of_imported

GOOD = "width,height,species\n1,2,oak\n3.5,4e0,elm\n"


def write(folder: Path, text: str, name: str = "train.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_csv_file_is_read_by_column_name(tmp_path: Path) -> None:
    found = load(write(tmp_path, GOOD), "species")
    assert found.feature_names == ("width", "height")
    assert found.rows.tolist() == [[1.0, 2.0], [3.5, 4.0]]
    assert found.rows.dtype == np.float32
    assert found.labels.tolist() == ["oak", "elm"]


def test_features_chooses_columns_and_their_order(tmp_path: Path) -> None:
    path = write(tmp_path, "id,height,species,width\nrow-1,2,oak,1\nrow-2,4,elm,3\n")
    found = load(path, "species", ["width", "height"])
    assert found.feature_names == ("width", "height")
    assert found.rows.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_integer_labels_are_integers_and_all_others_text(tmp_path: Path) -> None:
    assert load(write(tmp_path, "x,y\n1,10\n2,-3\n"), "y").labels.tolist() == [10, -3]
    assert load(write(tmp_path, "x,y\n1,007\n2,3\n"), "y").labels.tolist() == ["007", "3"]


def _of_csv(labels: list[str], folder: Path) -> list[object]:
    return load(write(folder, "\n".join(["x,y", *(f"1,{label}" for label in labels)])), "y").labels.tolist()


def _of_npz(labels: list[str], folder: Path) -> list[object]:
    np.savez(folder / "t.npz", rows=np.ones((len(labels), 1)), y=np.array(labels))
    return load(folder / "t.npz", "y").labels.tolist()


def _of_parquet(labels: list[str], folder: Path) -> list[object]:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"x": [1.0] * len(labels), "y": labels}), folder / "t.parquet")
    return load(folder / "t.parquet", "y").labels.tolist()


@pytest.mark.parametrize("read", [_of_csv, _of_npz, _of_parquet])
@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["0.0", "0", "1", "-0", "-0.0", "2.00"], [0, 0, 1, 0, 0, 2]),
        (["0.0", "0", "a", "7.0"], ["0", "0", "a", "7.0"]),
        (["1.0", "1.5"], ["1.0", "1.5"]),
        (["None", "a", "2.0"], ["None", "a", "2.0"]),
        (["007", "7.0", "7"], ["007", "7", "7"]),
    ],
)
def test_a_label_is_the_same_class_with_a_fraction_of_zeros(
    read: Callable[[list[str], Path], list[object]], labels: list[str], expected: list[object], tmp_path: Path
) -> None:
    assert read(labels, tmp_path) == expected


def test_quotes_byte_order_mark_and_blank_lines_are_read(tmp_path: Path) -> None:
    text = '\ufeffwidth,"species, Latin"\n1,"Quercus, robur"\n\n2,"Ulmus ""minor"""\n'
    found = load(write(tmp_path, text), "species, Latin")
    assert found.labels.tolist() == ["Quercus, robur", 'Ulmus "minor"']


@pytest.mark.parametrize(
    ("text", "label", "said", "hint"),
    [
        (GOOD, "specis", "no column 'specis'; there are width, height, species", "did you mean 'species'"),
        ("1,2,x\n3,4,y\n", "species", "no column 'species'; there are 1, 2, x", "put a header line above line 1"),
        ("a,b,y\n1,2,x\n1,z\n", "y", "must be in quotes", "leave them out: sed '3d'"),
        ("a,b,y\n1,2,x\n1,2,\n", "y", "line 3: the label ('y') is empty", "leave them out: sed '3d'"),
        ("a;b;y\n1.234,5;2;x\n", "y", "column 'a': '1.234,5' is not a number: leave out the", 'thousands: "."'),
        (
            "a,y\n1,x\n\u0661\u0662,z\n",
            "y",
            "line 3, column 'a': '\u0661\u0662' is not a number: write 12",
            "sed 's/",
        ),
        (
            "a;y\n1,5;x\n\u0661,\u0665;z\n",
            "y",
            "'\u0661,\u0665' is not a number: write 1.5",
            "sed 's/",
        ),
        (
            "a,y\n1,x\n\u22125,z\n",
            "y",
            "line 3, column 'a': '\u22125' is not a number: write -5",
            "sed 's/",
        ),
        (GOOD, "SPECIES", "no column 'SPECIES'", "did you mean 'species'"),
        ('a;"b, %";c\n1;2;x\n', "y", "there are a, 'b, %', c", "set it to one"),
        ("a,b,y\n1,2,x\n1,tall,z\n", "y", "line 3, column 'b': 'tall' is not a number", "drop: [b]"),
        ("a,b,y\n1,2,x\n1,n/a,z\n", "y", "line 3, column 'b': 'n/a' stands for a missing value", "missing: median"),
        (
            "when,deg C,b,no,y\nmonday,1,2,3,x\n",
            "y",
            "line 2, column 'when': 'monday' is not a number",
            "drop: [when] in `data:` of deploy.yaml (knnkit init: --drop when)",
        ),
        ("a,b,y\n1,2,x\n1,,z\n", "y", "line 3, column 'b': the cell is empty", "missing: median"),
        ("a,b,y\n1,nan,x\n", "y", "line 2, column 'b': 'nan' stands for a missing value", "missing: median"),
        ("a,b,y\n-inf,1,x\n", "y", "line 2, column 'a': -inf is not a finite", "correct the cells of 'a'"),
        ("a,b,y\n1e39,1,x\n", "y", "line 2, column 'a': 1e39 is not a finite", "correct the cells of 'a'"),
        ("a,b,y\n1,2,x\n1,2\n", "y", "line 3: the header has 3 cells, this line 2", ""),
        ("a,a,y\n1,2,x\n", "y", "line 1: columns 1 and 2 are both called 'a'", "rename one"),
        ("a,,y\n1,2,x\n", "y", "line 1: column 2 has no name", ""),
        ("a,b,y\n1,2,\n", "y", "line 2: the label ('y') is empty", ""),
        ("a,b,y\n", "y", "there is a header, but no rows", "a row"),
        ("", "y", "the file is empty", "line 1 names the columns"),
        ("y\nx\n", "y", "there is no feature beside 'y'", ""),
        ('a,y\n1,"x\n', "y", "not a CSV line", ""),
        ("a,y\n1,x\n1,unknown\n", "y", "line 3: the label 'unknown' is reserved for rejected rows", "another name"),
        ('a,y\n1,x\n1,"two\nlines"\n', "y", "line 3: a label may not be 'two\\nlines'", "plain text on one line"),
        (f"a,y\n1,{'x' * 257}\n", "y", "a label may not be 'xxx", "at most 256 characters"),
        ('"a\nb",y\n1,x\n', "y", "line 1: column 1 may not be called 'a\\nb'", "plain text on one line"),
        ("\x1b[2J,y\n1,x\n", "y", "line 1: column 1 may not be called '\\x1b[2J'", "plain text on one line"),
        ("a,\u202eb,y\n1,2,x\n", "y", "line 1: column 2 may not be called '\\u202eb'", "plain text on one line"),
    ],
)
def test_a_bad_csv_file_is_told_by_line_and_column(text: str, label: str, said: str, hint: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DataError) as caught:
        load(path, label)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert hint in caught.value.hint


def test_a_missing_file_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "training.csv")
    with pytest.raises(DataError, match="no such file") as caught:
        load(tmp_path / "trainin.csv", "species")
    assert "training.csv" in caught.value.hint
    with pytest.raises(DataError, match=r"the format of \.xlsx is not supported"):
        load(tmp_path / "train.xlsx", "species")


def test_a_missing_folder_or_a_variable_in_a_path_is_named(tmp_path: Path) -> None:
    for path, hint in ((tmp_path / "none" / "a.csv", "none does not exist"), (tmp_path / "$X/a.csv", "not replaced")):
        with pytest.raises(DataError, match="no such file") as caught:
            load(path, "y")
        assert hint in caught.value.hint


def test_a_file_that_is_not_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "bytes.csv").write_bytes(b"a,y\n1,\xff\xfe\n")
    with pytest.raises(DataError, match="not UTF-8 text"):
        load(tmp_path / "bytes.csv", "y")


def test_an_npz_file_is_read_by_array_name(tmp_path: Path) -> None:
    rows = np.arange(6.0).reshape(3, 2)
    np.savez(tmp_path / "a.npz", X=rows, y=np.array([1, 0, 1]), feature_names=np.array(["u", "v"]))
    found = load(tmp_path / "a.npz", "y")
    assert found.feature_names == ("u", "v")
    assert found.rows.tolist() == rows.tolist()
    np.savez(tmp_path / "b.npz", u=rows[:, 0], v=rows[:, 1], y=np.array(["a", "b", "a"]))
    assert load(tmp_path / "b.npz", "y").rows.tolist() == rows.tolist()
    assert load(tmp_path / "b.npz", "y", ["v"]).rows.tolist() == rows[:, 1:].tolist()


def test_an_npz_file_that_would_run_code_is_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", X=np.array([[object()]]), y=np.array([1]))
    with pytest.raises(DataError, match="Python objects"):
        load(tmp_path / "c.npz", "y")
    np.savez(tmp_path / "d.npz", X=np.ones((1, 2)), y=np.array(["elm"], dtype=object))  # as pandas keeps text
    with pytest.raises(DataError, match="Python objects") as caught:
        load(tmp_path / "d.npz", "y")
    assert "labels.astype(str)" in str(caught.value.hint)


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 4, 4, 3)])
def test_images_in_an_npz_become_rows(shape: tuple[int, ...], tmp_path: Path) -> None:
    pixels = np.arange(np.prod(shape)).reshape(shape)
    np.savez(tmp_path / "i.npz", rows=pixels, y=np.array([1, 2]))
    found = load(tmp_path / "i.npz", "y")
    assert np.array_equal(found.rows, pixels.reshape(2, -1))


def test_bad_npz_arrays_are_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", X=np.array([[1.0, np.nan]]), y=np.array([1]))
    with pytest.raises(DataError, match="row 0, column 'feature_1': the cell is empty"):
        load(tmp_path / "d.npz", "y")
    np.savez(tmp_path / "e.npz", X=np.zeros((2, 2)), Z=np.zeros((2, 2)), y=np.array([1, 2]))
    with pytest.raises(DataError, match="expected one array of rows"):
        load(tmp_path / "e.npz", "y")
    np.savez(tmp_path / "f.npz", X=np.array([["a", "b"]]), y=np.array([1]))
    with pytest.raises(DataError, match="not numbers"):
        load(tmp_path / "f.npz", "y")
    np.savez(tmp_path / "g.npz", X=np.zeros((2, 2)), y=np.array([1]))
    with pytest.raises(DataError, match="2 rows, but labels of shape"):
        load(tmp_path / "g.npz", "y")


def test_a_parquet_file_is_read_by_column_name(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"u": [1, 2], "species": ["a", "b"], "v": [0.5, 1.5], "note": ["x", "y"]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    assert load(tmp_path / "t.parquet", "species", ["v", "u"]).rows.tolist() == [[0.5, 1.0], [1.5, 2.0]]
    with pytest.raises(DataError, match="row 0, column 'note': 'x' is not a number"):
        load(tmp_path / "t.parquet", "species")
    holes = pyarrow.table({"u": [1.0, None], "species": ["a", "b"]})
    pyarrow.parquet.write_table(holes, tmp_path / "h.parquet")
    with pytest.raises(DataError, match="row 1, column 'u': the cell is empty"):
        load(tmp_path / "h.parquet", "species")
    (tmp_path / "no.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(DataError, match="not a Parquet file"):
        load(tmp_path / "no.parquet", "species")


def test_k_larger_than_the_rows_is_refused() -> None:
    with pytest.raises(DataError, match="k is 4, but there are 3 training rows") as caught:
        build_model(KnnSpec("small", 4), dataset([[0.0], [1.0], [2.0]], [0, 1, 1]))
    assert "3 or less" in caught.value.hint


def test_one_class_only_warns() -> None:
    model = build_model(KnnSpec("one", 1), dataset([[0.0], [1.0]], ["a", "a"]))
    assert "every row has the label 'a'" in model.warnings[0]


@pytest.mark.parametrize("name", ["blobs", "breast_cancer", "digits", "iris", "moons", "wine"])
def test_the_named_sets_are_there(name: str) -> None:
    found = load_sklearn(name)
    assert len(found.rows) == len(found.labels) >= 150
    assert len(set(found.labels.tolist())) >= 2


def test_an_unknown_set_is_told() -> None:
    with pytest.raises(DataError, match="'irises' is not supported") as caught:
        load_sklearn("irises")
    assert "iris" in caught.value.hint


def test_the_fingerprint_changes_with_every_part() -> None:
    base = Dataset(np.zeros((2, 1), np.float32), np.array([0, 1]), ("a",), "here")
    others = [
        Dataset(np.ones((2, 1), np.float32), base.labels, ("a",), "here"),
        Dataset(base.rows, np.array([0, 2]), ("a",), "here"),
        Dataset(base.rows, np.array(["0", "1"]), ("a",), "here"),
        Dataset(base.rows, base.labels, ("b",), "here"),
    ]
    prints = {each.fingerprint() for each in [base, *others]}
    assert len(prints) == 5
    assert Dataset(base.rows, base.labels, ("a",), "elsewhere").fingerprint() == base.fingerprint()


@pytest.mark.parametrize("name", [" width", "width\n", "x" * 257, "\x9b31m"])
def test_a_name_that_no_header_line_could_match_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="column 2 may not be called"):
        dataset([[1.0, 2.0], [3.0, 4.0]], ["a", "b"], ("height", name))


def test_labels_and_names_of_any_script_are_kept_as_they_are() -> None:
    made = dataset([[1.0, 2.0], [3.0, 4.0]], ["שלום", '🙂, "é"; =1+1'], ("größe", "a,b"))
    assert (made.labels.tolist(), made.feature_names) == (["שלום", '🙂, "é"; =1+1'], ("größe", "a,b"))


def test_a_folder_is_not_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").mkdir()
    (tmp_path / "rows.csv" / "a.npz").touch()
    with pytest.raises(DataError, match=r"rows.csv is a folder, not a file") as caught:
        load(tmp_path / "rows.csv", "kind")
    assert caught.value.hint == f"name one of its files, {tmp_path}/rows.csv/*.npz"


def test_a_letter_with_an_accent_has_one_spelling(tmp_path: Path) -> None:
    """File names of macOS hold the letter and its accent apart."""
    joined, apart = "caf\u00e9", "cafe\u0301"
    files = [write(tmp_path, f"x,y\n1,{joined}\n2,{apart}\n"), write(tmp_path, f"x,y\n1,{apart}\n2,b\n", "more.csv")]
    assert load_all(files, Wanted("y", None)).labels.tolist() == [joined, joined, joined, "b"]
    for name in (joined, apart):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "a.npy", np.zeros(2))
    made = list_files([tmp_path / "*" / "*.npy"], "label", None, None).dataset()
    assert made.labels.tolist() == [joined, joined]


@pytest.mark.parametrize("trained", ["caf\u00e9", "cafe\u0301"])
@pytest.mark.parametrize("asked", ["caf\u00e9", "cafe\u0301"])
def test_labels_of_python_stay_and_test_rows_have_either_form(trained: str, asked: str) -> None:
    rows = np.arange(4.0)[:, np.newaxis]
    for columns in (1, 2):
        own, given = (np.array([[word, "b"], ["b", word]] * 2)[:, :columns].squeeze() for word in (trained, asked))
        model = TfKNN(rows, 1, labels=own)
        assert model.predict(rows).tolist() == own.tolist()
        measured = of_imported(model.fitted, labelled_rows(model.fitted, (rows, given))).held_out
        assert measured is not None
        if columns == 1:
            assert measured.labels.tolist() == own.tolist()
        else:
            assert np.array_equal(measured.targets, model.fitted.enrolment.targets)  # type: ignore[arg-type]


@pytest.mark.parametrize("trained", ["caf\u00e9", "cafe\u0301"])
@pytest.mark.parametrize("asked", ["caf\u00e9", "cafe\u0301"])
def test_a_label_in_deploy_yaml_has_either_form(trained: str, asked: str) -> None:
    """Classes are in the form NFC, or as scikit-learn has them; who copies the name of a folder types another."""
    assert own_shares(KnnSpec("m", reject={asked: 0.9, "default": 0.99}), (trained, "b")) == {0: 0.9}
    rows = replace(dataset(np.arange(2.0)[:, np.newaxis], None), labels=np.array([trained, "b"]))
    found = gates.fitting(Gates(recall={asked: 0.5, "b": 0.75}), Material(KnnSpec("m"), rows, None))
    assert found.recall == {trained: 0.5, "b": 0.75}


def test_known_labels_are_not_looked_for_among_all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 people took 20 s."""
    looked_for: list[str] = []
    monkeypatch.setattr("knnkit.data.dataset.label_of", lambda text, _: looked_for.append(text))
    assert spelt_as(np.array(["ann", "bob", "new"]), ["ann", "bob"]).tolist() == ["ann", "bob", "new"]
    assert looked_for == ["new"]
