"""Allowed TFLite operations, and the runtime that introduced each version.

A runtime that has a version of an operation has all earlier ones. A model with an unlisted operation is not built: the
converter's own check ignores operations that it does not know. The versions are those of TensorFlow's
lite/tools/versioning/runtime_version.cc; runtime 2.14 registers them all (lite/core/kernels/register.cc).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from device_agent.shared.protocol import versions
from knnkit.errors import BuildError
from knnkit.model.tflite.flatbuffer import unpack

#: Operation -> first runtime with its version 1, 2, ...; the operations of our graphs, and what converters substitute.
FIRST_RUNTIME: dict[str, tuple[str, ...]] = {
    "ABS": ("1.13.0", "2.4.0", "2.5.0", "2.6.0"),
    "ADD": ("1.5.0", "1.14.0", "2.4.0", "2.6.0"),
    "ARG_MAX": ("1.9.0", "1.14.0", "2.9.0"),
    "CAST": ("1.5.0", "2.7.0", "2.8.0", "2.9.0"),
    "CONCATENATION": ("1.5.0", "1.14.0", "2.3.0"),
    "DIV": ("1.6.0", "2.3.0"),
    "EQUAL": ("1.14.0", "1.14.0", "2.3.0"),
    "EXPAND_DIMS": ("1.10.0",),
    "FLOOR": ("1.9.0",),
    "FLOOR_DIV": ("1.14.0", "1.14.0"),
    "FLOOR_MOD": ("1.13.0",),
    "FULLY_CONNECTED": ("1.5.0", "1.10.0", "1.14.0", "1.14.0", "2.0.0", "2.1.0", "2.3.0", "2.3.0", "2.3.0"),
    "GATHER": ("1.6.0", "1.14.0", "1.15.0", "2.4.0", "2.5.0"),
    "GATHER_ND": ("1.14.0", "2.3.0", "2.5.0"),
    "GREATER": ("1.14.0", "1.14.0"),
    "GREATER_EQUAL": ("1.14.0", "1.14.0"),
    "LESS": ("1.14.0", "1.14.0"),
    "LESS_EQUAL": ("1.14.0", "1.14.0"),
    "LOGICAL_AND": ("1.11.0",),
    "LOGICAL_NOT": ("1.11.0",),
    "LOGICAL_OR": ("1.11.0",),
    "MAXIMUM": ("1.14.0", "1.14.0", "2.3.0", "2.3.0"),
    "MINIMUM": ("1.14.0", "1.14.0", "2.3.0", "2.3.0"),
    "MUL": ("1.5.0", "1.14.0", "1.15.0", "2.3.0", "2.6.0"),
    "NEG": ("1.9.0",),
    "NOT_EQUAL": ("1.14.0", "1.14.0", "2.3.0"),
    "ONE_HOT": ("1.11.0",),
    "PACK": ("1.11.0", "1.14.0", "2.3.0"),
    "PAD": ("1.5.0", "1.14.0", "2.4.0", "2.6.0"),
    "PADV2": ("1.9.0", "1.14.0", "2.4.0", "2.6.0"),
    "REDUCE_MAX": ("1.11.0", "1.14.0", "2.5.0"),
    "REDUCE_MIN": ("1.11.0", "1.14.0", "2.5.0"),
    "RELU": ("1.5.0", "2.1.0", "2.5.0"),
    "RESHAPE": ("1.5.0",),
    "ROUND": ("1.14.0",),
    "SELECT": ("1.14.0", "1.14.0"),
    "SELECT_V2": ("2.2.0",),
    "SLICE": ("1.14.0", "1.14.0", "1.14.0", "2.4.0", "2.5.0"),
    "SPLIT": ("1.5.0",),
    "SQRT": ("1.10.0",),
    "SQUARE": ("1.12.0",),
    "SQUARED_DIFFERENCE": ("1.13.1", "2.5.0"),
    "SQUEEZE": ("1.6.0", "2.5.0"),
    "STRIDED_SLICE": ("1.6.0", "1.14.0", "2.1.0", "2.2.0", "2.5.0", "2.6.0"),
    "SUB": ("1.6.0", "1.14.0", "2.3.0", "2.4.0", "2.4.0"),
    "SUM": ("1.10.0", "1.15.0"),
    "TOPK_V2": ("1.7.0", "1.14.0"),
    "TRANSPOSE": ("1.6.0", "1.14.0", "1.15.0", "2.3.0", "2.4.0"),
}
#: First runtime after the one whose versions the table has.
_AFTER_TABLE = "2.15.0"
#: TensorFlow 2.22, the first for Python 3.14, converts to newer versions of operations.
_KNOWN_CONVERTER = "pip install 'tensorflow==2.21.*' with Python 3.13 or earlier"
_OLDER_CONVERTER = f"{_KNOWN_CONVERTER}: it converts to older operations"


def unknown_converter(did: str) -> BuildError:
    """Returns the error that the converter `did` something that the code here does not expect."""
    return BuildError(f"the converter {did}; this TensorFlow is not supported", hint=_KNOWN_CONVERTER)


def minimum_runtime(tree: Any, oldest: str) -> str:
    """Returns the lowest TFLite runtime version that has every operation of a model.

    Args:
        tree: the model as TensorFlow's objects (`ModelT`).
        oldest: version of the oldest runtime on the boards.

    Raises:
        BuildError: an operation is not listed, or `oldest` does not have it; the message names all of them.
    """
    used = sorted(set(_operations(tree)))
    unknown = [each for each in used if not 1 <= each[1] <= len(FIRST_RUNTIME.get(each[0], ()))]
    if unknown:
        raise BuildError(
            f"the converter produced operations that boards may not have: {_listed(unknown)}", hint=_OLDER_CONVERTER
        )
    first = {each: FIRST_RUNTIME[each[0]][each[1] - 1] for each in used}
    newer = [each for each in used if (versions.parse(first[each]) or ()) > (versions.parse(oldest) or ())]
    if newer:
        raise BuildError(
            f"the model needs TFLite runtime {_highest(first[each] for each in newer)} for {_listed(newer)}; "
            f"boards have {oldest}",
            hint=_OLDER_CONVERTER,
        )
    return _highest(first.values())


def with_stages(version: str, stages: Iterable[bytes]) -> str:
    """Returns the lowest TFLite runtime that has every operation of a model and of its stages.

    `version` is the lowest for the model alone, `stages` are the bytes of the stages' files. A stage may have any
    operation. The runtime version that a converter wrote into the stage's file counts, too. If an operation has
    a newer version than any in `FIRST_RUNTIME`, the result is later than all runtimes in that table.
    """
    found = [version]
    for data in stages:
        tree = unpack(data)
        found += [_stated_runtime(tree) or version]
        for name, number in _operations(tree):
            known = FIRST_RUNTIME.get(name, ())
            if known and number:
                found.append(known[number - 1] if number <= len(known) else _AFTER_TABLE)
    return _highest(found)


def _stated_runtime(tree: Any) -> str:
    """Returns the lowest runtime version that the converter wrote into a model; "" if there is no valid version."""
    for entry in tree.metadata or ():
        if entry.name == b"min_runtime_version" and tree.buffers[entry.buffer].data is not None:
            said = bytes(tree.buffers[entry.buffer].data).rstrip(b"\0").decode("ascii", "replace")
            return said if versions.parse(said) else ""
    return ""


def _operations(tree: Any) -> list[tuple[str, int]]:
    """Returns (name, version) of each operation of a model (`ModelT`); a custom operation has version 0."""
    from tensorflow.lite.python.schema_py_generated import BuiltinOperator

    names = {code: name for name, code in vars(BuiltinOperator).items() if isinstance(code, int)}
    found = []
    for entry in tree.operatorCodes:
        # Codes above 127 are in `builtinCode`; the old field then holds a placeholder.
        code = max(entry.builtinCode, entry.deprecatedBuiltinCode)
        custom = entry.customCode.decode() if entry.customCode else None
        found.append((custom, 0) if custom else (names.get(code, f"number {code}"), int(entry.version)))
    return found


def _highest(found: Iterable[str]) -> str:
    return max(found, key=lambda version: versions.parse(version) or ())


def _listed(operations: list[tuple[str, int]]) -> str:
    return ", ".join(f"{name} version {version}" if version else name for name, version in operations)
