"""`knnkit classify` of files: lines that a board reads, a column with their names, and errors that name a file."""

from __future__ import annotations

import argparse
import base64
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from device_agent.shared.embedding.decode import decode
from device_agent.shared.protocol.input_info import Input
from knnkit import cli
from knnkit.commands.classify import agent_command
from knnkit.config import load
from knnkit.data.raw_lines import lines_of
from knnkit.errors import DataError
from knnkit.transport.base import Completed

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 7, 3)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    made.mkdir()
    Pillow.fromarray(PIXELS).save(made / "a.png")
    (made / "b.pcm").write_bytes(b"\1\2")
    np.save(made / "c.npy", PIXELS)
    return made


def test_lines_hold_pixels_and_the_bytes_of_other_files(folder: Path) -> None:
    lines = [json.loads(line) for _, line in lines_of(folder)]
    assert [line["file"] for line in lines] == ["a.png", "b.pcm", "c.npy"] == [name for name, _ in lines_of(folder)]
    for line in (lines[0], lines[2]):
        assert (decode(base64.b64decode(line["input"]), Input()) == PIXELS).all()
    assert base64.b64decode(lines[1]["pcm"]) == b"\1\2"
    assert [list(json.loads(line)) for _, line in lines_of(folder / "a.png")] == [["input"]]


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=f"{folder}/b.png: the picture is damaged"):
        list(lines_of(folder))
    (folder / "b.png").unlink()
    (folder / "b.png").symlink_to("none")
    with pytest.raises(DataError, match=f"{folder}/b.png: No such file"):
        list(lines_of(folder))


def test_columns_that_deploy_yaml_keeps_are_not_asked_of_files(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "deploy.yaml").write_text("classify: {keep: [id]}\nfleet: {targets: [{host: local}]}\n")
    config = load.load(tmp_path / "deploy.yaml")
    flags = dict.fromkeys(("stream", "proba", "neighbors", "digest", "ignore_extra", "labels"))
    for path, kept in ((folder, ["--keep=file"]), (folder / "a.png", []), (tmp_path / "rows.csv", ["--keep=id"])):
        given = argparse.Namespace(input=path, format="auto", keep=[], **flags)
        assert [word for word in agent_command(given, config, None) if word.startswith("--keep")] == kept


def test_with_json_an_error_of_the_device_is_a_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = b"device_agent: standard input: line 1: the header has no column 'c'\n  try: the model has the column c\n"
    failed = Completed((), 2, b"", said, 0.1)
    monkeypatch.setattr("knnkit.commands.classify.pipe_rows", lambda *_, **__: failed)
    (tmp_path / "q.csv").write_text("a\n1\n")
    words = ["classify", "--target", "local", "--input", str(tmp_path / "q.csv")]
    for more, printed in (["--json"], True), ([], False), (["--json", "--stream"], False):
        assert cli.main([*words, *more]) == 2
        out = capsys.readouterr().out
        assert bool(out) == printed
        if printed:
            found = json.loads(out)
            assert found["message"] == f"{tmp_path}/q.csv: line 1: the header has no column 'c'"
            assert (found["hint"], found["exit_code"]) == ("the model has the column c", 2)
