"""ExactKnn: settles in float64 the few rows that float32 leaves in doubt.

The graph flags a row whose neighbours or label float32 rounding could have changed. Such a row is answered here from
the same file: the training matrix is mapped where it lies in the model, the map from raw rows to model space is read
in float64 from exact.npz. Needs numpy alone; never runs a TFLite graph.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent import contract
from device_agent.errors import ModelUnusable
from device_agent.judge import votes
from device_agent.modelfile import read_member

Float64 = NDArray[np.float64]

_CHUNK_BYTES = 4 << 20  # of float64 differences held at a time
_TIE_BITS = np.int64(12)  # trailing mantissa bits in which equal distances may differ by the order of a sum
_MAX_TABLES = 256 << 20
_MAX_FLOAT32 = float(np.finfo(np.float32).max)


class ExactKnn:
    """The classifier of one model file in float64, one row at a time.

    Args:
        path: the model file.
        info: its knn.json.

    Raises:
        ModelUnusable: exact.npz is missing, damaged, or points outside the file.
    """

    def __init__(self, path: str, info: contract.KnnInfo) -> None:
        self._info = info
        try:
            with np.load(io.BytesIO(read_member(path, contract.EXACT_FILE, _MAX_TABLES)), allow_pickle=False) as file:
                tables = {name: file[name] for name in file.files}
            self._centre = tables["centre"]
            self._scale: Float64 = tables["scale"]
            self._zero = float(tables["zero"])
            self._steps = [
                (str(kind), tables[f"step{i}_a"], tables[f"step{i}_b"]) for i, kind in enumerate(tables["steps"])
            ]
            width = len(self._centre)
            self._blocks = [
                np.memmap(path, np.float32, "r", int(offset), (int(rows), width))
                for offset, rows in zip(tables["block_offsets"], tables["block_rows"])
            ]
            self._classes = tables["classes"]
            self._squares: NDArray[np.float32] | None = None
            if len(self._classes) != info.n_train or sum(map(len, self._blocks)) != info.n_train:
                raise ValueError("its tables have another length than knn.json says")
        except (KeyError, ValueError, OSError) as error:
            raise ModelUnusable(f"{contract.EXACT_FILE} inside {path} is damaged: {error}") from None

    def answer(self, row: NDArray[np.float32]) -> dict[str, Any]:
        """Returns the model's outputs for one raw (n_features,) float32 row, by output name."""
        k = self._info.k
        squared = self._measure(self._enter(row))
        order = nearest(squared, k)
        distances = self._distances(squared[order])
        probabilities = votes(self._classes[order], distances, self._info)
        # Shares that are the same sum added in another order are a tie: the lowest class has it.
        label = int(np.argmax(probabilities >= probabilities.max() - 1e-12))
        reject = self._info.reject
        if reject is not None and distances[-1] > reject.thresholds[label]:
            label = contract.UNKNOWN
        return {
            contract.OUTPUT_LABEL: label,
            contract.OUTPUT_PROBABILITIES: probabilities,
            contract.OUTPUT_INDICES: order,
            contract.OUTPUT_DISTANCES: np.minimum(distances, _MAX_FLOAT32),  # what float32 cannot tell is its largest
        }

    def _enter(self, row: NDArray[np.float32]) -> Float64:
        if not self._steps:  # the float32 offset from the centre is what the definition starts from
            offset: Float64 = (row - self._centre).astype(np.float64)
            return offset
        z = row.astype(np.float64)
        for kind, a, b in self._steps:
            if kind == "affine":
                z = (z - a) * b
            elif kind == "linear":
                z = (z - b) @ a
            elif kind == "normalize":
                z = z / (np.linalg.norm(z, ord=float(a)) or 1.0)
            elif kind == "cosine":  # on the unit sphere; a row of zeros is at distance 1 from every other
                norm = float(np.linalg.norm(z))
                z = np.concatenate([z / (norm or 1.0), [float(norm == 0.0), 0.0]])
            else:
                raise ModelUnusable(f"{contract.EXACT_FILE}: unknown step {kind!r}")
        entered: Float64 = z - self._centre
        return entered

    def _measure(self, z: Float64) -> Float64:
        """Returns what neighbours are ranked by: squared distances, for manhattan the distances themselves.

        Rows that float32 already proves to be farther than the k-th are not measured; theirs is infinity.
        """
        if self._info.metric == "cosine" and z[-2] == 1.0:  # a row of zeros is at distance 1 from all: a tie of all
            return np.full(self._info.n_train, 2.0)
        manhattan = self._info.metric == "manhattan"
        near = None if manhattan else self._find_near(z)
        measure: Float64 = np.full(self._info.n_train, np.inf)
        step = max(1, _CHUNK_BYTES // (8 * len(z)))
        first = 0
        for block in self._blocks:
            end = first + len(block)
            chosen = np.arange(len(block)) if near is None else near[(near >= first) & (near < end)] - first
            for start in range(0, len(chosen), step):
                rows = chosen[start : start + step]
                difference = (z - block[rows]) * self._scale
                parts = np.abs(difference) if manhattan else difference * difference
                measure[first + rows] = parts.sum(axis=1)
            first = end
        zero = self._zero if manhattan else self._zero**2
        measure[measure <= zero] = 0.0
        return measure

    def _find_near(self, z: Float64) -> NDArray[np.int64] | None:
        """Returns the rows that may be among the k nearest, from one float32 matrix product; None if all may be."""
        if self._squares is None:
            self._squares = self._measure_squares()
        weighted = z * self._scale
        length = float(np.sqrt(weighted @ weighted))
        # Four times what `knnkit.model.tfknn` allows for: here is nobody left to settle a doubt.
        rho = 4.0 * (6.0 * np.sqrt(len(z)) + 8.0) * 2.0**-24
        slack = rho * (length + float(np.sqrt(self._squares.max()))) ** 2
        if not 1e-30 < slack < 1e30:  # beyond, float32 squares to infinity; under it, to nothing
            return None
        factor = (weighted * self._scale).astype(np.float32)
        products = np.concatenate([block @ factor for block in self._blocks])
        squared = self._squares - 2.0 * products
        kth = np.partition(squared, self._info.k - 1)[self._info.k - 1]
        exact = self._zero**2 - length * length  # all that count as exact matches are tied, however many
        return np.flatnonzero(squared <= max(float(kth), exact) + 2.0 * slack)

    def _measure_squares(self) -> NDArray[np.float32]:
        """Returns the squared length of each training row in model space, (n_train,) float32."""
        scale, found = self._scale.astype(np.float32), []
        for block in self._blocks:
            step = max(1, _CHUNK_BYTES // (4 * block.shape[1]))
            for start in range(0, len(block), step):
                weighted = block[start : start + step] * scale
                found.append(np.einsum("ij,ij->i", weighted, weighted))
        return np.concatenate(found)

    def _distances(self, measure: Float64) -> Float64:
        if self._info.metric == "euclidean":
            measure = np.sqrt(measure)
        elif self._info.metric == "cosine":
            measure = measure / 2
        return measure


def nearest(measure: Float64, k: int) -> NDArray[np.int64]:
    """Returns the indices of the k smallest of `measure`, by (measure, index).

    Sums that differ in their last bits only are the same number added in another order: they count as tied.
    """
    tied = (measure.view(np.int64) + (np.int64(1) << (_TIE_BITS - 1))) >> _TIE_BITS
    if k < len(tied):
        kth = np.partition(tied, k - 1)[k - 1]
        candidates = np.flatnonzero(tied <= kth)
    else:
        candidates = np.arange(len(tied))
    found: NDArray[np.int64] = candidates[np.argsort(tied[candidates], kind="stable")][:k]
    return found
