"""Whatever instruction the agent dies at, the board is on the old release or on the new one, and nothing leaks."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import crashpoints
from support.crashpoints import SIGNALLED, Disk, Effect, Fault
from support.device import Device
from support.releases import Releases

from device_agent import cli
from device_agent.lifecycle import check, choose_search
from device_agent.serving.load import load_accepted, open_accepted
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.golden.judge import judge
from device_agent.shared.protocol import constants, documents, json_codec, model_info
from device_agent.shared.protocol.documents import ReleaseRef, Searched
from device_agent.store import history, lock, searches
from device_agent.store.state import StoreState, answering
from device_agent.store.store import Store
from device_agent.system import clock
from knnkit.release import keys, orders
from knnkit.release.signing import FileSigner, sign_release


@dataclass(frozen=True)
class Scenario:
    """A command on a prepared root: which releases may answer after a crash, and which must once it is repeated."""

    name: str
    root: Path
    argv: tuple[str, ...]
    allowed: frozenset[str | None]
    finally_: str | None
    code: int = 0
    upload: str = ""

    def on(self, root: Path) -> Callable[[], int]:
        argv = [text.replace(str(self.root), str(root)) for text in self.argv]
        return lambda: cli.main(["--root", str(root), *argv, "--json"])


class Bench:
    """The releases and the prepared roots of all scenarios."""

    def __init__(self, folder: Path, releases: Releases) -> None:
        self.folder = folder
        self.releases = releases
        self.old = releases["iris"]
        self.new = releases["iris-next"]
        self.uploads = folder / "uploads"
        self.uploads.mkdir()
        self.devices = 0

    def device(self) -> Device:
        self.devices += 1
        return Device(self.folder / f"prepared-{self.devices}", self.releases)

    def with_old(self) -> tuple[Device, str]:
        device = self.device()
        return device, device.install(self.old)

    def with_both(self) -> tuple[Device, str, str]:
        device, old = self.with_old()
        return device, old, device.stage(self.new)

    def upload(self, device: Device, release: Path) -> str:
        digest: str = device.ask("verify", release)["release"]["digest"]
        place = device.root / constants.INCOMING_DIR / digest
        place.parent.mkdir(exist_ok=True)
        shutil.copytree(release, place)
        return digest

    def upload_parts(self, device: Device, release: Path) -> tuple[str, str]:
        """Returns digest and place of an upload as a host leaves it for `install`."""
        digest = self.upload(device, release)
        place = f"{constants.INCOMING_DIR}/{digest}"
        for path in (device.root / place).iterdir():
            path.rename(path.with_name(path.name + constants.PART_SUFFIX))
        return digest, place

    def signature(self, device: Device, digest: str) -> str:
        """Returns the path of a signature of a release by a second key, which the device trusts too."""
        pair = self.folder / f"second-{self.devices}"
        made = keys.generate(pair)
        shutil.copy(made.public, device.root / constants.TRUST_DIR / "second.pem")
        copy = self.folder / f"signed-again-{self.devices}"
        shutil.copytree(device.root / constants.RELEASES_DIR / digest, copy)
        sign_release(copy, FileSigner.load(made.private))
        return str(copy / constants.SIGNATURE_FILE)


def stage_an_upload(bench: Bench) -> Scenario:
    device, old = bench.with_old()
    new = bench.upload(device, bench.new)
    place = f"{constants.INCOMING_DIR}/{new}"
    return Scenario("stage", device.root, ("stage", str(device.root / place)), frozenset({old}), old, upload=place)


def stage_from_elsewhere(bench: Bench) -> Scenario:
    device, old = bench.with_old()
    return Scenario("import", device.root, ("stage", str(bench.new)), frozenset({old}), old)


def stage_over_a_damaged_copy(bench: Bench) -> Scenario:
    device, old, new = bench.with_both()
    damaged = device.root / constants.RELEASES_DIR / new / constants.MODEL_FILE
    damaged.write_bytes(damaged.read_bytes()[:1000])
    place = f"{constants.INCOMING_DIR}/{bench.upload(device, bench.new)}"
    return Scenario("mend", device.root, ("stage", str(device.root / place)), frozenset({old}), old, upload=place)


def install_an_upload(bench: Bench) -> Scenario:
    device, old = bench.with_old()
    new, place = bench.upload_parts(device, bench.new)
    argv = ("install", str(device.root / place), "--deadline", "600")
    return Scenario("install", device.root, argv, frozenset({old, new}), new, upload=place)


def install_the_first(bench: Bench) -> Scenario:
    device = bench.device()
    new, place = bench.upload_parts(device, bench.new)
    argv = ("install", str(device.root / place), "--deadline", "600")
    return Scenario("install the first", device.root, argv, frozenset({None, new}), new, upload=place)


def install_one_that_fails(bench: Bench) -> Scenario:
    device, old = bench.with_old()
    gates = model_info.Gates(accuracy=1.0)
    bad = bench.releases.variant("iris-next", bench.folder / "bad-upload", gates=gates)
    _, place = bench.upload_parts(device, bad)
    argv, code = ("install", str(device.root / place)), constants.EXIT_REFUSED
    return Scenario("install, reject", device.root, argv, frozenset({old}), old, code=code, upload=place)


def activate(bench: Bench) -> Scenario:
    device, old, new = bench.with_both()
    return Scenario("activate", device.root, ("activate", new, "--deadline", "600"), frozenset({old, new}), new)


def activate_the_first(bench: Bench) -> Scenario:
    device = bench.device()
    new = device.stage(bench.new)
    return Scenario("first", device.root, ("activate", new, "--deadline", "600"), frozenset({None, new}), new)


def activate_one_that_fails(bench: Bench) -> Scenario:
    device, old = bench.with_old()
    gates = model_info.Gates(accuracy=1.0)
    bad = device.stage(bench.releases.variant("iris-next", bench.folder / "bad", gates=gates))
    return Scenario("reject", device.root, ("activate", bad), frozenset({old}), old, code=constants.EXIT_REFUSED)


def confirm(bench: Bench) -> Scenario:
    device, _, new = bench.with_both()
    device.ask("activate", new, "--deadline", "600")
    return Scenario("confirm", device.root, ("confirm", new), frozenset({new}), new)


def confirm_with_a_long_history(bench: Bench) -> Scenario:
    scenario = confirm(bench)
    file = scenario.root / constants.HISTORY_FILE
    note = json_codec.dumps(documents.HistoryEntry(0, "staged", None, None, "x" * 500, "somebody"))
    file.write_text(f"{note}\n" * (history.MAX_BYTES // len(note) + 10) + file.read_text())
    return dataclasses.replace(scenario, name="confirm, long history")


def give_up_an_activation(bench: Bench) -> Scenario:
    device, old, new = bench.with_both()
    device.ask("activate", new, "--deadline", "600")
    return Scenario("give up", device.root, ("rollback",), frozenset({old, new}), old)


def take_back_an_activation(bench: Bench) -> Scenario:
    device, old, new = bench.with_both()
    device.ask("activate", new, "--deadline", "600", "--holder", "ann 1")
    argv = ("rollback", "--own", "--holder", "ann 1")
    return Scenario("take back", device.root, argv, frozenset({old, new}), old)


def roll_back(bench: Bench) -> Scenario:
    device = bench.device()
    old, new = device.install_all(bench.old, bench.new)
    return Scenario("rollback", device.root, ("rollback",), frozenset({old, new}), old)


def revert_after_the_deadline(bench: Bench) -> Scenario:
    device, old, new = bench.with_both()
    device.ask("activate", new, "--deadline", "600")
    file = device.root / constants.STATE_FILE
    state = json_codec.loads(StoreState, file.read_bytes())
    assert state.pending
    over = dataclasses.replace(state, pending=dataclasses.replace(state.pending, deadline=state.pending.started))
    file.write_bytes(json_codec.dump_file(over))
    return Scenario("revert", device.root, ("prune",), frozenset({old}), old)


def prune(bench: Bench) -> Scenario:
    device = bench.device()
    _, new = device.install_all(bench.old, bench.new)
    for sequence in range(12, 15):
        device.stage(bench.releases.variant("iris", bench.folder / f"more-{sequence}", sequence=sequence))
    return Scenario("prune", device.root, ("prune", "--keep", "2"), frozenset({new}), new)


def sign_again(bench: Bench) -> Scenario:
    """The release that runs gets another trusted key's signature: whole, old or new, at every instant."""
    device, old = bench.with_old()
    return Scenario(
        "sign again", device.root, ("stage", old, "--signature", bench.signature(device, old)), frozenset({old}), old
    )


def stage_with_another_signature(bench: Bench) -> Scenario:
    device, old = bench.with_old()
    place = f"{constants.INCOMING_DIR}/{bench.upload(device, bench.old)}"
    shutil.copy(bench.signature(device, old), device.root / place / constants.SIGNATURE_FILE)
    argv = ("stage", str(device.root / place))
    return Scenario("stage, another signature", device.root, argv, frozenset({old}), old, upload=place)


def lower_the_floors(bench: Bench) -> Scenario:
    device, old = bench.with_old()
    known = device.ask("trust")
    signer = FileSigner.load(bench.releases.private_key)
    order = bench.folder / f"floor-{bench.devices}"
    order.write_bytes(orders.reset_floor(signer, device_id=known["device_id"], floor=3, leaves=10))
    return Scenario("lower the floors", device.root, ("rollback", "--order", str(order)), frozenset({old}), old)


def leave_a_release_whose_starts_never_answer(bench: Bench) -> Scenario:
    device = bench.device()
    old, new = device.install_all(bench.old, bench.new)
    (device.root / constants.STARTS_FILE).write_text(f"{new} {constants.FAILED_STARTS:03}\n")
    rows = bench.folder / "rows.csv"
    rows.write_text("5.1,3.5,1.4,0.2\n")
    argv = ("classify", "--input", str(rows), "--output", os.devnull)
    return Scenario("classify", device.root, argv, frozenset({old, new}), old)


SCENARIOS = (
    stage_an_upload, stage_from_elsewhere, stage_over_a_damaged_copy, install_an_upload, install_the_first,
    install_one_that_fails, activate, activate_the_first, activate_one_that_fails, confirm,
    confirm_with_a_long_history, give_up_an_activation, take_back_an_activation, roll_back, revert_after_the_deadline,
    prune, sign_again, stage_with_another_signature, leave_a_release_whose_starts_never_answer,
)  # fmt: skip


def searched(usual: Any, load: object, rows: object, digest: str, *, large: bool) -> Searched:
    """What `measure` finds where the usual search is the fastest; measures nothing."""
    runtime, alone = f"{usual.runtime.name} {usual.runtime.version}", usual.search_alone
    return Searched(digest, runtime, alone, usual.search, {alone: 1.0}, {usual.search: 1.0}, usual.batch)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, releases: Releases) -> Iterator[Bench]:
    crashpoints.preload()
    memory = Path("/dev/shm")
    # Thousands of fsyncs: on a memory disk where there is one. What is tested is the order of calls, not the disk.
    place = memory if os.access(memory, os.W_OK) else tmp_path_factory.getbasetemp()
    folder = Path(tempfile.mkdtemp(prefix="knnkit-faults-", dir=place))
    with pytest.MonkeyPatch.context() as patch:
        # How fast the model is here matters to no test.
        patch.setattr(check, "_WARM_UP", 1)
        patch.setattr(check, "_TIMED_ROWS", 1)
        patch.setattr(choose_search, "measure", searched)
        yield Bench(folder, releases)
    shutil.rmtree(folder)


@pytest.fixture(scope="module", params=SCENARIOS, ids=lambda make: make.__name__)
def scenario(bench: Bench, request: pytest.FixtureRequest) -> Scenario:
    made: Scenario = request.param(bench)
    return made


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops the clock, so that what is done alike is written alike."""
    now, up = clock.now(), clock.uptime()
    stopped = {"time": lambda: now.wall, "clock_gettime": lambda _: up, "CLOCK_BOOTTIME": 0}
    monkeypatch.setattr(clock, "time", types.SimpleNamespace(**stopped))


@pytest.fixture
def root(bench: Bench) -> Iterator[Path]:
    """Where a prepared root is copied to, again and again."""
    folder = bench.folder / "root"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def copy(scenario: Scenario, root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(scenario.root, root, symlinks=True)


def traced(scenario: Scenario, root: Path) -> tuple[Effect, ...]:
    """Returns the effects of the whole command.

    They are all that it does to the root. So the root before an effect is that after the one before it, and one kill
    between two effects shows both.
    """
    copy(scenario, root)
    ended = crashpoints.run(scenario.on(root), root)
    assert ended.code == scenario.code, (ended.out, ended.err)
    assert ended.effects
    disk = Disk(scenario.root)
    for effect in ended.effects:
        disk.play(effect)
    assert disk.files() == crashpoints.snapshot(root), "an effect was not traced"
    return ended.effects


#: Releases, each with its search, that have passed their golden check: the same bytes answer alike.
TRIED: set[tuple[str, object]] = set()


def check_the_answers(store: Store, ref: ReleaseRef, place: str) -> None:
    """Every byte of a release is the signed one, and it passes its golden check."""
    with contextlib.ExitStack() as stack:
        open_accepted(store, ref, stack)
    chosen = searches.read(store, ref.digest)
    tried = (ref.digest, chosen and (chosen.alone, chosen.batch))
    if tried not in TRIED:
        loaded = load_accepted(store, ref)
        golden = Golden.from_bytes(loaded.opened.read(constants.GOLDEN_FILE))
        gates = loaded.verdict.manifest.gates
        verdict = judge(golden, loaded.model.classify(golden.rows), loaded.model.info, gates)
        loaded.close()
        assert verdict.failures == (), place
        TRIED.add(tried)


def check_the_board(scenario: Scenario, root: Path, place: str) -> str | None:
    """Starts the agent again and looks at everything: what answers, whether it works, and what was left behind."""
    store = Store(root)
    with store.changing("test", "restart"):
        state = store.load()
    found = answering(state, clock.now())
    digest = found.release.digest if found else None
    assert digest in scenario.allowed, place
    if found:
        check_the_answers(store, found.release, place)
        assert str(store.link.readlink()) == f"releases/{digest}", place
    else:
        assert not store.link.is_symlink(), place
    for ref in (state.committed, state.previous):
        if ref:
            check_the_answers(store, ref, place)
    check_nothing_leaks(scenario, store, state, place)
    return digest


def check_nothing_leaks(scenario: Scenario, store: Store, state: StoreState, place: str) -> None:
    known = {
        constants.TRUST_DIR, constants.RELEASES_DIR, constants.INCOMING_DIR, constants.CURRENT_LINK,
        constants.STATE_FILE, constants.HISTORY_FILE, constants.LOCK_FILE, constants.STARTS_FILE,
        constants.SEARCHES_FILE,
    }  # fmt: skip
    assert {path.name for path in store.root.iterdir()} <= known, place
    assert all(constants.is_digest(path.name) for path in store.releases.iterdir()), place
    assert {path.name for path in store.incoming.iterdir()} <= {Path(scenario.upload).name}, place
    for path in store.releases.iterdir():
        assert {file.name for file in path.iterdir()} == set(constants.RELEASE_FILES), place
    assert lock.holder_of(store.lock_file) is None, place
    serials = [entry.serial for entry in history.read(store.history_file) if entry.serial is not None]
    assert serials == list(range(1, state.serial + 1)), place


class Finish:
    """Repeats the command that was interrupted: it must do, or find done, what it was for.

    With the clock stopped that depends on the files alone: what faults leave alike is tried once.
    """

    def __init__(self) -> None:
        self._tried: list[object] = []

    def __call__(self, scenario: Scenario, root: Path, place: str) -> None:
        left = crashpoints.snapshot(root), crashpoints.modes(root)
        if left not in self._tried:
            self._tried.append(left)
            finish(scenario, root, place)


def finish(scenario: Scenario, root: Path, place: str) -> None:
    store = Store(root)
    if scenario.argv[0] == "stage" and scenario.upload and not (root / scenario.upload).exists():
        assert Path(scenario.upload).name in store.staged(), place
    else:
        ended = crashpoints.run(scenario.on(root), root)
        assert ended.code == scenario.code, (place, ended.out, ended.err)
    found = answering(store.load(), clock.now())
    assert (found.release.digest if found else None) == scenario.finally_, place


@pytest.mark.usefixtures("still")
def test_killed_at_any_effect_the_board_is_on_the_old_release_or_the_new(scenario: Scenario, root: Path) -> None:
    finish = Finish()
    for number, effect in enumerate(traced(scenario, root)):
        if effect.same_if_killed:
            continue
        place = f"{scenario.name}: killed after {number}: {effect}"
        copy(scenario, root)
        ended = crashpoints.run(scenario.on(root), root, Fault(number, "after"))
        assert ended.code == SIGNALLED, (place, ended.out, ended.err)
        check_the_board(scenario, root, place)
        finish(scenario, root, place)


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize(
    ("kind", "lasting"), [("ENOSPC", True), ("EIO", False)], ids=["full for good", "one I/O error"]
)
def test_a_disk_that_fails_at_any_effect_leaves_the_old_release_or_the_new(
    scenario: Scenario, root: Path, kind: str, lasting: bool
) -> None:
    reasons = {"ENOSPC": "disk-full", "EIO": "disk-error"}
    failed, finish = 0, Finish()
    for number, effect in enumerate(traced(scenario, root)):
        place = f"{scenario.name}: {kind} at {number}: {effect}"
        copy(scenario, root)
        ended = crashpoints.run(scenario.on(root), root, Fault(number, kind, lasting))
        if ended.code != scenario.code:
            assert ended.code == constants.EXIT_FAILED, (place, ended.out, ended.err)
            assert json.loads(ended.out)["reason"] == reasons[kind], place
            failed += 1
        check_the_board(scenario, root, place)
        if scenario.name == "classify" and not lasting:
            # The count could not be read or written once: the release is tried again or left, and both answer.
            assert crashpoints.run(scenario.on(root), root).code == scenario.code, place
            check_the_board(scenario, root, place)
        else:
            finish(scenario, root, place)
    assert failed or scenario.name == "classify", "rows are answered whatever the disk does"


def test_a_power_cut_that_loses_all_unsynced_data_leaves_the_old_release_or_the_new(
    scenario: Scenario, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    effects = traced(scenario, root)
    monkeypatch.setattr(clock, "_boot_id", lambda: "the boot after the power cut")
    after_reboot = dataclasses.replace(scenario, allowed=scenario.allowed | {old_of(scenario)})
    seen = []
    for entries_survive in (False, True):
        disk = Disk(scenario.root, scenario.upload or "\0")
        for number, effect in enumerate(effects):
            disk.play(effect)
            place = f"{scenario.name}: power cut after {number}: {effect} (names survive: {entries_survive})"
            left = disk.kept(entries_survive=entries_survive)
            if left in seen:  # nothing of the effect is on the disk yet
                continue
            seen.append(left)
            shutil.rmtree(root, ignore_errors=True)
            disk.write_to(root, entries_survive=entries_survive)
            check_the_board(after_reboot, root, place)


def install_from_elsewhere(bench: Bench) -> Scenario:
    device, old = bench.with_old()
    new: str = device.ask("verify", bench.new)["release"]["digest"]
    argv = ("install", str(bench.new), "--deadline", "600")
    return Scenario("install from elsewhere", device.root, argv, frozenset({old, new}), new)


def install_over_a_damaged_copy(bench: Bench) -> Scenario:
    device, old, new = bench.with_both()
    damaged = device.root / constants.RELEASES_DIR / new / constants.MODEL_FILE
    damaged.write_bytes(damaged.read_bytes()[:1000])
    _, place = bench.upload_parts(device, bench.new)
    argv = ("install", str(device.root / place), "--deadline", "600")
    return Scenario("install, mend", device.root, argv, frozenset({old, new}), new, upload=place)


@pytest.mark.parametrize("make", [install_an_upload, install_from_elsewhere, install_over_a_damaged_copy])
def test_a_power_cut_takes_nothing_of_a_release_that_was_just_installed_and_confirmed(
    make: Callable[[Bench], Scenario], bench: Bench, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is confirmed a power cut gives it up, whatever is lost; from then on it is what must answer."""
    scenario = make(bench)
    installing = traced(scenario, root)
    confirming = crashpoints.run(
        lambda: cli.main(["--root", str(root), "confirm", str(scenario.finally_), "--json"]), root
    )
    assert confirming.code == 0, (confirming.out, confirming.err)
    monkeypatch.setattr(clock, "_boot_id", lambda: "the boot after the power cut")
    for entries_survive in (False, True):
        disk = Disk(scenario.root, scenario.upload or "\0")
        for effect in installing:
            disk.play(effect)
        answers = None
        for number, effect in enumerate(confirming.effects):
            disk.play(effect)
            place = f"{scenario.name}, confirm: power cut after {number}: {effect} (names survive: {entries_survive})"
            shutil.rmtree(root, ignore_errors=True)
            disk.write_to(root, entries_survive=entries_survive)
            answers = check_the_board(scenario, root, place)
        assert answers == scenario.finally_


def test_an_order_to_lower_the_floors_serves_once_whatever_instant_it_dies_at(bench: Bench, root: Path) -> None:
    """A crash may cost the order, never the floor that a release needs: it is the old one or the new."""
    scenario = lower_the_floors(bench)
    for number, effect in enumerate(traced(scenario, root)):
        if effect.same_if_killed:
            continue
        place = f"killed after {number}: {effect}"
        copy(scenario, root)
        assert crashpoints.run(scenario.on(root), root, Fault(number, "after")).code == SIGNALLED, place
        check_the_board(scenario, root, place)
        lowered = Store(root).load().floor == 3
        ended = crashpoints.run(scenario.on(root), root)
        reason = json.loads(ended.out).get("reason")
        assert reason in (("order-used", "order-stale") if lowered else (None, "order-used")), (place, ended.out)


def old_of(scenario: Scenario) -> str | None:
    """What answers on the prepared root after a reboot: what was committed."""
    committed = (
        json_codec.loads(StoreState, (scenario.root / constants.STATE_FILE).read_bytes()).committed
        if (scenario.root / constants.STATE_FILE).exists()
        else None
    )
    return committed.digest if committed else None


def test_three_commands_alone_have_a_hundred_crash_points(bench: Bench, root: Path) -> None:
    commands = (stage_from_elsewhere, install_the_first, activate_the_first)
    assert sum(len(traced(make(bench), root)) for make in commands) >= 100


def test_the_trace_finds_every_kind_of_effect(bench: Bench, root: Path) -> None:
    calls = {effect.call for effect in traced(stage_from_elsewhere(bench), root)}
    assert calls >= {"open", "write", "fsync", "rename", "mkdir", "chmod"}
    calls = {effect.call for effect in traced(roll_back(bench), root)}
    assert calls >= {"open", "write", "fsync", "replace", "symlink"}
