"""Frozen models of `release` and `signing` in deploy.yaml.

The docstring below a key is its description in the JSON Schema. No I/O.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from knnkit.config.field_types import Duration, Example, FilePath, Section, check_version


class ReleaseConfig(Section):
    """Directory, version, sequence and lifetime of a release."""

    dir: FilePath = Field(default=Path("dist"), validate_default=True)
    """The release directory; with several models, each has a subdirectory with its name."""
    version: Annotated[str, AfterValidator(check_version), Example('"1.0"')] = "1.0.0"
    """Version for people; devices compare `sequence`."""
    sequence: Annotated[int | None, Example("12")] = Field(default=None, ge=1, lt=2**53)
    """Number that grows with each release; default: the time of the build."""
    expires: Annotated[Annotated[Duration, Field(gt=0.0)] | None, Example("90d")] = None
    """How long after the build devices still activate the release; default: for ever."""


class SigningConfig(Section):
    """The signing key, and the keys that new devices trust."""

    key: FilePath = Field(default=Path("keys/signing.pem"), validate_default=True)
    """The private key (`knnkit keygen`)."""
    trusted: Annotated[tuple[FilePath, ...], Example("[keys/signing.pub]")] = ()
    """The only public keys that devices should trust; `provision` installs them; default: that of the signing key."""
