"""Windows of recordings: their labels, what breaks them, and that no split divides a recording."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import signals

from device_agent.shared.protocol.input_info import Window
from knnkit.config import parse
from knnkit.data import recordings
from knnkit.data.patterns import SUFFIXES, expand, inside
from knnkit.data.recordings import Labels
from knnkit.errors import ConfigError, DataError
from knnkit.training import source

WINDOW = Window(("ax", "ay", "az"), 32, 16, "t", 0.1)
COLUMN = Labels("activity")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("recordings") / "motion"
    signals.write(made, each=4)
    return made


def build(folder: Path, data: str, window: str = "columns: [ax, ay, az], rows: 32, hop: 16", more: str = "") -> Any:
    text = f"model: {{name: m, data: {{{data}}}, input: {{window: {{{window}}}}}{more}}}"
    return parse.parse(text, base=folder).builds()[0]


def test_a_recording_gives_the_windows_of_one_sample_at_a_time(tmp_path: Path) -> None:
    lines = signals.stream(3, 5, 200)
    text = "".join(f"{line}\n" for line in ("t,ax,ay,az", *(each.text for each in lines)))
    (tmp_path / "walk").mkdir()
    (tmp_path / "walk" / "1.csv").write_text(text)
    found = recordings.load([tmp_path / "walk" / "1.csv"], WINDOW, Labels("", "folder"))
    expected, marks = signals.windows(lines, 32, 16, 0.1)
    assert np.array_equal(found.windows.rows, expected.astype(np.float32))
    assert found.windows.ids is not None
    assert found.windows.ids.tolist() == [f"1.csv {first}-{last}" for first, last, *_ in marks]
    assert set(found.windows.labels) == {"walk"}
    assert any("where the time jumps" in said for said in found.warnings)


def test_the_same_windows_however_they_are_labelled_and_stored(folder: Path, tmp_path: Path) -> None:
    files = [folder / "*" / "*.csv"]
    by_column = recordings.load(files, WINDOW, COLUMN).windows
    cut = recordings.load(files, WINDOW, Labels("", "folder"))
    by_folder, each = cut.windows, np.unique(by_column.beside, return_counts=True)[1]
    assert cut.counts == f"{sum(each):,} windows of {len(each)} recordings, {min(each):,} to {max(each):,} of each"
    by_list = recordings.load(files, WINDOW, Labels("label", folder / "labels.csv")).windows
    assert by_column.labels.tolist() == by_folder.labels.tolist()
    assert by_folder.ids is not None
    assert len(set(by_folder.ids.tolist())) == sum(each), "the folders have files of the same names"
    assert by_list.labels.tolist() == [label.upper() for label in by_column.labels]
    one, lines = tmp_path / "one.csv", ["walk_id,t,ax,ay,az,activity"]
    for path in sorted(folder.glob("*/*.csv")):
        lines += [f"{path},{line}" for line in path.read_text().splitlines()[1:]]
    one.write_text("\n".join(lines) + "\n")
    window = Window(("ax", "ay", "az"), 32, 16, "t", 0.1, "walk_id")
    together = recordings.load([one], window, COLUMN).windows
    assert np.array_equal(together.rows, by_column.rows)
    assert together.beside is not None
    assert by_column.beside is not None
    assert together.beside.tolist() == by_column.beside.tolist()


@pytest.mark.parametrize("end", ["\r\n", "\r\r\n", "\r"])
def test_windows_do_not_depend_on_the_ends_of_lines(end: str, tmp_path: Path) -> None:
    lines = ["t,ax,ay,az,activity", *(f"{row / 50},1,2,{row},a" for row in range(9000))]
    found = []
    for name, way in (("plain.csv", "\n"), ("other.csv", end)):
        (tmp_path / name).write_bytes("".join(f"{line}{way}" for line in lines).encode())
        cut = recordings.load([tmp_path / name], WINDOW, COLUMN)
        assert cut.windows.ids is not None
        found.append((cut.windows.rows.tolist(), [text.partition(" ")[2] for text in cut.windows.ids.tolist()]))
        assert not cut.warnings
    assert found[0] == found[1]


def test_a_window_of_two_labels_is_left_out(tmp_path: Path) -> None:
    rows = [f"{row / 50},1,2,{row},{'ab'[row >= 40]}" for row in range(100)]
    (tmp_path / "r.csv").write_text("\n".join(["t,ax,ay,az,activity", *rows]) + "\n")
    found = recordings.load([tmp_path / "r.csv"], WINDOW, COLUMN)
    assert found.windows.labels.tolist() == ["a", "b", "b"]
    assert found.windows.rows[:, 2].tolist() == [0, 48, 64]
    assert any("2 windows with samples of two labels" in said for said in found.warnings)
    text = (tmp_path / "r.csv").read_text().replace(",a\n", ",\n")
    (tmp_path / "r.csv").write_text(text)
    found = recordings.load([tmp_path / "r.csv"], WINDOW, COLUMN)
    assert found.windows.labels.tolist() == ["b", "b"]
    assert any("3 windows with samples of two labels, or without a label," in said for said in found.warnings)


@pytest.mark.parametrize("seed", range(5))
def test_no_split_divides_a_recording(folder: Path, seed: int) -> None:
    material = source.load(build(folder, "files: '*/*.csv', label: activity", more=f", seed: {seed}"))
    assert material.held_out is not None
    sides = [{text.partition(":")[0] for text in part.beside} for part in (material.training, material.held_out)]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 12
    assert set(material.held_out.labels.tolist()) == set(material.training.labels.tolist())
    assert material.how == "group"


def test_a_group_is_of_whole_recordings(tmp_path: Path) -> None:
    for name in "abcd":
        own = ("x", "y") if name == "d" else ("abcd".index(name), f"{'abcd'.index(name)}.0")  # 1.0 is the group 1
        rows = [f"{row / 50},1,2,{row},{own[row % 2]},w" for row in range(64)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["t,ax,ay,az,person,activity", *rows]) + "\n")
    material = source.load(build(tmp_path, "files: '[abc].csv', label: activity", more=", split: {group: person}"))
    assert material.held_out is not None
    assert not set(material.training.beside) & set(material.held_out.beside)
    torn = build(tmp_path, "files: '*.csv', label: activity", "columns: [ax], rows: 9", ", split: {group: person}")
    with pytest.raises(DataError, match="windows of two groups"):
        source.load(torn)
    how = "columns: [ax], rows: 9, recording: activity"  # each file names its recordings from the beginning
    again = build(tmp_path, "files: '[abc].csv', label: activity", how, ", split: {group: person}")
    assert source.load(again).how == "group"


WRONG_DATA = {
    "file: walk/0.csv, label: activity": "all windows are of one recording, and a recording is never divided",
    "file: walk/0.csv, label: kind": "no column 'kind'",
    "files: 'walk/*.csv', label: label, labels: other.csv": "other.csv: cannot be read",
    "files: 'walk/*.csv', labels: labels.csv, label: kind": "no column 'kind'",
    "files: 'none/*.csv', label: activity": "no file matches this pattern",
    "file: model.npz, label: activity": "a recording is a CSV file",
}


@pytest.mark.parametrize("data", WRONG_DATA)
def test_wrong_recordings(data: str, folder: Path) -> None:
    with pytest.raises(DataError, match=WRONG_DATA[data]):
        source.load(build(folder, data))


def test_recordings_that_are_too_short(folder: Path) -> None:
    with pytest.raises(DataError, match="no window of 999 samples"):
        source.load(build(folder, "files: '*/*.csv', label: activity", "columns: [ax], rows: 999"))


@pytest.mark.parametrize(
    ("columns", "limit", "typed"),
    [
        (("ax", "ay"), 0.1, "the usual step of t is 1: gap: 1.5"),
        (("ax", "activity"), 2.0, "name other `columns`"),
        (("ax", "az"), 2.0, "; the header is 't,ax,ay,activity'"),
    ],
)
def test_the_hint_is_about_what_breaks_the_windows(
    columns: tuple[str, ...], limit: float, typed: str, tmp_path: Path
) -> None:
    lines = [f"{second},1,2,walk" for second in range(60)]
    (tmp_path / "a.csv").write_text("\n".join(["t,ax,ay,activity", *lines]) + "\n")
    with pytest.raises(DataError) as found:
        recordings.load([tmp_path / "a.csv"], Window(columns, 8, 4, "t", limit), COLUMN)
    assert typed in found.value.hint


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("file,label\nwalk/0.csv,walk\nwalk/../walk/0.csv,run\n", "line 3: walk/../walk/0.csv has the label 'run'"),
        ("file,label,label\nwalk/0.csv,walk,run\n", "two columns are called 'label'"),
    ],
)
def test_a_recording_with_two_labels_is_refused(lines: str, said: str, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "walk", tmp_path / "walk")
    (tmp_path / "labels.csv").write_text(lines)
    with pytest.raises(DataError, match=said):
        recordings.load([tmp_path / "walk" / "0.csv"], WINDOW, Labels("label", tmp_path / "labels.csv"))


def test_a_file_with_labels_of_recordings_has_two_columns(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("recording,kind\nwalk/0.csv,walk\n")
    for file, said in (("labels.csv", "no column 'file'"), ("other.csv", "cannot be read: No such file or directory")):
        with pytest.raises(DataError, match=said) as found:
            recordings.load([folder / "*" / "*.csv"], WINDOW, Labels("label", tmp_path / file))
        assert "file,label" in found.value.hint


WRONG = {
    "data: {file: a.csv}, input: {window: {columns: [x], rows: 4, time: t}}": "`time` needs `gap`",
    "data: {file: a.csv}, input: {window: {columns: [x], rows: 4, gap: 1.0}}": "`gap` needs `time`",
    "data: {file: a.csv}, input: {window: {columns: [x, x], rows: 4}}": "'x' is listed twice",
    "data: {file: a.csv}, input: {window: {columns: [], rows: 4}}": "columns",
    "data: {file: a.csv}, input: {window: {columns: [x], rows: 0}}": "rows",
    "data: {file: a.csv}, input: {window: {columns: [x, y], rows: 40000}}": "80,000 numbers; at most 65,536",
    "data: {file: a.csv}, input: {window: {columns: [x], rows: 4, recording: x}}": "names recordings, so",
    "data: {file: a.npz}, input: {image: {size: [160, 160]}}": "76,800 numbers; without `stages`, at most 65,536",
    "data: {file: a.npz}, input: {audio: {rate: 16000}}": "how to make a stage .*, and `knnkit demo --sound`",
    "data: {file: a.npz}, input: {image: {size: [8, 8]}, pool: mean}": "`pool` needs `stages`",
    "data: {file: a.csv}, input: {windows: {columns: [x], rows: 4}}": "did you mean 'window'",
    "data: {file: a.csv}, reduce: edited, input: {window: {columns: [x], rows: 4}}": "`reduce` does not work",
    "data: {file: a.csv}, keep: {random: 5}, input: {window: {columns: [x], rows: 4}}": "leave `keep` out",
    "data: {sklearn: iris}, input: {window: {columns: [x], rows: 4}}": "cuts recordings: `data` must name their files",
    "data: {file: a.csv, missing: median}, input: {window: {columns: [x], rows: 4}}": "leave missing out",
    "data: {file: a.csv}, split: stratified, input: {window: {columns: [x], rows: 4}}": "whole recordings are held out",
    "data: {file: a.csv}, split: {time: t}, input: {window: {columns: [x], rows: 4}}": "whole recordings are held out",
    "data: {file: a.csv}, input: {window: {columns: [x], rows: 4}, features: [mea]}": "did you mean 'mean'",
    "data: {file: a.csv}, input: {window: {columns: [x], rows: 4}, features: [spectrum: 3]}": "no spectrum of 3 bands",
    "data: {file: a.csv}, input: {window: {columns: [x], rows: 4}, features: []}": "expected raw, or a list",
    "data: {file: a.csv}, input: {stages: [a.tflite], features: [mean]}": "`features` needs `window`",
    "data: {file: a.csv, labels: folder}": "`labels` needs a `window`",
    "data: {files: 'p/*/*', labels: folder}, input: {image: {size: [8, 8]}}": "`labels` needs a `window`",
}


@pytest.mark.parametrize("keys", WRONG)
def test_wrong_windows_in_deploy_yaml(keys: str) -> None:
    with pytest.raises(ConfigError, match=WRONG[keys]) as error:
        parse.parse(f"model: {{name: m, {keys}}}")
    assert error.value.hint
    assert ("the folder is the label already" in error.value.hint) == ("labels: folder}, input" in keys)


@pytest.mark.parametrize(
    ("data", "window", "said", "typed"),
    [
        ("files: '*/*.csv', label: folder", "", "no column 'folder'", "labels: folder in place of label: folder"),
        ("files: '*/*.csv', label: activity", ", time: when, gap: 1.0", ":1: ", "time: t in `window`"),
        ("file: ., label: activity", "", "is a folder, not a file", "/*/*.csv'"),
        ("files: walk, label: activity", "", "is a folder, not a file", "/walk/*.csv'"),
    ],
)
def test_the_key_of_a_wrong_recording_is_named(data: str, window: str, said: str, typed: str, folder: Path) -> None:
    with pytest.raises(DataError) as found:
        source.load(build(folder, data, f"columns: [ax, ay, az], rows: 32, hop: 16{window}"))
    assert said in str(found.value)
    assert typed in found.value.hint


@pytest.mark.parametrize("files", [["a.csv"], ["a/b.parquet"], ["a/b/c.tsv"], ["a/1.csv", "a/2.csv", "notes.txt"], []])
def test_a_folder_leads_to_the_pattern_of_its_files(files: list[str], tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    pattern = inside(tmp_path, SUFFIXES)
    if files:
        assert expand([Path(pattern)]) == tuple(tmp_path / name for name in files if name != "notes.txt")
    else:
        assert pattern == f"{tmp_path}/*.csv"
