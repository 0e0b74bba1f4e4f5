"""`bench`: measures speed, memory and disk space on this board.

Measures the answering release, through the code of `classify`. Uses different rows in turn, those of its golden set:
zeros or one repeated row would measure caches and shortcuts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.lifecycle import check
from device_agent.serving.batch import make_renderer
from device_agent.serving.columns import Columns
from device_agent.serving.load import Loaded, answering, load_accepted
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.constants import counted
from device_agent.shared.protocol.reports import Bench
from device_agent.shared.queries import row_type
from device_agent.shared.raw_rows import raw_parser
from device_agent.shared.release.directory import open_release
from device_agent.shared.tabular.csv_reader import CsvParser
from device_agent.shared.tabular.reader import Parser
from device_agent.store.store import Store
from device_agent.store.trust_state import accepted_state
from device_agent.system import board

#: Packages of the agent, by import name; those that are not installed are left out.
PACKAGES = ("device_agent", "numpy", "tflite_runtime", "ai_edge_litert", "cryptography", "cffi", "pycparser")


def bench(store: Store, *, seconds: float, runtime: str, threads: int, search: str | None) -> Bench:
    """Measures the release that answers, with `threads` threads of `runtime`.

    Answers one row, one line of CSV, and a batch, each again and again for about `seconds`. `search` is a way to find
    the neighbours (`constants.WAYS`); None: the one that was fastest when the release was activated.

    Raises:
        DeviceUnfit, Refused, ModelUnusable: no release can answer.
    """
    release = answering(store).release
    before = time.perf_counter()
    loaded = load_accepted(store, release, runtime, threads, search=search)  # first, as in a start: imports, too
    ready = time.perf_counter()
    loaded.tell_warnings()
    try:
        with open_release(store.release_path(release.digest)) as opened:
            opened.verify_accepted(release.digest, accepted_state(store))
        verified = time.perf_counter()
        return _bench(loaded, seconds, threads, (verified - ready) * 1e3, (ready - before) * 1e3)
    finally:
        loaded.close()


def render(found: Bench) -> str:
    """Returns the figures `found` as text for people."""
    installed = sum(found.installed_bytes.values())
    lines = [
        f"{found.name} {found.version}: {counted(found.n_train, 'training row')} x "
        f"{counted(found.n_features, 'feature')}, k = {found.k}",
        f"one row      p50 {found.one.p50_ms:.4f} ms, p99 {found.one.p99_ms:.4f} ms",
        f"CSV to label p50 {found.line.p50_ms:.4f} ms, p99 {found.line.p99_ms:.4f} ms",
        f"batch        {found.rows_per_second:,.0f} rows/s "
        f"({counted(found.batch, 'row')} a call, {counted(found.threads, 'thread')})",
        f"start        verify {found.verify_ms:.1f} ms, verify and load {found.load_ms:.1f} ms",
        f"memory       {_mib(found.memory_bytes)}, {_mib(found.peak_bytes)} at most; model {_mib(found.model_bytes)}",
        f"installed    {_mib(installed)}: "
        + ", ".join(f"{name} {_mib(size)}" for name, size in found.installed_bytes.items()),
        f"runtime      {found.runtime.name} {found.runtime.version}, {found.runtime.delegate or 'no delegate'}, "
        f"Python {found.runtime.python}, NumPy {found.runtime.numpy}",
        f"board        {found.device.cpu}, {found.device.machine}"
        + (f", governor {found.governor}" if found.governor else "")
        + (f", {found.temperature:.0f} °C" if found.temperature is not None else ""),
    ]
    return "\n".join(lines)


def installed_bytes() -> dict[str, int]:
    """Returns name -> bytes on disk of the agent and of each package it uses, with their bundled libraries."""
    from importlib import util

    sizes = {}
    for name in PACKAGES:
        found = util.find_spec(name)
        for place in (found.submodule_search_locations or []) if found else []:
            folder = Path(place)
            sizes[name] = sum(map(tree_bytes, (folder, folder.with_name(f"{name}.libs"))))
    return sizes


def tree_bytes(folder: Path) -> int:
    """Returns the size of all files below `folder` in bytes, without `__pycache__`."""
    total = 0
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        total += sum((Path(path) / name).lstat().st_size for name in files)
    return total


def _bench(loaded: Loaded, seconds: float, threads: int, verify_ms: float, load_ms: float) -> Bench:
    model, manifest = loaded.model, loaded.verdict.manifest
    golden = Golden.from_bytes(loaded.opened.read(constants.GOLDEN_FILE))
    rows = golden.rows
    one = check.latency(lambda index: model.classify(rows[index][None]), len(rows), seconds)
    return Bench(
        release=loaded.digest,
        name=manifest.name,
        version=manifest.version,
        n_train=model.info.n_train,
        n_features=model.info.n_features,
        k=model.info.k,
        batch=model.batch,
        one=one,
        line=check.latency(_line_answerer(loaded, golden), len(rows), seconds),
        rows_per_second=_throughput(loaded, rows, seconds),
        verify_ms=verify_ms,
        load_ms=load_ms,
        model_bytes=loaded.opened.files[constants.MODEL_FILE].size,
        memory_bytes=board.resident_bytes(),
        peak_bytes=board.peak_bytes(),
        installed_bytes=installed_bytes(),
        runtime=loaded.signed.runtime,
        device=board.device_info(),
        governor=board.governor(),
        temperature=board.temperature(),
        threads=threads,
        signed_by=loaded.verdict.signed_by,
        warnings=loaded.verdict.warnings,
    )


def _line_answerer(loaded: Loaded, golden: Golden) -> Callable[[int], Any]:
    parser: Parser = CsvParser(loaded.model.info.feature_names, row_type(loaded.model.info.origin))
    lines = [b",".join(str(value).encode() for value in row) + b"\n" for row in golden.rows]
    if golden.raw:
        parser, lines = raw_parser(loaded.model.info, loaded.model.chain), golden.raw.splitlines(keepends=True)
    renderer = make_renderer(loaded, Columns(), "csv")
    return lambda index: renderer.render(loaded.model.classify(parser.parse(lines[index]).rows), 1, {})


def _throughput(loaded: Loaded, rows: NDArray[Any], seconds: float) -> float:
    batch = loaded.model.batch
    table = np.resize(rows, (batch * 4, rows.shape[1]))
    loaded.model.classify(table)
    done = 0
    start = now = time.perf_counter()
    while now - start < seconds or not done:
        loaded.model.classify(table)
        done += len(table)
        now = time.perf_counter()
    return done / (now - start)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"
