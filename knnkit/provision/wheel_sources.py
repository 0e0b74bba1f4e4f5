"""Chooses where each wheel of an environment comes from.

A wheel comes from an earlier environment on the board, the board's own pip, or this host. Wheels that this host's
folder lacks are downloaded into it; the SHA-256 of each is checked. Sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knnkit.errors import DeviceFailed
from knnkit.provision import pinned_hashes, wheel_cache
from knnkit.provision.remote_python import check_room
from knnkit.provision.requirements import SPARE, Board, Recipe
from knnkit.transport.upload import PushFile

#: Reason why a board does not download its wheels itself -> text of the note.
UNFETCHED = {
    "no-pip": "the board has no pip",
    "no-download": "the board could not download from its package index",
    "wheel-differs": "a wheel in the board's package index differs from PyPI's and was not used",
}


@dataclass(frozen=True)
class Source:
    """Where each wheel of one environment comes from."""

    on_board: Sequence[dict[str, str]] = ()  # unpacked in an earlier environment
    files: Sequence[PushFile] = ()  # sent from this host; `remote` is only the file name
    pip: Sequence[str] = ()  # downloaded by the board: lines of requirements with digests
    notes: Sequence[str] = ()

    @property
    def wheels(self) -> list[dict[str, str]]:
        """{"name": file name, "sha256": …} of each wheel that is on the board or sent, for the provisioning script."""
        return [*self.on_board, *({"name": file.local.name, "sha256": file.sha256} for file in self.files)]


@dataclass(frozen=True)
class Sources:
    """The possible sources of wheels for one board."""

    name: str  # the board's name in messages
    board: Board
    recipe: Recipe
    agent: Path  # the agent's wheel
    folder: Path  # wheels on this host
    own: bool  # whether the user named this folder
    ask: Callable[..., dict[str, Any]]  # runs a command of the provisioning script on the board

    def from_index(self) -> Source:
        """Plans that the board's own pip downloads the wheels that are not on the board.

        Raises:
            DeviceFailed: the board has no pip, or too little disk space.
        """
        if not self.board.pip:
            raise DeviceFailed(f"{self.name}: {UNFETCHED['no-pip']}", reason="no-pip")
        on_board, lacking = self._on_board()
        check_room(self.name, self.board, (self.recipe.room if lacking else 0) + SPARE)
        lines = [wheel_cache.requirement(pin, self.recipe) for pin in lacking]
        return Source(on_board, _read([self.agent]), lines)

    def from_host(self) -> Source:
        """Plans that this host sends the wheels that are not on the board; downloads those that this host lacks.

        Raises:
            DeviceFailed: a wheel cannot be downloaded or has the wrong SHA-256, or the board has too little disk space.
        """
        on_board, lacking = self._on_board()
        files = [*wheel_cache.fetch(lacking, self.recipe, self.folder, own=self.own), self.agent]
        check_room(self.name, self.board, wheel_cache.unpacked_size(files) + SPARE)
        strange = ", ".join(path.name for path in files[:-1] if pinned_hashes.expected(path.name) is None)
        note = f"these wheels from {self.folder} were used without a check, since their SHA-256 is not known: {strange}"
        return Source(on_board, _read(files), notes=[note] if strange else [])

    def _on_board(self) -> tuple[list[dict[str, str]], list[str]]:
        """Returns the wheels that are on the board, and those that are not.

        Each undamaged wheel on the board is {"name": file name, "sha256": …}, each missing one "name==version".
        """
        held = {
            wheel["name"]: wheel for made_of in self.board.environments.values() for wheel in made_of.get("wheels", [])
        }
        held = {name: wheel for name, wheel in held.items() if pinned_hashes.known().get(name) == wheel["sha256"]}
        names = {pin: wheel_cache.best(pin, held, self.recipe) for pin in self.recipe.pins}
        known = [held[name] for name in names.values() if name is not None]
        if not known:
            return [], list(self.recipe.pins)
        intact = self.ask("prepare", wheels=known)["here"]
        return [wheel for wheel in known if wheel["name"] in intact], [p for p, n in names.items() if n not in intact]


def _read(files: Sequence[Path]) -> list[PushFile]:
    read = [PushFile.of(path, path.name) for path in files]
    for file in read:
        pinned_hashes.refuse_another(file.local, file.sha256)
    return read
