"""An option that is empty, as an unset variable of a shell makes it, is refused, and never stands for the default."""

from __future__ import annotations

import argparse

import pytest

from device_agent.shared.console.argument_parser import Parser
from knnkit import cli
from knnkit.commands import COMMANDS, _parsers

#: Options of text that names something; an empty one would mean this folder, or no jump host.
KINDS = ("FILE", "DIR", "PEM", "PUB", "HOSTS")


def options() -> list[tuple[str, str]]:
    found = []
    for name in COMMANDS:
        parser = Parser(prog="knnkit")
        _parsers.CONFIGURE[name](parser)
        for action in parser._actions:
            takes_one = isinstance(action, (argparse._StoreAction, argparse._AppendAction)) and action.option_strings
            if takes_one and action.metavar in KINDS:
                found.append((name, action.option_strings[-1]))
    return found


@pytest.mark.parametrize(("command", "option"), options())
def test_an_empty_value_is_refused(command: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, option, ""])
    assert ended.value.code == 2
    assert option in capsys.readouterr().err


#: Names of numbers in help, and whether a fraction is allowed.
NUMBERS = {"N": False, "SEQUENCE": False, "SHARE": True, "COVERAGE": True}


def numbers() -> list[tuple[str, str, bool]]:
    found = []
    for name in COMMANDS:
        parser = Parser(prog="knnkit")
        _parsers.CONFIGURE[name](parser)
        actions = [action for action in parser._actions if action.option_strings and action.type is not None]
        found += [(name, each.option_strings[-1], NUMBERS[each.metavar]) for each in actions if each.metavar in NUMBERS]
    return found


@pytest.mark.parametrize(("command", "option", "fraction"), numbers())
def test_a_word_in_place_of_a_number_is_answered_with_the_kind_of_number(
    command: str, option: str, fraction: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, option, "abc"])
    assert ended.value.code == 2
    assert f"{option}: 'abc' is not a {'' if fraction else 'whole '}number" in capsys.readouterr().err
