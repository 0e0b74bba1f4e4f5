"""Asks OpenSSH for the settings of a host: `ssh -G`.

Starts one process for each host, in the thread that connects, and keeps its answer until ssh_config changes. `ssh -G`
also runs the commands of `Match exec`, so the caller checks host and user names first.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from knnkit.transport.base import printable
from knnkit.transport.ssh.settings import Settings, WrongConfig

#: Seconds for `ssh -G`, with all commands of `Match exec`.
_SECONDS = 20.0
#: Settings that may be why ssh gets in, and knnkit does not: as ssh prints them, and as they are written.
_IGNORED = {
    "bindinterface": "BindInterface",
    "knownhostscommand": "KnownHostsCommand",
    "pkcs11provider": "PKCS11Provider",
    "proxyusefdpass": "ProxyUseFdpass",
}
_Answer = tuple[int, str, str]  # exit code, standard output, standard error
_answers: dict[tuple[object, ...], Future[_Answer]] = {}
_asking = threading.Lock()


@functools.lru_cache(maxsize=4)
def _is_openssh(program: str) -> bool:
    quiet = subprocess.DEVNULL
    try:
        said = subprocess.run([program, "-V"], stdin=quiet, stdout=quiet, stderr=subprocess.PIPE, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return said.stderr.startswith(b"OpenSSH")


def client() -> str | None:
    """Returns the path of OpenSSH's `ssh`; None if it is not installed, or refuses to run for an unknown account."""
    program = shutil.which("ssh")
    return program if program and _home() and _is_openssh(program) else None


def _home() -> Path | None:
    """Returns the account's home directory, which ssh uses for `~` (knnkit uses $HOME); None if there is none."""
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None


def _config_of_home() -> str | None:
    """Returns the path of the ssh_config in $HOME; /dev/null if there is none; None if ssh itself would look there."""
    home, own = _home(), Path("~/.ssh/config").expanduser()
    if home is None or home.resolve() == Path.home().resolve():
        return None
    return str(own) if own.exists() else os.devnull


def ask(program: str, host: str, *, port: int | None, user: str | None, config: str | None) -> Settings:
    """Returns the settings of ssh for `host`; `program` is the path of ssh; `port` and `user` override ssh_config.

    The caller must have checked `host` and `user`. `config` is the file to read; None: the user's and the system's.

    Raises:
        WrongConfig: ssh refuses the content of ssh_config, or the file is a named pipe.
    """
    config = config or _config_of_home()
    file = Path(config or "~/.ssh/config").expanduser()
    if file.is_fifo():  # ssh would wait for it
        raise WrongConfig(f"{file} is a named pipe, not a file")
    said = ["-F", str(Path(config).expanduser().absolute())] if config else []
    said += ["-p", str(port)] if port else []
    said += ["-l", user] if user else []
    # ssh expands ControlPath before printing it: this shows the value of %C in this version of ssh.
    argv = (program, "-T", "-G", *said, "-o", "ControlPath=%C", "--", host)
    code, out, err = _once((*argv, os.environ.get("HOME"), _changed(config)), lambda: _run(argv))
    if code:
        raise WrongConfig(_complaint(err, config) or f"ssh -G {host} ended with {code}")
    return _settings(out)


def _complaint(err: str, config: str | None) -> str:
    """Returns the error messages in ssh's output `err`, those with `FILE:LINE: ` first; "" if there are none."""
    lines = [line.strip() for line in err.splitlines() if line.strip() and ": terminating" not in line]
    placed = [re.sub(r"^(/.*?):? line (\d+): ", r"\1:\2: ", line) for line in lines]
    placed.sort(key=lambda line: not line.startswith("/"))
    said = printable("; ".join(placed))
    return said if not said or said.startswith("/") else f"{config or '~/.ssh/config'}: {said}"


def _once(key: tuple[object, ...], make: Callable[[], _Answer]) -> _Answer:
    with _asking:
        found = _answers.get(key)
        future = found or _answers.setdefault(key, Future())
    if found is None:
        try:
            future.set_result(make())
        except BaseException as error:
            del _answers[key]
            future.set_exception(error)
    return future.result()


def _changed(config: str | None) -> tuple[int, int] | None:
    """Returns (modification time, size) of `config` (None: the user's), to notice an edit; None if it is missing."""
    try:
        found = Path(config or "~/.ssh/config").expanduser().stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _run(argv: tuple[str, ...]) -> _Answer:
    """Runs ssh (`argv`) with its output in files: a background process of `Match exec` would keep a pipe open."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
        try:
            code = process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            waits = "find the command of `Match exec`, or the name, that takes so long"
            return 255, "", f"`ssh -G {argv[-1]}` did not end within {_SECONDS:g} s: {waits}"
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        out.seek(0)
        err.seek(0)
        return code, out.read().decode("utf-8", "surrogateescape"), err.read().decode("utf-8", "replace")


def _settings(out: str) -> Settings:
    found: dict[str, list[str]] = {}
    for line in out.split("\n"):
        keyword, _, value = line.partition(" ")
        found.setdefault(keyword, []).append(value)

    def one(keyword: str) -> str | None:
        return found[keyword][0] if keyword in found else None

    try:
        return Settings(
            host=found["hostname"][0],
            port=int(found["port"][0]),
            user=found["user"][0],
            alias=one("hostkeyalias"),
            identities=tuple(found.get("identityfile", ())),
            certificates=tuple(found.get("certificatefile", ())),
            identities_only=one("identitiesonly") == "yes",
            agent=one("identityagent") or "SSH_AUTH_SOCK",
            jump=one("proxyjump"),
            proxy=one("proxycommand"),
            user_known_hosts=_of_home(_paths(one("userknownhostsfile"))),
            global_known_hosts=_paths(one("globalknownhostsfile")),
            digest=one("controlpath"),
            revoked=one("revokedhostkeys"),
            hash_names=one("hashknownhosts") in ("yes", "true"),
            family=one("addressfamily") or "any",
            source=one("bindaddress"),
            ignored=tuple(name for word, name in _IGNORED.items() if one(word) not in (None, "none", "no")),
        )
    except (KeyError, ValueError):
        said = "`ssh -G HOST` printed no usable hostname, port and user: is it OpenSSH's ssh? `ssh -V` shows it"
        raise WrongConfig(said) from None


def _paths(text: str | None) -> tuple[str, ...]:
    """Splits paths that ssh prints on one line. Paths can hold spaces, but each begins with `/` or `~`."""
    if not text:
        return ()
    return tuple(re.split(r" (?=[/~])", text) if text.startswith(("/", "~")) else text.split())


def _of_home(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Returns `paths`; if they are ssh's default known_hosts files, with $HOME in place of the account's home."""
    default = tuple(f"{_home()}/.ssh/{name}" for name in ("known_hosts", "known_hosts2"))
    return tuple(str(Path.home() / ".ssh" / Path(path).name) for path in paths) if paths == default else paths
