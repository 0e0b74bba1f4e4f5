"""The golden check: tests a release against its golden set.

A golden set is rows with the answers that the host computed for them; a release contains it. The check compares the
device's own answers. The model runs in a child process (`device_agent.system.sandbox`): a crash or a hang becomes an
error. Measures and reports; never switches releases.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agent.lifecycle import choose_search, compare
from device_agent.serving.load import load_model, open_accepted
from device_agent.shared.protocol import constants, model_info
from device_agent.shared.protocol.documents import ReleaseRef, Searched
from device_agent.shared.protocol.errors import DeviceUnfit, GateFailed, ModelUnusable
from device_agent.shared.protocol.record import replace
from device_agent.shared.protocol.reports import Certificate, Latency, Running
from device_agent.shared.release.directory import OpenRelease
from device_agent.shared.trust.rules import Verdict
from device_agent.store.store import Store
from device_agent.system import blas, board, clock, memory, sandbox

if TYPE_CHECKING:
    from device_agent.inference.tflite_knn import Answers, TfliteKNN
    from device_agent.shared.golden.golden_set import Golden

_BELOW = "build a release that passes the gates, or lower the gate under gates: in deploy.yaml"
_WARM_UP = 20
_TIMED_ROWS = 200
_UNPACKED_ROWS = 64
_TIMED_SECONDS = 5.0


def certify(
    opened: OpenRelease,
    verdict: Verdict,
    nonce: str,
    *,
    runtime: str = "auto",
    close: tuple[int, ...] = (),
    golden: bytes | None = None,
    running: compare.Opened | None = None,
    root: Path | None = None,
    searched: Callable[[Searched], None] | None = None,
) -> Certificate:
    """Runs the golden check of a verified release; returns its result, whose `failures` are the missed gates.

    `opened` and `verdict` are the release and the result of its verification. The returned certificate contains
    `nonce`, by which the caller recognises it. `close` are descriptors that the child process must close (the
    store's lock). `golden` replaces the release's own golden set (`knnkit parity --data`). With the `root` of the
    device, rows taught there are checked, too. `running` is the release that answers now, to compare with. If the
    child process fails, perhaps because of that release, the check runs again without its answers; a gate that needs
    these answers is then missed. `searched`: called with the times of the release's searches, if it passes and if
    they can be measured.

    Raises:
        ModelUnusable: the model does not load, crashes or hangs.
        DeviceUnfit: no runtime is installed.
    """

    def measured(certificate: Certificate) -> Searched | None:
        return choose_search.measure_release(opened, verdict.digest, runtime) if certificate.passed else None

    def certified(running: compare.Opened | None) -> Certificate:
        certificate, found = sandbox.run_both(
            lambda: _certify(opened, verdict, nonce, runtime, golden, running, root),
            measured if searched else None,
            close=close,
            limit=choose_search.HANGS,
        )
        if searched and found:
            searched(found)
        return certificate

    try:
        return certified(running)
    except (ModelUnusable, DeviceUnfit):
        if running is None or running.opened is None:
            raise
    return certified(replace(running, opened=None))


#: Missed gate -> what to do about it.
_FIXES = {
    "parity": "`knnkit deploy --target HOST --report report.html` lists the rows that differ",
    "embedding": "a higher `input: {bound: ...}` in deploy.yaml, another --runtime, or stages in float32",
    "accuracy": "a lower `gates: {accuracy: ...}` in deploy.yaml, or other training rows, k or scale",
    "current": "`knnkit deploy --release RELEASE --verify --target HOST` repairs the running release; or leave out"
    " `not_worse_than` under gates: in deploy.yaml, and build again",
    "rmse": "a higher `gates: {rmse: ...}` in deploy.yaml, or other training rows, k or scale",
    "max_error": "a higher `gates: {max_error: ...}` in deploy.yaml, or other training rows, k or scale",
    "latency": "`knnkit deploy --target HOST --runtime ai_edge_litert`, fewer rows,"
    " or a higher `gates: {latency_ms: ...}`",
}


def require_gates(certificate: Certificate) -> Certificate:
    """Returns the certificate, the result of a golden check, if every gate passed.

    Raises:
        GateFailed: a gate failed; the exception has the certificate.
    """
    if not certificate.passed:
        fixes = [
            fix for word, fix in _FIXES.items() if any(failure.startswith(word) for failure in certificate.failures)
        ]
        error = GateFailed(
            f"{certificate.name} {certificate.version} misses gates on this device: {'; '.join(certificate.failures)}",
            hint="; ".join(fixes) or _BELOW,
        )
        error.certificate = certificate
        raise error
    return certificate


def _certify(
    opened: OpenRelease,
    verdict: Verdict,
    nonce: str,
    runtime: str,
    other: bytes | None,
    running: compare.Opened | None,
    root: Path | None,
) -> Certificate:
    # NumPy's threads are not needed, and each spins for 30 ms. This is a child process: the setting ends with it.
    blas.prepare(1)
    from device_agent.inference.label_map import with_mapped_labels
    from device_agent.shared.golden import changes, class_gates
    from device_agent.shared.golden.golden_set import Golden
    from device_agent.shared.golden.judge import judge, require_match
    from device_agent.shared.raw_rows import own_golden

    golden = Golden.from_bytes(opened.read(constants.GOLDEN_FILE) if other is None else other)
    before = None
    if running is not None:  # first, so that only one model is in memory at a time
        before = compare.ask(running, golden, runtime)
    model = load_model(opened, runtime)
    golden = own_golden(golden, model.info)
    require_match(golden, model.info)
    answers = with_mapped_labels(model, golden, model.classify(golden.rows))
    if opened.files[constants.MODEL_FILE].size > memory.AT_ONCE:
        answers = answer_unpacked(load_model(opened, runtime, packed=False), model, golden, answers)
    if len(golden.rows):
        model.exactly(golden.rows[0])  # finds damaged float64 tables now, not at the first uncertain row
    latency = measure(model, golden)
    gates = verdict.manifest.gates
    info = model.info
    if other is not None:  # rows of somebody's own need not hold every class, and are not among the held-out rows
        info = replace(info, evaluation=None)
        gates = replace(gates, balanced_accuracy=None, min_recall=None, recall=None, not_worse_than=None)
    of_host = gates if model.chain is None else model_info.Gates(margin=gates.margin, latency_ms=gates.latency_ms)
    values = None if model.info.targets is None else model.values_of(answers)
    found = judge(golden, answers, info, of_host, p50_ms=latency.p50_ms if latency else None, values=values)
    own, label = None, answers.label
    if model.chain is not None:
        from device_agent.lifecycle.own_rows import check_own_rows

        own = check_own_rows(model, info, golden, gates, found)
        found, label = own.verdict, own.label
    taught, wrong = None, ""
    if model.info.enrol is not None and root is not None and other is None:
        from device_agent.lifecycle.taught import check_taught

        taught, wrong = check_taught(root, model, golden, verdict.digest)
    manifest = verdict.manifest
    compared = None
    if before is not None and model.info.targets is None:
        compared = changes.compare(before, model.info, golden, label)
    worse = class_gates.worse(manifest.gates, compared, running.ref if running else None)
    return Certificate(
        nonce=nonce,
        release=verdict.digest,
        name=manifest.name,
        version=manifest.version,
        sequence=manifest.sequence,
        model_sha256=verdict.model_sha256,
        latency=latency,
        runtime=model.runtime,
        device=board.device_info(),
        issued=clock.now().wall,
        signed_by=verdict.signed_by,
        warnings=verdict.warnings,
        compared=compared,
        taught=taught,
        embedding=own.check if own else None,
        classes=tuple(map(str, model.info.classes)) if len(model.info.classes) <= constants.MAX_CONFUSED else (),
        **vars(replace(found, failures=(*found.failures, *worse, *filter(None, [wrong])))),
    )


def answer_unpacked(unpacked: TfliteKNN, model: TfliteKNN, golden: Golden, answers: Answers) -> Answers:
    """Returns the `answers` of `model` to the golden rows, replaced by those of `unpacked` where these differ.

    `unpacked` is the same model, loaded as for a stream: XNNPACK (TFLite's CPU kernels) does not copy its weights. It
    may search in another way than `model`, and the check must test both ways. It answers up to 64 of the rows, and none
    if both search in the same way.
    """
    if (unpacked.search_alone, unpacked.runtime.delegate) == (model.search, model.runtime.delegate):
        return answers
    kept = {name: part.copy() for name, part in answers._asdict().items()}
    for row in range(0, len(golden.rows), -(-len(golden.rows) // _UNPACKED_ROWS) or 1):  # evenly, from first to last
        found = unpacked.classify(golden.rows[row : row + 1])._asdict()
        if found["label"][0] != kept["label"][row] or (found["indices"][0] != kept["indices"][row]).any():
            for name, part in kept.items():
                part[row] = found[name][0]
    return answers._replace(**kept)


def measure(model: TfliteKNN, golden: Golden) -> Latency | None:
    """Measures how long one row takes, with golden rows one at a time; None if there are no golden rows."""
    rows = golden.rows
    if not len(rows):
        return None
    return latency(lambda index: model.classify(rows[index][None]), len(rows), _TIMED_SECONDS, _TIMED_ROWS)


def latency(work: Callable[[int], Any], count: int, seconds: float, most: float = math.inf) -> Latency:
    """Measures how long a call of `work` takes; its argument is 0, 1, ... `count` - 1 in turn, again and again.

    Ends after `seconds` seconds or `most` measurements, but measures at least once.
    """
    for index in range(_WARM_UP):
        work(index % count)
    times: list[float] = []
    now = time.perf_counter()
    end = now + seconds
    while not times or (now < end and len(times) < most):
        before = time.perf_counter()
        work(len(times) % count)
        now = time.perf_counter()
        times.append((now - before) * 1e3)
    times.sort()
    return Latency(percentile(times, 50), percentile(times, 99), len(times))


def percentile(ordered: list[float], percent: float) -> float:
    """Returns the nearest-rank percentile of a sorted list, `ordered`; `percent` is from 0 to 100."""
    rank = max(0, -(-len(ordered) * percent // 100) - 1)
    return ordered[int(min(rank, len(ordered) - 1))]


def ask_running(store: Store, ref: ReleaseRef, golden: bytes, runtime: str = "auto") -> Running:
    """Returns the answers of the running release `ref` to `golden`, the bytes of the golden set of another release.

    Raises:
        ModelUnusable, Refused: the running release cannot answer, or `golden` is not a golden set for it.
    """

    def answer() -> Running | None:
        from device_agent.shared.golden.golden_set import Golden

        return compare.ask(current, Golden.from_bytes(golden), runtime)

    with contextlib.ExitStack() as stack:
        current = compare.Opened(open_accepted(store, ref, stack)[0], ref)
        found = sandbox.run(answer, close=store.locks)
    if found is None:
        raise ModelUnusable(f"{ref.name} {ref.version} does not answer", hint="python -m device_agent check")
    return found


def recheck(
    store: Store, ref: ReleaseRef, nonce: str, runtime: str = "auto", golden: bytes | None = None
) -> Certificate:
    """Checks the release `ref`, which this device accepted before, against `golden` (None: its own golden set).

    Raises:
        GateFailed, ModelUnusable, Refused: the release does not pass.
    """
    with contextlib.ExitStack() as stack:
        opened, verdict = open_accepted(store, ref, stack)
        return require_gates(
            certify(opened, verdict, nonce, runtime=runtime, close=store.locks, golden=golden, root=store.root)
        )
