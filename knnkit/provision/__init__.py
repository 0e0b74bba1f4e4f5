"""Installs the agent and trusted keys on a board.

    with connect() as transport:
        facts = probe(transport, root, timeout=30)
        done = provision(transport, facts, root="~/.knnkit", keys={fingerprint: pem}, offline=True)

Changes nothing outside ROOT, and never touches releases. A second call with the same arguments does nothing. For
another agent or runtime, builds a new environment beside the one in use, and switches to it by one rename after the
caller's function `prove` accepted it. A board keeps its runtime until the user chooses another.
"""

from knnkit.provision.install import Provisioned, provision, remove
from knnkit.provision.wheel_cache import default_folder

__all__ = ["Provisioned", "default_folder", "provision", "remove"]
