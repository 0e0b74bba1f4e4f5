"""Commands of `knnkit`, one module each.

`run(arguments)` of a module runs the command, and returns the exit code; the command's parser is in `_parsers`."""

from __future__ import annotations

#: Command -> one line of help. The module of the same name under knnkit.commands runs it.
COMMANDS: dict[str, str] = {
    "demo": "try everything on this machine: build, sign, deploy, check, draw",
    "init": "write a commented deploy.yaml to start from",
    "keygen": "make a signing key",
    "sign": "sign a release directory",
    "build": "build a signed release from deploy.yaml",
    "tune": "find the best k, metric, weights and scale for the rows",
    "reject": 'show how many rows a model answers "unknown", for each `reject`',
    "audit": "find rows with doubtful labels, near duplicates and useless rows",
    "inspect": "show what is in a model or a release",
    "diff": "show which labels change from one release to another",
    "card": "write the model card of a release as Markdown",
    "verify": "check a release's signature and contents",
    "trust": "add a device's host key to known_hosts, or show and change the signing keys it trusts",
    "provision": "install the runtime, the agent and the trusted key on a bare board",
    "deploy": "build a release if needed, then upload, activate, check and confirm it on each device",
    "parity": "check that every device gives the same answers as the host",
    "status": "show what runs on each device",
    "rollback": "return devices to their previous release",
    "classify": "classify rows on a device",
    "collect": "copy from devices the rows that they were taught, or keep for people to label",
    "label": "give labels to collected rows, in a browser or on the terminal",
    "promote": "add labelled rows from the field to the training data",
    "bench": "measure speed and memory of the model on each device",
    "logs": "show the history of each device",
    "doctor": "find faults of a device, with the command that repairs each",
    "completion": "print a shell script that completes commands and flags",
    "schema": "print the JSON Schema of deploy.yaml",
}
