"""Makes tests/compat/VERSION: signed releases and orders of this version, kept and verified for ever after.

With them go the keys of all that passes between host and device, and of state.json: either side may be the older one.

Run once for each version that changes a format, from the clone: `python tests/compat/make.py`. It refuses to replace a
folder that is there. The private keys are never written.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

from support import forge  # noqa: E402
from support.releases import provide  # noqa: E402

from device_agent import __version__  # noqa: E402
from device_agent.shared.protocol import documents, model_info, reports  # noqa: E402
from device_agent.shared.protocol.record import shape  # noqa: E402
from device_agent.shared.trust import dsse  # noqa: E402
from device_agent.store import state, trust_store  # noqa: E402
from knnkit.release import orders  # noqa: E402
from knnkit.release.signing import sign_release  # noqa: E402

#: Release -> the curve that it is signed on. Together: text and number labels, reject, two metrics, two scalers.
KEPT = {"iris": "P-256", "wine": "P-521"}
ISSUED = 1_800_000_000
#: Documents of a release, which says itself what agent it needs; and what is never written.
OF_A_RELEASE = {"Gates", "KnnInfo", "Manifest", "Reject"}
INSIDE = {"Answering", "Moment"}


def make(folder: Path) -> None:
    built = provide()
    (folder / "keys").mkdir(parents=True)
    index: dict[str, object] = {}
    for name, curve in KEPT.items():
        shutil.copytree(built[name], folder / name)
        verdict = sign_release(folder / name, forge.signer(name, curve))
        index[name] = {"digest": verdict.digest, "signed_by": verdict.signed_by}
    signers = {name: forge.signer(name, curve) for name, curve in KEPT.items()} | {"next": forge.signer("next")}
    for signer in signers.values():
        fingerprint = dsse.fingerprint(signer.public_pem)
        (folder / "keys" / trust_store.key_file_name(fingerprint)).write_bytes(signer.public_pem)
    following = dsse.fingerprint(signers["next"].public_pem)
    (folder / "rotation.json").write_bytes(orders.rotate(signers["iris"], signers["next"], issued=ISSUED))
    (folder / "revocation.json").write_bytes(orders.revoke(signers["iris"], [following], issued=ISSUED))
    index["next"] = following
    (folder / "keys.json").write_text(json.dumps(document_keys(), indent=2, sort_keys=True) + "\n")
    (folder / "index.json").write_text(json.dumps(index, indent=2) + "\n")


def document_keys() -> dict[str, dict[str, bool]]:
    """Returns class -> key -> whether it may be left out, of all documents that pass on their own and of the state."""
    named = {**vars(documents), **vars(model_info), **vars(reports), **vars(state)}
    records = {name: kind for name, kind in sorted(named.items()) if "__record__" in dir(kind)}
    return {name: dict(shape(kind) or {}) for name, kind in records.items() if name not in OF_A_RELEASE | INSIDE}


if __name__ == "__main__":
    place = HERE / __version__
    if place.exists():
        sys.exit(f"{place} exists: what was released stays as it is")
    make(place)
    print(place)
