"""deploy.yaml means what it says, and what does not fit is shown where it stands."""

from __future__ import annotations

import typing
from pathlib import Path

import jsonschema
import pytest
import yaml
from support import ROOT

from device_agent.shared.protocol import constants
from knnkit.config import fleet_models, load, models, parse
from knnkit.config.data_models import FileData
from knnkit.errors import ConfigError, SigningKeyError

EXAMPLE = ROOT / "deploy.yaml"
MODEL = "model: {name: a, data: {sklearn: iris}}\n"


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse.parse(text)
    return str(caught.value)


def test_the_example_loads_and_names_every_key_of_every_section() -> None:
    loaded = load.load(EXAMPLE)
    assert loaded.builds()[0].release.dir == EXAMPLE.parent / "dist"
    text = EXAMPLE.read_text()
    sections = (models.Config, models.ModelConfig, models.ReleaseConfig, models.SigningConfig, models.GatesConfig)
    fleet = (models.FleetConfig, fleet_models.TargetDefaults, fleet_models.TargetConfig, models.RolloutConfig, FileData)
    missing = [key for section in (*sections, *fleet) for key in section.model_fields if f"{key}:" not in text]
    assert missing == []


def test_the_example_says_the_defaults_that_it_claims() -> None:
    written = load.load(EXAMPLE)
    default = parse.parse(MODEL, base=EXAMPLE.parent)
    assert written.rollout.model_copy(update={"waves": ("100%",), "max_failures": 0}) == default.rollout
    assert written.release == default.release
    assert written.signing == default.signing
    assert written.fleet.defaults.root == default.fleet.defaults.root


def test_json_schema_accepts_the_example_and_refuses_a_wrong_key() -> None:
    schema = parse.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    example = yaml.safe_load(EXAMPLE.read_text())
    jsonschema.validate(example, schema)
    example["model"]["metrik"] = "euclidean"
    with pytest.raises(jsonschema.ValidationError, match="metrik"):
        jsonschema.validate(example, schema)


def test_every_key_of_the_schema_is_described() -> None:
    schema = parse.json_schema()
    undescribed = [
        f"{section}.{key}"
        for section, body in [*schema["$defs"].items(), ("Config", schema)]
        for key, value in body.get("properties", {}).items()
        if "description" not in value and "$ref" not in value
    ]
    assert undescribed == []


def test_an_unknown_key_is_shown_in_the_users_own_line_with_the_closest_known_one() -> None:
    said = refusal("model:\n  name: a\n  data: {sklearn: iris}\n  metrik: euclidean\n")
    assert said.splitlines() == [
        "deploy.yaml:4: model: unknown key 'metrik'; did you mean 'metric'?",
        "    4 |   metrik: euclidean",
        "      |   ^",
    ]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("fleet: {}\n", 1, "the key 'model' is missing"),
        ("model:\n  name: a\n", 1, "the key 'data' is missing"),
        ("- 3\n", 1, "expected keys such as model"),
        ("model: 3\n", 1, "expected keys such as name"),
        ("model:\n  name: a\n  name: b\n", 3, "the key 'name' is repeated; first on line 2"),
        ("model:\n  name: [\n", 3, "not YAML"),
        ("model: &a\n  data: *a\n", 2, "an alias contains itself"),
        ("model: !!python/object/apply:os.getcwd []\n", 1, "expected keys"),
        ("a: !!python/name:os.getcwd x\n", 1, "is not supported"),
        ("model:\n  name: a\n  data: {sklearn: irs}\n", 3, "'irs' is not one of .*; did you mean 'iris'"),
        ("model:\n  name: a\n  data: {fil: x.csv}\n", 3, "unknown key 'fil'; did you mean 'file'"),
        ("model:\n  name: a\n  n_neigbors: 3\n", 3, "unknown key 'n_neigbors'; did you mean 'k'"),
        ("model:\n  name: a\n  labels: y\n", 3, "unknown key 'labels'; it belongs in 'model.data'"),
        ("model:\n  name: a\n  label: y\n", 3, "unknown key 'label'; it belongs in 'model.data'"),
        (
            "model:\n  name: a\n  data: {file: x.csv}\n  input: {window: {columns: [a], rows: 9, features: [mean]}}\n",
            4,
            "unknown key 'features'; it belongs in 'model.input'",
        ),
        ("model:\n  name: a\n  labelsets: 0.9\n", 3, "unknown key 'labelsets'; did you mean 'label_sets'"),
        ("model:\n  name: a\n  data: {file: x.csv, lable: y}\n", 3, "unknown key 'lable'; did you mean 'label'"),
        ("model:\n  name: a b\n  data: {sklearn: iris}\n", 2, "name: 'a b' is not a name: at most 64 letters"),
        ("model:\n  name: größe\n  data: {sklearn: iris}\n", 2, "name: 'größe' is not a name: at most 64 letters"),
        (
            "model:\n  name: a\n  data: {file: a.csv, features: [w, h, w]}\n",
            3,
            "model.data.features: 'w' is listed twice",
        ),
        (MODEL + "release:\n  version: 1.10\n", 3, 'write it in quotes: "1.10"'),
        (MODEL + "gates:\n  accuracy: .nan\n", 3, "gates.accuracy: found .nan, expected a number from 0 to 1$"),
        (MODEL + "gates:\n  accuracy: 1.5\n", 3, "found 1.5, expected a number from 0 to 1$"),
        (MODEL + "release:\n  expires: 365\n", 3, "expires: 365 has no unit: write 365d"),
        (MODEL + "release:\n  expires: 1.5\n", 3, "expires: 1.5 has no unit"),
        (MODEL + "release:\n  expires: '365'\n", 3, "'365' is not a duration"),
        (MODEL + "rollout:\n  confirm_within: 3 weeks\n", 3, "'3 weeks' is not a duration"),
        (MODEL + "rollout:\n  confirm_within: 0.1\n", 3, "found 0.1, expected a duration .* from 1 to 86400$"),
        (MODEL + "rollout:\n  max_failures: 10 percent\n", 3, "neither a count nor a percentage"),
        (MODEL + "rollout:\n  waves: [0]\n", 3, "a wave has at least one device"),
        (MODEL + "rollout:\n  waves: [true]\n", 3, "waves"),
        (MODEL + "rollout:\n  waves: [120%]\n", 3, "is not a tag, a count or a percentage"),
        (MODEL + "rollout:\n  waves: []\n", 3, "found an empty list, expected at least one: a tag"),
        (MODEL + "fleet:\n  targets: [a, a]\n", 3, "two targets are called 'a'"),
        (MODEL + "fleet:\n  targets: [-oProxyCommand=x]\n", 3, "not an address"),
        (MODEL + "fleet:\n  targets: ['a:99999']\n", 3, "99999 is not a port"),
        (MODEL + 'fleet:\n  targets: ["a\\e[2Jb"]\n', 3, r"'a\\x1b\[2Jb' is not an address"),
        (MODEL + 'fleet:\n  targets: [{host: "a\\ab"}]\n', 3, r"host: 'a\\x07b'.*cannot be printed"),
        (
            MODEL + "fleet:\n  targets: [{host: a, runtime: litert}]\n",
            3,
            "runtime: 'litert' is .*mean 'ai_edge_litert'",
        ),
        (MODEL + "fleet:\n  defaults: {runtime: tflite-runtime}\n", 3, "runtime: .*mean 'tflite_runtime'"),
        (MODEL + "fleet:\n  targets: [{host: a b}]\n", 3, "host: 'a b'.*contains a space"),
        (MODEL + "fleet:\n  targets: [{host: ''}]\n", 3, "host: ''.*empty"),
        (MODEL + "fleet:\n  targets: [{host: -oX}]\n", 3, "begins with '-'"),
        (MODEL + 'fleet:\n  defaults: {user: "p\\n"}\n', 3, "user: .*cannot be printed"),
        (MODEL + 'fleet:\n  defaults: {root: "/r\\n"}\n', 3, "root: .*cannot be printed"),
        (MODEL + "fleet:\n  targets: [{host: a, jump: 'gate:0'}]\n", 3, "jump: .*0 is not a port"),
        (MODEL + 'fleet:\n  defaults: {jump: "one,t\\ewo"}\n', 3, "jump: .*is not an address"),
        (MODEL + "fleet:\n  targets: [{host: a, tags: [canary]}]\nrollout:\n  waves: [canry]\n", 5, "mean 'canary'"),
        (MODEL + "models: []\nmodle: 3\n", 3, "unknown key 'modle'; did you mean 'mod"),
    ],
)
def test_what_does_not_fit_is_said_with_its_line(text: str, line: int, said: str) -> None:
    import re

    message = refusal(text)
    assert message.startswith(f"deploy.yaml:{line}: "), message
    assert re.search(said, message, re.MULTILINE), message


@pytest.mark.parametrize("value", ["true", "'3'", "3.0", "0", "[3]"])
def test_no_value_is_bent_into_another_type(value: str) -> None:
    assert "k: " in refusal(f"model: {{name: a, data: {{sklearn: iris}}, k: {value}}}\n")


def test_every_mistake_is_reported_at_once() -> None:
    message = refusal("model: {name: a, data: {sklearn: iris}, k: 0}\ngates: {acuracy: 1}\nrollout: {concurrency: 0}\n")
    assert [line.split(":")[1] for line in message.splitlines() if line.startswith("deploy.yaml:")] == ["1", "2", "3"]


def test_yes_and_on_and_times_are_text_and_exponents_are_numbers() -> None:
    loaded = parse.parse("model: {name: on, data: {file: 2024-01-01, label: 1:30}}\ngates: {margin: 1e-4}\n")
    assert loaded.model is not None
    assert isinstance(loaded.model.data, parse.FileData)
    assert (loaded.model.name, loaded.model.data.label_column, loaded.gates.margin) == ("on", "1:30", 1e-4)


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "deploy.yaml"
    file.parent.mkdir()
    file.write_text("model: {name: a, data: {file: ../rows.csv}}\nrelease: {dir: /elsewhere}\nsigning:\n")
    loaded = load.load(file)
    assert loaded.model is not None
    assert isinstance(loaded.model.data, parse.FileData)
    assert loaded.model.data.file == file.parent / "../rows.csv"
    assert loaded.release.dir == Path("/elsewhere")
    assert loaded.signing.key == file.parent / "keys/signing.pem"


def test_a_file_about_a_fleet_alone_builds_nothing() -> None:
    loaded = parse.parse("fleet: {targets: [pi@board-1, pi@board-2]}\n")
    assert loaded.builds() == ()
    assert [target.host for target in loaded.fleet.targets] == ["board-1", "board-2"]


def test_a_runtime_goes_by_the_name_that_the_agent_knows_it_by() -> None:
    choices = typing.get_args(typing.get_args(fleet_models.Runtime)[0])
    assert choices == (constants.ANY_RUNTIME, *constants.RUNTIMES)
    for name in choices:
        text = f"fleet: {{defaults: {{runtime: {name}}}, targets: [{{host: a, runtime: {name}}}, b]}}\n"
        fleet = parse.parse(text).fleet
        assert [fleet.defaults.runtime, *(target.runtime for target in fleet.targets)] == [name, name, None]


def test_several_models_have_a_folder_and_gates_of_their_own() -> None:
    loaded = parse.parse(
        "models:\n"
        "  - {name: small, device_class: zero, data: {sklearn: iris}, k: 1, gates: {accuracy: 0.5}}\n"
        "  - {name: big, data: {sklearn: iris}}\n"
        "release: {dir: /out}\ngates: {accuracy: 0.9}\n"
    )
    built = [(b.model.name, b.model.device_class, b.release.dir, b.gates.accuracy) for b in loaded.builds()]
    assert built == [("small", "zero", Path("/out/small"), 0.5), ("big", "any", Path("/out/big"), 0.9)]


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ("[{name: a, data: {sklearn: iris}}, {name: b, data: {sklearn: iris}}]", "a different device_class"),
        ("[{name: a, data: {sklearn: iris}}]\nmodel: {name: b, data: {sklearn: iris}}", "either `model` or `models`"),
    ],
)
def test_several_models_that_no_device_could_tell_apart_are_refused(models: str, said: str) -> None:
    assert said in refusal(f"models: {models}\n")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("pi@board:2222", ("pi", "board", 2222)),
        ("board", (None, "board", None)),
        ("pi@[2001:db8::1]:22", ("pi", "2001:db8::1", 22)),
        ("2001:db8::1", (None, "2001:db8::1", None)),
        ("a@b@board", ("a@b", "board", None)),
    ],
)
def test_addresses(text: str, parts: tuple[str | None, str, int | None]) -> None:
    assert parse.split_address(text) == parts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@board",
        "board:",
        "board:0",
        "-oX",
        "a b",
        "[::1",
        "user@-x",
        "-x@host",
        "a\x1bb",
        "a\x7f",
        "p\n@a",
        "p i@a",
        "a\u202eb",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        parse.split_address(text)


def test_a_missing_file_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no such file") as caught:
        load.load(tmp_path / "deploy.yaml")
    assert caught.value.hint == "knnkit init"


def test_a_document_that_explodes_is_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "aliases make more than 200,000 values" in refusal("\n".join(lines))


def test_the_line_of_the_file_that_an_error_names_is_shown() -> None:
    text = """
model: {name: fruit, data: {file: train.csv, label: species}}
signing:
  key: keys/sign
  trusted: [keys/sign.pub]
fleet:
  known_hosts:
  targets: []
"""
    files = parse.parse(text, base=Path("/project")).key_files
    assert set(files.places) == {"/project/keys/sign", "/project/keys/sign.pub"}
    for path, line in (("/project/keys/sign", 4), ("/project/keys/sign.pub", 5)):
        with pytest.raises(SigningKeyError, match=rf"^deploy\.yaml:{line}: "), files.line_in_errors():
            raise SigningKeyError(f"{path} is not a key")
