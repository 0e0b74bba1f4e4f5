"""Files become labelled inputs: by folder, by a part of their path, or by a table of paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_agent.shared.embedding.files import suffixes_of
from knnkit.data.patterns import expand
from knnkit.data.raw_files import are_raw, list_files
from knnkit.errors import DataError

FILES = ("yes/anna-1.wav", "yes/anna-2.wav", "yes/bo_b-1.wav", "no/anna-1.wav", "no/deep/c-9.wav", "no/readme.txt")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / "sounds+[1]" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "sounds+[1]"


def test_the_folder_of_a_file_is_its_label(tmp_path: Path) -> None:
    for name in ("a/1.wav", "a/2.wav", "b/1.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = list_files([tmp_path / "*" / "*.wav"], "label", None, None)
    assert found.labels == ("a", "a", "b")
    assert found.names == ("a/1.wav", "a/2.wav", "b/1.wav")
    assert found.groups is None
    made = found.dataset()
    assert made.rows.shape == (3, 0)
    assert made.ids is not None
    assert made.ids.tolist() == list(found.names)


def test_a_pattern_counts_the_files_of_other_kinds_that_it_matches(folder: Path, tmp_path: Path) -> None:
    for name in ("yes/song.MP3", "yes/.hidden.mp3", "no/face.png", "no/deep/anna.mp3"):
        (folder / name).touch()
    (folder / "no" / "more.mp3").mkdir()
    there, sounds = Path(str(folder).replace("[", "[[]")), suffixes_of(True, None)
    plain = list_files([there / "*" / "*.wav"], "label", None, None, sounds)
    found = list_files([there / "{word}" / "*"], "word", None, None, sounds)
    assert (plain.others, found.paths, found.labels) == ("", plain.paths, plain.labels)
    assert found.others == "3 files are of other kinds, and left out: 1 .png, 1 .txt, 1 .mp3"
    for wrong, said in ((there / "*" / "*.txt", "no .wav, .*file; 1 file is"), (folder, "is a folder, not a file")):
        with pytest.raises(DataError, match=said) as caught:
            list_files([wrong], "label", None, None, sounds)
        assert "/*/*.wav'" in caught.value.hint
    (tmp_path / "own" / "a").mkdir(parents=True)
    (tmp_path / "own" / "a" / "1.flac").touch()
    for of, how in ((sounds, "ffmpeg -i "), (suffixes_of(None, True), "magick "), (suffixes_of(None, None), "numpy")):
        with pytest.raises(DataError, match="1 file is of other kinds") as caught:
            list_files([tmp_path / "own" / "*" / "*"], "label", None, None, of)
        assert how in caught.value.hint
        assert "a/1.flac" in caught.value.hint


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{word}/{voice}-*.wav", {("yes", "anna"), ("yes", "bo_b"), ("no", "anna")}),
        ("{word}/**/{voice}-?.wav", {("yes", "anna"), ("yes", "bo_b"), ("no", "anna"), ("no", "c")}),
        ("{voice}/{word}-1.wav", {("anna", "yes"), ("bo_b", "yes"), ("anna", "no")}),
    ],
)
def test_parts_of_a_pattern_name_label_and_group(pattern: str, expected: set[tuple[str, str]], tmp_path: Path) -> None:
    for name in FILES:
        path = tmp_path / "s+1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = list_files([tmp_path / "s+1" / pattern], "word", None, "voice")
    assert found.groups is not None
    assert set(zip(found.labels, found.groups)) == expected
    assert list(found.paths) == list(expand([tmp_path / "s+1" / pattern]))


@pytest.mark.parametrize("pattern", [
    "{word}/*", "{word}/**", "**/{word}/*-?.wav", "{word}/[a-b]*-[!2].wav", "[ny]*/{word}-1.wav", "{word}/[[]b]*",
    "{word}/a[^n]*", "{word}/[-a]*.wav", "n{word}/*-1.wav", "{word}/[]a]*", "<word>/{word}.wav",
])  # fmt: skip
@pytest.mark.parametrize("name", ["plain", "sounds+[1]", "a b (2)", "of {maker}"])
def test_every_file_that_a_pattern_finds_has_its_parts(pattern: str, name: str, tmp_path: Path) -> None:
    files = (*FILES, "no/[b]x.wav", "no/no-1.wav", "yes/a^z.wav", "no/]x.wav", "<word>/no.wav")
    for path in (tmp_path / folder / file for folder in (name, "of another") for file in files):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    source = tmp_path / name / pattern
    found = list_files([source], "word", None, None, (".wav", ".txt"))
    assert found.paths == expand([source])
    assert all(word in str(path) for word, path in zip(found.labels, found.paths))


def test_a_part_that_is_named_twice_is_one_text(tmp_path: Path) -> None:
    for name in ("no/no-1.wav", "yes/no-1.wav"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"yes/no-1\.wav does not fit the pattern"):
        list_files([tmp_path / "{word}" / "{word}-1.wav"], "word", None, None)
    (tmp_path / "yes" / "no-1.wav").rename(tmp_path / "yes" / "yes-1.wav")
    assert list_files([tmp_path / "{word}" / "{word}-1.wav"], "word", None, None).labels == ("no", "yes")


def test_paths_from_the_folder_and_from_the_root_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for part in ("near", "far"):
        Path(part).mkdir()
        Path(part, "1.wav").touch()
    found = list_files([Path("near/*.wav"), tmp_path / "far" / "*.wav"], "label", None, None)
    assert (found.labels, found.names) == (("near", "far"), ("near/1.wav", "far/1.wav"))
    Path("t.csv").write_text(f"path,label\nnear/1.wav,a\n{tmp_path}/far/1.wav,b\n")
    assert list_files([Path("t.csv")], "label", "path", None).names == found.names
    twice = [Path("near/*.wav"), tmp_path / "far" / "*.wav", tmp_path / "near" / "*.wav", Path("far/*.wav")]
    assert list_files(twice, "label", None, None).names == found.names, "a file counts once, however it is named"


def test_a_table_of_paths(folder: Path) -> None:
    table = folder / "clips.csv"
    table.write_text("\ufefffile,word,who\nyes/anna-1.wav,yes,anna\n\nno/deep/c-9.wav,no,c\n", encoding="utf-8")
    found = list_files([table], "word", "file", "who")
    assert found.paths == (folder / "yes/anna-1.wav", folder / "no/deep/c-9.wav")
    assert (found.labels, found.groups) == (("yes", "no"), ("anna", "c"))
    for text, said in (
        ("file,word\nmissing.wav,yes\n", "line 2: "),
        ("file,word\nyes/anna-1.wav\n", "line 2: expected 2 cells, found 1"),
        ("path,word\nyes/anna-1.wav,yes\n", "'file'"),
        ("file,word\n", "there is a header, but no rows"),
        ("", "cannot be read"),
    ):
        table.write_text(text)
        with pytest.raises(DataError, match=said):
            list_files([table], "word", "file", None)


def test_what_is_wrong_with_a_pattern_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.wav").touch()
    with pytest.raises(DataError, match="label names 'word', and the pattern has kind"):
        list_files([tmp_path / "{kind}" / "*.wav"], "word", None, None)
    with pytest.raises(DataError, match="no file matches"):
        list_files([tmp_path / "{kind}" / "*.png"], "kind", None, None)


def test_sounds_and_pictures_are_told_from_tables() -> None:
    assert are_raw([Path("a/*.wav"), Path("b/*.PNG")], None, False)
    assert are_raw([Path("clips.csv")], "file", False)
    assert not are_raw([Path("train.csv")], None, True)
    assert [are_raw([Path("pics/*/*")], None, takes_files) for takes_files in (True, False)] == [True, False]


@pytest.mark.parametrize(("label", "group", "hint"), [
    ("speaker", None, "label: word"), ("worde", None, "label: word"), ("word", "voices", "split: {group: voice}"),
])  # fmt: skip
def test_a_part_that_the_pattern_lacks_is_named(label: str, group: str | None, hint: str, tmp_path: Path) -> None:
    (tmp_path / "yes").mkdir()
    (tmp_path / "yes" / "anna-1.wav").touch()
    with pytest.raises(DataError, match="the pattern has voice, word") as found:
        list_files([tmp_path / "{word}" / "{voice}-1.wav"], label, None, group)
    assert found.value.hint == hint
