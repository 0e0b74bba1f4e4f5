"""Checks of arguments that people give in Python.

A check of a bad argument raises `error`, an exception class that its caller passes: the message names the argument,
the hint says what to give instead. Accepts NumPy's numbers and bools, but loads no NumPy.
"""

from __future__ import annotations

import contextlib
import operator
import os
from collections.abc import Callable
from numbers import Number, Real
from typing import Any

_Error = Callable[..., Exception]
_LONGEST = 60


def shown(value: Any) -> str:
    """Returns a value as text for a message: the repr of None, text or a number, if that is short; else the type."""
    text = ""
    if value is None or isinstance(value, str | Number):
        with contextlib.suppress(ValueError):  # more digits than Python writes
            text = repr(getattr(value, "item", lambda: value)())
    return text if 0 < len(text) <= _LONGEST else f"of type {type(value).__name__}"


def is_number(value: Any) -> bool:
    """Whether a value is a real number. NaN and infinity are numbers, True and False are not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_truth(value: Any) -> bool:
    return type(value).__name__ in ("bool", "bool_")  # the latter is NumPy's


def require(good: bool, name: str, value: Any, error: _Error, hint: str) -> None:
    """Raises `error` unless `good` is true. `hint` says which value to give for the argument `name`."""
    if not good:
        raise error(f"{name} cannot be {shown(value)}", hint=hint)


def whole(value: Any, name: str, error: _Error, least: int = -(2**63), most: int = 2**63 - 1) -> int:
    """Returns the `value` of argument `name`; raises `error` unless it is an int (not 3.0) from `least` to `most`."""
    hint = f"{name}={max(least, 1)}"
    try:
        found = operator.index(None if _is_truth(value) else value)  # type: ignore[arg-type]
    except TypeError:
        raise error(f"{name} is {shown(value)}; a whole number is needed", hint=hint) from None
    bound = f"at least {least}" if found < least else f"at most {most}"
    require(least <= found <= most, name, found, error, f"{bound}: {hint}")
    return found


def flag(value: Any, name: str, error: _Error) -> bool:
    """Returns the `value` of the argument `name` if it is True or False; else raises `error`."""
    require(_is_truth(value), name, value, error, f"{name}=True, or False")
    return bool(value)


def path_text(value: Any, name: str, error: _Error) -> str:
    """Returns the `value` of argument `name` as text; raises `error` unless it is a Path, or a text other than ""."""
    found = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    good = isinstance(found, str) and found != "" and "\0" not in found
    require(good, name, value, error, f"the path of a file: {name}='FILE'")
    return str(found)


def texts(value: Any, name: str, error: _Error) -> tuple[str, ...] | None:
    """Returns the `value` of argument `name`, a list of texts, as a tuple; None for None. Else raises `error`."""
    found: tuple[Any, ...] = ()
    with contextlib.suppress(TypeError):
        found = () if value is None or isinstance(value, str | bytes) else tuple(value)
    good = bool(found) and all(isinstance(each, str) for each in found)
    require(good or value is None, name, value, error, f"text for each column: {name}=['width', 'height']")
    return tuple(map(str, found)) or None
