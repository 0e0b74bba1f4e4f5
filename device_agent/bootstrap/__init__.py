"""Commands that provisioning runs on a board.

    state    reports Python, architecture, C library, disk, environments and trusted keys
    examine  checks an environment: every file has the bytes of its wheel, and it runs
    prepare  lists those of the given wheels that the environments already hold
    claim    makes an upload folder for the wheels that this connection sends
    build    makes an environment from wheels and tests it; with `use`, switches to it and adds trusted keys
    remove   removes everything

Provisioning installs the agent on a board. One process runs one command: it gets its arguments as JSON, called the
request, and prints one JSON document. The environment in use is never changed: a new one is made beside it, tested, and
put in its place by renaming a link. After a crash at any step, the board has the old environment or the new one; the
next run removes the leftovers.

Only the board's Python and its standard library are needed. The host sends this package each time as one script
(`knnkit.provision.remote_python`) and leaves no file of it there. Modules here import only each other, by full name.
"""
