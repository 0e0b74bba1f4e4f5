"""What provisioning runs on a board. The board has nothing but its own Python: the standard library alone is used here.

    state    what is here: Python, architecture, C library, disk, environments, trusted keys
    examine  whether an environment is whole: every file as its wheel has it, and it runs
    prepare  which wheels of an order the environments hold already
    claim    a place of this connection's own for the wheels that it sends
    build    make an environment from wheels, prove it; to use it, switch to it and add trusted keys
    remove   take everything away

One process runs one command: an order comes as JSON, one JSON document goes to stdout. The environment in use is never
changed: a new one is made beside it, proven, and put in its place by renaming a link. Killed at any step, a board has
the old environment or the new one; what lies about is cleared by the next run.

The host sends the whole package each time as one script (`knnkit.provision.remote_python`); nothing of it stays.
Modules here import each other by their full names, which on the board `loader` finds in memory, and nothing else of
knnkit or device_agent.
"""
