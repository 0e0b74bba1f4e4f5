"""`knnkit completion bash`: in a real bash, what TAB offers is what the commands take."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

import pytest

from knnkit import cli
from knnkit.commands import COMMANDS, _parsers

#: Completes the last of its words, and shows what is offered.
_ASK = '. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _knnkit; printf "%s\\n" "${COMPREPLY[@]}"'


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "script"
    with pytest.MonkeyPatch.context() as patch, path.open("w") as file:
        patch.setattr("sys.stdout", file)
        assert cli.main(["completion", "bash"]) == 0
    return path


def offered(script: Path, *words: str) -> set[str]:
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run(
        [bash, "--norc", "-u", "-c", _ASK, str(script), "knnkit", *words], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def test_every_command_is_offered(script: Path) -> None:
    assert offered(script, "") == set(COMMANDS)
    assert offered(script, "de") == {"demo", "deploy"}


def test_the_flags_of_a_command_are_offered_and_no_others(script: Path) -> None:
    parser = argparse.ArgumentParser()
    _parsers.CONFIGURE["deploy"](parser)
    assert offered(script, "deploy", "--target", "local", "-") == set(parser._option_string_actions)
    assert offered(script, "build", "--f") == {"--force"}


def test_the_choices_of_a_flag_are_offered_and_else_files(script: Path) -> None:
    assert offered(script, "deploy", "--provision", "a") == {"auto", "always"}
    assert offered(script, "completion", "") == {"bash", "zsh"}
    assert offered(script, "verify", "di") == set(), "bash names files then"


def test_zsh_takes_the_same_after_two_lines_of_its_own(capsys: pytest.CaptureFixture[str], script: Path) -> None:
    assert cli.main(["completion", "zsh"]) == 0
    assert "bashcompinit\n_knnkit() {" in capsys.readouterr().out
