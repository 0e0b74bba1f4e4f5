"""Each release that replaces another is compared with it, on the new one's golden rows, before the switch."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.device import ROOT, Device
from support.releases import Releases

from device_agent.lifecycle import compare
from device_agent.serving.load import load_model
from device_agent.shared.golden import changes
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.documents import ReleaseRef
from device_agent.shared.protocol.input_info import Audio, Input
from device_agent.shared.protocol.model_info import Gates
from device_agent.shared.protocol.record import replace
from device_agent.shared.protocol.reports import Activated, Compared, Problem, Running
from device_agent.shared.release import model_file
from device_agent.shared.release.directory import open_release

#: Kills the process that loads `iris-next` (k = 11), as a fault in the runtime does.
KILLER = """
import os, signal
from device_agent.inference.tflite_knn import TfliteKNN
load = TfliteKNN.__init__
def init(self, *arguments, **more):
    load(self, *arguments, **more)
    if self.info.k == 11:
        os.kill(os.getpid(), signal.SIGSEGV)
TfliteKNN.__init__ = init
"""
ASKED = Gates(not_worse_than="current")


def activate(device: Device, release: Path, **env: str) -> Activated:
    return json_codec.from_plain(Activated, device.ask("activate", device.stage(release), **env))


def expected(old: Path, new: Path, device: Device) -> list[tuple[str, str, str, tuple[int, ...]]]:
    """Returns what changes, from the answers of `classify` and of the new release's reference."""
    golden = Golden.from_bytes((new / constants.GOLDEN_FILE).read_bytes())
    rows = "".join(",".join(map(str, row)) + "\n" for row in golden.rows.tolist())
    before = device.run("classify", input=rows).out.split()
    names = (*map(str, model_file.read_info(new / constants.MODEL_FILE).classes), constants.UNKNOWN_LABEL)
    after, truth = [names[code] for code in golden.label], [names[code] for code in golden.truth]
    found: dict[tuple[str, str, str], list[int]] = {}
    for row, key in enumerate(zip(truth, before, after)):
        if key[1] != key[2]:
            found.setdefault(key, []).append(row)
    return sorted((*key, tuple(places)) for key, places in found.items())


def listed(compared: Compared | None) -> list[tuple[str, str, str, tuple[int, ...]]]:
    assert compared is not None
    assert all(flip.count == len(flip.rows) for flip in compared.flips)
    assert [flip.count for flip in compared.flips] == sorted((flip.count for flip in compared.flips), reverse=True)
    return sorted((flip.truth, flip.before, flip.after, flip.rows) for flip in compared.flips)


@pytest.mark.parametrize(
    ("old", "new"), [("iris", "iris-forgets"), ("iris-forgets", "iris"), ("iris-next", "iris-forgets")]
)
def test_the_certificate_lists_the_labels_that_change(
    device: Device, releases: Releases, tmp_path: Path, old: str, new: str
) -> None:
    device.install(releases[old])
    later = releases.variant(new, tmp_path / "new", sequence=20)
    want = expected(releases[old], later, device)
    assert want, "the case shows nothing"
    activated = activate(device, later)
    assert activated.certificate.passed, "no gate asks"
    assert [each for each in listed(activated.certificate.compared) if each[0]] == want


def test_a_first_release_and_the_same_one_have_nothing_beside_them(device: Device, releases: Releases) -> None:
    assert activate(device, releases["iris"]).certificate.compared is None
    device.ask("confirm", device.stage(releases["iris"]))
    assert activate(device, releases["iris"]).certificate.compared is None


def damage(device: Device, name: str) -> None:
    """Overwrites the middle of a file of the running release."""
    path = (device.root / constants.CURRENT_LINK).resolve() / name
    path.chmod(0o600)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + b"\0" * 64 + data[len(data) // 2 + 64 :])


@pytest.mark.parametrize("fault", ["killed", "damaged", "removed"])
def test_a_gate_is_missed_if_the_running_release_cannot_answer(
    device: Device, releases: Releases, tmp_path: Path, fault: str
) -> None:
    """The device keeps its release; without the gate, the same model is activated."""
    (tmp_path / "sitecustomize.py").write_text(KILLER)
    env = {"PYTHONPATH": f"{tmp_path}:{ROOT}"} if fault == "killed" else {}
    first = device.install(releases["iris-next"])
    if fault == "damaged":
        damage(device, constants.MODEL_FILE)
    elif fault == "removed":
        shutil.rmtree((device.root / constants.CURRENT_LINK).resolve())
    asked = device.stage(releases.variant("iris", tmp_path / "asked", sequence=20, gates=ASKED))
    problem = json_codec.from_plain(Problem, device.ask("activate", asked, code=4, **env))
    assert problem.reason == "gate-failed"
    assert "current release: iris 1.1.0 does not answer" in problem.message
    assert "leave out `not_worse_than`" in problem.hint
    assert problem.certificate is not None
    assert problem.certificate.different == 0, "the new release itself was checked"
    assert device.answering() == first
    activated = activate(device, releases.variant("iris", tmp_path / "free", sequence=21), **env)
    assert activated.certificate.passed
    assert activated.certificate.compared is None


def test_a_first_release_has_nothing_to_compare_with_and_says_so(
    device: Device, releases: Releases, tmp_path: Path
) -> None:
    certificate = activate(device, releases.variant("iris", tmp_path / "first", gates=ASKED)).certificate
    assert certificate.passed
    assert any("no release yet" in warning for warning in certificate.warnings)


def test_a_release_that_kills_its_process_can_be_replaced(device: Device, releases: Releases, tmp_path: Path) -> None:
    """The comparison is not worth a device that can never be mended."""
    (tmp_path / "sitecustomize.py").write_text(KILLER)
    dying = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    device.install(releases["iris-next"])
    activated = activate(device, releases.variant("iris", tmp_path / "free", sequence=21), **dying)
    assert activated.certificate.compared is None
    assert activated.certificate.different == 0


def test_compare_answers_another_releases_rows_and_changes_nothing(device: Device, releases: Releases) -> None:
    device.install(releases["iris"])
    before = {path: path.stat().st_mtime_ns for path in device.root.rglob("*")}
    data = (releases["iris-next"] / constants.GOLDEN_FILE).read_bytes()
    found = json_codec.from_plain(Running, device.run("compare", "--json", input=data).document)
    golden = Golden.from_bytes(data)
    assert found.release.version == "1.0.0"
    assert found.labels is not None
    assert len(found.labels) == len(golden.rows)
    own = Golden.from_bytes((releases["iris"] / constants.GOLDEN_FILE).read_bytes())
    names = (*found.classes, constants.UNKNOWN_LABEL)
    assert np.array_equal(golden.rows, own.rows)
    assert list(found.labels) == [names[code] for code in own.label]
    assert {path: path.stat().st_mtime_ns for path in device.root.rglob("*")} == before
    other = (releases["digits"] / constants.GOLDEN_FILE).read_bytes()
    assert device.run("compare", "--json", input=other).document["labels"] is None
    assert device.run("compare", "--json", input=b"rubbish").code != 0


@pytest.mark.parametrize(("name", "input"), [("plants", False), ("pixels", True)])
def test_releases_with_the_same_raw_columns_can_be_compared(name: str, input: bool, releases: Releases) -> None:
    """A category more, or another embedder, changes how many features a row has, and not what a row is."""
    golden = Golden.from_bytes((releases[name] / constants.GOLDEN_FILE).read_bytes())
    wider = replace(golden, rows=np.pad(golden.rows, ((0, 0), (0, 1))))
    with open_release(releases[name]) as opened:
        found = compare.ask(compare.Opened(opened, ReleaseRef("0" * 64, name, "1", 1)), wider, "auto")
        model = load_model(opened)
        assert (model.chain is not None) == input
        answers = compare.ask(compare.Opened(opened, ReleaseRef("0" * 64, name, "1", 1)), golden, "auto")
    assert found is not None
    assert found.labels is not None
    assert found == answers
    more = replace(model.info, feature_names=(*model.info.feature_names, "more"), n_features=model.info.n_features + 1)
    assert changes.compare(found, more, wider, golden.label).fits
    sound = replace(model.info, input=Input(audio=Audio(8_000)))
    assert not changes.compare(found, sound, wider, golden.label).fits
