"""Installs the agent and trusted keys on a board.

    with connect() as transport:
        facts = probe(transport, root, timeout=30)
        done = provision(transport, facts, root="~/.knnkit", keys={fingerprint: pem}, offline=True)

Changes nothing outside ROOT, and never touches releases. The same call twice does nothing the second time. Another
agent or runtime makes a new environment beside the one in use, and switches to it by one rename after the caller's
`prove` accepted it. A board keeps its chosen runtime until another one is chosen.
"""

from knnkit.provision.install import Provisioned, provision, remove
from knnkit.provision.wheel_cache import default_folder

__all__ = ["Provisioned", "default_folder", "provision", "remove"]
