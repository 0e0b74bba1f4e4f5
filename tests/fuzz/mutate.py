"""Makes broken inputs from good ones: bytes, and JSON structure. Seeded, so that a failure comes back."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

#: What breaks parsers: brackets, numbers at every limit, half characters, names that mean something to Python.
TOKENS = [
    *(
        b'"',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\\",
        b"\0",
        b"\xff",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\\ud800",
        b"\\u0000",
    ),
    *(b"null", b"true", b"NaN", b"Infinity", b"-0", b"1e999", b"-1", b"9" * 25, b"9" * 5000, b"0.1", b"1E400"),
    *(b"[" * 40, b'{"a":' * 40, b"../", b"/etc/passwd", b"__class__", b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"),
]
VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**53,
        2**63,
        10**400,
        0.5,
        1e308,
        -0.0,
        "",
        "..",
        "/",
        "a" * 5000,
        "\0",
        "é",
    ),
    *([], {}, [[]], [{}], {"": ""}, [None], "sha256", "0" * 64, "\ud800", ["x"] * 100),
]


def byte_mutants(seeds: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Yields `count` inputs, each with one to six things wrong."""
    rng = random.Random(seed)
    for _ in range(count):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 6)):
            _mutate(data, seeds, rng)
        yield bytes(data)


def _mutate(data: bytearray, seeds: list[bytes], rng: random.Random) -> None:
    start = rng.randint(0, len(data))
    end = min(len(data), start + rng.choice((1, 1, 2, 4, 16, 200)))
    match rng.randrange(8):
        case 0 if start < len(data):
            data[start] ^= 1 << rng.randrange(8)
        case 1 if start < len(data):
            data[start] = rng.randrange(256)
        case 2:
            del data[start:end]
        case 3:
            data[start:start] = data[start:end]
        case 4:
            data[start:start] = rng.choice(TOKENS)
        case 5:
            data[start:end] = rng.choice(TOKENS)
        case 6 if rng.random() < 0.2:
            del data[start:]
        case 7:
            other = rng.choice(seeds)
            cut = rng.randint(0, len(other))
            data[start:end] = other[cut : cut + rng.choice((1, 8, 64))]


def json_mutants(seeds: list[Any], count: int, seed: int) -> Iterator[Any]:
    """Yields `count` documents that are JSON, but of another shape."""
    rng = random.Random(seed)
    for _ in range(count):
        document = copy.deepcopy(rng.choice(seeds))
        for _ in range(rng.randint(1, 3)):
            document = _reshape(document, rng)
        yield document


def _reshape(document: Any, rng: random.Random) -> Any:
    places = list(_places(document))
    if not places:
        return rng.choice(VALUES)
    holder, key = rng.choice(places)
    match rng.randrange(6):
        case 0 | 1 | 2:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
        case 3:
            del holder[key]
        case 4 if isinstance(holder, dict):
            holder[rng.choice(["x", "", "name", "__proto__", f"{key}"[::-1]])] = copy.deepcopy(rng.choice(VALUES))
        case 4:
            holder.insert(rng.randint(0, len(holder)), copy.deepcopy(holder[key]))
        case 5:
            holder[key] = [holder[key]] if rng.random() < 0.5 else {"value": holder[key]}
    return document


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    keys = (
        list(document)
        if isinstance(document, dict)
        else list(range(len(document) if isinstance(document, list) else 0))
    )
    for key in keys:
        yield document, key
        yield from _places(document[key])


def encode(document: Any) -> bytes:
    """Returns JSON as a hostile writer would have it: half surrogate pairs stay."""
    return json.dumps(document).encode("utf-8", "surrogatepass")
