"""Runs the test suites: one folder of tests/ is one suite, and one pytest process.

The folders knnkit and device_agent mirror the packages: there, each room is a suite (`scripts/test knnkit/model`), and
`scripts/test knnkit` runs all of them.

TensorFlow and tflite_runtime cannot share a process, so suites never share one. Each suite may say in
`tests/SUITE/suite.toml` what it needs:

    packages = [["openssh-server", "/usr/sbin/sshd"]]   # Debian package, and the file or command that shows it is there
    wanted = [["libusb-1.0-0", "/usr/lib/*/lib…"]]      # the same, where only some tests need it; they skip without
    root = true                                         # left out for ordinary users
    timeout = 1800                                       # seconds, for setup and for the tests
    weight = 100                                        # rough seconds: the longest start first

and an executable `tests/SUITE/setup` prepares what the suite needs (downloads, environments) before its tests start; it
is called on every run and does nothing when the work is done. A suite whose needs cannot be met is left out, and
reported; with CI=true nothing may be left out or skipped. Standard library only; it imports neither knnkit nor pytest.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}
#: Folders whose folders are suites.
PACKAGES = ("device_agent", "knnkit")
T = TypeVar("T")
SLOWEST = 10
#: Of the user's own KNNKIT_ settings, those that tests may see.
KEPT = {"KNNKIT_SCREENSHOTS", "KNNKIT_BOARDS", "KNNKIT_STREAM_ROWS"}


@dataclass(frozen=True)
class Suite:
    """One folder of tests, and what it needs from the machine; `files`: the only ones to run, all if empty."""

    name: str
    packages: tuple[tuple[str, str], ...] = ()
    wanted: tuple[tuple[str, str], ...] = ()
    root: bool = False
    timeout: float = 1800.0
    weight: float = 10.0
    files: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return TESTS / self.name

    @property
    def stem(self) -> str:
        """The name of its log and result files, without suffix."""
        return self.name.replace("/", "-")


@dataclass
class Outcome:
    """The result of one suite."""

    suite: Suite
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    processor: float = 0.0
    note: str = ""
    skips: list[str] = field(default_factory=list)
    durations: list[tuple[float, str]] = field(default_factory=list)


def find_suites() -> list[Suite]:
    suites = []
    rooms = [room for package in PACKAGES for room in (TESTS / package).iterdir()]
    for folder in sorted(path for path in [*TESTS.iterdir(), *rooms] if path.is_dir()):
        if folder.name not in PACKAGES and any(folder.rglob("test_*.py")):
            file = folder / "suite.toml"
            asked = tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
            for kind in ("packages", "wanted"):
                asked[kind] = tuple((package, probe) for package, probe in asked.get(kind, []))
            suites.append(Suite(folder.relative_to(TESTS).as_posix(), **asked))
    return sorted(suites, key=lambda suite: -suite.weight)


def say(text: str = "") -> None:
    print(text, flush=True)


# --- what the machine lacks ---------------------------------------------------------------------------------------
def there(probe: str) -> bool:
    return any(Path("/").glob(probe[1:])) if probe.startswith("/") else shutil.which(probe) is not None


def missing(suite: Suite) -> list[str]:
    lacks = [package for package, probe in suite.packages if not there(probe)]
    return lacks + (["root"] if suite.root and os.geteuid() != 0 else [])


def install_packages(suites: list[Suite]) -> None:
    """Installs the distribution's packages that the suites need, if this user may."""
    reachable = [suite for suite in suites if not suite.root or os.geteuid() == 0]
    asked = {probed for suite in reachable for probed in suite.packages + suite.wanted}
    wanted = sorted({package for package, probe in asked if not there(probe)})
    if not wanted or shutil.which("apt-get") is None:
        return
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if sudo and (
        shutil.which("sudo") is None or subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode
    ):
        say(f"missing from the system: {', '.join(wanted)}  (sudo apt-get install {' '.join(wanted)})")
        return
    say(f"installing from the distribution: {', '.join(wanted)}")
    install = [
        *sudo,
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "install",
        "-y",
        "-q",
        "--no-install-recommends",
    ]
    for attempt in ([], [*sudo, "apt-get", "update", "-q"]):
        if attempt:
            subprocess.run(attempt, capture_output=True)
        result = subprocess.run([*install, *wanted], capture_output=True, text=True)
        if result.returncode == 0:
            return
    say("\n".join(f"  | {line}" for line in (result.stdout + result.stderr).splitlines()[-6:]))


# --- one process --------------------------------------------------------------------------------------------------
def run_process(argv: list[str], log: Path, timeout: float, env: dict[str, str]) -> int | None:
    """Runs `argv` in its own process group, output to `log`; returns the exit code, None if the time ran out."""
    if ENDING.is_set():
        return None
    with log.open("wb") as sink:
        process = subprocess.Popen(
            argv, cwd=ROOT, env=env, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True
        )
    GROUPS.add(process.pid)
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            end_group(process.pid)
            process.wait()
        GROUPS.discard(process.pid)


GROUPS: set[int] = set()
#: No process is begun any more: where one suite has been ended, the next would take its place.
ENDING = threading.Event()


def end_group(group: int) -> None:
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):  # by the first, pytest ends what its tests have begun
        try:
            os.killpg(group, sign)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + (20 if sign is signal.SIGINT else 5)
        while sign is not signal.SIGKILL and time.monotonic() < deadline:
            time.sleep(0.1)
            if has_ended(group):  # until it is waited for, its group is there: is anybody else in it?
                deadline = min(deadline, time.monotonic() + 1)
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                return


def has_ended(child: int) -> bool:
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def set_up(suite: Suite, logs: Path, env: dict[str, str]) -> str:
    """Runs the suite's setup; returns what went wrong, or an empty string."""
    hook = suite.folder / "setup"
    if not os.access(hook, os.X_OK):
        return ""
    log = logs / f"{suite.stem}-setup.log"
    started = time.monotonic()
    code = run_process([str(hook)], log, suite.timeout, env)
    tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:] if code != 0 else []
    took = f"set up {suite.name} in {time.monotonic() - started:.0f} s"
    with PRINTING:
        say("\n".join([took, *(f"  | {line}" for line in tail)]))
    if code == 0:
        return ""
    return "setup ran out of time" if code is None else f"setup failed with exit code {code}"


def run_suite(suite: Suite, extra: list[str], logs: Path, env: dict[str, str]) -> Outcome | str:
    """Sets a suite up and runs its tests; returns what came of them, or why they were left out."""
    if why := set_up(suite, logs, env):
        return why
    log, results = logs / f"{suite.stem}.log", logs / f"{suite.stem}.xml"
    argv = [sys.executable, "-m", "pytest", "-q", f"--junitxml={results}", "-o", "junit_family=xunit1"]
    argv += [
        "-o",
        f"cache_dir={ROOT / '.pytest_cache' / suite.name}",
        *(suite.files or [f"tests/{suite.name}"]),
        *extra,
    ]
    started = time.monotonic()
    code = run_process(argv, log, suite.timeout, env)
    outcome = Outcome(suite, seconds=time.monotonic() - started)
    if results.exists():
        count(outcome, results)
    if code is None:
        outcome.failed += 1
        outcome.note = f"stopped after {suite.timeout:.0f} s"
    elif code == 5 and not extra:
        outcome.failed += 1
        outcome.note = "no test was found"
    elif code == 0 and not results.exists():  # the tested code, or a fork, has ended the process
        outcome.failed += 1
        outcome.note = "pytest ended before it had written its results"
    elif code not in (0, 1, 5) or (code == 1 and not outcome.failed):
        outcome.failed += 1
        outcome.note = f"pytest ended with exit code {code}"
    report(outcome, log)
    return outcome


def count(outcome: Outcome, results: Path) -> None:
    tree = ElementTree.parse(results)
    outcome.processor = sum(float(each.get("value") or 0) for each in tree.iterfind(".//property[@name='processor']"))
    for case in tree.iter("testcase"):
        name = f"{outcome.suite.name}: {case.get('name')}"
        outcome.durations.append((float(case.get("time") or 0), name))
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            outcome.failed += 1
        elif skip is not None and skip.get("type") != "pytest.xfail":
            outcome.skipped += 1
            outcome.skips.append(f"{name}: {skip.get('message')}")
        else:
            outcome.passed += 1


def report(outcome: Outcome, log: Path) -> None:
    with PRINTING:
        mark = "FAILED" if outcome.failed else "ok"
        counts = f"{outcome.passed} passed, {outcome.failed} failed, {outcome.skipped} skipped"
        took = f"in {outcome.seconds:.0f} s, processor {outcome.processor:.0f} s"
        note = outcome.note and f" ({outcome.note})"
        say(f"{outcome.suite.name:<24} {mark:<7} {counts} {took}{note}")
        if outcome.failed:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            say("\n".join(f"  | {line}" for line in lines[-400:]))


PRINTING = threading.Lock()


# --- the whole run ------------------------------------------------------------------------------------------------
def side_by_side(jobs: int, suites: list[Suite], act: Callable[[Suite], T]) -> dict[str, T]:
    """Returns what `act` returns for each suite, by its name."""
    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip((suite.name for suite in suites), pool.map(act, suites)))


def conclude(outcomes: list[Outcome], left_out: dict[str, str], started: float, *, filtered: bool) -> int:
    slowest = sorted((entry for o in outcomes for entry in o.durations), reverse=True)[:SLOWEST]
    if slowest and not filtered:
        say("\nslowest tests")
        say("\n".join(f"{seconds:7.1f} s  {name}" for seconds, name in slowest))
    late = [o for o in outcomes if o.seconds - o.suite.weight > 60 and o.seconds > 2 * o.suite.weight]
    if late and not filtered:
        say("\nlonger than their weight: write it into suite.toml, so that they start earlier")
        say("\n".join(f"  {o.suite.name}: weight {o.suite.weight:.0f}, took {o.seconds:.0f} s" for o in late))
    skips = [skip for outcome in outcomes for skip in outcome.skips]
    if skips:
        say("\nskipped")
        say("\n".join(f"  {skip}" for skip in skips))
    if left_out:
        say("\nleft out")
        say("\n".join(f"  {name}: {why}" for name, why in sorted(left_out.items())))
    passed, failed, skipped = (sum(getattr(o, key) for o in outcomes) for key in ("passed", "failed", "skipped"))
    incomplete = CI and (skips or left_out)
    if incomplete:
        say("\nCI=true: nothing may be skipped or left out")
    if not passed + failed + skipped:
        say("\nno test was run")
    say(f"\nin {time.monotonic() - started:.0f} s")
    say(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or incomplete or not passed + skipped else 0


def parse(suites: list[Suite], argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    names = {suite.name for suite in suites} | set(PACKAGES)
    parser = argparse.ArgumentParser(
        prog="scripts/test",
        description="Run all test suites, or those named, or files of tests. Flags that it does not know go to pytest.",
        epilog=f"suites: {', '.join(sorted(names))}",
    )
    parser.add_argument("--list", action="store_true", help="list the suites and what each lacks here")
    parser.add_argument("--jobs", type=int, default=3, help="suites at a time (default: %(default)s)")
    parser.add_argument("--setup-only", action="store_true", help="prepare everything, run no test")
    options, extra = parser.parse_known_args(argv)
    words = list(itertools.takewhile(lambda word: not word.startswith("-"), extra))
    options.suites, files = [word for word in words if word in names], {}
    for word in words:
        if word not in names and (suite := _suite_of(word)) not in names:
            close = [name for name in sorted(names) if word in name] or sorted(names)
            parser.error(f"{word} is neither a suite nor a file of tests; suites: {', '.join(close)}")
        elif word not in names:
            files.setdefault(suite, []).append(word)
    whole = {*options.suites}
    options.files = {suite: found for suite, found in files.items() if not {suite, suite.split("/")[0]} & whole}
    return options, extra[len(words) :]


def chosen(suites: list[Suite], options: argparse.Namespace) -> list[Suite]:
    """Returns the suites of these that are named, or of which files are named; all if none is."""
    named, files = set(options.suites), options.files
    if not named and not files:
        return suites
    wanted = [suite for suite in suites if {suite.name, suite.name.split("/")[0]} & {*named, *files}]
    return [replace(suite, files=tuple(files.get(suite.name, ()))) for suite in wanted]


def _suite_of(path: str) -> str | None:
    """Returns the name of the suite that a file or folder, or a test (`FILE::test_name`), belongs to."""
    place = Path(path.partition("::")[0]).resolve()
    if not place.exists() or not place.is_relative_to(TESTS):
        return None
    parts = place.relative_to(TESTS).parts
    return "/".join(parts[: 2 if parts[:1] and parts[0] in PACKAGES else 1])


def main(argv: list[str] | None = None) -> int:
    suites = find_suites()
    options, extra = parse(suites, argv)
    os.environ["PATH"] += f"{os.pathsep}/usr/sbin{os.pathsep}/sbin"  # an ordinary user of Debian lacks them
    suites = chosen(suites, options)
    if options.list:
        say(
            "\n".join(
                f"{s.name:<24} " + (f"lacks {', '.join(lacks)}" if (lacks := missing(s)) else "ready") for s in suites
            )
        )
        return 0
    started = time.monotonic()
    cache = Path(os.environ.get("KNNKIT_TEST_CACHE") or ROOT / ".cache" / "tests").resolve()
    cache.mkdir(parents=True, exist_ok=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith("KNNKIT_") or name in KEPT}
    env |= {"KNNKIT_TEST_CACHE": str(cache), "KNNKIT_WHEELS": str(cache / "wheels"), "PYTHON": sys.executable}
    install_packages(suites)
    left_out = {suite.name: f"needs {', '.join(lacks)}" for suite in suites if (lacks := missing(suite))}
    with tempfile.TemporaryDirectory(prefix="knnkit-tests-") as scratch:
        logs = Path(scratch)
        ready = [suite for suite in suites if suite.name not in left_out]
        jobs = max(1, options.jobs)
        if options.setup_only:
            failed = side_by_side(jobs, ready, lambda suite: set_up(suite, logs, env))
            left_out |= {name: why for name, why in failed.items() if why}
            say("\n".join(f"left out  {name}: {why}" for name, why in left_out.items()) or "all suites are ready")
            return 1 if left_out and CI else 0
        say(f"running {', '.join(suite.name for suite in ready)}")
        results = side_by_side(jobs, ready, lambda suite: run_suite(suite, extra, logs, env))
    left_out |= {name: result for name, result in results.items() if isinstance(result, str)}
    outcomes = [result for result in results.values() if isinstance(result, Outcome)]
    return conclude(outcomes, left_out, started, filtered=bool(extra or options.files))


def interrupted(*_: object) -> None:
    for sign in (signal.SIGINT, signal.SIGTERM):  # a second one would begin all of it again
        signal.signal(sign, signal.SIG_IGN)
    ENDING.set()
    for _round in range(2):  # what was just being begun is there the second time
        for group in list(GROUPS):
            end_group(group)
        time.sleep(0.2)
    print("\nscripts/test: interrupted", file=sys.stderr, flush=True)
    os._exit(130)


if __name__ == "__main__":
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, interrupted)
    sys.exit(main())
