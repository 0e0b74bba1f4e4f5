"""`knnkit init --data FILE`: looks at the rows first, and writes nothing where the later build could not read them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from knnkit import cli
from knnkit.config import load
from knnkit.config.parse import FileData
from knnkit.errors import DataError
from knnkit.training import source

ROWS = "width,height,species\n1,2,oak\n3,4,elm\n"


def init(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    capsys.readouterr()
    code = cli.main(["init", *arguments])
    return code, capsys.readouterr().err


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "label", "said", "mend"),
    [
        ("train.csv", None, "species", "train.csv: no such file", "the command line to the current folder"),
        ("train.csv", "", "species", "the file is empty", "line 1 names the columns"),
        ("train.csv", "width,height,species\n", "species", "there is a header, but no rows", "each line after"),
        ("train.csv", ROWS, None, "no column 'label'; there are width, height, species", "--label on the command line"),
        ("train.csv", ROWS, "specie", "no column 'specie'", "did you mean 'species'"),
        (
            "train.csv",
            ROWS.replace("3", "tall"),
            "species",
            "line 3, column 'width': 'tall' is not a number",
            "drop: [width]",
        ),
        ("train.csv", "\x00\xff", "species", "train.csv: ", ""),
        ("train.xlsx", "PK", "species", "the format of .xlsx is not supported", "export it as CSV"),
        ("train.npz", "PK", "species", "not an NPZ file of plain arrays", ""),
    ],
)
def test_rows_that_no_model_can_be_built_from_are_refused_and_nothing_is_written(
    name: str, content: str | None, label: str | None, said: str, mend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        Path(name).write_text(content, encoding="latin-1")
    before = sorted(Path().iterdir())
    code, err = init(capsys, "--data", name, *(["--label", label] if label else []))
    assert code == 2
    assert said in err
    assert mend in err.partition("\n  try: ")[2]
    assert "Traceback" not in err
    assert sorted(Path().iterdir()) == before


def test_the_next_command_makes_the_key_that_the_file_names(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a b").mkdir()
    _, err = init(capsys, "a b/deploy.yaml")
    typed = shlex.split(err.partition("`")[2].partition("`")[0])
    assert typed[:2] == ["knnkit", "keygen"]
    assert cli.main(typed[1:]) == 0
    assert load.load("a b/deploy.yaml").signing.key.is_file()


def test_a_second_deploy_yaml_has_a_release_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    Path("train.csv").write_text(ROWS)
    names = ("deploy.yaml", "OTHER.yaml", "my third.yaml")
    for name in names:
        assert init(capsys, name, "--data", "train.csv", "--label", "species")[0] == 0
    assert [load.load(name).release.dir.name for name in names] == ["dist", "dist-OTHER", "dist-my-third"]


def test_it_is_the_error_that_the_build_would_give(capsys: pytest.CaptureFixture[str]) -> None:
    Path("train.csv").write_text(ROWS.replace("3", "tall"))
    _, err = init(capsys, "--data", "train.csv", "--label", "species")
    Path("deploy.yaml").write_text("model: {name: a, data: {file: train.csv, label: species}, test: 0}\n")
    with pytest.raises(DataError) as caught:
        source.load(load.load("deploy.yaml").builds()[0])
    assert str(caught.value).removeprefix(f"{Path.cwd()}/") in err
    assert caught.value.hint in err


def test_a_file_that_may_not_be_read_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("train.csv").write_text(ROWS)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "train.csv")

    monkeypatch.setattr("knnkit.data.files.load_csv", refuse)
    code, err = init(capsys, "--data", "train.csv", "--label", "species")
    assert (code, Path("deploy.yaml").exists()) == (2, False)
    assert "train.csv: cannot be read: Permission denied" in err


def test_a_pattern_of_files_is_named_one_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a 1.csv").write_text(ROWS)
    code, err = init(capsys, "--data", "a*.csv", "--label", "species")
    assert (code, Path("deploy.yaml").exists()) == (2, False)
    assert "--data 'a 1.csv'; then write files: 'a*.csv' in place of file: in deploy.yaml" in err


@pytest.mark.parametrize("pattern", ["data/**.csv", "d*/a.csv", "**/a.csv"])
def test_a_pattern_may_be_in_a_folder_part(pattern: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data").mkdir()
    Path("data/a.csv").write_text(ROWS)
    code, err = init(capsys, "--data", pattern, "--label", "species")
    assert (code, Path("deploy.yaml").exists()) == (2, False)
    assert f"--data data/a.csv; then write files: '{pattern}'" in err


def test_a_folder_of_recordings_leads_to_the_pattern_of_its_files(capsys: pytest.CaptureFixture[str]) -> None:
    Path("logs/healthy").mkdir(parents=True)
    Path("logs/healthy/1.csv").write_text("t,x\n0,1\n")
    code, err = init(capsys, "--data", "logs")
    assert (code, Path("deploy.yaml").exists()) == (2, False)
    assert "--data takes one file of labelled rows, not the folder logs" in err
    assert "try: knnkit init; then write data: {files: 'logs/*/*.csv', ...}" in err
    assert init(capsys)[0] == 0


def test_a_file_after_the_features_is_taken_for_none_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    Path("train.csv").write_text(ROWS)
    code, err = init(capsys, "--data", "train.csv", "--label", "species", "--features", "width", "mine.yaml")
    assert (code, list(Path().glob("*.yaml"))) == (2, [])
    assert "--features takes all words that follow it as columns, also 'mine.yaml'" in err
    assert "knnkit init mine.yaml --data" in err


def test_what_it_writes_reads_the_rows_that_it_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    Path("rows").mkdir()
    Path("rows/train.csv").write_text("note,width,height,species\n" + "x,1,2,oak\n" * 3)
    code, err = init(capsys, "--data", "rows/train.csv", "--label", "species", "--features", "height", "width")
    assert (code, "next, `knnkit keygen" in err) == (0, True)
    build = load.load("deploy.yaml").builds()[0]
    assert isinstance(build.model.data, FileData)
    assert build.model.data.features == ("height", "width")
    assert np.array_equal(source.load(build).training.rows[0], [2.0, 1.0])
    assert init(capsys, "--data", "rows/train.csv")[0] == 2, "the file is there"


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("fruit", "fruit"),
        ("my rows (2)", "my-rows--2"),
        ("Größe-né", "Gro-e-ne"),
        ("2024", "2024"),
        ("1e5", "1e5"),
        ("true", "true"),
        ("null", "null"),
        ("日本", "model"),
        ("x" * 70, "x" * 64),
    ],
)
def test_a_model_is_called_after_its_file_by_a_name_that_a_build_takes(stem: str, name: str) -> None:
    Path(f"{stem}.csv").write_text(ROWS)
    assert cli.main(["init", "own.yaml", "--data", f"{stem}.csv", "--label", "species"]) == 0
    assert load.load(Path("own.yaml")).builds()[0].model.name == name


def test_columns_may_be_named_one_by_one_and_none_twice(capsys: pytest.CaptureFixture[str]) -> None:
    Path("train.csv").write_text(ROWS)
    rows = ("--data", "train.csv", "--label", "species")
    code, err = init(capsys, *rows, "--features", "height", "--features", "height")
    assert (code, "--features names 'height' twice" in err) == (2, True)
    assert init(capsys, *rows, "--features", "height", "--features", "width")[0] == 0
    data = load.load("deploy.yaml").builds()[0].model.data
    assert isinstance(data, FileData)
    assert data.features == ("height", "width")


def test_a_folder_that_is_not_there_is_named_with_what_makes_it(capsys: pytest.CaptureFixture[str]) -> None:
    code, err = init(capsys, "a b/c/deploy.yaml")
    assert (code, err) == (2, "knnkit: a b/c/deploy.yaml: there is no directory a b/c\n  try: mkdir -p 'a b/c'\n")


def test_a_column_that_numbers_the_rows_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{n},{n % 7},{n % 5},{'ab'[n % 2]}" for n in range(1, 31)]
    Path("train.csv").write_text("\n".join(["id,width,height,species", *lines, ""]))
    code, err = init(capsys, "--data", "train.csv", "--label", "species")
    assert code == 0
    assert "warning: train.csv: the column 'id' holds 1 to 30, each once" in err
    assert "drop: [id] beside `label` in deploy.yaml leaves it out" in err
    Path("deploy.yaml").unlink()
    arguments = ("--data", "train.csv", "--label", "species", "--features", "width", "height")
    assert "warning" not in init(capsys, *arguments)[1]


@pytest.mark.parametrize("option", [("--label", "species"), ("--features", "a", "b")])
def test_an_option_about_rows_without_rows_is_not_passed_over(
    option: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, err = init(capsys, *option)
    assert (code, Path("deploy.yaml").exists()) == (2, False)
    assert f"{option[0]} needs --data, the file with the rows" in err
    assert "try: --data train.csv" in err


def test_it_loads_nothing_that_builds(capsys: pytest.CaptureFixture[str]) -> None:
    Path("train.csv").write_text(ROWS)
    assert init(capsys, "--data", "train.csv", "--label", "species")[0] == 0
    assert "tensorflow" not in sys.modules


def test_a_file_that_is_a_column_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("f.csv").write_text("width,Species,Health\n1,oak,0\n2,elm,1\n")
    code, err = init(capsys, "--data", "f.csv", "--label", "Species", "Health")
    assert code == 2
    assert "Health is a column of f.csv" in err
    assert not Path("Health").exists()
    typed = err.partition("  try: knnkit init ")[2].partition(";")[0].split()
    assert init(capsys, *typed)[0] == 0
    text = Path("deploy.yaml").read_text()
    lines = err.partition("then write ")[2].partition(" in the file")[0]
    Path("deploy.yaml").write_text(text.replace("label: 'Species'", lines))
    data = load.load("deploy.yaml").builds()[0].model.data
    assert isinstance(data, FileData)
    assert data.label == ("Species", "Health")


@pytest.mark.parametrize(
    ("command", "code", "said"), [("audit", 2, "label: Species; then run it again"), ("tune", 0, "")]
)
def test_audit_names_a_label_of_the_user(
    command: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"{n},{n % 3},{'ab'[n % 2]},{'xy'[n % 2]}\n" for n in range(20))
    Path("f.csv").write_text("a,b,Species,Health\n" + rows)
    answers = {"label: [Species, Health]": (code, said), "target: [b], drop: [Species, Health]": (0, "")}
    for keys, (expected, words) in answers.items():
        Path("deploy.yaml").write_text(f"model: {{name: a, data: {{file: f.csv, {keys}}}, test: 0}}\n")
        assert cli.main([command]) == expected
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["new\nline.csv", 'it\'s a "tab\t".csv', "- a: #b.csv", "\u202e\x1b[2J.csv", "~.csv", "{a}.csv"]
)
def test_a_file_of_any_name_is_named_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(name).write_text(ROWS)
    code, said = init(capsys, "--data", f"./{name}", "--label", "species")
    assert code == 0, said
    data = load.load("deploy.yaml").builds()[0].model.data
    assert isinstance(data, FileData)
    assert [source.resolve() for source in data.sources] == [Path(name).resolve()]


def test_init_and_the_gate_doubt_labels_that_are_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    Path("n.csv").write_text("a,quality\n" + "".join(f"{row * 7 % 13}.5,{row}.25\n" for row in range(60)))
    code, err = init(capsys, "--data", "n.csv", "--label", "quality")
    assert code == 0
    assert "warning: n.csv: All 60 labels are numbers: to predict a number, write `target:`" in err
    assert cli.main(["keygen", "--out", "keys/signing"]) == 0
    capsys.readouterr()
    assert cli.main(["build"]) != 0
    assert "try: All 60 labels are numbers: to predict a number, write `target:`" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.png", "*.png"])
def test_pictures_are_no_table(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.png").write_bytes(b"")
    code, err = init(capsys, "--data", name, "--label", "species")
    assert (code, Path("deploy.yaml").exists()) == (2, False)
    assert "--data takes a table; a.png is not one" in err
    assert "knnkit init; then write `data` and `input` as docs/guide.md shows for sounds and pictures" in err


@pytest.mark.parametrize("above", ["Fruit 2026;;\n", "Fruit 2026\n\n# by the lab, again\n"])
def test_a_wrong_label_is_answered_with_the_columns_below_a_title(
    above: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.csv").write_text(f"{above}width;height;species\n1,5;2;apple\n")
    code, err = init(capsys, "--data", "a.csv", "--label", "Species")
    assert (code, Path("deploy.yaml").exists()) == (2, False)
    assert "no column 'Species'; there are width, height, species" in err
    assert "did you mean 'species'" in err


def test_one_line_is_counted_in_the_singular(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.csv").write_text("a,b,species\n1,2,\n1,x,apple\n1,2,apple\n")
    _, err = init(capsys, "--data", "a.csv", "--label", "species")
    assert "(1 line without a label, 1 not a number)" in err
