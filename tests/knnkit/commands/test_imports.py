"""What the command line loads: help comes at once because nothing heavy is imported."""

from __future__ import annotations

import pytest
from support.imports import loaded_by

from knnkit.commands import COMMANDS

#: What `--help` loads nothing of.
NOT_FOR_HELP = {"tensorflow", "sklearn", "paramiko", "rich", "pydantic", "numpy", "jinja2", "matplotlib", "distributed"}


def test_the_probe_sees_what_is_imported() -> None:
    assert {"knnkit", "argparse", "device_agent"} <= loaded_by("--help")
    assert "pydantic" in loaded_by("schema")


def test_help_loads_nothing_heavy() -> None:
    assert loaded_by("--help") & NOT_FOR_HELP == set()


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_help_of_a_command_loads_nothing_heavy(command: str) -> None:
    assert loaded_by(command, "--help") & NOT_FOR_HELP == set()
