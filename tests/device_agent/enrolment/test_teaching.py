"""enrol, forget, undo and enrolled on a real root: what is taught is answered, and what is not allowed is refused."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import os
import shutil
import subprocess
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest
from support import crashpoints
from support.device import Device
from support.device_stream import Stream
from support.releases import Releases

from device_agent import cli
from device_agent.serving import last_rows
from device_agent.serving.in_flight import memory_file
from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.record import replace
from device_agent.shared.protocol.reports import Certificate, TaughtCheck
from knnkit.errors import ParityFailed
from knnkit.evaluation.taught import contradicts
from knnkit.fleet.decide import field_rows
from knnkit.fleet.device.recorder import Recorder, nobody
from knnkit.fleet.jobs import query
from knnkit.fleet.targets import Target
from knnkit.provision.install import _KNOWN
from knnkit.transport.local import LocalTransport

ROSE = b"9,9,9,9\n9.1,9,9,9\n9,9.1,9,9\n"
#: A row of the new label, and one of an old.
ASKED = b"9,9,9.05,9\n5.1,3.5,1.4,0.2\n"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, releases: Releases) -> Path:
    device = Device(tmp_path_factory.mktemp("prepared") / "root", releases)
    device.install(releases["taught"])
    return device.root


@pytest.fixture(scope="module")
def plants(tmp_path_factory: pytest.TempPathFactory, releases: Releases) -> Path:
    device = Device(tmp_path_factory.mktemp("plants") / "root", releases)
    device.install(releases["plants-taught"])
    return device.root


@pytest.fixture
def taught(device: Device, prepared: Path) -> Device:
    shutil.rmtree(device.root)
    shutil.copytree(prepared, device.root, symlinks=True)
    return device


def teach(device: Device, label: str = "rose", rows: bytes = ROSE, *more: str) -> dict[str, Any]:
    said = device.run("enrol", "--label", label, *more, "--json", input=rows)
    assert said.code == 0, said.err
    return said.document


def refuse(device: Device, reason: str, *arguments: str, rows: bytes = ROSE) -> str:
    """Runs a command that must be refused; nothing may change. Returns the message and the hint."""
    file = device.root / constants.JOURNAL_FILE
    before = file.read_bytes() if file.exists() else b""
    (input := device.root.parent / "refused.csv").write_bytes(rows)
    source = ["--input", str(input)] if arguments[0] == "enrol" and "--last" not in arguments else []
    words = ["--root", str(device.root), *arguments, *source, "--json"]
    said = crashpoints.run(lambda: cli.main(words), device.root)  # in a fork: sooner than a new Python
    document = json.loads(said.out)
    assert said.code == document["exit_code"] != 0
    assert document["reason"] == reason, document
    assert (file.read_bytes() if file.exists() else b"") == before
    return f"{document['message']} | {document['hint']}"


def labels(device: Device, rows: bytes = ASKED) -> list[str]:
    return [line.split(",")[0] for line in device.run("classify", input=rows).out.splitlines()]


def test_a_new_label_is_answered_at_once_and_no_old_one_is_lost(taught: Device) -> None:
    before = labels(taught)
    document = teach(taught)
    assert document["labels"] == {"rose": 3}
    assert labels(taught) == ["rose", before[1]]
    lines = [json.loads(line) for line in taught.run("classify", "--json", input=ASKED).out.splitlines()]
    assert lines == [{"label": "rose", "local": True, "id": document["ids"][0]}, {"label": before[1]}]
    assert taught.run(
        "classify", input=b"sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)\n" + ASKED
    ).out == (f"label,local,id\nrose,true,{document['ids'][0]}\n{before[1]},,\n")


def test_every_column_of_an_answer_knows_taught_rows(taught: Device) -> None:
    ids = teach(taught)["ids"]
    more = ("--neighbors", "--proba", "--digest")
    found, other = map(json.loads, taught.run("classify", "--json", *more, input=ASKED).out.splitlines())
    assert [(each["id"], each["local"], each["label"]) for each in found["neighbors"]] == [
        (i, True, "rose") for i in ids
    ]
    assert found["probabilities"] == {"setosa": 0, "versicolor": 0, "virginica": 0, "rose": 1}
    assert all("local" not in each and "row" in each for each in other["neighbors"])
    line, _ = taught.run("classify", *more, input=ASKED).out.splitlines()
    assert line.endswith(f",{found['digest']},true,{ids[0]}")
    npy = io.BytesIO()
    np.save(npy, np.array([line.split(",") for line in ASKED.decode().split()], np.float64))
    file = taught.root.parent / "answers.npy"
    taught.run("classify", *more, "--output", str(file), input=npy.getvalue())
    table = np.load(file)
    assert table["label"].tolist() == ["rose", "setosa"]
    assert table["id"].tolist() == [ids[0].encode(), b""]
    assert table["rows"][0].tolist() == [-1, -1, -1]
    taught.run("classify", "--digest", "--output", str(file), input=npy.getvalue())
    assert np.load(file)["id"].tolist() == [ids[0].encode(), b""]


def test_status_of_the_rows_is_what_enrolled_prints(taught: Device) -> None:
    document = teach(taught)
    lines = taught.run("enrolled", "--json").out
    rows = [json.loads(line) for line in lines.splitlines()]
    assert {"id", "label", "time", "row", "digest"} <= rows[0].keys()
    assert [row["row"] for row in rows] == [[9, 9, 9, 9], [9.1, 9, 9, 9], [9, 9.1, 9, 9]]
    assert rows[0]["digest"] == taught.answering()
    assert document["digest"] == hashlib.sha256(lines.encode()).hexdigest()
    table = taught.run("enrolled").out
    assert table.count("  yes      rose") == 3
    assert "3 rows, 1 label, 3 rows used" in table
    assert {path.name for path in taught.root.iterdir()} <= set(_KNOWN), "`provision --remove` knows all names"


def test_status_and_certificate_name_what_is_taught(taught: Device, releases: Releases) -> None:
    """The host replays it from the release and the lines that `enrolled --json` prints."""
    assert taught.ask("status")["taught"] is None
    assert taught.ask("check")["taught"] is None
    document = teach(taught)
    found, said = taught.ask("status")["taught"], taught.ask("check")
    assert found == {"digest": document["digest"], "rows": 3, "labels": {"rose": 3}}
    told = json_codec.from_plain(TaughtCheck, said["taught"])
    assert (told.digest, told.rows, told.labels, told.changed) == (document["digest"], 3, {"rose": 3}, 0)
    assert said["different"] == 0
    assert "rose 3" in taught.run("status").out
    lines, release = taught.run("enrolled", "--json").out.encode(), releases["taught"]
    assert contradicts(release, said["release"], lines, told) == ""
    assert "differently" in contradicts(release, said["release"], lines, replace(told, answers="0" * 64))
    other = replace(told, digest=hashlib.sha256(lines[:-300]).hexdigest())
    assert "sent" in contradicts(release, said["release"], lines, other)


def test_parity_replays_the_taught_rows_of_a_device(taught: Device, releases: Releases) -> None:
    teach(taught)
    proof = json_codec.from_plain(Certificate, taught.ask("check"))
    assert proof.taught is not None
    local = Target("local", None)
    question = query.Question(local, "parity", "me", built={proof.release: releases["taught"]})
    facts: Any = SimpleNamespace(agent_argv=tuple(taught.argv()))

    def replay(certificate: Certificate) -> None:
        query._replay(question, LocalTransport(), facts, Recorder(local, nobody), certificate)

    replay(proof)
    lie = replace(proof, taught=replace(proof.taught, answers="0" * 64))
    with pytest.raises(ParityFailed, match="differently than the reference") as caught:
        replay(lie)
    assert caught.value.reason == "taught-differs"
    query._replay(dataclasses.replace(question, built={}), LocalTransport(), facts, Recorder(local, nobody), lie)


def test_taught_rows_that_change_golden_rows_are_counted(device: Device, releases: Releases) -> None:
    device.install(releases["taught-next"])
    teach(device, "setosa", b"6,2.9,4.5,1.5\n" * 4)
    found = device.ask("check")
    told = json_codec.from_plain(TaughtCheck, found["taught"])
    assert told.changed > 0
    lines = device.run("enrolled", "--json").out.encode()
    assert contradicts(releases["taught-next"], found["release"], lines, told) == ""


def test_forget_and_undo_take_back_what_was_taught(taught: Device) -> None:
    ids = teach(taught)["ids"]
    teach(taught, "setosa", b"5.1,3.5,1.4,0.3\n")
    assert taught.ask("forget", "--label", "rose")["ids"] == ids
    assert labels(taught)[0] != "rose"
    assert taught.ask("undo")["did"] == "undo forget"
    assert labels(taught)[0] == "rose"
    assert taught.ask("forget", "--last", "2")["labels"] == {"rose": 2}
    assert taught.ask("forget", "--id", ids[0])["labels"] == {"rose": 1}
    assert taught.ask("forget", "--all", "--erase")["rows"] == 0
    assert taught.ask("undo", code=2)["reason"] == "nothing-to-undo"


@pytest.mark.parametrize("format", ["csv", "csv with a header", "jsonl", "objects", "npy"])
def test_rows_are_taught_in_every_format_that_classify_reads(taught: Device, format: str) -> None:
    rows = [[9.1, 9.0, 8.7, 9.0], [9.0, 9.2, 9.3, 9.4]]
    names = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
    if format == "npy":
        buffer = io.BytesIO()
        np.save(buffer, np.array(rows))
        data = buffer.getvalue()
    elif format in ("jsonl", "objects"):
        lines = rows if format == "jsonl" else [dict(zip(names[::-1], row[::-1])) for row in rows]
        data = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    else:
        head = [",".join(names)] if "header" in format else []
        data = "\n".join([*head, *(",".join(map(str, row)) for row in rows)]).encode()
    teach(taught, "rose", data)
    found = taught.run("enrolled", "--json").out.splitlines()
    assert [json.loads(line)["row"] for line in found] == rows


def test_a_table_keeps_categories_and_missing_cells(device: Device, releases: Releases) -> None:
    device.install(releases["plants-taught"])
    text = b"when,length,width,soil,size\n2024,30.5,,clay,small\n2024,,40.25,rock,large\n"
    lines = b'{"length": 31, "width": 41, "soil": "clay", "size": "large"}\n{"width": 41.5, "size": "small"}\n'
    strange = b'{"length": 35,\r"width": NaN, "soil": " n/a ", "size": "large"}\n'
    teach(device, "palm", text)
    teach(device, "palm", lines)
    teach(device, "palm", strange)
    rows = [json.loads(line)["row"] for line in device.run("enrolled", "--json").out.splitlines()]
    assert rows == [
        [30.5, None, "clay", "small"],
        [None, 40.25, "rock", "large"],
        [31, 41, "clay", "large"],
        [None, 41.5, None, "small"],
        [35, None, None, "large"],
    ]
    said = device.run(
        "classify", "--json", "--neighbors", input=b'{"length": 31, "width": 41, "soil": "clay", "size": "large"}\n'
    )
    assert json.loads(said.out)["label"] == "palm"
    assert json.loads(said.out)["neighbors"][0]["distance"] == 0


ODD_LABELS = ("a,b", '"q"', "caf\u00e9", "7", "1e3", "=1+1", "true", "\u79cb \u2603", "x" * 256)


def test_labels_of_every_kind_come_back_as_they_were_taught(taught: Device) -> None:
    """In answers, in the list, on the host; and an accent written in two ways is one label."""
    from device_agent.serving import teach as module
    from device_agent.serving.columns import Columns
    from device_agent.serving.rows import Request
    from device_agent.store.store import Store

    store, file = Store(taught.root), taught.root.parent / "rows.csv"
    request = Request(str(file), None, "auto", None, Columns(), counters=[])
    rows = [",".join([f"{100 * place}"] * 4) + "\n" for place in range(1, len(ODD_LABELS) + 1)]
    for label, row in zip(ODD_LABELS, rows):
        file.write_text(2 * row)
        module.teach(store, module.Meaning(normalize("NFD", label)), request, "me")
    asked = "".join(rows).encode()
    assert [row[0] for row in csv.reader(taught.run("classify", input=asked).out.splitlines())] == list(ODD_LABELS)
    said = taught.run("classify", "--json", input=asked).out.splitlines()
    assert [json.loads(line)["label"] for line in said] == list(ODD_LABELS)
    lines = taught.run("enrolled", "--json").out.encode()
    columns = field_rows.read_columns(taught.run("ring", "--columns", "--json").out.encode())
    (brought,) = field_rows.read_rows("d", lines, b"", columns).rows.values()
    assert [row.label for row in brought] == [label for label in ODD_LABELS for _ in range(2)]
    assert taught.ask("forget", "--label", "cafe\u0301")["labels"].keys() == {*ODD_LABELS} - {"caf\u00e9"}


@pytest.mark.parametrize("cell", ["a\tb", "x" * 1001, "\u200b", "line\nbreak", 'ok \u00fc, "q"'])
def test_a_device_takes_no_cell_that_a_host_would_not(cell: str, device: Device, plants: Path) -> None:
    shutil.copytree(plants, device.root, symlinks=True, dirs_exist_ok=True)
    row = json.dumps({"length": 31, "width": 41, "soil": cell, "size": "large"}).encode() + b"\n"
    if cell.isprintable() and len(cell) < 1000:
        teach(device, "palm", row)
        columns = field_rows.read_columns(device.run("ring", "--columns", "--json").out.encode())
        (found,) = field_rows.read_rows("d", device.run("enrolled", "--json").out.encode(), b"", columns).rows.values()
        assert found[0].cells == (31, 41, cell, "large")
    else:
        assert "soil: " in refuse(device, "bad-input", "enrol", "--format", "jsonl", "--label", "palm", rows=row)


@pytest.mark.parametrize(("cell", "text"), [(7, "7"), (2.0, "2"), (2.5, "2.5"), (True, "True")])
def test_a_number_taught_as_a_category_is_text_on_the_host(cell: Any, text: str, device: Device, plants: Path) -> None:
    """A host takes a number for a cell of other columns, and would leave the row on the device."""
    shutil.copytree(plants, device.root, symlinks=True, dirs_exist_ok=True)
    teach(device, "palm", json.dumps({"length": 31, "width": 41, "soil": cell, "size": "large"}).encode() + b"\n")
    columns = field_rows.read_columns(device.run("ring", "--columns", "--json").out.encode())
    brought = field_rows.read_rows("d", device.run("enrolled", "--json").out.encode(), b"", columns)
    assert brought.unplaced == 0
    assert [row.cells for found in brought.rows.values() for row in found] == [(31, 41, text, "large")]


def test_what_the_release_does_not_allow_is_refused_with_its_reason(taught: Device, releases: Releases) -> None:
    enrol = ("enrol", "--label")
    assert "20" in refuse(taught, "bad-input", *enrol, "rose", rows=b"9,9,9,9\n" * 21)
    teach(taught, "rose", b"9,9,9,9\n" * 8)
    assert "forget" in refuse(taught, "enrol-full", *enrol, "rose")
    assert "teach fewer rows" in refuse(taught, "enrol-full", *enrol, "iris", rows=b"29,9,9,9\n" * 9)
    teach(taught, "lily", b"19,9,9,9\n" * 8)
    assert "20" in refuse(taught, "enrol-full", *enrol, "iris", rows=b"29,9,9,9\n" * 5)
    golden = refuse(taught, "row-overrides", *enrol, "setosa", rows=b"6,2.9,4.5,1.5\n" * 3)
    assert "golden row" in golden
    assert "may_override" in golden
    assert "4" in refuse(taught, "bad-input", *enrol, "rose", rows=b"9,9,9\n")
    assert "line 2" in refuse(taught, "bad-input", *enrol, "rose", rows=b"9,9,9,9\n9,9,x,9\n")
    assert "--stream" not in refuse(taught, "bad-input", *enrol, "rose", rows=b"9,9,9,nan\n"), "enrol has no such flag"
    refuse(taught, "no-rows", *enrol, "rose", rows=b"")
    for wrong in ("unknown", " rose", "a\nb", "x" * 257):
        refuse(taught, "bad-input", *enrol, wrong)
    assert "enrolled" in refuse(taught, "not-enrolled", "forget", "--id", "0" * 16)
    refuse(taught, "not-enrolled", "forget", "--label", "tulip")
    taught.install(releases["taught-next"])
    assert "setosa" in refuse(taught, "label-not-allowed", *enrol, "tulip")


def test_the_hint_of_a_refusal_leads_out(taught: Device) -> None:
    teach(taught, "rose", b"9,9,9,9\n" * 8)
    full = taught.run("enrol", "--label", "rose", "--json", input=b"9,9,9,9\n").document
    typed = full["hint"].partition(";")[0].split()[3:]
    assert typed == ["forget", "--root", str(taught.root), "--last", "1"]
    assert taught.run(*typed).code == 0
    teach(taught, "rose", b"9,9,9,9\n")
    taught.ask("forget", "--all", "--erase")
    assert taught.ask("undo", code=2)["hint"].split()[3:] == ["enrolled", "--root", str(taught.root)]
    assert "0 rows" in taught.run("enrolled").out


def test_nothing_is_taught_where_the_release_does_not_say_so(device: Device, releases: Releases) -> None:
    refuse(device, "no-release", "enrol", "--label", "rose")
    device.install(releases["iris"])
    said = refuse(device, "enrol-not-allowed", "enrol", "--label", "rose")
    assert "enrol: {rows: 500}" in said
    assert f"the release iris 1.0.0 in {device.root} does not allow rows to be taught" in said
    assert "or --root DIR for another folder" in said


def test_a_new_release_uses_what_it_allows_and_a_rollback_the_rest_again(taught: Device, releases: Releases) -> None:
    teach(taught)
    teach(taught, "setosa", b"5.1,3.5,1.4,0.3\n")
    before = taught.run("classify", "--json", "--neighbors", input=ASKED).out
    taught.install(releases["taught-next"])
    assert "4 rows, 2 labels, 1 row used" in taught.run("enrolled").out
    assert labels(taught)[0] != "rose"
    taught.ask("rollback")
    assert taught.run("classify", "--json", "--neighbors", input=ASKED).out == before


def test_a_damaged_journal_never_stops_the_answers(taught: Device) -> None:
    before = labels(taught)
    teach(taught)
    file = taught.root / constants.JOURNAL_FILE
    file.write_bytes(file.read_bytes().replace(b"rose", b"lily"))
    said = taught.run("classify", input=ASKED)
    assert [line.split(",")[0] for line in said.out.splitlines()] == before
    assert "was changed" in said.err
    hint = taught.ask("enrolled", code=1)["hint"]
    assert hint.endswith(f"mv {taught.root}/enrolled {taught.root}/enrolled.bad")
    finding = next(each for each in taught.run("doctor", "--json").document["findings"] if each["name"] == "taught")
    assert (finding["level"], finding["mend"]) == ("error", hint)
    subprocess.run(hint.partition(": ")[2], shell=True, check=True)
    teach(taught)
    assert taught.run("doctor").code == 0


def test_a_stream_answers_every_row_once_while_rows_are_taught(taught: Device) -> None:
    """The rows of one read have the answers of one journal; a row that is sent after `enrol` returned knows it."""
    with Stream(taught, "--json") as stream:
        before = json.loads(stream.ask("9,9,9.05,9"))
        assert "local" not in before
        ids = teach(taught)["ids"]
        assert json.loads(stream.ask("9,9,9.05,9")) == {"label": "rose", "local": True, "id": ids[0]}
        taught.ask("forget", "--all")
        assert json.loads(stream.ask("9,9,9.05,9")) == before
        taught.ask("undo")
        assert json.loads(stream.ask("9,9,9.05,9"))["label"] == "rose"
        rest, said = stream.finish()
    assert (rest, said) == ("", "")


def test_what_a_stream_answered_last_is_taught(taught: Device) -> None:
    assert "stream" in refuse(taught, "no-rows", "enrol", "--label", "rose", "--last")
    with Stream(taught, "--json") as stream:
        for row in ("5.1,3.5,1.4,0.2", "9,9,9,9", "9.1,9,9,9"):
            assert "local" not in json.loads(stream.ask(row))
        assert "--last" in refuse(taught, "bad-arguments", "enrol", "--label", "rose", "--last", "--input", "rows.csv")
        refuse(taught, "no-rows", "enrol", "--label", "rose", "--last", "4")
        assert taught.ask("enrol", "--label", "rose", "--last", "2")["labels"] == {"rose": 2}
        assert json.loads(stream.ask("9,9,9.05,9"))["label"] == "rose"
        stream.finish()
    rows = [json.loads(line)["row"] for line in taught.run("enrolled", "--json").out.splitlines()]
    assert rows == [[9, 9, 9, 9], [9.1, 9, 9, 9]]
    refuse(taught, "no-rows", "enrol", "--label", "rose", "--last")


def test_a_refused_line_is_never_skipped_when_the_last_row_is_taught(taught: Device) -> None:
    """Whoever teaches what the stream answered last would otherwise teach the row before it."""
    with Stream(taught, "--json") as stream:
        for line in ("5.1,3.5,1.4,0.2", "9,9,9,9", "9,x,9,9"):
            stream.ask(line)
        assert "refused its last line" in refuse(taught, "no-rows", "enrol", "--label", "rose", "--last")
        stream.send(b"9.2,9,9,9\n9.1,9,9,9\n9,9\n9.3,9,9,9\n")
        assert len([stream.line() for _ in range(4)]) == 4
        assert taught.ask("enrol", "--label", "rose", "--last")["rows"] == 1
        assert "one of its last 2" in refuse(taught, "no-rows", "enrol", "--label", "rose", "--last", "2")
        stream.send(b"9" * (1 << 20) + b",9,9,9\n")
        stream.line()
        assert "refused its last line" in refuse(taught, "no-rows", "enrol", "--label", "rose", "--last")
        stream.finish(code=2)
    assert [json.loads(line)["row"][0] for line in taught.run("enrolled", "--json").out.splitlines()] == [9.3]


def test_the_last_rows_of_a_table_are_taught_with_categories(device: Device, releases: Releases) -> None:
    device.install(releases["plants-taught"])
    with Stream(device, "--json") as stream:
        for row in ('{"length": 31, "width": 41, "soil": "clay", "size": "large"}', '{"width": 41.5, "size": "small"}'):
            stream.ask(row)
        assert device.ask("enrol", "--label", "palm", "--last", "2")["labels"] == {"palm": 2}
        told = json.loads(stream.ask('{"length": 31, "width": 41, "soil": "clay", "size": "large"}'))
        assert (told["label"], told["local"]) == ("palm", True)
        stream.ask('{"width": 41.5, "soil": "moss", "size": "small"}')
        assert "a category that the model does not have" in refuse(
            device, "no-rows", "enrol", "--label", "palm", "--last"
        )
        stream.finish()
    known, filled = [json.loads(line)["row"] for line in device.run("enrolled", "--json").out.splitlines()]
    assert known == [31, 41, "clay", "large"]
    assert filled[1:] == [41.5, "missing", "small"]
    assert isinstance(filled[0], float), "a missing number has the value that filled it"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file to somebody else")
def test_rows_that_another_user_put_there_are_not_taught(taught: Device) -> None:
    with Stream(taught, "--json") as stream:
        stream.ask("9,9,9,9")
        path = memory_file(taught.root, f"-rows-{stream.process.pid}")
        os.chown(path, 65534, 65534)
        refuse(taught, "no-rows", "enrol", "--label", "rose", "--last")
        os.chown(path, 0, 0)
        assert taught.ask("enrol", "--label", "rose", "--last")["rows"] == 1


def test_a_model_whose_streams_store_no_rows_says_so(tmp_path: Path) -> None:
    info: Any = SimpleNamespace(table=SimpleNamespace(transforms=("log",)))
    with pytest.raises(BadInput, match="a stream does not store the rows of this model") as refused:
        last_rows.read(tmp_path, info, 1)
    assert refused.value.hint == "give the rows with --input FILE"


def test_rows_of_two_streams_are_never_mixed(taught: Device) -> None:
    with Stream(taught, "--json") as one, Stream(taught, "--json") as two:
        for place, stream in enumerate((one, two)):
            stream.ask(f"9,9,9,{9 + place}")
        assert "2 streams" in refuse(taught, "no-rows", "enrol", "--label", "rose", "--last")
        one.process.kill()
        one.process.wait()
        taught.ask("enrol", "--label", "rose", "--last")
        two.finish()
    rows = [json.loads(line)["row"] for line in taught.run("enrolled", "--json").out.splitlines()]
    assert rows == [[9, 9, 9, 10]]
    refuse(taught, "no-rows", "enrol", "--label", "rose", "--last")


def test_the_rows_of_a_killed_stream_go_when_the_next_one_starts(taught: Device) -> None:
    with Stream(taught, "--json") as killed:
        killed.ask("9,9,9,9")
        left = memory_file(taught.root, f"-rows-{killed.process.pid}")
        killed.process.kill()
        killed.process.wait()
    assert left.exists()
    with Stream(taught, "--json") as stream:
        stream.ask("9,9,9,10")
        assert not left.exists()
        assert memory_file(taught.root, f"-rows-{stream.process.pid}").exists()


def test_the_last_rows_are_found_under_another_name_of_the_root(taught: Device, tmp_path: Path) -> None:
    (tmp_path / "other").symlink_to(taught.root)
    with Stream(taught, "--json") as stream:
        stream.ask("9,9,9,9")
        for other in (tmp_path / "other", taught.root / ".." / taught.root.name):
            assert cli.main(["--root", str(other), "enrol", "--label", "rose", "--last"]) == 0


#: A stream has at least so many rows. `KNNKIT_STREAM_ROWS=1000000 scripts/test device_agent/enrolment -k lost_or_mixed`
#: teaches 200 times and activates 20 times meanwhile.
ROWS = int(os.environ.get("KNNKIT_STREAM_ROWS", "20000"))
ENROLMENTS, ACTIVATIONS = max(12, ROWS // 5000), max(2, ROWS // 50_000)


def test_no_answer_is_lost_or_mixed_while_labels_and_releases_come_and_go(taught: Device, releases: Releases) -> None:
    """Each answer is that of one release, and of taught rows that this release uses."""
    from device_agent.serving import teach as module
    from device_agent.serving.columns import Columns
    from device_agent.serving.rows import Request
    from device_agent.store.store import Store

    file, store = taught.root.parent / "rose.csv", Store(taught.root)
    file.write_bytes(b"9,9,9,9\n9,9,9.1,9\n")
    request, first = Request(str(file), None, "auto", None, Columns(), counters=[]), taught.answering()
    digests, done = [first], threading.Event()

    def change() -> None:
        for number in range(ENROLMENTS):
            module.teach(store, module.Meaning("rose"), request, "me")
            if number * ACTIVATIONS // 2 // ENROLMENTS < (number + 1) * ACTIVATIONS // 2 // ENROLMENTS:
                digests.append(taught.install(releases["taught-next"]))
                taught.ask("rollback")
            module.forget(store, "me", label=None, ids=(), last=2, erase=False)
        done.set()

    with Stream(taught, "--digest", "--json") as stream:
        before = json.loads(stream.ask("9,9,9.05,9"))["label"]
        thread = threading.Thread(target=change)
        thread.start()
        answers: Counter[str] = Counter()
        while answers.total() < ROWS or not done.is_set():
            stream.send(b"9,9,9.05,9\n" * 100)
            answers += Counter(stream.line() for _ in range(100))
        thread.join()
        assert stream.finish() == ("", "")
    met = {(each["digest"], each["label"], each.get("local", False)) for each in map(json.loads, answers)}
    assert met == {(first, before, False), (first, "rose", True), (digests[-1], before, False)}
    assert len(digests) - 1 == ACTIVATIONS // 2
    print(f"{answers.total():,} rows, {ENROLMENTS} enrolments, {ACTIVATIONS} activations: {len(met)} kinds of answer")


def test_a_label_that_differs_from_another_only_in_case_is_pointed_out(taught: Device) -> None:
    teach(taught)
    said = taught.run("enrol", "--label", "ROSE", input=ROSE)
    assert said.code == 0
    assert "the label ROSE is new, and differs only in blanks or case from rose" in said.err
    assert taught.run("undo", "--json").document["labels"] == {"rose": 3}
    teach(taught, "ROSE")
    assert "differs only" not in taught.run("enrol", "--label", "ROSE", input=ROSE).err
    assert "did you mean --label rose?" in refuse(taught, "not-enrolled", "forget", "--label", "Rose")
    alike = taught.run("enrol", "--label", "r\u043ese", input=b"9,9,9.1,9\n").err
    assert "letters that look alike (r\u043ese has U+043E; rose has U+006F) from rose" in alike


def test_a_label_that_begins_with_a_dash_is_typed_in_one_word(taught: Device) -> None:
    for command in ("enrol", "forget"):
        said = taught.run(command, "--label", "-x", input=ROSE)
        again = f"python -m device_agent {command} --root {taught.root} --label=-x"
        assert (said.code, said.err.splitlines()[-1]) == (2, f"  try: {again}")
    assert taught.run("enrol", "--label=-x", "--json", input=ROSE).document["labels"] == {"-x": 3}
    assert "--label=" not in taught.run("enrol", "--label", "--json", input=ROSE).err, "that is an option"


def test_rows_taught_again_are_counted_and_the_stored_label_is_shown(taught: Device) -> None:
    first = taught.run("enrol", "--label", "7", input=ROSE)
    again = taught.run("enrol", "--label", "7.0", input=ROSE + b"9,9,9,9.2\n")
    assert (first.err, again.code) == ("", 0)
    assert "warning: 3 of 4 rows had been taught before with this label, and now vote twice" in again.err
    assert again.err.rstrip().endswith(f"python -m device_agent undo --root {taught.root}"), "the store that was given"
    assert again.out.startswith("taught 7: ")
    assert "before" not in taught.run("enrol", "--label", "8", input=ROSE).err
    assert taught.ask("undo")["did"] == "undo enrol"


def test_many_ids_are_not_one_endless_line(taught: Device) -> None:
    said = taught.run("enrol", "--label", "rose", input=b"9,9,9,9\n8,8,8,8\n7,7,7,7\n6,6,6,6\n5,5,5,5\n")
    ids = [json.loads(line)["id"] for line in taught.run("enrolled", "--json").out.splitlines()]
    assert said.out.splitlines()[0] == f"taught rose: {', '.join(ids[:3])} and 2 more"
    assert taught.run("undo").out.splitlines()[0] == f"forgot {', '.join(ids[:3])} and 2 more"


def test_one_row_is_counted_as_one(taught: Device) -> None:
    said = taught.run("enrol", "--label", "rose", input=b"9,9,9,9\n").out
    assert said.endswith("\n1 row is taught now: rose 1\n")
    assert taught.run("enrolled").out.endswith("\n1 row, 1 label, 1 row used in answers\n")
    assert "1 row (rose 1)" in taught.run("status").out


def test_taught_rows_that_are_answered_otherwise_are_counted(taught: Device) -> None:
    for rows, wrong, said in ((ROSE[:8], 1, "1 of 1 taught row of rose is still answered "), (ROSE[8:], 0, "")):
        err = taught.run("enrol", "--label", "rose", input=rows).err
        known = labels(taught, ROSE[:8] if wrong else ROSE)
        assert sum(each != "rose" for each in known) == wrong
        assert said in err
        assert bool(err) == bool(wrong)
        if wrong:
            assert f"still answered {known[0]}: teach more rows of it (with k " in err


def test_a_hint_of_enrol_names_no_option_that_enrol_lacks(taught: Device) -> None:
    names = "sepal length (cm),sepal width (cm),petal length (cm),petal width (cm),colour"
    found = refuse(taught, "bad-input", "enrol", "--label", "rose", rows=f"{names}\n1,2,3,4,5\n".encode())
    assert found.endswith("--ignore-extra leaves out the columns that the model does not have")
