"""deploy.yaml for commands: finds it, reads it, requires it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from knnkit.config import load
from knnkit.config.yaml_reader import FILE_NAME
from knnkit.errors import ConfigError, UsageError
from knnkit.release import keys, signing

if TYPE_CHECKING:
    from knnkit.config.parse import Build, Config  # pydantic is for a file that is there


def load_config(arguments: argparse.Namespace) -> Config | None:
    """Returns deploy.yaml; None where none was named and none is here.

    Raises:
        ConfigError: it is wrong, or the named one is missing.
    """
    if arguments.config is not None:
        return load.load(arguments.config)
    here = Path(FILE_NAME)
    return load.load(here) if here.exists() else None


def own_public_keys(config: Config | None) -> list[Path]:
    """Returns the files of the public keys that deploy.yaml trusts; by default the one beside the signing key."""
    if config is None:
        return []
    own = config.signing.key.with_suffix(keys.PUBLIC_SUFFIX)
    return list(config.signing.trusted) or ([own] if own.exists() else [])


def require_config(config: Config | None, what: str) -> Config:
    """Returns the configuration.

    Raises:
        ConfigError: there is none.
    """
    if config is None:
        raise ConfigError(f"{what}: there is no deploy.yaml here", hint="knnkit init, or name one with -c")
    return config


def order_signer(arguments: argparse.Namespace) -> signing.Signer:
    """Returns the key that signs an order: `--signing-key`, else that of deploy.yaml.

    Raises:
        ConfigError: neither names one.
        SigningKeyError: it cannot be used.
    """
    named = arguments.signing_key
    return signing.load_signer(named or require_config(load_config(arguments), "no --signing-key").signing.key)


def require_builds(config: Config | None, what: str, file: Path | None, hint: str = "") -> tuple[Build, ...]:
    """Returns what the configuration in `file` builds, deploy.yaml if it is None; `hint` is what else could be done.

    Raises:
        ConfigError: there is no configuration, or it has no model.
    """
    builds = require_config(config, what).builds()
    if not builds:
        said = f"{what}: {file or 'deploy.yaml'} has no `model`"
        raise ConfigError(said, hint=f"add one, as in a file that knnkit init writes{hint}")
    return builds


def one_build(arguments: argparse.Namespace) -> Build:
    """Returns the build of the file that a command is about: the only one, or that of `--model`.

    Raises:
        ConfigError: there is none.
        UsageError: there are several, or none of that name.
    """
    builds = require_builds(load.load(arguments.config), "nothing to examine", arguments.config)
    names = [build.model.name for build in builds]
    if arguments.model is None and len(builds) > 1:
        raise UsageError(f"{arguments.config} has several models", hint=f"--model {names[0]}")
    if arguments.model not in (None, *names):
        raise UsageError(f"{arguments.config} has no model {arguments.model!r}", hint=f"--model {names[0]}")
    return builds[names.index(arguments.model) if arguments.model else 0]
