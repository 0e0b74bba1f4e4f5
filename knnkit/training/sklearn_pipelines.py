"""Converts scikit-learn's nonlinear transformers to a model's table and transforms.

Walks the transformers of a fitted pipeline. Columns of text become columns of categories in the table; what the
transformers do to numbers and categories becomes a list of transforms. An encoder is asked for its output of each
category, so that dropped and infrequent ones need no rules here. Reads no file, and calls no function of the user's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.features import transforms
from device_agent.shared.features.coder import KEEP, UNKNOWN_CATEGORY
from device_agent.shared.features.transforms import NOTHING, REFUSED, REFUSED_VALUE, Transforms
from device_agent.shared.protocol.table_info import Column, Table, Transform
from knnkit.errors import BuildError
from knnkit.training.sklearn_transforms import (
    branches_of,
    columns_in_use,
    convert,
    parts_of,
    require_readable,
    width_of,
)

#: For each column between two transformers: index of the raw column that it is a copy of; None if it was computed.
Sources = list[int | None]
_APPLY = "apply it before knnkit"
#: The first categories of a column of truth values: their codes are the numbers 0 and 1.
_TRUTHS = ["False", "True"]
#: Names of NumPy that differ from those of `transforms.FUNCTIONS`.
_OTHER_NAMES = {"absolute": "abs"}


def is_nonlinear(part: Any) -> bool:
    """Whether a fitted transformer is nonlinear: NumPy then runs it before the graph, which runs linear ones itself."""
    name = type(part).__name__
    if name in ("ColumnTransformer", "FeatureUnion", "Pipeline"):
        steps = getattr(part, "transformers_", None) or getattr(part, "transformer_list", None) or part.steps
        return any(is_nonlinear(step[1]) or type(step[1]).__name__ == "Normalizer" for step in steps)
    if name == "FunctionTransformer":
        return part.func is not None
    return name in WALKS.keys() - _AT_TIMES or bool(getattr(part, "clip", False))


def convert_all(parts: Sequence[Any], names: Sequence[str], last: Sequence[Transform] = ()) -> Table:
    """Returns the table of the raw columns `names`: the transforms of the fitted transformers `parts`, then `last`.

    Raises:
        BuildError: a part is not supported; the message names it.
    """
    walk = _Walk()
    sources: Sources = list(range(len(names)))
    for part in parts:
        sources = walk.run(part, 0, sources)
    if not sources:
        raise BuildError("the transformers drop every column", hint="keep one")
    if both := [names[at] for at in walk.texts if at in walk.numbers | {*sources} and walk.texts[at][:2] != _TRUTHS]:
        said = f"the column {both[0]!r} is text to one step, and a number to another, or to the classifier"
        raise BuildError(said, hint=f"fit on two columns, one of text: frame['text'] = frame[{both[0]!r}].astype(str)")
    walk.found += last
    return _table(walk, names)


def _table(walk: _Walk, names: Sequence[str]) -> Table:
    """Returns the table of the raw columns `names`; it refuses cells that the transforms turn into NaN or infinity."""
    run, base = Transforms(walk.found), np.ones(len(names))
    for place, value in walk.samples.items():
        base[place] = value
    usual = np.isfinite(run(base[np.newaxis])[0])

    def refuses(place: int, value: float) -> bool:
        row = base.copy()
        row[place] = value
        return bool((usual & ~np.isfinite(run(row[np.newaxis])[0])).any())

    columns = []
    used = columns_in_use(walk.found, len(names))
    for place, name in enumerate(names):
        if place not in used:
            columns.append(Column(name, KEEP, encoding="unused"))
            continue
        missing = "refuse" if refuses(place, np.nan) else KEEP
        if place not in walk.texts:
            columns.append(Column(name, missing))
            continue
        unknown = "refuse" if refuses(place, UNKNOWN_CATEGORY) else "ignore"
        columns.append(Column(name, missing, None, "ordinal", tuple(walk.texts[place]), unknown))  # type: ignore[arg-type]
    return Table(tuple(columns), transforms=tuple(walk.found))


@dataclass
class _Walk:
    """Collects the transforms of a pipeline, one transformer after the other."""

    found: list[Transform] = field(default_factory=list)  # the transforms, in order
    texts: dict[int, list[str]] = field(default_factory=dict)  # index of a raw column -> its categories
    texts_at: dict[int, bool] = field(default_factory=dict)  # raw column -> whether its categories and fills are text
    #: index of a raw column -> a code or number that its encoder knows. `_table` tries the pipeline on a row of these.
    samples: dict[int, float] = field(default_factory=dict)
    filled: set[int] = field(default_factory=set)  # indices of raw columns whose missing cells a transformer fills
    numbers: set[int | None] = field(default_factory=set)  # sources with which a transformer computes

    def add(self, kind: str, start: int, count: int, *arrays: Any) -> Sources:
        """Adds a transform (with parameters `arrays`) of `count` columns from `start` on.

        Returns a source for each of them: None, since none is a copy of a raw column any more.
        """
        self.found.append(transforms.make(kind, start, count, *arrays))
        return [None] * count

    def run(self, part: Any, start: int, sources: Sources) -> Sources:
        """Adds the transforms for the transformer `part`, whose input begins at column `start`.

        `sources` has for each input column the index of the raw column that it is a copy of, or None if it was
        computed. Returns the same for each output column.
        """
        if part is None or isinstance(part, str):  # "passthrough"
            return sources
        kind = type(part)
        name = kind.__name__
        if name == "Pipeline":
            for step in parts_of(part):
                sources = self.run(step, start, sources)
            return sources
        width_of(part)  # refuses one that is not fitted
        if kind.__module__.startswith("sklearn.feature_selection."):
            return self._take(start, sources, np.flatnonzero(part.get_support()))
        own = kind.__module__.startswith("sklearn.")
        if name not in _OF_TEXT and getattr(part, "func", part) is not None:
            self.numbers |= {*sources}
        if own and (name in WALKS):
            return WALKS[name](self, part, start, sources)
        return self._linear(part, start, sources)

    def code(self, source: int | None, value: Any) -> float:
        """Returns a number for the category `value`: itself, NaN if missing, or the code of a text in column `source`.

        A new text gets the next code. Raises BuildError for a text in a computed column (`source` is None).
        """
        if value is None or (isinstance(value, float) and np.isnan(value)) or type(value).__name__ == "NAType":
            return float("nan")
        require_readable(value, source, self.texts_at)
        if isinstance(value, str | bool | np.bool_):
            if source is None:
                raise BuildError(f"the category {value!r} is in a column that a step computed", hint=_APPLY)
            truths = isinstance(value, bool | np.bool_)  # which another branch may take as numbers
            texts = self.texts.setdefault(source, [*_TRUTHS] if truths else [])
            if str(value) not in texts:
                texts.append(str(value))
            return float(texts.index(str(value)))
        return float(value)

    def _take(self, start: int, sources: Sources, places: NDArray[Any]) -> Sources:
        self.add("take", start, len(sources), places)
        return [sources[place] for place in places.tolist()]

    def _linear(self, part: Any, start: int, sources: Sources) -> Sources:
        width = len(sources)
        for step in convert(part):
            if step.kind == "affine":  # of a scaler
                self.add("standard", start, width, step.a, np.ones(width) if part.scale_ is None else part.scale_)
            elif step.kind == "linear":
                self.add("linear", start, width, step.a, step.b)
                width = step.a.shape[1]
            else:
                self.add("normalize", start, width, [float(step.a)])
        return [None] * width

    # --- several transformers side by side ------------------------------------------------------------------------
    def side_by_side(self, part: Any, start: int, sources: Sources) -> Sources:
        kept = branches_of(part)
        self._take(start, sources, np.array([place for places, *_ in kept for place in places], int))
        found: Sources = []
        for places, each, weight in kept:
            at = start + len(found)
            new = self.run(each, at, [sources[place] for place in places])
            if weight != 1.0:
                self.add("scale", at, len(new), np.full(len(new), weight), np.zeros(len(new)))
            found += new
        return found

    # --- missing cells --------------------------------------------------------------------------------------------
    def impute(self, part: Any, start: int, sources: Sources) -> Sources:
        missing = _missing_of(part)
        fills = [self.code(source, value) for source, value in zip(sources, part.statistics_)]
        kept = [place for place, fill in enumerate(fills) if not np.isnan(fill)]  # scikit-learn drops empty columns
        self.filled.update(source for source in sources if source is not None)
        marked = part.indicator_.features_.tolist() if part.add_indicator else []
        new = self._take(start, sources, np.array(kept + marked, int))
        self.add("impute", start, len(kept), [missing], [fills[place] for place in kept])
        if marked:
            self.add("indicate", start + len(kept), len(marked), [missing])
        return [*new[: len(kept)], *([None] * len(marked))]

    def indicate(self, part: Any, start: int, sources: Sources) -> Sources:
        new = self._take(start, sources, part.features_)
        return self.add("indicate", start, len(new), [_missing_of(part)])

    # --- categories -----------------------------------------------------------------------------------------------
    def one_hot(self, part: Any, start: int, sources: Sources) -> Sources:
        values, owners, outputs, others = self._ask(part, sources)
        edges = np.append(0, np.cumsum(part._n_features_outs))
        results = [_place(row, edges[owner], edges[owner + 1]) for row, owner in zip(outputs, owners)]
        missed = [
            REFUSED if row is None else _place(row, edges[column], edges[column + 1])
            for column, row in enumerate(others)
        ]
        self.add("one-hot", start, len(sources), values, owners, results, missed, [edges[-1]])
        return [None] * int(edges[-1])

    def ordinal(self, part: Any, start: int, sources: Sources) -> Sources:
        values, owners, outputs, others = self._ask(part, sources)
        results = [row[owner] for row, owner in zip(outputs, owners)]
        missed = [REFUSED_VALUE if row is None else row[column] for column, row in enumerate(others)]
        return self.add("look-up", start, len(sources), values, owners, results, missed)

    def _ask(self, part: Any, sources: Sources) -> tuple[list[float], list[int], Any, list[Any]]:
        """Asks the encoder `part` for its output of each category of each column.

        `sources` has for each column the index of the raw column that it is a copy of, or None.

        Returns:
            For each category its code, the index of its column, and the encoder's output, a row of all columns. Then
            for each column the output of an unknown category; None if the encoder refuses it.
        """
        firsts = [each[0] for each in part.categories_]
        texts = any(each.dtype.kind in "OUSb" for each in part.categories_)
        rows, values, owners, strange = [], list[float](), list[int](), []
        for column, (source, categories) in enumerate(zip(sources, part.categories_)):
            codes = [self.code(source, value) for value in categories.tolist()]
            gaps = int(np.isnan(codes).sum())
            if gaps and (gaps > 1 or source in self.filled):
                said = f"{type(part).__name__} treats None and NaN as two categories, but a device cannot"
                raise BuildError(said, hint="fit it with np.nan for every missing cell")
            values += codes
            owners += [column] * len(codes)
            if source is not None:
                self.samples.setdefault(source, codes[0])
            rows += [[*firsts[:column], value, *firsts[column + 1 :]] for value in categories]
            numbers = [value for value in categories.tolist() if isinstance(value, int | float) and value == value]
            other: Any = "\0" if categories.dtype.kind in "OUSb" else max(numbers, default=0.0) + 1.0
            strange.append([*firsts[:column], other, *firsts[column + 1 :]])

        def ask(table: list[Any]) -> Any:
            made = np.empty((len(table), len(firsts)), object)
            made[:] = table
            found = part.transform(made if texts else made.astype(np.float64))
            return np.asarray(found.toarray() if hasattr(found, "toarray") else found, np.float64)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outputs = ask(rows)
            others = [None if part.handle_unknown == "error" else ask([row])[0] for row in strange]
        return values, owners, outputs, others

    # --- numbers --------------------------------------------------------------------------------------------------
    def clipped(self, part: Any, start: int, sources: Sources) -> Sources:
        if type(part).__name__ == "MinMaxScaler":
            ends, new = part.feature_range, self.add("scale", start, len(sources), part.scale_, part.min_)
        else:
            ends, new = (-1.0, 1.0), self._linear(part, start, sources)
        return self.add("clip", start, len(new), [ends[0]], [ends[1]]) if getattr(part, "clip", False) else new

    def binarize(self, part: Any, start: int, sources: Sources) -> Sources:
        return self.add("binarize", start, len(sources), [part.threshold])

    def bins(self, part: Any, start: int, sources: Sources) -> Sources:
        inner = [np.asarray(edges, np.float64)[1:-1] for edges in part.bin_edges_]
        owners = np.repeat(np.arange(len(inner)), [len(edges) for edges in inner])
        new = self.add("bins", start, len(sources), np.concatenate(inner), owners)
        return new if part.encode == "ordinal" else self.one_hot(part._encoder, start, new)

    def quantiles(self, part: Any, start: int, sources: Sources) -> Sources:
        normal = part.output_distribution == "normal"
        return self.add("quantiles", start, len(sources), part.quantiles_, part.references_, [float(normal)])

    def power(self, part: Any, start: int, sources: Sources) -> Sources:
        new = self.add(part.method, start, len(sources), part.lambdas_)
        return self._linear(part._scaler, start, sources) if part.standardize else new

    def function(self, part: Any, start: int, sources: Sources) -> Sources:
        if part.func is None:
            return sources
        called = getattr(part.func, "__name__", type(part.func).__name__)
        name = _OTHER_NAMES.get(called, called)
        if transforms.FUNCTIONS.get(name) is not part.func or part.kw_args:
            known = ", ".join(f"np.{each}" for each in sorted(transforms.FUNCTIONS))
            raise BuildError(f"a FunctionTransformer of {called} is not supported", hint=f"{known}, or {_APPLY}")
        return self.add(name, start, len(sources))

    def polynomial(self, part: Any, start: int, sources: Sources) -> Sources:
        powers = part.powers_
        degree = max(1, int(powers.sum(axis=1).max()))
        if degree > _MAX_DEGREE:
            raise BuildError(f"PolynomialFeatures of degree {degree} is not supported", hint=f"degree={_MAX_DEGREE}")
        places = np.full((len(powers), degree), -1)
        for product, row in zip(places, powers):
            factors = np.repeat(np.arange(len(row)), row)
            product[: len(factors)] = factors
        self.add("polynomial", start, len(sources), places, [degree])
        return [None] * len(powers)


#: Degree of polynomials: higher ones leave float32.
_MAX_DEGREE = 3


def _place(row: NDArray[Any], first: int, end: int) -> float:
    """Returns the index of the 1 among columns `first` to `end` of a one-hot encoder's output; NOTHING if all are 0."""
    hot = np.flatnonzero(row[first:end])
    return float(first + hot[0]) if len(hot) else NOTHING


def _missing_of(part: Any) -> float:
    value = part.missing_values
    if isinstance(value, str):
        name = type(part).__name__
        raise BuildError(
            f"{name} with the text {value!r} for missing cells is not supported", hint="empty cells, or NaN"
        )
    return float("nan") if value is None or type(value).__name__ == "NAType" else float(value)


Walk = Callable[[_Walk, Any, int, Sources], Sources]
WALKS: dict[str, Walk] = {
    "Binarizer": _Walk.binarize,
    "ColumnTransformer": _Walk.side_by_side,
    "FeatureUnion": _Walk.side_by_side,
    "FunctionTransformer": _Walk.function,
    "KBinsDiscretizer": _Walk.bins,
    "MaxAbsScaler": _Walk.clipped,
    "MinMaxScaler": _Walk.clipped,
    "MissingIndicator": _Walk.indicate,
    "OneHotEncoder": _Walk.one_hot,
    "OrdinalEncoder": _Walk.ordinal,
    "PolynomialFeatures": _Walk.polynomial,
    "PowerTransformer": _Walk.power,
    "QuantileTransformer": _Walk.quantiles,
    "SimpleImputer": _Walk.impute,
}
_OF_TEXT = {"ColumnTransformer", "FeatureUnion", "MissingIndicator", "OneHotEncoder", "OrdinalEncoder", "SimpleImputer"}
#: What makes transforms only for what it holds, or if it clips.
_AT_TIMES = {"ColumnTransformer", "FeatureUnion", "FunctionTransformer", "MaxAbsScaler", "MinMaxScaler"}
