"""Pictures are resized as Pillow does it, and a file without measure is refused before it is decoded."""

from __future__ import annotations

import io
import struct
import zlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from device_agent.shared.embedding.parsers import InputCsvParser
from device_agent.shared.embedding.picture import MAX_PIXELS, prepare, read_file, shrunk
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.input_info import Image, Input

RNG = np.random.default_rng(4)
RAW = {"mean": (0.0,), "std": (1.0,)}


def smooth(height: int, width: int, channels: int) -> np.ndarray:
    small = RNG.integers(0, 256, (5, 4, channels)).astype(np.uint8)
    return np.stack([np.array(Pillow.fromarray(small[..., c]).resize((width, height))) for c in range(channels)], -1)


def saved(pixels: np.ndarray, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(pixels.squeeze()).save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(8, 8), (30, 17), (64, 96), (200, 150)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_is_that_of_pillow(size: tuple[int, int], channels: int) -> None:
    pixels = smooth(64, 96, channels)
    found = prepare(pixels, Image(size, channels, **RAW))
    expected = np.array(Pillow.fromarray(pixels.squeeze()).resize(size[::-1], Pillow.Resampling.BILINEAR))
    assert np.abs(found - expected.reshape(*size, channels)).max() <= 1.0


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("nearest", [False, True])
def test_a_new_pixel_is_the_weighted_mean_of_those_around_it(seed: int, nearest: bool) -> None:
    rng = np.random.default_rng(seed)
    old, new = (tuple(int(length) for length in rng.integers(1, 70, 2)) for _ in range(2))
    pixels = rng.integers(0, 256, (*old, 3)).astype(np.uint8)
    shares = []
    for length, wanted in zip(old, new):
        centre = (np.arange(wanted)[:, None] + 0.5) * length / wanted - 0.5
        if nearest:
            share = np.arange(length) == np.clip(np.rint(centre), 0, length - 1)
        else:
            share = np.maximum(0.0, 1.0 - np.abs(np.arange(length) - centre) / max(1.0, length / wanted))
        shares.append(share / share.sum(axis=1, keepdims=True))
    expected = np.einsum("yh,xw,hwc->yxc", *shares, pixels)
    found = prepare(pixels, Image(new, 3, "nearest" if nearest else "bilinear", **RAW))
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-3)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_file_is_the_array_of_its_pixels(form: str, channels: int) -> None:
    pixels = smooth(20, 30, 3)
    found = read_file(saved(pixels[:, :, :channels], form))
    expected = pixels[:, :, :channels]
    assert np.abs(found.astype(int) - expected).mean() <= (0 if form == "PNG" else 20)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_pictures_of_every_kind_have_the_pixels_that_people_see(mode: str) -> None:
    """Alpha is left out; 16 bits become 8."""
    grey = np.arange(0, 256, 2).astype(np.uint8).reshape(8, 16)
    made = Pillow.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Pillow.fromarray(grey).convert(mode)
    buffer = io.BytesIO()
    made.save(buffer, "JPEG" if mode == "CMYK" else "PNG", **({"quality": 100} if mode == "CMYK" else {}))
    found = read_file(buffer.getvalue())
    expected = np.array(made.convert("L")) if mode == "1" else grey
    assert found.shape[2] == (3 if mode in ("P", "RGB", "RGBA", "CMYK") else 1)
    assert np.abs(found.astype(int) - expected[:, :, None]).max() <= (6 if mode == "CMYK" else 0)


def test_a_photo_is_turned_as_the_camera_says() -> None:
    pixels = smooth(20, 30, 3)
    exif = Pillow.Exif()
    exif[0x0112] = 6
    assert read_file(saved(pixels, "JPEG", exif=exif)).shape == (30, 20, 3)


def test_channels_and_scale_of_arrays() -> None:
    colours = np.array([[[255, 0, 0, 9], [10, 20, 30, 9]]], np.uint8)
    grey = prepare(colours, Image((1, 2), 1, **RAW))
    np.testing.assert_allclose(grey[0, :, 0], [76.245, 18.15], rtol=1e-5)
    assert prepare(np.array([[7]], np.uint8), Image((1, 1), 3, **RAW)).tolist() == [[[7.0, 7.0, 7.0]]]
    scaled = prepare(colours[..., :3], Image((1, 2), 3, "none", (127.5,), (127.5, 1.0, 1.0)))
    np.testing.assert_allclose(scaled[0, 0], [1.0, -127.5, -127.5])
    with pytest.raises(BadInput, match="the model takes"):
        prepare(colours, Image((2, 2), 3, "none"))
    assert prepare(np.arange(4.0), Image((2, 2), 1, "none", **RAW)).shape == (2, 2, 1)


@pytest.mark.parametrize(
    ("pixels", "std", "said"),
    [
        ([[0.0, 0.98]], 255.0, "from 0 to 255; the largest here is 0.98"),
        ([[-0.5, 0.5]], 127.5, "from 0 to 255"),
        ([[0, 255]], 0.229, "from 0 to 1, because `std` is 0.229; the largest here is 255"),
        ([[0.0, 1.0]], 255.0, ""),  # a dark picture
        ([[0, 1]], 255.0, ""),
        ([[0.0, 0.98]], 1.0, ""),
        ([[0.0, 254.5]], 1.0, ""),
        ([[0.0, 0.98]], 0.229, ""),
    ],
)
def test_pixels_of_another_scale_are_refused(pixels: list[list[float]], std: float, said: str) -> None:
    image = Image((1, 2), 1, std=(std,))
    if not said:
        prepare(np.array(pixels), image)
        return
    with pytest.raises(BadInput, match=said) as caught:
        prepare(np.array(pixels), image)
    assert "255" in caught.value.hint


@pytest.mark.parametrize(
    ("shape", "hint"), [((3, 9, 8), "transpose(1, 2, 0)"), ((1, 9, 8, 3), "pixels[0]"), ((9, 8, 7), "")]
)
def test_channels_first_and_batches_lead_to_one_picture(shape: tuple[int, ...], hint: str) -> None:
    with pytest.raises(BadInput, match="must be an array") as caught:
        prepare(np.zeros(shape), Image((8, 8), 3))
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("shape", [(0, 3), (3,), (2, 2, 2, 2), (2, 2, 5)])
def test_an_array_of_another_shape_is_not_a_picture(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput):
        prepare(np.zeros(shape, np.uint8), Image((8, 8)))


@pytest.mark.parametrize(
    ("height", "width"), [(MAX_PIXELS // 100, 101), (20_000, 20_000)]
)  # Pillow opens only the first
def test_a_bomb_is_refused_by_its_claim(height: int, width: int) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))

    header = struct.pack(">LLBBBBB", height, width, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    with pytest.raises(BadInput, match="pixels; at most") as caught:
        read_file(bomb)
    assert "-resize" in caught.value.hint


def test_damaged_files_are_bad_input_and_nothing_else() -> None:
    said = []
    for good in (saved(smooth(16, 16, 3), "PNG"), saved(smooth(16, 16, 3), "JPEG")):
        for _ in range(150):
            data = bytearray(good)
            for place in RNG.integers(0, len(good), RNG.integers(1, 8)):
                data[place] = RNG.integers(0, 256)
            try:
                read_file(bytes(data[: RNG.integers(8, len(data) + 1)]))
            except BadInput as error:
                said.append((str(error), error.hint))
    assert said
    assert all(hint and " at 0x" not in text for text, hint in said)


def test_a_palette_with_transparency_is_read_without_a_warning() -> None:
    picture = Pillow.fromarray(smooth(9, 9, 3)).quantize(16)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", transparency=bytes(range(16)))
    assert (read_file(buffer.getvalue()) == np.array(picture.convert("RGB"))).all()


def test_a_picture_on_standard_input_leads_to_the_option_that_reads_it() -> None:
    chain: Any = SimpleNamespace(input=Input(image=Image((8, 8))))
    with pytest.raises(BadInput, match="each as a file or a JSON line") as caught:
        InputCsvParser(chain)
    assert caught.value.hint.startswith("--input a.png reads a file")
    assert ".wav" not in caught.value.hint


@pytest.mark.parametrize("shape", [(90, 70, 3), (90, 70, 4), (90, 70, 1), (90, 70), (9, 7, 3), (12, 10, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_shrunk_picture_becomes_the_same_numbers(shape: tuple[int, ...], channels: int) -> None:
    how = Image((12, 10), channels)
    for light in (1, 2, 256):
        pixels = np.random.default_rng(light).integers(0, light, shape).astype(np.uint8)
        small = shrunk(pixels, how)
        assert np.array_equal(prepare(small, how), prepare(pixels, how))
        assert small.nbytes <= pixels.nbytes
        assert (small.nbytes == pixels.nbytes) == (shape[0] < 90 or light < 3)
