"""Replaces a folder by a new one, as a whole."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from device_agent.shared.safe_files import folder_for
from knnkit.errors import BuildError, unwritten


@contextlib.contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """Yields a new folder, which replaces `directory` if the `with` block raises no error.

    Raises:
        BuildError: the folder cannot be written.
    """
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(folder_for(directory.parent))
            beside = stack.enter_context(tempfile.TemporaryDirectory(dir=directory.parent, prefix=".build-"))
            folder = Path(beside) / directory.name
            folder.mkdir()
            yield folder
            _swap(folder, directory, Path(beside) / "replaced")
    except OSError as error:
        raise unwritten(f"{directory} cannot be written", error, BuildError) from None


def require_writable(directory: Path) -> None:
    """Checks, before the work begins, that `replacing` could write there.

    Raises:
        BuildError: no folder can be made beside `directory`.
    """
    above = next(each for each in directory.absolute().parents if each.is_dir())
    try:
        tempfile.TemporaryDirectory(dir=above, prefix=".build-").cleanup()
    except OSError as error:
        raise unwritten(f"{directory} cannot be written", error, BuildError) from None


def _swap(folder: Path, directory: Path, replaced: Path) -> None:
    try:
        if directory.exists():
            shutil.move(directory, replaced)  # copies if an overlay cannot rename it
        folder.rename(directory)
    except BaseException:  # also Ctrl-C: else the old release would be removed with the temporary folder
        if replaced.exists() and not directory.exists():
            replaced.rename(directory)
        raise
