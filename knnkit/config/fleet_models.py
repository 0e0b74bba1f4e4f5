"""Pydantic models of release, signing and fleet in deploy.yaml.

Also of `rollout` and `classify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import AfterValidator, BeforeValidator, Field

from device_agent.shared.protocol import constants
from knnkit.config.field_types import (
    Amount,
    Duration,
    Example,
    FilePath,
    Host,
    Jump,
    Lifetime,
    Name,
    Section,
    Text,
    Wave,
    Word,
    Words,
    check_version,
    no_sense,
    short_target,
)

#: The host that is the embedded device: this machine.
LOCAL = "local"


class ReleaseConfig(Section):
    """Directory, version, sequence and lifetime of a release."""

    dir: FilePath = Field(default=Path("dist"), validate_default=True)
    """The release directory; with several models, each has a subdirectory with its name."""
    version: Annotated[str, AfterValidator(check_version), Example('"1.0"')] = "1.0.0"
    """Version for people; devices compare `sequence`."""
    sequence: Annotated[int | None, Example("12")] = Field(default=None, ge=1, lt=2**53)
    """Number that grows with each release; default: the time of the build."""
    expires: Annotated[Annotated[Lifetime, Field(gt=0.0)] | None, Example("365d")] = None
    """How long after the build devices still activate the release; default: for ever."""


class SigningConfig(Section):
    """The signing key, and the keys that new devices trust."""

    key: FilePath = Field(default=Path("keys/signing.pem"), validate_default=True)
    """The private key (`knnkit keygen`)."""
    trusted: Annotated[tuple[FilePath, ...], Example("[keys/signing.pub]")] = ()
    """The only public keys that devices should trust; `provision` installs them; default: that of the signing key."""


#: A spelling match alone would map LiteRT to the wrong runtime.
_ALSO_CALLED = {"litert": "ai_edge_litert", "tflite": "tflite_runtime"}


def _our_word(value: Any) -> Any:
    meant = _ALSO_CALLED.get(value.lower()) if isinstance(value, str) else None
    if meant:
        raise ValueError(f"{value!r} is not one of auto, {', '.join(constants.RUNTIMES)}; did you mean {meant!r}?")
    return value


Runtime = Annotated[Literal["auto", "tflite_runtime", "ai_edge_litert", "numpy"], BeforeValidator(_our_word)]


class TargetDefaults(Section):
    """Defaults for all targets. For a key without a value, ssh_config decides."""

    user: Annotated[Word | None, Example("pi")] = None
    """Login name."""
    port: Annotated[int | None, Example("22")] = Field(default=None, ge=1, le=65535)
    """SSH port."""
    root: Text = constants.DEFAULT_ROOT
    """knnkit's directory on the device; a relative path starts at the home directory there."""
    identity: Annotated[FilePath | None, Example("~/.ssh/id_ed25519")] = None
    """Private key file, or the .pub of a key in the key agent; with it, no other key is offered."""
    jump: Annotated[Jump | None, Example("pi@gate")] = None
    """Jump host to connect through: user@host[:port]; several separated by commas."""
    device_class: Name = "any"
    """The device's class."""
    runtime: Annotated[Runtime, Example("ai_edge_litert")] = "auto"
    """What runs the model: tflite_runtime (smaller), ai_edge_litert (LiteRT, faster with large models) or numpy (no
    TFLite; slower); auto: what is installed, and for a bare device the first of these that its platform supports."""
    tags: Annotated[tuple[Name, ...], Example("[canary]")] = ()
    """Tags: words by which `--on` and `waves` select devices."""


class TargetConfig(Section):
    """One device; `user@host:port` is a short form."""

    host: Annotated[Host, Example("board-1.example")]
    """Host name, address or ssh_config alias; `local` is the embedded device."""
    name: Name | None = None
    """Name in reports; default: the host."""
    user: Word | None = None
    """Login name."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """SSH port."""
    root: Text | None = None
    """knnkit's directory on the device; a relative path starts at the home directory there."""
    identity: FilePath | None = None
    """Private key file, or the .pub of a key in the key agent; with it, no other key is offered."""
    jump: Jump | None = None
    """Jump host to connect through: user@host[:port]; several separated by commas; "none": no jump host."""
    device_class: Name | None = None
    """The device's class."""
    runtime: Runtime | None = None
    """What runs the model: auto, tflite_runtime, ai_edge_litert or numpy."""
    tags: tuple[Name, ...] = ()
    """Tags: words by which `--on` and `waves` select devices, in addition to those of `defaults`."""


class FleetConfig(Section):
    """The devices of the fleet, and how to connect to them."""

    defaults: Annotated[TargetDefaults, Example("{user: pi}")] = TargetDefaults()
    """Defaults for all targets."""
    targets: Annotated[
        tuple[Annotated[TargetConfig, BeforeValidator(short_target), Words("user@host[:port]")], ...],
        Example("[pi@board-1]"),
    ] = ()
    """The devices: {host, ...} or user@host:port."""
    known_hosts: Annotated[FilePath | None, Example("known_hosts")] = None
    """Host keys of the fleet, in addition to the user's known_hosts; `knnkit trust HOST` adds to it."""
    ssh_config: Annotated[FilePath | None, Example("~/.ssh/config")] = None
    """SSH configuration file; default: the user's and the system's. If it may run commands, knnkit asks before use."""

    @pydantic.model_validator(mode="after")
    def _distinct(self) -> FleetConfig:
        seen: set[str] = set()
        for at, target in enumerate(self.targets):
            name = target.name or target.host
            if name in seen:
                problem = f"two targets are called {name!r}: give one of them another name"
                raise no_sense(problem, f"name: {name}-2, beside host: {target.host}", f"targets/{at}")
            if name == LOCAL != target.host:
                raise no_sense("a target called 'local' is this machine", f"name: {target.host}", f"targets/{at}/name")
            for key in ("user", "port", "identity", "jump"):
                if target.host == LOCAL and getattr(target, key) is not None:
                    said = f"host 'local' is this machine, without SSH: {key} has no use"
                    hint = f"remove {key}; for another machine, write its full name or address"
                    raise no_sense(said, hint, f"targets/{at}/{key}")
            seen.add(name)
        return self


class ClassifyConfig(Section):
    """What `knnkit classify` writes beside the answers."""

    keep: Annotated[tuple[Text, ...], Example("[id, time]")] = ()
    """Columns of the input to write before each answer, features or not; `--keep` replaces this list."""


class RolloutConfig(Section):
    """How a release is rolled out to the fleet."""

    waves: Annotated[tuple[Wave, ...], Example("[25%, 100%]")] = Field(default=("100%",), min_length=1)
    """Waves, one after another: each is a tag, or the cumulative share (25%) or count of the fleet."""
    max_failures: Amount = 0
    """Number or percentage of devices that may fail before the rollout stops; 0 in the first of several waves."""
    on_failure: Annotated[Literal["stop", "roll_back"], Example("roll_back")] = "stop"
    """What to do when the rollout stops: `roll_back` returns the devices that it changed to their release before."""
    confirm_within: Annotated[Duration, Field(ge=1.0, le=86400.0), Example("60s")] = constants.DEFAULT_CONFIRM_SECONDS
    """A device rolls back by itself if no new connection confirms the new release within this time."""
    concurrency: int = Field(default=16, ge=1, le=1024)
    """Number of devices to work on at the same time."""
    connect_timeout: Annotated[Duration, Field(gt=0.0, le=3600.0), Example("10s")] = 10.0
    """Time limit for opening a connection."""
    connect_retries: int = Field(default=2, ge=0, le=20)
    """Number of further attempts to connect, with growing pauses. Nothing else is retried."""
    command_timeout: Annotated[Duration, Field(gt=0.0, le=86400.0), Example("5m")] = 300.0
    """Time limit for one command on a device."""
