"""Parsers of knnkit's commands.

All flags and arguments with their help. `knnkit COMMAND --help` loads only this module, not the command's own with its
imports.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from device_agent.shared.console.answer_options import add_answers
from device_agent.shared.console.argument_parser import count
from knnkit.commands import _options, _parsers_rows
from knnkit.commands._options import DIR, FILE, FLAG, MANY, PEM, PUB

#: Value of `--reset-floor` without a sequence: the device takes the time.
CLOCK = -1


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", **DIR, default=Path("knnkit-demo"), help="folder for all files of the demo (default: %(default)s)"
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--sound", **FLAG, help="spoken words, by two networks and espeak-ng; needs knnkit[demo]")
    kind.add_argument("--picture", **FLAG, help="handwritten digits, by a network that is trained here")
    _options.add_json(parser)


def _init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path", **FILE, nargs="?", default=Path("deploy.yaml"), help="file to write (default: %(default)s)"
    )
    parser.add_argument("--data", **FILE, help="your labelled rows: CSV, Parquet or NPZ")
    parser.add_argument("--label", metavar="COLUMN", help="the column with the labels (default: label)")
    parser.add_argument(
        "--features",
        metavar="COLUMN",
        nargs="+",
        action="extend",
        help="the columns to use, in this order; repeat it for more (default: all but the label)",
    )
    parser.add_argument(
        "--drop",
        metavar="COLUMN",
        nargs="+",
        action="extend",
        help="columns to leave out, by name or pattern ('gyro_*'); repeat it for more",
    )
    parser.add_argument(
        "--missing",
        choices=("refuse", "drop", "median", "constant"),
        help="what to do with missing cells: refuse, drop the row, fill with the median or 0 (default: refuse)",
    )
    parser.add_argument(
        "--categories",
        metavar="COLUMN",
        nargs="+",
        action="extend",
        help="columns of text that become one feature for each category; repeat it for more",
    )
    parser.add_argument("--thousands", metavar="SIGN", choices=(*",.' ",), help="separator of thousands: , in 1,234.5")


def _keygen(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        metavar="PREFIX",
        type=Path,
        default=_options.KEY_PREFIX,
        help="write PREFIX.pem (private, mode 0600) and PREFIX.pub (default: %(default)s)",
    )
    parser.add_argument(
        "--passphrase", **FLAG, help="encrypt the private key; the passphrase is KNNKIT_KEY_PASSPHRASE, or asked for"
    )
    _options.add_json(parser)


def _sign(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", **DIR, help="the release directory")
    parser.add_argument(
        "--key", **PEM, help=f"the private key (default: deploy.yaml's, else {_options.KEY_PREFIX}.pem)"
    )
    _options.add_config(parser)
    _options.add_json(parser)


def _build(parser: argparse.ArgumentParser) -> None:
    _options.add_needed_config(parser)
    parser.add_argument("-o", "--output", **DIR, help="the release directory (default: release.dir of the file)")
    parser.add_argument("--force", **FLAG, help="build again even if nothing changed")
    _options.add_json(parser)


def _inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", type=Path, help="a release directory, or a model.tflite")
    parser.add_argument(
        "--row",
        type=_options.whole,
        metavar="N",
        help="show row N of the training data, numbered as by `classify --neighbors`: from 0, without header and empty "
        "lines",
    )
    _options.add_json(parser)


def _diff(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("before", metavar="A", type=Path, help="the release before: a directory or model.tflite")
    help = "the release after: a directory or model.tflite"
    parser.add_argument("after", metavar="B", type=Path, nargs="?", help=help)
    own = "your own labelled rows (default: the evaluation rows of both releases)"
    parser.add_argument("--data", **FILE, help=own)
    parser.add_argument("--label", metavar="COLUMN", help="label column of FILE (default: label)")
    _options.add_json(parser)


def _card(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", type=Path, help="a release directory, or a model.tflite")
    what = parser.add_mutually_exclusive_group()
    said = "print what the model was built from, as an in-toto statement, not the card"
    what.add_argument("--provenance", **FLAG, help=said)
    what.add_argument("--sbom", **FLAG, help="print the CycloneDX bill of materials, not the card")
    parser.add_argument("-o", "--output", **FILE, help="file to write (default: standard output)")


def _verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", **DIR, help="the release directory")
    parser.add_argument(
        "--key", **MANY, **PUB, help="a trusted public key; repeat it for more (default: deploy.yaml's)"
    )
    _options.add_config(parser)
    _options.add_json(parser)


def _trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "host", metavar="HOST", nargs="?", help="user@host[:port], an ssh_config alias, or a name in deploy.yaml"
    )
    _trust_host(parser)
    _trust_keys(parser)
    _options.add_fleet(parser)


def _trust_host(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the host key of HOST").add_argument
    add("--fingerprint", metavar="FINGERPRINT", help="add the host key if it has this fingerprint; do not ask")
    add("--yes", **FLAG, help="add any host key that HOST offers: only on a network that you trust")
    add("--replace", **FLAG, help="replace the known host key of HOST, because the device is new")


def _trust_keys(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("options for signing keys (in place of HOST)")
    what = group.add_mutually_exclusive_group()
    what.add_argument("--show", **PUB, nargs="+", help="print the fingerprints of public keys")
    what.add_argument("--keys", **FLAG, help="show the keys that the selected devices trust")
    what.add_argument("--rotate", **PEM, help="replace the trusted signing key by the key in this private key file")
    what.add_argument(
        "--revoke", metavar="KEY", action="append", help="revoke a key, by fingerprint or file; repeat it for more"
    )
    what.add_argument("--apply", **FILE, help="send the signed order in this file, which --out wrote")
    _options.add_signing_key(group, "the order, which tells the devices what to trust; with --rotate, the old key")
    group.add_argument("--out", **FILE, help="write the signed order to this file, for --apply or to carry to a device")


def _provision(parser: argparse.ArgumentParser) -> None:
    _options.add_provisioning(parser)
    parser.add_argument("--remove", **FLAG, help="remove knnkit from the named devices, with releases and trusted keys")
    _options.add_fleet(parser)


def _deploy(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what to deploy")
    what.add_argument(
        "--release",
        **MANY,
        **DIR,
        help="a finished release; repeat it for more classes (default: that of deploy.yaml, built if it changed)",
    )
    _options.add_fleet(parser, writes=True)
    how = parser.add_argument_group("how to deploy")
    how.add_argument("--dry-run", **FLAG, help="build if needed, print the plan, change nothing on devices")
    how.add_argument(
        "--waves", metavar="LIST", help="groups of devices in order, such as canary,25%%,100%% (default: deploy.yaml's)"
    )
    how.add_argument(
        "--max-failures",
        metavar="N",
        help="devices that may fail before the rollout stops: a count or 10%% (default: deploy.yaml's)",
    )
    how.add_argument(
        "--rollback-succeeded",
        **FLAG,
        help="if the rollout stops, return the devices that committed in this run to the release before (default: "
        "deploy.yaml's on_failure)",
    )
    how.add_argument(
        "--confirm-within",
        metavar="TIME",
        help="without a confirmation within this time, a device returns to its previous release (default: 60s)",
    )
    how.add_argument(
        "--wait", metavar="TIME", help="how long to wait while another host works on a device (default: 0)"
    )
    how.add_argument(
        "--provision",
        choices=("auto", "always", "never"),
        default="auto",
        help="install runtime, agent and key: auto (if they are missing), always or never (default: %(default)s)",
    )
    help = "check the files of a release that a device already has, and send damaged files again"
    how.add_argument("--verify", **FLAG, help=help)
    _options.add_provisioning(parser, also=", which must have signed the release")


def _parity(parser: argparse.ArgumentParser) -> None:
    rows = parser.add_argument_group("which rows")
    rows.add_argument(
        "--data",
        **FILE,
        help="compare on your own labelled rows, not on the release's golden set (at most 20,000 of them); "
        "needs a deploy.yaml with one model, and its training data",
    )
    rows.add_argument("--label", metavar="COLUMN", help="label column of FILE (default: that of the training data)")
    _options.add_fleet(parser)


def _rollback(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "The column `before` of `knnkit status` shows the previous release. A second rollback does nothing."
    _options.add_fleet(parser)
    parser.add_argument("--allow-revoked", **FLAG, help="also go back to a release whose signing key was revoked")
    back = parser.add_argument_group("options to go back further than the previous release")
    what = back.add_mutually_exclusive_group()
    what.add_argument(
        "--to",
        metavar="RELEASE",
        help="a release that is still on the device: its version, or at least 8 digits of its digest",
    )
    what.add_argument(
        "--reset-floor",
        metavar="SEQUENCE",
        nargs="?",
        type=_options.whole,
        const=CLOCK,
        help="keep the release, but accept older ones again: the lowest accepted sequence becomes this number "
        "(default: the time), the earliest accepted time of a release becomes now; a new release needs a sequence "
        "above this number",
    )
    _options.add_signing_key(back, "the order to the device, for --to and --reset-floor")


def _classify(parser: argparse.ArgumentParser) -> None:
    rows = parser.add_argument_group("rows and answers")
    rows.add_argument("--input", type=_path, metavar="FILE", help="rows, sound, picture or folder (default: -, stdin)")
    rows.add_argument(
        "--output",
        type=_path,
        metavar="PATH",
        help="file for the answers, - for standard output; a directory for several devices or --report (default: -)",
    )
    add_answers(rows, "of one device with --json")
    rows.add_argument(
        "--keep",
        action="append",
        metavar="COLUMN",
        help="write this column of the rows, a feature or not, before each answer; repeat it for more "
        "(default: as deploy.yaml says)",
    )
    _options.add_fleet(parser)


def _bench(parser: argparse.ArgumentParser) -> None:
    _options.add_fleet(parser)
    parser.add_argument("--threads", type=count, metavar="N", help="threads that the runtime uses (default: 1)")


def _logs(parser: argparse.ArgumentParser) -> None:
    _options.add_fleet(parser)
    parser.add_argument(
        "-n", "--lines", type=count, default=20, metavar="N", help="print the last N entries (default: %(default)s)"
    )


def _completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=("bash", "zsh"), help="bash or zsh")


def _schema(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "In VS Code: put `# yaml-language-server: $schema=FILE` on the first line of deploy.yaml."


def _path(text: str) -> Path | None:
    return None if text == "-" else Path(text)


#: Command -> adds its flags and arguments to a parser.
CONFIGURE: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "demo": _demo,
    "init": _init,
    "keygen": _keygen,
    "sign": _sign,
    "build": _build,
    **_parsers_rows.CONFIGURE,
    "inspect": _inspect,
    "diff": _diff,
    "card": _card,
    "verify": _verify,
    "trust": _trust,
    "provision": _provision,
    "deploy": _deploy,
    "parity": _parity,
    "status": _options.add_fleet,
    "rollback": _rollback,
    "classify": _classify,
    "bench": _bench,
    "logs": _logs,
    "doctor": _options.add_fleet,
    "completion": _completion,
    "schema": _schema,
}
