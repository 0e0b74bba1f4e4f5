"""Sounds: WAV and raw PCM to samples.

Reads PCM of 8, 16, 24 and 32 bits, float32 and float64, any number of channels (their mean), and headers with the wrong
length that programs write into a pipe. Another rate is resampled. Untrusted bytes; no I/O.
"""

from __future__ import annotations

import functools
import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.embedding.stage import MAX_NUMBERS
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.input_info import Audio

Float32 = NDArray[np.float32]

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
MAX_CHANNELS, _RATES = 64, (1_000, 768_000)
#: Zero crossings of the resampling kernel on each side; a Hann window ends it.
_CROSSINGS = 16
_MOST_WEIGHTS = 1 << 21
#: New samples that one matrix product makes of the same stretch of old ones.
_TOGETHER = 32
#: Types of samples in an array; whole numbers are PCM. Numbers beyond `_PEAK` are PCM that became floats.
_DTYPES, _PEAK = ("uint8", "int8", "int16", "int32", "float16", "float32", "float64"), 256.0
_PCM_BY_FFMPEG = "ffmpeg -i FILE -c:a pcm_s16le FILE.wav writes PCM"
#: Recorders that cannot know the length write 0x7ffff000 or 0xffffffff.
_STREAMED = 0x7FFF0000


def is_wav(data: bytes) -> bool:
    """Whether bytes begin as a WAV file does."""
    return data.startswith(b"RIFF") and data[8:12] == b"WAVE"


def read_wav(data: bytes, audio: Audio) -> NDArray[Any]:
    """Returns the (n,) samples of a WAV file at the model's rate.

    They are int16 if the file has 16-bit PCM, one channel and the model's rate. In other cases they are float32, and
    the full scale of PCM becomes 1. If the model takes sounds of one length, reads only that length and a second more.

    Raises:
        BadInput: the file is damaged, or has an unsupported format.
    """
    form, samples = _chunks(data)
    if len(form) < 16:
        raise BadInput("the WAV file has no format chunk (fmt)")
    kind, channels, rate, _, frame, bits = struct.unpack_from("<HHLLHH", form)
    if kind == _EXTENSIBLE and len(form) >= 26:
        kind = struct.unpack_from("<H", form, 24)[0]
    if not (1 <= channels <= MAX_CHANNELS and _RATES[0] <= rate <= _RATES[1]):
        said = f"a WAV file of {channels} channels at {rate} Hz is not supported"
        hint = f"ffmpeg -i FILE -ac 1 -ar {audio.rate} FILE.wav writes one channel at the model's rate"
        raise BadInput(said, hint=hint)
    if kind in (_PCM, _FLOAT) and frame > channels * -(-bits // 8):  # 24 bits in 32: which, the header does not say
        said = f"a WAV file with {bits} bits of a sample in {frame / channels * 8:g} is not supported"
        raise BadInput(said, hint=_PCM_BY_FFMPEG)
    mono = _mixed(_samples(samples, kind, bits), channels)
    if audio.seconds is not None:
        mono = mono[: math.ceil((audio.seconds + 1.0) * rate)]
    return mono if rate == audio.rate else resample(_unit(mono), rate, audio.rate)


def one_channel(shape: tuple[int, ...]) -> str:
    """Returns a hint: what to type to make one channel of an array with two axes; whole numbers stay PCM."""
    axis = int(shape[1] < shape[0])  # that of the channels, of which there are fewer than samples
    return f"numpy.save('mono.npy', samples.mean(axis={axis}).astype(samples.dtype)) writes one channel"


def read_pcm(data: bytes) -> NDArray[np.int16]:
    """Returns the (n,) int16 samples of raw PCM at the model's rate: little-endian, mono; ignores a last odd byte."""
    return np.frombuffer(data, "<i2", len(data) // 2).astype(np.int16)


def prepare(samples: NDArray[Any], audio: Audio) -> Float32:
    """Returns the (n,) float32 input of the first stage, whose full scale is `audio.full_scale`.

    Integer samples are PCM; float samples have a full scale of 1. If `audio.seconds` is given, a longer sound is cut to
    it, and a shorter one is filled with silence.

    Raises:
        BadInput: the array is empty, has more than one axis or an unsupported type, or has floats that seem to be
            unscaled PCM: one is above 256, or all are whole numbers and one is above 1.
    """
    if samples.ndim != 1 or not len(samples):
        said = f"a sound must be an array (samples,); this has the shape {samples.shape}"
        hint = one_channel(samples.shape) if samples.ndim == 2 else ""
        raise BadInput(said if samples.size else "the sound has no samples", hint=hint)
    if samples.dtype.name not in _DTYPES:
        raise BadInput(f"samples of {samples.dtype} are not read", hint="convert to int16, or to float32 from -1 to 1")
    found = _unit(samples)
    peak = float(np.abs(found).max()) if samples.dtype.kind == "f" else 0.0
    if peak > _PEAK or (peak > 1.0 and bool((found == np.rint(found)).all())):
        said = f"samples that are not PCM must be from -1 to 1; the largest here is {peak:g}"
        raise BadInput(said, hint='divide PCM of 16 bits by 32768, or give it as int16 or {"pcm": "BASE64"}')
    found = found * np.float32(audio.full_scale)
    if audio.seconds is None:
        return found
    length = round(audio.seconds * audio.rate)
    return np.pad(found[:length], (0, max(0, length - len(found))))


def resample(samples: Float32, old: int, new: int) -> Float32:
    """Returns (n,) samples at the rate `new`, converted from the rate `old` (Hz), by a windowed sinc filter.

    Raises:
        BadInput: the rates have too small a common divisor (the filter is too large), or the result is too long.
    """
    if not len(samples):
        return samples
    common = math.gcd(old, new)
    up, down = new // common, old // common
    count = -(-len(samples) * up // down)
    half = math.ceil(_CROSSINGS * max(1.0, down / up))
    if up * (2 * half + 1) > _MOST_WEIGHTS or count > MAX_NUMBERS:
        said = f"{len(samples):,} samples at {old} Hz cannot be resampled to {new} Hz"
        raise BadInput(said, hint=f"sox FILE -r {new} FILE.wav")
    period = up * -(-_TOGETHER // up)  # new samples a period apart lie alike between old ones
    step, rows = period // up * down, -(-count // period)
    found = np.empty((rows, period), np.float32)
    wide = ((_TOGETHER - 1) * down + up - 1) // up + 2 * half + 1
    padded = np.pad(samples, (half, half + rows * step - len(samples) + wide))
    views = np.lib.stride_tricks.sliding_window_view(padded, wide)
    some = max(1, _MOST_WEIGHTS // wide)
    for first, (start, weights) in zip(range(0, period, _TOGETHER), _filters(up, down, half, period)):
        near = views[start::step, : len(weights)][:rows]
        for row in range(0, rows, some):
            found[row : row + some, first : first + _TOGETHER] = near[row : row + some] @ weights
    return found.reshape(-1)[:count]


@functools.lru_cache(maxsize=4)
def _filters(up: int, down: int, half: int, period: int) -> list[tuple[int, Float32]]:
    """Returns `_weights` for each `_TOGETHER` of the first `period` new samples; later samples repeat these filters."""
    starts = range(0, period, _TOGETHER)
    return [_weights(up, down, half, first, min(first + _TOGETHER, period)) for first in starts]


def _weights(up: int, down: int, half: int, first: int, last: int) -> tuple[int, Float32]:
    """Returns the filter that computes the new samples from `first` to before `last` from old ones.

    `up` new samples replace `down` old ones, and depend on old ones less than `half` away. Returns the index of the
    first old sample to use, in old samples padded with `half` zeros, and (old samples, new samples) weights, whose
    columns sum to 1.
    """
    place, position = np.divmod(np.arange(first, last) * down, up)
    reach = np.arange(2 * half + 1)
    gap = position[:, None] / up - (reach - half)
    cut = min(1.0, up / down)
    window = np.where(np.abs(gap) < half, 0.5 + 0.5 * np.cos(np.pi * gap / half), 0.0)
    weights = np.sinc(cut * gap) * window
    near = (place - place[0])[:, None] + reach
    found = np.zeros((near[-1, -1] + 1, len(place)), np.float32)
    found[near, np.arange(len(place))[:, None]] = weights / weights.sum(axis=1, keepdims=True)
    return int(place[0]), found


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    """Returns the format chunk (b"" if there is none) and the sample bytes of a WAV file.

    A recorder that does not know the length of the sound states the length 0, or a length from `_STREAMED` on: then all
    bytes to the end are samples. If whole chunks follow a length of 0, the sound is empty.
    """
    place, form = 12, b""
    while place + 8 <= len(data):
        name, size = data[place : place + 4], struct.unpack_from("<L", data, place + 4)[0]
        if name == b"fmt ":
            form = data[place + 8 : place + 8 + min(size, 40)]
        if name == b"data":
            there = len(data) - place - 8
            if there < size < _STREAMED:
                hint = "copy the file again; while a sound is still being recorded, its header must give the length 0"
                raise BadInput(f"the WAV file is cut off: it has {there:,} of {size:,} bytes of samples", hint=hint)
            return form, data[place + 8 : place + 8 + size] if size or _are_chunks(data[place:]) else data[place + 8 :]
        place += 8 + size + size % 2
    raise BadInput("the WAV file has no samples")


def _are_chunks(data: bytes) -> bool:
    """Whether the bytes are chunks to their end, each with a name of printable letters, such as LIST."""
    place = 0
    while place < len(data):
        name = data[place : place + 4]
        if len(data) < place + 8 or not (name.isascii() and name.decode().isprintable()):
            return False
        size = struct.unpack_from("<L", data, place + 4)[0]
        place += 8 + size + size % 2
    return place <= len(data) + 1


def _samples(data: bytes, kind: int, bits: int) -> NDArray[Any]:
    if kind == _FLOAT and bits in (32, 64):
        found = np.frombuffer(data, f"<f{bits // 8}", len(data) // (bits // 8))
        with np.errstate(over="ignore"):
            return np.nan_to_num(found.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    if kind != _PCM or bits not in (8, 16, 24, 32):
        said = f"a WAV file of format {kind} with {bits} bits is not supported"
        raise BadInput(said, hint=_PCM_BY_FFMPEG)
    if bits == 16:
        return read_pcm(data)
    if bits == 8:
        return _unit(np.frombuffer(data, np.uint8))
    if bits == 32:
        return _unit(np.frombuffer(data, "<i4", len(data) // 4))
    triples = np.frombuffer(data, np.uint8, len(data) // 3 * 3).reshape(-1, 3)
    whole = np.zeros((len(triples), 4), np.uint8)
    whole[:, 1:] = triples
    return _unit(whole.view("<i4")[:, 0])


def _mixed(samples: NDArray[Any], channels: int) -> NDArray[Any]:
    if channels == 1:
        return samples
    frames = _unit(samples[: len(samples) // channels * channels]).reshape(-1, channels)
    return np.asarray(frames.mean(axis=1), np.float32)


def _unit(samples: NDArray[Any]) -> Float32:
    """Returns samples as float32: divides integers by their full scale (128 for 8 bits); floats are unchanged."""
    if samples.dtype.kind == "f":
        return np.asarray(samples, np.float32)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / np.float32(128.0)
    return samples.astype(np.float32) * np.float32(2.0 ** (1 - 8 * samples.dtype.itemsize))
