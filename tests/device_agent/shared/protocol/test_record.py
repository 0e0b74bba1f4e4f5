"""A record is a frozen dataclass in all but how it is made."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import pkgutil
from dataclasses import FrozenInstanceError
from importlib import import_module
from typing import Any

import pytest

import device_agent
from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.record import record, replace, shape


@record
class Point:
    """A place."""

    x: int
    y: int = 2
    tags: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Twin:
    """The same, generated."""

    x: int
    y: int = 2
    tags: tuple[str, ...] = ()


CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((1,), {}), ((1, 5), {}), ((1, 5, ("a",)), {}), ((), {"x": 1}), ((1,), {"tags": ("b",)}), ((), {"y": 3, "x": 1}),
]  # fmt: skip
WRONG: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}), ((1, 2, (), 4), {}), ((1,), {"x": 1}), ((1,), {"z": 1}), ((), {"y": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("values", "named"), CALLS)
def test_it_is_made_compared_hashed_and_shown_as_a_dataclass(values: tuple[Any, ...], named: dict[str, Any]) -> None:
    point, twin = Point(*values, **named), Twin(*values, **named)
    assert (point.x, point.y, point.tags) == (twin.x, twin.y, twin.tags)
    assert repr(point) == repr(twin).replace("Twin", "Point")
    assert point == Point(*values, **named)
    assert point != twin
    assert point != Point(9)
    assert hash(point) == hash(Point(*values, **named)) == hash(twin)


@pytest.mark.parametrize(("values", "named"), WRONG)
def test_what_a_dataclass_does_not_take_it_does_not_take(values: tuple[Any, ...], named: dict[str, Any]) -> None:
    for cls in (Twin, Point):
        with pytest.raises(TypeError):
            cls(*values, **named)


def test_it_cannot_be_changed() -> None:
    point: Any = Point(1)
    with pytest.raises(FrozenInstanceError):
        point.x = 2
    with pytest.raises(FrozenInstanceError):
        point.new = 2
    with pytest.raises(FrozenInstanceError):
        del point.x


def test_the_standard_library_takes_it_for_a_dataclass() -> None:
    point = Point(1, tags=("a",))
    assert dataclasses.is_dataclass(Point)
    assert [(f.name, f.default) for f in dataclasses.fields(Point)] == [
        (f.name, f.default) for f in dataclasses.fields(Twin)
    ]
    assert dataclasses.asdict(point) == {"x": 1, "y": 2, "tags": ("a",)}
    assert dataclasses.replace(point, x=3) == replace(point, x=3) == Point(3, tags=("a",))
    assert list(inspect.signature(Twin).parameters) == list(Point.__match_args__) == list(shape(Point) or ())
    match point:
        case Point(x, y):
            assert (x, y) == (1, 2)


def test_it_travels() -> None:
    point = Point(1, tags=("a",))
    assert pickle.loads(pickle.dumps(point)) == copy.deepcopy(point) == point
    assert json_codec.loads(Point, json_codec.dumps(point)) == point


def records() -> list[type]:
    """Every record of the agent that loads without a runtime."""
    found: dict[str, type] = {}
    for module in pkgutil.walk_packages(device_agent.__path__, "device_agent."):
        if module.name != "device_agent.__main__":
            for name, value in vars(import_module(module.name)).items():
                if isinstance(value, type) and "__record__" in vars(value):
                    found[name] = value
    return list(found.values())


@pytest.mark.parametrize("cls", records(), ids=lambda cls: cls.__name__)
def test_no_record_of_the_agent_asks_for_what_records_do_not_have(cls: type) -> None:
    """No default factory, inheritance or `__post_init__`, and no field without a default behind one that has one."""
    names = shape(cls)
    assert names is not None
    optional = list(names.values())
    assert optional == sorted(optional)
    assert cls.__bases__ == (object,)
    assert not hasattr(cls, "__post_init__")
    assert not any(isinstance(vars(cls).get(name), dataclasses.Field) for name in names)
