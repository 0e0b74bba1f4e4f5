"""Every key of deploy.yaml, every kind of wrong value: said in our words, with its path, and with what to type."""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from knnkit.config import messages, parse, yaml_reader
from knnkit.errors import ConfigError

GATES: dict[str, Any] = {
    "accuracy": 0.9,
    "latency_ms": 5.0,
    "margin": 1e-5,
    "balanced_accuracy": 0.8,
    "min_recall": 0.5,
    "recall": {},
    "column_accuracy": {},
}
GATES |= {"not_worse_than": "current", "by": 0.01, "agreement": 0.9}
REACH = {"user": "pi", "port": 22, "root": "~/k", "identity": "~/key", "jump": "pi@gate", "device_class": "zero"}
REACH |= {"runtime": "auto"}
TABLE = {"drop": ["c"], "missing": "median", "categories": "one-hot", "unknown_category": "ignore"}
TABLE["thousands"] = ","
MODEL = {
    "name": "fruit",
    "ignore_extra": True,
    "data": {"file": "a.csv", "label": "y", "features": ["a", "b"], "id": "c", **TABLE},
    "test": {"file": "b.csv", "label": "y"},
    "seed": 0,
    "k": 3,
    "metric": "euclidean",
    "weights": "uniform",
    "scale": "none",
    "reject": 0.9,
    "reduce": {"how": "condensed", "max_loss": 0.01},
    "label_sets": [0.9],
    "keep": {"unknown": 200, "uncertain": 200, "random": 100},
    "device_class": "any",
    "licence": "CC-BY-4.0",
    "notes": "for the north",
    "golden": {"rows": 200},
    "gates": GATES,
}
FLEET = {
    "fleet": {
        "defaults": {**REACH, "tags": ["canary"]},
        "targets": [{"host": "a", "name": "b", **REACH, "tags": ["x"]}, "pi@c"],
        "known_hosts": "k",
        "ssh_config": "c",
    },
    "rollout": {
        "waves": ["canary", "25%", 3],
        "max_failures": "10%",
        "on_failure": "roll_back",
        "confirm_within": "60s",
        "concurrency": 16,
        "connect_timeout": 10,
        "connect_retries": 2,
        "command_timeout": "5m",
    },
}
REST = {
    "release": {"dir": "dist", "version": "1.0", "sequence": 3, "expires": "90d"},
    "signing": {"key": "a.pem", "trusted": ["a.pub"]},
    "gates": GATES,
    "classify": {"keep": ["id", "time of day"]},
}
ENROL = {"rows": 5, "per_label": 2, "new_labels": False, "may_override": True}
STAGE = {"file": "a.tflite", "frames": 76, "hop": 8, "multiply": 0.1, "add": 2.0}
SOUND = {"audio": {"rate": 16000, "seconds": 2.0, "full_scale": 1.0}, "stages": [STAGE], "pool": ["mean"], "bound": 0.1}
IMAGE = {"size": [8, 8], "channels": 3, "resize": "nearest", "normalise": {"mean": [1.0], "std": [2.0]}}
WINDOW = {"columns": ["x", "y"], "rows": 32, "hop": 4, "time": "t", "gap": 0.1, "recording": "id"}
WAVES = {"features": ["mean", "std"]}
FLOAT64 = {"p": 3.0, "bandwidth": 0.5, "radius": 1.0, "outlier_label": "other", "class_weight": "balanced"}
SMALL = {"name": "fruit", "data": {"sklearn": "iris"}, "test": 0.3}
FILES: list[dict[str, Any]] = [  # small ones: each is read once for every key and every wrong value
    {"model": MODEL},
    {"model": SMALL, **FLEET},
    {"model": SMALL, **REST},
    {"model": {"name": "fruit", "data": {"sklearn": "iris"}, "enrol": ENROL}},
    {"model": {"name": "fruit", "data": {"sklearn": "iris"}, **FLOAT64}},
    {"model": {"name": "fruit", "data": {"skops": "a.skops"}}},
    {
        "model": {
            "name": "fruit",
            "data": {"file": "a.csv", "target": ["y", "z"]},
            "test": {"file": "b.csv", "target": ["y"]},
        },
        "gates": {"rmse": 5.0, "max_error": {}},
    },
    {"model": {"name": "fruit", "data": {"files": ["a.csv", "b/*.csv"]}}},
    {"models": [{"name": "fruit", "data": {"sklearn": "iris"}, "reduce": "edited", "label_sets": 0.9}]},
    {"model": {"name": "fruit", "data": {"file": "a.csv"}, "split": {"group": "device"}}},
    {"model": {"name": "fruit", "data": {"file": "a.csv"}, "split": {"time": "when"}}},
    {"model": {"name": "fruit", "data": {"file": "a.csv"}, "split": {"file": "b.csv"}}},
    {"model": {"name": "fruit", "data": {"file": "a.csv", "path": "file"}, "input": SOUND}},
    {"model": {"name": "fruit", "data": {"files": ["a/*.png"]}, "input": {"image": IMAGE, "stages": [STAGE]}}},
    {"model": {"name": "fruit", "data": {"file": "a.csv", "labels": "folder"}, "input": {"window": WINDOW, **WAVES}}},
]
WRONG: dict[str, Any] = {
    "a word": "zzz",
    "words": "z z, z",
    "an escape": "z\x1b[2J",
    "an empty word": "",
    "a very long word": "z" * 10_000,
    "a fraction": 1.5,
    "less than nothing": -3,
    "nothing at all": 0,
    "too much": 10**30,
    "no number": float("nan"),
    "no end": float("inf"),
    "a truth": True,
    "null": None,
    "an empty list": [],
    "a list": ["zzz", 1, None],
    "a list in a list": [["zzz"]],
    "a mapping": {"zzz": 1},
    "an empty mapping": {},
    "a list of mappings": [{"zzz": 1}],
    "a list of empty mappings": [{}],
}
#: As pydantic would say it.
NOT_OURS = re.compile(
    r"(?i)input should|valid (string|integer|number|tuple|dict|path)|should|field required|pydantic|NoneType"
)
#: In C where PyYAML was built with it.
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
Path = tuple[str | int, ...]


def paths(value: Any, at: Path = ()) -> Iterator[Path]:
    if at:
        yield at
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield from paths(inner, (*at, key))


PLACES = [(number, place) for number, file in enumerate(FILES) for place in paths(file)]


def replaced(number: int, place: Path, value: Any) -> str:
    file = copy.deepcopy(FILES[number])
    inner: Any = file
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = value
    return yaml.dump(file, Dumper=DUMPER, sort_keys=False, allow_unicode=True, width=10**6)


def refused(text: str) -> ConfigError | None:
    try:
        parse.parse(text)
    except ConfigError as error:
        return error
    return None


@functools.cache
def refused_with(number: int, place: Path, what: str) -> ConfigError | None:
    """What is said of one wrong value; two tests ask."""
    error = refused(replaced(number, place, WRONG[what]))
    return error and error.with_traceback(None)


def test_the_files_have_every_key_there_is() -> None:
    there = {part for _, place in PLACES for part in place if isinstance(part, str)}
    schema = parse.json_schema()
    known = {key for body in (schema, *schema["$defs"].values()) for key in body.get("properties", {})}
    assert there == known == {key for key in known if messages.example(parse.Config, key) != "knnkit schema"}
    for file in FILES:
        assert refused(yaml.safe_dump(file)) is None


@pytest.mark.parametrize(("number", "place"), PLACES, ids=lambda value: str(value))
def test_whatever_stands_at_a_key_is_taken_or_told_in_our_words(number: int, place: Path) -> None:
    count = 0
    for what, value in WRONG.items():
        error = refused_with(number, place, what)
        if error is None:
            continue
        count += 1
        told = str(error)
        first, *_ = told.splitlines()
        assert re.match(r"deploy\.yaml:\d+: ", first), (what, told)
        assert not NOT_OURS.search(re.sub(r"(?m)^ .*$", "", told)), (what, told)
        # What is left out, or makes no sense with another key, is told where that stands.
        if value not in (None, {}, []) and "no target has the tag" not in first:
            assert said_somewhere(place, told), (what, told)
        assert max(map(len, told.splitlines())) < 400, (what, told)
        assert "\x1b" not in told
        assert error.hint, (what, told)
        assert told.count("  try: ") == told.count("deploy.yaml:") - 1, (what, told)
    assert count >= 5, "next to everything is taken here"


def said_somewhere(place: Path, told: str) -> bool:
    """Whether a line begins with the place, or with one inside it."""
    path = messages.prefix_of(place).removesuffix(": ")
    return re.search(rf"(?m)^deploy\.yaml:\d+: {re.escape(path)}(\[|\.|: )", told) is not None


@pytest.mark.parametrize(("number", "place"), PLACES, ids=lambda value: str(value))
def test_what_a_message_says_to_type_is_taken(number: int, place: Path) -> None:
    for what in WRONG:
        error = refused_with(number, place, what)
        if error is None or what.startswith("a list"):
            continue
        key = messages.key_of(place)
        if not error.hint.startswith(f"{key}: ") or ", or " in error.hint:
            continue
        whole = place[: len(place) - list(reversed(place)).index(key)]
        typed = yaml_reader.read(error.hint, "hint").data[key]
        again = refused(replaced(number, whole, plain(typed)))
        there = re.escape(path_of(whole)) + r"(\[\d+\])*"
        if again is not None and "no target has the tag" not in str(again):  # a word is a tag only if a target has it
            assert not re.fullmatch(there, str(again).split(": ")[1]), (what, error.hint, str(again))


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, tuple) else value


def path_of(place: Path) -> str:
    return messages.prefix_of(place).removesuffix(": ")


def test_each_example_is_one_that_fits() -> None:
    for number, place in PLACES:
        key = messages.key_of(place)
        if isinstance(place[-1], str):
            typed = plain(parse.yaml_reader.read(messages.example(parse.Config, key, place[:-1]), "example").data[key])
            error = refused(replaced(number, place, typed))
            known = ("decides", "no target has the tag", "needs a `window`")
            assert error is None or any(words in str(error) for words in known), (
                place,
                str(error),
            )


def test_the_same_bounds_are_told_that_hold() -> None:
    words = {key: messages.expected(parse.Config, ("rollout", key)) for key in ("concurrency", "connect_timeout")}
    assert words["concurrency"] == "a whole number from 1 to 1024"
    assert words["connect_timeout"].endswith("a number of seconds, above 0 and at most 3600")
    assert messages.expected(parse.Config, ("model", "reject")).startswith("a number, above 0 and below 1, or a label")
    assert messages.expected(parse.Config, ("model", "k")) == "a whole number, at least 1"


def test_every_mistake_has_a_line_of_its_own_to_type() -> None:
    error = refused("model: {name: a, data: {sklearn: iris}, k: 0}\ngates: {acuracy: 1}\nrollout: {concurrency: 0}\n")
    assert error is not None
    tries = [line.strip() for line in str(error).splitlines() if line.startswith("  try: ")] + [f"try: {error.hint}"]
    assert sorted(tries) == ["try: accuracy: 1", "try: concurrency: 16", "try: k: 3"]


def test_unknown_keys_hide_nothing_and_keep_their_values() -> None:
    text = "fleat: {}\nmodel:\n  nmae: trees\n  data: {file: a.csv, lable: x, dorp: [a, 'b c']}\n  kk: 5\n"
    text += "  weights: uniformm\nfleet: {targets: [pi@b, {host: c, prot: 22}]}\n"
    error = refused(text)
    assert error is not None
    tries = [line.strip() for line in str(error).splitlines() if line.startswith("  try: ")]
    typed = ("name: trees", "label: x", 'drop: [a, "b c"]', "k: 5", "weights: uniform")
    assert tries == ["try: fleet: {targets: [pi@board-1]}", *(f"try: {each}" for each in typed)]
    assert error.hint == "port: 22", "transposed letters are nearer than other letters"


@pytest.mark.parametrize(
    "text",
    ["model: {name: a, name: b}", "? [a]\n: 3", "a: &a [*a]", "a: !!set x", f"model: {'1' * 5000}", "\x07", "[" * 5000],
)
def test_what_is_no_plain_yaml_is_told_with_what_to_do(text: str) -> None:
    error = refused(text)
    assert error is not None
    assert error.hint
    assert max(map(len, str(error).splitlines())) < 400


def test_a_wrong_value_inside_a_map_names_what_is_expected_there() -> None:
    with pytest.raises(ConfigError) as found:
        parse.parse("model: {name: m, data: {file: a.csv, label: y, categories: {size: onehot}}}")
    assert "model.data.categories.size: 'onehot' is not one of one-hot, ordinal" in str(found.value)
    assert "size: one-hot" in str(found.value) + found.value.hint


#: One place of each key that is not at the top of the file.
DEEP = {place[-1]: (number, place) for number, place in PLACES if len(place) > 1 and isinstance(place[-1], str)}


@pytest.mark.parametrize("key", sorted(DEEP.keys() - parse.Config.model_fields.keys()))
def test_a_key_of_another_section_is_sent_to_a_section_that_has_it(key: str) -> None:
    number, place = DEEP[key]
    value: Any = FILES[number]
    for part in place:
        value = value[part]
    error = refused(yaml.safe_dump({**FILES[number], key: value}, sort_keys=False))
    assert error is not None
    home = re.search(r"it belongs in '([a-z_.]+)'$", str(error).splitlines()[0])
    schema = parse.json_schema()
    if home is None:
        assert key not in {name for body in schema["$defs"].values() for name in body.get("properties", {})} or (
            "did you mean" in str(error)
        ), error
        return
    section = home[1].rpartition(".")[2]
    assert re.match(rf"{section}: \[?{{{key}: ", error.hint), error.hint


@pytest.mark.parametrize("key", sorted(parse.Config.model_fields))
@pytest.mark.parametrize("value", [3, {"a": 1}, None])
def test_a_key_of_the_whole_file_is_sent_to_its_top(key: str, value: Any) -> None:
    error = refused(yaml.safe_dump({"model": SMALL, "classify": {key: value}}))
    assert error is not None
    assert f"classify: unknown key {key!r}; it belongs at the top of the file" in str(error)
    assert error.hint.startswith(f"{key}: ")


def test_what_contradicts_another_key_is_shown_at_that_key() -> None:
    error = refused("model:\n  name: a\n  data:\n    file: t.csv\n    label: x\n    target: y\n")
    assert str(error).startswith("deploy.yaml:5: model.data.label: give either `label`")
    error = refused("model:\n  name: a\n  data: {skops: m.skops}\n  test: 0.3\n  k: 3\n")
    assert str(error).startswith("deploy.yaml:5: model.k: the estimator of `skops` decides k")


def test_a_file_of_many_mistakes_explains_the_first_ones() -> None:
    error = refused(f"fleet: {{targets: [a], defaults: {{tags: [{'1, ' * 300}]}}}}")
    assert str(error).count("deploy.yaml:1: ") == 100


BASE = "model:\n  name: a\n  data: {file: t.csv, label: x}\n"


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("  data: train.csv", "data: {file: train.csv, label: species}"),
        ("  data: iris", "data: {sklearn: iris}"),
        ("  data: old/m.skops", "data: {skops: old/m.skops}"),
        ("  test: test.csv", "test: {file: test.csv}"),
        ("  test: yes", "test: 0.3"),
        ("  split: person", "split: {group: person}"),
        ("  split: test.csv", "split: {file: test.csv}"),
        ("  split: stratifed", "split: stratified"),
        ("  golden: 150", "golden: {rows: 150}"),
        ("  gates: 0.8", "gates: {accuracy: 0.8}"),
        ("signing: keys/s.pem", "signing: {key: keys/s.pem}"),
        ("  test: 20%", "test: 0.2"),
        ("  test: 25", "test: 0.25"),
        ("  test: 0,2", "test: 0.2"),
        ("  k: '7'", "k: 7"),
        ("  k: 5.0", "k: 5"),
        ("  radius: '0,5'", "radius: 0.5"),
        ("  reject: 95 %", "reject: 0.95"),
        ("  gates: {min_recall: 95}", "min_recall: 0.95"),
        ("  label_sets: 90%", "label_sets: 0.9"),
        ("  ignore_extra: yes", "ignore_extra: true"),
        ("  ignore_extra: FALSE", "ignore_extra: false"),
        ("  enrol: {rows: 5, new_labels: Off}", "new_labels: false"),
        ("  K: 3", "k: 3"),
        ("  random_state: 3", "seed: 3"),
        ("  data: {file: t.csv, label: 2026}", 'label: "2026"'),
        ("  data: {file: t.csv, features: a, b}", "features: [a, b]"),
        ("  data: {file: t.csv, features: 'a, b'}", "features: [a, b]"),
        ("  data: {file: [a.csv, b.csv]}", "files: data/*.csv"),
        ("  data: {file: t.csv, thousands: x}", "thousands: ','"),
        ('  data: {file: t.csv, categories: [Colour, "a: b"]}', 'categories: {Colour: one-hot, "a: b": one-hot}'),
        ("  data: {file: t.csv, categories: Colour}", "categories: {Colour: one-hot}"),
        ("  data: {file: t.csv, categories: onehot}", "categories: one-hot"),
        ("  data: {file: t.csv, missing: weight}", "missing: {weight: median}"),
        ("  data: {file: t.csv, missing: [weight, height]}", "missing: {weight: median, height: median}"),
        ("  data: {file: t.csv, missing: {weight: .inf}}", "missing: median"),
        ("  data: {files: *.csv}", "put a pattern in quotes: files: '*.csv'"),
        ("  data: {file: t.csv, drop: [*_id]}", "put a pattern in quotes: files: '*.csv'"),
        ('  data: {file: "C:\\data\\t.csv"}', "put a path in single quotes: file: 'C:\\data\\train.csv'"),
        ("  notes: @home", "put the value in quotes, thousands: ',', or remove a comma too many"),
        ("\tk: 3", "write spaces in place of tabs"),
        ("  notes: a\x07b", "remove it from line 4"),
        ("fleet: {targets: [{host: a, password: b}]}", "identity: ~/.ssh/id_ed25519"),
        ("gates: {recall: [fall, 'sit down']}", 'recall: {fall: 0.9, "sit down": 0.9}'),
        ("gates: {max_error: '5,5 %'}", "max_error: 5.5"),
        ("  radius: [3]", "radius: 0.5"),
        ("gates: [fall]", "gates: {accuracy: 0.9}"),
        ("  metric: [null]", "metric: euclidean"),
        ("gates: {recall: '\U0001f9cd é'}", 'recall: {"\U0001f9cd é": 0.9}'),
        ("fleet: {targets: [pi@board-1, 'pi@']}", "targets: [pi@board-1, pi@board-2]"),
        ("rollout: {waves: [10%, canary!, 100%]}", "waves: [10%, 25%, 100%]"),
        (
            "fleet: {targets: [{host: a, tags: [canary]}]}\nrollout: {waves: [1, canry, 100%]}",
            "waves: [1, canary, 100%]",
        ),
        ("  data: {files: [a.csv, 3], label: x}", 'files: [a.csv, "3"]'),
        ("fleet: {targets: [{host: a}, 'pi@']}", "- pi@board-1"),
        (
            "  {{k}}: 3",
            "write NAME: VALUE; around several of these, single braces {}; docs/deploy-yaml.md lists the names",
        ),
    ],
)
def test_a_frequent_mistake_is_answered_with_what_was_meant(typed: str, hint: str) -> None:
    text = (BASE if not typed.startswith("  data") else BASE.replace(BASE.splitlines()[2] + "\n", "")) + typed + "\n"
    error = refused(text)
    assert error is not None
    assert (error.hint, str(error).splitlines()[0].partition(": ")[0]) == (
        hint, f"deploy.yaml:{len(text.splitlines())}"
    )  # fmt: skip


@pytest.mark.parametrize(
    "name", ["\U0001f600", "\xa0\U0001f600\x85é", "\ud83d", "\ude00\ud83d", "\udcff.csv", "\ufeff"]
)
def test_text_in_quotes_as_json_writes_it_is_that_text(name: str) -> None:
    assert yaml_reader.read(f"{json.dumps(name)}: {json.dumps([name])}", "").data == {name: (name,)}


@pytest.mark.parametrize(("line", "key", "fix"), [
    ("labels: [Species, Health]", "label", "label: [Species, Health]"),
    ("labels: [Species]", "label", "label: [Species]"),
    ("labels: Species", "label", "label: Species"),
    ("label:Species", "label", "label: Species"),
    ("label:[Species, Health]", "label", "label: [Species, Health]"),
    ("missing:median", "missing", "missing: median"),
])  # fmt: skip
def test_a_plural_or_a_missing_blank_is_pointed_out(line: str, key: str, fix: str) -> None:
    before = "model:\n  name: a\n  data:\n    file: f.csv\n    "
    for text in (
        before + f"{line}\n",
        before + f"{line}\n    drop: [b]\n",
        f"model: {{name: a, data: {{file: f.csv, {line}}}}}",
    ):
        if line.startswith("label:[") and text.startswith("model: {"):
            continue  # YAML reads this as it is meant
        with pytest.raises(ConfigError) as found:
            parse.parse(text)
        assert found.value.hint.partition("  #")[0] == fix
        parse.parse(text.replace(line, found.value.hint) if text.startswith(before) else text.replace(line, fix))
