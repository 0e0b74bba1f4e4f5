"""The host's command line where its standard streams are closed or full, or a value on it makes no sense."""

from __future__ import annotations

import errno
import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

from knnkit.errors import DataError, UsageError
from knnkit.transport.buffers import Ends


def knnkit(cwd: Path, redirections: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from knnkit.cli import main; sys.exit(main())"
    shell = ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-c", code, *arguments]
    return subprocess.run(shell, cwd=cwd, input="", capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("words", ["schema", "--help", "build --help", "--version"])
@pytest.mark.parametrize("where", [">&-", ">/dev/full"])
def test_a_result_that_cannot_be_printed_is_one_message_and_an_exit_code(
    tmp_path: Path, where: str, words: str
) -> None:
    said = knnkit(tmp_path, where, *words.split())
    assert said.returncode == 2
    assert said.stderr.startswith("knnkit: standard output: ")
    assert said.stderr.count("\n") == 1 + ("\n  try: " in said.stderr)


@pytest.mark.parametrize("words", ["schema", "--help", "--version"])
def test_a_result_that_nobody_reads_ends_like_any_program_before_a_closed_pipe(tmp_path: Path, words: str) -> None:
    said = _unread(tmp_path, words)
    assert (said.returncode, said.stderr) == (141, "")


def _unread(cwd: Path, words: str) -> subprocess.CompletedProcess[str]:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from knnkit.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", code, words]
        return subprocess.run(command, cwd=cwd, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(writer)


class _Failing(io.BytesIO):
    name = 1

    def read1(self, size: int | None = -1) -> bytes:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "standard output")


def test_a_stream_of_rows_or_answers_that_fails_is_named_once_with_what_to_type() -> None:
    ends = Ends(_Failing(), _Failing())
    assert ends.read(9) == b""
    with pytest.raises(DataError, match=r"^standard output: it is closed") as closed:
        ends.check()
    assert str(closed.value).count("standard output") == 1
    assert "< FILE gives it input" in closed.value.hint
    with pytest.raises(UsageError, match=r"^standard output: No space left on device") as full:
        ends.write(b"x")
    assert str(full.value).count("standard output") == 1
    assert full.value.hint.startswith("make room")


@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full"])
def test_a_fleet_is_asked_to_the_end_where_nobody_sees_the_progress(tmp_path: Path, where: str) -> None:
    report = tmp_path / "report.json"
    said = knnkit(tmp_path, where, "status", "--target", "local", "--root", str(tmp_path), "--report", str(report))
    assert said.returncode == 1
    assert "no-agent" in report.read_text()
    assert f"knnkit provision --target local --root {tmp_path}" in report.read_text(), "it would provision another root"
    assert "local" in said.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["keygen", "--out", ""], "--out: it is empty"),
        (["keygen", "--out", "/tmp/"], "--out /tmp is a folder\n  try: --out /tmp/signing"),
        (["status", "--target", "local", "--concurrency", "0"], "--concurrency 0: expected a whole number from 1"),
        (["bench", "--target", "local", "--threads", "0"], "argument --threads"),
        (["logs", "--target", "local", "-n", "-5"], "argument -n"),
        (["status", "-c", "/dev/zero"], "/dev/zero: more than"),
    ],
)
def test_a_value_that_makes_no_sense_is_one_message(tmp_path: Path, arguments: list[str], says: str) -> None:
    said = knnkit(tmp_path, "", *arguments)
    assert said.returncode == 2, said.stderr
    assert says in said.stderr
    assert "Traceback" not in said.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_end_of_input_at_a_question_is_one_message(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    program = [sys.executable, "-m", "knnkit", "keygen", "--passphrase", "--out", str(tmp_path / "key")]
    with subprocess.Popen(
        program, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, start_new_session=True, cwd=ROOT
    ) as process:
        assert process.stderr
        said = process.stderr.read(len("New passphrase: "))
        os.write(ours, b"\x04")  # Ctrl-D
        said += process.stderr.read()
    os.close(ours), os.close(theirs)
    assert process.returncode == 2
    assert said.decode().strip().endswith("the input ended before an answer\n  try: run the command again, and answer")
    assert b"Traceback" not in said
    assert list(tmp_path.iterdir()) == []


FLEET = "fleet: {targets: [{host: local, name: one}, {host: board.invalid, tags: [canary]}]}\n"


@pytest.mark.parametrize("target", [["--target", "local"], ["--target", "one"], []])
def test_a_tag_that_no_device_has_is_refused_before_it_makes_one_wave_of_all(tmp_path: Path, target: list[str]) -> None:
    (tmp_path / "deploy.yaml").write_text(FLEET)
    said = knnkit(tmp_path, "", "deploy", *target, "--waves", "canry,100%")
    assert said.returncode == 2
    assert "--waves: no device has the tag 'canry'; did you mean 'canary'?" in said.stderr
    assert "try: --waves canary,100%" in said.stderr


def test_a_tag_of_devices_that_were_not_selected_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "deploy.yaml").write_text(FLEET)
    assert "--waves" not in knnkit(tmp_path, "", "deploy", "--target", "one", "--waves", "canary,100%").stderr
    said = knnkit(tmp_path, "", "deploy", "--target", "one", "--waves", "canary")
    assert said.returncode == 2
    assert "the waves canary contain none of the devices" in said.stderr


@pytest.mark.parametrize("words", ["init o.yaml --label y --data", "audit", "inspect"])
def test_a_name_that_is_not_utf8_is_one_message(tmp_path: Path, words: str) -> None:
    name = b"b\xff.csv".decode("utf-8", "surrogateescape")
    (tmp_path / name).write_text("a,b,y\n1,2,x\n3,4,z\n")
    (tmp_path / "deploy.yaml").write_text("model: {name: a, data: {files: 'b*.csv', label: y}}")
    said = knnkit(tmp_path, "", *words.split(), *([name] if words != "audit" else []))
    assert said.returncode == 2
    assert said.stderr.startswith("knnkit: ")
    assert "b\\udcff.csv" in said.stderr
    assert "\n  try: " in said.stderr
