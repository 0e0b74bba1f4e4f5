"""Runs the command line of `model_signing` many times in one process; started in its own environment by the tests.

Reads one JSON array of arguments a line, answers one JSON object a line: the exit code, and what was printed.
"""

import contextlib
import io
import json
import sys

from model_signing._cli import main


def run(arguments: list[str]) -> dict[str, object]:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            main(arguments, standalone_mode=False)
            code = 0
        except SystemExit as end:
            code = end.code
    return {"code": code, "output": output.getvalue()}


for line in sys.stdin:
    answer = run(json.loads(line))
    print(json.dumps(answer), flush=True)
