"""Files of sounds, pictures and arrays.

Lists the files under a folder, one folder at a time, and reads a file as an array.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from device_agent.shared.embedding.decode import MAX_BYTES, decode
from device_agent.shared.protocol.constants import plain
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.input_info import Input
from device_agent.shared.safe_files import read_small

PCM_SUFFIXES = (".pcm", ".raw", ".s16")
_SOUNDS, _PICTURES = (".wav", *PCM_SUFFIXES), (".png", ".jpg", ".jpeg")
SUFFIXES = (*_SOUNDS, *_PICTURES)
#: Files of a folder: what a model can take.
IN_FOLDERS = (*SUFFIXES, ".npy")
#: Sounds and pictures of other kinds, whose error says how to convert them; a folder's are left out.
_UNREAD = (
    *(".gif", ".bmp", ".webp", ".tif", ".tiff", ".heic", ".avif"),
    *(".mp3", ".ogg", ".oga", ".opus", ".flac", ".m4a", ".aac", ".wma", ".aif", ".aiff"),
)
#: Kinds of other files that a message names, and most characters of one.
_MOST_KINDS, _LONGEST_KIND = 5, 20


def suffixes_of(audio: object, image: object) -> tuple[str, ...]:
    """Returns the suffixes of the files that a model takes; `audio`, `image`: those of its `input`, or None."""
    return (*(_SOUNDS if audio else ()), *(_PICTURES if image else ()), ".npy")


def is_raw(path: str | Path) -> bool:
    """Whether a path is a folder, or has the suffix of a sound or picture, even of one that cannot be read."""
    return Path(path).suffix.lower() in (*SUFFIXES, *_UNREAD) or Path(path).is_dir()


def is_pcm(path: Path) -> bool:
    """Whether a path has a suffix of raw PCM."""
    return path.suffix.lower() in PCM_SUFFIXES


def files_of(path: Path, others: list[str] | None = None) -> Iterator[Path]:
    """Yields the file, or the files under a folder in order of their names, without hidden ones (`._clip.wav`).

    Links to files are files; links to folders are not followed. Adds the names of files of other kinds to `others`.

    Raises:
        BadInput: a folder cannot be read, or has no file that a model could take.
    """
    if not path.is_dir():
        yield path
        return
    waiting, count = [str(path).rstrip("/") + "/"], 0
    others = [] if others is None else others
    while waiting:
        name = waiting.pop()
        if name.endswith("/"):
            waiting += _visible(name, others)
        else:
            yield Path(name)
            count += 1
    if not count:
        more = f"; {left_out(others)}" if others else ""
        said = f"{path}: the folder has no {', '.join(IN_FOLDERS)} file{more}"
        raise BadInput(said, reason="no-rows", hint="give files of rows or samples one by one: --input FILE")


def left_out(names: Iterable[str]) -> str:
    """Returns a text about ignored files: how many there are of each suffix; "" without any."""
    kinds = Counter(Path(name).suffix.lower() or "without a suffix" for name in names)
    shown = [f"{count:,} {plain(kind[:_LONGEST_KIND])}" for kind, count in kinds.most_common(_MOST_KINDS)]
    shown += [f"{len(kinds) - _MOST_KINDS:,} more kinds"] if len(kinds) > _MOST_KINDS else []
    files = "file is" if kinds.total() == 1 else "files are"
    return f"{kinds.total():,} {files} of other kinds, and left out: {', '.join(shown)}" if kinds else ""


def _visible(folder: str, others: list[str]) -> list[str]:
    """Returns a folder's paths, last name first, folders with `/` at the end; adds files of other kinds to `others`."""
    found = []
    try:
        with os.scandir(folder) as there:
            entries = sorted(there, key=lambda entry: entry.name, reverse=True)
        for each in entries:
            if each.name.startswith("."):
                continue
            if each.is_dir(follow_symlinks=False):
                found.append(f"{each.path}/")
            elif not (each.is_symlink() and Path(each.path).is_dir()):
                (found if each.name.lower().endswith(IN_FOLDERS) else others).append(each.path)
    except OSError as error:
        raise BadInput(f"{plain(folder[:-1])}: {error.strerror}", reason="no-input") from None
    return found


def name_in(path: Path, file: Path) -> str:
    """Returns the name of a file for answers: relative to the folder `path`; without folders if `path` is the file."""
    name = file.name if file == path else file.relative_to(path).as_posix()
    return name.encode("utf-8", "replace").decode()


def is_among(file: Path, path: Path) -> bool:
    """Whether `file` is an input under the folder `path`, or would be once it is written."""
    return file.suffix.lower() in IN_FOLDERS and path.is_dir() and file.resolve().is_relative_to(path.resolve())


def read_file(path: Path) -> bytes:
    """Returns the bytes of one file.

    Raises:
        BadInput: the file cannot be read, or is too large.
    """
    try:
        data = read_small(path, MAX_BYTES, follow=True)
    except OSError as error:
        raise BadInput(error.strerror or str(error), reason="no-input") from None
    if len(data) > MAX_BYTES:
        raise BadInput(f"the file has more than {MAX_BYTES:,} bytes")
    return data


def read_array(path: Path, input: Input) -> NDArray[Any]:
    """Returns the array in one file.

    Raises:
        BadInput: the file cannot be read or decoded, or the model does not take such a file.
    """
    return decode(read_file(path), input, is_pcm(path))
