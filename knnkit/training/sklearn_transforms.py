"""Converts scikit-learn's scalers and linear maps to knnkit's steps.

Selecting columns is a linear map, too; so is a FeatureUnion or ColumnTransformer of linear parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.arguments import is_number
from device_agent.shared.features import transforms
from device_agent.shared.features.coder import KEEP
from device_agent.shared.protocol.table_info import Column, Table, Transform
from device_agent.shared.tabular.csv_dialect import short
from knnkit.errors import BuildError
from knnkit.model.reference.space import Step, affine
from knnkit.training.sklearn_left_out import TRANSFORMERS, because


def convert(transformer: Any) -> list[Step]:
    """Returns knnkit steps that map rows exactly as a fitted linear scikit-learn transformer does.

    Raises:
        BuildError: the transformer is not supported, or not fitted.
    """
    kind = type(transformer)
    convert = CONVERSIONS.get(kind.__name__) if kind.__module__.startswith("sklearn.") else None
    if kind.__module__.startswith("sklearn.feature_selection."):
        convert = _selector
    if convert is None:
        raise _not_supported(transformer)
    width_of(transformer)  # refuses one that is not fitted
    return convert(transformer)


def _not_supported(transformer: Any) -> BuildError:
    name = type(transformer).__name__
    return BuildError(
        f"{name} is not supported in front of the classifier{because(name, TRANSFORMERS)}",
        hint="apply it before knnkit; docs/scikit-learn.md lists what can be imported",
    )


def parts_of(step: Any) -> list[Any]:
    """Returns the transformers in one step of a Pipeline; several if the step is itself a Pipeline."""
    from sklearn.pipeline import Pipeline

    if isinstance(step, Pipeline):
        return [part for _, inner in step.steps for part in parts_of(inner)]
    return [] if step is None or isinstance(step, str) else [step]  # "passthrough"


def first_of(part: Any) -> Any:
    """Returns the first transformer that saw the rows given to `part`; None for "passthrough" or "drop".

    scikit-learn itself asks the first step of a Pipeline or FeatureUnion for its columns, even if that is such a word.
    """
    inner = [each for _, each in part.transformer_list] if hasattr(part, "transformer_list") else parts_of(part)
    return part if inner == [part] else next((found for each in inner if (found := first_of(each)) is not None), None)


def width_of(part: Any) -> int:
    """Returns the number of columns that the transformer `part` was fitted with.

    Raises:
        BuildError: the transformer was not fitted; or it is not supported, and does not know its columns.
    """
    first = first_of(part)
    found, kind = getattr(first, "n_features_in_", None), type(first)
    if found is None and (kind.__name__ in TRANSFORMERS or not kind.__module__.startswith("sklearn.")):
        raise _not_supported(first)
    if found is None:
        raise BuildError(f"the {kind.__name__} is not fitted", hint="fit the whole pipeline")
    return int(found)


def columns_in_use(found: Sequence[Transform], width: int) -> set[int]:
    """Returns the indices of the raw columns, `width` of them, that the transforms compute with or leave in the row."""
    used, row, at = set[int](), np.zeros((1, width)), [{place} for place in range(width)]
    for each in found:
        part = slice(each.start, each.start + each.count)
        row, before = transforms.Transforms([each])(row), row.shape[1]
        if each.kind == "take":
            at[part] = [at[part][int(place)] for place in transforms.arrays_of(each)[0]]
        else:
            used.update(*at[part])
            at[part] = [set[int]()] * (each.count + row.shape[1] - before)
    return used.union(*at)


def without_dropped(first: Any, steps: Sequence[Step], names: Sequence[str]) -> Table | None:
    """Returns a table of the columns `names`; columns that the first transformer drops may hold anything.

    `steps` are those of linear transformers, of which `first` is the first. None if it drops no column.
    """
    if type(first).__name__ not in ("ColumnTransformer", "FeatureUnion") or steps[0].kind != "linear":
        return None
    used = [bool(each.any()) for each in steps[0].a]
    columns = [Column(name) if each else Column(name, KEEP, encoding="unused") for name, each in zip(names, used)]
    return None if all(used) else Table(tuple(columns))


def require_readable(value: Any, source: int | None, texts_at: dict[int, bool]) -> None:
    """Checks that a device reads the category `value` as the transformer does; notes in `texts_at` whether it is text.

    `source` is the index of its raw column; None for a computed column.

    Raises:
        BuildError: the text has blanks at its ends, which readers of rows leave out; or the column has numbers, too; or
            the category is neither, such as a date.
    """
    is_text = isinstance(value, str | bool | np.bool_)
    if not is_text and not is_number(value):
        said = f"the category {short(str(value))} is neither text nor a number, but of type {type(value).__name__}"
        raise BuildError(said, hint="fit on a column of text: frame[COLUMN].astype(str)")
    if is_text and str(value) != str(value).strip():
        said = f"the category {value!r} has blanks at its ends, which a device leaves out"
        raise BuildError(said, hint="fit on a column without them: frame[COLUMN].str.strip()")
    if source is not None and texts_at.setdefault(source, is_text) != is_text:
        said = f"the category {value!r} is in a column of both numbers and text"
        raise BuildError(said, hint="fit on a column of text: frame[COLUMN].astype(str)")


def _scaled(scaler: Any, centre: Any) -> list[Step]:
    """Returns the step of a scaler that subtracts `centre` (None: nothing) and divides by `scale_` (None: by 1)."""
    zeros = np.zeros(scaler.n_features_in_)
    scale = 1.0 + zeros if scaler.scale_ is None else scaler.scale_
    return [affine(zeros if centre is None else centre, 1.0 / scale)]


def _normalizer(normalizer: Any) -> list[Step]:
    order = {"l1": 1.0, "l2": 2.0, "max": np.inf}[normalizer.norm]
    return [Step("normalize", np.asarray(order), np.zeros(0))]


def _pca(pca: Any) -> list[Step]:
    matrix = np.asarray(pca.components_, np.float64).T
    if pca.whiten:
        deviation = np.sqrt(np.asarray(pca.explained_variance_, np.float64))
        matrix = matrix / np.maximum(deviation, np.finfo(deviation.dtype).eps)
    return _linear(matrix, pca.mean_)


def _components(analysis: Any) -> list[Step]:
    found = analysis.components_
    return _linear((found.toarray() if hasattr(found, "toarray") else np.asarray(found)).T)


def _discriminants(analysis: Any) -> list[Step]:
    if analysis.solver == "lsqr":
        raise BuildError("LinearDiscriminantAnalysis(solver='lsqr') cannot transform rows", hint="solver='svd'")
    matrix = np.asarray(analysis.scalings_, np.float64)[:, : analysis._max_components]
    return _linear(matrix, analysis.xbar_ if analysis.solver == "svd" else None)


def _factors(analysis: Any) -> list[Step]:
    components = np.asarray(analysis.components_, np.float64)
    weighted = components / analysis.noise_variance_
    covariance = np.linalg.inv(np.eye(len(components)) + weighted @ components.T)
    return _linear(weighted.T @ covariance, analysis.mean_)


def _selector(selector: Any) -> list[Step]:
    support = selector.get_support()
    return _linear(np.eye(len(support))[:, support])


def branches_of(part: Any) -> list[tuple[list[int], Any, float]]:
    """Returns (input columns, transformer, weight) of each branch of a ColumnTransformer or FeatureUnion `part`.

    Leaves out branches that are dropped, or have no columns.
    """
    weights, every = part.transformer_weights or {}, list(range(width_of(part)))
    if hasattr(part, "transformers_"):
        places = part._transformer_to_input_indices
        named = [(name, each, list(places[name])) for name, each, _ in part.transformers_]
    else:
        named = [(name, each, every) for name, each in part.transformer_list]
    kept = [each for each in named if each[2] and not (isinstance(each[1], str) and each[1] == "drop")]
    return [(columns, each, weights.get(name, 1.0)) for name, each, columns in kept]


def _side_by_side(transformer: Any) -> list[Step]:
    width = width_of(transformer)
    branches = branches_of(transformer)
    composed = [(np.array(columns), *_compose(part, len(columns)), weight) for columns, part, weight in branches]
    shift, blocks, constants = np.zeros(width), [], []
    for columns, offset, *_ in composed:  # all of them first: the constants need the final ones
        first = shift[columns] == 0.0
        shift[columns[first]] = offset[first]
    for columns, offset, matrix, constant, weight in composed:
        wide = np.zeros((width, matrix.shape[1]))
        np.add.at(wide, columns, matrix * weight)  # a column may be named twice
        blocks.append(wide)
        # Parts that share a column share its shift: ((x - shift) + (shift - offset)) @ matrix + constant.
        constants.append(((shift[columns] - offset) @ matrix + constant) * weight)
    if not blocks:
        raise BuildError("the transformers drop every column", hint="keep one")
    constant = np.concatenate(constants)
    steps = _linear(np.concatenate(blocks, axis=1), shift)
    return [*steps, affine(-constant, np.ones(len(constant)))] if constant.any() else steps


def _compose(transformer: Any, width: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Returns (width,) offset, (width, r) matrix, (r,) constant of a transformer: (x - offset) @ matrix + constant."""
    offset, matrix, constant = np.zeros(width), np.eye(width), np.zeros(width)
    steps = [step for part in parts_of(transformer) for step in convert(part)]
    for number, step in enumerate(steps):
        shift, factor = (
            (step.a, np.diag(np.broadcast_to(step.b, step.a.shape))) if step.kind == "affine" else (step.b, step.a)
        )
        if number == 0:
            offset = shift
        else:
            constant = constant - shift
        matrix, constant = matrix @ factor, constant @ factor
    return offset, matrix, constant


def _linear(matrix: NDArray[Any], offset: Any = None) -> list[Step]:
    shift = np.zeros(len(matrix)) if offset is None else np.asarray(offset, np.float64)
    return [Step("linear", np.asarray(matrix, np.float64), shift)]


CONVERSIONS: dict[str, Callable[[Any], list[Step]]] = {
    "ColumnTransformer": _side_by_side,
    "FactorAnalysis": _factors,
    "FastICA": lambda found: _linear(found.components_.T, found.mean_ if found.whiten else None),
    "FeatureUnion": _side_by_side,
    "FunctionTransformer": lambda found: [],  # one with a function is nonlinear
    "GaussianRandomProjection": _components,
    "IncrementalPCA": _pca,
    "LinearDiscriminantAnalysis": _discriminants,
    "MaxAbsScaler": lambda found: _scaled(found, None),
    "MinMaxScaler": lambda found: [affine(-found.min_ / found.scale_, found.scale_)],
    "NeighborhoodComponentsAnalysis": _components,
    "Normalizer": _normalizer,
    "PCA": _pca,
    "RobustScaler": lambda found: _scaled(found, found.center_),
    "SparseRandomProjection": _components,
    "StandardScaler": lambda found: _scaled(found, found.mean_ if found.with_mean else None),
    "TruncatedSVD": _components,
}
