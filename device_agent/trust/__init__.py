"""What a device trusts: every rule, sans I/O, the same code on host and device. Bytes and state in, verdict out.

`rules` judges releases, by what `listing`, `oms` (with `dsse`) and `manifest` say of their directory, signature and
release.json; `orders` judges signed orders to a device; `reasons` names each refusal. Walking a directory safely is
`device_agent.release_files`.
"""

from device_agent.trust.dsse import FINGERPRINT_PREFIX, fingerprint
from device_agent.trust.listing import Entry, FileFact, Kind, check_entry, check_listing
from device_agent.trust.manifest import check_manifest, read_manifest
from device_agent.trust.reasons import Reason, refused
from device_agent.trust.rules import AGENT_EPOCH, MAX_AHEAD, TrustState, Verdict, verify_kept, verify_release

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
