"""What a device trusts: every rule, sans I/O, the same code on host and device. Bytes and state in, verdict out.

`rules` judges releases, by what `listing`, `oms` (with `dsse`) and `manifest` say of their directory, signature and
release.json; `orders` judges signed orders to a device; `reasons` names each refusal. Walking a directory safely is
`device_agent.shared.release.directory`.
"""
