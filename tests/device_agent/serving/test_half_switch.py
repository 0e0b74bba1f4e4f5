"""A stream whose switch to another release fails goes on with the old one: no row is lost, and none is mixed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.device import Device
from support.device_stream import Stream
from support.releases import Releases

from device_agent.serving.batch import make_renderer
from device_agent.serving.columns import Columns
from device_agent.serving.load import answering, load_accepted
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants
from device_agent.store.store import Store


def overwrite(release: Path) -> None:
    path = release / constants.MODEL_FILE
    path.parent.chmod(0o700)
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\0" * 4096)


def leave(release: Path) -> None:
    """Nothing: the release itself cannot follow the stream."""


#: Name -> what happens to the new release before the next row, the old and the new one, flags, and what is said.
FAULTS = {
    "damaged": (overwrite, "iris", "iris-next", (), "no longer verifies"),
    "cannot render": (leave, "iris-forgets", "iris", ("--labels", "0.9"), "no label sets with coverage 0.9"),
    "fills missing cells": (leave, "plots-near", "plots-gaps", (), "does not fit this stream"),
    "fills none": (leave, "plots-gaps", "plots-near", (), "does not fit this stream"),
}


@pytest.mark.parametrize(
    ("fault", "format"), [*((fault, "csv") for fault in FAULTS), ("cannot render", "jsonl"), ("fills none", "jsonl")]
)
def test_a_switch_that_fails_leaves_the_stream_as_it_was(
    device: Device, releases: Releases, tmp_path: Path, fault: str, format: str
) -> None:
    breaks, old, new, flags, said = FAULTS[fault]
    kept = device.install(releases[old])
    rows = Golden.from_bytes((releases[old] / constants.GOLDEN_FILE).read_bytes()).rows[:40].tolist()
    lines = [str(row) if format == "jsonl" else ",".join(map(str, row)) for row in rows]
    expected = device.run("classify", *flags, "--digest", input="".join(line + "\n" for line in lines)).out.splitlines()
    assert len(set(expected)) > 1, "the case shows nothing"
    with Stream(device, *flags, "--digest") as stream:
        assert [stream.ask(line) for line in lines] == expected
        digest = device.stage(releases.variant(new, tmp_path / "new", sequence=50))
        device.ask("activate", digest)
        break_it: Callable[[Path], None] = breaks
        break_it(device.root / constants.RELEASES_DIR / digest)
        for _ in range(3):
            stream.send("".join(line + "\n" for line in lines))
            assert [stream.line() for _ in lines] == expected
        device.ask("confirm", digest)
        assert [stream.ask(line) for line in lines] == expected, "also after the commit"
        device.ask("rollback")
        assert [stream.ask(line) for line in lines] == expected
        out, err = stream.finish()
    assert out == ""
    assert said in err
    assert f"{kept[:12]} still answers\n  try: " in err


def test_a_stream_follows_to_the_release_after_one_that_failed(
    device: Device, releases: Releases, tmp_path: Path
) -> None:
    device.install(releases["iris"])
    golden = Golden.from_bytes((releases["iris"] / constants.GOLDEN_FILE).read_bytes())
    lines = [",".join(map(str, row)) for row in golden.rows.tolist()]
    with Stream(device, "--digest") as stream:
        stream.ask(lines[0])
        broken = device.stage(releases.variant("iris-next", tmp_path / "broken", sequence=50))
        device.ask("activate", broken)
        overwrite(device.root / constants.RELEASES_DIR / broken)
        stream.ask(lines[0])
        device.ask("rollback")
        good = device.install(releases.variant("iris-next", tmp_path / "good", sequence=51))
        found = [stream.ask(line) for line in lines]
    assert {line.split(",")[1] for line in found} == {good}
    assert len({line.split(",")[0] for line in found}) > 1


@pytest.mark.parametrize(("name", "allows"), [("iris", False), ("taught", True)])
def test_csv_keeps_the_columns_of_taught_rows_with_which_a_stream_began(
    device: Device, releases: Releases, name: str, allows: bool
) -> None:
    device.install(releases[name])
    store = Store(device.root)
    loaded = load_accepted(store, answering(store).release, "auto", 1)
    answers = loaded.model.classify(np.float32([[5.1, 3.5, 1.4, 0.2]]))
    for marks, expected in ((None, allows), (False, False), (True, True)):
        renderer = make_renderer(loaded, Columns(digest=True), "csv", marks=marks)
        more = ["", ""] * expected
        assert renderer.header().decode().split() == [",".join(["label", "digest", *["local", "id"] * expected])]
        assert renderer.render(answers, 1, {}).decode().split() == [",".join(["setosa", loaded.digest, *more])]
    loaded.close()


def test_a_stream_of_json_follows_to_another_k(device: Device, releases: Releases, tmp_path: Path) -> None:
    device.install(releases["iris"])
    with Stream(device, "--digest", "--neighbors") as stream:
        assert len(json.loads(stream.ask("[5.1, 3.5, 1.4, 0.2]"))["neighbors"]) == 3
        digest = device.install(releases["iris-next"])
        answer = json.loads(stream.ask("[5.1, 3.5, 1.4, 0.2]"))
    assert answer["digest"] == digest
    assert len(answer["neighbors"]) == 11


def test_a_stream_of_csv_keeps_its_columns_of_neighbors(device: Device, releases: Releases) -> None:
    kept = device.install(releases["iris"])
    with Stream(device, "--digest", "--neighbors") as stream:
        before = stream.ask("5.1,3.5,1.4,0.2")
        device.install(releases["iris-next"])
        assert stream.ask("5.1,3.5,1.4,0.2") == before
        _, err = stream.finish()
    assert "answers with other columns" in err
    assert f"{kept[:12]} still answers\n  try: start the stream again" in err
