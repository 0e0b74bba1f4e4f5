"""Rules for names, kinds and sizes in a release directory.

Applied before any file is read. Does no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.record import record
from device_agent.shared.trust.reasons import Reason, refused

Kind = Literal["file", "directory", "symlink", "special"]

SIZE_CAPS: Mapping[str, int] = {
    constants.MODEL_FILE: constants.MAX_MODEL,
    constants.MANIFEST_FILE: constants.MAX_MANIFEST,
    constants.GOLDEN_FILE: constants.MAX_GOLDEN,
    constants.SIGNATURE_FILE: constants.MAX_SIGNATURE,
    **dict.fromkeys(constants.STAGE_FILES, constants.MAX_STAGE),
}


#: The user may have named the wrong directory: a hint to delete files could destroy them.
_NAMES = ", ".join((*constants.RELEASE_FILES, "perhaps stage-N.tflite"))
_ONLY = f"is it the directory of a release? That contains {_NAMES}, and nothing else"


@record
class Entry:
    """An entry of a release directory, from `lstat`; `size` in bytes."""

    kind: Kind
    size: int


@record
class FileFact:
    """A file of a release that has been read once: size in bytes, SHA-256 in lowercase hexadecimal."""

    size: int
    sha256: str


def check_listing(entries: Mapping[str, Entry], *, signed: bool = True) -> None:
    """Checks every name of a release directory before any of its files is read.

    `entries` has each name in the directory with the result of `lstat`; `signed`: the signature is required.

    Raises:
        Refused: a file of a release is missing, or an entry has a name that no release has, is a link or another
            special file, or is too large.
    """
    for name, entry in sorted(entries.items()):
        check_entry(name, entry)
    for name in constants.RELEASE_FILES:
        if name not in entries and (signed or name != constants.SIGNATURE_FILE):
            hint = "knnkit sign DIRECTORY" if name == constants.SIGNATURE_FILE else "build or upload the release again"
            raise refused(Reason.FILE_MISSING, f"{name} is missing", hint)


def check_entry(name: str, entry: Entry) -> None:
    """Checks the name, kind and size of one entry of a release directory.

    Raises:
        Refused: the entry has a name that no release has, is a link or another special file, or is too large.
    """
    if name.startswith("."):
        raise refused(Reason.FILE_HIDDEN, f"{name!r} is a hidden file, which a release never has", _ONLY)
    if name not in SIZE_CAPS:
        raise refused(Reason.FILE_UNLISTED, f"{name!r} is not a file of a release", _ONLY)
    if entry.kind == "symlink":
        raise refused(Reason.FILE_SYMLINK, f"{name} is a symbolic link", "copy the file itself")
    if entry.kind != "file":
        raise refused(Reason.FILE_SPECIAL, f"{name} is not an ordinary file ({entry.kind})", _ONLY)
    if entry.size > SIZE_CAPS[name]:
        raise refused(Reason.FILE_TOO_LARGE, f"{name} has {entry.size:,} bytes; at most {SIZE_CAPS[name]:,} are read")
