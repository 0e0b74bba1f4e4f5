"""A bare board gets what it needs to run and to trust: an environment of its own, the agent, the trusted keys.

    with connect() as transport:
        facts = probe(transport, root, timeout=30)
        done = provision(transport, facts, root="~/.knnkit", keys={fingerprint: pem}, offline=True)

Nothing of the board's own is changed: everything lies under ROOT. The same call twice does nothing the second time;
another agent or another runtime makes a new environment beside the one in use and switches by one rename, once the
caller's `prove` has found it well. A runtime that was chosen stays until another is. Never touches releases.
"""

from knnkit.provision.install import Provisioned, provision, remove
from knnkit.provision.wheel_cache import default_folder

__all__ = ["Provisioned", "default_folder", "provision", "remove"]
