"""The checklist "Signature": each attack on a release is refused with its own word, and an honest release is not."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ROOT, forge
from support.attacks import ATTACKS, Attack
from support.forge import NOW, fingerprint

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import Refused
from device_agent.shared.release import directory
from device_agent.shared.trust import dsse, listing, rules
from device_agent.shared.trust.listing import SIZE_CAPS
from device_agent.shared.trust.reasons import Reason
from knnkit.cli import main
from knnkit.release.signing import sign_release


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return forge.write(tmp_path / "release")


def refuses(reason: Reason, release: Path, known: rules.TrustState | None = None, **options: object) -> Refused:
    with pytest.raises(Refused) as caught:
        forge.verify(release, known, **options)
    assert caught.value.reason == reason.value
    assert caught.value.exit_code == constants.EXIT_REFUSED
    return caught.value


def test_an_honest_release_is_accepted_and_says_who_signed_it(release: Path) -> None:
    verdict = forge.verify(release)
    digests = [hashlib.sha256((release / name).read_bytes()).digest() for name in sorted(constants.SIGNED_FILES)]
    assert verdict.digest == hashlib.sha256(b"".join(digests)).hexdigest()
    assert verdict.signed_by == fingerprint()
    assert verdict.model_sha256 == hashlib.sha256((release / constants.MODEL_FILE).read_bytes()).hexdigest()
    assert (verdict.already_committed, verdict.warnings) == (False, ())


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_is_refused_by_name(attack: Attack, release: Path) -> None:
    forge.verify(release)
    attack.damage(release)
    refuses(attack.reason, release)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_the_host_refuses_it_with_the_same_word_and_exit_code_4(
    attack: Attack, release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attack.damage(release)
    public = tmp_path / "owner.pub"
    public.write_bytes(forge.signer().public_pem)
    assert main(["verify", str(release), "--key", str(public), "--json"]) == constants.EXIT_REFUSED
    captured = capsys.readouterr()
    assert f'"reason":"{attack.reason.value}"' in captured.out
    assert captured.err.startswith("knnkit: ")


def test_attack_names_are_unique() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)


def test_no_byte_of_the_signed_files_can_be_flipped(tmp_path: Path) -> None:
    release = forge.write(tmp_path / "small", model=b"a model")
    for name in constants.SIGNED_FILES:
        for position in range((release / name).stat().st_size):
            forge.flip(release / name, position)
            refuses(Reason.FILE_CHANGED, release)
            forge.flip(release / name, position)
    forge.verify(release)


def test_no_byte_of_the_bundle_can_be_flipped(release: Path) -> None:
    with directory.open_release(release) as opened:
        honest, manifest, files = (
            opened.read(constants.SIGNATURE_FILE),
            opened.read(constants.MANIFEST_FILE),
            opened.files,
        )

    def verify(bundle: bytes) -> rules.Verdict:
        return rules.verify_release(bundle=bundle, manifest=manifest, files=files, state=forge.state(), now=NOW)

    for position in range(len(honest)):
        for mask in (0x01, 0x20, 0xFF):
            with pytest.raises(Refused):
                verify(honest[:position] + bytes([honest[position] ^ mask]) + honest[position + 1 :])
    assert verify(honest) == forge.verify(release)


def test_a_revoked_key_accepts_nothing_new(release: Path) -> None:
    refuses(Reason.REVOKED_KEY, release, forge.state(revoked=frozenset({fingerprint()})))


def test_a_device_without_keys_accepts_nothing(release: Path) -> None:
    refuses(Reason.NO_TRUSTED_KEYS, release, forge.state(keys={}))


def test_a_key_stored_under_another_fingerprint_is_not_used(release: Path) -> None:
    forge.sign(release, by="stranger", bundle=_claim_owner)
    swapped = {fingerprint("owner"): forge.signer("stranger").public_pem}
    refuses(Reason.KEY_MALFORMED, release, forge.state(keys=swapped))


def _claim_owner(data: dict) -> None:
    data["verificationMaterial"]["publicKey"]["hint"] = fingerprint("owner").removeprefix("sha256:")


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", b"x" * 5000])
def test_a_broken_key_file_is_refused_by_name(release: Path, pem: bytes) -> None:
    refuses(Reason.KEY_MALFORMED, release, forge.state(keys={fingerprint(): pem}))


@pytest.mark.parametrize("curve", ["P-256", "P-384", "P-521"])
def test_every_curve_of_the_specification_signs_and_verifies(release: Path, curve: str) -> None:
    signer = forge.signer(curve, curve)
    assert sign_release(release, signer).signed_by == fingerprint(curve, curve)
    keys = {fingerprint(curve, curve): signer.public_pem}
    assert forge.verify(release, forge.state(keys=keys)).signed_by == fingerprint(curve, curve)


def test_a_set_of_keys_is_trusted_each_on_its_own(release: Path) -> None:
    known = forge.state(keys=forge.keys("owner", "colleague"))
    for name in ("owner", "colleague"):
        forge.sign(release, by=name)
        assert forge.verify(release, known).signed_by == fingerprint(name)


def test_signing_again_with_another_key_is_the_same_release(release: Path) -> None:
    known = forge.state(keys=forge.keys("owner", "colleague"))
    before = forge.verify(release, known).digest
    forge.sign(release, by="colleague")
    assert forge.verify(release, known).digest == before


def test_another_release_than_the_one_asked_for_is_refused(release: Path) -> None:
    refuses(Reason.OTHER_RELEASE, release, expected_digest="0" * 64)


def test_the_fingerprint_is_what_sha256sum_prints() -> None:
    pem = forge.signer().public_pem
    assert dsse.fingerprint(pem) == "sha256:" + hashlib.sha256(pem).hexdigest()
    assert dsse.fingerprint(pem.replace(b"\n", b"\r\n")) == dsse.fingerprint(pem)


# --- between verifying and loading --------------------------------------------------------------------------------
def test_a_file_that_is_renamed_over_the_model_is_not_what_gets_loaded(release: Path, tmp_path: Path) -> None:
    honest = (release / constants.MODEL_FILE).read_bytes()
    with directory.open_release(release) as opened:
        opened.verify(forge.state(), now=NOW)
        (tmp_path / "evil").write_bytes(b"an evil model" * 100)
        (tmp_path / "evil").rename(release / constants.MODEL_FILE)
        assert Path(opened.path(constants.MODEL_FILE)).read_bytes() == honest
        opened.confirm_unchanged()


def test_a_directory_that_is_swapped_is_not_what_gets_loaded(release: Path, tmp_path: Path) -> None:
    honest = (release / constants.MODEL_FILE).read_bytes()
    evil = forge.write(tmp_path / "evil", model=b"an evil model")
    with directory.open_release(release) as opened:
        opened.verify(forge.state(), now=NOW)
        release.rename(tmp_path / "moved")
        evil.rename(release)
        assert Path(opened.path(constants.MODEL_FILE)).read_bytes() == honest


def test_a_write_into_the_verified_model_is_noticed(release: Path) -> None:
    with directory.open_release(release) as opened:
        opened.verify(forge.state(), now=NOW)
        before = (release / constants.MODEL_FILE).stat().st_ctime_ns
        while (release / constants.MODEL_FILE).stat().st_ctime_ns == before:  # the clock of the file system ticks
            forge.flip(release / constants.MODEL_FILE, 3)
        _write_at(release / constants.MODEL_FILE, b"XXX")
        with pytest.raises(Refused) as caught:
            opened.confirm_unchanged()
    assert caught.value.reason == Reason.FILE_SWAPPED.value


def test_a_modification_time_that_is_set_back_hides_nothing(release: Path) -> None:
    path = release / constants.MODEL_FILE
    found = path.stat()
    with directory.open_release(release) as opened:
        while path.stat().st_ctime_ns == found.st_ctime_ns:
            _write_at(path, b"XXX")
            os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
        with pytest.raises(Refused):
            opened.confirm_unchanged()


def _write_at(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        file.write(data)


def test_a_swap_is_noticed_where_there_is_no_proc(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory.os, "access", lambda *_: False)
    with directory.open_release(release) as opened:
        assert opened.path(constants.MODEL_FILE) == str(release / constants.MODEL_FILE)
        opened.confirm_unchanged()
        (tmp_path / "evil").write_bytes((release / constants.MODEL_FILE).read_bytes())
        (tmp_path / "evil").rename(release / constants.MODEL_FILE)
        with pytest.raises(Refused) as caught:
            opened.confirm_unchanged()
    assert caught.value.reason == Reason.FILE_SWAPPED.value


def test_a_change_of_mode_is_no_change_of_the_model(release: Path) -> None:
    with directory.open_release(release) as opened:
        for name in constants.RELEASE_FILES:
            (release / name).chmod(0o400)
        opened.confirm_unchanged()


def test_small_files_are_read_again_as_they_were_hashed(release: Path) -> None:
    with directory.open_release(release) as opened:
        _write_at(release / constants.MANIFEST_FILE, b"[]")
        with pytest.raises(Refused) as caught:
            opened.read(constants.MANIFEST_FILE)
    assert caught.value.reason == Reason.FILE_SWAPPED.value


def test_no_descriptor_is_left_open(release: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    forge.verify(release)
    (release / "unlisted").touch()
    refuses(Reason.FILE_UNLISTED, release)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_release_directory_that_is_a_link_is_refused_on_a_device(release: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(release)
    refuses(Reason.FILE_SYMLINK, tmp_path / "link")


def test_a_missing_directory_is_refused_by_name(tmp_path: Path) -> None:
    refuses(Reason.FILE_MISSING, tmp_path / "nowhere")


def test_an_unreadable_file_is_refused_by_name(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(directory.os, "preadv", broken)
    assert "Input/output error" in str(refuses(Reason.FILE_UNREADABLE, release))


@pytest.mark.parametrize("reason", [Reason.FILE_SPECIAL, Reason.FILE_TOO_LARGE])
def test_what_takes_the_place_of_a_file_after_the_directory_was_listed_is_judged_anew(
    release: Path, reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = directory._list

    def swap(folder: int) -> dict[str, listing.Entry]:
        before = listed(folder)
        (release / constants.MODEL_FILE).unlink()
        if reason is Reason.FILE_SPECIAL:
            os.mkfifo(release / constants.MODEL_FILE)
        else:
            (release / constants.MODEL_FILE).touch()
            os.truncate(release / constants.MODEL_FILE, constants.MAX_MODEL + 1)
        return before

    monkeypatch.setattr(directory, "_list", swap)
    refuses(reason, release)


def test_an_endless_directory_is_refused_without_reading_it_to_its_end(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    @contextlib.contextmanager
    def endless(folder: int) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scandir(folder) as found:
            yield itertools.cycle(list(found))

    (release / "one-too-many").touch()
    monkeypatch.setattr(directory.os, "scandir", endless)
    monkeypatch.setattr(directory.os, "listdir", lambda _: pytest.fail("it would never come back"))
    refuses(Reason.FILE_UNLISTED, release)


def test_a_file_that_grows_while_it_is_hashed_is_refused(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = directory._hash

    def grow(descriptor: int, size: int) -> listing.FileFact:
        with (release / constants.MODEL_FILE).open("ab") as file:
            file.write(b"more")
        return hashed(descriptor, size)

    monkeypatch.setattr(directory, "_hash", grow)
    refuses(Reason.FILE_SWAPPED, release)


def test_every_reason_is_a_stable_word() -> None:
    words = [reason.value for reason in Reason]
    assert len(set(words)) == len(words)
    assert all(word == word.lower() and " " not in word for word in words)


def test_the_threat_model_names_reasons_that_exist() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    table = page.partition("## What happens in each attack")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", table))
    assert len(named) > 30
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "device_agent").rglob("*.py"))
    assert named <= {*(reason.value for reason in Reason), *re.findall(r'reason="([a-z-]+)"', code)}


def test_the_manifest_that_counts_is_the_signed_one(release: Path) -> None:
    with directory.open_release(release) as opened:
        other = dataclasses.replace(forge.MANIFEST, name="poison")
        with pytest.raises(Refused) as caught:
            rules.verify_release(
                bundle=opened.read(constants.SIGNATURE_FILE),
                manifest=forge.write_manifest(other),
                files=opened.files,
                state=forge.state(),
                now=NOW,
            )
    assert caught.value.reason == Reason.FILE_CHANGED.value


@pytest.mark.parametrize(
    ("name", "limit"),
    [(constants.SIGNATURE_FILE, constants.MAX_SIGNATURE), (constants.MANIFEST_FILE, constants.MAX_MANIFEST)],
)
def test_the_rules_cap_what_they_are_given_whoever_read_it(release: Path, name: str, limit: int) -> None:
    with directory.open_release(release) as opened:
        given = {each: opened.read(each) for each in (constants.SIGNATURE_FILE, constants.MANIFEST_FILE)}
        given[name] += b" " * (limit + 1 - len(given[name]))
        with pytest.raises(Refused) as caught:
            rules.verify_release(
                bundle=given[constants.SIGNATURE_FILE],
                manifest=given[constants.MANIFEST_FILE],
                files=opened.files,
                state=forge.state(),
                now=NOW,
            )
    assert caught.value.reason == Reason.FILE_TOO_LARGE.value


@pytest.mark.parametrize(("name", "cap"), SIZE_CAPS.items())
def test_a_file_may_be_as_large_as_its_cap_and_no_larger(name: str, cap: int) -> None:
    listing.check_entry(name, listing.Entry("file", cap))
    with pytest.raises(Refused) as caught:
        listing.check_entry(name, listing.Entry("file", cap + 1))
    assert caught.value.reason == Reason.FILE_TOO_LARGE.value
