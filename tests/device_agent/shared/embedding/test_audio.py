"""Sounds are read as the standard library writes them, resampled without false tones, and never trusted."""

from __future__ import annotations

import io
import struct
import wave

import numpy as np
import pytest

from device_agent.shared.embedding.audio import prepare, read_pcm, read_wav, resample
from device_agent.shared.embedding.decode import decode
from device_agent.shared.embedding.stage import MAX_NUMBERS
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.input_info import Audio, Input

RNG = np.random.default_rng(2)
RATE = 16_000
SAME = Audio(RATE)


def written(samples: np.ndarray, width: int, channels: int = 1, rate: int = RATE) -> bytes:
    """A file by the standard library; `samples` are from -1 to 1, (n, channels)."""
    most = 2 ** (8 * width - 1)
    whole = np.clip(np.rint(samples * most), -most, most - 1).astype("<i4").reshape(-1, 1).view(np.uint8)
    data = (whole[:, :1] + 128 if width == 1 else whole[:, :width]).astype(np.uint8).tobytes()
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((channels, width, rate, len(samples), "NONE", ""))
        file.writeframes(data)
    return buffer.getvalue()


def unit(found: np.ndarray) -> np.ndarray:
    return found / 32768.0 if found.dtype == np.int16 else found


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_pcm_of_every_width_and_number_of_channels(width: int, channels: int) -> None:
    samples = RNG.uniform(-0.9, 0.9, (500, channels))
    found = unit(read_wav(written(samples, width, channels), SAME))
    assert np.abs(found - samples.mean(axis=1)).max() <= 1.1 / 2 ** (8 * width - 1) + 1e-7


def test_float_and_extensible_headers() -> None:
    samples = RNG.uniform(-1, 1, 300).astype("<f4")
    wide = samples.astype("<f8")  # what scipy.io.wavfile writes of float64
    head = b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<LHHLLHH", 16, 3, 1, RATE, RATE * 8, 8, 64)
    found = read_wav(head + b"data" + struct.pack("<L", wide.nbytes) + wide.tobytes(), SAME)
    np.testing.assert_array_equal(found, samples)
    body = b"data" + struct.pack("<L", samples.nbytes) + samples.tobytes()
    plain = b"fmt " + struct.pack("<LHHLLHH", 16, 3, 1, RATE, RATE * 4, 4, 32)
    long = b"fmt " + struct.pack("<LHHLLHHHHLH", 40, 0xFFFE, 1, RATE, RATE * 4, 4, 32, 22, 32, 0, 3) + bytes(14)
    for head in (plain, long, b"LIST" + struct.pack("<L", 5) + b"hello\0" + plain):
        found = read_wav(b"RIFF" + struct.pack("<L", 0) + b"WAVE" + head + body, SAME)
        np.testing.assert_array_equal(found, samples)


def test_samples_with_padding_are_refused() -> None:
    """24 bits in 32, as some recorders write them: read as 24 bits each, they would be noise."""
    body = b"data" + struct.pack("<L", 8) + bytes(8)
    head = b"fmt " + struct.pack("<LHHLLHH", 16, 1, 2, RATE, RATE * 8, 8, 24)
    with pytest.raises(BadInput, match="24 bits of a sample in 32") as caught:
        read_wav(b"RIFF" + struct.pack("<L", 0) + b"WAVE" + head + body, SAME)
    assert "ffmpeg" in caught.value.hint


@pytest.mark.parametrize(("kind", "frame", "bits"), [(17, 256, 4), (85, 1152, 0), (2, 512, 4)])
def test_compressed_samples_are_not_called_padded(kind: int, frame: int, bits: int) -> None:
    head = b"fmt " + struct.pack("<LHHLLHH", 16, kind, 1, RATE, RATE, frame, bits)
    with pytest.raises(BadInput, match=f"of format {kind} with {bits} bits is not supported"):
        read_wav(b"RIFF\0\0\0\0WAVE" + head + b"data" + struct.pack("<L", 8) + bytes(8), SAME)


@pytest.mark.parametrize("claim", [0, 7, 0x7FFFF000, 0xFFFFFFFF])
def test_a_length_that_a_pipe_could_not_know_is_not_believed(claim: int) -> None:
    data = written(np.zeros((100, 1)), 2)
    place = data.index(b"data") + 4
    found = read_wav(data[:place] + struct.pack("<L", claim) + data[place + 4 :], SAME)
    assert len(found) == (3 if claim == 7 else 100)


def test_the_chunks_after_an_empty_sound_are_not_samples() -> None:
    """Such as the name of the program that wrote the file."""
    tags = b"LIST" + struct.pack("<L", 9) + b"INFOtext." + b"\0"
    for more in (tags, tags + tags, tags[:-1]):
        with pytest.raises(BadInput, match="the sound has no samples"):
            prepare(read_wav(written(np.zeros((0, 1)), 2) + more, SAME), SAME)
    assert len(read_wav(written(np.zeros((0, 1)), 2) + b"LIST" + bytes(96), SAME)) == 50


@pytest.mark.parametrize(("width", "channels", "rate"), [(2, 1, RATE), (1, 1, RATE), (2, 2, 8_000)])
def test_a_wav_file_that_is_called_pcm_is_read_as_wav(width: int, channels: int, rate: int) -> None:
    """`{"pcm": ...}` of a whole file, or a file named clip.raw: its header would be samples."""
    data = written(RNG.uniform(-0.9, 0.9, (100, channels)), width, channels, rate)
    found = decode(data, Input(audio=SAME), pcm=True)
    assert np.array_equal(found, read_wav(data, SAME))
    assert len(decode(data[44:], Input(audio=SAME), pcm=True)) == 100 * width * channels // 2


@pytest.mark.parametrize("axis", [0, 1])
def test_channels_in_an_array_lead_to_one_channel(axis: int) -> None:
    samples = np.stack([np.arange(100, dtype=np.int16)] * 2, axis)
    with pytest.raises(BadInput, match="must be an array") as caught:
        prepare(samples, SAME)
    command = caught.value.hint.removeprefix("numpy.save('mono.npy', ").removesuffix(") writes one channel")
    assert np.array_equal(
        prepare(eval(command, {"samples": samples}), SAME), prepare(np.arange(100, dtype=np.int16), SAME)
    )


def test_a_file_that_is_cut_off_is_refused() -> None:
    data = written(RNG.uniform(-1, 1, (100, 1)), 2, 1)
    with pytest.raises(BadInput, match="cut off: it has 100 of 200 bytes"):
        read_wav(data[:-100], SAME)


@pytest.mark.parametrize(("old", "new"), [(22_050, 16_000), (44_100, 16_000), (8_000, 16_000), (48_000, 16_000)])
def test_a_tone_keeps_its_pitch_and_its_height_at_another_rate(old: int, new: int) -> None:
    for pitch in (300.0, 1_000.0, 3_000.0):
        tone = np.sin(2 * np.pi * pitch * np.arange(old) / old).astype(np.float32)
        found = resample(tone, old, new)
        expected = np.sin(2 * np.pi * pitch * np.arange(new) / new)
        assert len(found) == new
        assert np.abs(found - expected)[200:-200].max() < 0.01


def test_a_tone_that_the_new_rate_cannot_hold_disappears() -> None:
    tone = np.sin(2 * np.pi * 11_000 * np.arange(44_100) / 44_100).astype(np.float32)
    assert np.abs(resample(tone, 44_100, 16_000))[200:-200].max() < 0.02


@pytest.mark.parametrize("seed", range(12))
def test_a_new_sample_is_the_weighted_mean_that_the_filter_defines(seed: int) -> None:
    rng = np.random.default_rng(seed)
    old, new = (int(rate) for rate in rng.choice([8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 15_999], 2, False))
    samples = rng.normal(size=int(rng.integers(1, 3000))).astype(np.float32)
    found = resample(samples, old, new)
    assert len(found) == -(-len(samples) * new // old)
    wide = max(1.0, old / new)
    for number in rng.integers(0, len(found), 20).tolist():
        gap = number * old / new - np.arange(-200, len(samples) + 200)
        inside = np.abs(gap) < np.ceil(16 * wide)
        weights = np.sinc(gap / wide) * (0.5 + 0.5 * np.cos(np.pi * gap / np.ceil(16 * wide))) * inside
        expected = weights[200 : 200 + len(samples)] @ samples / weights.sum()
        assert found[number] == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_a_sound_is_cut_and_filled_to_its_length_and_scaled() -> None:
    audio = Audio(RATE, 0.01, full_scale=1.0)
    whole = np.full(500, 16384, np.int16)
    assert prepare(whole, audio).tolist() == [0.5] * 160
    assert prepare(whole[:100], audio).tolist() == [0.5] * 100 + [0.0] * 60
    assert prepare(whole[:100], Audio(RATE)).tolist() == [16384.0] * 100
    assert prepare(read_pcm(b"\x00\x40\x00\x40\x01"), audio)[:2].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("dtype", ["int64", "uint16", "uint32", "bool", "float32", "float64"])
def test_samples_without_a_known_full_scale_are_refused(dtype: str) -> None:
    """PCM of 16 bits in another type would be silence, or so loud that every label is wrong."""
    pcm = (np.arange(500) * 60 - 15_000).astype(np.int16)
    assert len(prepare(pcm.astype(">i2"), SAME)) == 500
    with pytest.raises(BadInput, match=r"are not read|from -1 to 1; the largest here is 15000") as found:
        prepare(pcm.astype(dtype), SAME)
    assert "int16" in found.value.hint


def test_quiet_pcm_is_not_taken_for_a_very_loud_sound() -> None:
    """As a program sends the whole numbers of a silent room in JSON."""
    for quiet in ([3.0, -2.0, 5.0], [0.0, 2.0], [-200.0, 17.0, 0.0]):
        with pytest.raises(BadInput, match="must be from -1 to 1; the largest here is"):
            prepare(np.array(quiet), SAME)
    for right in ([0.0, 1.0, -1.0], [0.0, 0.0], [1.25, -0.5]):
        assert prepare(np.array(right), SAME).tolist() == [32768.0 * each for each in right]


def test_damaged_files_are_bad_input_and_nothing_else() -> None:
    good = written(RNG.uniform(-1, 1, (50, 2)), 2, 2, rate=22_050)
    cases = [good[:length] for length in range(len(good))]
    for _ in range(1500):
        data = bytearray(good)
        for place in RNG.integers(0, 60, RNG.integers(1, 6)):
            data[place] = RNG.integers(0, 256)
        cases.append(bytes(data))
    for data in cases:
        try:
            found = prepare(read_wav(data, Audio(RATE, 1.0)), Audio(RATE, 1.0))
        except BadInput:
            continue
        assert found.shape == (RATE,)
        assert np.isfinite(found).all()


@pytest.mark.parametrize("rate", [1_000, 1_009, 767_999, 768_000])
def test_no_rate_takes_memory_without_measure(rate: int) -> None:
    silence = np.broadcast_to(np.zeros(1, np.float32), (MAX_NUMBERS // 2,))
    with pytest.raises(BadInput):
        resample(silence, rate, 767_997 if rate < 2000 else 1_009)
