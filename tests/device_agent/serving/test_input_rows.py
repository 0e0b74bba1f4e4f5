"""Raw inputs on a device: the stages of the release make rows of them, whatever the format."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from support.device import Device
from support.device_stream import Stream
from support.releases import Releases

from device_agent.shared.embedding.decode import from_json
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants
from device_agent.shared.release.model_file import read_info


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, releases: Releases) -> Device:
    made = Device(tmp_path_factory.mktemp("pixels") / "root", releases)
    made.install(releases["pixels"])
    return made


@pytest.fixture(scope="module")
def raw(releases: Releases) -> np.ndarray:
    """The first golden inputs of `pixels`."""
    found = Golden.from_bytes((releases["pixels"] / constants.GOLDEN_FILE).read_bytes())
    info = read_info(releases["pixels"] / constants.MODEL_FILE)
    assert info.input is not None
    lines = [json.loads(line)["input"] for line in found.raw.splitlines()[:70]]
    return np.stack([from_json(line, info.input) for line in lines])


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def test_every_format_of_an_input_has_the_same_label(device: Device, raw: np.ndarray, releases: Releases) -> None:
    golden = Golden.from_bytes((releases["pixels"] / constants.GOLDEN_FILE).read_bytes())
    pictures = raw.reshape(-1, 8, 8)
    csv = "".join(",".join(map(str, row)) + "\n" for row in raw.tolist())
    lines = "".join(json.dumps(row) + "\n" for row in pictures.tolist())
    files = [base64.b64encode(_npy(each)).decode() for each in pictures.astype(np.uint8)]
    coded = "".join(json.dumps({"input": each}) + "\n" for each in files)
    forms = {"npy": _npy(pictures), "csv": csv.encode(), "jsonl": lines.encode()}
    answers = [device.run("classify", "--format", f, "--output-format", "csv", input=data) for f, data in forms.items()]
    answers.append(device.run("classify", "--format", "jsonl", "--output-format", "csv", input=coded))
    answers += [device.run("classify", "--stream", "--output-format", "csv", input=text) for text in (csv, coded)]
    assert [said.err for said in answers] == [""] * 6
    assert len({said.out for said in answers}) == 1
    names = [str(name) for name in range(10)] + [constants.UNKNOWN_LABEL]
    agree = np.mean([names[code] == word for code, word in zip(golden.label, answers[0].out.split())])
    assert agree > 0.95, "a quantised stage may round otherwise here, and rarely moves a label"


def test_a_bad_input_gets_an_error_and_the_others_answers(device: Device, raw: np.ndarray) -> None:
    good = json.dumps(raw[0].tolist())
    bad = ("[1, 2]", '{"input": "%%%"}', '{"x": 1}', "[[1], [2, 3]]", '["a"]', "[1e39]", '{"input": 5}', "[" * 5000)
    claim = b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999,)}"
    bad += tuple(json.dumps({"input": base64.b64encode(data).decode()}) for data in (claim, claim[:7], b"", b"RIFF"))
    said = device.run("classify", "--stream", "--format", "jsonl", input="\n".join([good, *bad, good]) + "\n")
    found = [json.loads(line) for line in said.out.splitlines()]
    assert said.code == constants.EXIT_USAGE
    assert [sorted(each) for each in found] == [["label"], *[["error", "line"]] * len(bad), ["label"]]
    assert "Traceback" not in said.err


def test_a_value_that_is_kept_stands_before_the_label(device: Device, raw: np.ndarray) -> None:
    lines = "".join(json.dumps({"input": row, "id": number}) + "\n" for number, row in enumerate(raw[:3].tolist()))
    said = device.run("classify", "--format", "jsonl", "--keep", "id", "--output-format", "csv", input=lines)
    assert [line.split(",")[0] for line in said.out.splitlines()] == ["0", "1", "2"]


@pytest.mark.parametrize("shape", [(2, 63), (0,), (2, 0), (3, 2**40)])
def test_an_array_of_another_shape_is_refused(device: Device, shape: tuple[int, ...]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, header)
    said = device.run("classify", "--format", "npy", input=buffer.getvalue() + bytes(2 * 63 * 4))
    assert said.code == constants.EXIT_USAGE
    assert "Traceback" not in said.err
    assert said.out == ""


def test_stages_need_more_than_numpy(device: Device, raw: np.ndarray) -> None:
    said = device.run("classify", "--format", "npy", "--runtime", "numpy", input=_npy(raw[:1]))
    assert (said.code, said.out) == (1, "")
    assert "needs a TFLite runtime" in said.err


def test_a_stream_goes_on_with_the_stages_of_a_new_release(raw: np.ndarray, releases: Releases, tmp_path: Path) -> None:
    device = Device(tmp_path / "root", releases)
    device.install(releases["pixels"])
    swapped = releases.variant("pixels", tmp_path / "release", sequence=11, version="1.1.0")
    lines = [json.dumps(row) for row in raw[:4].tolist()]
    with Stream(device, "--digest") as stream:
        before = [json.loads(stream.ask(line)) for line in lines]
        new = device.install(swapped)
        after = [json.loads(stream.ask(line)) for line in lines]
        stream.finish()
    assert [each["label"] for each in before] == [each["label"] for each in after]
    assert {each["digest"] for each in after} == {new}


def test_the_bench_runs_the_stages_on_the_raw_inputs(device: Device) -> None:
    assert device.ask("bench", "--seconds", "0.1")["line"]["p50_ms"] > 0
