"""An empty option, as an unset variable of a shell makes it, is refused; so are two values where one is taken."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from device_agent import cli as agent_cli
from device_agent.shared.console.argument_parser import Parser
from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.reports import Problem
from knnkit import cli
from knnkit.commands import COMMANDS, _parsers


def options() -> list[tuple[str, argparse.Action]]:
    found: list[tuple[str, argparse.Action]] = []
    for name in COMMANDS:
        parser = Parser(prog="knnkit")
        _parsers.CONFIGURE[name](parser)
        found += [(name, action) for action in parser._actions if action.option_strings and action.nargs != 0]
    return found


def ids(value: object) -> str:
    return value.option_strings[-1] if isinstance(value, argparse.Action) else str(value)


@pytest.mark.parametrize(("command", "action"), options(), ids=ids)
def test_an_empty_value_is_refused(command: str, action: argparse.Action, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, action.option_strings[-1], ""])
    assert ended.value.code == 2
    assert f"{action.option_strings[-1]}: it is empty" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["enrol", "--label", "a", "--input", ""], ["check", "--nonce", ""], ["confirm", ""]])
def test_the_agent_refuses_an_empty_value(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        agent_cli.main(words)
    assert ended.value.code == 2
    assert "it is empty" in capsys.readouterr().err


def test_two_values_of_an_option_that_takes_one_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for main, words in (
        (agent_cli.main, ["enrol", "--label", "a", "--input", "1.csv", "--input", "2.csv"]),
        (cli.main, ["deploy", "--root", "a", "--max-failures", "1", "--root", "b"]),
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
        assert "it is given twice: " in capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (cli.main, ["status", "--json", "--bogus"]),
        (cli.main, ["status", "--concurrency", "x", "--json"]),
        (cli.main, ["--json", "status"]),
        (cli.main, ["statu", "--json"]),
        (cli.main, ["card", "dist", "--json"]),
        (agent_cli.main, ["enrol", "--json"]),
        (agent_cli.main, ["bench", "--seconds", "no", "--json"]),
    ],
)
def test_with_json_an_error_of_the_command_line_is_a_document_too(
    main: Callable[[list[str]], int], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    printed = capsys.readouterr()
    problem = json_codec.loads(Problem, printed.out.encode())
    assert (ended.value.code, problem.exit_code, problem.reason) == (2, 2, "bad-arguments")
    assert f": {problem.message}\n  try: {problem.hint}\n" in printed.err
