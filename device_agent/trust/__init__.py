"""What a device trusts: every rule, sans I/O, the same code on host and device. Bytes and state in, verdict out.

`rules` judges releases, `oms` reads their signature, `dsse` checks it; `reasons` names each refusal. Walking a
directory safely is `device_agent.release_files`.
"""

from device_agent.trust.dsse import FINGERPRINT_PREFIX, fingerprint
from device_agent.trust.reasons import Reason, refused
from device_agent.trust.rules import (
    AGENT_EPOCH,
    MAX_AHEAD,
    Entry,
    FileFact,
    Kind,
    TrustState,
    Verdict,
    check_entry,
    check_listing,
    check_manifest,
    read_manifest,
    verify_kept,
    verify_release,
)

__all__ = [
    "AGENT_EPOCH",
    "FINGERPRINT_PREFIX",
    "MAX_AHEAD",
    "Entry",
    "FileFact",
    "Kind",
    "Reason",
    "TrustState",
    "Verdict",
    "check_entry",
    "check_listing",
    "check_manifest",
    "fingerprint",
    "read_manifest",
    "refused",
    "verify_kept",
    "verify_release",
]
