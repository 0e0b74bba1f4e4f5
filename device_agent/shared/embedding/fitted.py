"""Interpreters of one stage, each for one input shape.

New tensors for another input shape take as long as running a small network. So a stage keeps several interpreters, each
with tensors for one shape, and each thread borrows one. Loads no runtime.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

#: Most interpreters of a stage that no thread uses, and most bytes that they take.
_MOST, _MOST_BYTES = 16, 64 * 1024 * 1024


class Fitted:
    """An interpreter, the input shape of its tensors (None: no tensors yet), and the bytes of memory that it takes."""

    def __init__(self, interpreter: Any) -> None:
        self.interpreter = interpreter
        self.shape: tuple[int, ...] | None = None
        self.size = 0
        self._resized = False

    def fit(self, tensor: int, default: tuple[int, ...], shape: tuple[int, ...]) -> Any:
        """Returns the interpreter, allocated for an input `shape`; in the file, `tensor` has the shape `default`."""
        if shape != self.shape:
            self.shape = None
            if self._resized or shape != default:
                self._resized = True
                self.interpreter.resize_tensor_input(tensor, shape, strict=False)
            self.interpreter.allocate_tensors()
            self.shape = shape
        return self.interpreter


class FittedPool:
    """The interpreters of one stage.

    Args:
        open: returns a new interpreter, without tensors.
        first: the first interpreter, which `open` has returned.
        size_of: returns the bytes of memory that an interpreter takes with its present tensors.
    """

    def __init__(self, open: Callable[[], Any], first: Any, size_of: Callable[[Any], int]) -> None:
        self._open, self._size_of, self._lock = open, size_of, threading.Lock()
        self._idle = [Fitted(first)]  # the one that was used last comes last
        self._more = min(_MOST, _MOST_BYTES // max(1, size_of(first))) - 1

    @contextlib.contextmanager
    def take(self, shape: tuple[int, ...]) -> Iterator[Fitted]:
        """Lends an interpreter until the `with` block ends.

        Prefers an idle interpreter with tensors of this shape or without tensors, then a new interpreter, then any idle
        one. If none is idle and `open` fails, raises its exception.
        """
        one = self._find(shape)
        before = one.shape
        try:
            yield one
        finally:
            if one.shape != before:
                one.size = self._size_of(one.interpreter)
            self._give_back(one)

    def _give_back(self, one: Fitted) -> None:
        with self._lock:
            self._idle.append(one)
            while len(self._idle) > 1 and sum(each.size for each in self._idle) > _MOST_BYTES:
                del self._idle[0]
                self._more += 1

    def _find(self, shape: tuple[int, ...]) -> Fitted:
        with self._lock:
            for place in reversed(range(len(self._idle))):
                if self._idle[place].shape in (shape, None):
                    return self._idle.pop(place)
            if self._idle and self._more < 1:
                return self._idle.pop(0)
            self._more -= 1
        try:
            return Fitted(self._open())
        except Exception:
            with self._lock:
                self._more = 0
                if self._idle:
                    return self._idle.pop(0)
            raise
