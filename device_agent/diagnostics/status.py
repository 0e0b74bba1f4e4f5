"""`status`: what is on the board, as one document.

Changes nothing, except that `Store.settle` finishes or reverts an interrupted change.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from device_agent import __version__
from device_agent.shared.protocol import constants, documents
from device_agent.shared.protocol.documents import Status
from device_agent.shared.protocol.errors import DeviceUnfit
from device_agent.shared.protocol.versions import utc
from device_agent.shared.safe_files import read_small
from device_agent.shared.trust import standing
from device_agent.store import cell_counts, searches, starts, state, trust_dir
from device_agent.store.state import StoreState
from device_agent.store.store import Store
from device_agent.system import board, clock


def status(store: Store) -> Status:
    """Returns releases, floor, trusted keys, facts of the board, disk and clock, as `knnkit status` shows them."""
    warnings = []
    try:
        current = store.settle()
    except DeviceUnfit as error:
        current = StoreState()
        warnings.append(f"{error.reason}: {error}")
    held = trust_dir.look(store.trust)
    taught, damage = _taught(store)
    warnings += damage
    moment = clock.now()
    answering = state.answering(current, moment)
    pending = state.waiting(current, moment)
    stands = standing_of(store, current, held, moment)
    warnings += _about_starts(store, current, answering) + _about_previous(store, current, held)
    if moment.wall < current.time_floor:
        least = utc(current.time_floor)
        warnings.append(f"clock-behind: the clock says {utc(moment.wall)}, but the time is at least {least}")
    return Status(
        agent=__version__,
        root=str(store.root),
        committed=current.committed,
        previous=current.previous,
        pending=pending.release if pending else None,
        seconds_left=pending.deadline - moment.uptime if pending else None,
        answering=answering.release.digest if answering else None,
        floor=current.floor,
        staged=store.staged(),
        trusted=held.trusted,
        device_class=store.device_class(),
        runtime=board.runtime_version(),
        device=board.device_info(),
        disk_free_bytes=board.disk_free(store.root),
        clock=moment.wall,
        lock=store.holder(current, moment),
        device_id=held.device.device_id,
        revoked=held.device.revoked,
        warnings=(*stands.warnings, *held.warnings, *warnings, *store.warnings()),
        protocol=constants.PROTOCOL,
        oldest_protocol=constants.OLDEST_PROTOCOL,
        signed_by=stands.signed_by,
        taught=taught,
        cells=cell_counts.read(store, answering.release.digest) if answering else None,
        searched=searches.read(store, answering.release.digest) if answering else None,
        pictures=importlib.util.find_spec("PIL") is not None,
    )


def _taught(store: Store) -> tuple[documents.TaughtRows | None, list[str]]:
    """Returns a summary of the taught rows (None without rows), and a warning if they cannot be read."""
    if not (store.root / constants.JOURNAL_FILE).exists():
        return None, []
    from device_agent.enrolment.journal import Journal
    from device_agent.shared.enrolment.enrolled import summary

    try:
        rows = Journal(store.root).read()
    except (DeviceUnfit, OSError) as error:
        return None, [f"enrolled-damaged: {error}"]
    return (summary(rows) if rows else None), []


def _about_starts(store: Store, current: StoreState, answering: state.Answering | None) -> list[str]:
    found = [f"fell-back: {left}"] if (left := state.why_left(current)) else []
    if answering and (failed := starts.failed(store, answering.release.digest)):
        found.append(f"starts-failed: the last {failed} starts of the release ended without an answer")
    return found


def _about_previous(store: Store, current: StoreState, held: trust_dir.Seen) -> list[str]:
    """Returns [a warning] if the key of the previous release is revoked, so that rollback refuses it; else []."""
    ref = current.previous
    if ref is None or not held.device.revoked:
        return []
    bundle = _read(store.release_path(ref.digest) / constants.SIGNATURE_FILE, constants.MAX_SIGNATURE)
    signed_by = standing.look(bundle, b"", (), (), 0).signed_by
    why = f"{ref.name} {ref.version} was signed by the revoked key {signed_by}; rollback needs --allow-revoked"
    said = f"{standing.PREVIOUS_REVOKED}: {why}"
    return [said] if signed_by in held.device.revoked else []


def standing_of(store: Store, current: StoreState, held: trust_dir.Seen, moment: clock.Moment) -> standing.Standing:
    """Returns who signed the release that answers at `moment`, and why it would be refused today; empty: none."""
    found = state.answering(current, moment)
    if found is None:
        return standing.Standing()
    place = store.release_path(found.release.digest)
    bundle = _read(place / constants.SIGNATURE_FILE, constants.MAX_SIGNATURE)
    manifest = _read(place / constants.MANIFEST_FILE, constants.MAX_MANIFEST)
    at_least = max(moment.wall, current.time_floor)
    return standing.look(bundle, manifest, held.trusted, held.device.revoked, at_least)


def _read(path: Path, limit: int) -> bytes:
    try:
        return read_small(path, limit)
    except OSError:
        return b""


def render(found: Status) -> str:
    """Returns a status as text for people."""
    refs = {"committed": found.committed, "previous": found.previous, "pending": found.pending}
    there = "" if Path(found.root).is_dir() else ": there is no such folder"
    lines = [f"root       {found.root}{there}"]
    lines += [f"{name:<10} {_ref(ref)}" for name, ref in refs.items() if ref or name == "committed"]
    if found.seconds_left is not None:
        lines.append(f"{'':<10} reverts in {found.seconds_left:.0f} s unless it is confirmed")
    answering = found.answering[:12] if found.answering else "nothing"
    lines += [
        f"answering  {answering}" + (f", signed by {found.signed_by}" if found.signed_by else ""),
        f"floor      {found.floor} (the lowest accepted sequence)",
        f"staged     {len(found.staged)}: {', '.join(digest[:12] for digest in found.staged) or '-'}",
        f"trusted    {', '.join(found.trusted) or 'no key: nothing can be staged'}",
        f"class      {found.device_class}",
        f"runtime    {found.runtime or 'none'}",
        f"board      {found.device.cpu}, {found.device.machine}, {constants.counted(found.device.cores, 'core')}",
        f"disk       {found.disk_free_bytes // 2**20:,} MiB free",
    ]
    if found.searched:
        lines += [f"search     {_times('one row', found.searched.alone, found.searched.alone_ms)}"]
        lines += [f"{'':<10} {_times(f'{found.searched.rows} rows', found.searched.batch, found.searched.batch_ms)}"]
    if found.cells:
        lines += [
            f"{name:<10} {', '.join(f'{column} {count:,}' for column, count in counts.items())}"
            for name, counts in (
                ("filled", found.cells.filled),
                ("unknown", found.cells.unknown),
                ("gaps", found.cells.gaps),
                ("left out", found.cells.left_out),
            )
            if counts
        ]
        lines += [f"refused    {constants.counted(found.cells.refused, 'line')}"] if found.cells.refused else []
    if found.taught:
        labels = ", ".join(f"{label} {count:,}" for label, count in found.taught.labels.items())
        rows = constants.counted(found.taught.rows, "row")
        lines.append(f"taught     {rows} ({labels}), {found.taught.digest[:12]}")
    if found.lock:
        lines.append(f"lock       {found.lock.holder}: {found.lock.reason} (since {utc(found.lock.since)})")
    return "\n".join(lines + [f"warning    {text}" for text in found.warnings])


def _times(rows: str, chosen: str, taken: dict[str, float]) -> str:
    return f"{rows}: {chosen} ({', '.join(f'{way} {time:.3g} ms' for way, time in taken.items())})"


def _ref(ref: documents.ReleaseRef | None) -> str:
    return f"{ref.name} {ref.version}, sequence {ref.sequence}, {ref.digest[:12]}" if ref else "-"
