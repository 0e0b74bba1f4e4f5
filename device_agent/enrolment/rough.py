"""Fast, approximate map of rows into model space.

Adds in float64, in any order: faster than `ExactKnn`, which adds in the same order on all machines. States how far the
coordinates may be from the exact ones. NumPy only, no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

#: Share by which a float64 value is off at most after one operation.
_UNIT = 2.0**-52
#: Squares of the coordinates of a longer row keep all their digits.
_LEAST_NORM = 1e-100
_MAX_FLOAT32 = np.finfo(np.float32).max


class Rough:
    """The approximate map of one model.

    Args:
        steps: what maps a raw row x, in order, each (kind, a, b): affine is (x - a) * b, linear is (x - b) @ a;
            normalize divides x by its norm of order a, cosine by its Euclidean norm.
        centre: (p,) numbers, subtracted after the steps.
        scale: (p,) factor of each coordinate in a distance; used for bounds only, not for the coordinates returned.
        manhattan: whether distances are sums of differences.

    Attributes:
        blur: greatest distance, with the factors `scale`, between coordinates that `one` returns and the exact ones.
        on_sphere: whether the last step is `cosine`, and all others are affine.
    """

    def __init__(
        self, steps: Sequence[tuple[str, Any, Any]], centre: NDArray[np.float32], scale: Float64, manhattan: bool
    ) -> None:
        self._steps, self._centre = steps, centre
        self._most = float(np.abs(scale).max()) * (sqrt(len(centre)) if manhattan else 1.0)
        self._length = sqrt((centre.astype(np.float64) ** 2).sum())
        kinds = [kind for kind, _, _ in steps]
        self.on_sphere = kinds[-1:] == ["cosine"] and kinds.count("affine") == len(kinds) - 1
        self.blur = (len(centre) + 16) * _UNIT * (1.0 + self._length) * self._most if steps else 0.0

    def one(self, row: NDArray[np.float32]) -> NDArray[Any] | None:
        """Returns the (p,) approximate coordinates of a row in model space; None if the exact map is needed.

        For a model without steps, they are float32 and exact. With steps, the exact map is needed for a row whose norm
        is nearly 0, and for all rows unless `on_sphere` (the last step is `cosine`, all others are affine). Then a
        coordinate is off by at most p/2 + 3 roundings, plus one for the centre.
        """
        if not self._steps:
            return row - self._centre
        if not self.on_sphere:
            return None
        z = self.before_norm(row).astype(np.float64, copy=False)
        norm, found = sqrt(z.dot(z)), np.zeros(len(z) + 2)
        if not norm > _LEAST_NORM:
            return None
        np.divide(z, norm, out=found[:-2])
        return np.subtract(found, self._centre, out=found)

    def before_norm(self, row: NDArray[np.float32]) -> NDArray[Any]:
        """Returns the (p - 2,) coordinates of a row before the last step, `cosine`, which adds two.

        Only for a model whose other steps are affine. The coordinates are float32 without other steps, else float64.
        """
        z: NDArray[Any] = row
        for _, a, b in self._steps[:-1]:
            z = (z.astype(np.float64, copy=False) - a) * b
        return z

    def many(self, rows: NDArray[np.float32]) -> tuple[NDArray[Any], Float64]:
        """Returns (n, p) approximate coordinates in model space, and (n,) bounds on their distance from the exact ones.

        The coordinates are float32 if the model has no steps (affine or linear maps, divisions by a norm), else
        float64.
        """
        blur = np.zeros(len(rows))
        with np.errstate(all="ignore"):
            if not self._steps:
                return np.clip(rows - self._centre, -_MAX_FLOAT32, _MAX_FLOAT32), blur
            z, same = rows.astype(np.float64), True  # the same as the exact coordinates, bit by bit
            for kind, a, b in self._steps:
                if kind == "affine":
                    z, blur = (z - a) * b, blur * np.abs(b).max()
                elif kind == "linear":
                    z, reach = z - b, np.linalg.norm(a)
                    blur = (blur + z.shape[1] * _UNIT * _lengths(z)) * reach
                    z, same = z @ a, False
                else:
                    norm = _lengths(z) if kind == "cosine" else np.linalg.norm(z, ord=float(a), axis=1)
                    blur = blur * (1.0 + z.shape[1])  # a coordinate is at most the norm, so this is over sqrt(p) of it
                    blur = np.where(blur > 0.0, blur / norm, 0.0) + z.shape[1] * _UNIT
                    z, same = _divided(z, norm, kind == "cosine"), False
                if not same:
                    lengths = _lengths(z)
                    blur += 4.0 * _UNIT * lengths
            z -= self._centre
            if not same:
                blur += 4.0 * _UNIT * (lengths + self._length)
            blur *= self._most
        return z, np.where(np.isfinite(blur), blur, np.inf)


def _lengths(z: Float64) -> Float64:
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", z, z)))


def _divided(z: Float64, norm: Float64, cosine: bool) -> Float64:
    """Divides each row of (n, p) `z` by its `norm`, unless that is 0.

    With `cosine`, appends a column with 1 for each row whose norm is 0, and a column of zeros.
    """
    found = np.zeros((len(z), z.shape[1] + 2 * cosine))
    np.divide(z, np.where(norm > 0.0, norm, 1.0)[:, np.newaxis], out=found[:, : z.shape[1]])
    if cosine:
        found[:, -2] = norm == 0.0
    return found
