"""Golden set: query rows with the reference's answers."""

from __future__ import annotations

import io
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.constants import Metric
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.protocol.record import record
from device_agent.shared.release.npz import read_arrays, require_form

#: Dimensions and types of each array.
_ARRAYS: dict[str, tuple[Any, ...]] = {
    "rows": (2, np.float32, np.float64),
    "truth": (1, np.int32),
    "label": (1, np.int32),
    "indices": (2, np.int32),
    "distances": (2, np.float64),
    "classes": (2, np.int32),
    "tolerance": (1, np.float64),
}
#: Name of the array of raw rows.
_RAW = "raw"
#: Arrays that only some models have: the first two of a regression or label columns, the last of a model with a radius.
_OPTIONAL: dict[str, tuple[Any, ...]] = dict.fromkeys(("values", "targets", "shares"), (2, np.float64))


@record
class Golden:
    """golden.npz: n query rows with the reference's answers, and the true class if it is known."""

    metric: Metric  # the model's metric, in which `distances` are
    rows: NDArray[Any]  # (n, n_features) float32 raw rows; float64 if the model has an origin, which it subtracts
    truth: NDArray[np.int32]  # (n,) int32 true class; -1 if unknown
    label: NDArray[np.int32]  # (n,) int32 class index of the reference's answer, or UNKNOWN for a rejected row
    #: (n, e) int32 with e >= k: the reference's neighbours, sorted by (distance, index), padded with -1.
    indices: NDArray[np.int32]
    distances: NDArray[np.float64]  # (n, e) float64, padded with infinity
    classes: NDArray[np.int32]  # (n, e) int32 classes of the neighbours, padded with -1
    tolerance: NDArray[np.float64]  # (n,) float64: distances that differ by no more count as tied; see `judge`
    raw: bytes = b""  # the raw rows as JSON lines, for a model with a table or stages; else empty
    #: (n, t) float64 answers of the reference for a regression or label columns (positions in `Targets.classes`), NaN
    #: for a rejected row; else None.
    values: NDArray[np.float64] | None = None
    #: (n, t) float64 true values or positions, NaN if unknown; None if `values` is.
    targets: NDArray[np.float64] | None = None
    #: (n, n_classes) float64 vote shares, for a model with a radius: more rows vote than are listed; else None.
    shares: NDArray[np.float64] | None = None

    def to_bytes(self) -> bytes:
        """Returns the bytes of golden.npz; the same arrays give the same bytes."""
        buffer = io.BytesIO()
        arrays = {name: array for name in (*_ARRAYS, *_OPTIONAL) if (array := getattr(self, name)) is not None}
        if self.raw:
            arrays[_RAW] = np.frombuffer(self.raw, np.uint8)
        np.savez_compressed(buffer, metric=np.array(self.metric), **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Golden:
        """Reads golden.npz; checks names, types, shapes and ranges, and never unpickles.

        Raises:
            ModelUnusable: the bytes are not a golden set.
        """
        try:
            arrays: dict[str, Any] = read_arrays(data)
            raw = arrays.pop(_RAW, np.empty(0, np.uint8))
            optional = {name: arrays.pop(name) for name in _OPTIONAL if name in arrays}
            if set(arrays) != {"metric", *_ARRAYS} or raw.dtype != np.uint8:
                expected = f"{', '.join(_ARRAYS)} and metric"
                raise ValueError(f"the file contains the arrays {', '.join(sorted(arrays))}; expected {expected}")
            golden = cls(metric=_metric(arrays.pop("metric")), **arrays, raw=raw.tobytes(), **optional)
            golden._check()
        except ValueError as error:
            raise ModelUnusable(f"golden.npz is not a golden set: {error}", hint="build the release again") from None
        return golden

    def _check(self) -> None:
        for name, form in {**_ARRAYS, **_OPTIONAL}.items():
            array = getattr(self, name)
            if array is None:
                continue
            require_form(name, array, *form)
            if len(array) != len(self.rows):
                raise ValueError(f"{name} has {len(array)} entries for {len(self.rows)} rows")
        if not self.indices.shape == self.distances.shape == self.classes.shape:
            shapes = [self.indices.shape, self.distances.shape, self.classes.shape]
            raise ValueError(f"indices, distances and classes have the shapes {shapes}; expected one shape")
        with np.errstate(over="ignore"):
            rows = self.rows.astype(np.float32, copy=False)
        if not np.isfinite(rows).all() or not (np.isfinite(self.tolerance) & (self.tolerance >= 0)).all():
            raise ValueError("a row or a tolerance is not a finite number")
        both = [None if array is None else array.shape for array in (self.values, self.targets)]
        if both[0] != both[1]:
            raise ValueError(f"values and targets have the shapes {both}; both or none are needed, with one shape")
        held = self.indices >= 0
        if not (np.isfinite(self.distances) == held).all() or (self.distances < 0).any():
            raise ValueError("a neighbour has no distance, or a distance has no neighbour")
        if not ((self.classes >= 0) == held).all():
            raise ValueError("a neighbour has no class, or a class has no neighbour")


def _metric(value: NDArray[Any]) -> Metric:
    text = str(value)
    if text not in get_args(Metric):
        raise ValueError(f"unknown metric {text!r}")
    return cast(Metric, text)
