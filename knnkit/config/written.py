"""Where models and files stand in a deploy.yaml.

Finds the line that an error is about, also if the error appears long after the file was read: with the rows loaded,
or with the model built. No I/O.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from knnkit.config.yaml_reader import Document, Place
from knnkit.errors import FILE, KnnkitError, SigningKeyError, names_path

#: Keys of paths.
_FILES = frozenset({"file", "files", "skops", "labels", "stages"})


@dataclass(frozen=True)
class KeyFiles:
    """Files of signing keys and of SSH that a deploy.yaml names."""

    document: Document  # the deploy.yaml
    places: dict[str, Place]  # path of each file -> path of the YAML key that names it

    @contextlib.contextmanager
    def line_in_errors(self) -> Iterator[None]:
        """If a SigningKeyError in the block names one of the files, puts its line in deploy.yaml before the message."""
        try:
            yield
        except SigningKeyError as error:
            place = next((at for path, at in self.places.items() if names_path(str(error), path)), None)
            if place is None:
                raise
            said = self.document.error(place, str(error))
            raise SigningKeyError(said, reason=error.reason, hint=error.hint) from None

    @property
    def lines(self) -> tuple[tuple[str, str], ...]:
        """(path of the file, the YAML key that names it, as `identity in deploy.yaml:7`) for each file."""
        return tuple((path, self.document.line_of(place)) for path, place in self.places.items())


@dataclass(frozen=True)
class Written:
    """A model in deploy.yaml."""

    document: Document  # the parsed file
    model: Place  # key path of the model: ("model",) or ("models", 1)

    def message_of(self, error: KnnkitError, known: Collection[str]) -> str | None:
        """Returns the message of `error` with file, line and quoted line of deploy.yaml.

        None if the error is neither about a file of data nor about a key in `known`.
        """
        place = self._of_file(str(error)) if error.key == FILE else self._of_key(error, known)
        return None if place is None else self.document.error(place, str(error))

    def _of_file(self, message: str) -> Place:
        """Returns the key path of the file that `message` names, else of the first file pattern, else of the model."""
        scalars = self.document.scalars.items()
        files = {at: text for at, text in scalars if at[: len(self.model)] == self.model and _FILES.intersection(at)}
        named = [place for place, text in files.items() if Path(text).name in message]
        pattern = next((place for place, text in files.items() if set("*?[{").intersection(text)), self.model)
        return max(named, key=lambda place: (files[place] in message, len(files[place])), default=pattern)

    def _of_key(self, error: KnnkitError, known: Collection[str]) -> Place | None:
        first = re.match(r"[a-z_]+(?=:? )", str(error))
        path = tuple((error.key or (first[0] if first else "")).split("/"))
        if path[0] not in known:
            return None
        inside = self.document.place((*self.model, *path))
        return inside if len(inside) > len(self.model) else self.document.place(path) or self.model
