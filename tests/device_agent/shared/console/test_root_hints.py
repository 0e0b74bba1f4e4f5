"""Agent commands in hints keep the root that was typed."""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path

import pytest

from device_agent.cli import main
from device_agent.shared.console.root_hints import root_folder, typed_root, with_root, with_root_of
from device_agent.shared.protocol.constants import DEFAULT_ROOT

HINT = "python -m device_agent forget --last 1; or: python -m device_agent rollback"


@pytest.mark.parametrize("words", ["--root 'a dev' undo", "undo --root 'a dev'", "undo --root='a dev'"])
def test_every_agent_command_in_a_hint_gets_the_root(words: str) -> None:
    root = typed_root(shlex.split(words))
    found = with_root(HINT, root)
    assert found.count("--root 'a dev'") == 2
    assert with_root(found, "other") == found, "a host does not add its own"
    assert found.startswith("python -m device_agent forget --root 'a dev' --last 1; or: ")


@pytest.mark.parametrize("root", [DEFAULT_ROOT, Path(DEFAULT_ROOT).expanduser()])
def test_a_typed_root_is_repeated_even_if_it_is_the_default(root: str | Path) -> None:
    assert with_root(HINT, root).count(f" --root {shlex.quote(str(root))}") == 2
    assert with_root(HINT, "") == HINT


def test_a_hint_names_a_folder_only_if_it_is_not_found_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KNNKIT_ROOT", raising=False)
    default = Path(DEFAULT_ROOT).expanduser()
    assert with_root_of(HINT, default) == HINT
    monkeypatch.setenv("KNNKIT_ROOT", str(tmp_path))
    assert with_root_of(HINT, tmp_path) == HINT
    assert with_root_of(HINT, default).count(f" --root {default}") == 2


@pytest.mark.parametrize("prefix", ["env", "venvs/other", "venvs/abc", "venv"])
def test_only_the_python_that_venv_links_to_has_a_root(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("env", "venvs/other", "venvs/abc"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "venv").symlink_to("venvs/abc")
    monkeypatch.delenv("KNNKIT_ROOT", raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / prefix))
    assert (root_folder() == tmp_path) == (prefix in ("venvs/abc", "venv"))


def test_on_a_board_a_hint_names_the_python_that_has_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "a board"
    (root / "venvs/abc").mkdir(parents=True)
    (root / "venv").symlink_to("venvs/abc")
    monkeypatch.delenv("KNNKIT_ROOT", raising=False)
    monkeypatch.setattr(sys, "prefix", str(root / "venvs/abc"))
    program = f"'{root}/venv/bin/python' -m device_agent"
    for hint in (with_root(HINT, ""), with_root_of(HINT, root)):
        assert hint == f"{program} forget --last 1; or: {program} rollback"
        assert with_root(hint, "") == hint
    assert with_root(HINT, "b").startswith(f"{program} forget --root b --last 1")


@pytest.mark.parametrize("words", ["undo", "undo --jason", "forget --label -x", "enrolle"])
def test_errors_of_the_agent_name_the_given_root(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.suppress(SystemExit):
        main([*words.split(), "--root", str(tmp_path)])
    hint = capsys.readouterr().err.splitlines()[-1]
    assert hint.startswith("  try: python -m device_agent ")
    assert f" --root {tmp_path}" in hint
