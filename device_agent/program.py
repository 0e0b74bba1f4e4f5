"""A command line, from its words to its exit code.

Takes the signals, makes the standard streams safe, runs one command, and turns an error into a message, a hint, an exit
code, and one JSON document where `--json` asks for it. Both command lines are a `Program`; each brings its commands.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from device_agent import codec, contract, interrupts, standard
from device_agent.record import record

EXIT_PIPE = 141  # nobody reads our output: what a shell gives a process that SIGPIPE ended


@record
class Program:
    """One of the two command lines. Its errors have `exit_code`, `hint` and `reason`.

    Args:
        name: how messages call it.
        run: parses the words and runs a command; returns the exit code.
        errors: the base of what it raises on purpose.
        interrupted: makes the error of a signal, from the words.
        failed: makes an error of one of the system's: a refusal, or no memory.
    """

    name: str
    run: Callable[[list[str]], int]
    errors: type[Exception]
    interrupted: Callable[[list[str]], Any]
    failed: Callable[[OSError | MemoryError], Any]

    def main(self, argv: Sequence[str] | None) -> int:
        """Runs one command; returns the exit code (see `device_agent.contract`; 130 interrupted, 141 output closed).

        Without `argv` it is the program itself: it takes those of the process, and its signals.
        """
        words = list(sys.argv[1:] if argv is None else argv)
        try:
            if argv is None:
                interrupts.listen()
            code = self._answer(words)
            interrupts.deafen()
            return code
        except KeyboardInterrupt:
            return self._complain(self.interrupted(words), words)

    def _answer(self, words: list[str]) -> int:
        standard.secure()
        try:
            with interrupts.told():
                code = self.run(words)
                sys.stdout.flush()
            return code
        except self.errors as error:
            return self._complain(error, words)
        except BrokenPipeError:
            standard.silence_output()
            return EXIT_PIPE
        except (OSError, MemoryError) as error:
            return self._complain(self.failed(error), words)

    def _complain(self, error: Any, words: Sequence[str]) -> int:
        hint = standard.hint_here(error.hint) if error.exit_code == contract.EXIT_USAGE else error.hint
        print(f"{self.name}: {error}", file=sys.stderr)
        if hint:
            print(f"  try: {hint}", file=sys.stderr)
        try:
            if "--json" in words:
                print(codec.dumps(_problem(error, hint)))
            sys.stdout.flush()
        except BrokenPipeError:
            standard.silence_output()
            return EXIT_PIPE
        except OSError:  # it is full, or closed: standard error has it
            standard.silence_output()
        code: int = error.exit_code
        return code


def _problem(error: Any, hint: str) -> Any:
    from device_agent.documents import Problem  # not needed to start

    certificate = getattr(error, "certificate", None)
    return Problem(error.reason or "error", str(error), hint, error.exit_code, certificate)
