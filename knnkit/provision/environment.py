"""The environment and keys a board should have; no I/O."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import device_agent
from device_agent.shared.trust import dsse
from knnkit.provision.agent_wheel import agent_wheel
from knnkit.provision.requirements import Board, Recipe, recipe_for, with_pillow

#: Part of every environment's digest; raise it when the same wheels would make a different environment.
_LAYOUT = 2
#: A new environment must run this before it is used; prints the versions as JSON. Without -B it also compiles the
#: agent, which writes no bytecode later, and reads all bytecode again: Python does not notice that a disk is full.
PROBE = """\
import importlib, json, numpy, cryptography, device_agent
from cryptography.hazmat.primitives.asymmetric import ec
for name in ("tflite_runtime", "ai_edge_litert"):
    try:
        importlib.import_module(name + ".interpreter")
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
import sys
if not sys.dont_write_bytecode:
    import compileall, glob, marshal, sysconfig
    site = sysconfig.get_path("purelib")
    for name in ("device_agent", "PIL"):
        compileall.compile_dir(site + "/" + name, quiet=2)
    for name in glob.glob(glob.escape(site) + "/**/*.pyc", recursive=True):
        with open(name, "rb") as file:
            marshal.loads(file.read()[16:])
print(json.dumps({"numpy": numpy.__version__, "cryptography": cryptography.__version__}))
"""


@dataclass(frozen=True)
class Wanted:
    """The environment and keys that a board should have."""

    recipe: Recipe
    agent_wheel: str  # file name
    agent: bytes  # its content
    trust: Mapping[str, bytes]  # file name -> PEM
    made_of: Mapping[str, Any]  # everything in which environments differ

    @property
    def digest(self) -> str:
        """The name of the environment: the hexadecimal SHA-256 of what it is made of, such as package versions."""
        return hashlib.sha256(json.dumps(self.made_of, sort_keys=True).encode()).hexdigest()

    def is_on(self, board: Board) -> bool:
        """Whether the board uses this environment, trusts these keys, and has no leftovers of interrupted runs."""
        trusts = all(board.trusted.get(name) == hashlib.sha256(pem).hexdigest() for name, pem in self.trust.items())
        return board.current == self.digest and board.tidy and trusts


def decide(name: str, board: Board, runtime: str, keys: Mapping[str, bytes], *, pictures: bool = False) -> Wanted:
    """Returns the environment and keys that the board `name` should have, with the agent of this knnkit.

    `runtime`: a TFLite runtime, or `auto`. `keys` (fingerprint -> PEM) are the keys to trust. `pictures`: whether the
    board must decode PNG and JPEG, which takes Pillow; a board that has Pillow keeps it.

    Raises:
        DeviceFailed: no agent can run on the board, or not with this runtime.
    """
    recipe = recipe_for(name, board, runtime)
    recipe = with_pillow(recipe) if pictures or board.pictures else recipe
    wheel, agent = agent_wheel()
    made_of = {
        "layout": _LAYOUT,
        "machine": recipe.machine,
        "python": list(recipe.python),
        "pins": list(recipe.pins),
        "system_site": recipe.system_site,
        "agent": device_agent.__version__,
        "agent_sha256": hashlib.sha256(agent).hexdigest(),
    }
    return Wanted(recipe, wheel, agent, {_key_file(key): pem for key, pem in keys.items()}, made_of)


def fingerprint(key_file: str) -> str:
    """Returns the fingerprint of the key in a file of the trust folder, from the file's name `key_file`."""
    return dsse.FINGERPRINT_PREFIX + key_file.removesuffix(".pem")


def _key_file(fingerprint: str) -> str:
    """Returns the name of the file in which a device's agent stores the key with this fingerprint."""
    return fingerprint.removeprefix(dsse.FINGERPRINT_PREFIX) + ".pem"
