"""Ctrl-C while a program is loaded: from its first line on it ends without a word, or with one, never with Python's.

The signal is sent by the process to itself, as it begins to import its n-th module: whatever the machine's speed.
"""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

from device_agent.shared.console import signals

#: Runs a program with a signal at its n-th import; the first is that of the package itself, by whoever starts it.
#: With `each`, from that import on, every import (past the 60th, every third) sends it to a forked copy of the process,
#: and a line on standard output says how the copy ended: None where threads forbid a copy.
STRIKE = """
import os, runpy, signal, sys
sys.path.insert(0, {root!r})
sys.argv = {argv!r}
package, strike, each, seen, report = {package!r}, {strike}, {each}, 0, os.dup(1)
def hear(event, details):
    global seen
    if event == "import" and seen is not None:
        if seen or details[0].startswith(package):
            seen += 1
        if each and seen >= strike and (seen < 60 or seen % 3 == 0):
            strike_a_copy()
        elif seen == strike:
            os.kill(os.getpid(), signal.SIGINT)
def strike_a_copy():
    global seen
    if len(sys._current_frames()) > 1:
        os.write(report, repr((seen, None, "")).encode() + b"\\n")
        return
    said, number, seen = os.memfd_create("said"), seen, None
    child = os.fork()
    if child == 0:
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.kill(os.getpid(), signal.SIGINT)
        return
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    text = os.pread(said, 1 << 20, 0).decode()
    os.close(said)
    os.write(report, repr((number, code, text)).encode() + b"\\n")
    seen = number
sys.addaudithook(hear)
{start}
"""
AS_MODULE = "runpy.run_module(package, run_name='__main__', alter_sys=True)"
AS_COMMAND = "from knnkit.__main__ import main; sys.exit(main())"
#: Imports of a package and of its `__main__`, up to the line that gives the signal back to the system.
BEFORE = {AS_MODULE: 2, AS_COMMAND: 3}
PROGRAMS = {
    "python -m knnkit": (AS_MODULE, "knnkit", ["knnkit", "status", "--target", "local", "--root", "nowhere"]),
    "knnkit": (AS_COMMAND, "knnkit", ["knnkit", "status", "--target", "local", "--root", "nowhere"]),
    "python -m device_agent": (AS_MODULE, "device_agent", ["device_agent", "--root", "nowhere", "status"]),
}
#: Of `status` where there is nothing: no agent on the one side, an agent without a release on the other.
ENDED = (0, 1)


def run(name: str, strike: int, cwd: Path, *, each: bool = False) -> subprocess.CompletedProcess[str]:
    start, package, argv = PROGRAMS[name]
    code = STRIKE.format(root=str(ROOT), argv=argv, package=package, strike=strike, each=each, start=start)
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("name", PROGRAMS)
def test_at_each_import_it_ends_as_interrupted_and_shows_no_python(name: str, tmp_path: Path) -> None:
    whole = run(name, BEFORE[PROGRAMS[name][0]] + 1, tmp_path, each=True)
    assert whole.returncode in ENDED
    copies = [ast.literal_eval(line) for line in whole.stdout.splitlines() if line.startswith("(")]
    codes = []
    for strike, code, text in copies:
        if code is None and strike % 9:  # a process of its own for some of the imports in threads
            continue
        if code is None:
            done = run(name, strike, tmp_path)
            code, text = done.returncode, done.stderr
        assert "Traceback" not in text, (strike, text)
        assert "panicked" not in text, (strike, text)
        codes.append(code)
    assert len(copies) > 50
    told = codes.index(130)
    assert codes[:told] == [-2] * told, "first there is nothing to say"
    assert set(codes[told:]) == {130}, "then it is told"


@pytest.mark.parametrize("name", PROGRAMS)
def test_few_modules_are_loaded_before_its_first_line(name: str, tmp_path: Path) -> None:
    """So much later the signal is Python's: this is what the other test leaves out."""
    before = BEFORE[PROGRAMS[name][0]]
    assert ["Traceback" in run(name, strike, tmp_path).stderr for strike in (before, before + 1)] == [True, False]


def test_the_command_is_the_module() -> None:
    assert 'knnkit = "knnkit.__main__:main"' in (ROOT / "pyproject.toml").read_text()


def test_what_rust_raises_when_its_import_is_broken_is_the_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        """Not an Exception, in pyo3 either."""

    with pytest.raises(PanicException), signals.as_interrupt():
        raise PanicException
    monkeypatch.setattr(signals, "_heard", [signal.SIGINT])
    with pytest.raises(KeyboardInterrupt), signals.as_interrupt():
        raise PanicException
    with pytest.raises(SystemExit), signals.as_interrupt():
        sys.exit(3)


LOST = """
import os, signal, sys, time, weakref
from device_agent.shared.console import signals as interrupts
class Thing: pass
def gone(_):
    os.kill(os.getpid(), {number})
    for _ in range(1000): pass
interrupts.listen()
try:
    thing = Thing()
    watch = weakref.ref(thing, gone)
    del thing
    print("goes on", flush=True)
    time.sleep(600)  # longer than anybody waits
except KeyboardInterrupt:
    sys.exit(interrupts.EXIT_CODE)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_where_nothing_can_be_raised_is_not_lost(number: int) -> None:
    """A callback as that by which Python lets go of an import's lock: what is raised in it goes nowhere."""
    code = LOST.format(number=int(number))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (signals.EXIT_CODE, "")
    assert "goes on\n".startswith(done.stdout)  # on a busy machine it comes again before a line is out


@pytest.mark.parametrize("package", ["knnkit", "device_agent"])
def test_whoever_imports_the_package_keeps_its_signals(package: str, tmp_path: Path) -> None:
    code = f"import signal, {package}; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


TALKS = """
import os
os.write(2, b"I0000 no CUDA here\\n")
raise {error}
"""
LOADS = """
import sys
sys.path.insert(0, {folder!r})
from knnkit.model.tflite.load_tensorflow import load_tensorflow
try:
    load_tensorflow()
except BaseException as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(("error", "said"), [("KeyboardInterrupt", ""), ("ImportError", "I0000 no CUDA here\n")])
def test_an_interrupted_load_of_tensorflow_shows_none_of_its_log(error: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text(TALKS.format(error=error))
    code = LOADS.format(folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{error}\n", said)
