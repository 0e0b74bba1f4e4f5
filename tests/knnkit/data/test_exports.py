"""Rows to learn from as spreadsheets export them, and files of strangers that claim to be larger than they are."""

from __future__ import annotations

import io
import resource
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from knnkit.data import files
from knnkit.data.files import load
from knnkit.errors import BuildError, DataError
from knnkit.training.sklearn_importer import load_skops

LINES = [["width", "height", "species"], ["1.5", "2", "oak"], ["3", "-0.25", "elm"]]
ROWS = [[1.5, 2.0], [3.0, -0.25]]


def table(separator: str, *, decimal: str = ".", end: str = "\n", tail: str = "") -> str:
    return end.join(separator.join(line).replace(".", decimal) + tail for line in LINES) + end


@pytest.mark.parametrize("name", ["train.csv", "train.tsv", "train.txt"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
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
        ("a\tspecies\n1,234\toak\n", "line 2: '1,234': is it a decimal comma, or", "decimal point"),
        ("a;species\n1,5;oak\n1.5;elm\n", "line 3: '1.5' has a decimal point", "write all numbers with one sign"),
        ("a;Species\n1;oak\n", "no column 'species'; there are a, Species", "did you mean 'Species'"),
        (",a,species\n0,1,oak\n", "line 1: column 1 has no name", "index=False"),
        ('a,species\n1,"oak\n2,elm\n3,elm\n', "line 2: not a CSV line", "close an open quotation mark"),
        ("a,species\n1_0,oak\n", "line 2, column 'a': '1_0' is not a number", ""),
        ("sep=;\na;species\n1;oak\nx;elm\n", "line 4, column 'a': 'x' is not a number", ""),
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
