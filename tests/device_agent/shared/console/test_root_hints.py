"""Agent commands in hints keep the root that was typed."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

import pytest

from device_agent.cli import main
from device_agent.shared.console.root_hints import typed_root, with_root
from device_agent.shared.protocol.constants import DEFAULT_ROOT

HINT = "python -m device_agent forget --last 1; or: python -m device_agent rollback"


@pytest.mark.parametrize("words", ["--root 'a dev' undo", "undo --root 'a dev'", "undo --root='a dev'"])
def test_every_agent_command_in_a_hint_gets_the_root(words: str) -> None:
    root = typed_root(shlex.split(words))
    found = with_root(HINT, root)
    assert found.count("--root 'a dev'") == 2
    assert with_root(found, "other") == found, "a host does not add its own"
    assert found.startswith("python -m device_agent forget --root 'a dev' --last 1; or: ")


@pytest.mark.parametrize("root", ["", DEFAULT_ROOT, Path(DEFAULT_ROOT).expanduser()])
def test_the_default_root_is_not_typed(root: str | Path) -> None:
    assert with_root(HINT, root) == HINT


@pytest.mark.parametrize("words", ["undo", "undo --jason", "forget --label -x", "enrolle"])
def test_errors_of_the_agent_name_the_given_root(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.suppress(SystemExit):
        main([*words.split(), "--root", str(tmp_path)])
    hint = capsys.readouterr().err.splitlines()[-1]
    assert hint.startswith("  try: python -m device_agent ")
    assert f" --root {tmp_path}" in hint
