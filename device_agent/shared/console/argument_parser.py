"""argparse with one-line errors and a command to try."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

_CHOICE = re.compile(r"argument (\S+): invalid choice: (['\"])(.*)\2 \(choose from (.*)\)", re.DOTALL)
_NO_VALUE = re.compile(r"argument (?:\S+/)?(--\S+): expected (?:one|at least one) argument")
_NO_NUMBER = re.compile(r"argument (\S+): invalid (\w+) value: (['\"])(.*)\3", re.DOTALL)
#: Argument types that allow a fraction; all other number types need a whole number.
_FRACTIONS = ("float", "seconds", "share")
_MOST = 1_000_000_000


def count(text: str, most: int = _MOST) -> int:
    """Parses a whole number from 1 to `most`; refuses any other text by an exception that `argparse` reports."""
    number = int(text)
    if not 1 <= number <= most:
        raise argparse.ArgumentTypeError(f"{text} is not from 1 to {most:,}")
    return number


class _Store(argparse._StoreAction):
    """Stores the value of an option; refuses another value of the same option, which would silently replace it."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Stores `values` in `namespace`; raises ArgumentError if the option had another value before."""
        if option_string and parser.given.setdefault(self.dest, values) != values:
            first = parser.given[self.dest]
            raise argparse.ArgumentError(self, f"it is given twice: {str(first)[:40]!r} and {str(values)[:40]!r}")
        super().__call__(parser, namespace, values, option_string)


class Parser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` with one message and one hint for an error; `root` is the `--root` to add to hints.

    Refuses an empty value (from an unset shell variable, for example), and two values of an option that takes one.
    `given` maps names of options to the values that the command line gives them.
    """

    root = ""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.given: dict[str, Any] = {}
        self._words: list[str] = []
        self.register("action", None, _Store)
        self.register("action", "store", _Store)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Like `argparse`, but the error about an unknown argument names the command, and suggests an option of it."""
        self._words = list(args or ())
        if order := self._command_first(list(self._words)):
            self._fail("write options after the command", order)
        found, extra = self.parse_known_args(args, namespace)
        if extra:
            command = getattr(found, "command", None)
            suggestion = self._suggest(command, extra)
            self.prog = " ".join(filter(None, (self.prog, command)))
            self._fail(f"unknown arguments: {' '.join(extra)[:200]}", suggestion or "--help")
        return found

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Like `argparse`; stores the arguments, from which an error makes its hint and document."""
        self._words, self.given = list(args or ()), {}
        return super().parse_known_args(args, namespace)

    def _get_values(self, action: Any, arg_strings: Any) -> Any:
        if "" in arg_strings and not isinstance(action, argparse._SubParsersAction):
            raise argparse.ArgumentError(action, "it is empty")
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        """Prints the message and a hint; exits with 2."""
        import difflib  # not needed at a normal start of the agent

        instead = "--help"
        if typed := _CHOICE.fullmatch(message):
            name, _, word, listed = typed.groups()
            choices = [choice.strip("' ") for choice in listed.split(",")]
            close = difflib.get_close_matches(word, choices, n=1, cutoff=0.7)  # "unlock" is not a slip for "undo"
            message = f"{word[:40]!r} is not a {name}: choose one of {', '.join(choices)}"
            instead = close[0] if close and name == "COMMAND" else instead
        elif typed := _NO_NUMBER.fullmatch(message):
            name, kind, _, word = typed.groups()
            message = f"argument {name}: {word[:40]!r} is not a {'' if kind in _FRACTIONS else 'whole '}number"
        elif typed := _NO_VALUE.fullmatch(message):
            instead = self._joined(typed[1]) or instead
        self._fail(message, instead)

    def _joined(self, option: str) -> str:
        """Returns `OPTION=VALUE` if the value after `option` begins with -, which misled argparse; else ""."""
        import shlex

        pairs = zip(self._words, self._words[1:])
        value = next((value for word, value in pairs if word == option and value.startswith("-")), "")
        known = value == "--" or value.partition("=")[0] in self._option_string_actions
        return shlex.quote(f"{option}={value}") if value and not known else ""

    def _commands(self) -> dict[str, Any]:
        return next((dict(each.choices) for each in self._actions if isinstance(each, argparse._SubParsersAction)), {})

    def _command_first(self, words: list[str]) -> str:
        """Returns the command line with the command first, if an option of the command precedes it; else ""."""
        import shlex

        command = next((word for word in words if word in self._commands()), None)
        if command is None or not words[0].startswith("-") or words[0].partition("=")[0] in self._option_string_actions:
            return ""
        words.remove(command)
        return shlex.join([command, *words])

    def _suggest(self, command: str | None, extra: Sequence[str]) -> str:
        """Returns the option, perhaps with a value, that `extra[0]`, unknown to `command`, probably means; else ""."""
        import difflib
        import shlex

        options = list(self._commands()[command]._option_string_actions) if command else []
        word = extra[0]
        if word.startswith("-"):
            typed, _, value = word.partition("=")
            names = {option.lstrip("-"): option for option in options}  # dashes make any two options alike
            close, parts = difflib.get_close_matches(typed.lstrip("-"), names, n=1), typed.lstrip("-").split("-")
            if all(part in names for part in parts):  # --input-format means --format, not --output-format
                close = parts[-1:]
            near = names.get(next(iter(close), ""), "")
            value = value or next((each for each in extra[1:2] if not each.startswith("-")), "")
            takes = command and near and value and self._commands()[command]._option_string_actions[near].nargs != 0
            return f"{near} {shlex.quote(value[:200])}" if takes else near
        if "--config" in options and word.endswith((".yaml", ".yml")):
            return f"-c {shlex.quote(word[:200])}"
        before = ["", "", *self._words[: self._words.index(word)]][-2]
        if before in ("--keep", "--target") and before in options:  # each value follows an option of its own
            return f"{before} {shlex.quote(word[:200])}"
        if "--input" in options:
            return f"--input {shlex.quote(word[:200])}"
        is_device = "--target" in options and ("@" in word or word == "local")
        return f"--target {shlex.quote(word[:200])}" if is_device else ""

    def _fail(self, message: str, instead: str) -> NoReturn:
        from device_agent.shared.console.root_hints import with_root

        program = f"python -m {self.prog}" if self.prog.startswith("device_agent") else self.prog
        hint = with_root(f"{program} {instead}", self.root)
        if "--json" in self._words:
            from device_agent.shared.protocol import json_codec
            from device_agent.shared.protocol.reports import Problem

            print(json_codec.dumps(Problem("bad-arguments", message, hint, 2)))
        self.exit(2, f"{self.prog}: {message}\n  try: {hint}\n")
