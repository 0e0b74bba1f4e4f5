"""deploy.yaml for commands: finds it, reads it, requires it."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from device_agent.shared.safe_files import whole_file
from knnkit.config import load
from knnkit.config.yaml_reader import FILE_NAME
from knnkit.data.patterns import expand
from knnkit.errors import ConfigError, UsageError
from knnkit.release import keys, signing

if TYPE_CHECKING:
    from knnkit.config.parse import Build, Config  # pydantic is for a file that is there


def load_config(arguments: argparse.Namespace) -> Config | None:
    """Returns the configuration of `--config`, else of deploy.yaml in the current folder; None if that is missing.

    Raises:
        ConfigError: the file is wrong, or `--config` names a missing file.
    """
    if arguments.config is not None:
        return load.load(arguments.config)
    here = Path(FILE_NAME)
    return load.load(here) if here.exists() else None


def line_in_errors(config: Config | None) -> contextlib.AbstractContextManager[None]:
    """Returns a context manager: an error in its block about a key file gets the line of deploy.yaml that names it."""
    return config.key_files.line_in_errors() if config else contextlib.nullcontext()


def own_public_keys(config: Config | None) -> list[Path]:
    """Returns the public key files in `trusted` of deploy.yaml, else the signing key's `.pub` file, else []."""
    if config is None:
        return []
    own = config.signing.key.with_suffix(keys.PUBLIC_SUFFIX)
    return list(config.signing.trusted) or ([own] if own.exists() else [])


def require_config(config: Config | None, what: str, hint: str = "knnkit init, or name one with -c") -> Config:
    """Returns `config` if it is not None; `what` is the start of the error message, `hint` its hint without a file.

    Raises:
        ConfigError: there is no configuration.
    """
    if config is None:
        near = Path(FILE_NAME).with_suffix(".yml")
        hint = f"-c {near}" if near.exists() else hint
        raise ConfigError(f"{what}: there is no deploy.yaml here", hint=hint)
    return config


def order_signer(arguments: argparse.Namespace) -> signing.Signer:
    """Returns the key that signs an order to devices: that of `--signing-key`, else that of deploy.yaml.

    Raises:
        ConfigError: `--signing-key` is not given, and deploy.yaml is missing or wrong.
        SigningKeyError: the key cannot be used.
    """
    if arguments.signing_key:
        return signing.load_signer(arguments.signing_key)
    hint = "--signing-key PEM, the private key of a key that the devices trust, or -c FILE"
    config = require_config(load_config(arguments), "no --signing-key", hint)
    with line_in_errors(config):
        return signing.load_signer(config.signing.key)


def require_builds(config: Config | None, what: str, file: Path | None, hint: str = "") -> tuple[Build, ...]:
    """Returns a `Build` for each model of a configuration.

    Errors begin with `what` and name the configuration's `file` (None: deploy.yaml); hints end with `hint`.
    Raises:
        ConfigError: there is no configuration, or it has no model.
    """
    builds = require_config(config, what).builds()
    if not builds:
        said = f"{what}: {file or 'deploy.yaml'} has no `model`"
        raise ConfigError(said, hint=f"add `model`, as in a file that knnkit init writes{hint}")
    return builds


def files_of(build: Build, config: Path) -> list[Path]:
    """Returns the files that a build reads: its deploy.yaml (`config`), all files with rows, and the signing key."""
    data, test = build.model.data, build.model.measured_on
    named = [] if isinstance(test, float) else [test.file]
    with build.line_in_errors():
        named += expand(getattr(data, "sources", ()))
    return [config, *named, build.signing.key]


def flags(arguments: argparse.Namespace, *, model: bool = True) -> str:
    """Returns ` -c FILE --model NAME` for a hint: the options that the user gave; `model=False`: without `--model`."""
    words = [] if arguments.config in (None, Path(FILE_NAME)) else ["-c", str(arguments.config)]
    words += ["--model", arguments.model] if model and arguments.model is not None else []
    return "".join(f" {shlex.quote(word)}" for word in words)


def rewrite(path: Path, model: str, change: Callable[[str, tuple[str | int, ...]], str]) -> None:
    """Replaces the text of the deploy.yaml `path` by the text that `change` returns.

    `change` gets the present text and the key path of the model named `model`: `("model",)`, or `("models", 2)`.
    """
    with path.open(encoding="utf-8", newline="") as file:
        text = file.read()
    config = load.load(path)
    names = [build.model.name for build in config.builds()]
    changed = change(text, ("model",) if config.model is not None else ("models", names.index(model)))
    there = path.stat()
    with whole_file(path.resolve()) as out:
        with contextlib.suppress(PermissionError):
            os.fchown(out.fileno(), there.st_uid, there.st_gid)
        os.fchmod(out.fileno(), there.st_mode & 0o777)
        out.write(changed.encode())


def one_build(arguments: argparse.Namespace) -> Build:
    """Returns the `Build` of the model that a command examines: the only model of the file, or that of `--model`.

    Raises:
        ConfigError: the file has no model.
        UsageError: the file has several models and no `--model` is given, or no model has that name.
    """
    builds = require_builds(load.load(arguments.config), "nothing to examine", arguments.config)
    names = [build.model.name for build in builds]
    if arguments.model is None and len(builds) > 1:
        raise UsageError(f"{arguments.config} has several models", hint=f"--model {names[0]}")
    if arguments.model not in (None, *names):
        hint = f"--model {names[0]}, or -c FILE, the deploy.yaml of {arguments.model}"
        raise UsageError(f"{arguments.config} has no model {arguments.model!r}", hint=hint)
    return builds[names.index(arguments.model) if arguments.model else 0]
