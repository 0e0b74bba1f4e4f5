"""Reads the files inside a model: knn.json, labels, exact tables.

knn.json describes the classifier; the exact tables are the numbers with which a device searches in float64. The files
are in a zip archive after the model's flatbuffer, as TFLite Metadata specifies. Never loads a TFLite runtime.
"""

from __future__ import annotations

import contextlib
import os
import weakref
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from device_agent.shared.protocol import constants, json_codec, model_info
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.release import zip_limits


def read_info(source: str | Path | IO[bytes]) -> model_info.KnnInfo:
    """Returns the description of the classifier in a model file (its knn.json).

    Raises:
        ModelUnusable: the file is not a knnkit model.
        PermissionError: the file may not be read.
    """
    try:
        return json_codec.loads(model_info.KnnInfo, read_member(source, constants.KNN_FILE))
    except json_codec.NewerDocument as error:
        said = f"{_name(source)}: {constants.KNN_FILE} inside the model was written by a newer knnkit: {error}"
        raise ModelUnusable(said, hint="knnkit provision --target HOST, with the newer knnkit") from None
    except json_codec.MalformedDocument as error:
        raise ModelUnusable(
            f"{_name(source)}: {constants.KNN_FILE} inside the model is damaged: {error}", hint=HINT
        ) from None


def has_member(source: str | Path | IO[bytes], name: str) -> bool:
    """Whether the archive inside a model has a file `name`.

    Raises:
        ModelUnusable: the file is not a knnkit model.
    """
    with _members(source) as members:
        return name in members.namelist()


def read_member(source: str | Path | IO[bytes], name: str, limit: int = json_codec.MAX_DOCUMENT) -> bytes:
    """Returns the bytes of the file `name` in the archive inside a model.

    Raises:
        ModelUnusable: the model has no such file, it is over `limit` bytes, or it cannot be read.
    """
    with _members(source) as members:
        return _read_stored(members, name, limit)


def _name(source: str | Path | IO[bytes]) -> str:
    return str(source if isinstance(source, str | Path) else getattr(source, "name", "the model"))


_DESCRIPTORS = "/proc/self/fd/"
HINT = "is it a model that `knnkit build` or TfKNN.export made?"


@contextlib.contextmanager
def _members(source: str | Path | IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """Opens the archive inside a model; an exception for a broken archive becomes ModelUnusable."""
    try:
        with contextlib.ExitStack() as stack:
            # `open` takes half the time of `Path.open`, at each start.
            file = stack.enter_context(open(source, "rb")) if isinstance(source, str | Path) else source  # noqa: PTH123
            zip_limits.require_small(file)
            yield stack.enter_context(zipfile.ZipFile(file))
    except ModelUnusable as error:
        raise ModelUnusable(f"{_name(source)}: {error}", hint=error.hint or HINT) from None
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ModelUnusable(f"{_name(source)}: {error.strerror}", hint="name the file of the model") from None
    except PermissionError:  # the command line gives the reason and the remedy
        raise
    except zip_limits.BROKEN as error:
        raise ModelUnusable(f"{_name(source)} is not a knnkit model: {error}", hint=HINT) from None


def _read_stored(members: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Reads a file that the archive holds uncompressed; refuses a compressed one, which could expand without limit."""
    if name not in members.namelist():
        raise ModelUnusable(f"not a knnkit model: it has no {name}")
    entry = members.getinfo(name)
    if sum(other == name for other in members.namelist()) > 1:
        raise ModelUnusable(f"the archive inside has two members with the name {name}")
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ModelUnusable(f"{name} inside the model is compressed")
    if entry.file_size > limit:
        raise ModelUnusable(f"{name} inside the model has {entry.file_size:,} bytes; at most {limit:,} are allowed")
    if entry.flag_bits & 1:
        raise ModelUnusable(f"{name} inside the model is encrypted")
    try:
        data = members.read(entry)
    except zip_limits.BROKEN as error:
        if name == constants.KNN_FILE:  # without it, the file is not a model
            raise
        raise ModelUnusable(f"{name} inside the model is damaged: {error}", hint="knnkit build --force") from None
    if len(data) != entry.file_size:
        raise ModelUnusable(f"{name} inside the model has {len(data):,} bytes, but its entry says {entry.file_size:,}")
    return data


def kept_open(owner: object, path: str) -> str:
    """Returns a path that opens this file as long as `owner` exists, even if another file replaces it at `path`.

    A model reads its file again while it classifies: for example, the exact tables, at the first row that float32
    cannot decide.
    """
    if path.startswith(_DESCRIPTORS) or not os.path.isdir(_DESCRIPTORS):  # noqa: PTH112
        return path
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    weakref.finalize(owner, os.close, descriptor)
    return f"{_DESCRIPTORS}{descriptor}"
