"""What a knnkit command line imports, seen from inside its process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_PROBE = """
import json, sys
sys.path.insert(0, {root!r})
from knnkit import cli
try:
    code = cli.main(sys.argv[1:])
except SystemExit as end:
    code = end.code
assert code == 0, code
print(json.dumps(sorted({{name.split(".")[0] for name in sys.modules}})), file=sys.stderr)
"""


def loaded_by(*arguments: str, cwd: Path | None = None) -> set[str]:
    """Returns the top-level packages that a successful knnkit command line imports."""
    command = [sys.executable, "-c", _PROBE.format(root=str(ROOT)), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stderr.splitlines()[-1]))
