"""Where the wheels of an environment come from: the board's own pip, this host, an earlier environment on the board.

What is not in the folder of this host is fetched into it, and every byte looked at. Sends nothing.
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

#: Why a board does not fetch its wheels itself -> what is said of it.
UNFETCHED = {
    "no-pip": "the board has no pip",
    "no-download": "the board could not fetch from the index",
    "wheel-differs": "the board's index has a wheel with other bytes than PyPI's, which was not used",
}


@dataclass(frozen=True)
class Source:
    """Where each wheel of one environment comes from."""

    on_board: Sequence[dict[str, str]] = ()  # unpacked in an earlier environment
    files: Sequence[PushFile] = ()  # sent from here; `remote` is the name alone
    pip: Sequence[str] = ()  # what the board fetches, as lines of requirements with digests
    notes: Sequence[str] = ()

    @property
    def wheels(self) -> list[dict[str, str]]:
        """All but those that pip fetches, as an order names them."""
        return [*self.on_board, *({"name": file.local.name, "sha256": file.sha256} for file in self.files)]


@dataclass(frozen=True)
class Sources:
    """Those of one board."""

    name: str  # how messages call the board
    board: Board
    recipe: Recipe
    agent: Path  # its wheel, which only this host has
    folder: Path  # of wheels on this host
    own: bool  # that is the user's own
    ask: Callable[..., dict[str, Any]]  # a command on the board, and its order

    def from_index(self) -> Source:
        """Returns how the board's own pip fetches what is lacking.

        Raises:
            DeviceFailed: there is none, or no room.
        """
        if not self.board.pip:
            raise DeviceFailed(f"{self.name}: {UNFETCHED['no-pip']}", reason="no-pip")
        on_board, lacking = self._on_board()
        check_room(self.name, self.board, (self.recipe.room if lacking else 0) + SPARE)
        lines = [wheel_cache.requirement(pin, self.recipe) for pin in lacking]
        return Source(on_board, _read([self.agent]), lines)

    def from_host(self) -> Source:
        """Returns the files that this host sends, fetched into its folder where they are not there.

        Raises:
            DeviceFailed: they cannot be had, one is another than it should be, or there is no room.
        """
        on_board, lacking = self._on_board()
        files = [*wheel_cache.fetch(lacking, self.recipe, self.folder, own=self.own), self.agent]
        check_room(self.name, self.board, wheel_cache.unpacked_size(files) + SPARE)
        strange = ", ".join(path.name for path in files[:-1] if pinned_hashes.expected(path.name) is None)
        note = f"taken from {self.folder} as they are, since no SHA-256 is known for them: {strange}"
        return Source(on_board, _read(files), notes=[note] if strange else [])

    def _on_board(self) -> tuple[list[dict[str, str]], list[str]]:
        """Returns the wheels that earlier environments hold unchanged, and the pins that are still lacking."""
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
