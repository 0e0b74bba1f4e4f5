"""Trust rules, the same on host and device; no I/O.

`rules` accepts or refuses releases, with `listing` (the directory), `oms` and `dsse` (the signature) and `manifest`
(release.json); `orders` accepts or refuses signed orders; `reasons` names each refusal. Callers read the files with
`device_agent.shared.release.directory`.
"""
