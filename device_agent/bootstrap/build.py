"""`build`: makes a complete, tested environment, or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from device_agent.bootstrap.environments import MARKER, add_keys, clear_leftovers, current, marker, prune, switch, works
from device_agent.bootstrap.examine import prove
from device_agent.bootstrap.files import PART, listed, make_folder, remove_tree, safe, same, sync, sync_tree, write
from device_agent.bootstrap.lock import locked
from device_agent.bootstrap.paths import VENVS, Trouble, resolved
from device_agent.bootstrap.upload_dirs import take
from device_agent.bootstrap.wheels import check_space, download, holder_of, put


def build(request: dict[str, Any]) -> dict[str, Any]:
    """Makes and tests the environment that the request names; with `use`, switches to it and adds trusted keys.

    Returns `made_of` (the content of its knnkit.json), `made` (False: it existed already), `before` (digest of the
    environment used before, or None) and `added` (names of the keys that were written).
    """
    root, digest = resolved(request["root"]), request["digest"]
    upload = take(root, request["place"]) if request["place"] else None
    with locked(root, request["wait"], upload):
        clear_leftovers(root)
        made = not works(root, digest) or (request["repair"] and upload is not None)
        try:
            if made:
                make_environment(root, request, upload)
        except BaseException:
            clear_leftovers(root)
            raise
        before = switch(root, digest) if request["use"] else current(root)
        added = add_keys(root, request["trust"]) if request["use"] else []
        prune(root, digest)
    return {"made_of": marker(root, digest), "made": made, "before": before, "added": added}


def make_environment(root: Path, request: dict[str, Any], upload: Path | None) -> None:
    """Makes the environment that the request asks for, from the wheels in the folder `upload` (None: Trouble)."""
    if upload is None:
        raise Trouble("missing-wheel", f"another host changed {root / VENVS} meanwhile", "run the command again")
    wheels = gather(root, request, upload)
    final = root / VENVS / request["digest"]
    part = root / VENVS / (request["digest"] + PART)
    make_empty(part, system_site=request["system_site"])
    for wheel, holder in wheels:
        put(wheel, holder, part)
    made_of = dict(request["made_of"], digest=request["digest"], versions=prove(part, request["probe"]))
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
    """Repairs `damaged`, a folder perhaps in use: renames each file of `new` into it, then removes `new`."""
    remove_tree(damaged / "__pycache__")  # may be damaged, too; Python writes it again
    for path in listed(new):
        target = damaged / path.name
        if not path.is_symlink() and path.is_dir():
            if target.is_symlink() or not target.is_dir():
                remove_tree(target)
            make_folder(target)
            put_over(path, target)
            continue
        if not target.is_symlink() and target.is_dir():
            remove_tree(target)
        path.rename(target)
    remove_tree(new)


def gather(root: Path, request: dict[str, Any], upload: Path) -> list[tuple[dict[str, str], Path | None]]:
    """Checks the request's wheels in the folder `upload`; downloads its `pip` wheels with the board's pip.

    Returns each wheel (`name`, `sha256`, `path`) with an environment that has its files, or None.
    """
    wheels = [dict(wheel, path=str(upload / safe(wheel["name"]))) for wheel in request["wheels"]]
    wheels += download(upload / "pip", request["pip"], request["pip_download"]) if request["pip"] else []
    found = [(wheel, holder_of(root, wheel)) for wheel in wheels]
    packed = [wheel for wheel, holder in found if holder is None]
    for wheel in packed:
        if not same(Path(wheel["path"]), wheel["sha256"]):
            hint = "run the command again; if it repeats, the board's disk fails"
            raise Trouble("missing-wheel", f"{wheel['name']} arrived incomplete", hint)
    check_space(root, packed)
    return found


def make_empty(environment: Path, *, system_site: bool) -> None:
    """Makes a Python environment without packages; with `system_site`, it sees those of the operating system."""
    import venv

    venv.EnvBuilder(system_site_packages=system_site, symlinks=True, with_pip=False).create(environment)
    for path in listed(environment / "bin"):
        if not path.name.startswith("python"):  # activation scripts name this folder, which will be renamed
            path.unlink()
