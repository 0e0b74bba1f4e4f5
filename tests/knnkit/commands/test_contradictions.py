"""Options that a command would ignore, files called -, and limits that deploy.yaml has are refused before any work."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from device_agent.shared.protocol import json_codec
from knnkit import cli
from knnkit.fleet.report import DeviceReport, FleetReport, Outcome

FLEET = """model: {name: iris, data: {sklearn: iris}}
fleet:
  targets:
    - {host: local, name: a, root: ROOT/a}
    - {host: local, name: b, root: ROOT/c/../a/}
    - {host: Board, name: c}
    - {host: board, name: d, root: .knnkit}
    - {host: board, name: e, root: .knnkit, jump: gate}
    - {host: local, name: f, root: a}
    - {host: board, name: g, root: "~"}
    - {host: board, name: h, root: .}
    - {host: local, name: i, root: "~nobody-of-this-name/a"}
"""

IGNORED = (
    "trust --keys --yes",
    "trust --keys --replace",
    "trust --keys --out order",
    "trust --show signing.pub --signing-key signing.pem",
    "trust --apply order --signing-key signing.pem --target a",
    "trust board --out order",
    "trust board --target a",
    "provision --remove --target a --runtime numpy",
    "provision --remove --target a --key signing.pub",
    "deploy --provision never --runtime numpy",
    "deploy --provision never --wheels wheels",
    "rollback --signing-key signing.pem",
    "rollback --reset-floor --allow-revoked",
    "parity --label species",
    "diff dist dist --label species",
)
FILES = (
    "status --target a --report -",
    "trust --revoke signing.pub --out -",
    "audit --output -",
    "tune --plot -",
    "reject --plot -",
)
LIMITS = (
    "status --target a --connect-timeout 0",
    "status --target a --command-timeout 0s",
    "status --target a --concurrency 99999999",
    "status --target a --connect-retries -1",
    "status --target a --root '~nobody-of-this-name/a'",
    "deploy --target a --confirm-within 0",
    "deploy --target a --confirm-within 2d",
    "trust board --connect-timeout 2h",
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("deploy.yaml").write_text(FLEET.replace("ROOT", str(tmp_path)))
    return tmp_path


@pytest.mark.parametrize("line", [*IGNORED, *FILES, *LIMITS])
def test_the_option_is_named_and_refused(line: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(here.iterdir())
    assert cli.main(shlex.split(line)) == 2
    said = capsys.readouterr().err.partition("\n  try: ")
    option = next(word for word in said[0].split() if word.startswith("--"))
    assert option in line
    assert option in said[2]
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize("command", ["build -o -", "collect --output -", "deploy --release -"])
def test_no_folder_is_called_by_the_sign_of_standard_output(
    command: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(shlex.split(command))
    assert ended.value.code == 2
    assert "- is not a folder" in capsys.readouterr().err
    assert not Path("-").exists()


@pytest.mark.parametrize(
    "selected",
    [
        "--target a --target b",
        "--target c --target d",
        "--target a --target local --root a",
        "--target i --target a --target f",
        "--target g --target h",
    ],
)
def test_two_targets_that_are_one_device_are_refused(
    selected: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status", *selected.split()]) == 2
    assert "are one device" in capsys.readouterr().err


def test_another_host_is_never_called_local(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("deploy.yaml").write_text(FLEET + "    - {host: board-2, name: local}\n")
    assert cli.main(["status", "--target", "local"]) == 2
    said = capsys.readouterr().err
    assert "a target called 'local' is this machine" in said
    assert "name: board-2" in said


@pytest.mark.parametrize("target", ["pi@local", "local:22", "{host: local, jump: gate}", "{host: local, identity: k}"])
def test_this_machine_is_reached_without_ssh(target: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("deploy.yaml").write_text(
        f"model: {{name: iris, data: {{sklearn: iris}}}}\nfleet: {{targets: ['{target}']}}\n"
    )
    if target.startswith("{"):
        Path("deploy.yaml").write_text(Path("deploy.yaml").read_text().replace("'", ""))
    assert cli.main(["status"]) == 2
    assert "host 'local' is this machine, without SSH" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "deploy --dry-run"])
def test_a_deploy_goes_on_only_with_the_report_of_a_deploy(
    command: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = DeviceReport("a", "local", Outcome.ANSWERED, 0)
    Path("r.json").write_bytes(json_codec.dump_file(FleetReport(command, 0.0, 1.0, (done,))))
    assert cli.main(["deploy", "--target", "a", "--retry-from", "r.json"]) == 2
    assert f"r.json is a report of {command!r}, which deploys nothing" in capsys.readouterr().err
    assert cli.main(["status", "--target", "a", "--retry-from", "r.json"]) == 0


@pytest.mark.parametrize("option", ["--waves", "--max-failures"])
def test_an_amount_that_is_none_is_answered_with_one(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["deploy", "--release", "nowhere", "--target", "local"]
    assert cli.main([*words, f"{option}=-1"]) == 2
    said, typed = capsys.readouterr().err.split("\n  try: ")
    assert said.startswith(f"knnkit: {option}: '-1' is neither")
    assert typed.split()[0] == option
    assert cli.main([*words, *typed.split()]) == 2
    assert "nowhere" in capsys.readouterr().err, "the next thing that is wrong"
