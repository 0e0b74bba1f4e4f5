"""stage, verify and prune at their edges, in this process: what an upload is, what is kept, and what is thrown away."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from support.device import Device
from support.releases import Releases

from device_agent.lifecycle import stage as staging
from device_agent.shared.protocol import constants, documents
from device_agent.shared.protocol.documents import ReleaseRef
from device_agent.shared.protocol.errors import AgentError, Locked, Refused
from device_agent.shared.protocol.record import replace
from device_agent.store import history, transitions
from device_agent.store.state import StoreState
from device_agent.store.store import Store
from device_agent.store.trust_state import Known
from device_agent.system import board, clock, durable

WEEK = 7 * 24 * 3600


@pytest.fixture
def store(device: Device) -> Iterator[Store]:
    """The store of a device, locked as a command locks it."""
    made = Store(device.root)
    mask = os.umask(0o022)
    with made.changing("ann", "a test"):
        yield made
    os.umask(mask)


@pytest.fixture
def digest(store: Store, releases: Releases) -> str:
    """The release that most tests send."""
    return staging.verify(store, releases["iris"]).release.digest


def sent(store: Store, release: Path, name: str) -> Path:
    """An upload of a release, as an agent of before or a person leaves it."""
    place = store.incoming / name
    shutil.copytree(release, place)
    return place


def stage(store: Store, directory: Path) -> documents.Staged:
    return staging.stage(Known(store, store.load()), directory, "ann")


def numbered(store: Store, releases: Releases, folder: Path, *sequences: int) -> list[str]:
    """Stages one release a sequence; returns their digests."""
    made = [releases.variant("iris", folder / str(number), sequence=number) for number in sequences]
    return [stage(store, release).release.digest for release in made]


# --- verify and stage -------------------------------------------------------------------------------------------------
def test_verifying_says_what_staging_would_and_changes_nothing(store: Store, releases: Releases) -> None:
    told = staging.verify(store, releases["iris"])
    assert (told.already, store.staged()) == (False, ())
    assert stage(store, releases["iris"]) == told
    again = staging.verify(store, releases["iris"])
    assert again == replace(told, already=True) == stage(store, releases["iris"])
    assert list(store.incoming.iterdir()) == []


def test_what_is_staged_is_whole_private_and_noted_once(store: Store, releases: Releases, digest: str) -> None:
    for _ in range(2):
        place = sent(store, releases["iris"], digest)
        place.chmod(0o755)
        for file in place.iterdir():
            file.chmod(0o644)
        stage(store, place)
        assert not place.exists()
    kept = store.release_path(digest)
    assert {path.name for path in kept.iterdir()} == set(constants.RELEASE_FILES)
    assert all((kept / name).read_bytes() == (releases["iris"] / name).read_bytes() for name in constants.RELEASE_FILES)
    assert [path.stat().st_mode & 0o777 for path in sorted(kept.iterdir())] == [0o600] * len(constants.RELEASE_FILES)
    assert kept.stat().st_mode & 0o777 == 0o700
    (noted,) = history.read(store.history_file)
    assert (noted.what, noted.why, noted.holder) == ("staged", "", "ann")


def test_a_release_from_elsewhere_stays_there_and_its_copy_is_private(store: Store, releases: Releases) -> None:
    os.umask(0o022)
    kept = store.release_path(stage(store, releases["iris"]).release.digest)
    assert {path.name for path in releases["iris"].iterdir()} >= set(constants.RELEASE_FILES)
    assert all(path.stat().st_mode & 0o077 == 0 for path in (kept, *kept.iterdir()))
    assert list(store.incoming.iterdir()) == []


def test_somebody_elses_device_takes_nothing(store: Store, releases: Releases) -> None:
    begin = {"created": 0, "holder": "ben", "connection": "", "seconds": 60.0}
    new = ReleaseRef("ab" * 32, "fruit", "1.0", 1)
    store.commit(transitions.begin(store.load(), new, **begin, moment=clock.now()))
    with pytest.raises(Locked, match="ben holds this device"):
        stage(store, releases["iris"])
    assert (store.staged(), list(store.incoming.iterdir())) == ((), [])


@pytest.mark.parametrize("short", [0, 1])
def test_a_copy_needs_its_room_before_the_first_byte(
    store: Store, releases: Releases, monkeypatch: pytest.MonkeyPatch, short: int
) -> None:
    needed = sum((releases["iris"] / name).stat().st_size for name in constants.SIGNED_FILES)
    monkeypatch.setattr(board, "disk_free", lambda path: needed - short)
    if not short:
        assert not stage(store, releases["iris"]).already
        return
    said = f"has {needed:,} bytes; only {needed - 1:,} are free on the disk of {store.incoming}"
    with pytest.raises(AgentError, match=said) as caught:
        stage(store, releases["iris"])
    assert caught.value.reason == "disk-full"
    assert caught.value.hint.startswith("python -m device_agent prune removes old releases")
    assert (store.staged(), list(store.incoming.iterdir())) == ((), [])


def test_what_lay_where_a_copy_is_made_is_no_part_of_it(store: Store, releases: Releases) -> None:
    leftover = store.incoming / f".import-{os.getpid()}"
    leftover.mkdir()
    (leftover / "stray").touch()
    assert stage(store, releases["iris"]).warnings == ()


def test_a_refused_copy_is_removed_and_its_source_stays(store: Store, releases: Releases, tmp_path: Path) -> None:
    other = releases.copy("iris", tmp_path / "other")
    (other / constants.MODEL_FILE).unlink()
    with pytest.raises(Refused):
        stage(store, other)
    assert other.is_dir()
    assert list(store.incoming.iterdir()) == []


def test_what_changes_until_it_is_durable_is_refused_and_dropped(
    store: Store, releases: Releases, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sender may still write: what was verified is what is published."""
    place = sent(store, releases["iris"], digest)
    genuine = staging._make_durable

    def meanwhile(upload: Path, names: Iterable[str]) -> None:
        with (upload / constants.MODEL_FILE).open("r+b") as file:
            file.write(b"other bytes")
        genuine(upload, names)

    monkeypatch.setattr(staging, "_make_durable", meanwhile)
    with pytest.raises(Refused) as caught:
        stage(store, place)
    assert caught.value.reason == "file-swapped"
    assert (store.staged(), place.exists()) == ((), False)


def test_nothing_of_a_copy_stays_open(store: Store, releases: Releases) -> None:
    stage(store, releases["iris"])
    assert [name for name in map(opened, Path("/proc/self/fd").iterdir()) if name in constants.RELEASE_FILES] == []


def opened(descriptor: Path) -> str:
    """The name of an open file; none where it was closed meanwhile."""
    try:
        return descriptor.readlink().name
    except FileNotFoundError:
        return ""


def test_a_copy_of_what_this_device_may_not_have_is_removed(store: Store, releases: Releases, tmp_path: Path) -> None:
    """An upload stays: with another --device-class it is taken."""
    meant = releases.variant("iris", tmp_path / "meant", device_class="greenhouse")
    with pytest.raises(Refused):
        stage(store, meant)
    assert list(store.incoming.iterdir()) == []
    place = sent(store, meant, "by-hand")
    with pytest.raises(Refused):
        stage(store, place)
    assert place.exists()


@pytest.mark.parametrize("damage", [constants.GOLDEN_FILE, constants.SIGNATURE_FILE, constants.MANIFEST_FILE])
def test_an_upload_that_no_further_byte_would_mend_is_dropped(
    store: Store, releases: Releases, digest: str, damage: str
) -> None:
    place = sent(store, releases["iris"], digest)
    (place / damage).write_bytes(b"{}")
    with pytest.raises(Refused):
        stage(store, place)
    assert not place.exists()


def test_an_upload_that_lacks_a_file_waits_for_it(store: Store, releases: Releases, digest: str) -> None:
    place = sent(store, releases["iris"], digest)
    (place / constants.MODEL_FILE).unlink()
    with pytest.raises(Refused):
        stage(store, place)
    assert place.exists()
    shutil.copy(releases["iris"] / constants.MODEL_FILE, place)
    assert not stage(store, place).already


def test_a_link_among_the_uploads_is_refused_and_what_it_leads_to_stays_as_it_is(
    store: Store, releases: Releases, tmp_path: Path, digest: str
) -> None:
    elsewhere = releases.copy("iris", tmp_path / "elsewhere")
    (elsewhere / constants.MODEL_FILE).rename(elsewhere / f"{constants.MODEL_FILE}{constants.PART_SUFFIX}")
    before = {path.name for path in elsewhere.iterdir()}
    link = store.incoming / digest
    link.symlink_to(elsewhere)
    staging.take_parts(store, link)
    with pytest.raises(Refused) as caught:
        stage(store, link)
    assert caught.value.reason == "file-symlink"
    assert {path.name for path in elsewhere.iterdir()} == before
    assert link.is_symlink()


def test_a_name_that_is_no_digest_says_nothing_of_what_is_sent(store: Store, releases: Releases, digest: str) -> None:
    assert stage(store, sent(store, releases["iris"], "by-hand")).release.digest == digest
    assert list(store.incoming.iterdir()) == []


@pytest.mark.parametrize("name", ["0" * 64, f"{'0' * 64}.17-0a1b2c3d"])
def test_a_name_that_is_a_digest_must_be_that_of_what_was_sent(store: Store, releases: Releases, name: str) -> None:
    with pytest.raises(Refused) as caught:
        stage(store, sent(store, releases["iris"], name))
    assert caught.value.reason == "other-release"


@pytest.mark.parametrize("more", [True, False])
def test_a_damaged_release_is_mended_from_an_upload_and_loses_what_is_not_its_own(
    store: Store, releases: Releases, digest: str, more: bool
) -> None:
    kept = store.release_path(stage(store, releases["iris"]).release.digest)
    (kept / constants.MODEL_FILE).write_bytes(b"worn out")
    if more:
        (kept / constants.GOLDEN_FILE).unlink()
        (kept / "stray").mkdir()
    place = sent(store, releases["iris"], digest)
    (store.releases / f".trash-{constants.MODEL_FILE}").mkdir()
    assert stage(store, place).already
    assert {path.name for path in kept.iterdir()} == set(constants.RELEASE_FILES)
    assert all((kept / name).read_bytes() == (releases["iris"] / name).read_bytes() for name in constants.RELEASE_FILES)
    assert not place.exists()
    assert [path.name for path in store.releases.iterdir()] == [digest]


def test_a_release_that_is_here_whole_is_not_written_again(store: Store, releases: Releases, digest: str) -> None:
    stage(store, releases["iris"])
    before = {path.name: path.stat().st_ino for path in store.release_path(digest).iterdir()}
    assert stage(store, sent(store, releases["iris"], digest)).already
    assert {path.name: path.stat().st_ino for path in store.release_path(digest).iterdir()} == before


def test_what_others_send_of_a_release_that_is_here_is_dropped_and_nothing_else(
    store: Store, releases: Releases, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one of them cannot be removed, since a file comes while it is emptied."""
    places = [sent(store, releases["iris"], f"{digest}.{number}-0a1b2c3d") for number in (1, 2, 3)]
    other = sent(store, releases["iris"], f"{'0' * 64}.4-0a1b2c3d")
    genuine = durable.remove_tree

    def busy(path: Path) -> None:
        if path == places[0]:
            raise OSError
        genuine(path)

    monkeypatch.setattr(durable, "remove_tree", busy)
    stage(store, places[2])
    assert sorted(store.incoming.iterdir()) == sorted([places[0], other])


# --- parts ------------------------------------------------------------------------------------------------------------
def test_parts_are_given_their_names_and_what_is_no_part_of_a_release_stays(store: Store) -> None:
    place = store.incoming / ("0" * 64)
    place.mkdir()
    for name in ("model.tflite.part", "golden.npz", "stray.part"):
        (place / name).write_text(name)
    (place / "release.json.part").symlink_to("golden.npz")
    staging.take_parts(store, place)
    assert {path.name for path in place.iterdir()} == {"model.tflite", "golden.npz", "stray.part", "release.json.part"}


def test_parts_elsewhere_are_not_ours_to_name(store: Store, tmp_path: Path) -> None:
    (tmp_path / "model.tflite.part").touch()
    staging.take_parts(store, tmp_path)
    assert [path.name for path in tmp_path.glob("model*")] == ["model.tflite.part"]


# --- what is needless -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("error", [Locked("somebody is at work"), Refused("no", reason="file-missing")])
@pytest.mark.parametrize("busy", [False, True])
def test_an_upload_is_needless_where_its_release_is_here_and_the_error_is_told(
    store: Store, releases: Releases, digest: str, monkeypatch: pytest.MonkeyPatch, error: AgentError, busy: bool
) -> None:
    place = sent(store, releases["iris"], f"{digest}.1-0a1b2c3d")
    with pytest.raises(type(error)), staging.dropping_needless(store, place):
        raise error
    assert place.exists()
    stage(store, releases["iris-next"])
    stage(store, sent(store, releases["iris"], digest))
    place = sent(store, releases["iris"], f"{digest}.1-0a1b2c3d")

    def fail(path: Path) -> None:
        raise OSError

    if busy:
        monkeypatch.setattr(durable, "remove_tree", fail)
    with pytest.raises(type(error)), staging.dropping_needless(store, place):
        raise error
    assert place.exists() is busy


def test_any_other_error_drops_nothing(store: Store, releases: Releases, digest: str) -> None:
    stage(store, releases["iris"])
    place = sent(store, releases["iris"], f"{digest}.1-0a1b2c3d")
    with pytest.raises(AgentError), staging.dropping_needless(store, place):
        raise AgentError("a full disk", reason="disk-full", hint="make room")
    assert place.exists()


def test_a_directory_elsewhere_is_never_needless_whatever_its_name(
    store: Store, releases: Releases, digest: str, tmp_path: Path
) -> None:
    stage(store, releases["iris"])
    elsewhere = releases.copy("iris", tmp_path / digest)
    with pytest.raises(Locked), staging.dropping_needless(store, elsewhere):
        raise Locked("somebody is at work")
    assert elsewhere.is_dir()
    other = releases.copy("iris", tmp_path / ("0" * 64))
    assert stage(store, other).release.digest == digest


# --- pruning ----------------------------------------------------------------------------------------------------------
def roomy(monkeypatch: pytest.MonkeyPatch, *free: int) -> None:
    """The disk has so much room: now, after one removal, and so on; the last stays."""
    left = list(free)
    monkeypatch.setattr(board, "disk_free", lambda path: left.pop(0) if len(left) > 1 else left[0])


def test_the_oldest_by_sequence_go_first_and_so_many_stay(store: Store, releases: Releases, tmp_path: Path) -> None:
    a, b, c, d = numbered(store, releases, tmp_path, 14, 11, 13, 12)
    assert staging.prune(store, store.load(), number=4) == []
    assert staging.prune(store, store.load(), number=2) == [b, d]
    assert set(store.staged()) == {a, c}
    assert staging.prune(store, store.load(), keep=c, number=0) == [a]
    assert store.staged() == (c,)


def test_one_release_more_than_are_kept_goes_when_another_is_staged(
    store: Store, releases: Releases, tmp_path: Path
) -> None:
    """Never the one that has just come, however old it is."""
    made = numbered(store, releases, tmp_path, *range(20, 20 + constants.KEEP_RELEASES))
    assert len(store.staged()) == constants.KEEP_RELEASES
    (late,) = numbered(store, releases, tmp_path, 10)
    assert set(store.staged()) == {*made[1:], late}


def test_a_release_whose_manifest_cannot_be_read_goes_first(store: Store, releases: Releases, tmp_path: Path) -> None:
    made = numbered(store, releases, tmp_path, 11, 12, 13, 14)
    (store.release_path(made[2]) / constants.MANIFEST_FILE).unlink()
    (store.release_path(made[3]) / constants.MANIFEST_FILE).write_bytes(b"{")
    assert staging.prune(store, store.load(), number=1) == [*sorted(made[2:]), made[0]]


@pytest.mark.parametrize("role", ["committed", "previous", "left", "pending"])
def test_what_a_device_may_need_is_never_pruned(store: Store, releases: Releases, tmp_path: Path, role: str) -> None:
    needed, other = numbered(store, releases, tmp_path, 11, 12)
    ref = ReleaseRef(needed, "iris", "1.0.0", 11)
    state = StoreState(**{role: ref}) if role != "pending" else begun(ref)
    store.commit(state)
    assert staging.prune(store, store.load(), number=0) == [other]
    assert store.staged() == (needed,)


def begun(ref: ReleaseRef) -> StoreState:
    return transitions.begin(
        StoreState(), ref, created=0, holder="ann", connection="", seconds=600.0, moment=clock.now()
    )


def test_a_full_disk_takes_more_releases_until_there_is_room(
    store: Store, releases: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = numbered(store, releases, tmp_path, 11, 12, 13, 14)
    roomy(monkeypatch, staging.KEEP_FREE - 1, staging.KEEP_FREE - 1, staging.KEEP_FREE)
    assert staging.prune(store, store.load()) == made[:2]
    roomy(monkeypatch, 999, 1000)
    assert staging.prune(store, store.load(), free=1000) == made[2:3]


def test_an_upload_that_nobody_has_touched_for_a_week_is_given_up(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now)
    for name, age in (("older", WEEK + 1), ("younger", WEEK - 1), ("of just a week", WEEK), ("later", -WEEK)):
        (store.incoming / name).mkdir()
        os.utime(store.incoming / name, (now.wall - age,) * 2)
    (store.incoming / "a link to nothing").symlink_to("nowhere")
    os.utime(store.incoming / "a link to nothing", (now.wall - WEEK - 1,) * 2, follow_symlinks=False)
    staging.prune(store, store.load())
    assert {path.name for path in store.incoming.iterdir()} == {"younger", "of just a week", "later"}


@pytest.mark.parametrize("step", ["copy_rest", "sync_file"])
def test_an_interrupted_stage_leaves_no_copy(
    step: str, store: Store, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(durable, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        stage(store, releases["iris"])
    assert list(store.incoming.iterdir()) == []
