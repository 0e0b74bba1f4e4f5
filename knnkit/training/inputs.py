"""Embeds the raw inputs of deploy.yaml.

Stages compute the rows of a model from sounds, pictures or windows. Remembers the file of each raw input, because the
golden set contains raw inputs. `knnkit.model.embedding` runs the stages.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.embedding import picture
from device_agent.shared.embedding.decode import to_json
from device_agent.shared.embedding.files import read_array, read_file
from device_agent.shared.file_hints import with_file
from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.errors import AgentError
from device_agent.shared.protocol.input_info import Audio, Image, Input, Stage, Window
from device_agent.shared.protocol.record import replace as replace_record
from device_agent.shared.queries import default_names
from knnkit.config.input_models import InputConfig
from knnkit.data.dataset import Dataset
from knnkit.data.raw_files import RawFiles
from knnkit.errors import BuildError, DataError
from knnkit.model.embedding import Embedded, embed, read_stages
from knnkit.model.reference import window_features
from knnkit.model.tflite import own_stages

T = TypeVar("T")

#: Most rows of a golden set of raw inputs, since a device runs every stage on each, and most bytes of these inputs.
GOLDEN_ROWS, GOLDEN_BYTES = 200, 24 * 1024 * 1024
_LEAST_GOLDEN = 10
#: Rows of the last inputs: a command may read its training and test inputs more than once.
_EMBEDDED: dict[tuple[str, bytes], Embedded] = {}
_REMEMBERED = 4
#: Inputs whose sizes are looked at.
_SAMPLE = 8


@dataclass(frozen=True)
class Embedder:
    """Runs the stages of a model on raw inputs."""

    input: Input  # content of `input` in knn.json, which describes the stages
    files: Mapping[str, bytes]  # name of a stage's file in a release -> its bytes
    #: name of a raw input (`Dataset.ids`) -> its file; empty if the inputs are rows of numbers.
    paths: dict[str, Path] = field(default_factory=dict)
    names: tuple[str, ...] = ()  # names of the features; empty for the default names of `embed`
    #: name of a stage's file in a release -> the user's file, for messages.
    origins: Mapping[str, Path] = field(default_factory=dict)
    #: files of the sounds that are shorter than `seconds` of `audio` in `input`.
    short: dict[Path, None] = field(default_factory=dict)

    def apply(self, rows: Dataset) -> tuple[Dataset, Embedder]:
        """Runs the stages on raw rows; returns the feature rows, and an embedder that knows the stages' input shapes.

        Raises:
            BuildError: a stage cannot be loaded, or a row does not fit it.
        """
        found = self._embed(hashlib.sha256(rows.rows.tobytes()).digest(), rows.rows, rows.where)
        made = replace(rows, rows=found.rows, feature_names=self.names or found.names, raw=rows)
        names = rows.feature_names
        columns = () if names == default_names(len(names)) else names
        return made, replace(self, input=replace_record(found.input, width=len(names), columns=columns))

    def apply_to_files(self, raw: RawFiles) -> tuple[Dataset, Embedder]:
        """Runs the stages on files; returns the feature rows, and an embedder that knows the stages' input shapes.

        Raises:
            DataError: a file cannot be read or decoded.
            BuildError: a stage cannot be loaded, or an input does not fit it.
        """
        content = b"".join(hashlib.sha256(_read(read_file, path)).digest() for path in raw.paths)
        found = self._embed(content, map(self._array, raw.paths), lambda number: str(raw.paths[number]))
        names = [n if self.paths.get(n, p) == p else str(p) for n, p in zip(raw.names, raw.paths)]
        self.paths.update(zip(names, raw.paths))
        made = replace(raw.dataset(), rows=found.rows, feature_names=found.names, ids=np.array(names))
        return made, replace(self, input=found.input)

    def _embed(self, content: bytes, inputs: Iterable[NDArray[Any]], name: Callable[[int], str]) -> Embedded:
        """Runs the stages; reuses the result if this process has run them on inputs with the same digests `content`.

        `name` returns the name of the input with a number (from 0), for messages.
        """
        key = json_codec.dumps(self.input), content
        try:
            found = _EMBEDDED.pop(key, None) or embed(self.input, self.files, inputs, name)
        except BuildError as error:
            said = str(error)
            for stage, path in self.origins.items():
                said = said.replace(stage, str(path))
            raise BuildError(said, hint=error.hint) from None
        _EMBEDDED[key] = found
        if len(_EMBEDDED) > _REMEMBERED:
            del _EMBEDDED[next(iter(_EMBEDDED))]
        return found

    def lines(self, rows: Dataset) -> bytes:
        """Returns the raw inputs of rows in the format that a device reads: one JSON value a line.

        Pictures have the size that the stages take, to save memory. Those that fit a quarter of `GOLDEN_BYTES` have
        their own size, so that devices prove their resizing, too.
        """
        return "".join(f"{to_json(values)}\n" for values in self._raw(rows, GOLDEN_BYTES // 4)).encode()

    def most_golden(self, rows: Dataset) -> int:
        """Returns the largest number of golden rows that fit a release, by the mean size of some of the raw `rows`."""
        some = np.unique(np.linspace(0, len(rows.rows) - 1, _SAMPLE).astype(int))
        sizes = [values.nbytes for values in self._raw(rows.take(some))]
        return max(_LEAST_GOLDEN, min(GOLDEN_ROWS, GOLDEN_BYTES * len(sizes) // max(1, sum(sizes))))

    def _raw(self, rows: Dataset, spare: int = 0) -> Iterator[NDArray[Any]]:
        """Yields the raw inputs of rows; pictures are shrunk, unless that saves less than the `spare` bytes left."""
        if rows.raw is not None:
            yield from rows.raw.rows
        elif rows.ids is not None:
            for values in (self._array(self.paths[name]) for name in rows.ids.tolist()):
                small = values if self.input.image is None else picture.shrunk(values, self.input.image)
                saved = values.nbytes - small.nbytes
                if saved <= spare:
                    spare -= saved
                    yield values
                else:
                    yield small

    def _array(self, path: Path) -> NDArray[Any]:
        found, sound = _read(lambda path: read_array(path, self.input), path), self.input.audio
        if sound is not None and sound.seconds is not None and len(found) < int(sound.seconds * sound.rate):
            self.short[path] = None
        return found

    @property
    def warnings(self) -> tuple[str, ...]:
        """A message about sounds so short that silence is added to them; () if there are none."""
        if not self.short or self.input.audio is None:
            return ()
        count = f"{len(self.short):,} of {len(self.paths):,} sounds"
        said = f"{count} are shorter than `seconds: {self.input.audio.seconds:g}`"
        return (f"{said}, such as {next(iter(self.short))}: silence fills them",)


def _read(read: Callable[[Path], T], path: Path) -> T:
    try:
        return read(path)
    except AgentError as error:
        hint, remove = with_file(error.hint, path), f"rm {shlex.quote(str(path))}"
        raise DataError(
            f"{path}: {error}", hint=f"{hint}; then (or at once, if you do not need it): {remove}" if hint else remove
        ) from None


def embedder_of(asked: InputConfig | None) -> Embedder | None:
    """Returns the embedder for `input` in deploy.yaml; None if rows need no stage.

    Raises:
        BuildError: a file cannot be read.
    """
    if asked is None or not (asked.stages or asked.features or asked.image):
        return None
    first: bytes | None = None
    names: tuple[str, ...] = ()
    if asked.window is not None and asked.features:
        columns = asked.window.columns
        first = own_stages.write_features(asked.window.rows, len(columns), asked.features)
        names = () if asked.stages else window_features.names(columns, asked.features)
    elif asked.image is not None and not asked.stages:
        first = own_stages.write_pixels(*asked.image.size, asked.image.channels)
    stages = tuple(Stage("", "", (), "", each.frames, each.hop, each.multiply, each.add) for each in asked.stages)
    heard, seen = asked.audio, asked.image
    sound = None if heard is None else Audio(heard.rate, heard.seconds, heard.full_scale)
    how = None if seen is None else (seen.size, seen.channels, seen.resize, seen.normalise.mean, seen.normalise.std)
    image = None if how is None else Image(*how)
    given = Input(stages, asked.pool, asked.bound, audio=sound, image=image)
    paths = [each.file for each in asked.stages]
    origins = dict(zip(constants.STAGE_FILES[first is not None :], paths))
    return replace(Embedder(*read_stages(given, paths, first)), names=names, origins=origins)


def input_of(window: Window | None, embedder: Embedder | None) -> Input | None:
    """Returns the content of `input` in knn.json; None if both arguments are None: the model takes plain rows."""
    if window is None:
        return None if embedder is None else embedder.input
    return replace_record(Input() if embedder is None else embedder.input, window=window, columns=())
