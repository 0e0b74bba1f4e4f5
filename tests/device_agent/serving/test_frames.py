"""Frames of a stream: the answers of the same files, and what is wrong is named by its number."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.device import Device
from support.device_stream import Stream
from support.releases import Releases
from support.signals import pieces
from support.stages import PITCHES, tone, write_wav

from device_agent.serving.frames import Frames
from device_agent.shared.embedding.decode import MAX_BYTES
from device_agent.shared.protocol import constants


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, releases: Releases) -> Device:
    made = Device(tmp_path_factory.mktemp("tones") / "root", releases)
    made.install(releases["tones"])
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """New tones: a WAV file and an array of each pitch."""
    rng, place = np.random.default_rng(10), tmp_path_factory.mktemp("files")
    for label, pitch in PITCHES.items():
        write_wav(place / f"{label}.wav", tone(pitch, 44_100, rng), 44_100)
        np.save(place / f"{label}.npy", (tone(pitch, 8_000, rng) * 32767).astype("<i2"))
    return [path.read_bytes() for path in sorted(place.iterdir())]


def frame(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


LABELS = [label for label in sorted(PITCHES) for _ in range(2)]


def test_frames_are_answered_as_they_arrive(device: Device, files: list[bytes]) -> None:
    with Stream(device, "--format", "frames") as stream:
        for content, label in zip(files, LABELS):
            for piece in pieces(frame(content), len(content)):
                stream.send(piece)
            assert json.loads(stream.line()) == {"label": label}
        stream.finish()
    csv = device.run(
        "classify", "--stream", "--format", "frames", "--output-format", "csv", input=b"".join(map(frame, files))
    )
    assert (csv.code, csv.out.split()) == (0, LABELS)


def test_a_broken_frame_is_named_and_the_others_are_answered(device: Device, files: list[bytes]) -> None:
    bad = [b"", b"RIFF", b"not a sound", files[0][:50], files[1][:20], b"\n" * 9, b"\x93NUMPY\x01\x00\xff\xff"]
    bad += [b"\x93NUMPY\x01\x00\x0a\x00" + b"{" * 10]
    data = b"".join(map(frame, [files[0], *bad, files[1]]))
    said = device.run("classify", "--stream", "--format", "frames", input=data)
    found = [json.loads(line) for line in said.out.splitlines()]
    assert said.code == constants.EXIT_USAGE
    assert [sorted(each) for each in found] == [["label"], *[["error", "line"]] * len(bad), ["label"]]
    assert [each["line"] for each in found[1:-1]] == [*range(2, 2 + len(bad))]
    assert all(f"frame {number}: " in said.err for number in range(2, 2 + len(bad)))
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ((MAX_BYTES + 1).to_bytes(4, "big"), "frame 2: its length is 67,108,865 bytes"),
        (b"\xff\xff\xff\xff" + bytes(99), "frame 2: its length is 4,294,967,295 bytes"),
        (b"\0\0", "frame 2: the stream ended in its length"),
        ((50).to_bytes(4, "big") + bytes(49), "frame 2: the stream ended after 49 of its 50 bytes"),
    ],
)
def test_a_stream_out_of_step_ends_with_an_error(end: bytes, why: str, device: Device, files: list[bytes]) -> None:
    said = device.run("classify", "--stream", "--format", "frames", input=frame(files[0]) + end)
    assert (said.code, said.out) == (constants.EXIT_USAGE, '{"label": "high"}\n')
    assert why in said.err


@pytest.mark.parametrize("options", [("--stream", "--keep", "id"), ()])
def test_what_frames_do_not_have_is_refused(options: tuple[str, ...], device: Device) -> None:
    said = device.run("classify", "--format", "frames", *options, input=frame(b"RIFF"))
    assert (said.code, said.out) == (constants.EXIT_USAGE, "")


def test_a_model_of_rows_takes_no_frames(tmp_path: Path, releases: Releases) -> None:
    device = Device(tmp_path / "root", releases)
    device.install(releases["iris"])
    said = device.run("classify", "--stream", "--format", "frames", input=frame(b"1,2,3,4\n"))
    assert said.code == constants.EXIT_USAGE
    assert "the model takes rows of numbers" in said.err


@pytest.mark.parametrize("seed", range(20))
def test_frames_are_the_same_however_they_are_cut(seed: int) -> None:
    rng = np.random.default_rng(seed)
    contents = [rng.bytes(int(size)) for size in rng.integers(0, 3000, 20)]
    data = b"".join(map(frame, contents))
    whole = Frames().feed(data)
    cut = Frames()
    assert b"".join(map(cut.feed, pieces(data, seed))) == whole
    assert (whole.count(b"\n"), cut.left, cut.finish()) == (20, b"", b"")
