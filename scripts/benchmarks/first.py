"""The child process of one start: loads the model, answers one row and reports; then a batch, and the memory.

Run as `python -m benchmarks.first KEY DATA`. The parent measures from before the process exists to the first line.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from benchmarks.contenders import CONTENDERS, artefact


def memory() -> dict[str, int]:
    """Returns the bytes of resident memory: all, the anonymous part, and the part mapped from files."""
    text = Path("/proc/self/smaps_rollup").read_text()
    found = {name: int(size) * 1024 for name, size in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}
    return {"rss": found["Rss"], "anonymous": found["Anonymous"], "mapped": found["Rss"] - found["Anonymous"]}


def main() -> None:
    key, data = sys.argv[1], Path(sys.argv[2])
    import numpy as np

    queries = np.load(data / "queries.npy")
    imported = memory()
    model = CONTENDERS[key].first(artefact(key, data))
    model.neighbors(queries[:1])
    print("answered", flush=True)
    one = memory()
    model.neighbors(queries)
    print(json.dumps({"python and numpy": imported, "one row": one, "batch": memory()}), flush=True)


if __name__ == "__main__":
    main()
