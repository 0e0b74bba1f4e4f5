"""`build`: makes a complete, tested environment, or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from device_agent.bootstrap.environments import (
    MARKER,
    add_keys,
    clear_leftovers,
    current,
    marker,
    prune,
    switch,
    works,
)
from device_agent.bootstrap.examine import prove
from device_agent.bootstrap.files import PART, listed, make_folder, remove_tree, safe, same, sync, sync_tree, write
from device_agent.bootstrap.lock import locked
from device_agent.bootstrap.paths import VENVS, Trouble, resolved
from device_agent.bootstrap.upload_dirs import take
from device_agent.bootstrap.wheels import check_space, download, holder_of, put


def build(order: dict[str, Any]) -> dict[str, Any]:
    """Makes and tests the environment that the order names; with `use`, switches to it and adds trusted keys."""
    root, digest = resolved(order["root"]), order["digest"]
    place = take(root, order["place"]) if order["place"] else None
    with locked(root, order["wait"], place):
        clear_leftovers(root)
        made = not works(root, digest) or (order["repair"] and place is not None)
        try:
            if made:
                make_environment(root, order, place)
        except BaseException:
            clear_leftovers(root)
            raise
        before = switch(root, digest) if order["use"] else current(root)
        added = add_keys(root, order["trust"]) if order["use"] else []
        prune(root, digest)
    return {"made_of": marker(root, digest), "made": made, "before": before, "added": added}


def make_environment(root: Path, order: dict[str, Any], place: Path | None) -> None:
    """Makes the environment of `order` from the wheels in `place`; leaves nothing there if a step fails."""
    if place is None:
        raise Trouble("missing-wheel", f"another host changed {root / VENVS} meanwhile", "run the command again")
    wheels = gather(root, order, place)
    final = root / VENVS / order["digest"]
    part = root / VENVS / (order["digest"] + PART)
    make_empty(part, system_site=order["system_site"])
    for wheel, holder in wheels:
        put(wheel, holder, part)
    made_of = dict(order["made_of"], digest=order["digest"], versions=prove(part, order["probe"]))
    made_of["wheels"] = [{"name": wheel["name"], "sha256": wheel["sha256"]} for wheel, _ in wheels]
    write(part / MARKER, json.dumps(made_of, sort_keys=True).encode())
    sync_tree(part)
    if final.is_dir():
        put_over(part, final)
        sync_tree(final)
    else:
        part.rename(final)
    sync(final.parent)


def put_over(new: Path, damaged: Path) -> None:
    """Repairs the environment `damaged`, even in use: renames each file of `new` into it, then removes `new`."""
    remove_tree(damaged / "__pycache__")  # may be damaged, too; Python writes it again
    for path in listed(new):
        place = damaged / path.name
        if not path.is_symlink() and path.is_dir():
            if place.is_symlink() or not place.is_dir():
                remove_tree(place)
            make_folder(place)
            put_over(path, place)
            continue
        if not place.is_symlink() and place.is_dir():
            remove_tree(place)
        path.rename(place)
    remove_tree(new)


def gather(root: Path, order: dict[str, Any], place: Path) -> list[tuple[dict[str, str], Path | None]]:
    """Checks wheels of `order` in `place`; returns each with an environment that has its files, or None: unpack it."""
    wheels = [dict(wheel, path=str(place / safe(wheel["name"]))) for wheel in order["wheels"]]
    wheels += download(place / "pip", order["pip"], order["pip_download"]) if order["pip"] else []
    found = [(wheel, holder_of(root, wheel)) for wheel in wheels]
    packed = [wheel for wheel, holder in found if holder is None]
    for wheel in packed:
        if not same(Path(wheel["path"]), wheel["sha256"]):
            hint = "run the command again; if it happens again, the board's storage is failing"
            raise Trouble("missing-wheel", f"{wheel['name']} arrived incomplete", hint)
    check_space(root, packed)
    return found


def make_empty(environment: Path, *, system_site: bool) -> None:
    """Makes a Python environment without packages; with `system_site` it sees those of the distribution."""
    import venv

    venv.EnvBuilder(system_site_packages=system_site, symlinks=True, with_pip=False).create(environment)
    for path in listed(environment / "bin"):
        if not path.name.startswith("python"):  # activation scripts name this folder, which will be renamed
            path.unlink()
