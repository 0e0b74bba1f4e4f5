"""An error about a key of deploy.yaml names file and line, also if it appears only with the rows or the model."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from knnkit.config import load
from knnkit.config.models import ModelConfig
from knnkit.errors import BuildError, ConfigError, DataError
from knnkit.model.build import make_reference, origins_of
from knnkit.model.reference.spec import KnnSpec
from knnkit.release import gates
from knnkit.training import source

ROWS = "a,b,when,who,one,y\n" + "".join(
    f"{n % 7}.5,{n * 3 % 11},2026-01-{n + 1:02},{'pq'[n % 2]},1,{'xz'[n % 3 > 1]}\n" for n in range(24)
)
HERE = "  # here"
DATA = "data:\n  file: rows.csv\n  label: y\n"
#: The keys of a model below `name`, one a line; the error must name the line that ends with HERE.
CASES = {
    "a kernel without its width": f"weights: gaussian{HERE}",
    "a width without a kernel": f"bandwidth: 0.5{HERE}",
    "a power without its metric": f"p: 3{HERE}",
    "a power beyond its range": f"metric: minkowski\np: 0.5{HERE}",
    "a radius with a share": f"radius: 1.0\nreject: 0.9{HERE}",
    "another label without a radius": f"outlier_label: other{HERE}",
    "a reserved label": f"radius: 1.0\noutlier_label: unknown{HERE}",
    "another kind of label": f"radius: 1.0\noutlier_label: 3{HERE}",
    "a factor of a strange label": f"class_weight: {{q: 2.0}}{HERE}",
    "a factor beyond its range": f"class_weight: {{x: 1e99}}{HERE}",
    "shares without a default": f"reject: {{x: 0.9}}{HERE}",
    "a share of a strange label": f"reject: {{q: 0.9, default: 0.9}}{HERE}",
    "truth that is scaled": f"metric: jaccard\nscale: standard{HERE}",
    "places on a globe": f"metric: haversine{HERE}",
    "teaching without a graph": f"metric: chebyshev\nenrol: {{rows: 5}}{HERE}",
    "fewer rows without a graph": f"metric: chebyshev\nreduce: condensed{HERE}",
    "fewer rows, none measured": f"test: 0\nreduce: condensed{HERE}",
    "more neighbours than rows": f"k: 40{HERE}",
    "groups by a strange column": f"split: {{group: whose}}{HERE}",
    "groups of one": f"split:{HERE}\n  group: one",
    "times that are none": f"split: {{time: who}}{HERE}",
    "a share of too few rows": f"split: {{time: when}}\ntest: 0.99{HERE}",
    "a gate on a strange label": f"gates:{HERE}\n  recall: {{q: 0.9}}",
    "a gate for numbers": f"gates: {{rmse: 2.0}}{HERE}",
    "a gate on an estimator": f"gates: {{agreement: 0.9}}{HERE}",
    "a test file that is not there": f"test:\n  file: nowhere.csv{HERE}",
    "a test file without the label": f"test: {{file: bare.csv}}{HERE}",
    "a test file of a strange label": f"test: {{file: rows.csv, label: nope}}{HERE}",
    "a strange label": f"data:\n  file: rows.csv\n  label: nope{HERE}",
    "a strange feature": DATA + f"  features: [a, nope]{HERE}",
    "a strange column to drop": f"data:\n  label: y\n  drop: [nope]{HERE}\n  file: rows.csv",
    "a strange column to fill": DATA + f"  drop: [when, who, one]\n  missing:\n    a: median\n    nope: median{HERE}",
    "a strange column of text": DATA + f"  drop: [when, who]\n  categories: {{nope: one-hot}}{HERE}",
    "a strange id": DATA + f"  id: nope{HERE}",
    "a fill that is a word": DATA + f"  drop: [when, who, one]\n  missing: {{a: zero}}{HERE}",
    "a label that is a feature": f"data: {{file: rows.csv, label: y, features: [a, y]}}{HERE}",
    "no feature at all": f"data: {{file: rows.csv, label: y, drop: [a, b, when, who, one]}}{HERE}",
    "a file that is not there": f"data:\n  label: y\n  file: nowhere.csv{HERE}",
    "a pattern without a file": f"data:\n  label: y\n  files: ['nowhere/*.csv']{HERE}",
    "a folder": f"data:\n  label: y\n  file: folder.csv{HERE}",
    "a stage that is not there": f"input:\n  stages: [nowhere.tflite]{HERE}",
}  # fmt: skip
USUAL = "data: {file: rows.csv, label: y, features: [a, b]}\n"


def written(folder: Path, case: str, before: str = "") -> Path:
    (folder / "rows.csv").write_text(ROWS)
    (folder / "bare.csv").write_text("a,b\n1,2\n")
    (folder / "folder.csv").mkdir()
    keys = (case if case.startswith("data:") else USUAL + case).replace("\n", "\n  ")
    path = folder / "my deploy.yaml"
    path.write_text(f"{before}model:\n  name: fruit\n  {keys}\n")
    return path


def whole(path: Path) -> None:
    """What a build does before TensorFlow."""
    build = load.load(path).builds()[0]
    material = source.load(build)
    with build.line_in_errors():
        origins_of(material.training)
        gates.fitting(gates.of_config(build.gates), material)
        make_reference(material.spec, material.enrol(material.spec.scale, material.spec.metric))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_error_names_the_line_of_its_key(case: str, tmp_path: Path) -> None:
    path = written(tmp_path, case)
    line = next(number for number, text in enumerate(path.read_text().splitlines(), 1) if text.endswith(HERE))
    with pytest.raises((BuildError, ConfigError, DataError)) as caught:
        whole(path)
    assert str(caught.value).startswith(f"{path}:{line}: "), caught.value
    assert str(caught.value).count(f"{path}:") == 1, caught.value
    assert f"{line} | " in str(caught.value)
    assert "--" not in caught.value.hint, "it names flags of knnkit init"


@pytest.mark.parametrize("files", [1, 2])
@pytest.mark.parametrize(
    ("keys", "row", "said"),
    [
        ("split: {time: when}", "2,3,never,s,x", "'never' is not a time"),
        ("test: 0", '2,3,"a\x07b",s,x', "an id may not be"),
        ("test: 0", "1e37,3,2026-01-01,s,x", "too large for float32 distances"),
        ("test: 0\n  metric: haversine", "1,300,2026-01-01,s,x", "is beyond 6.2832 radians (360 degrees)"),
    ],
)
def test_an_error_about_a_row_names_its_file_and_line(
    files: int, keys: str, row: str, said: str, tmp_path: Path
) -> None:
    good = "".join(f"0.{n},1.{n},2026-01-{n + 10},p,{'xy'[n % 2]}\n" for n in range(9))
    text = f'# of the north\na,b,when,who,y\n{good}\n0.5,1,2026-02-01,"p\nq",x\n\n{row}\n{good}'
    paths = [tmp_path / f"{number}.csv" for number in range(files)]
    for path in paths:
        path.write_text(f"a,b,when,who,y\n{good}" if path is not paths[-1] else text)
    data = f"{{files: [{', '.join(path.name for path in paths)}], label: y, id: when, features: [a, b]}}"
    (config := tmp_path / "deploy.yaml").write_text(f"model:\n  name: fruit\n  data: {data}\n  {keys}\n")
    line = next(number for number, each in enumerate(text.split("\n"), 1) if each == row)
    with pytest.raises((BuildError, DataError)) as caught:
        whole(config)
    assert f"{paths[-1]}, line {line}: " in str(caught.value)
    assert said in str(caught.value)


def test_one_of_several_models_is_named_by_its_own_line(tmp_path: Path) -> None:
    path = written(tmp_path, "k: 1")
    entry = "  - {{name: {0}, device_class: {0}, data: {{file: rows.csv, label: y, features: [a, b]}}, {1}}}\n"
    path.write_text("models:\n" + entry.format("one", "k: 3") + entry.format("two", "weights: tricube"))
    first, second = load.load(path).builds()
    source.load(first)
    with pytest.raises(BuildError, match="weights: tricube needs bandwidth") as caught:
        source.load(second)
    assert str(caught.value).startswith(f"{path}:3: ")


def test_gates_of_all_models_are_named_where_they_stand(tmp_path: Path) -> None:
    path = written(tmp_path, "k: 1", before="gates:\n  rmse: 2.0\n")
    with pytest.raises(BuildError) as caught:
        whole(path)
    assert str(caught.value).startswith(f"{path}:1: ")


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(KnnSpec)])
def test_every_message_about_a_parameter_begins_with_its_key(field: str) -> None:
    wrong: dict[str, Any] = {"metric": "minkowski"} if field == "p" else {}
    said = []
    for value in (0, -1, "zork", 1e300, {"a": 2.0}, {"a": "b"}, (2.0,), 0.5):
        try:
            KnnSpec(**{"name": "fruit", **wrong, field: value})
        except (BuildError, DataError) as error:
            said.append(str(error))
        except (TypeError, AttributeError):  # deploy.yaml has no such type there
            continue
    first = {found[0] if (found := re.match(r"[a-z_]+(?=:? )", text)) else text for text in said}
    assert first <= {*ModelConfig.model_fields, *(["model"] if field == "name" else [])}
    assert first or field in ("keep", "enrol", "ignore_extra", "offset")


def test_rows_that_come_without_a_file_have_no_line() -> None:
    with pytest.raises(BuildError) as caught:
        KnnSpec("fruit", weights="gaussian")
    assert str(caught.value) == "weights: gaussian needs bandwidth"


@pytest.mark.parametrize(("usual", "hint"), [(1.0, "correct that row, or leave it out"), (1e20, "scale: standard")])
def test_a_row_that_alone_is_too_large_is_no_reason_to_scale(usual: float, hint: str, tmp_path: Path) -> None:
    rows = [f"{usual * (1 + number / 9)},x" for number in range(9)]
    (tmp_path / "t.csv").write_text("\n".join(["a,y", *rows, "1e30,x", ""]))
    config = tmp_path / "deploy.yaml"
    config.write_text("model: {name: m, data: {file: t.csv, label: y}, test: 0, k: 1}\n")
    with pytest.raises(BuildError, match="line 11: the row is too large for float32 distances") as caught:
        whole(config)
    assert caught.value.hint.startswith(hint)
