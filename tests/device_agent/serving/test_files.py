"""Files reach the stages as their bytes do in JSON lines; folders are listed in order, and few inputs are held."""

from __future__ import annotations

import base64
import io
import json
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from device_agent.serving.columns import Columns
from device_agent.serving.files import embedded
from device_agent.serving.rows import Request, make_parser
from device_agent.serving.stream_rows import StreamRows
from device_agent.shared.embedding.chain import Chain
from device_agent.shared.embedding.decode import decode
from device_agent.shared.embedding.files import IN_FOLDERS, files_of, is_raw, name_in
from device_agent.shared.embedding.parsers import InputJsonParser
from device_agent.shared.file_hints import named_in_hints
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.input_info import Audio, Image, Input, Stage
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.protocol.record import replace
from device_agent.shared.tabular.inputs import FILES, Source, open_source

SOUND = Chain(Input(audio=Audio(8_000)), [])
PICTURE = Chain(Input(image=Image((4, 4), 1)), [])
ARRAY = Chain(Input(), [])


def rows_of(path: Path, chain: Chain) -> Iterator[tuple[str, list[float]]]:
    for rows, names in embedded(open_source(str(path), FILES), chain, np.float32):
        yield from zip((name_in(path, Path(name)) for name in names), rows.tolist())


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def _wav(bits: int, kind: int, data: bytes, rate: int = 8_000, channels: int = 1, more: bytes = b"") -> bytes:
    form = b"".join(
        value.to_bytes(size, "little")
        for value, size in ((kind, 2), (channels, 2), (rate, 4), (rate * bits // 8, 4), (bits // 8, 2), (bits, 2))
    )
    head = b"fmt " + len(form + more).to_bytes(4, "little") + form + more
    return b"RIFF\0\0\0\0WAVE" + head + b"data" + len(data).to_bytes(4, "little") + data


def _extensible(kind: int, bits: int) -> bytes:
    guid = bytes.fromhex("000000001000800000aa00389b71")
    return b"\x16\0" + bits.to_bytes(2, "little") + bytes(4) + kind.to_bytes(2, "little") + guid


def _png(mode: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Pillow.new(mode, (9, 5), 77).save(buffer, "JPEG" if mode == "CMYK" else "PNG", **options)
    return buffer.getvalue()


_BYTES = np.random.default_rng(0).bytes(960)
_FLOATS = np.random.default_rng(1).uniform(-1, 1, 120)
_SOUNDS = {
    "8.wav": _wav(8, 1, _BYTES),
    "16.wav": _wav(16, 1, _BYTES),
    "24.wav": _wav(24, 1, _BYTES),
    "32.wav": _wav(32, 1, _BYTES),
    "float.wav": _wav(32, 3, _FLOATS.astype("<f4").tobytes()),
    "double.wav": _wav(64, 3, _FLOATS.astype("<f8").tobytes()),
    "stereo.WAV": _wav(16, 1, _BYTES, channels=2),
    "slow.wav": _wav(16, 1, _BYTES, rate=11_025),
    "extensible.wav": _wav(24, 0xFFFE, _BYTES, more=_extensible(1, 24)),
    "extensible-float.wav": _wav(32, 0xFFFE, _FLOATS.astype("<f4").tobytes(), more=_extensible(3, 32)),
    "raw.pcm": _BYTES,
    "raw.S16": _BYTES[:-1],
    "array.npy": _npy(np.arange(50, dtype=np.int16)),
    "mu-law.wav": _wav(8, 7, _BYTES),
    "none.wav": b"",
    "silent.wav": _wav(16, 1, b""),
    "short.wav": _wav(16, 1, _BYTES)[:-40],
    "odd.pcm": b"\1",
    "song.wav": b"ID3 and a song",
    "picture.png": _png("RGB"),
}
_PICTURES = {
    **{f"{mode[:1]}{len(mode)}.png": _png(mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")},
    "cmyk.jpg": _png("CMYK"),
    "turned.jpeg": _png("CMYK", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
    "moving.png": _png("RGB", save_all=True, append_images=[Pillow.new("RGB", (9, 5), 200)]),
    "array.npy": _npy(np.full((9, 5), 3.0)),
    "cut.png": _png("RGB")[:60],
    "sound.pcm": _BYTES,
    "text.jpg": b"not a picture",
}


@pytest.mark.parametrize(
    ("chain", "name", "data"),
    [(SOUND, *each) for each in _SOUNDS.items()] + [(PICTURE, *each) for each in _PICTURES.items()],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_gives_the_row_or_the_error_of_its_bytes(chain: Chain, name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    pcm = chain is SOUND and name.lower().endswith((".pcm", ".s16"))
    line = json.dumps({"pcm" if pcm else "input": base64.b64encode(data).decode()})
    parsed = InputJsonParser(chain).parse(line.encode() + b"\n")
    for path in (tmp_path, tmp_path / name):
        if parsed.errors:
            with pytest.raises(BadInput) as found:
                list(rows_of(path, chain))
            assert str(found.value) == f"{tmp_path / name}: {parsed.errors[0][1]}"
            assert found.value.hint
        else:
            assert list(rows_of(path, chain)) == [(name, parsed.rows[0].tolist())]


def test_every_kind_of_sound_and_picture_that_people_have_is_read(tmp_path: Path) -> None:
    bad = {"mu-law.wav", "none.wav", "silent.wav", "short.wav", "odd.pcm", "song.wav", "picture.png"}
    for chain, files in ((SOUND, _SOUNDS), (PICTURE, _PICTURES)):
        for name in files.keys() - bad - {"cut.png", "sound.pcm", "text.jpg"}:
            (tmp_path / name).write_bytes(files[name])
            assert [found for found, _ in rows_of(tmp_path / name, chain)] == [name]


@pytest.mark.parametrize("seed", range(10))
def test_files_come_in_the_order_of_sorted_paths(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    parts = ["a", "a.wav", "B", "a-", ".hidden", "c.NPY", "\udcff.png", "new\nline", "ü.pcm", "x.txt", "a "]
    for _ in range(40):
        folder = tmp_path.joinpath(*rng.choice(parts, rng.integers(0, 4)))
        if not any(each.is_file() for each in (folder, *folder.parents)):
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / str(rng.choice(parts))
            if not file.exists():
                file.write_bytes(b"")
    expected = sorted(
        path
        for path in tmp_path.rglob("*")
        if path.is_file()
        and path.suffix.lower() in IN_FOLDERS
        and not any(part.startswith(".") for part in path.relative_to(tmp_path).parts)
    )
    if expected:
        assert list(files_of(tmp_path)) == expected


def test_files_of_other_kinds_are_counted_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["a.npy", "in/b.npy", "in/c.mp3", "d.MP3", "in/deep/e.heic", "README", ".hidden.mp3", "in/f\x1b[2J.a\nb"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(_npy(np.ones(3)))
    assert len([*rows_of(tmp_path, ARRAY)]) == 2
    said = capsys.readouterr().err
    expected = "5 files are of other kinds, and left out: 2 .mp3, 1 .a?b, 1 .heic, 1 without a suffix"
    head, _, kinds = said.partition(": 5 files")
    assert head == f"device_agent: {tmp_path}"
    assert sorted(f"5 files{kinds}".strip().split(", ")) == sorted(expected.split(", "))
    list(rows_of(tmp_path / "a.npy", ARRAY))
    list(rows_of(tmp_path / "in" / "deep" / "..", ARRAY))
    assert capsys.readouterr().err.count("left out") == 1
    for name in names[:2]:
        (tmp_path / name).unlink()
    with pytest.raises(BadInput, match=r"has no \.wav.* file; 5 files are of other kinds"):
        list(files_of(tmp_path))


@pytest.mark.parametrize(
    ("takes", "shape", "answers"),
    [
        ("sound", (4000,), 1),
        ("sound", (3, 4000), 3),
        ("sound", (3, 64), 3),
        ("sound", (4000, 2), "4,000 sounds of 2 samples"),
        ("picture", (9, 7, 3), 1),
        ("picture", (9, 7), 1),
        ("picture", (5, 9, 7, 3), 5),
        ("picture", (5, 9, 7), 5),
        ("picture", (5, 48), 5),
        ("picture", (5, 4, 4), 5),
        ("picture", (48,), 1),
        ("array", (6, 8), 1),
        ("array", (5, 48), 5),
        ("array", (5, 6, 8), 5),
        ("frames", (9, 8), 1),
        ("frames", (5, 9, 8), 5),
    ],
)
def test_an_array_is_one_input_or_several(takes: str, shape: tuple[int, ...], answers: Any, tmp_path: Path) -> None:
    """A folder's array is one input; a picture was answered as so many grey ones as it has rows, an array, too."""
    np.save(tmp_path / "a.npy", np.zeros(shape))
    stage = Stage("stage-1.tflite", "", (1, 6, 8, 1), frames=6 if takes == "frames" else None)
    inputs = {"sound": Input(audio=Audio(16_000)), "picture": Input(image=Image((4, 4)))}
    chain = Chain(inputs.get(takes, Input((stage,))), ())
    source = open_source(str(tmp_path / "a.npy"), "npy")
    if isinstance(answers, str):
        with pytest.raises(BadInput, match=answers) as caught:
            list(embedded(source, chain, np.float32))
        assert "a.npy: " in str(caught.value)
        assert "mean(axis=1)" in caught.value.hint
        return
    assert sum(len(names) for _, names in embedded(source, chain, np.float32)) == answers


@pytest.mark.parametrize(
    ("name", "data", "hint"),
    [("a.GIF", b"GIF89a...", "magick"), ("a.webp", b"RIFF....WEBP", "magick"), ("a.mp3", b"ID3...", "ffmpeg")],
)
def test_a_file_of_another_kind_leads_to_its_conversion(name: str, data: bytes, hint: str) -> None:
    """Such a file is not text, so that an error about lines of rows would be of no use."""
    assert is_raw(name)
    takes = Input(audio=Audio(16_000)) if hint == "ffmpeg" else Input(image=Image((8, 8)))
    with pytest.raises(BadInput, match="this input is none of these") as caught:
        decode(data, takes)
    assert caught.value.hint.lstrip("`").startswith(hint)


@pytest.mark.parametrize(
    ("takes", "data", "said", "hint"),
    [
        (Input(audio=Audio(16_000)), b"\x89PNG\r\n\x1a\n", "a picture", "give a sound, such as a.wav"),
        (Input(image=Image((8, 8))), b"RIFF....WAVE", "a sound", "give a picture, such as a.png"),
        (Input(image=Image((8, 8))), b"width,height,kind\n1,2,a\n", "text, such as", "give a picture, such as a.png"),
        (Input(), b"\xff\xd8\xff", "a picture", "give an array, such as a.npy"),
    ],
)
def test_what_no_program_converts_is_named(takes: Input, data: bytes, said: str, hint: str) -> None:
    with pytest.raises(BadInput, match=f"this input is {said}") as caught:
        decode(data, takes)
    assert caught.value.hint == hint


def test_links_to_files_are_read_and_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "in" / "loop.wav").mkdir(parents=True)
    (tmp_path / "b.npy").write_bytes(_npy(np.ones(3)))
    (tmp_path / "in" / "a.npy").symlink_to(tmp_path / "b.npy")
    (tmp_path / "in" / "loop.wav" / "again").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "again.wav").symlink_to(tmp_path / "in")
    assert list(rows_of(tmp_path / "in", ARRAY)) == [("a.npy", [1.0, 1.0, 1.0])]
    (tmp_path / "outer").symlink_to(tmp_path / "in")
    assert list(rows_of(tmp_path / "outer", ARRAY)) == [("a.npy", [1.0, 1.0, 1.0])]


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("pipe", "not an ordinary file"),
        ("broken link", "No such file"),
        ("circle", "symbolic link"),
        ("failing disk", "Input/output error"),
        ("device", "not an ordinary file"),
        ("too large", "more than 67,108,864 bytes"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(kind: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    targets = {"broken link": "none", "circle": "x.wav", "failing disk": "/proc/self/mem", "device": "/dev/zero"}
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "too large":
        with path.open("wb") as file:
            file.truncate((64 << 20) + 1)
    else:
        path.symlink_to(targets[kind])
    for given in (tmp_path, path) if kind not in ("broken link", "circle") else (tmp_path,):
        with pytest.raises(BadInput, match=why) as found:
            list(rows_of(given, SOUND))
        assert str(found.value).startswith(f"{path}: ")


def test_a_hint_names_the_file_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("my clips", "a: b.wav")
    path.parent.mkdir()
    path.write_bytes(b"OggS")
    with pytest.raises(BadInput) as found, named_in_hints("my clips"):
        list(rows_of(path.parent, SOUND))
    assert found.value.hint.startswith("ffmpeg -i 'my clips/a: b.wav' ")
    path.unlink()
    with pytest.raises(BadInput) as found, named_in_hints("my clips"):
        list(rows_of(path.parent, SOUND))
    assert found.value.hint.endswith(": --input FILE")


def test_a_folder_that_cannot_be_listed_is_an_error_and_not_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(_npy(np.ones(3)))
    (tmp_path / "b").mkdir()
    found = rows_of(tmp_path, ARRAY)
    files = files_of(tmp_path)
    assert next(files) == tmp_path / "a.npy"
    (tmp_path / "b").rmdir()
    with pytest.raises(BadInput, match=f"{tmp_path}/b: No such file"):
        next(files)
    (tmp_path / "a.npy").unlink()
    (tmp_path / "a.csv").touch()
    with pytest.raises(BadInput, match="the folder has no") as error:
        next(found)
    assert error.value.hint == "give files of rows or samples one by one: --input FILE"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_folder_of_any_size_takes_the_memory_of_few_inputs(threads: int, tmp_path: Path) -> None:
    data = _npy(np.zeros((1 << 18) - 32, np.float32))  # 1 MiB
    for number in range(100):
        (tmp_path / f"{number:03}.npy").write_bytes(data)
    chain = Chain(Input(pool=("mean",)), [], threads)
    tracemalloc.start()
    assert len([name for name, _ in rows_of(tmp_path, chain)]) == 100
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 30 << 20


def test_status_gets_the_counts_of_a_model_with_stages() -> None:
    info = KnnInfo(
        name="n", k=1, n_features=2, feature_names=("x", "y"), classes=(0, 1), metric="euclidean", weights="uniform",
        scale="none", n_train=2, batch=8, fingerprint="", minimum_runtime="1", versions={}, input=Input(width=2),
    )  # fmt: skip
    request = Request(None, None, "auto", None, Columns(), ignore_extra=True, counters=[])
    parser = make_parser(info, "csv", request, Chain(Input(width=2), []))
    assert parser.parse(b"feature_0,feature_1,more\n1,2,3\n").rows.tolist() == [[1.0, 2.0]]
    assert [counter.take_counts() for counter in request.counters or ()] == [{"left_out": {"more": 1}}]


def test_a_stream_of_pictures_follows_to_another_size_and_one_of_rows_does_not() -> None:
    def taking(size: int, *, image: bool = True, width: int | None = None) -> Input:
        stage = Stage("stage-1.tflite", "", (1, size, size, 3))
        return Input((stage,), image=Image((size, size)) if image else None, width=width)

    def follows(old: Input, new: Input) -> bool:
        info = KnnInfo(
            name="n", k=1, n_features=2, feature_names=("x", "y"), classes=(0, 1), metric="euclidean", input=old,
            weights="uniform", scale="none", n_train=2, batch=8, fingerprint="", minimum_runtime="1", versions={},
        )  # fmt: skip
        source, request = Source(0, "a pipe", "auto", b""), Request(None, None, "auto", None, Columns())
        return StreamRows(info, source, request, Chain(old, [])).follow(replace(info, input=new), Chain(new, []))

    assert follows(taking(4), taking(8))
    assert not follows(taking(4, width=48), taking(8, width=192))
    assert not follows(taking(4, image=False), taking(8, image=False))
    assert not follows(taking(4), Input((Stage("stage-1.tflite", "", (1, -1)),), audio=Audio(8_000)))
