"""Whatever an argument of the public API is given, the answer is right, or an error names it and what to give."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
from sklearn.neighbors import KNeighborsClassifier

import knnkit
from device_agent import TfliteKNN
from device_agent.shared.protocol.errors import AgentError
from knnkit import TfKNN, kernels
from knnkit.errors import KnnkitError

ROWS = np.array([[0.0, 1.0], [2.0, 5.0], [4.0, 3.0], [6.0, 8.0]])
LABELS = ["a", "b", "a", "b"]
FRAME = pd.DataFrame(ROWS, columns=["u", "v"])


class Tensor:
    """As a library of tensors, whose conversion to NumPy may fail."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        if self._values is None:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        return np.asarray(self._values, dtype)


class Broken:
    """An object whose comparison has no truth value."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise RuntimeError("Boolean value of a tensor with more than one value is ambiguous")

    def __len__(self) -> int:
        raise RuntimeError("no length")


def _values() -> Iterator[tuple[str, Any]]:
    days = pd.date_range("2026-01-01", periods=4, tz="Europe/Berlin")
    twice, deep = (
        FRAME.set_axis(["u", "u"], axis=1),
        FRAME.set_axis(pd.MultiIndex.from_tuples([("u", 1), ("v", 2)]), axis=1),
    )
    yield from {"None": None, "nan": np.nan, "inf": np.inf, "text": "no/such", "digits": "5", "nothing": ""}.items()
    yield from {
        "bytes": b"x",
        "0": 0,
        "-1": -1,
        "huge": 10**30,
        "endless": 10**5000,
        "half": 0.5,
        "complex": 1 + 2j,
    }.items()
    yield from {"True": True, "numpy int": np.int64(2), "numpy float": np.float32(1.5), "numpy bool": np.True_}.items()
    yield from {"list": [], "ragged": [[1.0], [2.0, 3.0]], "mixed": [1, "a", None], "nested": [[[1.0]]]}.items()
    yield from {"dict": {}, "dict of text": {"a": "b"}, "dict of 0": {"a": 0}, "dict of lists": {"a": [1]}}.items()
    yield from {"set": {1, 2}, "range": range(4), "function": len, "class": int, "object": object()}.items()
    yield from {"broken": Broken(), "tensor": Tensor(ROWS), "tensor with gradient": Tensor(None)}.items()
    yield from {"empty": np.empty(0), "no rows": np.empty((0, 2)), "no columns": np.empty((4, 0))}.items()
    yield from {
        "scalar": np.array(5.0),
        "cube": np.zeros((4, 2, 2)),
        "turned": ROWS.T,
        "pair": np.array([1.0, 2.0]),
    }.items()
    yield from {
        "complex array": ROWS * 1j,
        "text array": np.array([["a", "b"]] * 4),
        "bytes array": np.array([b"a"] * 4),
    }.items()
    yield from {
        "objects": np.array([Broken(), 1, None, "a"], object),
        "arrays": np.array([ROWS, LABELS, None, 1], object),
    }.items()
    yield from {
        "masked": np.ma.masked_equal(ROWS, 4.0),
        "masked float32": np.ma.masked_equal(ROWS.astype("f4"), 4),
    }.items()
    yield from {
        "masked labels": np.ma.masked_equal([1, 2, 3, 1], 3),
        "nan array": np.where(ROWS == 4.0, np.nan, ROWS),
    }.items()
    yield from {
        "huge array": ROWS * 1e300,
        "endless array": [[10**400, 1]] * 4,
        "long double": np.longdouble("1e4000") * ROWS,
    }.items()
    yield from {
        "times": days.to_numpy(),
        "spans": np.array([[1, 2]] * 4, "m8[s]"),
        "date": datetime.date(2026, 1, 1),
    }.items()
    yield from {"record": np.zeros(4, [("u", "f4"), ("v", "f4")]), "sparse": scipy.sparse.csr_matrix(ROWS)}.items()
    yield from {"frame": FRAME, "series": FRAME["u"], "empty frame": pd.DataFrame(), "columns twice": twice}.items()
    yield from {
        "deep columns": deep,
        "index": FRAME.columns,
        "other columns": FRAME.set_axis(["x", "y"], axis=1),
    }.items()
    yield from {"categories": FRAME.astype("category"), "nullable": FRAME.astype("Int64").mask(FRAME == 4)}.items()
    yield from {
        "dates": pd.DataFrame({"u": days, "v": days}),
        "texts": pd.DataFrame({"u": LABELS, "v": LABELS}),
    }.items()
    yield from {"objects in a frame": pd.DataFrame({"u": [[1], {}, None, ROWS], "v": [1, 2, 3, 4]})}.items()
    yield from {"sparse frame": FRAME.astype(pd.SparseDtype("float", 0.0)), "complex frame": FRAME * 1j}.items()
    yield from {"polars": pl.DataFrame(FRAME.to_dict("list")), "polars series": pl.Series([1, 2, 3, 4])}.items()
    yield from {
        "lazy": pl.LazyFrame({"u": [1.0] * 4, "v": [2.0] * 4}),
        "lists": pl.DataFrame({"u": [[1, 2]] * 4}),
    }.items()
    table = pa.table({"u": [0.0, 2.0, 4.0, 6.0], "v": [1.0, 5.0, 3.0, 8.0]})
    yield from {"arrow": table, "arrow turned": table.select(["v", "u"]), "arrow batch": table.to_batches()[0]}.items()
    yield from {"arrow of text": pa.table({"u": [["a"], ["b"], [], ["c"]]}), "arrow array": table["u"]}.items()
    yield from {"arrow of halves": pa.table({"u": pa.array(np.zeros(4, np.float16)), "v": pa.nulls(4)})}.items()


VALUES = dict(_values())
MODEL = TfKNN(FRAME, 2, labels=LABELS)
NUMBERS = TfKNN(FRAME, 2, targets=[1.0, 2.0, 3.0, 4.0])
FILLED = TfKNN(
    FRAME.assign(c=["x", "y", "x", None]), 2, labels=LABELS, data={"missing": "median", "categories": "one-hot"}
)
FITTED = KNeighborsClassifier(2).fit(ROWS, LABELS)
RELEASE: dict[str, Any] = {"signing_key": "no/key.pem", "test": (ROWS, LABELS)}
Call = Callable[[Any], Any]


def _fit(name: str, **how: Any) -> Call:
    given: dict[str, Any] = {"rows": ROWS, "k": 2, "labels": LABELS} | how
    return lambda value: TfKNN(**{**given, name: value})


def _release(name: str) -> Call:
    return lambda value: MODEL.build_release(**{"out": "no/such/release", **RELEASE, name: value})


#: Each argument: its name, words that a message may call it by, and a call with it.
CALLS: dict[str, tuple[str, Call]] = {
    "rows": ("row column", _fit("rows", labels=None)),
    "rows of data": ("row column data", _fit("rows", data={"missing": "median"})),
    "k": ("k", _fit("k")),
    "labels": ("label", _fit("labels")),
    "labels of data": ("label", _fit("labels", rows=FRAME, data={})),
    "targets": ("target", _fit("targets", labels=None)),
    **{name: (name, _fit(name)) for name in ("metric", "weights", "scale", "reject", "name", "class_weight")},
    "feature_names": ("feature_names names columns", _fit("feature_names")),
    "data": ("data", _fit("data", rows=FRAME)),
    **{f"data {key}": ("data", lambda value, key=key: TfKNN(FRAME, 2, labels=LABELS, data={key: value}))
       for key in ("missing", "categories", "drop", "features", "unknown_category")},
    "p": ("p", _fit("p", metric="minkowski")),
    "bandwidth": ("bandwidth", _fit("bandwidth", weights="gaussian")),
    "radius": ("radius", _fit("radius")),
    "outlier_label": ("outlier_label label", _fit("outlier_label", radius=1.0)),
    "queries": ("row column", MODEL.predict),
    "queries of data": ("rows column cells", FILLED.predict),
    "kneighbors queries": ("row column", MODEL.kneighbors),
    "n_neighbors": ("n_neighbors", lambda value: MODEL.kneighbors(ROWS, value)),
    "return_distance": ("return_distance", lambda value: MODEL.kneighbors(ROWS, 1, value)),
    "score labels": ("labels", lambda value: MODEL.score(ROWS, value)),
    "score targets": ("targets", lambda value: NUMBERS.score(ROWS, value)),
    "held_out": ("held_out", lambda value: None if value is None else MODEL.build(value)),
    "margin": ("margin", lambda value: MODEL.build(margin=value)),
    "export path": ("path directory", MODEL.export),
    **{name: (f"{name} key directory file rows", _release(name))
       for name in ("out", "signing_key", "test", "version", "sequence", "device_class", "gates", "seed")},
    "estimator": ("estimator supported fitted", knnkit.from_sklearn),
    **{f"from_sklearn {name}": (f"{name} names", lambda value, name=name: knnkit.from_sklearn(FITTED, **{name: value}))
       for name in ("name", "reject", "source", "feature_names")},
    "from_skops path": ("path file", knnkit.from_skops),
    "kernel": ("bandwidth", kernels.gaussian),
    "device path": ("path file model", TfliteKNN),
}  # fmt: skip
#: Of a model file: the arguments of TfliteKNN.
ON_DEVICE: dict[str, tuple[str, Callable[[Path], Call]]] = {
    **{name: (name, lambda path, name=name: lambda value: TfliteKNN(path, **{name: value}))
       for name in ("num_threads", "runtime", "packed", "stream", "search")},
    "queries": ("row column", lambda path: TfliteKNN(path).predict),
    "score": ("labels", lambda path: lambda value: TfliteKNN(path).score(ROWS, value)),
}  # fmt: skip
#: What no message may hold: Python's own words, and what a notebook does not have.
FOREIGN = (
    *("NoneType", "object has no attribute", "subscriptable", "unhashable", "ambiguous", "deploy.yaml", "knnkit init"),
    *(" --label", " --features", " --drop", " --missing"),
)


def said_of(call: Call, value: Any) -> str:
    """Returns the message and hint of the error; an empty text if the value was taken."""
    caught: KnnkitError | AgentError | None = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            call(value)
    except (KnnkitError, AgentError) as error:
        caught = error
    if caught is None:
        return ""
    assert str(caught), "no message"
    assert caught.hint, f"no hint: {caught}"
    return f"{caught} / {caught.hint}"


def wrong(words: str, call: Call) -> list[str]:
    """Returns what is wrong with the answers to all values, by the value's name."""
    found = []
    for name, value in VALUES.items():
        try:
            said = said_of(call, value)
        except Exception as error:
            found.append(f"{name}: {type(error).__name__}: {str(error)[:150]}")
            continue
        if said and not any(word in said for word in words.split()):
            found.append(f"{name}: does not name {words}: {said}")
        found += [f"{name}: holds {word!r}: {said}" for word in FOREIGN if word in said]
    return found


@pytest.mark.parametrize("argument", CALLS)
def test_every_argument_is_taken_or_named(argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert wrong(*CALLS[argument]) == []


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MODEL.export(tmp_path_factory.mktemp("model") / "knn.tflite")


@pytest.mark.parametrize("argument", ON_DEVICE)
def test_every_argument_on_a_device_is_taken_or_named(argument: str, file: Path) -> None:
    words, make = ON_DEVICE[argument]
    assert wrong(words, make(file)) == []


@pytest.mark.parametrize("name", ["frame", "polars", "arrow", "arrow turned", "arrow batch", "tensor", "categories"])
def test_a_table_of_any_library_is_read_by_its_names(name: str, file: Path) -> None:
    expected = MODEL.predict(ROWS).tolist()
    for model in (MODEL, TfliteKNN(file), TfKNN(VALUES[name], 2, labels=LABELS)):
        assert model.predict(VALUES[name]).tolist() == expected


@pytest.mark.parametrize(
    "name", ["complex array", "masked", "masked float32", "nullable", "times", "sparse", "lazy", "record"]
)
def test_what_would_lose_its_meaning_is_refused(name: str, file: Path) -> None:
    for call in (MODEL.predict, TfliteKNN(file).predict, CALLS["rows"][1]):
        assert said_of(call, VALUES[name])


def test_targets_are_never_turned_on_their_side() -> None:
    """(2, 4) targets have as many numbers as (4, 2), and 8 numbers as 4 pairs."""
    for targets in (np.arange(8.0).reshape(2, 4), np.arange(8.0)):
        with pytest.raises(KnnkitError, match="4 rows, but targets of shape"):
            TfKNN(ROWS, 2, targets=targets)


@pytest.mark.parametrize(
    "labels", [[["1", "007"], ["2", "1"], ["1", "007"], ["2", "2"]], [[1, 5], [2, 6], [1, 5], [2, 7]]]
)
def test_labels_of_several_columns_come_back_as_they_were(labels: list[list[Any]]) -> None:
    for given in (labels, np.array(labels, object), pd.DataFrame(labels, columns=["a", "b"])):
        model = TfKNN(ROWS, 1, labels=given)
        assert model.predict(ROWS).tolist() == labels
        assert model.score(ROWS, given) == 1.0
    for given in (pd.DataFrame({"a": [True, False] * 2, "b": LABELS}), np.array(labels, float) + 0.5):
        with pytest.raises(KnnkitError, match="are not supported"):
            TfKNN(ROWS, 1, labels=given)


@pytest.mark.parametrize("labels", [["1", "2", "1", "2"], [1, 2, 1, 2], ["x", "y", "x", "y"]])
def test_a_named_label_column_comes_back_as_it_was(labels: list[Any]) -> None:
    model = TfKNN(FRAME.assign(kind=labels), 1, labels="kind")
    assert model.predict(FRAME).tolist() == labels
