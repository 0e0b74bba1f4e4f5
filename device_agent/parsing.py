"""A command line that is typed wrong is answered as everything else: what is wrong, and what to type next.

Both command lines parse with it. Never decides what a command takes.
"""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

_CHOICE = re.compile(r"argument (\S+): invalid choice: (['\"])(.*)\2 \(choose from (.*)\)", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` with errors of one message and one hint."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As its base, but what a command does not take is an error of that command."""
        found, extra = self.parse_known_args(args, namespace)
        if extra:
            self.prog = " ".join(filter(None, (self.prog, getattr(found, "command", None))))
            self.error(f"it does not take {' '.join(extra)[:200]}")
        return found

    def error(self, message: str) -> NoReturn:
        """Says what is wrong; exits with 2."""
        import difflib  # a start of the agent does without

        typed = _CHOICE.fullmatch(message)
        called = f"python -m {self.prog}" if self.prog.startswith("device_agent") else self.prog
        hint = f"{called} --help"
        if typed:
            name, _, word, listed = typed.groups()
            choices = [choice.strip("' ") for choice in listed.split(",")]
            close = difflib.get_close_matches(word, choices, n=1)
            message = f"{word[:40]!r} is no {name}: it is one of {', '.join(choices)}"
            hint = f"{called} {close[0]}" if close and name == "COMMAND" else hint
        self.exit(2, f"{self.prog}: {message}\n  try: {hint}\n")
