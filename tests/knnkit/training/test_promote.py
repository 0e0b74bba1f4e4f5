"""Rows from the field join the training data: each once, in a file of their own, and deploy.yaml keeps its text."""

from __future__ import annotations

import csv
import itertools
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.datasets import load_iris
from support.releases import Releases

from device_agent.shared.enrolment.enrolled import label_of
from knnkit import cli
from knnkit.commands import diff
from knnkit.commands import promote as command
from knnkit.config import edit, load
from knnkit.config.parse import parse
from knnkit.data.collected import Collection, Columns, FieldRow, merge
from knnkit.data.dataset import label_array
from knnkit.errors import ConfigError, DataError, KnnkitError, UsageError
from knnkit.model.stored import read_model
from knnkit.release.up_to_date import manifest_in
from knnkit.training import promote, source

DATA = {
    "flow": "data: {file: 'train.csv', label: y, drop: [when]}  # ours",
    "block": "data:\n    # the rows\n    file: train.csv   # here\n    label: y\n    drop: [when]",
    "list": "data: {files: [train.csv], label: y, drop: [when]}",
    "block list": "data:\n    files:\n      - train.csv   # first\n    label: y\n    drop: [when]",
    "pattern": "data: {files: 'tr*.csv', label: y, drop: [when]}",
    "with ids": "data: {file: train.csv, label: y, drop: [when], id: name}",
    "group": "data: {file: train.csv, label: y, drop: [when]}\n  split: {group: place}",
    "group with ids": "data: {file: train.csv, label: y, drop: [when], id: name}\n  split: {group: name}",
}


def project(folder: Path, data: str, ints: bool = False) -> Path:
    draw = random.Random(1)
    with (folder / "train.csv").open("w") as file:
        file.write("when,name,a,device,place,y\n")
        for number in range(60):
            label = number % 3 if ints else "xyz"[number % 3]
            file.write(f"t{number},n{number},{draw.gauss(number % 3, 0.1):.3f},{number % 5},p{number % 7},{label}\n")
    if "id: name" not in data:
        data = data.replace("drop: [when]", "drop: [when, name]")
    if "group: place" not in data:
        data = data.replace("drop: [when", "drop: [place, when")
    file = folder / "deploy.yaml"
    file.write_text(f"# head\nmodel:\n  name: m   # its name\n  {data}\n  k: 1\n  test: 0.2   # held out\n")
    return file


def field_rows(count: int, label: str | None = "new", start: int = 0) -> tuple[FieldRow, ...]:
    return tuple(
        FieldRow(f"id{n}", f'b,"{n}', 1_700_000_000 + n, "enrolled", label, None, None, "d", (float(n % 4), n + 0.125))
        for n in range(start, start + count)
    )


def plan(file: Path, rows: tuple[FieldRow, ...], names: tuple[str, ...] = ("device", "a")) -> promote.Promotion:
    build, material = promote.load(load.load(file).builds()[0], file.parent)
    collection = Collection(file.with_name("m.parquet"), Columns("m", names), rows)
    return promote.plan(build, material, collection, file.parent)


def test_the_rows_of_the_next_model_have_the_numbers_of_the_files(tmp_path: Path) -> None:
    file = project(tmp_path, DATA["list"])
    _, material = promote.load(load.load(file).builds()[0], tmp_path)
    numbers = command.row_numbers(material, 2).tolist()
    assert numbers[-2:] == [60, 61], "the file has 60 rows, of which 12 are held out"
    assert material.training.places is not None
    assert numbers[:-2] == material.training.places.tolist()


@pytest.mark.parametrize("kind", DATA)
def test_promoted_rows_are_loaded_with_the_others_and_nothing_else_changes(kind: str, tmp_path: Path) -> None:
    file = project(tmp_path, DATA[kind])
    train, text = (tmp_path / "train.csv").read_bytes(), file.read_text()
    before = source.load(load.load(file).builds()[0])
    first = plan(file, (*field_rows(5), *field_rows(2, None, 5)))
    assert (len(first.rows), first.waiting, first.there) == (5, 2, 0)
    promote.write(first)
    assert command._list(file, load.load(file).builds()[0], first)
    assert not command._list(file, load.load(file).builds()[0], first), "it is listed once"
    changed = file.read_text()
    for line in text.splitlines():
        comment = line.partition("#")[2]
        assert comment in changed
    after = source.load(load.load(file).builds()[0])
    rows = [np.concatenate([m.training.rows, m.held_out.rows]) for m in (before, after) if m.held_out]
    assert len(rows[1]) == len(rows[0]) + 5
    assert after.training.feature_names == before.training.feature_names == ("a", "device")
    every = {tuple(row) for row in rows[1].tolist()}
    assert {(n + 0.125, float(n % 4)) for n in range(5)} <= every
    ids = {*(after.training.ids if after.training.ids is not None else ())}
    assert ids >= {f"id{n}" for n in range(5)}, "promoted rows are never held out: every device knows them"
    assert before.held_out is not None
    assert np.array_equal(after.held_out.rows, before.held_out.rows), "the evaluation rows stay the same"  # type: ignore[union-attr]
    again = plan(file, (*field_rows(5), *field_rows(1, "other", 4), *field_rows(3, "x", 5)))
    assert (len(again.rows), again.there, again.differing) == (3, 6, ("id4",))
    assert again.content.startswith(first.content), "lines that are there stay"
    promote.write(again)
    assert [row["y"] for row in csv.DictReader(again.path.read_text().splitlines())] == ["new"] * 5 + ["x"] * 3
    again.path.unlink()
    assert plan(file, field_rows(5)).content == first.content, "a lost file is written again"
    assert (tmp_path / "train.csv").read_bytes() == train


def test_the_file_of_a_linked_deploy_yaml_stands_where_its_paths_start(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = project(tmp_path, DATA["flow"])
    link.symlink_to(link.rename(tmp_path / "elsewhere" / "prod.yaml"))
    merge(tmp_path / "m.parquet", Columns("m", ("device", "a")), field_rows(2, "x"))
    assert cli.main(["promote", str(tmp_path / "m.parquet"), "-c", str(link)]) == 0
    assert link.is_symlink()
    assert len(source.load(load.load(link).builds()[0]).training.rows) == 50


def test_wrong_columns_labels_and_sources_are_refused_by_name(tmp_path: Path) -> None:
    file = project(tmp_path, DATA["flow"], ints=True)
    cases = {
        "they lack 'a', they have 'b'": (field_rows(1, "1"), ("device", "b")),
        "they lack 'a'": (field_rows(1, "1"), ("device", "device2")),
        "'new' is not a whole number": (field_rows(1), ("device", "a")),
        "reserved": (field_rows(1, "unknown"), ("device", "a")),
    }
    for said, (rows, names) in cases.items():
        with pytest.raises(KnnkitError, match=said) as found:
            plan(file, rows, names)
        assert found.value.hint
    feature = load.load(project(tmp_path, "data: {file: train.csv, label: y, features: [device, a], id: device}"))
    with pytest.raises(UsageError, match="`id` names 'device', a feature"):
        promote.plan(
            *promote.load(feature.builds()[0], tmp_path), Collection(file, Columns("m", ("device", "a")), ()), tmp_path
        )
    file = project(tmp_path, DATA["flow"], ints=True)
    build = load.load(file).builds()[0]
    other = Collection(file, Columns("other", ("a",)), ())
    with pytest.raises(UsageError, match="rows of other, not of m"):
        promote.check(build, other)
    iris = parse("model: {name: m, data: {sklearn: iris}}", base=tmp_path).builds()[0]
    with pytest.raises(UsageError, match="names files of labelled rows"):
        promote.check(iris, Collection(file, Columns("m", ("a",)), ()))
    raw = parse(
        "model: {name: m, data: {file: train.csv, label: y}, input: {stages: [s.tflite]}}", base=tmp_path
    ).builds()[0]
    with pytest.raises(UsageError, match="features, not the samples, sounds or pictures"):
        promote.check(raw, Collection(file, Columns("m", ("a",)), ()))
    promoted = plan(file, field_rows(1, "1"))
    promote.write(promoted)
    content = promoted.content
    for said, wrong in {
        "does not end with a newline": content.rstrip(b"\n"),
        "line 3: the header has 8 cells, this line 2": content + b"1,2\n",
        "it lacks 'a', it lacks 'device'": content.replace(b",", b";"),
        "(?m)it has 'note'$": content.replace(b"\n", b",note\n"),
        "(?m)it lacks 'a'$": content.replace(b"a,device,", b"device,", 1),
        "(?m)it has a column twice$": content.replace(b"\n", b",a\n"),
        "not a CSV file": content + b'"\xff',
    }.items():
        promoted.path.write_bytes(wrong)
        with pytest.raises(DataError, match=said) as found:
            plan(file, field_rows(2, "1"))
        assert f"or move {promoted.path} away" in found.value.hint


def test_a_file_that_a_person_changed_is_continued(tmp_path: Path) -> None:
    """An editor writes a mark and other line ends, columns get another order, rows move into another file."""
    file = project(tmp_path, DATA["with ids"])
    first = plan(file, field_rows(2))
    promote.write(first)
    command._list(file, load.load(file).builds()[0], first)
    table = csv.reader(first.content.decode().splitlines())
    with first.path.open("w", encoding="utf-8-sig", newline="") as out:
        csv.writer(out).writerows(line[::-1] for line in table)
    second = plan(file, field_rows(4))
    assert (len(second.rows), second.there, second.differing) == (2, 2, ())
    with pytest.raises(DataError, match="changed by another process") as found:
        promote.write(first)
    assert found.value.hint == "type the same command again"
    promote.write(second)
    assert len(source.load(load.load(file).builds()[0]).training.ids) > 4  # type: ignore[arg-type]
    for content in (None, b"", b"\n", second.content.splitlines()[0]):
        second.path.unlink() if content is None else second.path.write_bytes(content)
        assert len(plan(file, field_rows(4)).rows) == 4, "a file that is gone is written again"
    with (tmp_path / "train.csv").open("a") as out:
        out.write("t,id0,1.0,2,p,new\n")
    assert [row.id for row in plan(file, field_rows(2)).rows] == ["id1"], "a person moved the other into their own file"


def test_a_file_name_of_any_kind_is_listed(tmp_path: Path) -> None:
    for name in ("field/m.csv", "a b.csv", "it's, [new].csv", "\u00e9.csv", "-x.csv", "# y.csv"):
        for data in DATA.values():
            text = f"model:\n  name: m\n  {data}\n"
            own = None if "id: name" in data else "row_id"
            found = yaml.safe_load(edit.with_file(text, ("model", "data"), name, own, "deploy.yaml"))["model"]["data"]
            assert (found["files"][-1], found["id"]) == (name, own or "name")
    with pytest.raises(ConfigError, match="uses this section elsewhere"):
        edit.with_file("a: &d {file: x.csv}\nmodel: {data: *d}\n", ("model", "data"), "y.csv", None, "deploy.yaml")


TARGETS = ("east, m", "a=b", "a", "1, a=3")


def test_rows_of_a_regression_join_under_any_names_of_targets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "train.csv").open("w", newline="") as out:
        csv.writer(out).writerows([("x", *TARGETS), *((n / 7, n, 2 * n, -n, n / 4) for n in range(40))])
    targets = ", ".join(f"'{name}'" for name in TARGETS)
    (file := tmp_path / "deploy.yaml").write_text(
        f"model:\n  name: m\n  data: {{file: train.csv, target: [{targets}]}}\n  k: 1\n  test: 0.2\n"
    )
    drawn = np.random.default_rng(3).normal(size=(20, 4)) * 10.0 ** np.arange(-9, 11).reshape(20, 1)
    draw, rows = random.Random(1), []
    for number, values in enumerate(drawn.tolist()):
        pairs = [f"{name}={value:.17g}" for name, value in zip(TARGETS, values)]
        draw.shuffle(pairs)
        rows.append(
            FieldRow(f"id{number}", "b", number, "enrolled", ", ".join(pairs), None, None, "d", (number + 0.5,))
        )
    merge(tmp_path / "m.parquet", Columns("m", ("x",)), rows)
    words = ["promote", str(tmp_path / "m.parquet"), "--config", str(file)]
    assert cli.main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (len(document["rows"]), document["gain"]) == (20, None)
    training = source.load(load.load(file).builds()[0]).training
    assert training.ids is not None
    assert training.targets is not None
    there = {name: values for name, values in zip(training.ids.tolist(), training.targets.tolist()) if name}
    assert there == {f"id{number}": values for number, values in enumerate(drawn.tolist())}
    assert cli.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) | {"file": ""} == {
        "file": "", "rows": [], "already": 20, "without_label": 0, "no_cell": {}, "differing": [], "contradicting": [],
            "gain": None,
    }  # fmt: skip
    for wrong in ("3", "a=1", rows[0].label + ", a=1", rows[0].label + ",", rows[0].label.replace("a=b", "a=c"), "a=x"):  # type: ignore[operator,union-attr]
        with pytest.raises(DataError, match="not a value of each target"):
            plan(file, (replace(rows[0], id="new", label=wrong),), ("x",))


@pytest.mark.parametrize("kind", ["label", "target"])
@pytest.mark.parametrize("sign", ["", ".", ",", " ", "'"])
def test_numbers_of_the_field_keep_their_value_whatever_separates_thousands(
    sign: str, kind: str, tmp_path: Path
) -> None:
    cells = [1.234, 1234.5, -0.5, 12345.0, 1e-07, 1.5e20, -1234567.25]
    lines = "".join(f"{n},{n % 3}\n" for n in range(30))
    (tmp_path / "train.csv").write_text(f"a,y\n{lines}")
    file = tmp_path / "deploy.yaml"
    how = f", thousands: {json.dumps(sign)}" if sign else ""
    file.write_text(f"model:\n  name: m\n  data: {{file: train.csv, {kind}: y{how}}}\n  k: 1\n")
    rows = tuple(
        FieldRow(f"id{n}", "b", n, "enrolled", "1" if kind == "label" else f"{cell:.17g}", None, None, "d", (cell,))
        for n, cell in enumerate(cells)
    )
    first = plan(file, rows, ("a",))
    promote.write(first)
    command._list(file, load.load(file).builds()[0], first)
    training = source.load(load.load(file).builds()[0]).training
    assert training.rows[-len(cells) :, 0].tolist() == np.array(cells, training.rows.dtype).tolist()
    if training.targets is not None:
        assert training.targets[-len(cells) :, 0].tolist() == cells
    again = plan(file, rows, ("a",))
    assert (again.rows, again.there, again.differing) == ((), len(cells), ())


def test_rows_with_one_label_never_join_several_label_columns(tmp_path: Path) -> None:
    file = project(tmp_path, "data: {file: train.csv, label: [y, place], features: [a, device]}")
    with pytest.raises(UsageError, match="one label for each row, but `label` names 2 columns") as found:
        plan(file, field_rows(1))
    assert found.value.hint


@pytest.mark.parametrize("label", ["--5", "007", "\uff15", "5.0", "+5", "1" * 30, "\u0665", "1_000"])
def test_what_only_looks_like_a_whole_number_never_joins_numbers(label: str, tmp_path: Path) -> None:
    file = project(tmp_path, DATA["flow"], ints=True)
    with pytest.raises(DataError, match="is not a whole number"):
        plan(file, field_rows(1, label))


def test_a_device_takes_two_labels_for_one_where_training_data_does() -> None:
    """Generated: `1.0` is `1` among labels that are text, on a device at once, and in the promoted file later."""
    draw, pool = random.Random(2), ["1", "1.0", "2", "2.0", "0", "-0", "b", "1.5", "07", "\u00e9", "e\u0301"]
    for _ in range(300):
        training, taught = ["a", *draw.sample(pool, 4)], draw.choices(pool, k=5)
        classes = np.unique(label_array(training, "train.csv")).tolist()
        known: list[str] = []
        for text in taught:
            known.append(str(label_of(text, classes, known)))
        ours = [str(label_of(text, classes)) for text in training] + known
        theirs = label_array([*training, *taught], "both").tolist()
        pairs = list(itertools.combinations(range(len(ours)), 2))
        assert [ours[i] == ours[j] for i, j in pairs] == [theirs[i] == theirs[j] for i, j in pairs], (training, taught)
    assert label_of("1.0", ("a", "1")) == "1"
    assert label_of("1", ("a", "1.0")) == "1.0"
    assert label_of("1.0", (1, 2)) is None, "a model of whole numbers refuses it, as `promote` does"


@pytest.mark.parametrize(("k", "said"), [(1, ""), (3, "k: 3 needs more training rows to win a vote: 'zz' has 1 of 2")])
def test_a_new_class_that_can_never_win_is_pointed_out(
    k: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = project(tmp_path, DATA["flow"])
    file.write_text(file.read_text().replace("k: 1\n", f"k: {k}\n  weights: uniform\n"))
    merge(tmp_path / "m.parquet", Columns("m", ("device", "a")), field_rows(1, "zz"))
    assert cli.main(["promote", str(tmp_path / "m.parquet"), "--config", str(file)]) == 0
    shown = capsys.readouterr().err
    assert said in shown
    assert ("to win a vote" in shown) == bool(said)


@pytest.mark.parametrize(("scale", "value", "warned"), [("standard", 1e38, 1), ("none", 1e38, 0), ("standard", 3.5, 0)])
def test_a_taught_value_that_would_decide_the_scale_is_pointed_out(
    scale: str, value: float, warned: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = project(tmp_path, DATA["flow"])
    file.write_text(file.read_text().replace("k: 1\n", f"k: 1\n  scale: {scale}\n"))
    far = replace(field_rows(1, "x")[0], id="far", cells=(2.0, value))
    merge(tmp_path / "m.parquet", Columns("m", ("device", "a")), [*field_rows(2, "y", 1), far])
    assert cli.main(["promote", str(tmp_path / "m.parquet"), "--config", str(file)]) == 0
    assert capsys.readouterr().err.count("row far (b,\"0): 'a' is 1e+38, but half of its values lie between") == warned
    found = source.load(load.load(file).builds()[0]).warnings
    assert sum("field/m.csv, line 4: 'a' is 1e+38" in said for said in found) == warned


def test_two_labels_of_equal_rows_are_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two boards were taught the same row; both rows are added, and a person decides."""
    file = project(tmp_path, DATA["flow"])
    first, other, same = field_rows(3)
    rows = [first, replace(first, id="n", device="south", label="x"), other, replace(other, id="m"), same]
    merge(tmp_path / "m.parquet", Columns("m", ("device", "a")), rows)
    words = ["promote", str(tmp_path / "m.parquet"), "--config", str(file)]
    assert cli.main([*words, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["contradicting"] == ["id0", "n"]
    assert cli.main(words) == 0
    assert '2 rows have the same cells as another row, but another label: new (b,"0, id0), x (south, n)' in "".join(
        capsys.readouterr()
    )


def test_a_category_that_a_device_did_not_keep_never_becomes_another_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kept row has no text of an unknown category. As a missing cell, training would fill it with the usual one."""
    file = project(tmp_path, "data: {file: train.csv, label: y, features: [a, place], CELLS}")
    for fills in "missing: median, ", "":
        keys = f"{fills}categories: {{place: one-hot}}, unknown_category: ignore"
        file.write_text(file.read_text().replace("CELLS", keys).replace("missing: median, ", fills))
        row = field_rows(1, "x")[0]
        taught = replace(row, cells=(1.0, "p9"))
        kept = replace(row, id="kept", kind="unknown", cells=(1.0, None))
        gap = replace(row, id="gap", cells=(1.0, None))
        merge(tmp_path / "m.parquet", Columns("m", ("a", "place"), ("place",)), [taught, kept, gap])
        words = ["promote", str(tmp_path / "m.parquet"), "--config", str(file)]
        assert cli.main([*words, "--json", "--dry-run"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert [each["id"] for each in told["rows"]] == ([taught.id, "gap"] if fills else [taught.id])
        assert told["no_cell"] == {"place": 1 if fills else 2}
    assert cli.main(words) == 0
    assert "2 rows left out: no cell in 'place'" in "".join(capsys.readouterr())
    assert "p9" in (source.load(load.load(file).builds()[0]).training.raw.levels or {})[1]  # type: ignore[union-attr]


def test_evaluation_rows_that_became_training_rows_measure_nothing(
    releases: Releases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With other training data, a random split holds out other rows than the release did."""
    model, iris = read_model(releases["iris"] / "model.tflite"), load_iris()
    rows = [",".join(map(str, [*values, iris.target_names[kind]])) for values, kind in zip(iris.data, iris.target)]
    (tmp_path / "train.csv").write_text("\n".join([",".join([*model.info.feature_names, "y"]), *rows, ""]))
    file = tmp_path / "deploy.yaml"
    file.write_text(
        "model: {name: m, data: {file: train.csv, label: y}, k: 3, test: 0.3, seed: 5}\n"
        f"release: {{dir: '{releases['iris']}'}}\n"
    )
    row = replace(field_rows(1, "setosa")[0], cells=(5.0, 3.4, 1.5, 0.2))
    merge(tmp_path / "m.parquet", Columns("m", model.info.feature_names), [row])
    assert cli.main(["promote", str(tmp_path / "m.parquet"), "-c", str(file), "--dry-run", "--json"]) == 0
    gain = json.loads(capsys.readouterr().out)["gain"]
    held_out = source.load(load.load(file).builds()[0]).held_out
    assert held_out is not None
    asked = diff.evaluated(releases["iris"], model)
    known = {values.tobytes() for values in held_out.rows}
    assert gain["rows"] == len(asked) + 1
    assert gain["known"] <= sum(values.tobytes() in known for values in asked.before) < len(asked)


def test_the_next_step_names_the_version_to_change(
    releases: Releases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = project(tmp_path, DATA["flow"])
    there = manifest_in(releases["iris"])
    assert there is not None
    steps = (
        (there.version, f": {there.version} is built already\nnext: knnkit deploy"),
        ("9.8.7", "0 added earlier\nnext: knnkit deploy"),
    )
    for start, (version, said) in enumerate(steps):
        with file.open("a") as out:
            out.write(f"release: {{dir: {releases['iris']}, version: {version}}}\n")
        merge(tmp_path / f"{version}.parquet", Columns("m", ("device", "a")), field_rows(2, start=2 * start))
        assert cli.main(["promote", str(tmp_path / f"{version}.parquet"), "--config", str(file)]) == 0
        assert said in capsys.readouterr().out
        file.write_text(file.read_text().rpartition("release:")[0])
