"""One module a command: `run(arguments)` does it and returns the exit code; its parser stands in `_parsers`."""

from __future__ import annotations

#: Command -> one line of help. The module of the same name under knnkit.commands runs it.
COMMANDS: dict[str, str] = {
    "demo": "the whole path on an embedded device: build, sign, deploy, prove, draw",
    "init": "write a commented deploy.yaml to start from",
    "keygen": "make a signing key",
    "sign": "sign a release directory",
    "build": "build a signed release from deploy.yaml",
    "inspect": "say what is in a model or a release",
    "verify": "check a release's signature and contents",
    "trust": "show and enrol a device's host key, or the signing keys it trusts",
    "provision": "put the runtime, the agent and the trusted key on a bare board",
    "deploy": "build if needed, push, activate, check and confirm a release",
    "parity": "prove on every device that it answers as the host does",
    "status": "say what runs on each device",
    "rollback": "go back to the previous release",
    "classify": "classify rows on a device",
    "bench": "measure the model on each device",
    "logs": "show the history of each device",
    "doctor": "find what is wrong on a device, and the command that mends it",
    "completion": "print what completes commands and flags in a shell",
    "schema": "print the JSON Schema of deploy.yaml",
}
