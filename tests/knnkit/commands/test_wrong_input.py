"""Wrong input, through the command line as a person types it: it says what and where, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import ROOT

GOOD_ROWS = "width,height,species\n" + "".join(f"{n}.5,{n % 3},{'ab'[n % 2]}\n" for n in range(20))
MODEL = "model: {{name: fruit, data: {{file: train.csv, label: species}}, test: 0.3, k: {k}}}\n"


def knnkit(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from knnkit.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300
    )


@dataclass(frozen=True)
class Case:
    says: tuple[str, ...]
    rows: str | None = GOOD_ROWS
    config: str = MODEL.format(k=3)
    code: int = 2


CASES = {
    "the data file is missing": Case(("train.csv",), rows=None),
    "the label column is not there": Case(
        ("species", "width, height, kind", "kind"), rows=GOOD_ROWS.replace("species", "kind")
    ),
    "the label column is misspelt": Case(
        ("specie", "did you mean 'specie'"), rows=GOOD_ROWS.replace("species", "specie")
    ),
    "text in a numeric column": Case(
        ("train.csv", "line 4", "height", "tall"), rows=GOOD_ROWS.replace("2.5,2,a", "2.5,tall,a")
    ),
    "not a number": Case(("train.csv", "line 4", "width", "nan"), rows=GOOD_ROWS.replace("2.5,2,a", "nan,2,a")),
    "infinity": Case(("train.csv", "line 4", "width", "inf"), rows=GOOD_ROWS.replace("2.5,2,a", "inf,2,a")),
    "more neighbours than rows": Case(("50", "14"), config=MODEL.format(k=50)),
    "two columns of one name": Case(("width",), rows=GOOD_ROWS.replace("height", "width")),
    "an unknown key": Case(
        ("deploy.yaml:2", "metrik", "did you mean 'metric'"),
        config="model:\n  metrik: cosine\n  name: fruit\n  data: {file: train.csv, label: species}\n",
    ),
    "no deploy.yaml": Case(("deploy.yaml", "knnkit init"), config=""),
    "a wrong value": Case(
        ("deploy.yaml:1", "manhatten", "did you mean 'manhattan'"),
        config="model: {name: fruit, metric: manhatten, data: {file: train.csv, label: species}}\n",
    ),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    made = knnkit(tmp_path, "keygen", "--out", "keys/signing")
    assert made.returncode == 0, made.stderr
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_a_build_that_cannot_be_says_why_and_leaves_nothing_behind(project: Path, name: str) -> None:
    case = CASES[name]
    if case.rows is not None:
        (project / "train.csv").write_text(case.rows)
    if case.config:
        (project / "deploy.yaml").write_text(case.config)
    before = sorted(project.rglob("*"))
    result = knnkit(project, "build")
    assert result.returncode == case.code, result.stderr
    assert "Traceback" not in result.stderr
    assert [part for part in case.says if part not in result.stderr] == [], result.stderr
    assert sorted(project.rglob("*")) == before


def test_a_signing_key_that_others_can_read_is_not_used(project: Path) -> None:
    (project / "train.csv").write_text(GOOD_ROWS)
    (project / "deploy.yaml").write_text(MODEL.format(k=3))
    (project / "keys" / "signing.pem").chmod(0o644)
    result = knnkit(project, "build")
    assert result.returncode == 2
    assert "chmod 600" in result.stderr
    assert not (project / "dist").exists()


def test_trust_with_target_names_the_command_that_was_meant(tmp_path: Path) -> None:
    result = knnkit(tmp_path, "trust", "--target", "pi@127.0.0.99:9")
    assert result.returncode == 2
    assert "knnkit trust pi@127.0.0.99:9" in result.stderr


def test_a_host_that_does_not_answer_is_unreachable_not_failed(project: Path) -> None:
    result = knnkit(project, "status", "--target", "pi@127.0.0.99:9", "--connect-retries", "0")
    assert result.returncode == 3, result.stderr
    assert "127.0.0.99" in result.stdout + result.stderr


@pytest.mark.parametrize(
    "arguments", [("deploy",), ("nonsense",), ("status", "--target", "a b c"), ("verify", "nowhere")]
)
def test_a_wrong_command_line_ends_with_2_or_4_and_no_traceback(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = knnkit(tmp_path, *arguments)
    assert result.returncode in (2, 4)
    assert result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "next_step"),
    [
        (("build",), "check brackets, quotes, colons and the indent in line 2 and above"),
        (("build", "-c", "nowhere.yaml"), "knnkit init nowhere.yaml"),
        (("build", "-c", "deploy.yml"), "did you mean deploy.yaml?"),
        (("verify", ".", "--key", "nowhere.pub"), "beside the signer's private key"),
        (("sign", ".", "--key", "my/own.pem"), "knnkit keygen --out my/own"),
        (("parity", "--target", "local", "--retry-from", "nowhere.json"), "--report FILE.json"),
        (("classify", "--target", "local", "--input", "rows.csv"), "check the path"),
        (("trust", "--target", "local", "--apply", "order"), "knnkit trust --out order"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_file_that_is_missing_or_broken_names_the_next_step(
    tmp_path: Path, arguments: tuple[str, ...], next_step: str
) -> None:
    (tmp_path / "deploy.yaml").write_text("model: [\n" if arguments == ("build",) else MODEL.format(k=3))
    result = knnkit(tmp_path, *arguments)
    assert result.returncode == 2
    assert "\n  try: " in result.stderr
    assert next_step in result.stderr.partition("  try: ")[2]


@pytest.mark.parametrize(
    ("text", "command", "says"),
    [
        ("fleet: {targets: [local]}\n", ("build",), "nothing to build: deploy.yaml has no `model`"),
        ("fleet: {targets: [local]}\n", ("deploy",), "nothing to deploy: deploy.yaml has no `model`"),
        ("fleet: {targets: [local]}\n", ("parity", "--data", "x.csv"), "--data: deploy.yaml has no `model`"),
        (
            "model: {name: a, data: {sklearn: iris}, device_class: zero}\n",
            ("deploy", "--target", "local"),
            "local is of class 'any'; the releases are for zero",
        ),
    ],
)
def test_a_deploy_yaml_that_has_no_release_for_a_device_says_so(
    tmp_path: Path, text: str, command: tuple[str, ...], says: str
) -> None:
    (tmp_path / "deploy.yaml").write_text(text)
    result = knnkit(tmp_path, *command)
    assert (result.returncode, "Traceback" in result.stderr) == (2, False)
    assert says in result.stderr
    assert ("--release" in result.stderr) == (says.startswith("nothing to deploy")), "no other command takes it"
    (tmp_path / "deploy.yaml").rename(tmp_path / "mine.yaml")
    assert says.replace("deploy.yaml", "mine.yaml") in knnkit(tmp_path, *command, "-c", "mine.yaml").stderr


@pytest.mark.parametrize("command", ["status", "deploy", "build", "verify"])
def test_with_json_a_failure_is_one_document_on_stdout(tmp_path: Path, command: str) -> None:
    import json

    extra = {
        "status": ["--target", "a b c"],
        "deploy": ["-c", "none.yaml"],
        "build": [],
        "verify": ["nowhere", "--key", "none.pub"],
    }
    result = knnkit(tmp_path, command, "--json", *extra[command])
    document = json.loads(result.stdout)
    assert document["exit_code"] == result.returncode != 0
    assert document["message"]


@pytest.mark.parametrize(
    "words",
    [
        *(("knnkit", word) for word in ("init", "keygen", "build", "demo", "deploy --release x", "sign x")),
        *(("knnkit", word) for word in ("inspect x", "verify x --key y", "classify --target local --input x")),
        ("knnkit", "parity --target local --report x.html"),
        *(("device_agent", word) for word in ("stage x", "verify ./x", "--root x status")),
    ],
    ids=" ".join,
)
def test_in_a_directory_that_was_deleted_every_command_says_so(words: tuple[str, str], tmp_path: Path) -> None:
    module, command = words
    gone = tmp_path / "gone"
    gone.mkdir()
    script = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    argv = ["sh", "-c", script, "sh", str(gone), sys.executable, "-m", module, *command.split()]
    env = os.environ | {"PYTHONPATH": str(ROOT), "KNNKIT_ROOT": str(tmp_path / "root")}
    done = subprocess.run(argv, capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "the working directory was deleted: cd to one that exists" in done.stderr


@pytest.mark.parametrize(
    ("module", "words", "said", "hint"),
    [
        ("knnkit", "dploy", "'dploy' is not a COMMAND: choose one of demo, init", "knnkit deploy"),
        ("knnkit", "", "required: COMMAND", "knnkit --help"),
        ("knnkit", "classify --format xml", "'xml' is not a --format: choose one of auto", "knnkit classify --help"),
        ("knnkit", "build train.csv --fast", "build: unknown arguments: train.csv --fast", "knnkit build --help"),
        ("knnkit", "deploy --targets local", "unknown arguments: --targets local", "knnkit deploy --target local"),
        ("knnkit", "deploy --targets=pi@b", "unknown arguments: --targets=pi@b", "knnkit deploy --target pi@b"),
        ("knnkit", "build --froce", "knnkit build: unknown arguments: --froce", "knnkit build --force"),
        ("knnkit", "logs --last 5", "knnkit logs: unknown arguments: --last 5", "knnkit logs --help"),
        ("knnkit", "bench --seconds 0.2", "knnkit bench: unknown arguments: --seconds 0.2", "knnkit bench --help"),
        ("device_agent", "bench --secs 2", "unknown arguments: --secs 2", "device_agent bench --seconds 2"),
        ("knnkit", "classify rows.csv --proba", "unknown arguments: rows.csv", "knnkit classify --input rows.csv"),
        ("device_agent", "classify --input-format jsonl", "--input-format", "device_agent classify --format jsonl"),
        ("knnkit", "build reg.yaml", "unknown arguments: reg.yaml", "knnkit build -c reg.yaml"),
        ("knnkit", "classify reg.yml", "unknown arguments: reg.yml", "knnkit classify -c reg.yml"),
        ("knnkit", "-c deploy.yaml build", "write options after the command", "knnkit build -c deploy.yaml"),
        ("knnkit", "classify --keep Date Kind", "unknown arguments: Kind", "knnkit classify --keep Kind"),
        ("knnkit", "status --target a b", "unknown arguments: b", "knnkit status --target b"),
        ("knnkit", "init fruit.csv --label X", "fruit.csv is the deploy.yaml to write", "--data fruit.csv"),
        ("knnkit", "deploy pi@a.example", "unknown arguments: pi@a.example", "knnkit deploy --target pi@a.example"),
        ("knnkit", "deploy dist", "unknown arguments: dist", "knnkit deploy --help"),
        ("knnkit", "bench --threads two", "argument --threads: 'two' is not a whole number", "knnkit bench --help"),
        ("device_agent", "classify a.csv", "unknown arguments: a.csv", "python -m device_agent classify --input a.csv"),
        ("device_agent", "classify --threads 65", "--threads: 65 is not from 1 to 64", "device_agent classify --help"),
        ("device_agent", "bench --seconds soon", "--seconds: 'soon' is not a number", "device_agent bench --help"),
        (
            "device_agent",
            "bench --seconds 0",
            "--seconds: 0 is out of range: above 0, at most 3600",
            "device_agent bench",
        ),
        ("device_agent", "--root x status y", "status: unknown arguments: y", "device_agent status --help"),
        ("device_agent", "clasify", "'clasify' is not a COMMAND", "python -m device_agent classify"),
        (
            "device_agent",
            "unlock",
            "'unlock' is not a COMMAND",
            "python -m device_agent --help",
        ),  # not undo: it forgets
        ("device_agent", "activate", "required: DIGEST", "python -m device_agent activate --help"),
        ("device_agent", "verify ./model.tflite", "model.tflite is not a release directory", "knnkit build"),
    ],
)
def test_what_is_typed_wrong_is_told_with_what_to_type(
    module: str, words: str, said: str, hint: str, tmp_path: Path
) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT), "KNNKIT_ROOT": str(tmp_path / "root")}
    argv = [sys.executable, "-m", module, *words.split()]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=60)
    assert done.returncode == 2
    message, mend = done.stderr.splitlines()
    assert said in message
    assert mend.startswith("  try: ")
    assert hint in mend
