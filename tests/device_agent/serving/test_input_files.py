"""A sound, a folder of sounds and a stream of them have the same labels, and a bad file is named."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from support.device import Device
from support.releases import Releases
from support.stages import PITCHES, tone, write_wav

from device_agent.shared.protocol import constants
from knnkit.data.raw_lines import lines_of


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, releases: Releases) -> Device:
    made = Device(tmp_path_factory.mktemp("tones") / "root", releases)
    made.install(releases["tones"])
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """New tones in folders by their label, at a rate that no training file has; one as raw PCM, one as an array."""
    rng, made = np.random.default_rng(9), tmp_path_factory.mktemp("folder") / "heard"
    for label, pitch in PITCHES.items():
        (made / label).mkdir(parents=True)
        write_wav(made / label / "a.wav", tone(pitch, 44_100, rng), 44_100)
        write_wav(made / label / "B.WAV", tone(pitch, 8_000, rng), 8_000)
        pcm = (tone(pitch, 8_000, rng) * 32767).astype("<i2")
        (made / label / "c.pcm").write_bytes(pcm.tobytes())
        np.save(made / label / "d.npy", pcm)
    (made / "notes.txt").write_text("not a sound")
    (made / "._a.wav").write_bytes(b"\0\5\x16\7")  # what macOS writes beside a file
    (made / ".trash").mkdir()
    (made / ".trash" / "a.wav").write_bytes(b"")
    return made


def test_every_file_of_a_folder_gets_its_label(device: Device, folder: Path) -> None:
    said = device.run("classify", "--input", folder)
    answers = [json.loads(line) for line in said.out.splitlines()]
    assert [each["file"] for each in answers] == [name for name, _ in lines_of(folder)]
    assert [each["label"] for each in answers] == [each["file"].split("/")[0] for each in answers]
    assert len(answers) == 12
    csv = device.run("classify", "--input", folder, "--output-format", "csv").out
    assert csv.splitlines() == [f"{each['file']},{each['label']}" for each in answers]


def test_a_single_file_and_a_stream_answer_alike(device: Device, folder: Path) -> None:
    lines = b"".join(line for _, line in lines_of(folder))
    stream = device.run("classify", "--stream", "--keep", "file", input=lines).out
    assert stream == device.run("classify", "--input", folder).out
    for label in PITCHES:
        for name in ("a.wav", "B.WAV", "c.pcm"):
            assert json.loads(device.run("classify", "--input", folder / label / name).out) == {"label": label}


def test_noise_is_unknown(device: Device, tmp_path: Path) -> None:
    write_wav(tmp_path / "noise.wav", np.random.default_rng(1).uniform(-1, 1, 1000), 8_000)
    assert json.loads(device.run("classify", "--input", tmp_path / "noise.wav").out) == {"label": "unknown"}


@pytest.mark.parametrize("content", [b"", b"RIFF", b"ID3 a song", b"RIFF\0\0\0\0WAVEdata\0\0\0\0"])
def test_a_bad_file_is_named_and_nothing_is_written(device: Device, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "in" / "x").mkdir(parents=True)
    (tmp_path / "in" / "x" / "bad.wav").write_bytes(content)
    out = tmp_path / "out"
    said = device.run("classify", "--input", tmp_path / "in", "--output", out)
    assert said.code == constants.EXIT_USAGE
    assert "x/bad.wav: " in said.err
    assert "Traceback" not in said.err
    assert not out.exists()
    line = json.dumps({"input": base64.b64encode(content).decode()})
    assert "error" in json.loads(device.run("classify", "--stream", "--format", "jsonl", input=line + "\n").out)


def test_a_file_of_another_kind_is_refused_with_what_the_model_takes(device: Device, tmp_path: Path) -> None:
    for name, content in (("song.mp3", b"ID3 a song\n"), ("rows.csv", b"1,2,3\n"), ("photo.webp", b"RIFF\0\0\0\0WEBP")):
        (tmp_path / name).write_bytes(content)
        said = device.run("classify", "--input", tmp_path / name)
        assert (said.code, said.out) == (constants.EXIT_USAGE, "")
        assert "the model takes sounds (WAV, raw PCM, or NPY of samples)" in said.err


def test_names_of_any_bytes_are_answered_and_a_message_is_one_line(device: Device, tmp_path: Path) -> None:
    names = [b"\x1b[31m.wav", b"a\xff.wav", b"b\nc.wav", b'd"e,f.wav', "ü.wav".encode()]
    for name in names:
        write_wav(tmp_path / os.fsdecode(name), tone(300, 8_000, np.random.default_rng(3)), 8_000)
    shown = [name.decode("utf-8", "replace").replace("\ufffd", "?") for name in names]
    said = device.run("classify", "--input", tmp_path)
    assert [json.loads(line) for line in said.out.splitlines()] == [{"file": each, "label": "low"} for each in shown]
    said = device.run("classify", "--input", tmp_path, "--output-format", "csv")
    assert [row[1] for row in csv.reader(io.StringIO(said.out))] == ["low"] * len(names)
    (tmp_path / "z\n  try: nothing.wav").write_bytes(b"")
    said = device.run("classify", "--input", tmp_path)
    assert (said.code, said.out) == (constants.EXIT_USAGE, "")
    assert said.err.splitlines() == [
        f"device_agent: {tmp_path}/z?  try: nothing.wav: the input is empty",
        "  try: take the file out of the folder",
    ]


@pytest.mark.parametrize("options", [("--keep", "x"), ("--proba", "--keep", "input")])
def test_columns_that_files_do_not_have_are_refused(device: Device, options: tuple[str, ...], folder: Path) -> None:
    for path in (folder, folder / "low" / "a.wav"):
        said = device.run("classify", "--input", path, *options)
        assert (said.code, said.out) == (constants.EXIT_USAGE, "")
        assert "a file has no such column" in said.err
        assert "--keep file" in said.err
    said = device.run("classify", "--input", folder / "low" / "a.wav", "--keep", "file")
    assert json.loads(said.out) == {"file": "a.wav", "label": "low"}


@pytest.mark.parametrize("name", ["low/a.wav", "answers.npy", "../heard/new.PNG"])
def test_answers_do_not_replace_or_join_the_files_of_the_folder(device: Device, name: str, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    said = device.run("classify", "--input", folder, "--output", folder / name)
    assert (said.code, said.out) == (constants.EXIT_USAGE, "")
    assert "is one of the files to read" in said.err
    assert sorted(folder.rglob("*")) == before
    assert (folder / "low" / "a.wav").read_bytes()[:4] == b"RIFF"


def test_an_empty_folder_and_a_missing_file_are_errors(device: Device, tmp_path: Path) -> None:
    assert "the folder has no .wav" in device.run("classify", "--input", tmp_path).err
    said = device.run("classify", "--input", tmp_path / "none.wav")
    assert (said.code, said.out) == (constants.EXIT_USAGE, "")
    assert "No such file" in said.err


def test_a_line_may_be_longer_than_a_row_of_numbers(device: Device) -> None:
    sound = base64.b64encode((tone(300, 8_000, np.random.default_rng(2)) * 9999).astype("<i2").tobytes() * 500)
    assert len(sound) > 1 << 20
    line = json.dumps({"pcm": sound.decode()}) + "\n"
    for arguments in (("--stream",), ()):
        said = device.run("classify", "--format", "jsonl", *arguments, input=line)
        assert (said.code, "label" in said.out) == (0, True), said.err
