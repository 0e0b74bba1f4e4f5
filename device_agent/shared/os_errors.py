"""Messages for errors of the operating system.

Both command lines use the same messages for a full disk, a missing permission or a file system without a feature.
If an error does not name its cause, `explain` looks for it in the file system; it changes nothing.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

#: errno -> a stable word, what to type next.
_WORDS = {
    errno.ENOSPC: ("disk-full", "make room, then try again; df -h shows the free space"),
    errno.EDQUOT: ("disk-full", "the user's quota is used up (quota -s shows it): remove files, then try again"),
    errno.EFBIG: ("file-too-large", "raise the limit of a file's size (ulimit -f), or choose another file system"),
    errno.EROFS: ("read-only", "the file system is read-only (a worn card?): mount | grep ro, dmesg | tail"),
    errno.EIO: ("disk-error", "the disk fails: dmesg | tail shows how; replace the disk"),
    errno.EACCES: ("no-permission", "run as the directory's owner, or change its rights: chown -R, chmod -R u+rwX"),
    errno.EPERM: ("no-permission", "run as the directory's owner, or change its rights: chown -R, chmod -R u+rwX"),
    errno.ENOLCK: ("no-locks", "this file system has no locks (NFS without lockd?): choose a root on a local disk"),
    errno.ENOTSUP: ("file-system", "choose a root on a Linux file system, such as ext4; `df -T .` shows its type"),
    errno.EAGAIN: (
        "too-many-processes",
        "raise the limit: ulimit -u, TasksMax= of its systemd unit, or pids.max of its cgroup",
    ),
    errno.ENOMEM: ("out-of-memory", "free -m shows the free memory; end another program, or raise the memory limit"),
    errno.ENAMETOOLONG: ("name-too-long", "a shorter name: most file systems allow 255 bytes"),
    errno.EBADF: (
        "os-error",
        "the program that started this one closed the stream: < FILE gives it input, > FILE output",
    ),
    errno.EMFILE: ("too-many-files", "raise the limit of open files: ulimit -n"),
    errno.ENFILE: ("too-many-files", "the system has too many files open: cat /proc/sys/fs/file-nr"),
}
_SAID = {
    errno.ENOLCK: "the file system has no locks",
    errno.EAGAIN: "no further process or thread may be started",
    errno.ENOMEM: "there is not enough memory",
    errno.EBADF: "it is closed",  # a standard stream that the caller closed
}


def explain(error: OSError) -> tuple[str, str, str]:
    """Returns (reason, message, hint) for an error of the operating system.

    The reason is a stable word for programs: `os-error` for an error without a word of its own. The hint may be "".
    """
    number = error.errno or 0
    where = f"{error.filename}: " if error.filename else ""
    if number == errno.EAGAIN and error.filename:  # a file that gives nothing at once, and not a limit of processes
        number = 0
    reason, hint = _WORDS.get(number, ("os-error", ""))
    if number in (errno.EACCES, errno.EPERM) and error.filename:
        hint = _rights(error.filename) or hint
    if number == errno.ENOSPC and (place := _out_of_inodes(error.filename)):
        import shlex  # not needed at a normal start of the agent

        said = "no inodes are left: the file system has as many files as it can hold"
        return reason, f"{where}{said}", f"df -i {shlex.quote(place)}; remove files that are not needed, then try again"
    return reason, f"{where}{_SAID.get(number) or error.strerror or error}", hint


def _rights(path: object) -> str:
    """Returns what to type to get access to `path`, or to the innermost folder above it that can be looked at."""
    import pwd
    import shlex

    for place in _and_above(path):
        try:
            owner = place.stat().st_uid
        except OSError:
            continue
        if owner == os.geteuid():
            return f"chmod u+rwX {shlex.quote(str(place))}"
        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:
            name = f"#{owner}"
        return f"choose another place, or run as the owner of {place}: sudo -u {shlex.quote(name)} COMMAND"
    return ""


def _and_above(path: object) -> tuple[Path, ...]:
    """Returns `path`, or the working directory if it is not a path, and all directories above it."""
    place = Path(os.fsdecode(path)) if isinstance(path, (str, bytes, os.PathLike)) else Path()
    return place, *place.absolute().parents


def _out_of_inodes(path: object) -> str:
    """Returns `path`, or a directory above it, if its file system has free bytes, but no free inodes; else ""."""
    for each in _and_above(path):
        try:
            found = os.statvfs(each)
        except OSError:
            continue
        return str(each) if found.f_files and not found.f_favail and found.f_bavail else ""
    return ""
