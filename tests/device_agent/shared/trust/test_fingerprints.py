"""What a key is called: told at sight where its text leaves no doubt, and never otherwise than by parsing it."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from support import ROOT, forge

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import Refused
from device_agent.shared.trust import dsse, fingerprints
from device_agent.store import trust_dir, trust_store


def pem_of(curve: ec.EllipticCurve) -> bytes:
    return dsse.public_pem(ec.generate_private_key(curve).public_key())


def off_the_curve() -> bytes:
    """A text of the right form whose point lies on no curve."""
    header = base64.b64decode("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE")
    text = base64.b64encode(header + bytes(63) + b"\1")
    return b"-----BEGIN PUBLIC KEY-----\n%b\n%b\n-----END PUBLIC KEY-----\n" % (text[:64], text[64:])


def test_a_p256_key_is_called_at_sight_as_when_it_is_parsed() -> None:
    for _ in range(50):  # every way in which base64 can end
        pem = pem_of(ec.SECP256R1())
        parsed = serialization.load_pem_public_key(pem)
        assert isinstance(parsed, ec.EllipticCurvePublicKey)
        assert dsse.load_public_key(pem) == parsed
        name = fingerprints.PREFIX + hashlib.sha256(dsse.public_pem(parsed)).hexdigest()
        assert (fingerprints.at_sight(pem), dsse.fingerprint(pem)) == (name, name)


@pytest.mark.parametrize(
    "change",
    [
        lambda pem: pem.replace(b"\n", b"\r\n"),
        lambda pem: pem + b"\n",
        lambda pem: b"# mine\n" + pem,
        lambda pem: pem.rstrip(b"\n"),
        lambda pem: pem[:64] + b"\n" + pem[64:],
    ],
    ids=["crlf", "blank line", "comment", "no newline", "wrapped otherwise"],
)
def test_a_key_in_another_form_is_not_called_by_its_text(change: Callable[[bytes], bytes]) -> None:
    assert fingerprints.at_sight(change(pem_of(ec.SECP256R1()))) is None


def test_spare_bits_do_not_make_one_key_two() -> None:
    """`AR==` and `AQ==` are the same byte to a reader that is not strict."""
    pem = pem_of(ec.SECP256R1())
    end = pem.index(b"==")
    for letter in b"BCDEFabcdef0123":
        assert fingerprints.at_sight(pem[: end - 1] + bytes([letter]) + pem[end:]) is None


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1(), ec.SECP256K1()], ids=lambda curve: curve.name)
def test_keys_on_other_curves_are_parsed(curve: ec.EllipticCurve) -> None:
    assert fingerprints.at_sight(pem_of(curve)) is None


def test_no_other_kind_of_key_is_taken_for_one() -> None:
    pem = rsa.generate_private_key(65537, 2048).public_key()
    text = pem.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert fingerprints.at_sight(text) is None


def test_a_report_and_the_rules_call_the_keys_alike(tmp_path: Path) -> None:
    (tmp_path / "one.pem").write_bytes(pem_of(ec.SECP256R1()))
    (tmp_path / "two.pem").write_bytes(pem_of(ec.SECP384R1()))
    (tmp_path / "windows.pem").write_bytes(pem_of(ec.SECP256R1()).replace(b"\n", b"\r\n"))
    (tmp_path / "broken.pem").write_bytes(b"no key")
    seen, held = trust_dir.look(tmp_path), trust_store.read(tmp_path)
    assert len(seen.trusted) == 3
    assert seen.trusted == held.sets.trusted
    assert seen.warnings == tuple(warning for _, warning in held.unread) != ()


def test_what_is_revoked_is_not_said_to_be_trusted(tmp_path: Path) -> None:
    pem = pem_of(ec.SECP256R1())
    (tmp_path / "one.pem").write_bytes(pem)
    (tmp_path / trust_dir.DEVICE_FILE).write_text(
        json.dumps({"device_id": "", "revoked": [dsse.fingerprint(pem)], "used_orders": [], "schema": 1})
    )
    assert trust_dir.look(tmp_path).trusted == ()


def test_a_key_that_is_told_at_sight_is_still_parsed_where_it_is_used(tmp_path: Path) -> None:
    """It is on no curve: a report may name it, the rules neither take it nor stumble over it."""
    bad = off_the_curve()
    name = fingerprints.at_sight(bad)
    assert name is not None
    with pytest.raises(Refused, match="not a public key"):
        dsse.fingerprint(bad)
    (tmp_path / f"{name.removeprefix('sha256:')}.pem").write_bytes(bad)
    (tmp_path / "good.pem").write_bytes(forge.signer().public_pem)
    held = trust_store.read(tmp_path)
    assert held.sets.trusted == (forge.fingerprint(),)
    assert held.unread[0][1].startswith("key-unreadable")


_LOADED = """
import json, sys
from device_agent import cli
assert cli.main(sys.argv[1:]) == 0
large = {"device_agent.shared.protocol.reports"}
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules} | large & set(sys.modules))))
"""


def test_status_loads_no_cryptography_no_numpy_and_no_package_metadata(tmp_path: Path) -> None:
    """A fleet with nothing to do asks every device for its status, and for nothing else."""
    folder = tmp_path / constants.TRUST_DIR
    folder.mkdir()
    (folder / "signing.pem").write_bytes(forge.signer().public_pem)
    command = [sys.executable, "-c", _LOADED, "--root", str(tmp_path), "status", "--json"]
    said = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout.splitlines()
    assert json.loads(said[0])["trusted"] == [forge.fingerprint()]
    loaded = set(json.loads(said[1]))
    assert "device_agent" in loaded
    assert not loaded & {"cryptography", "numpy", "email", "csv", "device_agent.shared.protocol.reports"}
