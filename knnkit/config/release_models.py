"""Frozen models of `release` and `signing` in deploy.yaml.

The docstring below a key is its description in the JSON Schema. No I/O.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from knnkit.config.field_types import Duration, Example, FilePath, Section, check_version


class ReleaseConfig(Section):
    """Where the release is written and what it is called."""

    dir: FilePath = Field(default=Path("dist"), validate_default=True)
    """The release directory; with several models, each has a subdirectory with its name."""
    version: Annotated[str, AfterValidator(check_version), Example('"1.0"')] = "1.0.0"
    """Version for humans; devices compare the sequence."""
    sequence: Annotated[int | None, Example("12")] = Field(default=None, ge=1, lt=2**53)
    """Number that grows with each release; default: the time of the build."""
    expires: Annotated[Annotated[Duration, Field(gt=0.0)] | None, Example("90d")] = None
    """Time after the build after which no device activates the release; default: it never expires."""


class SigningConfig(Section):
    """The signing key, and the keys that new devices trust."""

    key: FilePath = Field(default=Path("keys/signing.pem"), validate_default=True)
    """The private key (`knnkit keygen`)."""
    trusted: Annotated[tuple[FilePath, ...], Example("[keys/signing.pub]")] = ()
    """Public keys that `provision` puts on a device, which should have no others; default: that of the signing key."""
