"""A command line that is typed wrong is answered as everything else: what is wrong, and what to type next.

Both command lines parse with it. Never decides what a command takes.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

_CHOICE = re.compile(r"argument (\S+): invalid choice: (['\"])(.*)\2 \(choose from (.*)\)", re.DOTALL)
_NO_NUMBER = re.compile(r"argument (\S+): invalid (\w+) value: (['\"])(.*)\3", re.DOTALL)
#: Types of arguments that take a fraction; the others that a word may be wrong for count something.
_FRACTIONS = ("float", "seconds")


class Parser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` with errors of one message and one hint."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As its base, but what a command does not take is an error of that command."""
        found, extra = self.parse_known_args(args, namespace)
        if extra:
            command = getattr(found, "command", None)
            meant = self._meant(command, extra)
            self.prog = " ".join(filter(None, (self.prog, command)))
            self._fail(f"it does not take {' '.join(extra)[:200]}", meant or "--help")
        return found

    def error(self, message: str) -> NoReturn:
        """Says what is wrong; exits with 2."""
        import difflib  # a start of the agent does without

        instead = "--help"
        if typed := _CHOICE.fullmatch(message):
            name, _, word, listed = typed.groups()
            choices = [choice.strip("' ") for choice in listed.split(",")]
            close = difflib.get_close_matches(word, choices, n=1)
            message = f"{word[:40]!r} is no {name}: it is one of {', '.join(choices)}"
            instead = close[0] if close and name == "COMMAND" else instead
        elif typed := _NO_NUMBER.fullmatch(message):
            name, kind, _, word = typed.groups()
            message = f"argument {name}: {word[:40]!r} is no {'' if kind in _FRACTIONS else 'whole '}number"
        self._fail(message, instead)

    def _meant(self, command: str | None, extra: Sequence[str]) -> str:
        """Returns what was meant by the first of the words that a command does not take; or nothing."""
        import difflib
        import shlex

        commands = [action.choices for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        options = list(commands[0][command]._option_string_actions) if commands and command else []
        word = extra[0]
        if word.startswith("-"):
            return next(iter(difflib.get_close_matches(word.partition("=")[0], options, n=1)), "")
        if "--input" in options:
            return f"--input {shlex.quote(word[:200])}"
        is_device = "--target" in options and ("@" in word or word == "local")
        return f"--target {shlex.quote(word[:200])}" if is_device else ""

    def _fail(self, message: str, instead: str) -> NoReturn:
        called = f"python -m {self.prog}" if self.prog.startswith("device_agent") else self.prog
        self.exit(2, f"{self.prog}: {message}\n  try: {called} {instead}\n")
