"""Labels by page and by terminal: each on the disk at once, and nothing but this page reaches the server."""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import os
import random
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from support import browser
from support.releases import Releases

from device_agent.shared.protocol import constants
from knnkit import cli
from knnkit.commands._label_server import LabelServer
from knnkit.data.collected import Columns, FieldRow, change_label, merge, read
from knnkit.errors import UsageError
from knnkit.model.stored import read_model
from knnkit.render.label_page import View, render
from knnkit.training.labelling import Labelling

PLANTS = Columns("plants", ("length", "width", "soil", "size"), ("soil", "size"))
EVIL = "<script>alert(1)</script>\"'&"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    draw, path = random.Random(1), tmp_path / "plants.parquet"
    merge(path, PLANTS, [
        FieldRow(f"r{n}", EVIL, n, "unknown", None, "unknown", 2.5, "d", (draw.uniform(0, 6), width, soil, "small"))
        for n, (width, soil) in enumerate([(1.0, "sand"), (1.0, "clay"), (0.5, EVIL), (None, "sand"), (1.0, "clay")])
    ])  # fmt: skip
    return path


def labels(file: Path) -> dict[str, str | None]:
    return {row.id: row.label for row in read(file).rows}


@contextlib.contextmanager
def served(file: Path, releases: Releases) -> Iterator[LabelServer]:
    model = read_model(releases["watched"] / constants.MODEL_FILE)
    server = LabelServer(Labelling(read(file), model), "no model")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(
    server: LabelServer, form: dict[str, str] | None = None, path: str | None = None, **headers: str
) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection(server.host, timeout=20)
    own = {"Origin": f"http://{server.host}"} if form is not None else {}
    body = None if form is None else urlencode(form)
    method = "GET" if form is None else "POST"
    connection.request(method, server.path if path is None else path, body, own | headers)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), dict(answer.getheaders())
    connection.close()
    return found


def test_each_label_is_on_the_disk_when_the_page_answers(file: Path, releases: Releases) -> None:
    with served(file, releases) as server:
        assert server.server_address[0] == "127.0.0.1"
        assert ask(server, {"id": "r0", "label": "k1"})[0] == 303
        assert labels(file)["r0"] == "k1"
        ask(server, {"id": "r0", "label": "k2"})  # the same page, sent again
        assert [labels(file)[name] for name in ("r0", "r1")] == ["k1", None]
        ask(server, {"id": "r1", "do": "skip"})
        ask(server, {"id": "r2", "label": "a new \u00e9 <one>"})
        ask(server, {"do": "undo"})
        assert labels(file)["r2"] is None
        for wrong in ("unknown", " ", "a\nb", "\x1b[2J", "x" * 5000):
            assert ask(server, {"id": "r2", "label": wrong})[0] == 303
            assert 'class="verdict warn"' in ask(server)[1]
        for name, label in (("r2", "k0"), ("r3", "k0"), ("r4", "k2"), ("r1", "k2")):
            ask(server, {"id": name, "label": label})
        assert "Every row has a label" in ask(server)[1]
    assert labels(file) == {"r0": "k1", "r1": "k2", "r2": "k0", "r3": "k0", "r4": "k2"}


def test_two_windows_and_two_people_overwrite_nothing(file: Path, releases: Releases) -> None:
    with served(file, releases) as one, served(file, releases) as other:
        ask(one, {"id": "r0", "label": "k1"})
        for server in (one, other):  # a second window of the same page, and another person's page
            ask(server, {"id": "r0", "label": "k2"})
            assert "row r0 has the label &#x27;k1&#x27; already" in ask(server)[1].replace("&#39;", "&#x27;")
        ask(other, {"id": "r1", "label": "k0"})
        ask(one, {"id": "r3", "label": "k2"})  # a window that was open while another row came first
        ask(one, {"id": "r1", "label": "k0"})  # the same label twice
        assert change_label(file, "r3", "k2", "k0") == "k0"
        for _ in range(2):
            ask(one, {"do": "undo"})
        assert "already" in ask(one)[1]
    assert labels(file) == {"r0": "k1", "r1": None, "r2": None, "r3": "k0", "r4": None}


def test_the_page_escapes_what_devices_said_and_shows_neighbours(file: Path, releases: Releases) -> None:
    with served(file, releases) as server:
        first, third = ask(server), None
        for _ in range(2):
            ask(server, {"id": read(file).rows[_].id, "do": "skip"})
        third = ask(server)
        for status, page, headers in (first, third):
            assert status == 200
            assert EVIL not in page
            assert "&lt;script&gt;alert(1)" in page
            nonce = re.search(r"script-src 'nonce-([^']+)'", headers["Content-Security-Policy"])
            assert nonce
            assert page.count("<script") == page.count(f'<script nonce="{nonce[1]}"') == 1
            assert headers["Cache-Control"] == "no-store"
            assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert first[1].count("<br>distance") == 3, "k neighbours"
        assert first[2]["Content-Security-Policy"] != third[2]["Content-Security-Policy"], "a nonce is used once"


def test_other_hosts_paths_and_pages_reach_nothing(file: Path, releases: Releases) -> None:
    with served(file, releases) as server:
        port = server.server_address[1]
        for host in (
            "localhost",
            f"localhost:{port}",
            "evil.example",
            f"evil.example:{port}",
            f"127.0.0.1:{port + 1}",
            "",
        ):
            assert ask(server, Host=host)[0] == 404
            assert ask(server, {"id": "r0", "label": "k1"}, Host=host)[0] == 404
        for path in ("/", server.path[:-1], server.path[:-2] + "x/", server.path + "x", "/%2e" + server.path):
            assert ask(server, path=path)[0] == 404
        form = {"id": "r0", "label": "k1"}
        for origin in ("null", "http://evil.example", f"http://localhost:{port}", f"https://{server.host}", ""):
            assert ask(server, form, Origin=origin)[0] == 403
        for length in ("-1", "99999999", "x"):
            assert ask(server, form, **{"Content-Length": length})[0] == 403
        assert ask(server)[0] == 200
    assert set(labels(file).values()) == {None}


@pytest.mark.skipif(browser.find() is None, reason="no Chromium here")
def test_a_key_gives_a_label_in_a_real_browser(file: Path, releases: Releases) -> None:
    press = "document.dispatchEvent(new KeyboardEvent('keydown', {key: '2', bubbles: true}))"
    with served(file, releases) as server, browser.launch() as running:
        visit = running.visit(server.url, width=400, scripts=True, measure=press, navigates=True)
        assert visit.console == []
        assert [url for url in visit.requests if not url.startswith("data:")][:1] == [server.url]
        shown = running.visit(server.url, width=400, measure="document.body.innerText")
        assert "1 labelled, 4 left" in shown.measured
    assert labels(file)["r0"] == "k1"


def test_the_terminal_takes_numbers_labels_and_keys(
    file: Path, releases: Releases, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = ["3", "s", "", "S", "", "new one", "y", "u", "u2", "n", "unknown", "k0", "q"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(answers) + "\n"))
    words = ["label", str(file), "--terminal", "--release", str(releases["watched"])]
    assert cli.main(words) == 0
    assert labels(file) == {"r0": "k2", "r1": None, "r2": None, "r3": "k0", "r4": None}
    said = capsys.readouterr()
    assert "s or Enter to skip" in said.out
    assert re.findall(r"'([^']*)' is a new label; make it", said.err) == ["S", "new one", "u2"]
    assert "2 labels given, 3 rows have none" in said.out
    assert "reserved for rejected rows" in said.err
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert cli.main(words) == 0
    assert cli.main(["label", str(file.with_name("other.parquet"))]) == 2
    assert "no such file" in capsys.readouterr().err


def test_rows_of_other_columns_have_labels_to_choose_from_and_no_neighbours(tmp_path: Path, releases: Releases) -> None:
    path, model = tmp_path / "plants.parquet", read_model(releases["watched"] / constants.MODEL_FILE)
    for names, count in ((PLANTS.names, 3), (("width", "length", "soil", "size"), 0)):
        row = FieldRow(f"{count}", "b", 1, "unknown", None, "unknown", 2.5, "d", (1.0, 2.0, "sand", "small"))
        merge(path.with_stem(f"{count}"), Columns("plants", names, ("soil", "size")), [row])
        work = Labelling(read(path.with_stem(f"{count}")), model)
        assert (len(work.beside()), work.labels) == (count, model.labels[:-1])


def test_a_label_that_is_a_number_is_never_the_place_of_another(
    tmp_path: Path, releases: Releases, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of digits, "3" is the label 3, not the third one; what only looks like a number is refused."""
    model = read_model(releases["digits"] / constants.MODEL_FILE)
    path, names = tmp_path / "digits.parquet", model.info.feature_names
    cells = (0.0,) * len(names)
    rows = [FieldRow(f"r{n}", "b", n, "unknown", None, "unknown", 1.0, "d", cells) for n in range(3)]
    merge(path, Columns("digits", names), rows)
    wrong = ["--5", "007", "\uff15", "9" * 5000, "1e1", "x"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(["3", *wrong, "12", "y", "q"]) + "\n"))
    words = ["label", str(path), "--terminal", "--release", str(releases["digits"])]
    assert cli.main(words) == 0
    assert labels(path) == {"r0": "3", "r1": "12", "r2": None}
    said = capsys.readouterr()
    assert said.err.count("type a number") + said.err.count("a label may not be") == len(wrong)
    assert "  0  1  2" in said.out.replace("\n0  1", "\n  0  1")
    work = Labelling(read(path), model)
    shown = render(View(work.row, work.columns, work.labels, (), "", numbered=work.numbered), "n")
    assert [found for found in re.findall(r'value="(\w+)" data-key="(.)"', shown) if found[0].isdecimal()] == [
        (str(digit), str(digit)) for digit in range(10)
    ]


def test_a_label_that_a_full_disk_takes_in_part_is_not_given(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, work = os.write, Labelling(read(file), None)

    def nearly_full(descriptor: int, data: bytes) -> int:
        if len(data) < 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", nearly_full)
    with pytest.raises(UsageError, match="No space left on device") as caught:
        work.give("k1")
    assert "df -h" in caught.value.hint
    assert (work.waiting, work.given, labels(file)["r0"]) == (5, 0, None)
    monkeypatch.undo()
    work.give("k1")
    assert labels(file)["r0"] == "k1"
    monkeypatch.setattr(os, "write", nearly_full)
    with pytest.raises(UsageError):
        work.undo()
    monkeypatch.undo()
    work.undo()
    assert (work.waiting, labels(file)["r0"]) == (5, None)
