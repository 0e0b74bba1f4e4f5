"""Files as people have them: each message dictates what to type, and typing it leads to rows that can be read."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from knnkit.data import files, warnings_of_file
from knnkit.data.bad_cells import BadCells
from knnkit.data.policy import MAX_CATEGORIES, Learner, Policy
from knnkit.errors import DataError

KINDS = ["low", "mid", "high"]
RNG = np.random.default_rng(7)
CODES = np.arange(120) % 3
ROWS = np.column_stack([CODES * 3, 1000 + CODES * 500.0, 10 - CODES * 2]) + RNG.normal(0, 0.3, (120, 3))
#: Most things to type for one file.
STEPS = 3


def table(
    head: str = "length,width,height,kind", line: Callable[[int, list[str], str], str] | None = None, **how: Any
) -> bytes:
    """A file of 120 lines; `line` writes one from its number, cells and label."""
    made = [[f"{value:.3f}" for value in row] for row in ROWS]
    write = line or (lambda _, cells, kind: ",".join([*cells, kind]))
    body = [write(number, cells, KINDS[code]) for number, (cells, code) in enumerate(zip(made, CODES))]
    return "".join(f"{each}{how.get('end', chr(10))}" for each in [*head.splitlines(), *body]).encode(
        how.get("encoding", "utf-8")
    )


def parquet(path: Path, changed: dict[int, Any]) -> None:
    vectors: list[Any] = RNG.normal(size=(120, 8)).tolist()
    for row, cell in changed.items():
        vectors[row] = cell
    columns = {"id": [f"s{number}" for number in range(120)], "text": [f"a sentence {n}" for n in range(120)]}
    made = pyarrow.table({**columns, "vector": vectors, "kind": [KINDS[code] for code in CODES]})
    pyarrow.parquet.write_table(made, path)


def german(value: str, mark: str = "") -> str:
    return (
        f"{float(value):,.3f}".replace(",", mark or " ").replace(".", ",").replace(" ", ".")
        if mark
        else value.replace(".", ",")
    )


GERMAN = "L\u00e4nge;Breite;H\u00f6he;kind"
FILES: dict[str, tuple[bytes | Callable[[Path], None], int]] = {
    "semicolons, decimal commas, a mark": (
        table(GERMAN, lambda _, c, k: ";".join([*map(german, c), k]), encoding="utf-8-sig", end="\r\n"), 0),
    "units under the header": (table("length,width,height,kind\nmm,mm,mm,-"), 1),
    "comments above and between": (table("# v1\nlength,width,height,kind",
                                         lambda n, c, k: "# again" if n == 9 else ",".join([*c, k])), 1),
    "one name twice": (table("value,value,height,kind"), 1),
    "thousands": (table(line=lambda _, c, k: f'{c[0]},"{float(c[1]):,.2f}",{c[2]},{k}'), 1),
    "words in a few cells": (table(line=lambda n, c, k: ",".join(["error" if n % 17 == 0 else c[0], *c[1:], k])), 1),
    "N/A and its kin": (table(line=lambda n, c, k: ",".join(
        [["N/A", "n.a.", "NULL", "-", "?", "NaN", "#N/A"][n % 7] if n % 11 == 0 else c[0], *c[1:], k])), 1),
    "columns without names": (table("length,width,height,kind,,", lambda _, c, k: ",".join([*c, k, "", ""])), 0),
    "a note without a name": (table("length,width,height,kind,", lambda n, c, k: ",".join([*c, k, f"note {n}"])), 2),
    "a cell more than names": (table(line=lambda n, c, k: ",".join([*c, k, f"note {n}"]), end="\r\n"), 2),
    "cells too many, labels missing": (table(line=lambda n, c, k: ",".join(
        [*c, "" if n % 40 == 5 else k, *(["more"] if n % 30 == 3 else [])])), 1),
    "every third line without a label": (table(line=lambda n, c, k: ",".join([*c, k * (n % 7 > 0)])) + b"".join(
        table(line=lambda n, c, k: ",".join([*c, k * (n % 3 > 0)])).partition(b"\n")[2] for _ in range(9)), 1),
    "a spreadsheet's title and total": (table("sep=;\n\u00dcbersicht;;;\n;;;\nlength;width;height;kind",
        lambda n, c, k: "Summe;;;" if n == 119 else ";".join([*map(german, c), k]), encoding="cp1252", end="\r\n"), 1),
    "no header": (table(""), 1),
    "pipes": (table("length|width|height|kind", lambda _, c, k: "|".join([*c, k])), 1),
    "blanks": (table("length  width height kind", lambda _, c, k: "  ".join([*c, k])), 1),
    "blanks and quotes": (table("'length' 'width' 'height' 'kind'", lambda _, c, k: " ".join([*c, k])), 1),
    "pipes and empty cells": (table("length|note|width|height|kind",
        lambda n, c, k: "|".join([c[0], "", *c[1:], k])), 2),
    "decimal commas between pipes": (table("length|width|height|kind",
        lambda _, c, k: "|".join([*(cell.replace(".", ",") for cell in c), k])), 1),
    "blanks before the first column": (table("  length width height kind", lambda _, c, k: "   ".join(["", *c, k])), 1),
    "single quotes": (table("'length','width','height','kind'",
        lambda _, c, k: ",".join(f"'{cell}'" for cell in [*c, k])), 1),
    "a currency before the number": (table(line=lambda _, c, k: f'"${float(c[0]):,.2f}",\u20ac {c[1]},{c[2]},{k}'), 1),
    "Unicode minus": (table(line=lambda n, c, k: ",".join(
        [c[0], *(f"\u2212{cell}" if n % 3 else cell for cell in c[1:]), k])), 1),
    "Arabic digits": (table(line=lambda _, c, k: ",".join(
        ["".join("\u066b" if sign == "." else chr(0x660 + int(sign)) for sign in c[0].strip("-")), *c[1:], k])), 1),
    "row names and dots, as R writes": (table('"","Air.Flow","a/b & c","kind"',
        lambda n, c, k: f'"{n}",{c[0]},{c[1]},{k}'), 1),
    "row names without a name": (table(line=lambda n, c, k: ",".join([f'"{n + 1}"', *c, f'"{k}"'])), 1),
    "row names of text without a name": (table(line=lambda n, c, k: ",".join([f"site {n}", *c, k])), 2),
    "one name with dots twice": (table("air.flow,air.flow,a/b & c\\d,kind"), 1),
    "row names beside many columns": (table(",".join(["", *(f"measurement.{n}" for n in range(40)), "kind"]),
        lambda n, c, k: ",".join([str(n), *(c[:1] * 40), k])), 1),
    "a zero byte": (table().replace(b"mid", b"mid\0", 1), 1),
    "UTF-16 without a mark": (table(encoding="utf-16-le"), 1),
    "UTF-32": (table(encoding="utf-32"), 0),
    "UTF-32 without a mark": (table(encoding="utf-32-le"), 1),
    "UTF-32 of another machine without a mark": (table(encoding="utf-32-be"), 1),
    "times, prices and an id": (table("when,price,Device ID,length,kind", lambda n, c, k: ",".join(
        [f"0{n % 9 + 1}.05.2024 12:00", f"{c[1]} \u20ac", f"dev-{n % 4}", c[0], k])), 2),
    "mixed types and few categories": (table("size,length,on,kind", lambda n, c, k: ",".join(
        ["small" if n % 2 else "large", "?" if n == 60 else c[0], "yes" if n % 3 else "no", k])), 1),
    "lists": (lambda path: parquet(path, {}), 1),
    "lists of other lengths": (lambda path: parquet(path, {7: [0.5] * 7, 9: [1.0] * 9}), 2),
    "lists that are missing": (lambda path: parquet(path, {7: None}), 1),
    "pictures": (lambda path: np.savez(path, images=np.ones((120, 6, 6)) * CODES[:, None, None], kind=CODES), 0),
    "two arrays": (lambda path: np.savez(path, x=np.ones((120, 6, 6)) * CODES[:, None, None], z=ROWS, kind=CODES), 1),
}  # fmt: skip


def suffix_of(name: str) -> str:
    return ".parquet" if name.startswith("lists") else ".npz" if name in ("pictures", "two arrays") else ".csv"


@pytest.mark.parametrize("name", FILES)
def test_what_the_messages_dictate_leads_to_rows(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")  # hints type `python`
    content, most = FILES[name]
    file = Path(f"rows{suffix_of(name)}")
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        content(file)
    typed, flags = [], dict[str, Any]()
    for _ in range(STEPS):
        try:
            warnings_of_file(file, "kind", None, **flags)
            break
        except DataError as error:
            typed.append(error.hint)
            file = _type(error.hint, file, flags)
    rows = files.load(file, "kind", None, Policy(**flags))
    assert len(rows.rows) >= 100, typed
    assert set(rows.labels.tolist()) <= {*KINDS, 0, 1, 2}
    assert len(typed) == most, typed


def _type(hint: str, file: Path, flags: dict[str, Any]) -> Path:
    """Does what a hint says: options of `knnkit init`, or a command; returns the file to go on with."""
    dictated = re.search(r"\(knnkit init: (.*?)\)(?:;|$)", hint)
    command = re.search(r"(?:sed|iconv|tr|python) .*$", hint)
    if dictated and not (command and command.start() < dictated.start()):
        words, key = shlex.split(dictated[1]), ""
        for word in words:
            key = word.removeprefix("--") if word.startswith("--") else key
            if word.startswith("--"):
                continue
            if key == "drop":
                flags[key] = (*flags.get(key, ()), word)
            elif key == "categories":
                flags[key] = {**flags.get(key, {}), word: "one-hot"}
            else:
                flags[key] = word
        return file
    assert command, hint
    text = command[0].partition(", or leave out the column")[0]
    subprocess.run(text, shell=True, check=True)
    return Path(f"{file.stem}-clean{file.suffix}")


def test_a_label_column_that_is_empty_is_not_mended_by_leaving_all_lines_out(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(table(line=lambda _, c, k: ",".join([*c, ""])))
    with pytest.raises(DataError) as found:
        files.load(tmp_path / "rows.csv", "kind")
    assert found.value.hint.startswith("no line has a label: name another column (label:")


@pytest.mark.parametrize(("asked", "there"), [("sl", "SL"), ("esp\u00e8ce", "espe\u0300ce")])
def test_a_name_that_differs_only_in_case_or_composition_is_meant_before_a_similar_one(
    asked: str, there: str, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text(f"sw,esp,{there},kind\n1,2,3,a\n", encoding="utf-8")
    with pytest.raises(DataError) as found:
        files.load(tmp_path / "rows.csv", "kind", [asked])
    assert f"did you mean {there!r}" in found.value.hint


def test_threads_learn_no_more_categories_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a file are read by several threads; a column may not get more categories for that."""
    waiting = threading.Barrier(2, timeout=0.2)
    learns = Learner._learns

    def slow(learner: Learner, index: int, count: int) -> bool:
        found = learns(learner, index, count)
        with contextlib.suppress(threading.BrokenBarrierError):
            waiting.wait()
        return found

    monkeypatch.setattr(Learner, "_learns", slow)
    learner = Learner(Policy(categories={"*": "one-hot"}), ["colour"], BadCells("t.csv"))
    halves = [[f"{half}{number}" for number in range(MAX_CATEGORIES)] for half in "ab"]
    with ThreadPoolExecutor() as threads:
        found = list(threads.map(lambda half: learner.codes(0, half), halves))
    assert found.count(None) == 1
    assert len(learner.levels()[0]) == MAX_CATEGORIES
