"""A login that prints text of its own changes no answer, whichever of a command's logins prints it, and whatever."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import sshd
from support.board_roots import copy_board
from support.releases import Releases
from support.tiny import make_tiny_wheels, want_tiny_wheels

from knnkit.cli import main

ROWS = "5.1,3.5,1.4,0.2\n6.7,3.0,5.2,2.3\n5.0,3.4,1.5,0.2\n"
LOGIN = """\
#!/bin/sh
n=$(($(cat {folder}/count) + 1))
echo $n > {folder}/count
. {folder}/before
/bin/sh -c "$SSH_ORIGINAL_COMMAND"
code=$?
. {folder}/after
exit $code
"""
#: What a login may print, and when.
NOISES = {
    "a line": ("echo 'disk 0'", ""),
    "half a line": ("printf 'disk 0'", ""),
    "JSON": ('echo \'{"label": "disk 0"}\'; echo agent 0', ""),
    "on standard error": ("echo 'disk 0' >&2", "echo 'disk 0' >&2"),
    "both streams are one": ("exec 2>&1; echo 'disk 0'", "echo 'disk 0'"),
    "bytes": (r"printf '\000\377\033[2J\n\001disk 0\000'", ""),
    "megabytes": ("yes 'disk 0' | head -c 5000000; yes 'disk 0' | head -c 5000000 >&2", ""),
    "a marker of another run": (f"printf '{'0123456789abcdef' * 4}disk 0'", f"printf '{'0123456789abcdef' * 4}0:'"),
    "the command itself": ('echo "disk 0 $SSH_ORIGINAL_COMMAND"', 'echo "disk 0 $SSH_ORIGINAL_COMMAND" >&2'),
    "afterwards": ("", "echo 'disk 0'; echo 'disk 0' >&2"),
    "afterwards, with another exit code": ("", "echo 'disk 0'; code=0"),
}  # fmt: skip


@dataclass(frozen=True)
class Ran:
    """A command of knnkit: its exit code, what it printed, and what lies in the file of answers."""

    code: int
    out: str
    err: str
    file: str
    logins: int

    @property
    def answer(self) -> object:
        """What it says of the device, without times and addresses."""
        report = json.loads(self.out) if self.out.count("\n") == 1 and self.out.startswith('{"') else {}
        if not report.get("devices"):
            return self.code, self.out, self.err, self.file
        (device,) = report["devices"]
        said = [device.get(key) for key in ("outcome", "reason", "message", "warnings", "release", "previous")]
        return self.code, said, bool(device.get("details")), "disk 0" in self.out + self.err


class Login:
    """A board behind a login that counts its commands and prints as it is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        script = folder / "login"
        script.write_text(LOGIN.format(folder=shlex.quote(str(folder))))
        script.chmod(0o755)
        self.extra = f"ForceCommand {script}"
        self.print("", "")

    def print(self, before: str, after: str, when: str = "true") -> None:
        """Prints around every command, or only around those for whose number $n the shell finds `when` true."""
        for name, text in (("before", before), ("after", after)):
            (self.folder / name).write_text(f"if {when}; then :; {text or ':'}; fi\n")
        (self.folder / "count").write_text("0")

    def run(self, words: list[object], capsys: pytest.CaptureFixture[str]) -> Ran:
        capsys.readouterr()
        answers = self.folder / "answers.csv"
        answers.unlink(missing_ok=True)
        code = main([*map(str, words)])
        said = capsys.readouterr()
        file = answers.read_text() if answers.exists() else ""
        return Ran(code, said.out, said.err, file, int((self.folder / "count").read_text()))


@pytest.fixture(scope="module")
def board(running: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with two releases on it: the second answers."""
    return copy_board(running, tmp_path_factory.mktemp("board") / "root")


@pytest.fixture(scope="module")
def newer(releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release that is not on the board yet."""
    out = tmp_path_factory.mktemp("newer") / "release"
    return releases.variant("iris", out, sequence=12, version="1.2.0")


@pytest.fixture(scope="module")
def login(tmp_path_factory: pytest.TempPathFactory) -> Login:
    return Login(tmp_path_factory.mktemp("login"))


@pytest.fixture(scope="module")
def server(login: Login, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    """One server for all tests here: each logs in anew, and the login prints what the test asks for."""
    with sshd.running(tmp_path_factory.mktemp("server"), extra=login.extra) as server:
        yield server


@pytest.fixture
def words(server: sshd.Sshd, no_ssh_config: Path) -> tuple[object, ...]:
    """How a command line names the board behind the login."""
    return (
        *("--target", f"{server.user}@{server.host}:{server.port}", "-i", server.identity),
        *("--known-hosts", server.known_hosts, "--ssh-config", no_ssh_config),
    )


#: What to run; {rows}, {answers} and {newer} are paths. A command that changes its board gets a fresh one each time.
COMMANDS = (
    "status --json", "parity --json", "bench --json", "logs --json", "doctor --json", "trust --keys --json",
    "provision --offline --json", "deploy --release {newer} --dry-run --json", "classify --input {rows}",
    "classify --input {rows} --stream", "classify --input {rows} --json", "classify --input {rows} --output {answers}",
    "classify --input {rows} --output {answers} --stream",
)  # fmt: skip
CHANGES = ("deploy --release {newer} --json", "rollback --json", "provision --remove --json")


@pytest.fixture
def ask(
    login: Login,
    board: Path,
    newer: Path,
    tmp_path: Path,
    words: tuple[object, ...],
    capsys: pytest.CaptureFixture[str],
) -> Callable[[str], Ran]:
    """Runs a command against the board, or against a fresh copy of it."""
    rows = login.folder / "rows.csv"
    rows.write_text(ROWS)
    numbers = itertools.count()

    def run(command: str) -> Ran:
        root = board if command in COMMANDS else copy_board(board, tmp_path / f"root{next(numbers)}")
        paths = {"rows": rows, "answers": login.folder / "answers.csv", "newer": newer}
        return login.run([*command.format(**paths).split(), *words, "--root", root], capsys)

    return run


@pytest.fixture(scope="module")
def answered() -> dict[str, Ran]:
    """Command -> its result without noise: the same in every test."""
    return {}


@pytest.fixture
def quiet(ask: Callable[[str], Ran], login: Login, answered: dict[str, Ran]) -> Callable[[str], Ran]:
    """Returns the result of a command behind a login that prints nothing."""

    def run(command: str) -> Ran:
        if command not in answered:
            login.print("", "")
            answered[command] = ask(command)
        found = answered[command]
        assert found.code == 0, (found.out, found.err)
        return found

    return run


@pytest.mark.parametrize("command", [*COMMANDS, *CHANGES])
def test_a_login_that_prints_at_command_n_changes_no_answer(
    ask: Callable[[str], Ran], quiet: Callable[[str], Ran], login: Login, command: str
) -> None:
    """Every login of a command prints in one of two runs, and is silent in the other."""
    expected = quiet(command)
    for odd in (1, 0)[: expected.logins]:
        login.print("echo 'disk 0'; echo 'disk 0' >&2", "", when=f"[ $((n % 2)) -eq {odd} ]")
        noisy = ask(command)
        assert (noisy.answer, noisy.logins) == (expected.answer, expected.logins), (odd, noisy.out, noisy.err)


#: A command with one answer, and one that is fed while it answers: all others use these two ways, too.
WAYS = ("status --json", "classify --input {rows} --stream")
#: One of these meets each noise: with three of them something is written before and after the noise.
TAKEN_IN_TURN = itertools.cycle(("classify --input {rows}", *CHANGES))


@pytest.mark.parametrize(("noise", "command"), list(zip(NOISES, TAKEN_IN_TURN)))
def test_whatever_a_login_prints_each_time_changes_no_answer(
    ask: Callable[[str], Ran], quiet: Callable[[str], Ran], login: Login, noise: str, command: str
) -> None:
    for each in (*WAYS, command):
        expected = quiet(each)
        login.print(*NOISES[noise])
        noisy = ask(each)
        assert noisy.answer == expected.answer, (each, noisy.out[-2000:], noisy.err[-2000:])


def test_a_bare_board_behind_a_noisy_login_is_provisioned(
    login: Login, words: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    wheels = make_tiny_wheels(tmp_path / "wheels")
    want_tiny_wheels(monkeypatch, wheels)
    login.print("yes 'disk 0' | head -n 1000; printf 'disk 0'", "echo 'disk 0'")
    asked = ["provision", "--offline", "--wheels", wheels, "--json", *words, "--root", tmp_path / "root"]
    done = login.run(asked, capsys)
    assert done.code == 0, (done.out, done.err)
    assert done.logins > 4
    assert "disk" not in done.out + done.err


@pytest.mark.parametrize(
    ("command", "says", "hint"),
    [
        ("/usr/sbin/nologin", "This account is currently not available", "sudo usermod --shell /bin/sh"),
        ("/bin/false", "without any output", "sudo usermod --shell /bin/sh"),
        ('bash -rc "$SSH_ORIGINAL_COMMAND"', "restricted", "sudo usermod --shell /bin/sh"),
        ("internal-sftp", "sftp connections only", "ForceCommand internal-sftp"),
        ("echo Your password has expired. >&2; exit 1", "password has expired", "asks for a new password"),
        ("echo Coming up. >&2; exit 254", "Coming up", "sudo rm /etc/nologin"),
        ("exec yes", "y", "sudo usermod --shell /bin/sh"),
    ],
)
def test_a_login_that_runs_no_command_is_shown_with_a_way_out(
    command: str, says: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    no_ssh_config: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Fleet commands visit a device alike, so that two stand for all but once; `classify` goes its own way."""
    every = ("doctor", "status", "provision --offline", "classify --input {rows}")
    monkeypatch.setattr("knnkit.transport.ssh.login.MAX_NOISE", 1_000_000)
    rows = tmp_path / "rows.csv"
    rows.write_text(ROWS)
    with sshd.running(tmp_path / "server", extra=f"ForceCommand {command}") as server:
        there = [
            *("--target", f"{server.user}@{server.host}:{server.port}", "-i", str(server.identity)),
            *("--known-hosts", str(server.known_hosts), "--ssh-config", str(no_ssh_config), "--root", str(tmp_path)),
        ]
        for asked in every if command == "/bin/false" else every[1::2]:
            as_json = [] if asked.startswith("classify") else ["--json"]
            assert main([*asked.format(rows=rows).split(), *there, *as_json]) == 1
            said = "".join(capsys.readouterr())
            assert says in said
            assert hint in said
            assert "knnkit doctor" not in said
