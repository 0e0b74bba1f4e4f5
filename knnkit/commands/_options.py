"""Options that several commands share, each defined once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from device_agent.shared.protocol import constants
from knnkit.errors import UsageError

#: Default key of keygen and sign, without the suffix.
KEY_PREFIX = Path("keys/signing")


def folder(text: str) -> Path:
    """Parses the path of a folder; refuses -, which means standard input or output elsewhere."""
    if text == "-":
        raise argparse.ArgumentTypeError("- is not a folder")
    return Path(text)


#: What options have in common: a switch, an option to repeat, and paths by what they name.
FLAG: dict[str, Any] = {"action": "store_true"}
MANY: dict[str, Any] = {"action": "append", "default": []}
FILE: dict[str, Any] = {"type": Path, "metavar": "FILE"}
PEM, PUB = (FILE | {"metavar": name} for name in ("PEM", "PUB"))
DIR: dict[str, Any] = {"type": folder, "metavar": "DIR"}


def refuse(arguments: argparse.Namespace, said: str, *names: str) -> None:
    """Refuses options that would be ignored; `said` says why, and `names` are their names in `arguments`.

    Raises:
        UsageError: the command line has one of these options.
    """
    for name in names:
        if getattr(arguments, name) not in (None, False, [], ()):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} {said}", hint=f"leave out {option}")


def whole(text: str) -> int:
    """Parses a whole number from 0, such as the sequence of a release or the number of a row."""
    number = int(text)
    if not 0 <= number < 2**63:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0")
    return number


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds `--json`."""
    parser.add_argument("--json", **FLAG, help="print one JSON document")


def add_config(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Adds `--config` to a command that also works without deploy.yaml."""
    parser.add_argument("-c", "--config", **FILE, help="configuration (default: deploy.yaml, if there is one)")


def add_needed_config(parser: argparse.ArgumentParser) -> None:
    """Adds `--config` to a command that reads deploy.yaml."""
    parser.add_argument(
        "-c", "--config", **FILE, default=Path("deploy.yaml"), help="configuration (default: %(default)s)"
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the options of commands that examine the rows of one model: `--config`, `--model` and `--json`."""
    add_needed_config(parser)
    parser.add_argument("--model", metavar="NAME", help="name of the model, if the file has several")
    add_json(parser)


def add_plot(parser: argparse.ArgumentParser) -> None:
    """Adds `--plot`."""
    parser.add_argument("--plot", **FILE, help="draw the curves: .png, or .html with the table")


def add_fleet(parser: argparse.ArgumentParser, *, writes: bool = False) -> None:
    """Adds the options of every fleet command; `writes`: also `--device-class`, for commands that change devices."""
    which = parser.add_argument_group("which devices")
    add_config(which)
    which.add_argument(
        "--target",
        **MANY,
        metavar="DEVICE",
        help="user@host[:port], an ssh_config alias, a name in deploy.yaml, or local; repeat it for more",
    )
    which.add_argument(
        "--on",
        **MANY,
        metavar="TAG",
        help="devices of deploy.yaml with this tag, in addition to --target; repeat it for more",
    )
    which.add_argument("--retry-from", **FILE, help="only the devices that this report (.json) left unfinished")
    _add_reach(parser.add_argument_group("how to reach them"), writes)
    add_json(parser)
    parser.add_argument("--report", **MANY, **FILE, help="write the report, .json or .html; repeat it for more")


def _add_reach(reach: argparse._ArgumentGroup, writes: bool) -> None:
    reach.add_argument("--root", metavar="DIR", help="knnkit's directory on the device (default: ~/.knnkit)")
    reach.add_argument(
        "-i",
        "--identity",
        metavar="FILE",
        help="private SSH key, or the .pub of a key in the key agent; no other key is offered",
    )
    reach.add_argument("-J", "--jump", metavar="HOSTS", help="connect through user@host[:port]; several with commas")
    reach.add_argument(
        "--ssh-config",
        metavar="FILE",
        help="ssh_config file; knnkit may run the commands in it (default: the files that ssh reads)",
    )
    reach.add_argument("--known-hosts", metavar="FILE", help="host keys to read before ~/.ssh/known_hosts")
    reach.add_argument("--connect-timeout", metavar="TIME", help="time limit to connect (default: 10s)")
    reach.add_argument(
        "--connect-retries", type=int, metavar="N", help="how often to try again to connect (default: 2)"
    )
    reach.add_argument("--command-timeout", metavar="TIME", help="time limit of one command on a device (default: 5m)")
    reach.add_argument("--concurrency", type=int, metavar="N", help="devices to work on at a time (default: 16)")
    reach.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="run the jobs on the Dask cluster with this scheduler, not in threads; its workers need keys and release "
        "at the same paths",
    )
    if writes:
        said = "class of these devices, such as small: they get the model for it (default: deploy.yaml's)"
        reach.add_argument("--device-class", metavar="NAME", help=said)


def add_provisioning(parser: argparse.ArgumentParser, *, also: str = "") -> None:
    """Adds the options of provisioning; `also` is appended to the help of `--key`."""
    bare = parser.add_argument_group("what is installed on a bare device")
    bare.add_argument(
        "--key", **MANY, **PUB, help=f"public key to trust{also}; repeat it for more (default: deploy.yaml's)"
    )
    bare.add_argument(
        "--runtime",
        choices=(constants.ANY_RUNTIME, *constants.RUNTIMES),
        help="what runs the model; replaces the installed runtime. auto keeps the installed runtime; on a bare device, "
        "auto is the first of these that exists for its platform (default: deploy.yaml's, else auto)",
    )
    bare.add_argument("--offline", **FLAG, help="send all wheels from this host: the devices have no internet")
    bare.add_argument(
        "--wheels",
        metavar="DIR",
        help="folder of wheels on this host (default: $KNNKIT_WHEELS, else ~/.cache/knnkit/wheels); from a folder that "
        "you name, your own builds are used, too",
    )


def add_signing_key(parser: argparse.ArgumentParser | argparse._ArgumentGroup, what: str) -> None:
    """Adds `--signing-key`: the private key that signs `what`."""
    parser.add_argument("--signing-key", **PEM, help=f"private key that signs {what} (default: deploy.yaml's)")
