"""Releases and orders of every version that was ever published still verify, run and are obeyed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from device_agent.cli import main
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants, documents, model_info, reports
from device_agent.shared.protocol.errors import Refused
from device_agent.shared.protocol.record import shape
from device_agent.shared.release import directory
from device_agent.shared.release.model_file import read_info
from device_agent.shared.trust import orders, reasons, rules
from device_agent.store import state, trust_store
from knnkit.release.verify import verify_release

HERE = Path(__file__).parent
VERSIONS = sorted(path.parent for path in HERE.glob("*/index.json"))
#: After everything that is kept here was made: 2027-01-15.
NOW = 1_800_000_000


def index(version: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((version / "index.json").read_bytes())
    return found


KEPT = [(version, name) for version in VERSIONS for name in index(version) if (version / name).is_dir()]
kept = pytest.mark.parametrize(("version", "name"), KEPT, ids=[f"{version.name}-{name}" for version, name in KEPT])
each = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)


def test_the_first_version_is_kept() -> None:
    assert {(version.name, name) for version, name in KEPT} >= {("0.1.0", "iris"), ("0.1.0", "wine")}


@kept
def test_the_host_verifies_it(version: Path, name: str) -> None:
    verdict = verify_release(version / name, (version / "keys").iterdir(), now=NOW)
    assert {"digest": verdict.digest, "signed_by": verdict.signed_by} == index(version)[name]
    assert verdict.warnings == ()


@kept
def test_its_model_and_golden_set_are_read(version: Path, name: str) -> None:
    info = read_info(version / name / constants.MODEL_FILE)
    golden = Golden.from_bytes((version / name / constants.GOLDEN_FILE).read_bytes())
    assert info.name == name
    assert golden.rows.shape[1] == info.n_features == len(info.feature_names)


@kept
def test_a_device_of_today_stages_activates_and_commits_it(
    version: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    root.mkdir(mode=0o700)
    (root / constants.TRUST_DIR).mkdir(mode=0o700)
    for key in (version / "keys").iterdir():
        (root / constants.TRUST_DIR / key.name).write_bytes(key.read_bytes())
    digest = index(version)[name]["digest"]
    answers = []
    for words in (["stage", version / name], ["activate", digest], ["confirm", digest]):
        assert main(["--root", str(root), *map(str, words), "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    staged, activated, committed = answers
    assert staged["release"]["digest"] == committed["release"]["digest"] == digest
    assert activated["certificate"]["identical"] > 0
    assert activated["certificate"]["different"] == 0
    assert activated["certificate"]["failures"] == []


@kept
def test_one_changed_byte_of_it_is_still_refused(version: Path, name: str, tmp_path: Path) -> None:
    release = tmp_path / "release"
    release.mkdir()
    for file in constants.RELEASE_FILES:
        data = bytearray((version / name / file).read_bytes())
        data[len(data) // 2] ^= file == constants.MODEL_FILE
        (release / file).write_bytes(data)
    keys = trust_store.read(version / "keys").sets.keys
    with directory.open_release(release) as opened, pytest.raises(Refused) as caught:
        opened.verify(rules.TrustState(keys=keys), now=NOW)
    assert caught.value.reason == reasons.Reason.FILE_CHANGED.value


@each
def test_its_hosts_and_devices_and_those_of_today_read_each_other(version: Path) -> None:
    """Either side may be the older one, and an older agent may come back to a board and its state. A reader ignores
    keys that it does not know; one that it needs must be there."""
    kept: dict[str, dict[str, bool]] = json.loads((version / "keys.json").read_bytes())
    assert {"Status", "Committed", "HistoryEntry", "StoreState", "Pending"} <= kept.keys()
    for name, keys in kept.items():
        today = _TODAY.get(name, name)
        kind = next(vars(module)[today] for module in (documents, model_info, reports, state) if today in vars(module))
        now = shape(kind) or {}
        assert _needed(now) <= keys.keys(), f"{name}: an older peer lacks a key: give it a default"
        assert _needed(keys) <= now.keys(), f"{name}: an older peer needs a key that is gone"


#: Records of earlier versions that another one has taken the place of.
_TODAY = {"Event": "HistoryEntry"}


def _needed(keys: Mapping[str, bool]) -> set[str]:
    return {key for key, optional in keys.items() if not optional}


@each
def test_its_rotation_and_revocation_are_obeyed(version: Path) -> None:
    known = trust_store.read(version / "keys").sets.keys
    first, following = index(version)["iris"]["signed_by"], index(version)["next"]
    before = orders.KeySets({first: known[first]})
    assert orders.apply((version / "rotation.json").read_bytes(), before).trusted == (following,)
    both = orders.KeySets({first: known[first], following: known[following]})
    assert orders.apply((version / "revocation.json").read_bytes(), both).trusted == (first,)
