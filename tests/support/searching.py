"""Models of NumPy alone: rows and float64 tables in a file, without a graph, and their plain answers."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from device_agent.inference.exact import ExactKnn
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import KnnInfo
from knnkit.model.index.cost_sample import WeightedRows
from knnkit.model.index.groups import WholeRows, make_groups


def open_model(
    path: Path,
    rows: np.ndarray,
    k: int,
    metric: str,
    *,
    scale: Any = 1.0,
    lattice: float | None = None,
    blocks: int = 1,
    groups: int | None = None,
    damage: Mapping[str, Any] | None = None,
    tied: float = 0.0,
    weights: str = "uniform",
    threads: int = 1,
) -> ExactKnn:
    """Returns the model of (n, p) float32 rows with centre 0, written to `path` in so many blocks.

    `groups` is the most groups that it has; None: no groups. `damage` has other arrays for these; None: no such array.
    Distances closer than `tied` are ties. `threads` share a batch.
    """
    count, width = rows.shape
    block = -(-count // blocks)
    sizes = [min(block, count - start) for start in range(0, count, block)]
    tables = {
        "centre": np.zeros(width, np.float32),
        "scale": np.broadcast_to(np.float64(scale), (width,)),
        "zero": np.array(0.0),
        "tied": np.array(tied),
        "classes": np.arange(count, dtype=np.int32) % 3,
        "block_offsets": 4 * width * (np.append(0, np.cumsum(sizes)[:-1]) + np.arange(len(sizes)) + 1),
        "block_rows": np.array(sizes),
        "steps": np.array([], "U9"),
    }
    packed, archived = io.BytesIO(), io.BytesIO()
    np.savez(packed, **tables)
    with zipfile.ZipFile(archived, "w") as archive:
        archive.writestr(constants.EXACT_FILE, packed.getvalue())
        if groups is not None:
            made, packed = make_groups(WholeRows(WeightedRows(rows, tables["scale"])), groups), io.BytesIO()
            arrays = made.to_arrays() | dict(damage or {})
            np.savez(packed, **{name: array for name, array in arrays.items() if array is not None})
            archive.writestr(constants.GROUPS_FILE, packed.getvalue())
    gap = bytes(4 * width - 4) + struct.pack("<I", 4 * width * block)  # as a model has before each block
    parts = [gap + rows[start : start + block].tobytes() for start in range(0, count, block)]
    path.write_bytes(b"".join(parts) + archived.getvalue())
    names = tuple(f"f{column}" for column in range(width))
    more = {"lattice": lattice, "groups": groups}
    info = KnnInfo("plain", k, width, names, (0, 1, 2), metric, weights, "none", count, 1, "", "0", {}, **more)
    return ExactKnn(str(path), info, threads)


def settle(
    model: ExactKnn, row: np.ndarray, known: Any, ranked: Any = None, *, shares: Any = (1.0, 0.0, 0.0)
) -> dict[str, list[Any]]:
    """Settles one (p,) row of which a graph has found the neighbours `known` and the `shares` of the votes.

    `ranked` are the rows that it has ranked, and a lower bound of the squared distance of all others; None: it has no
    such outputs.
    """
    outputs = {constants.OUTPUT_INDICES: np.int32([known]), constants.OUTPUT_PROBABILITIES: np.float32([shares])}
    graph: Any = SimpleNamespace(rows=row[np.newaxis], outputs=outputs, candidates=ranked)
    return model.settle(graph)


def neighbours(rows: np.ndarray, queries: np.ndarray, k: int, metric: str, scale: Any = 1.0) -> tuple[Any, Any]:
    """Returns the (n, k) nearest rows by (measure, row), and measures that are rounded once, in float64."""
    found, measures = [], []
    for query in queries.astype(np.float64):
        terms = np.abs((query - rows) * scale)
        measure = np.array([math.fsum(each) for each in (terms if metric == "manhattan" else terms * terms).tolist()])
        found.append(np.lexsort((np.arange(len(rows)), measure))[:k])
        measures.append(measure[found[-1]])
    return np.array(found), np.array(measures)
