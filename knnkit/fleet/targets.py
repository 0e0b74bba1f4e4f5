"""Selects the devices of a command.

They come from deploy.yaml, `--target` and tags. Opens no connection."""

from __future__ import annotations

import difflib
import posixpath
import re
import shlex
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from device_agent.shared.protocol import constants
from knnkit.config.field_types import check_jump
from knnkit.config.fleet_models import LOCAL
from knnkit.config.parse import Config, TargetConfig, split_address
from knnkit.errors import UsageError
from knnkit.transport.address import Address, Typed

#: In a hint of the agent: its own `rollback`, with the path of its Python and its root, quoted or not.
_OWN_ROLLBACK = re.compile(
    r"(?:'[^']*python'|[^\s'`]*python) -m device_agent rollback(?: --root (?:'[^']*'|[^\s'`;]+))?"
)


@dataclass(frozen=True)
class Target:
    """One device; picklable."""

    name: str
    address: Address | None  # None for the embedded device, which is this machine
    root: str = constants.DEFAULT_ROOT
    device_class: str = "any"
    runtime: str = constants.ANY_RUNTIME
    tags: tuple[str, ...] = ()
    suggestion: str = ""  # other names, for the error if the typed name, which deploy.yaml lacks, does not resolve
    root_typed: bool = False  # whether the command line named the root, and not deploy.yaml
    typed: Typed | None = field(default=None, compare=False)  # None: not from a command line

    def __str__(self) -> str:
        """The address as the user wrote it."""
        return LOCAL if self.address is None else str(self.address)

    @property
    def words(self) -> str:
        """The options of a command line that select this device: `--target` and, if the user gave it, `--root`."""
        root = f" --root {shlex.quote(self.root)}" if self.root_typed else ""
        return f"--target {self.typed.words(logs_in=True) if self.typed else shlex.quote(self.name)}{root}"

    def lead(self, hint: str) -> str:
        """Returns a hint with `--target HOST` and `--target THIS_DEVICE` replaced by the options for this device.

        The agent's own `rollback`, which would have to be typed on the device, becomes that of knnkit.
        """
        hint = _OWN_ROLLBACK.sub("knnkit rollback --target HOST", hint)
        return re.sub(r"--target (HOST|THIS_DEVICE)\b", lambda _: self.words, hint)


@dataclass(frozen=True)
class Overrides:
    """Options of the command line for every target; None: as in deploy.yaml and ssh_config."""

    root: str | None = None
    identity: str | None = None
    jump: str | None = None
    ssh_config: str | None = None
    known_hosts: str | None = None
    device_class: str | None = None
    runtime: str | None = None
    deploy_yaml: str | None = None

    def __post_init__(self) -> None:
        """Checks the jump hosts.

        Raises:
            UsageError: a jump host is not of the form `user@host[:port]`.
        """
        try:
            check_jump(self.jump or "none")
        except ValueError as error:
            raise UsageError(f"--jump {error}", hint="--jump user@host[:port]") from None

    def typed(self, name: str) -> Typed:
        """Returns the typed name of a device and these options; hints of errors repeat both."""
        options = {"-c": self.deploy_yaml, "--ssh-config": self.ssh_config, "--known-hosts": self.known_hosts}
        words = tuple(word for option, value in options.items() if value for word in (option, value))
        return Typed(name, self.jump, self.identity, words)


def targets_of(config: Config) -> tuple[Target, ...]:
    """Returns the targets of deploy.yaml, in the order of the file."""
    return tuple(_target(one, config) for one in config.fleet.targets)


def _ssh_files(config: Config) -> dict[str, Any]:
    """Returns field name -> value for an `Address`: the files of ssh that `fleet` names, and where it names them."""
    fleet = config.fleet
    known = (str(fleet.known_hosts),) if fleet.known_hosts else ()
    ssh_config = str(fleet.ssh_config) if fleet.ssh_config else None
    how = {"config": ssh_config, "foreign": ssh_config is not None}
    return how | {"known_hosts": known, "lines": config.key_files.lines}


def _target(one: TargetConfig, config: Config) -> Target:
    defaults = config.fleet.defaults
    identity = one.identity or defaults.identity
    address = Address(
        host=one.host,
        user=one.user or defaults.user,
        port=one.port or defaults.port,
        identity=str(identity) if identity else None,
        jump=one.jump or defaults.jump,
        **_ssh_files(config),
    )
    return Target(
        name=one.name or one.host,
        address=None if one.host == LOCAL else address,
        root=one.root or defaults.root,
        device_class=one.device_class or defaults.device_class,
        runtime=one.runtime or defaults.runtime,
        tags=tuple(dict.fromkeys((*defaults.tags, *one.tags))),
    )


def select(
    config: Config | None,
    *,
    named: Sequence[str] = (),
    tags: Sequence[str] = (),
    overrides: Overrides | None = None,
    called: str = "--target",
) -> tuple[Target, ...]:
    """Returns the devices that the command line selects.

    Args:
        config: deploy.yaml, if there is one.
        named: each `--target`: a name in deploy.yaml, `user@host[:port]`, an ssh_config alias, or `local`.
        tags: each `--on`: targets of deploy.yaml with one of these tags.
        overrides: options of the command line for all of them.
        called: the option to blame in messages about `named`.

    Raises:
        UsageError: nothing is selected, no target has a tag, or an address is invalid.
    """
    known = {target.name: target for target in (targets_of(config) if config else ())}
    chosen: dict[str, Target] = {}
    for text in named:
        near = difflib.get_close_matches(text, (*known, LOCAL), n=1) or list(known)[:3]
        target = known.get(text) or replace(_parse(text, config, called), suggestion=" or ".join(near))
        if target.name in chosen:
            raise UsageError(f"--target {text} is given twice", hint=f"--target {text}, once")
        chosen[target.name] = target
    for tag in tags:
        found = [target for target in known.values() if tag in target.tags]
        if not found:
            raise _no_such_tag(tag, config, known.values())
        chosen.update({target.name: target for target in found})
    if not named and not tags:
        chosen = known
    if not chosen:
        raise UsageError(
            "no device is named", hint="--target user@host[:port], --target local, or targets in deploy.yaml"
        )
    return tuple(_override(target, overrides or Overrides()) for target in chosen.values())


def require_distinct(targets: Iterable[Target]) -> None:
    """Refuses two targets that are one device, on which two jobs at a time would hinder each other.

    Raises:
        UsageError: two targets have the same host, the same way to it, and the same root.
    """
    seen: dict[tuple[Any, ...], Target] = {}
    for one in targets:
        root = posixpath.normpath(one.root)
        root = "." if root == "~" else root.removeprefix("~/")  # of the home folder
        root = root if one.address else str((Path.home() / root).resolve())
        to = one.address
        device = (root, to and (to.host.lower(), to.user, to.port, to.jump))
        if device in seen:
            said = f"{seen[device].name} and {one.name} are one device: {one}, root {one.root}"
            raise UsageError(said, hint=f"--target {one.name}, or give them different roots in deploy.yaml")
        seen[device] = one


def only(targets: Iterable[Target], names: Sequence[str], source: str) -> tuple[Target, ...]:
    """Returns the targets with these `names`, which the report file `source` lists as unfinished.

    Raises:
        UsageError: a name is not among the targets.
    """
    known = {target.name: target for target in targets}
    strange = [name for name in names if name not in known]
    if strange:
        raise UsageError(
            f"{source} names {strange[0]!r}, which is not among the targets",
            hint="give the same -c or --target as in the first run",
        )
    return tuple(known[name] for name in names)


def _parse(text: str, config: Config | None, called: str) -> Target:
    if text == LOCAL:
        return Target(LOCAL, None)
    try:
        user, host, port = split_address(text)
    except ValueError as error:
        raise UsageError(f"{called} {error}", hint=f"{called} user@host[:port] or {called} {LOCAL}") from None
    return Target(text, Address(host, user, port, **(_ssh_files(config) if config else {})))


def _override(target: Target, said: Overrides) -> Target:
    target = replace(
        target,
        root=said.root or target.root,
        root_typed=said.root is not None,
        device_class=said.device_class or target.device_class,
        runtime=said.runtime or target.runtime,
        typed=said.typed(target.name),
    )
    if target.address is None:
        return target
    address = replace(
        target.address,
        identity=said.identity or target.address.identity,
        jump=said.jump or target.address.jump,
        config=said.ssh_config or target.address.config,
        foreign=target.address.foreign and not said.ssh_config,
        typed=target.typed,
        known_hosts=(said.known_hosts, *target.address.known_hosts) if said.known_hosts else target.address.known_hosts,
    )
    return replace(target, address=address)


def _no_such_tag(tag: str, config: Config | None, targets: Collection[Target]) -> UsageError:
    if not targets:
        said = "there is no deploy.yaml here" if config is None else "deploy.yaml names no targets"
        hint = f"-c FILE, or fleet: {{targets: [{{host: board-1, tags: [{tag}]}}]}} in deploy.yaml"
        return UsageError(f"--on {tag}: {said}, so no target has that tag", hint=hint)
    tags = sorted({tag for target in targets for tag in target.tags})
    said = f"--on {tag}: no target has the tag {tag!r}"
    if not tags:
        example = next(iter(targets)).name
        return UsageError(f"{said}, or any", hint=f"--target {example}, or tags: [{tag}] of a target in deploy.yaml")
    close = difflib.get_close_matches(tag, tags, n=1)
    if close:
        return UsageError(f"{said}; did you mean {close[0]!r}?", hint=f"--on {close[0]}")
    return UsageError(f"{said}; there are {', '.join(tags)}", hint=" or ".join(f"--on {tag}" for tag in tags[:3]))
