"""The audit finds what was planted in the rows, and agrees with a recount that leaves rows out."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from knnkit import cli
from knnkit.data.dataset import Dataset, dataset
from knnkit.data.targets import with_targets
from knnkit.model.reference.spec import KnnSpec
from knnkit.training import auditing


def planted(seed: int, count: int = 60) -> Dataset:
    """Two clear classes. Row 7 has the wrong label, 20 repeats 3, 21 almost repeats 4, 22 contradicts its copy 5."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    rows = random.normal(size=(count, 3)) + 8.0 * labels[:, None]
    rows[20], rows[21], rows[22] = rows[3], rows[4] + 1e-5, rows[5]
    labels[20], labels[21], labels[22] = labels[3], labels[4], 1 - labels[5]
    labels[7] = 1 - labels[7]
    return dataset(rows, np.array(["left", "right"])[labels], None, "planted")


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
@pytest.mark.parametrize("seed", range(4))
def test_what_was_planted_is_found(seed: int, metric: Any, weights: Any) -> None:
    rows = planted(seed)
    found = auditing.audit(rows, KnnSpec("m", 3, metric, weights, "standard"))
    doubtful = {each.row: each for each in found.findings if each.kind == "contradicted"}
    assert doubtful.keys() >= {7, 22}
    assert doubtful.keys() <= {7, 22, 5}  # with weights by distance, row 5 is contradicted by its copy
    assert (doubtful[7].label, doubtful[7].other) == (rows.labels[7], "left" if rows.labels[7] == "right" else "right")
    repeated = {each.row: each.like for each in found.findings if each.kind == "duplicate"}
    assert repeated == {20: 3, 21: 4, 22: 5}
    first = next(each for each in found.findings if each.kind == "duplicate")
    assert (first.row, first.label == first.other) == (22, False)


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.4])
@pytest.mark.parametrize("count", [1, 2])
def test_targets_far_from_those_of_the_neighbours_are_found(noise: float, weights: Any, count: int) -> None:
    random = np.random.default_rng(3)
    rows = random.uniform(size=(300, 2))
    targets = rows @ random.normal(size=(2, count)) * 4.0 + noise * random.normal(size=(300, count))
    clean = targets.copy()
    targets[7, -1] += 9.0
    targets[8, 0] -= 7.0
    rows[20] = rows[3]
    given = with_targets(dataset(rows, None), targets)
    found = auditing.audit(given, KnnSpec("m", 3, weights=weights, scale="standard"))
    doubtful = [each for each in found.findings if each.kind == "contradicted"]
    assert [each.row for each in doubtful[:2]] == [7, 8]
    assert len(doubtful) <= 4
    assert doubtful[0].label == ", ".join(f"{value:.6g}" for value in targets[7])
    assert np.abs(np.array(doubtful[0].other.split(", "), float) - clean[7]).max() < 1.0
    assert [(each.row, each.like) for each in found.findings if each.kind == "duplicate"][:1] == [(20, 3)]
    assert found.count("useless") == 0


def test_targets_that_are_mostly_equal_may_differ_a_little() -> None:
    """As amounts of rain: the median difference is 0, and no measure of what is far."""
    random = np.random.default_rng(3)
    rows, targets = random.uniform(size=(300, 2)), np.zeros((300, 1))
    rain = random.choice(300, 40, replace=False)
    targets[rain, 0] = random.uniform(0.5, 1.5, 40)
    targets[rain[0], 0] = 50.0
    found = auditing.audit(with_targets(dataset(rows, None), targets), KnnSpec("m", 3))
    assert [each.row for each in found.findings if each.kind == "contradicted"] == [rain[0]]
    same = auditing.audit(with_targets(dataset(rows, None), targets * 0.0), KnnSpec("m", 3))
    assert same.count("contradicted") == 0


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("k", [1, 3, 4])
def test_a_useless_row_changes_no_answer(k: int, weights: Any) -> None:
    """Recounted with scikit-learn: each row left out, and with it each other row."""
    random = np.random.default_rng(k)
    rows, labels = random.normal(size=(26, 2)), random.integers(0, 3, 26)
    found = auditing.audit(dataset(rows, labels), KnnSpec("m", k, weights=weights))
    values = rows.astype(np.float32).astype(float)

    def answer(row: int, without: int) -> int:
        kept = np.setdiff1d(np.arange(26), [row, without])
        own = KNeighborsClassifier(k, weights=weights, algorithm="brute").fit(values[kept], labels[kept])
        return int(own.predict(values[[row]])[0])

    plain = [answer(row, row) for row in range(26)]
    useless = {gone for gone in range(26) if all(answer(row, gone) == plain[row] for row in range(26) if row != gone)}
    contradicted = {each.row for each in found.findings if each.kind == "contradicted"}
    assert {each.row for each in found.findings if each.kind == "useless"} == useless - contradicted


def test_the_command_names_rows_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = planted(0)
    lines = [f"{a},{label},{b},{c}" for (a, b, c), label in zip(rows.rows.tolist(), rows.labels)]
    Path("rows.csv").write_text("\n".join(["a,label,b,c", *lines, ""]))
    Path("deploy.yaml").write_text("model: {name: m, data: {file: rows.csv}, scale: standard}\n")
    assert cli.main(["audit", "--json", "--output", "audit.csv"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == 60
    assert told["counts"]["duplicate"] == 3
    with Path("audit.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [int(each["row"]) for each in written] == [each["row"] for each in told["findings"]]
    for each in written:
        assert [float(np.float32(each[name])) for name in "abc"] == rows.rows[int(each["row"])].tolist()
    assert cli.main(["audit"]) == 0
    said = capsys.readouterr()
    assert "contradicted" in said.out
    assert " 7 (line 9) " in said.out
    assert {each["where"] for each in written if each["row"] == "7"} == {f"{tmp_path / 'rows.csv'}, line 9"}
    assert "rows that their neighbours contradict" in said.err
    assert "audit.csv" in said.err
    named = [f"r{row},{line}" for row, line in enumerate(lines)]
    Path("rows.csv").write_text("\n".join(["id,a,label,b,c", *named, ""]))
    Path("deploy.yaml").write_text("model: {name: m, data: {file: rows.csv, id: id}, scale: standard}\n")
    assert cli.main(["audit", "--json"]) == 0
    for each in json.loads(capsys.readouterr().out)["findings"]:
        assert (each.pop("id"), each.pop("like_id")) == (f"r{each['row']}", f"r{each['like']}")
        assert each in told["findings"]
    Path("more.csv").write_text("a,label,b,c\n" + "\n".join(lines[:5]))  # without ids
    Path("deploy.yaml").write_text("model: {name: m, data: {files: [rows.csv, more.csv], id: id}, scale: standard}\n")
    assert cli.main(["audit", "--output", "audit.csv"]) == 0
    said = capsys.readouterr()
    assert " 60 (more.csv, line 2) " in said.out
    assert " 0 (r0, rows.csv, line 2) " in said.out
    assert "can be left out without changing the answer" in said.err
    assert "audit.csv" not in said.err
    with Path("audit.csv").open(newline="") as file:
        found = {int(each["row"]): Path(each["where"]).name for each in csv.DictReader(file)}
    assert (found[60], found[64]) == ("more.csv, line 2", "more.csv, line 6")
    Path("deploy.yaml").write_text("model: {name: m, data: {file: rows.csv, id: id}, k: 59}\n")
    assert cli.main(["audit"]) == 2
    assert "too few to audit" in capsys.readouterr().err


def test_features_called_like_its_columns_keep_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader of the CSV by name would take the distance to a neighbour for the feature, or the reverse."""
    monkeypatch.chdir(tmp_path)
    lines = [f"{n % 2 * 9 + n / 100},{n},{'ab'[n % 2]}" for n in range(20)]
    (tmp_path / "train.csv").write_text("\n".join(["distance,row,kind", *lines]) + "\n")
    (tmp_path / "deploy.yaml").write_text("model: {name: m, k: 1, data: {file: train.csv, label: kind}}\n")
    assert cli.main(["audit", "--output", "audit.csv"]) == 0
    found = list(csv.DictReader((tmp_path / "audit.csv").read_text().splitlines()))
    header = (tmp_path / "audit.csv").read_text().partition("\n")[0].split(",")
    assert len(set(header)) == len(header)
    assert {"_distance", "_row", "distance", "row", "kind", "label"} <= set(header)
    assert found
    for each in found:
        assert float(each["row"]) == int(each["_row"])
        assert float(each["distance"]) == pytest.approx(int(each["_row"]) % 2 * 9 + int(each["_row"]) / 100, abs=1e-6)


def test_rows_of_cells_are_audited_as_the_model_sees_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [f"{row % 7},{('red', 'blue')[row % 2]},{row % 2}" for row in range(40)]
    lines[3] = ",red,1"  # left out
    lines[30] = "1,red,1"  # red is the class 0
    Path("rows.csv").write_text("\n".join(["x,colour,label", *lines, ""]))
    data = "{file: rows.csv, missing: drop, categories: {colour: one-hot}}"
    Path("deploy.yaml").write_text(f"model: {{name: m, data: {data}, scale: standard}}\n")
    assert cli.main(["audit", "--json", "--output", "a.csv"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == 39
    assert 30 in [each["row"] for each in told["findings"] if each["kind"] == "contradicted"]
    assert "colour=red" in Path("a.csv").read_text()


def test_its_advice_fits_the_file_that_was_audited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    lines = [f"{x:.3f},{kind}" for kind, at in (("low", 0), ("high", 9)) for x in rng.normal(at, 1, 40)]
    Path("rows.csv").write_text("\n".join(["x,kind", *lines, ""]))
    other = "model: {name: m, data: {file: rows.csv, label: kind}}\n"
    for model, reduced in ((other, False), (other.replace("}}", "}, reduce: condensed}"), True)):
        Path("my own.yaml").write_text(model)
        assert cli.main(["audit", "-c", "my own.yaml"]) == 0
        said = capsys.readouterr().err
        assert ("try: reduce: condensed in my own.yaml" in said) == (not reduced)
        assert "try: knnkit audit --output audit.csv -c 'my own.yaml', which" in said


def test_the_command_audits_a_regression_and_refuses_several_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [f"{x},{90 if x == 11 else 2 * x},{x % 2}" for x in range(40)]
    Path("rows.csv").write_text("\n".join(["x,y,odd", *lines, ""]))
    Path("deploy.yaml").write_text("model: {name: m, data: {file: rows.csv, target: y, drop: [odd]}}\n")
    assert cli.main(["audit"]) == 0
    said = capsys.readouterr()
    assert "contradicted" in said.out
    assert " 11 (line 13) " in said.out
    assert "1 of 40 rows that their neighbours contradict" in said.err
    assert "left out" not in said.err
    Path("deploy.yaml").write_text("model: {name: m, data: {file: rows.csv, label: [y, odd]}}\n")
    assert cli.main(["audit"]) == 2
    assert "label: 'y'; then run it again for each of the other columns" in capsys.readouterr().err
