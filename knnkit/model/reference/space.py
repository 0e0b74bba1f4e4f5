"""Map from raw rows to the coordinates that distances use.

A raw row becomes float32, after the model's float64 `origin` is subtracted, if it has one. The float32 row passes the
`steps` (affine, linear, normalising), if there are any. Then the float32 `centre` is subtracted, and `scale` weights
the difference of each coordinate. A model that only scales its features has no steps: its row in model space is the
raw row's float32 offset from the centre, so float32 loses nothing to a large common offset.
Values are float64 unless the text says float32. Never imports TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.constants import Metric
from device_agent.shared.queries import narrow
from knnkit.data.precision import find_origin
from knnkit.errors import BuildError
from knnkit.model.reference.lattice import choose_centre

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]
#: Returns the name of a training row, for messages.
Where = Callable[[int], str]
ROW: Where = "training row {}".format

#: Rows that are held in float64 at a time.
_ROWS = 4096
_MAX_FLOAT32 = float(np.finfo(np.float32).max)
#: With steps, a distance below this share of the space's size is an exact match. A float32 training row is off by up
#: to 2^-24 of its length, a query in float64 by far less; 2^-22 is four times that.
_ZERO = 2.0**-22
#: The same for training rows that another program has mapped in float32: a sum of p products is off by sqrt(p) times
#: as much (Higham and Mary 2019), and 16 times covers a few hundred features.
_ZERO_FLOAT32 = 16.0 * _ZERO
#: The same for chords between points on the unit sphere: sines differ in their last bits from machine to machine.
_ZERO_CHORD = 2.0**-36


@dataclass(frozen=True)
class Step:
    """A step of the map to model space: affine (x - a) * b, linear (x - b) @ a, normalize x / ‖x‖, or cosine.

    For normalize, `a` is the order of the norm. The step cosine divides a row by its length, and adds two coordinates
    that put a row of zeros at distance 1 from all others. Unused parameters are ignored.
    """

    kind: Literal["affine", "linear", "normalize", "cosine"]
    a: Float64
    b: Float64

    def apply(self, rows: Float64, *, query: bool) -> Float64:
        """Returns the mapped (n, p) rows.

        The cosine step marks zero rows differently in queries and training rows. A query must map alike on every
        machine, so its sums are rounded once or added in the order of the features. Only the host maps training rows.
        """
        if self.kind == "affine":
            return np.asarray((rows - self.a) * self.b)
        if self.kind == "linear":
            return np.asarray(add_products(rows - self.b, self.a) if query else (rows - self.b) @ self.a)
        if self.kind == "normalize":
            norm = _norms(rows, float(self.a))
            return np.asarray(rows / np.where(norm == 0.0, 1.0, norm))
        return _to_sphere(rows, query=query)

    def undo(self, rows: Float64) -> Float64:
        """Returns rows that this step maps to the training rows `rows`; approximate if the step has no inverse."""
        if self.kind == "affine":
            return np.asarray(rows / self.b + self.a)
        if self.kind == "linear":
            return np.asarray(rows @ np.linalg.pinv(self.a) + self.b)
        return rows[:, :-2] if self.kind == "cosine" else rows


def affine(origin: Any, factor: Any) -> Step:
    """Returns the step (x - origin) * factor."""
    return Step("affine", np.asarray(origin, np.float64), np.asarray(factor, np.float64))


def add_products(rows: Float64, matrix: NDArray[Any]) -> Float64:
    """Returns the product of (n, p) rows and a (p, r) matrix, added in coordinate order: the same bits everywhere."""
    total = np.zeros((len(rows), matrix.shape[1]))
    for coordinate, factors in enumerate(matrix.astype(np.float64)):
        total += rows[:, coordinate, np.newaxis] * factors
    return total


def _norms(rows: Float64, order: float) -> Float64:
    if np.isinf(order):
        return np.asarray(np.abs(rows).max(axis=1, keepdims=True))
    terms = np.abs(rows) if order == 1.0 else rows * rows
    sums = np.array([math.fsum(row) for row in terms.tolist()]).reshape(-1, 1)
    return sums if order == 1.0 else np.sqrt(sums)


def _to_sphere(rows: Float64, *, query: bool) -> Float64:
    # Half the squared chord is the cosine distance. Two more coordinates put a row of zeros at distance 1 from all,
    # also from another row of zeros, as scikit-learn has it.
    norm = _norms(rows, 2.0)
    zero = (norm == 0.0).astype(np.float64)
    flags = (zero, np.zeros_like(zero)) if query else (np.zeros_like(zero), zero)
    return np.concatenate([rows / np.where(norm == 0.0, 1.0, norm), *flags], axis=1)


@dataclass(frozen=True)
class Space:
    """The map into model space, and the extent of the training rows there."""

    metric: Metric  # the model's metric
    steps: tuple[Step, ...]  # maps before the centre; empty for a model that only scales
    centre: Float32  # (p,) float32, subtracted after the steps
    scale: Float64  # (p,) float64 factor of each coordinate's difference
    zero: float = 0.0  # the largest distance that is taken as 0 (an exact match); 0 without steps
    radius: float = 0.0  # root-mean-square distance of the training rows from the centre
    reach: float = 0.0  # greatest Euclidean distance of a training row from the centre
    #: (d,) float64, subtracted from raw rows before they become float32; None if no feature needs it.
    origin: Float64 | None = None
    p: float | None = None  # power of the metric minkowski; None for the others

    @property
    def power(self) -> float:
        """Rows are ranked by a measure: their distance in model space, raised to this power."""
        return self.p or (1.0 if self.metric in ("manhattan", "chebyshev", "jaccard") else 2.0)

    @property
    def tied(self) -> float:
        """Rows whose distances differ by at most this are ties; 0 without steps, where distances are exact.

        Rounding a training row to float32 moves it, and so each distance to it, by up to 2^-24 of the space's size.
        """
        return self.zero / 2

    @property
    def unit(self) -> float:
        """Absolute value of the factors in `scale` if all are equal, else 1; multiplied last, so ties stay ties."""
        return float(np.abs(self.scale[0])) if (np.abs(self.scale) == np.abs(self.scale[0])).all() else 1.0

    def narrow(self, rows: NDArray[Any]) -> Float32:
        """Returns raw (n, d) rows as float32, less the float64 origin (a number for each column), if there is one."""
        return narrow(rows, self.origin)

    def enter(self, rows: NDArray[Any]) -> Float64:
        """Returns (n, p) float64 offsets of raw (n, d) queries from the centre, unscaled."""
        rows = self.narrow(rows)
        if not self.steps:
            with np.errstate(over="ignore"):
                offsets = rows - self.centre
            return np.asarray(np.clip(offsets, -_MAX_FLOAT32, _MAX_FLOAT32), np.float64)
        return np.asarray(_through(self.steps, rows, query=True) - self.centre)

    def leave(self, enrolled: Float32) -> NDArray[np.floating[Any]]:
        """Returns the raw (n, d) rows of (n, p) rows in model space, approximately; float64 if the space has an origin.

        A normalising step loses the length of a row. Components that a PCA step drops get their mean.
        """
        rows = enrolled.astype(np.float64) + self.centre
        rows = _undo(rows, self.steps)
        if self.origin is not None:
            return rows + self.origin
        with np.errstate(over="ignore"):
            return np.asarray(rows, dtype=np.float32)

    @property
    def size(self) -> float:
        """Length to which float32 errors in the steps are relative: 1 on the unit sphere, else the longest row's."""
        return 1.0 if any(step.kind in ("normalize", "cosine") for step in self.steps) else self.reach


def make_space(
    rows: NDArray[Any], steps: list[Step], metric: Metric, p: float | None = None, where: Where = ROW
) -> tuple[Space, Float32]:
    """Returns the space of raw (n, d) training rows after `steps`, and the (n, p) float32 rows in it.

    The space of float64 rows gets an origin, numbers to subtract from the columns, if float32 needs one, but not before
    a cosine or normalising step. `p` is the power of the metric minkowski (None for others); `where` names the row with
    an index, for errors.

    Raises:
        BuildError: the map takes a training row out of the range of float32.
    """
    maps, scale = _split_scale(steps, metric)
    origin = find_origin(rows) if may_shift(steps, metric) else None
    maps, rows = _shifted(maps, origin), narrow(rows, origin)
    return _centre(metric, maps, scale, _through(maps, rows, query=False) if maps else rows, origin, p=p, where=where)


def may_shift(steps: list[Step], metric: Metric) -> bool:
    """Whether the columns may be shifted by an origin: False if metric or first step uses the rows' length or zeros."""
    return steps[0].kind in ("affine", "linear") if steps else metric not in ("cosine", "jaccard")


def adopt_space(
    mapped: NDArray[Any], steps: list[Step], metric: Metric, p: float | None = None
) -> tuple[Space, Float32]:
    """Returns the space after `steps`, and the (n, p) float32 training rows in it, from a fitted Pipeline.

    `mapped` are the (n, p) rows that `steps` have already mapped: float64, or float32 if the Pipeline was fitted with
    float32 rows.

    Raises:
        BuildError: the map takes a training row out of the range of float32.
    """
    zero = _ZERO_FLOAT32 if steps and mapped.dtype == np.float32 else _ZERO
    mapped = mapped.astype(np.float64)
    maps, scale = _split_scale(steps, metric)
    folded = _fold(steps)
    origin = find_origin(_undo(mapped, folded)) if may_shift(steps, metric) else None
    if metric == "cosine":
        mapped = maps[-1].apply(mapped, query=False)
    elif scale is not None:
        mapped = folded[-1].undo(mapped)
    if origin is not None and len(maps) == 1 and maps[0].kind == "linear":
        # Distances do not change if the map is taken from the origin; its own centre can be 0, and far away (NCA).
        mapped = mapped - (origin - maps[0].b) @ maps[0].a
        maps = [replace(maps[0], b=origin)]
    return _centre(metric, _shifted(maps, origin), scale, mapped if maps else narrow(mapped, origin), origin, zero, p)


def _undo(rows: Float64, steps: Iterable[Step]) -> Float64:
    for step in reversed([*steps]):
        rows = step.undo(rows)
    return rows


def _shifted(maps: list[Step], origin: Float64 | None) -> list[Step]:
    if origin is None or not maps:
        return maps
    first = maps[0]
    less = replace(first, a=first.a - origin) if first.kind == "affine" else replace(first, b=first.b - origin)
    return [less, *maps[1:]]


def _split_scale(steps: list[Step], metric: Metric) -> tuple[list[Step], Float64 | None]:
    """Returns `Space.steps` and `Space.scale` (None: no factors) for these steps: an affine last step becomes scale."""
    maps = _fold(steps)
    if metric == "cosine":
        return [*maps, Step("cosine", np.zeros(0), np.zeros(0))], None
    if maps and maps[-1].kind == "affine":  # its origin cancels in every distance
        return maps[:-1], maps[-1].b
    return maps, None


def _through(maps: Iterable[Step], rows: Float32, *, query: bool) -> Float64:
    mapped = rows.astype(np.float64)
    for step in maps:
        mapped = step.apply(mapped, query=query)
    return mapped


def _centre(
    metric: Metric,
    maps: list[Step],
    scale: Float64 | None,
    values: NDArray[Any],
    origin: Float64 | None,
    zero: float = _ZERO,
    p: float | None = None,
    where: Where = ROW,
) -> tuple[Space, Float32]:
    if metric == "haversine":
        _require_points(values + (0.0 if origin is None else origin), where, plain=not maps and scale is None)
    # Jaccard distances ask which coordinates are 0.
    centre = np.zeros(values.shape[1], np.float32) if metric == "jaccard" else choose_centre(values)
    factors = np.ones(len(centre)) if scale is None else np.broadcast_to(scale, centre.shape).astype(np.float64)
    with np.errstate(over="ignore"):
        enrolled = np.asarray(values - centre, dtype=np.float32)
        squared = np.concatenate([(weighted * weighted).sum(axis=1) for weighted in _weighted(enrolled, factors)])
        finite = np.isfinite(squared) & (squared < 1e36)
    if not finite.all() or not np.isfinite(factors.astype(np.float32)).all():
        size = np.abs(values).max(axis=1)  # the largest row may pull the centre, and others are far from it then
        said = f"{where(int(size.argmax()))}: the row is too large for float32 distances"
        hint = "correct that row, or leave it out"  # a scale that fits it alone makes all others equal
        raise BuildError(said, hint=hint if np.median(size) < 1e15 else "scale: standard (in Python: scale='standard')")
    lengths = np.sqrt(squared)
    if metric in ("manhattan", "minkowski"):  # at least as long as by any p
        lengths = np.concatenate([np.abs(weighted).sum(axis=1) for weighted in _weighted(enrolled, factors)])
    elif metric == "jaccard":
        lengths = np.minimum(lengths, 1.0)
    space = Space(
        metric,
        tuple(maps),
        centre,
        factors,
        radius=float(np.sqrt(np.mean(lengths * lengths))),
        reach=float(np.sqrt(squared.max())),
        origin=origin,
        p=p,
    )
    size = max(space.size, float(lengths.max()))
    exact = {"haversine": _ZERO_CHORD, "jaccard": 0.0}
    return replace(space, zero=exact.get(metric, zero * size if maps else 0.0)), enrolled


def _require_points(values: NDArray[Any], where: Where, *, plain: bool) -> None:
    """Checks that (n, 2) `values` can be points of haversine: latitude and longitude in radians.

    `plain`: whether the values are neither scaled nor mapped. `where` names a row in the message.

    Raises:
        BuildError: `plain` is False, there are not two columns, or a latitude is beyond 90 degrees or a longitude 360.
    """
    if values.shape[1] != 2 or not plain:
        said = f"haversine takes latitude and longitude as they are, not {values.shape[1]} scaled or mapped features"
        said = said if not plain else f"haversine takes two features, latitude and longitude, and not {values.shape[1]}"
        hint = "`features: [latitude, longitude]`, without `scale` or transformers such as PCA"
        raise BuildError(f"metric: {said}", hint=hint)
    far = np.argwhere(np.abs(values) > np.array([math.pi / 2, 2 * math.pi]) + 1e-6)
    if len(far):
        name, beyond = (("latitude", "1.5708 radians (90"), ("longitude", "6.2832 radians (360"))[far[0, 1]]
        said = f"{where(int(far[0, 0]))}: the {name} {values[tuple(far[0])]:.7g} is beyond {beyond} degrees)"
        raise BuildError(said, hint="haversine takes radians: numpy.radians(rows), on a device, too", key="metric")


def _weighted(enrolled: Float32, factors: Float64) -> Iterator[Float64]:
    return (enrolled[start : start + _ROWS] * factors for start in range(0, len(enrolled), _ROWS))


def _fold(steps: list[Step]) -> list[Step]:
    folded: list[Step] = []
    for step in steps:
        last = folded[-1] if folded else None
        if last is not None and last.kind == "affine" and step.kind == "affine":
            folded[-1] = affine(last.a + step.a / last.b, last.b * step.b)
        elif last is not None and last.kind == "affine" and step.kind == "linear":
            folded[-1] = Step("linear", np.reshape(last.b, (-1, 1)) * step.a, last.a + step.b / last.b)
        else:
            folded.append(step)
    return folded
