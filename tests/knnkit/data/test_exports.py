"""Rows to learn from as spreadsheets export them, and files of strangers that claim to be larger than they are."""

from __future__ import annotations

import io
import os
import re
import resource
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest

from device_agent.shared.protocol.input_info import Window
from device_agent.shared.tabular import csv_dialect
from knnkit import cli
from knnkit.data import collected, files, listing, recordings
from knnkit.data.files import load
from knnkit.data.policy import Policy
from knnkit.errors import BuildError, DataError, KnnkitError
from knnkit.training.sklearn_importer import load_skops

LINES = [["width", "height", "species"], ["1.5", "2", "oak"], ["3", "-0.25", "elm"]]
ROWS = [[1.5, 2.0], [3.0, -0.25]]


def table(separator: str, *, decimal: str = ".", end: str = "\n", tail: str = "") -> str:
    return end.join(separator.join(line).replace(".", decimal) + tail for line in LINES) + end


@pytest.mark.parametrize("name", ["train.csv", "train.tsv", "train.txt"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize(("separator", "decimal"), [(",", "."), (";", ","), ("\t", ","), ("\t", "."), (";", ".")])
def test_what_spreadsheets_export_is_read_as_it_is(
    separator: str, decimal: str, encoding: str, name: str, tmp_path: Path
) -> None:
    for end, tail in (("\n", ""), ("\r\n", separator * 2), ("\r", "")):
        (tmp_path / name).write_bytes(table(separator, decimal=decimal, end=end, tail=tail).encode(encoding))
        found = load(tmp_path / name, "species")
        assert (found.rows.tolist(), found.labels.tolist()) == (ROWS, ["oak", "elm"])
        assert found.feature_names == ("width", "height")


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ('a,species\n"1,5",oak\n', "line 2, column 'a': '1,5' is not a number: a decimal comma", "semicolons"),
        (
            "a\tspecies\n1,234\toak\n",
            "line 2: '1,234': is it a decimal comma, or",
            'for a decimal comma, thousands: "."',
        ),
        (
            "a;species\n1,5;oak\n1.5;elm\n",
            "line 3: '1.5' has a decimal point, but '1,5' has a decimal comma",
            "write all numbers with one sign",
        ),
        ("a;Species\n1;oak\n", "no column 'species'; there are a, Species", "did you mean 'Species'"),
        (",a,species\n0,1,oak\n", "line 1: column 1 has no name", "index=False"),
        ('a,species\n1,"oak\n2,elm\n3,elm\n', "line 2: not a CSV line", "close an open quotation mark"),
        ("a,species\n1_0,oak\n", "line 2, column 'a': '1_0' is not a number", ""),
        ("sep=;\na;species\n1;oak\nx;elm\n", "line 4, column 'a': 'x' is not a number", ""),
        ("a,b,species\n m/s2,kg,\n1,2,oak\n", "line 2: the label ('species') is empty; a line of units?", "sed '2d'"),
        ("a,species\n1,oak\n,,\n2,\n", "line 4: the label ('species') is empty", ""),
        ("PK\x03\x04sheet\n", "the file is a spreadsheet or a zip archive", "save the table as CSV"),
    ],
)
def test_what_cannot_be_meant_is_told_by_line_and_what_mends_it(
    text: str, said: str, hint: str, tmp_path: Path
) -> None:
    path = tmp_path / "train.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load(path, "species")
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert hint in caught.value.hint


def test_a_line_of_units_stands_above_all_rows(tmp_path: Path) -> None:
    """Not one row of a table of text is a number, so a later row without a label is no line of units."""
    path = tmp_path / "train.csv"
    path.write_text("colour,size,species\nred,big,oak\nred,small,\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 3: the label") as caught:
        load(path, "species", None, Policy(categories="one-hot"))
    assert "line of units" not in str(caught.value)


def test_lines_of_nothing_but_separators_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text(table(",") + ",,\n , ,\n", encoding="utf-8")
    assert load(path, "species").rows.tolist() == ROWS


def claiming(descr: str, shape: tuple[int, ...]) -> dict[str, bytes]:
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return {"rows.npy": b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header}


def zipped(members: dict[str, bytes], **options: Any) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the file does not end with a zip archive"),
        (zipped(claiming("<f8", (3,)))[:-30], "the file does not end with a zip archive"),
        (zipped(claiming("<f8", (2**45,))), "Unable to allocate"),
        (zipped(claiming("<f8", (-1,))), "negative dimensions"),
        (zipped(claiming("|O", (3,))), "it holds Python objects"),
        (zipped(claiming("<f8", (3,))), "plain arrays"),
        (zipped({"rows.txt": b"1,2"}), "'rows.txt' is not an array"),
        (zipped({f"{number}.npy": b"" for number in range(70_000)}), "at most 65,535 are read"),
    ],
    ids=["empty", "cut", "huge", "negative", "objects", "short", "other", "many"],
)
def test_an_npz_that_is_not_what_it_says_is_told_in_little_memory(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "train.npz"
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="not an NPZ file of plain arrays") as caught:
        load(path, "species")
    assert said in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_an_npz_that_unpacks_to_more_than_the_machine_holds_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "train.npz", rows=np.zeros((100_000, 2)), species=np.zeros(100_000, int))
    assert len(load(tmp_path / "train.npz", "species").rows) == 100_000
    monkeypatch.setattr(files.os, "sysconf", lambda name: 1000)
    with pytest.raises(DataError, match="this machine has 1,000,000 bytes of memory"):
        load(tmp_path / "train.npz", "species")


@pytest.fixture(scope="module")
def skops_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import skops.io
    from sklearn.neighbors import KNeighborsClassifier

    path = tmp_path_factory.mktemp("skops") / "model.skops"
    skops.io.dump(KNeighborsClassifier(3).fit(np.arange(12.0).reshape(6, 2), [0, 1] * 3), path)
    return path


def test_a_skops_file_that_is_not_what_it_says_is_told_in_little_memory(skops_file: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(skops_file) as archive:
        sound = {name: archive.read(name) for name in archive.namelist()}
    array = next(name for name in sound if name.endswith(".npy"))
    tricks = {
        "16,777,216 are read": {"schema.json": b" " * (64 << 20)},
        "Unable to allocate": {array: claiming("<f8", (2**45,))["rows.npy"]},
        "Object arrays": {array: claiming("|O", (3,))["rows.npy"]},
        "recursion depth": {"schema.json": b"[" * 200_000},
        "no attribute": {"schema.json": b"[]"},
        "at most 65,535 are read": {str(number): b"" for number in range(66_000)},
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for said, members in tricks.items():
        path = tmp_path / "strange.skops"
        path.write_bytes(zipped({**sound, **members}, compression=zipfile.ZIP_DEFLATED))
        with pytest.raises(BuildError, match=said):
            load_skops(path)
    for data in (b"", skops_file.read_bytes()[:-20]):
        (tmp_path / "strange.skops").write_bytes(data)
        with pytest.raises(BuildError, match="does not end with a zip archive"):
            load_skops(tmp_path / "strange.skops")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 160 * 1024
    assert load_skops(skops_file)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_a_label_that_is_not_a_number_is_missing(suffix: str, tmp_path: Path) -> None:
    labels = np.array([1.0, np.nan, 2.0])
    path = tmp_path / f"train{suffix}"
    if suffix == ".npz":
        np.savez(path, rows=np.ones((3, 2)), y=labels)
    else:
        pyarrow.parquet.write_table(pyarrow.table({"a": [1.0, 2.0, 3.0], "y": labels}), path)
    with pytest.raises(DataError, match=r"row 1: the label is empty"):
        load(path, "y")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_of_paths_is_read_as_spreadsheets_export_it(separator: str, encoding: str, tmp_path: Path) -> None:
    lines = [["file", "word", ""], [" a.wav", "yes ", ""], ["", "", ""], ["b.wav", '"no\nnever"', ""]]
    text = "\r\n".join(separator.join(line) for line in lines)
    (tmp_path / "clips.csv").write_bytes(text.encode(encoding))
    assert listing.read(tmp_path / "clips.csv", ["file", "word"]) == (
        ["file", "word"], [(2, ["a.wav", "yes"]), (5, ["b.wav", "no\nnever"])]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("content", "said", "hint"),
    [
        (b"", "it is empty", "begins with the line file,word"),
        (b"file,word\na.wav\n", "line 2: expected 2 cells", "in quotes"),
        (b'file,word\na.wav,"yes\n', "unexpected end of data", "begins with the line file,word"),
        (b"PK\x03\x04", "a spreadsheet or a zip archive", "save the table as CSV"),
        ("file,word\na.wav,gr\u00fcn\n".encode("latin-1"), "not UTF-8 text", "iconv -f WINDOWS-1252"),
        (None, "No such file or directory", "begins with the line file,word"),
    ],
)
def test_a_table_of_paths_that_cannot_be_read_is_named(
    content: bytes | None, said: str, hint: str, tmp_path: Path
) -> None:
    path = tmp_path / "my clips.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        listing.read(path, ["file", "word"])
    assert str(caught.value).startswith(str(path))
    assert hint in caught.value.hint
    assert "FILE" not in caught.value.hint


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".csv"])
def test_a_file_without_rows_is_named(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"train{suffix}"
    if suffix == ".npz":
        np.savez(path, rows=np.ones((0, 2)), y=np.ones(0))
    elif suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"a": np.ones(0), "y": np.ones(0)}), path)
    else:
        path.write_text("a,y\n")
    with pytest.raises(DataError, match=re.escape(str(path))) as caught:
        load(path, "y")
    assert caught.value.hint


@pytest.mark.parametrize("labels", [[b"oak", b"elm"], [[1], [2]], [{"a": 1}, {"a": 2}]])
def test_labels_that_are_no_words_are_not_turned_into_words(labels: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": [1.0, 2.0], "y": labels}), path)
    with pytest.raises(DataError, match="row 0: a label may not be"):
        load(path, "y")


@pytest.mark.parametrize("blank", [" ", "\u00a0", "\u202f", "\u2009"])
@pytest.mark.parametrize("sign", [" ", "'"])
def test_a_separator_of_thousands_may_be_typographic(sign: str, blank: str, tmp_path: Path) -> None:
    between = blank if sign == " " else "\u2019"
    path = tmp_path / "train.csv"
    path.write_text(f"a;y\n1{between}234{between}567,5;oak\n2,5;elm\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load(path, "y")
    assert f'thousands: "{sign}"' in caught.value.hint
    found = load(path, "y", None, Policy(thousands=sign))
    assert found.rows.tolist() == [[1234567.5], [2.5]]


@pytest.mark.parametrize("magic", [magic for magic, _, _ in csv_dialect._FOREIGN])
def test_a_file_of_another_format_is_named_by_its_format(magic: bytes, tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(magic + b"\0\1\2\xff" * 4)
    with pytest.raises(DataError) as caught:
        load(path, "y")
    assert caught.value.hint
    assert "tr -d" not in caught.value.hint


@pytest.mark.parametrize("kind", ["csv", "npz", "parquet", "recording", "listing", "collected", "skops"])
def test_a_pipe_is_refused_before_anybody_waits_at_it(kind: str, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / f"a.{kind if kind in ('npz', 'parquet') else 'csv'}")
    read: dict[str, Callable[[], object]] = {
        "recording": lambda: recordings.load([pipe], Window(("x",), 2, 1), recordings.Labels("y")),
        "listing": lambda: listing.read(pipe, ("file", "y")),
        "collected": lambda: collected.read(pipe),
        "skops": lambda: load_skops(pipe),
    }
    with pytest.raises(KnnkitError, match="not an ordinary file"):
        read.get(kind, lambda: load(pipe, "y"))()


@pytest.mark.parametrize("name", ["a b.csv.gz", "it's.jsonl", "a.json", "a.feather"])
def test_the_hint_for_another_format_makes_a_table_of_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"width": [1.5, 3.0], "height": [2.0, -0.25], "species": ["oak", "elm"]})
    {
        "a b.csv.gz": lambda: frame.to_csv(name, index=False),
        "it's.jsonl": lambda: frame.to_json(name, orient="records", lines=True),
        "a.json": lambda: frame.to_json(name),
        "a.feather": lambda: frame.to_feather(name),
    }[name]()
    with pytest.raises(DataError, match="is not supported") as caught:
        load(Path(name), "species")
    command = caught.value.hint.partition(", and name ")[0].replace("python", shlex.quote(sys.executable), 1)
    subprocess.run(command, shell=True, check=True, timeout=60)
    (made,) = {path.name for path in tmp_path.iterdir()} - {name}
    assert load(Path(made), "species").rows.tolist() == ROWS


@pytest.mark.parametrize("name", ["train.csv", "deploy.yaml", "keys/signing.pem", "folder", "nowhere/a.csv"])
def test_an_audit_replaces_none_of_its_own_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "keys" / "signing.pem").write_text("secret")
    (tmp_path / "train.csv").write_text("a,y\n" + "".join(f"{n},{'xz'[n % 2]}\n" for n in range(20)))
    (tmp_path / "deploy.yaml").write_text("model: {name: fruit, data: {file: train.csv, label: y}}\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert cli.main(["audit", "--output", name]) == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert cli.main(["audit", "--output", "audit.csv"]) == 0
    assert (tmp_path / "audit.csv").read_text().startswith("kind,row,label")
