"""A hint about a file that is known names it, and its command makes a file that can be read."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import wave
from pathlib import Path

import pytest

from device_agent.shared.embedding import decode
from device_agent.shared.file_hints import named_in_hints, with_file
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.input_info import Audio, Input
from device_agent.shared.tabular.csv_reader import CsvParser
from device_agent.shared.tabular.inputs import open_source
from device_agent.shared.tabular.json_reader import JsonParser

ROOT = Path(__file__).parents[3]
TEXT = "width,height\n1.5,2\n3,-0.25\n"
CONTENTS = {
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-16 without a mark": TEXT.encode("utf-16-le"),
    "UTF-32": TEXT.encode("utf-32"),
    "UTF-32 without a mark": TEXT.encode("utf-32-be"),
    "a zero byte": TEXT.replace("2", "2\0").encode(),
    "gzip": gzip.compress(TEXT.encode()),
    "lines that end with CR": TEXT.replace("\n", "\r").encode(),
}
NAMES = ("rows.csv", "my rows.csv", "it's.csv", "-n.csv")


def read(path: Path, parser: CsvParser | JsonParser) -> list[list[float]]:
    """The rows of a file, as `classify --input` reads them."""
    rows: list[list[float]] = []
    with named_in_hints(path):
        source = open_source(str(path), "csv" if isinstance(parser, CsvParser) else "jsonl")
        try:
            for block in source.blocks():
                parsed = parser.parse(block)
                for number, message in parsed.errors.values():
                    raise BadInput(f"{source.where(number)}: {message}", hint=parsed.hint)
                rows += parsed.rows.tolist()
        finally:
            os.close(source.descriptor)
    return rows


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_what_the_hint_dictates_makes_rows(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput) as caught:
        read(tmp_path / name, CsvParser(("width", "height")))
    command = re.search(r"(?:iconv|tr|gzip) .*$", caught.value.hint)
    assert command, caught.value.hint
    subprocess.run(command[0], shell=True, check=True, cwd=tmp_path)
    assert (tmp_path / name).read_bytes() == content
    copy = tmp_path / f"{Path(name).stem}-clean.csv"
    assert read(copy, CsvParser(("width", "height"))) == [[1.5, 2.0], [3.0, -0.25]]


def sound(path: Path, *, channels: int, rate: int) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(b"\0\0" * channels * 100)
    return path


@pytest.mark.parametrize("rate", [16000, 500])
def test_a_sound_that_must_be_converted_is_named(rate: int, tmp_path: Path) -> None:
    path = sound(tmp_path / "a b.wav", channels=1, rate=rate)
    if rate == 16000:
        path.write_bytes(b"OggS" + path.read_bytes())
    with pytest.raises(BadInput) as caught, named_in_hints(path):
        decode.decode(path.read_bytes(), Input(audio=Audio(16000, 1.0, 1.0)))
    assert f"'{path}'" in caught.value.hint
    assert "FILE" not in caught.value.hint


def test_standard_input_and_names_that_cannot_be_printed_leave_the_placeholder() -> None:
    for name in (None, "-"):
        with pytest.raises(BadInput) as caught, named_in_hints(name):
            raise BadInput("x", hint="gzip -dc FILE > rows.csv")
        assert caught.value.hint == "gzip -dc FILE > rows.csv"
    assert with_file("head FILE", "a\nb") == with_file("head FILE", "\udcff") == "head FILE"


def test_every_copy_that_a_hint_names_gets_a_name_of_its_own() -> None:
    for path in sorted((ROOT / "device_agent/shared").rglob("*.py")):
        for found in re.findall(r"\bFILE > ([\w.]+)", path.read_text(encoding="utf-8")):
            assert found in ("rows.csv", "rows.jsonl"), f"{path}: with_file does not know {found}"
