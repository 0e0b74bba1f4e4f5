"""The contenders' environment, kept under build/, and what this machine is. Installs from the package index only."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

AGENT = "device_agent"
ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "bench"
REQUIREMENTS = (
    "numpy<2; python_version < '3.12'",
    "tflite-runtime==2.14.0; python_version < '3.12'",
    "ai-edge-litert>=2.0",
    "cryptography>=42",
    "scikit-learn",
    "joblib",
    "pandas",
    "onnxruntime",
    "skl2onnx",
    "faiss-cpu",
)
#: Peers that not every machine can have: each is left out where it cannot be installed.
OPTIONAL = ("scikit-learn-intelex", "usearch", "numkong")
SHOWN = (
    "numpy", "tflite-runtime", "ai-edge-litert", "scikit-learn", "scipy", "joblib", "pandas", "onnxruntime", "skl2onnx",
    "faiss-cpu", "cryptography", *OPTIONAL,
)  # fmt: skip

#: What of the machine's environment may reach a contender; threads are pinned by the parent.
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")
#: Vector unit -> name of OpenBLAS's kernels for it.
_KERNELS = {"avx512f": "SkylakeX", "avx2": "Haswell"}

_SIZES = """
import importlib.metadata as metadata, json, re, sys
from packaging.requirements import Requirement
def closure(names):
    seen, queue = set(), list(names)
    while queue:
        name = re.sub(r"[-_.]+", "-", queue.pop()).lower()
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if name not in seen:
            seen.add(name)
            wanted = (Requirement(text) for text in found.requires or ())
            queue += [r.name for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    return sorted(seen)
def size(name):
    files = metadata.distribution(name).files or ()
    places = (f.locate() for f in files if f.suffix != ".pyc")
    return sum(p.stat().st_size for p in places if p.is_file())
asked = json.load(sys.stdin)
versions = {}
for name in asked["shown"]:
    try: versions[name] = metadata.version(name)
    except metadata.PackageNotFoundError: pass
stacks = {}
for key, names in asked["stacks"].items():
    every = closure(names)
    stacks[key] = {"bytes": sum(map(size, every)), "packages": every}
print(json.dumps({"versions": versions, "stacks": stacks}))
"""


def peers_python(given: str | None) -> Path:
    """Returns the interpreter of the contenders' environment; makes it once under build/ unless one is given."""
    if given:
        return Path(given) / "bin" / "python"
    folder = BUILD / "venv"
    key = hashlib.sha256("\n".join([sys.version, *REQUIREMENTS, *OPTIONAL]).encode()).hexdigest()
    stamp = folder / "requirements.sha256"
    if not stamp.exists() or stamp.read_text() != key:
        print("making the environment of the contenders under build/bench (once)", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *REQUIREMENTS, "packaging"], check=True)
        for peer in OPTIONAL:
            if subprocess.run([*pip, peer]).returncode:
                print(f"{peer} is left out: it cannot be installed here", file=sys.stderr)
        stamp.write_text(key)
    return folder / "bin" / "python"


def environment(threads: int, **more: str) -> dict[str, str]:
    """Returns a child's environment: threads pinned, this clone importable, nothing else carried over."""
    from benchmarks.contenders import THREAD_VARIABLES

    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    pinned = dict.fromkeys(THREAD_VARIABLES, str(threads))
    return kept | pinned | _openblas() | {"PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"} | more


def _openblas() -> dict[str, str]:
    """Returns the variable that names the kernels of OpenBLAS for this processor.

    The OpenBLAS of NumPy 1.26 uses kernels of 2004 on processors newer than itself: a product takes 4 times as long.
    That of SciPy is newer, and knows them.
    """
    unit = processor_class()
    return {"OPENBLAS_CORETYPE": _KERNELS[unit]} if unit in _KERNELS else {}


def installed(python: Path, stacks: dict[str, tuple[str, ...]]) -> dict[str, dict[str, Any]]:
    """Returns versions, and for each stack the bytes on disk of its packages with all they need.

    `AGENT` among the packages stands for the agent's own files, because the agent is not installed there.
    """
    asked = json.dumps({"shown": SHOWN, "stacks": stacks})
    done = subprocess.run([python, "-c", _SIZES], input=asked, capture_output=True, text=True, check=True)
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    for name, packages in stacks.items():
        if AGENT in packages:
            found["stacks"][name]["bytes"] += sum(path.stat().st_size for path in (ROOT / AGENT).rglob("*.py"))
    return found


def processor_class() -> str:
    """Returns the widest vector unit of this processor that decides who is the fastest, else its architecture."""
    found = machine()
    units = found["vector units"]
    return next((unit for unit in ("avx512f", "avx2", "sve") if unit in units), str(found["architecture"]))


def machine() -> dict[str, Any]:
    """Returns what may matter to a reader: CPU, cores, memory, kernel, Python; nothing that names the machine."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", cpuinfo, re.M)
    flags = set((re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.M) or ["", ""])[1].split())
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    total = re.search(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), re.M)
    return {
        "cpu": model[1].strip() if model else platform.machine(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "vector units": sorted(flags & {"avx2", "avx512f", "fma", "asimd", "neon", "sve"}),
        "virtual": "hypervisor" in flags,
        "governor": governor.read_text().strip() if governor.exists() else None,
        "memory_bytes": int(total[1]) * 1024 if total else None,
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
    }
