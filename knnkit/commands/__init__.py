"""One module a command: `configure(parser)` adds its flags, `run(arguments)` does it and returns the exit code."""
