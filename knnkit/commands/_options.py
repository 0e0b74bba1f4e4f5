"""The options that several commands take, each defined once: one name, one meaning, one wording. Reads none of them."""

from __future__ import annotations

import argparse
from pathlib import Path

from device_agent.shared.protocol import constants

_MOST = 1_000_000_000
#: Where keygen writes a pair of keys, and where sign looks for one: without the ending.
KEY_PREFIX = Path("keys/signing")


def count(text: str) -> int:
    """A number on the command line that counts from 1."""
    number = int(text)
    if not 1 <= number <= _MOST:
        raise argparse.ArgumentTypeError(f"{text} is not from 1 to {_MOST:,}")
    return number


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds `--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def add_config(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Adds `--config` of a command that does without one, too."""
    parser.add_argument(
        "-c", "--config", type=Path, metavar="FILE", help="configuration (default: deploy.yaml, if there is one)"
    )


def add_fleet(parser: argparse.ArgumentParser, *, writes: bool = False) -> None:
    """Adds what every fleet command takes: which devices, how to reach them, how to report."""
    which = parser.add_argument_group("which devices")
    add_config(which)
    which.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="DEVICE",
        help="user@host[:port], an ssh_config alias, a name in deploy.yaml, or local; repeat it for more",
    )
    which.add_argument(
        "--on",
        action="append",
        default=[],
        metavar="TAG",
        help="devices of deploy.yaml with this tag, beside those of --target; repeat it for more",
    )
    which.add_argument(
        "--retry-from", type=Path, metavar="FILE", help="only the devices that this report (.json) left unfinished"
    )
    _add_reach(parser.add_argument_group("how to reach them"), writes)
    add_json(parser)
    parser.add_argument(
        "--report",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="write the report, .json or .html; repeat it for more",
    )


def _add_reach(reach: argparse._ArgumentGroup, writes: bool) -> None:
    reach.add_argument("--root", metavar="DIR", help="the knnkit directory on the device (default: ~/.knnkit)")
    reach.add_argument(
        "-i",
        "--identity",
        metavar="FILE",
        help="private SSH key, or the .pub of a key in the agent; no other is offered",
    )
    reach.add_argument("-J", "--jump", metavar="HOSTS", help="go through user@host[:port]; several with commas")
    reach.add_argument(
        "--ssh-config", metavar="FILE", help="settings of SSH, which may run commands (default: those of ssh)"
    )
    reach.add_argument("--known-hosts", metavar="FILE", help="host keys, read before ~/.ssh/known_hosts")
    reach.add_argument("--connect-timeout", metavar="TIME", help="until a connection stands (default: 10s)")
    reach.add_argument("--connect-retries", type=int, metavar="N", help="further attempts to connect (default: 2)")
    reach.add_argument("--command-timeout", metavar="TIME", help="for one command on a device (default: 5m)")
    reach.add_argument("--concurrency", type=int, metavar="N", help="devices at a time (default: 16)")
    reach.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="run the jobs on a Dask cluster, where keys and release lie under the same paths, instead of in threads",
    )
    if writes:
        reach.add_argument("--device-class", metavar="NAME", help="of these devices (default: deploy.yaml's)")


def add_provisioning(parser: argparse.ArgumentParser, *, also: str = "") -> None:
    """Adds what is put on a bare device, and from where; `also` says what else its keys are for."""
    bare = parser.add_argument_group("what a bare device gets")
    bare.add_argument(
        "--key",
        type=Path,
        action="append",
        default=[],
        metavar="PUB",
        help=f"public key that it shall trust{also}; repeat it for more (default: deploy.yaml's)",
    )
    bare.add_argument(
        "--runtime",
        choices=(constants.ANY_RUNTIME, *constants.RUNTIMES),
        help="which TFLite runtime, also in the place of the other; auto is the one that is there, and on a bare "
        "device tflite_runtime where it exists (default: deploy.yaml's, else auto)",
    )
    bare.add_argument("--offline", action="store_true", help="send the wheels: the devices have no internet")
    bare.add_argument(
        "--wheels",
        metavar="DIR",
        help="where wheels are kept on this host (default: $KNNKIT_WHEELS, else ~/.cache/knnkit/wheels); from a folder "
        "that you name, builds of your own are taken as well",
    )


def add_signing_key(parser: argparse.ArgumentParser | argparse._ArgumentGroup, what: str) -> None:
    """Adds `--signing-key`: the private key that signs `what`."""
    parser.add_argument(
        "--signing-key", type=Path, metavar="PEM", help=f"private key that signs {what} (default: deploy.yaml's)"
    )
